//! What a query reads, found out before it is evaluated.
//!
//! The tree itself is the plan of how to compute; what it does not show is that two selectors
//! ask the store the same: the same matchers over the same time. Those share one read. The
//! first to ask reads and keeps a copy, the others are given the copy, and with the last one
//! it goes. A copy that grows too large is given up, and each then reads for itself: series
//! that are folded as they come must not end up in memory because they are asked for twice.
//!
//! Everything else that is done once per query needs no plan: a selector is evaluated once for
//! all steps, with labels worked out once per series; parts that don't depend on the step are
//! computed for one; parameters are computed before what they are parameters of.

use std::rc::Rc;

use slogate_series::{Labels, Matcher};

use crate::ast::{Expr, ExprKind};
use crate::eval::stream::Read;
use crate::eval::{EvalError, Evaluator, Grid, select};
use crate::queryable::Samples;

/// The most samples that are kept for another selector: 48 MB of floats.
const SHARED_SAMPLES_MAX: usize = 2_000_000;

/// The questions that a query asks of the store more than once.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    shared: Vec<Shared>,
}

#[derive(Debug)]
struct Shared {
    matchers: Vec<Matcher>,
    start_ms: i64,
    end_ms: i64,
    /// How many selectors have yet to ask.
    uses: usize,
    copy: Copied,
}

/// Series with their samples, as the store gave them.
pub(crate) type Answer = Rc<Vec<(Labels, Samples)>>;

#[derive(Debug)]
enum Copied {
    NotYet,
    Held(Answer, usize),
    TooLarge,
}

/// How a selector comes by its series.
pub(crate) enum Way {
    /// From the store, for itself.
    Alone,
    /// From the store; a copy is to be given to [`Plan::keep`].
    First(usize),
    /// As others read them; samples to be released with it.
    Again(Answer, usize),
}

impl Plan {
    fn note(&mut self, read: Read) {
        let found = self.find(&read);
        match found.and_then(|at| self.shared.get_mut(at)) {
            Some(shared) => shared.uses += 1,
            None => self.shared.push(Shared {
                matchers: read.matchers,
                start_ms: read.start_ms,
                end_ms: read.end_ms,
                uses: 1,
                copy: Copied::NotYet,
            }),
        }
    }

    fn find(&self, read: &Read) -> Option<usize> {
        self.shared.iter().position(|shared| {
            shared.start_ms == read.start_ms
                && shared.end_ms == read.end_ms
                && shared.matchers == read.matchers
        })
    }

    /// How to answer `read`, which is counted as asked.
    pub(crate) fn way(&mut self, read: &Read) -> Way {
        let found = self.find(read);
        let Some((at, shared)) = found.and_then(|at| Some((at, self.shared.get_mut(at)?))) else {
            return Way::Alone;
        };
        shared.uses = shared.uses.saturating_sub(1);
        let is_last = shared.uses == 0;
        match &shared.copy {
            Copied::Held(answer, held) => {
                let (answer, held) = (answer.clone(), *held);
                if is_last {
                    shared.copy = Copied::TooLarge;
                    return Way::Again(answer, held);
                }
                Way::Again(answer, 0)
            }
            Copied::NotYet if !is_last => Way::First(at),
            Copied::NotYet | Copied::TooLarge => Way::Alone,
        }
    }

    /// Takes the copy of what was read, or that it was too large.
    pub(crate) fn keep(&mut self, at: usize, copy: Option<Copy>) {
        if let Some(shared) = self.shared.get_mut(at) {
            shared.copy = match copy {
                Some(copy) => Copied::Held(Rc::new(copy.series), copy.samples),
                None => Copied::TooLarge,
            };
        }
    }
}

/// A copy in the making.
#[derive(Debug, Default)]
pub(crate) struct Copy {
    series: Vec<(Labels, Samples)>,
    pub(crate) samples: usize,
}

impl Copy {
    /// Adds a series; false where that makes the copy too large.
    pub(crate) fn push(&mut self, labels: &Labels, samples: &Samples) -> bool {
        self.samples += samples.size();
        self.series.push((labels.clone(), samples.clone()));
        self.samples <= SHARED_SAMPLES_MAX
    }
}

impl Evaluator<'_> {
    /// Looks at what `expr` will read. What is wrong with it shows when it is evaluated.
    pub(crate) fn make_plan(&mut self, expr: &Expr, grid: Grid) {
        let mut plan = Plan::default();
        if self.note_reads(expr, grid, &mut plan).is_ok() {
            plan.shared.retain(|shared| shared.uses > 1);
            self.plan = plan;
        }
    }

    fn note_reads(&self, expr: &Expr, grid: Grid, plan: &mut Plan) -> Result<(), EvalError> {
        let grid = match grid.steps > 1 && select::is_worth_computing_once(expr) {
            true => Grid { steps: 1, ..grid },
            false => grid,
        };
        match &expr.kind {
            ExprKind::Vector(selector) => plan.note(self.newest_reading(selector, grid)?.0),
            ExprKind::Matrix(matrix) => plan.note(self.range_reading(matrix, grid)?.0),
            ExprKind::Subquery(subquery) => {
                let (_, inner) = self.subquery_grid(subquery, grid)?;
                if inner.steps > 0 {
                    self.note_reads(&subquery.expr, inner, plan)?;
                }
            }
            // Its second argument is no question by itself.
            ExprKind::Call(call) if call.function.name == "info" => {
                if let Some(arg) = call.args.first() {
                    self.note_reads(arg, grid, plan)?;
                }
            }
            _ => {
                for part in expr.children() {
                    self.note_reads(part, grid, plan)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use slogate_series::Series;

    use super::*;
    use crate::eval::testing::{engine, steady, value_lines};
    use crate::{Queryable, QueryableError};

    /// Counts how often it is asked.
    struct Counting(Vec<Series>, Cell<usize>);

    impl Queryable for Counting {
        fn select(&self, m: &[Matcher], from: i64, to: i64) -> Result<Vec<Series>, QueryableError> {
            self.1.set(self.1.get() + 1);
            self.0.select(m, from, to)
        }
    }

    fn reads(query: &str) -> usize {
        let series = vec![
            steady("x{i=\"a\"}", &[1.0; 80]),
            steady("x{i=\"b\"}", &[2.0; 80]),
        ];
        let store = Counting(series, Cell::new(0));
        let counted = engine()
            .range(query, &store, 600_000, 900_000, 60_000)
            .unwrap();
        // Each step asked for alone shares nothing with others.
        let last = engine().instant(query, &store.0, 900_000).unwrap();
        let (counted, last) = (value_lines(&counted.value), value_lines(&last.value));
        let strip = |line: &str| line.split(' ').next_back().unwrap_or("").to_owned();
        let ends: Vec<String> = counted
            .iter()
            .map(|l| strip(l).replace("@900", ""))
            .collect();
        assert_eq!(
            ends,
            last.iter().map(|l| strip(l)).collect::<Vec<_>>(),
            "{query}"
        );
        store.1.get()
    }

    #[test]
    fn the_same_question_is_asked_once() {
        for (query, expected) in [
            ("x", 1),
            ("x + x", 1),
            ("sum(x) / count(x)", 1),
            ("sum(rate(x[5m])) / count(increase(x[5m]))", 1),
            ("x + x + x{i=~\".+\"}", 2),
            ("x - x offset 1m", 2),
            ("rate(x[5m]) + rate(x[1m])", 2),
            ("max_over_time(x[5m:1m]) + max_over_time(x[5m:1m])", 1),
            ("x @ 300 + x", 2),
            ("x @ 300 + x @ 300", 1),
        ] {
            assert_eq!(reads(query), expected, "{query}");
        }
    }
}
