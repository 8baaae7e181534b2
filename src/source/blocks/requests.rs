//! Requests and failed requests, look by look.

use super::grid::{Grid, grid};
use super::increases::Stand;
use super::track::{Fresh, Question, Track, Window};
use super::{Counts, Gathered, Whose};
use crate::model::Target;
use crate::source::{Mapping, MetricSource, SourceError};

/// Gathers the requests of one span kind, look by look.
#[derive(Debug)]
pub(crate) struct Requests {
    question: Question,
    from_ms: i64,
    cut_ms: i64,
    main: Track,
    /// The same requests by instance, where other series have them.
    beside: Option<Track>,
    gathered: Gathered<Counts>,
    restarts: u64,
}

impl Requests {
    /// Nothing gathered yet, from `from_ms` on.
    pub(crate) fn new(mapping: &Mapping, target: &Target, span_kind: &str, from_ms: i64) -> Self {
        let beside = mapping.by_instance.as_ref();
        Requests {
            question: Question {
                target: target.clone(),
                span_kind: span_kind.to_owned(),
            },
            from_ms,
            cut_ms: from_ms,
            main: Track::new(mapping.count.clone(), false),
            beside: beside.map(|metrics| Track::new(metrics.count.clone(), false)),
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
            let window = Window {
                from_ms: self.from_ms,
                cut_ms: self.cut_ms,
                now_ms,
            };
            let main = self.main.read(source, &self.question, window).await?;
            let is_told = self.main.names_instances()
                || main
                    .series
                    .iter()
                    .any(|one| mapping.instance_in(&one.labels).is_some());
            let beside = match self.beside.as_ref().filter(|_| !is_told) {
                Some(track) => track.read(source, &self.question, window).await?,
                None => Fresh::default(),
            };
            if self.take_in(mapping, &main, &beside, now_ms) {
                return Ok(());
            }
            self.start_over(mapping);
        }
    }

    /// What is gathered, to be given back before the next look.
    pub(crate) fn lend(&mut self) -> Gathered<Counts> {
        std::mem::take(&mut self.gathered)
    }

    /// Takes back what was lent.
    pub(crate) fn give_back(&mut self, gathered: Gathered<Counts>) {
        self.gathered = gathered;
    }

    /// How often what was gathered before a look has changed with it.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts
    }

    fn start_over(&mut self, mapping: &Mapping) {
        let Question { target, span_kind } = &self.question;
        *self = Requests {
            restarts: self.restarts + 1,
            ..Requests::new(mapping, target, span_kind, self.from_ms)
        };
    }

    /// False where what was taken in for good has turned out to be otherwise.
    fn take_in(&mut self, mapping: &Mapping, main: &Fresh, beside: &Fresh, now_ms: i64) -> bool {
        let (target, cut_ms) = (&self.question.target, self.cut_ms);
        let is_first = cut_ms == self.from_ms;
        let named = self.main.names_instances();
        if !self.main.meet(mapping, target, main) {
            return false;
        }
        let cut = grid(self.main.typical());
        let gathered = &mut self.gathered;
        let is_other = cut != gathered.grid || named != self.main.names_instances();
        if is_first {
            *gathered = Gathered::default();
            gathered.grid = cut;
        } else if is_other {
            return false;
        }
        gathered.drop_from(cut.block_of(cut_ms + 1));
        gathered.warnings.clone_from(&main.warnings);
        let next_ms = cut.settled_ms(now_ms).max(cut_ms);
        for (version, t_ms) in main.seen(&self.main) {
            gathered.blocks(version).saw(t_ms);
        }
        add(gathered, &mut self.main, main, self.from_ms, next_ms, false);
        if let Some(track) = &mut self.beside {
            if !track.meet(mapping, target, beside) {
                return false;
            }
            gathered.warnings.extend_from_slice(&beside.warnings);
            add(gathered, track, beside, self.from_ms, next_ms, true);
        }
        self.cut_ms = next_ms;
        true
    }
}

fn add(
    gathered: &mut Gathered<Counts>,
    track: &mut Track,
    fresh: &Fresh,
    from_ms: i64,
    cut_ms: i64,
    is_beside: bool,
) {
    let grid: Grid = gathered.grid;
    let nameless = track.names_instances().then_some("");
    track.increases(fresh, from_ms, cut_ms, Stand::float, |who, t_ms, total| {
        if let Some(version) = who.version_at(t_ms) {
            let whose = Whose {
                version,
                instance: who.instance.as_deref().or(nameless),
                is_beside,
            };
            let errors = if who.is_error { total } else { 0.0 };
            gathered.add(whose, grid.block_of(t_ms), &Counts { total, errors });
        }
    });
}
