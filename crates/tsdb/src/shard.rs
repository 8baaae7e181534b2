//! A shard of the head: the series whose label hash falls to it, with their own symbols and
//! index, under one lock.
//!
//! A series' number within its shard only grows and is never given again, so that a
//! reference to a collected series can't reach another one. Series live in pages of
//! [`PAGE`] slots; a page goes when the last of its series has gone.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet, HashTable};
use slogate_series::{Label, Labels, Matcher};

use crate::index::{Candidates, Index, Pair};
use crate::series::{MemSeries, Tally};
use crate::symbols::{Symbol, Symbols};

/// Series in a page.
const PAGE: u32 = 64;

#[derive(Debug)]
struct Page {
    slots: Vec<Option<MemSeries>>,
    live: u32,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) symbols: Symbols,
    index: Index,
    /// Numbers with half of their labels' hash, which is what a growing table needs.
    by_labels: HashTable<(u32, u32)>,
    pages: VecDeque<Option<Page>>,
    /// The number of the first slot of the first page.
    first: u32,
    next: u32,
    pub(crate) tally: Tally,
}

impl Shard {
    /// The number of the series with these labels.
    pub(crate) fn find(&self, hash: u64, labels: &Labels) -> Option<u32> {
        self.by_labels
            .find(spread(short(hash)), |(number, kept)| {
                *kept == short(hash) && self.is_labelled(*number, labels)
            })
            .map(|(number, _)| *number)
    }

    fn is_labelled(&self, number: u32, labels: &Labels) -> bool {
        let Some(series) = self.get(number) else {
            return false;
        };
        let text = |symbol| self.symbols.text(symbol);
        series.pairs.len() == labels.len()
            && series
                .pairs
                .iter()
                .zip(labels.iter())
                .all(|((name, value), label)| {
                    text(*value) == &*label.value && text(*name) == &*label.name
                })
    }

    /// Enters a series that is not there; `None` when the shard's numbers are used up.
    pub(crate) fn insert(&mut self, hash: u64, labels: &Labels, now_ms: i64) -> Option<u32> {
        let number = self.next;
        self.next = self.next.checked_add(1)?;
        let symbols = &mut self.symbols;
        let pairs: Box<[Pair]> = labels
            .iter()
            .map(|label| (symbols.intern(&label.name), symbols.intern(&label.value)))
            .collect();
        self.index.insert(number, &pairs);
        let short = short(hash);
        self.by_labels
            .insert_unique(spread(short), (number, short), |(_, short)| spread(*short));
        self.put(number, MemSeries::new(pairs, now_ms));
        Some(number)
    }

    fn put(&mut self, number: u32, series: MemSeries) {
        if self.pages.is_empty() {
            self.first = number - number % PAGE;
        }
        let at = ((number - self.first) / PAGE) as usize;
        while self.pages.len() <= at {
            self.pages.push_back(None);
        }
        if let Some(slot) = self.pages.get_mut(at) {
            let page = slot.get_or_insert_with(|| Page {
                slots: Vec::with_capacity(PAGE as usize),
                live: 0,
            });
            let offset = (number % PAGE) as usize;
            while page.slots.len() <= offset {
                page.slots.push(None);
            }
            if let Some(slot) = page.slots.get_mut(offset) {
                *slot = Some(series);
                page.live += 1;
            }
        }
    }

    /// The series of a number.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&MemSeries> {
        let at = number.checked_sub(self.first)? / PAGE;
        let page = self.pages.get(at as usize)?.as_ref()?;
        page.slots.get((number % PAGE) as usize)?.as_ref()
    }

    /// The series of a number, with what an append needs beside it.
    #[inline]
    pub(crate) fn get_mut(
        &mut self,
        number: u32,
    ) -> Option<(&mut MemSeries, &Symbols, &mut Tally)> {
        let at = number.checked_sub(self.first)? / PAGE;
        let page = self.pages.get_mut(at as usize)?.as_mut()?;
        let series = page.slots.get_mut((number % PAGE) as usize)?.as_mut()?;
        Some((series, &self.symbols, &mut self.tally))
    }

    /// All series with their numbers, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &MemSeries)> {
        let pages = (0u32..).zip(&self.pages);
        pages.flat_map(move |(at, page)| {
            let slots = page.as_ref().map(|page| page.slots.as_slice());
            let first = self.first + at * PAGE;
            let slots = slots.unwrap_or_default().iter().zip(first..);
            slots.filter_map(|(slot, number)| Some((number, slot.as_ref()?)))
        })
    }

    /// Calls `each` with every series.
    pub(crate) fn for_each_mut(&mut self, mut each: impl FnMut(&mut MemSeries, &mut Tally)) {
        for page in self.pages.iter_mut().flatten() {
            for series in page.slots.iter_mut().flatten() {
                each(series, &mut self.tally);
            }
        }
    }

    /// Every label.
    pub(crate) fn label_names(&self) -> impl Iterator<Item = Symbol> {
        self.index.names()
    }

    /// Every value of a label, with the number of series that carry it.
    pub(crate) fn label_values(&self, name: Symbol) -> impl Iterator<Item = (Symbol, usize)> {
        self.index.values(name)
    }

    /// The number of series.
    pub(crate) fn len(&self) -> usize {
        self.by_labels.len()
    }

    /// Collects the series that have no samples and were not used since `before_ms`;
    /// returns their numbers, ascending.
    pub(crate) fn collect(&mut self, before_ms: i64) -> Vec<u32> {
        let dead: Vec<u32> = self
            .iter()
            .filter(|(_, series)| series.is_dead(before_ms))
            .map(|(number, _)| number)
            .collect();
        if dead.is_empty() {
            return dead;
        }
        let mut gone = Vec::with_capacity(dead.len());
        for number in &dead {
            gone.extend(self.take(*number).map(|series| series.pairs));
        }
        let pairs: HashSet<Pair> = gone
            .iter()
            .flat_map(|pairs| pairs.iter().copied())
            .collect();
        self.index.remove(&dead, pairs);
        for (name, value) in gone.iter().flat_map(|pairs| pairs.iter()) {
            self.symbols.release(*name);
            self.symbols.release(*value);
        }
        self.by_labels
            .retain(|(number, _)| dead.binary_search(number).is_err());
        while let Some(None) = self.pages.front() {
            self.pages.pop_front();
            self.first += PAGE;
        }
        dead
    }

    fn take(&mut self, number: u32) -> Option<MemSeries> {
        let at = number.checked_sub(self.first)? / PAGE;
        let is_newest = at as usize + 1 == self.pages.len();
        let page = self.pages.get_mut(at as usize)?.as_mut()?;
        let series = page.slots.get_mut((number % PAGE) as usize)?.take()?;
        page.live -= 1;
        // The newest page stays: its free slots are the next to be filled.
        if page.live == 0
            && !is_newest
            && let Some(slot) = self.pages.get_mut(at as usize)
        {
            *slot = None;
        }
        Some(series)
    }

    /// The numbers of the series that all `matchers` accept, ascending.
    fn select(&self, matchers: &[Matcher]) -> Vec<u32> {
        let (candidates, rest) = self.index.candidates(&self.symbols, matchers);
        let mut tests: Vec<Test<'_>> = rest
            .into_iter()
            .map(|matcher| Test {
                name: self.symbols.find(matcher.name()),
                matcher,
                absent: matcher.matches(""),
                known: HashMap::new(),
            })
            .collect();
        let mut accepted = |pairs: &[Pair]| {
            let symbols = &self.symbols;
            tests.iter_mut().all(|test| test.accepts(symbols, pairs))
        };
        match candidates {
            Candidates::All => self
                .iter()
                .filter(|(_, series)| accepted(&series.pairs))
                .map(|(number, _)| number)
                .collect(),
            Candidates::These(mut numbers) => {
                numbers.retain(|number| {
                    self.get(*number)
                        .is_some_and(|series| accepted(&series.pairs))
                });
                numbers
            }
        }
    }

    /// The series that all `matchers` and `wanted` accept, with their numbers, ascending.
    pub(crate) fn selected<'a>(
        &'a self,
        matchers: &[Matcher],
        wanted: impl Fn(u32, &MemSeries) -> bool + 'a,
    ) -> impl Iterator<Item = (u32, &'a MemSeries)> {
        let numbers = self.select(matchers).into_iter();
        let series = numbers.filter_map(|number| Some((number, self.get(number)?)));
        series.filter(move |(number, series)| wanted(*number, series))
    }

    /// The order of two series' labels. Most of their symbols are the same, which makes this
    /// much cheaper than comparing the texts.
    pub(crate) fn compare(&self, a: &MemSeries, b: &MemSeries) -> std::cmp::Ordering {
        let text = |symbol| self.symbols.text(symbol);
        for (a, b) in a.pairs.iter().zip(b.pairs.iter()) {
            if a.0 != b.0 {
                return text(a.0).cmp(text(b.0));
            }
            if a.1 != b.1 {
                return text(a.1).cmp(text(b.1));
            }
        }
        a.pairs.len().cmp(&b.pairs.len())
    }

    /// Label pairs as the rest of the world knows them.
    pub(crate) fn labels(&self, pairs: &[Pair]) -> Labels {
        let labels = pairs.iter().map(|(name, value)| Label {
            name: self.symbols.shared(*name),
            value: self.symbols.shared(*value),
        });
        Labels::from_sorted(labels.collect::<Arc<[Label]>>())
    }

    /// A symbol's text.
    pub(crate) fn shared(&self, symbol: Symbol) -> Arc<str> {
        self.symbols.shared(symbol)
    }

    /// Bytes of memory of everything but chunks and late samples.
    pub(crate) fn index_bytes(&self) -> usize {
        let pages = self.pages.iter().flatten().count();
        let label_pairs: usize = self.index.entries() * size_of::<Pair>();
        self.symbols.memory_bytes()
            + self.index.memory_bytes()
            + self.by_labels.capacity() * (size_of::<(u32, u32)>() + 1)
            + pages * PAGE as usize * size_of::<Option<MemSeries>>()
            + label_pairs
    }
}

/// A matcher to be tested on candidates, with the answers so far.
struct Test<'m> {
    matcher: &'m Matcher,
    name: Option<Symbol>,
    absent: bool,
    known: HashMap<Symbol, bool>,
}

impl Test<'_> {
    fn accepts(&mut self, symbols: &Symbols, pairs: &[Pair]) -> bool {
        let value = pairs
            .iter()
            .find(|(name, _)| Some(*name) == self.name)
            .map(|(_, value)| *value);
        let Some(value) = value else {
            return self.absent;
        };
        let matcher = self.matcher;
        *self
            .known
            .entry(value)
            .or_insert_with(|| matcher.matches(symbols.text(value)))
    }
}

fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// A table hash from the kept half.
fn spread(short: u32) -> u64 {
    u64::from(short) << 32 | u64::from(short)
}
