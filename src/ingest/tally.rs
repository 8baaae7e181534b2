//! Counting: durations into native-histogram buckets, and what an accumulator adds up.
//!
//! Durations use schema 4: bucket bounds grow by `2^(1/16)`, 4.43 % each. That is the resolution
//! the latency comparison works at (its bucket tests and the 5 % margins of default policies
//! need bounds closer than the difference they look for), and a third of the size of the next
//! finer schema's histograms for traffic that spans a few octaves.
//!
//! A duration of 0 (and a negative one, which is read as 0: clocks step back) falls into the
//! zero bucket, which holds nothing else: its threshold of 2^-128 s is below a nanosecond.

use std::sync::{Arc, LazyLock};

use slogate_series::{Buckets, Histogram};

/// Resolution of duration histograms: `2^4` buckets for each doubling.
pub(super) const SCHEMA: i8 = 4;

/// Width of the zero bucket, in seconds: 2^-128.
pub(super) const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

/// Bucket indexes of durations, from 1 ns to 2^64 ns, lie within this distance of 0 on the
/// low side; on the high side within [`PAGES`] pages of it.
const INDEX_BIAS: i32 = 512;

const PAGE: usize = 64;

/// `PAGES * PAGE - INDEX_BIAS` is above 16 * log2(2^64 / 1e9), the largest index there is.
const PAGES: usize = 18;

const NO_PAGE: u32 = u32::MAX;

/// What an accumulator, or a request's part of one, has added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// Items counted, weighted.
    pub(super) count: f64,
    /// Items counted as failed, weighted; edges only.
    pub(super) failed: f64,
    /// Durations: the span's, or an edge's server side and client side.
    pub(super) times: [Times; 2],
}

/// A distribution of durations in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Times {
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) zero: f64,
    /// `(index, count)` at [`SCHEMA`], ascending.
    pub(super) buckets: Vec<(i32, f64)>,
}

/// A distribution while a request is being read: dense pages, allocated where touched.
#[derive(Clone, Debug)]
pub(super) struct Gathering {
    pub(super) count: f64,
    pub(super) sum: f64,
    zero: f64,
    pages: [u32; PAGES],
}

/// The pages of one request's [`Gathering`]s.
#[derive(Debug, Default)]
pub(super) struct Pages(Vec<[f64; PAGE]>);

impl Tally {
    /// A plain count.
    pub(super) fn of(count: f64) -> Self {
        Tally {
            count,
            ..Tally::default()
        }
    }

    pub(super) fn add(&mut self, other: &Tally) {
        self.count += other.count;
        self.failed += other.failed;
        for (mine, theirs) in self.times.iter_mut().zip(&other.times) {
            mine.add(theirs);
        }
    }
}

impl Times {
    pub(super) fn add(&mut self, other: &Times) {
        self.count += other.count;
        self.sum += other.sum;
        self.zero += other.zero;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
            return;
        }
        let mut at = 0;
        for &(index, count) in &other.buckets {
            while self.buckets.get(at).is_some_and(|(mine, _)| *mine < index) {
                at += 1;
            }
            match self.buckets.get_mut(at) {
                Some((mine, sum)) if *mine == index => *sum += count,
                _ => self.buckets.insert(at, (index, count)),
            }
        }
    }

    pub(super) fn histogram(&self) -> Histogram {
        Histogram {
            schema: SCHEMA,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: self.zero,
            count: self.count,
            sum: self.sum,
            positive: Buckets::from_sorted(self.buckets.clone()),
            ..Histogram::default()
        }
    }
}

impl Default for Gathering {
    fn default() -> Self {
        Gathering {
            count: 0.0,
            sum: 0.0,
            zero: 0.0,
            pages: [NO_PAGE; PAGES],
        }
    }
}

impl Gathering {
    /// Counts a duration `weight` times.
    #[inline]
    pub(super) fn add(&mut self, pages: &mut Pages, nanos: u64, weight: f64) {
        self.count += weight;
        if nanos == 0 {
            self.zero += weight;
            return;
        }
        let seconds = nanos as f64 / 1e9;
        self.sum += seconds * weight;
        let slot = (duration_index(seconds) + INDEX_BIAS).max(0) as usize;
        let number = (slot / PAGE).min(PAGES - 1);
        let mut page = self.pages[number];
        if page == NO_PAGE {
            page = pages.allocate();
            self.pages[number] = page;
        }
        if let Some(page) = pages.0.get_mut(page as usize) {
            page[slot % PAGE] += weight;
        } else {
            self.zero += weight;
        }
    }

    pub(super) fn times(&self, pages: &Pages) -> Times {
        let mut buckets = Vec::with_capacity(16);
        for (number, page) in self.pages.iter().enumerate() {
            let Some(counts) = pages.0.get(*page as usize) else {
                continue;
            };
            let first = (number * PAGE) as i32 - INDEX_BIAS;
            let touched = (first..).zip(counts).filter(|(_, count)| **count != 0.0);
            buckets.extend(touched.map(|(index, count)| (index, *count)));
        }
        Times {
            count: self.count,
            sum: self.sum,
            zero: self.zero,
            buckets,
        }
    }
}

impl Pages {
    /// The number of a new page. A request of 64 MiB has fewer spans than u32 has numbers.
    fn allocate(&mut self) -> u32 {
        self.0.push([0.0; PAGE]);
        (self.0.len() - 1) as u32
    }
}

/// The empty duration histogram, for the sample that starts a series.
pub(super) fn empty_histogram() -> Arc<Histogram> {
    static EMPTY: LazyLock<Arc<Histogram>> =
        LazyLock::new(|| Arc::new(Times::default().histogram()));
    EMPTY.clone()
}

/// The bounds of one octave, and for each 64th of it the first bound that is not below it.
struct Octave {
    bounds: [f64; 17],
    first: [u8; 64],
}

static OCTAVE: LazyLock<Octave> = LazyLock::new(|| {
    let mut bounds = [0.0; 17];
    for (k, bound) in (0..).zip(&mut bounds) {
        *bound = slogate_series::histogram::upper_bound(SCHEMA, k);
    }
    let mut first = [0; 64];
    for (at, first) in first.iter_mut().enumerate() {
        let low = 1.0 + at as f64 / 64.0;
        *first = bounds.iter().take_while(|bound| **bound < low).count() as u8;
    }
    Octave { bounds, first }
});

/// The bucket index at [`SCHEMA`] of a normal positive float: its exponent gives the octave,
/// the top of its mantissa a first bound in it that is at most one too low.
#[inline]
fn duration_index(seconds: f64) -> i32 {
    let octave = &*OCTAVE;
    let bits = seconds.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    let mut k = octave.first[((bits >> 46) & 63) as usize];
    while octave.bounds[usize::from(k)] < mantissa && k < 16 {
        k += 1;
    }
    exponent * 16 + i32::from(k)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slogate_series::histogram::{bucket_index, upper_bound};

    use super::*;

    fn gather(durations: &[(u64, f64)]) -> Times {
        let (mut pages, mut gathering) = (Pages::default(), Gathering::default());
        for (nanos, weight) in durations {
            gathering.add(&mut pages, *nanos, *weight);
        }
        gathering.times(&pages)
    }

    #[test]
    fn zero_lands_in_the_zero_bucket_and_the_extremes_in_theirs() {
        let times = gather(&[(0, 1.0), (1, 1.0), (u64::MAX, 1.0)]);
        assert_eq!((times.count, times.zero), (3.0, 1.0));
        assert_eq!(times.buckets.len(), 2);
        assert_eq!(times.buckets[0].0, bucket_index(SCHEMA, 1e-9));
        assert_eq!(
            times.buckets[1].0,
            bucket_index(SCHEMA, u64::MAX as f64 / 1e9)
        );
    }

    #[test]
    fn bounds_are_inclusive_above() {
        assert_eq!(duration_index(1.0), 0);
        assert_eq!(duration_index(2.0), 16);
        assert_eq!(duration_index(upper_bound(SCHEMA, 5)), 5);
        assert_eq!(duration_index(upper_bound(SCHEMA, 5) * 1.000_001), 6);
    }

    proptest! {
        #[test]
        fn the_fast_index_is_the_slow_one(nanos in 1u64..) {
            let seconds = nanos as f64 / 1e9;
            let (fast, slow) = (duration_index(seconds), bucket_index(SCHEMA, seconds));
            // On a bound itself the two may round apart by one unit in the last place.
            let on_bound = (upper_bound(SCHEMA, slow) / seconds - 1.0).abs() < 1e-14
                || (upper_bound(SCHEMA, slow - 1) / seconds - 1.0).abs() < 1e-14;
            prop_assert!(fast == slow || (on_bound && (fast - slow).abs() == 1), "{fast} {slow}");
        }

        #[test]
        fn adding_in_parts_is_adding_at_once(
            a in proptest::collection::vec((0u64..1 << 40, 1u32..5), 0..50),
            b in proptest::collection::vec((0u64..1 << 40, 1u32..5), 0..50),
        ) {
            let weighted = |v: &[(u64, u32)]| -> Vec<(u64, f64)> {
                v.iter().map(|(n, w)| (*n, f64::from(*w))).collect()
            };
            let (a, b) = (weighted(&a), weighted(&b));
            let mut parts = gather(&a);
            parts.add(&gather(&b));
            let whole = gather(&[a, b].concat());
            prop_assert_eq!(&parts.buckets, &whole.buckets);
            prop_assert_eq!((parts.count, parts.zero), (whole.count, whole.zero));
            prop_assert!((parts.sum - whole.sum).abs() <= 1e-9 * whole.sum.abs());
            let total: f64 = whole.buckets.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(total + whole.zero, whole.count);
        }
    }
}
