//! Durations, look by look.
//!
//! A native histogram where the source has one, else classic buckets. Native histograms with
//! explicit bounds count as long as there are none with exponential ones.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use slogate_series::{Buckets, Histogram, Labels, Series, Value};

use super::explicit::{Cumulative, Shared};
use super::grid::grid;
use super::increases::Stand;
use super::track::{Fresh, Question, Track, Window};
use super::{Gathered, Whose};
use crate::model::Target;
use crate::source::{Mapping, MetricSource, SourceError};

/// Gathers how long the requests of one span kind take, in seconds, look by look.
#[derive(Debug)]
pub(crate) struct Durations {
    question: Question,
    from_ms: i64,
    cut_ms: i64,
    form: Form,
    gathered: Gathered<Histogram>,
    restarts: u64,
}

/// As what the source has durations.
#[derive(Debug)]
enum Form {
    Native(Box<Native>),
    Classic(Box<Classic>),
}

#[derive(Debug)]
struct Native {
    main: Track,
    /// The same by instance, where other series have them.
    beside: Option<Track>,
    has_exponential: bool,
    leaves_explicit_out: bool,
    shared: Shared,
}

#[derive(Debug)]
struct Classic {
    main: Track,
    /// The bounds of each histogram, ascending, with the series that has each.
    bounds: HashMap<Labels, Vec<(f64, Labels)>>,
    shared: Shared,
}

/// What a look read.
struct Read {
    main: Fresh,
    beside: Fresh,
    is_native: bool,
}

impl Durations {
    /// Nothing gathered yet, from `from_ms` on.
    pub(crate) fn new(mapping: &Mapping, target: &Target, span_kind: &str, from_ms: i64) -> Self {
        Durations {
            question: Question {
                target: target.clone(),
                span_kind: span_kind.to_owned(),
            },
            from_ms,
            cut_ms: from_ms,
            form: Form::Native(Box::new(Native::new(mapping))),
            gathered: Gathered::default(),
            restarts: 0,
        }
    }

    /// Brings what is gathered up to `now_ms`.
    ///
    /// # Errors
    /// When the source can't answer; what was gathered stays as it was.
    pub(crate) async fn look(
        &mut self,
        source: &dyn MetricSource,
        now_ms: i64,
    ) -> Result<(), SourceError> {
        let mapping = source.mapping();
        loop {
            let read = self.read(source, now_ms).await?;
            if matches!(self.form, Form::Native(_)) != read.is_native {
                if self.cut_ms > self.from_ms {
                    self.start_over(mapping);
                    continue;
                }
                self.form = match read.is_native {
                    true => Form::Native(Box::new(Native::new(mapping))),
                    false => Form::Classic(Box::new(Classic::new(mapping))),
                };
            }
            if self.take_in(mapping, &read, now_ms) {
                return Ok(());
            }
            self.start_over(mapping);
        }
    }

    /// What is gathered, to be given back before the next look.
    pub(crate) fn lend(&mut self) -> Gathered<Histogram> {
        std::mem::take(&mut self.gathered)
    }

    /// Takes back what was lent.
    pub(crate) fn give_back(&mut self, gathered: Gathered<Histogram>) {
        self.gathered = gathered;
    }

    /// How often what was gathered before a look has changed with it.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts
    }

    fn start_over(&mut self, mapping: &Mapping) {
        let Question { target, span_kind } = &self.question;
        *self = Durations {
            restarts: self.restarts + 1,
            ..Durations::new(mapping, target, span_kind, self.from_ms)
        };
    }

    async fn read(&self, source: &dyn MetricSource, now_ms: i64) -> Result<Read, SourceError> {
        let mapping = source.mapping();
        let window = Window {
            from_ms: self.from_ms,
            cut_ms: self.cut_ms,
            now_ms,
        };
        let question = &self.question;
        let read = async |track: &Track| track.read(source, question, window).await;
        let new;
        let native = match &self.form {
            Form::Native(native) => native.as_ref(),
            Form::Classic(_) => {
                new = Native::new(mapping);
                &new
            }
        };
        let main = read(&native.main).await?;
        let is_native = native.main.is_known() || main.series.iter().any(is_native);
        if !is_native {
            let main = match &self.form {
                Form::Classic(classic) => read(&classic.main).await?,
                Form::Native(_) => read(&Classic::new(mapping).main).await?,
            };
            return Ok(Read {
                main,
                beside: Fresh::default(),
                is_native,
            });
        }
        let is_told = native.main.names_instances()
            || main
                .series
                .iter()
                .any(|one| mapping.instance_in(&one.labels).is_some());
        let beside = match native.beside.as_ref().filter(|_| !is_told) {
            Some(track) => read(track).await?,
            None => Fresh::default(),
        };
        Ok(Read {
            main,
            beside,
            is_native,
        })
    }

    /// False where what was taken in for good has turned out to be otherwise.
    fn take_in(&mut self, mapping: &Mapping, read: &Read, now_ms: i64) -> bool {
        let (target, cut_ms) = (&self.question.target, self.cut_ms);
        let is_first = cut_ms == self.from_ms;
        let main = match &mut self.form {
            Form::Native(native) => &mut native.main,
            Form::Classic(classic) => &mut classic.main,
        };
        let named = main.names_instances();
        if !main.meet(mapping, target, &read.main) {
            return false;
        }
        let cut = grid(main.typical());
        let gathered = &mut self.gathered;
        let is_other = cut != gathered.grid || named != main.names_instances();
        if is_first {
            *gathered = Gathered::default();
            gathered.grid = cut;
        } else if is_other {
            return false;
        }
        gathered.drop_from(cut.block_of(cut_ms + 1));
        gathered.warnings.clone_from(&read.main.warnings);
        gathered.warnings.extend_from_slice(&read.beside.warnings);
        for (version, t_ms) in read.main.seen(main) {
            gathered.blocks(version).saw(t_ms);
        }
        let next_ms = cut.settled_ms(now_ms).max(cut_ms);
        let step = Step {
            from_ms: self.from_ms,
            cut_ms: next_ms,
            is_first,
            unit_s: mapping.duration_unit_s,
        };
        let is_done = match &mut self.form {
            Form::Native(native) => {
                let beside = native.beside.as_mut();
                beside.is_none_or(|track| track.meet(mapping, target, &read.beside))
                    && native.add(gathered, read, &step)
            }
            Form::Classic(classic) => classic.add(gathered, &read.main, &step),
        };
        self.cut_ms = next_ms;
        is_done
    }
}

/// How far a look goes.
struct Step {
    from_ms: i64,
    /// Up to where samples are taken in for good now.
    cut_ms: i64,
    /// Whether nothing was taken in for good before.
    is_first: bool,
    unit_s: f64,
}

impl Native {
    fn new(mapping: &Mapping) -> Self {
        let beside = mapping.by_instance.as_ref();
        Native {
            main: Track::new(mapping.duration.clone(), false),
            beside: beside.map(|metrics| Track::new(metrics.duration.clone(), false)),
            has_exponential: false,
            leaves_explicit_out: false,
            shared: Shared::default(),
        }
    }

    fn add(&mut self, gathered: &mut Gathered<Histogram>, read: &Read, step: &Step) -> bool {
        let had_exponential = self.has_exponential;
        let grid = gathered.grid;
        let mut explicit = Vec::new();
        let tracks = [Some((&mut self.main, &read.main, false)), {
            let beside = self.beside.as_mut();
            beside.map(|track| (track, &read.beside, true))
        }];
        for (track, fresh, is_beside) in tracks.into_iter().flatten() {
            let has_exponential = &mut self.has_exponential;
            let nameless = track.names_instances().then_some("");
            let (from_ms, cut_ms) = (step.from_ms, step.cut_ms);
            track.increases(
                fresh,
                from_ms,
                cut_ms,
                Stand::histogram,
                |who, t_ms, one| {
                    let Some(version) = who.version_at(t_ms) else {
                        return;
                    };
                    let whose = Whose {
                        version,
                        instance: who.instance.as_deref().or(nameless),
                        is_beside,
                    };
                    let block = grid.block_of(t_ms);
                    if one.has_custom_bounds() {
                        explicit.push(Cumulative::of(whose, block, &one));
                    } else {
                        *has_exponential = true;
                        gathered.add(whose, block, &scaled(one, step.unit_s));
                    }
                },
            );
        }
        if self.has_exponential {
            self.leaves_explicit_out |= !explicit.is_empty();
            if self.leaves_explicit_out {
                gathered.warnings.push(
                    "native histograms with explicit bounds are left out: others have \
                     exponential ones"
                        .to_owned(),
                );
            }
            return had_exponential || step.is_first || self.shared.is_empty();
        }
        self.shared.add_all(gathered, &explicit, step.unit_s) || step.is_first
    }
}

impl Classic {
    fn new(mapping: &Mapping) -> Self {
        Classic {
            main: Track::new(format!("{}_bucket", mapping.duration), true),
            bounds: HashMap::new(),
            shared: Shared::default(),
        }
    }

    fn add(&mut self, gathered: &mut Gathered<Histogram>, fresh: &Fresh, step: &Step) -> bool {
        if !self.note_bounds(fresh, step.is_first) {
            return false;
        }
        type Key = (Labels, String, i64);
        type OfInstance = (Option<Arc<str>>, Vec<(f64, f64)>);
        let mut by_block: BTreeMap<Key, OfInstance> = BTreeMap::new();
        let (grid, bounds) = (gathered.grid, &self.bounds);
        let nameless = self.main.names_instances().then(|| Arc::from(""));
        let (from_ms, cut_ms) = (step.from_ms, step.cut_ms);
        let main = &mut self.main;
        main.increases(
            fresh,
            from_ms,
            cut_ms,
            Stand::float,
            |who, t_ms, increase| {
                let (Some(version), Some((group, bound))) = (who.version_at(t_ms), &who.bucket)
                else {
                    return;
                };
                let Some(bounds) = bounds
                    .get(group)
                    .filter(|bounds| ends_with_infinity(bounds))
                else {
                    return;
                };
                let key = (group.clone(), version.to_owned(), grid.block_of(t_ms));
                let empty = || bounds.iter().map(|(bound, _)| (*bound, 0.0)).collect();
                let (_, counts) = by_block
                    .entry(key)
                    .or_insert_with(|| (who.instance.clone().or(nameless.clone()), empty()));
                let at = counts.binary_search_by(|(known, _)| known.total_cmp(bound));
                if let Some((_, count)) = at.ok().and_then(|at| counts.get_mut(at)) {
                    *count += increase;
                }
            },
        );
        let explicit: Vec<Cumulative> = by_block
            .into_iter()
            .map(|((_, version, block), (instance, counts))| Cumulative {
                version,
                instance,
                is_beside: false,
                block,
                counts,
            })
            .collect();
        self.shared.add_all(gathered, &explicit, step.unit_s) || step.is_first
    }

    /// Learns which buckets each histogram has; false where one has got another since, so that
    /// its earlier counts have to be read again.
    fn note_bounds(&mut self, fresh: &Fresh, is_first: bool) -> bool {
        let (mut is_same, mut new) = (true, HashSet::new());
        for one in &fresh.series {
            let who = self.main.who(&one.labels);
            let Some((group, bound)) = who.and_then(|who| who.bucket.clone()) else {
                continue;
            };
            if !self.bounds.contains_key(&group) {
                new.insert(group.clone());
            }
            is_same &= new.contains(&group) || is_first || self.knows(&group, bound);
            let bounds = self.bounds.entry(group).or_default();
            match bounds.binary_search_by(|(known, _)| known.total_cmp(&bound)) {
                Err(at) => bounds.insert(at, (bound, one.labels.clone())),
                // The same bound in other words, as `1` and `1.0`, is no bucket of its own.
                Ok(at)
                    if bounds
                        .get(at)
                        .is_some_and(|(_, owner)| *owner != one.labels) =>
                {
                    self.main.forget_bucket(&one.labels);
                }
                Ok(_) => {}
            }
        }
        is_same
    }

    fn knows(&self, group: &Labels, bound: f64) -> bool {
        let bounds = self.bounds.get(group);
        bounds.is_some_and(|bounds| bounds.iter().any(|(known, _)| *known == bound))
    }
}

fn ends_with_infinity(bounds: &[(f64, Labels)]) -> bool {
    bounds
        .last()
        .is_some_and(|(bound, _)| *bound == f64::INFINITY)
}

fn is_native(series: &Series) -> bool {
    let mut samples = series.samples.iter();
    samples.any(|sample| matches!(sample.value, Value::Histogram(_)))
}

/// An exponential histogram in seconds: a factor moves its buckets, by whole ones at most one
/// bucket too far.
fn scaled(histogram: Histogram, unit_s: f64) -> Histogram {
    if unit_s == 1.0 {
        return histogram;
    }
    let shift = (unit_s.log2() * f64::from(histogram.schema).exp2()).round() as i32;
    let moved = histogram
        .positive
        .iter()
        .map(|(at, count)| (at.saturating_add(shift), count));
    Histogram {
        sum: histogram.sum * unit_s,
        zero_threshold: histogram.zero_threshold * unit_s,
        positive: Buckets::from_sorted(moved.collect()),
        ..histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_of_a_native_histogram_become_seconds() {
        let histogram = Histogram {
            schema: 3,
            count: 1.0,
            positive: Buckets::from_sorted(vec![(
                slogate_series::histogram::bucket_index(3, 250.0),
                1.0,
            )]),
            ..Histogram::default()
        };
        let median = scaled(histogram, 1e-3).quantile(0.5).unwrap();
        assert!((0.22..0.28).contains(&median), "{median}");
    }
}
