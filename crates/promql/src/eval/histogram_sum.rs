//! Sums and means of native histograms, one at a time.
//!
//! Each count is its own compensated sum (or mean). While histograms agree in their layout,
//! adding one touches nothing but its own counts; where one is coarser, what was added up so
//! far is brought to the layout they share. One with custom bounds and one without have no
//! sum, and then neither has anything added later.

use slogate_series::{Buckets, Histogram, ResetHint};

use crate::eval::histogram::{self, Combined};
use crate::eval::sum::{Mean, Sum};

/// A running sum or mean of numbers.
pub(crate) trait Running: Copy + Default {
    /// Whether a number that is 0 changes the value.
    const COUNTS_ZEROS: bool;

    /// After `zeros` zeros.
    fn of_zeros(zeros: usize) -> Self;

    fn add(&mut self, value: f64);

    fn value(&self) -> f64;

    /// What it has added up, and what rounding has lost from it.
    fn parts(&self) -> (f64, f64);

    /// The same state with other parts.
    fn with_parts(&self, parts: (f64, f64)) -> Self;
}

impl Running for Sum {
    const COUNTS_ZEROS: bool = false;

    fn of_zeros(_: usize) -> Self {
        Sum::default()
    }

    fn add(&mut self, value: f64) {
        Sum::add(self, value);
    }

    fn value(&self) -> f64 {
        Sum::value(self)
    }

    fn parts(&self) -> (f64, f64) {
        Sum::parts(self)
    }

    fn with_parts(&self, parts: (f64, f64)) -> Self {
        Sum::from_parts(parts)
    }
}

impl Running for Mean {
    const COUNTS_ZEROS: bool = true;

    fn of_zeros(zeros: usize) -> Self {
        Mean::of_zeros(zeros)
    }

    fn add(&mut self, value: f64) {
        Mean::add(self, value);
    }

    fn value(&self) -> f64 {
        Mean::value(self)
    }

    fn parts(&self) -> (f64, f64) {
        Mean::parts(self)
    }

    fn with_parts(&self, parts: (f64, f64)) -> Self {
        Mean::with_parts(self, parts)
    }
}

/// A running sum or mean of histograms.
#[derive(Clone, Debug)]
pub(crate) struct HistogramSum<F> {
    added: usize,
    /// Schema, zero threshold, bounds and hint of the sum; its counts are below.
    layout: Histogram,
    zero_count: F,
    count: F,
    sum: F,
    positive: Vec<(i32, F)>,
    negative: Vec<(i32, F)>,
    seen_reset: bool,
    seen_not_reset: bool,
    reconciled: bool,
    impossible: bool,
}

impl<F: Running> HistogramSum<F> {
    pub(crate) fn new(first: &Histogram) -> Self {
        let mut sum = HistogramSum {
            added: 0,
            layout: Histogram {
                positive: Buckets::default(),
                negative: Buckets::default(),
                ..first.clone()
            },
            zero_count: F::default(),
            count: F::default(),
            sum: F::default(),
            positive: Vec::new(),
            negative: Vec::new(),
            seen_reset: false,
            seen_not_reset: false,
            reconciled: false,
            impossible: false,
        };
        sum.add_aligned(first);
        sum
    }

    /// How many samples it counts for.
    pub(crate) fn size(&self) -> usize {
        let buckets = self.positive.len() + self.negative.len();
        let bytes = size_of::<Self>() + buckets * size_of::<(i32, F)>();
        bytes.div_ceil(16)
    }

    /// Adds a histogram; false where it makes the sum impossible.
    pub(crate) fn add(&mut self, h: &Histogram) -> bool {
        if self.impossible {
            return true;
        }
        if self.has_layout_of(h) {
            self.layout.reset_hint = histogram::joined_hint(self.layout.reset_hint, h.reset_hint).0;
            self.add_aligned(h);
            return true;
        }
        let (sums, lost) = self.to_histograms();
        let Some(joint) = histogram::add(&sums, h) else {
            self.impossible = true;
            return false;
        };
        self.reconciled |= joint.reconciled;
        let layout = Histogram {
            positive: Buckets::default(),
            negative: Buckets::default(),
            ..joint.histogram
        };
        self.bring_to(&layout, &sums, &lost);
        self.layout = layout;
        let aligned = histogram::aligned(h, &self.layout);
        self.add_aligned(&aligned);
        true
    }

    fn has_layout_of(&self, h: &Histogram) -> bool {
        self.layout.schema == h.schema
            && self.layout.zero_threshold == h.zero_threshold
            && self.layout.custom_bounds == h.custom_bounds
    }

    fn add_aligned(&mut self, h: &Histogram) {
        self.seen_reset |= h.reset_hint == ResetHint::Reset;
        self.seen_not_reset |= h.reset_hint == ResetHint::NotReset;
        self.zero_count.add(h.zero_count);
        self.count.add(h.count);
        self.sum.add(h.sum);
        add_buckets(&mut self.positive, h.positive.as_slice(), self.added);
        add_buckets(&mut self.negative, h.negative.as_slice(), self.added);
        self.added += 1;
    }

    /// What was added up, and what was lost, as histograms.
    fn to_histograms(&self) -> (Histogram, Histogram) {
        let part = |pick: fn((f64, f64)) -> f64| {
            let buckets = |terms: &[(i32, F)]| {
                let terms = terms.iter();
                Buckets::from_sorted(terms.map(|(i, f)| (*i, pick(f.parts()))).collect())
            };
            Histogram {
                zero_count: pick(self.zero_count.parts()),
                count: pick(self.count.parts()),
                sum: pick(self.sum.parts()),
                positive: buckets(&self.positive),
                negative: buckets(&self.negative),
                ..self.layout.clone()
            }
        };
        (part(|(sum, _)| sum), part(|(_, lost)| lost))
    }

    fn bring_to(&mut self, layout: &Histogram, sums: &Histogram, lost: &Histogram) {
        let (sums, lost) = (
            histogram::aligned(sums, layout),
            histogram::aligned(lost, layout),
        );
        let like = self.count;
        self.zero_count = like.with_parts((sums.zero_count, lost.zero_count));
        let buckets = |sums: &Buckets, lost: &Buckets| {
            let of_one = |(index, sum)| (index, like.with_parts((sum, lost.get(index))));
            sums.iter().map(of_one).collect()
        };
        self.positive = buckets(&sums.positive, &lost.positive);
        self.negative = buckets(&sums.negative, &lost.negative);
    }

    /// The sum or mean; `None` where there is none.
    pub(crate) fn finish(self) -> Option<Combined> {
        if self.impossible {
            return None;
        }
        let buckets = |terms: &[(i32, F)]| {
            let terms = terms.iter();
            Buckets::from_sorted(terms.map(|(i, f)| (*i, f.value())).collect())
        };
        Some(Combined {
            histogram: Histogram {
                zero_count: self.zero_count.value(),
                count: self.count.value(),
                sum: self.sum.value(),
                positive: buckets(&self.positive),
                negative: buckets(&self.negative),
                ..self.layout
            },
            hints_collide: self.seen_reset && self.seen_not_reset,
            reconciled: self.reconciled,
        })
    }
}

/// Adds each bucket to its term. `added` histograms were added before.
fn add_buckets<F: Running>(terms: &mut Vec<(i32, F)>, buckets: &[(i32, f64)], added: usize) {
    let mut at = 0;
    let mut missing = false;
    for (index, count) in buckets {
        while let Some((_, term)) = terms.get_mut(at).filter(|(i, _)| i < index) {
            if F::COUNTS_ZEROS {
                term.add(0.0);
            }
            at += 1;
        }
        match terms.get_mut(at) {
            Some((same, term)) if same == index => {
                term.add(*count);
                at += 1;
            }
            _ => missing = true,
        }
    }
    if F::COUNTS_ZEROS {
        terms
            .iter_mut()
            .skip(at)
            .for_each(|(_, term)| term.add(0.0));
    }
    if missing {
        insert_missing(terms, buckets, added);
    }
}

/// Makes terms of the buckets that have none yet.
fn insert_missing<F: Running>(terms: &mut Vec<(i32, F)>, buckets: &[(i32, f64)], added: usize) {
    let old = std::mem::take(terms);
    let mut old = old.into_iter().peekable();
    for (index, count) in buckets {
        while let Some(term) = old.next_if(|(i, _)| i < index) {
            terms.push(term);
        }
        if old.peek().is_some_and(|(i, _)| i == index) {
            continue;
        }
        let mut term = F::of_zeros(added);
        term.add(*count);
        terms.push((*index, term));
    }
    terms.extend(old);
}

/// The sum or the mean of at least one histogram; `None` for none, and where some have
/// custom bounds and some not.
pub(crate) fn total<'a, F: Running>(
    histograms: impl IntoIterator<Item = &'a Histogram>,
) -> Option<Combined> {
    let mut histograms = histograms.into_iter();
    let mut sum = HistogramSum::<F>::new(histograms.next()?);
    if !histograms.all(|h| sum.add(h)) {
        return None;
    }
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(schema: i8, buckets: &[(i32, f64)]) -> Histogram {
        let count: f64 = buckets.iter().map(|(_, count)| count).sum();
        Histogram {
            schema,
            count,
            sum: count,
            positive: Buckets::from_sorted(buckets.to_vec()),
            ..Histogram::default()
        }
    }

    #[test]
    fn buckets_may_come_and_go() {
        let all = [
            histogram(0, &[(1, 4.0), (3, 2.0)]),
            histogram(0, &[(2, 8.0)]),
            histogram(0, &[(0, 1.0), (3, 2.0), (4, 1.0)]),
            histogram(0, &[]),
        ];
        let sum = total::<Sum>(&all).unwrap().histogram;
        assert_eq!(
            sum.positive.as_slice(),
            [(0, 1.0), (1, 4.0), (2, 8.0), (3, 4.0), (4, 1.0)]
        );
        let mean = total::<Mean>(&all).unwrap().histogram;
        assert_eq!(
            mean.positive.as_slice(),
            [(0, 0.25), (1, 1.0), (2, 2.0), (3, 1.0), (4, 0.25)]
        );
        assert_eq!((sum.count, mean.count), (18.0, 4.5));
    }

    #[test]
    fn a_coarser_one_makes_the_sum_coarser() {
        let all = [
            histogram(1, &[(1, 1.0), (2, 2.0), (3, 4.0)]),
            histogram(0, &[(1, 8.0)]),
            histogram(1, &[(1, 1.0)]),
        ];
        let sum = total::<Sum>(&all).unwrap().histogram;
        assert_eq!(sum.schema, 0);
        assert_eq!(sum.positive.as_slice(), [(1, 12.0), (2, 4.0)]);
    }

    #[test]
    fn sums_are_compensated() {
        let all = [1.0, 1e100, 1.0, -1e100].map(|count| histogram(0, &[(1, count)]));
        let sum = total::<Sum>(&all).unwrap().histogram;
        assert_eq!(sum.positive.as_slice(), [(1, 2.0)]);
    }
}
