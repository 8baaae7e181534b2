//! The inverted label index of a shard: for each label pair the series that carry it.
//!
//! Series numbers only grow, so a new series is always appended at the end of its lists and
//! the lists stay sorted by themselves.
//!
//! How matchers are answered. Those that name their values (`=` and alternations of
//! literals, where `""` is not among them) are looked up and their lists intersected, the
//! shortest first. If there is none, the first other matcher that does not accept `""`
//! is tried on every value of its label and the lists of the accepted values are joined.
//! What then remains of the matchers (regular expressions, negations, and all that accept
//! `""` and with it series without the label) is tested on the candidates, once for each
//! distinct value.

use std::borrow::Cow;

use hashbrown::HashMap;
use slogate_series::{MatchOp, Matcher};
use smallvec::SmallVec;

use crate::symbols::{Symbol, Symbols};

/// A label pair.
pub(crate) type Pair = (Symbol, Symbol);

/// Series numbers, ascending. Most pairs of high cardinality have a handful.
type Postings = SmallVec<[u32; 4]>;

/// Label name → label value → series.
#[derive(Debug, Default)]
pub(crate) struct Index {
    names: HashMap<Symbol, HashMap<Symbol, Postings>>,
    entries: usize,
    pairs: usize,
}

/// Which series to look at, as far as the index can tell.
#[derive(Debug)]
pub(crate) enum Candidates {
    All,
    These(Vec<u32>),
}

impl Index {
    /// Enters a series whose number is above all entered before.
    pub(crate) fn insert(&mut self, series: u32, pairs: &[Pair]) {
        for (name, value) in pairs {
            let postings = self
                .names
                .entry(*name)
                .or_default()
                .entry(*value)
                .or_insert_with(|| {
                    self.pairs += 1;
                    Postings::new()
                });
            debug_assert!(postings.last().is_none_or(|last| *last < series));
            postings.push(series);
            self.entries += 1;
        }
    }

    /// Takes series out: `dead` is ascending, `pairs` are all the pairs that they carry.
    pub(crate) fn remove(&mut self, dead: &[u32], pairs: impl IntoIterator<Item = Pair>) {
        for (name, value) in pairs {
            let Some(values) = self.names.get_mut(&name) else {
                continue;
            };
            let Some(postings) = values.get_mut(&value) else {
                continue;
            };
            let before = postings.len();
            postings.retain(|series| dead.binary_search(series).is_err());
            self.entries -= before - postings.len();
            if postings.is_empty() {
                values.remove(&value);
                self.pairs -= 1;
            }
            if values.is_empty() {
                self.names.remove(&name);
            }
        }
    }

    /// Splits `matchers` into candidates and what remains to be tested on each of them.
    pub(crate) fn candidates<'m>(
        &self,
        symbols: &Symbols,
        matchers: &'m [Matcher],
    ) -> (Candidates, Vec<&'m Matcher>) {
        let mut lists: Vec<Cow<'_, [u32]>> = Vec::new();
        let mut rest: Vec<&Matcher> = Vec::new();
        for matcher in matchers {
            match self.named(symbols, matcher) {
                Some(list) if list.is_empty() => {
                    return (Candidates::These(Vec::new()), Vec::new());
                }
                Some(list) => lists.push(list),
                None => rest.push(matcher),
            }
        }
        if lists.is_empty() {
            let Some(at) = rest.iter().position(|matcher| !matcher.matches("")) else {
                return (Candidates::All, rest);
            };
            let scanned = rest.remove(at);
            lists.push(self.scan(symbols, scanned));
        }
        lists.sort_by_key(|list| list.len());
        let joint = lists
            .into_iter()
            .reduce(|joint, list| Cow::Owned(intersect(&joint, &list)));
        (
            Candidates::These(joint.unwrap_or_default().into_owned()),
            rest,
        )
    }

    /// The series of a matcher that names its values; `None` for any other.
    fn named(&self, symbols: &Symbols, matcher: &Matcher) -> Option<Cow<'_, [u32]>> {
        if matcher.matches("") {
            return None;
        }
        match matcher.op() {
            MatchOp::Equal => Some(self.join(symbols, matcher.name(), [matcher.value()])),
            MatchOp::Regex => {
                let literals = matcher.literals()?;
                let values = literals.iter().map(|literal| &**literal);
                Some(self.join(symbols, matcher.name(), values))
            }
            MatchOp::NotEqual | MatchOp::NotRegex => None,
        }
    }

    fn join<'v>(
        &self,
        symbols: &Symbols,
        name: &str,
        values: impl IntoIterator<Item = &'v str>,
    ) -> Cow<'_, [u32]> {
        let Some(known) = symbols.find(name).and_then(|name| self.names.get(&name)) else {
            return Cow::default();
        };
        let postings = values
            .into_iter()
            .filter_map(|value| known.get(&symbols.find(value)?));
        union(postings)
    }

    fn scan(&self, symbols: &Symbols, matcher: &Matcher) -> Cow<'_, [u32]> {
        let name = symbols.find(matcher.name());
        let Some(known) = name.and_then(|name| self.names.get(&name)) else {
            return Cow::default();
        };
        let accepted = known
            .iter()
            .filter(|(value, _)| matcher.matches(symbols.text(**value)));
        union(accepted.map(|(_, postings)| postings))
    }

    /// Every label.
    pub(crate) fn names(&self) -> impl Iterator<Item = Symbol> {
        self.names.keys().copied()
    }

    /// Every value of a label, with the number of series that carry it.
    pub(crate) fn values(&self, name: Symbol) -> impl Iterator<Item = (Symbol, usize)> {
        let values = self.names.get(&name).into_iter().flatten();
        values.map(|(value, postings)| (*value, postings.len()))
    }

    /// How many label pairs all series have together.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes of memory, near enough.
    pub(crate) fn memory_bytes(&self) -> usize {
        let name = size_of::<(Symbol, HashMap<Symbol, Postings>)>();
        let value = size_of::<(Symbol, Postings)>() + 1;
        // Growing lists and tables are a quarter empty on average.
        (self.names.len() * name + self.pairs * value + self.entries * size_of::<u32>()) * 4 / 3
    }
}

/// Joins lists; the same series may be in several where a literal is given twice. A single
/// list is not copied: that of a metric's name may be long.
fn union<'p>(mut postings: impl Iterator<Item = &'p Postings>) -> Cow<'p, [u32]> {
    let Some(first) = postings.next() else {
        return Cow::default();
    };
    let Some(second) = postings.next() else {
        return Cow::Borrowed(first);
    };
    let mut joined = [first.as_slice(), second.as_slice()].concat();
    for list in postings {
        joined.extend_from_slice(list);
    }
    joined.sort_unstable();
    joined.dedup();
    Cow::Owned(joined)
}

/// The numbers in both ascending lists; `a` is the shorter one.
fn intersect(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut both = Vec::with_capacity(a.len());
    let mut rest = b;
    for number in a {
        rest = gallop(rest, *number);
        match rest.first() {
            Some(first) if first == number => both.push(*number),
            Some(_) => {}
            None => break,
        }
    }
    both
}

/// `list` from its first number that is at least `number`: doubling steps, then bisection.
fn gallop(list: &[u32], number: u32) -> &[u32] {
    let mut step = 1;
    let mut rest = list;
    while rest.get(step).is_some_and(|at| *at < number) {
        rest = rest.get(step..).unwrap_or_default();
        step *= 2;
    }
    let window = rest.get(..=step).unwrap_or(rest);
    rest.get(window.partition_point(|at| *at < number)..)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn intersection_is_that_of_sets(
            a in prop::collection::btree_set(0u32..300, 0..100),
            b in prop::collection::btree_set(0u32..300, 0..200)) {
            let lists: [Vec<u32>; 2] = [&a, &b].map(|set| set.iter().copied().collect());
            let expected: Vec<u32> = a.intersection(&b).copied().collect();
            prop_assert_eq!(intersect(&lists[0], &lists[1]), expected);
        }

        #[test]
        fn gallop_finds_the_first_not_below(
            list in prop::collection::btree_set(0u32..500, 0..200), number in 0u32..500) {
            let list: Vec<u32> = list.into_iter().collect();
            let expected: BTreeSet<u32> = list.iter().copied().filter(|n| *n >= number).collect();
            let found: BTreeSet<u32> = gallop(&list, number).iter().copied().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
