//! Functions of histograms, classic and native.

use std::fmt::Write as _;

use slogate_series::{Buckets, Histogram, Labels, Projection, Value};

use crate::ast::Span;
use crate::eval::bucket::{self, Bucket, Cumulative};
use crate::eval::groups::Groups;
use crate::eval::text::{decimal, quoted, shortest};
use crate::eval::{Column, EvalError, Evaluator, Grid};

/// The label that carries a classic bucket's upper bound.
const BUCKET_LABEL: &str = "le";

const RAISED_MESSAGE: &str = "input to histogram_quantile needed to be fixed for monotonicity (see \
                              https://prometheus.io/docs/prometheus/latest/querying/functions/\
                              #histogram_quantile)";

/// What the columns of one histogram hold at a step.
pub(crate) enum Distribution<'a> {
    /// Tidy buckets; none where there is no `+Inf` bucket.
    Classic(Vec<Cumulative>),
    Native(&'a Histogram),
}

/// The columns that differ only in `le`.
struct Family {
    labels: Labels,
    drop_name: bool,
    members: Vec<Member>,
}

/// A column of a family: its place, and its upper bound or what stands in place of one.
type Member = (usize, Result<f64, String>);

impl Evaluator<'_> {
    /// Applies `compute` to each histogram at each step; names are left to the caller.
    pub(super) fn map_distributions(
        &mut self,
        columns: &[Column],
        grid: Grid,
        span: Span,
        mut compute: impl FnMut(&mut Self, &str, Distribution<'_>, usize) -> f64,
    ) -> Vec<Column> {
        let mut out = Vec::new();
        for family in families(columns) {
            let mut column = Column::empty(family.labels.clone(), family.drop_name, grid.steps);
            let name = self.name_for_notes(&family.labels);
            for step in 0..grid.steps {
                let (classic, native) = self.at_step(&family, columns, step, span);
                let value = match (classic, native) {
                    (classic, Some(_)) if !classic.is_empty() => {
                        let message = "vector contains a mix of classic and native histograms";
                        self.annotations.warn(span, about(message, name));
                        continue;
                    }
                    (_, Some(h)) => compute(self, name, Distribution::Native(h), step),
                    (classic, None) if classic.is_empty() => continue,
                    (classic, None) => {
                        let buckets = bucket::tidy(classic).unwrap_or_default();
                        compute(self, name, Distribution::Classic(buckets), step)
                    }
                };
                column.set(step, Value::Float(value));
            }
            if !column.is_empty() {
                out.push(column);
            }
        }
        out
    }

    fn at_step<'c>(
        &mut self,
        family: &Family,
        columns: &'c [Column],
        step: usize,
        span: Span,
    ) -> (Vec<Cumulative>, Option<&'c Histogram>) {
        let (mut classic, mut native) = (Vec::new(), None);
        for (at, upper) in &family.members {
            match columns.get(*at).and_then(|column| column.value(step)) {
                Some(Value::Histogram(h)) => native = Some(h.as_ref()),
                Some(Value::Float(count)) => match upper {
                    Ok(upper) => classic.push(Cumulative {
                        upper: *upper,
                        count: *count,
                    }),
                    Err(text) => {
                        let name = self.name_for_notes(&family.labels);
                        let message = format!(
                            "bucket label \"le\" is missing or has a malformed value of {}",
                            quoted(text)
                        );
                        self.annotations.warn(span, about(&message, name));
                    }
                },
                None => {}
            }
        }
        (classic, native)
    }

    /// The name that notes about a histogram give. Where names are dropped by each operation,
    /// this one's is gone by the time that there is something to say.
    fn name_for_notes<'l>(&self, labels: &'l Labels) -> &'l str {
        match self.engine.delayed_name_removal {
            true => labels.metric_name().unwrap_or_default(),
            false => "",
        }
    }

    /// The φ-quantile of a histogram at `t_ms`.
    pub(super) fn distribution_quantile(
        &mut self,
        q: f64,
        name: &str,
        distribution: Distribution<'_>,
        t_ms: i64,
        span: Span,
    ) -> f64 {
        let h = match distribution {
            Distribution::Classic(mut buckets) => {
                if (0.0..=1.0).contains(&q)
                    && let Some(fix) = bucket::raise(&mut buckets)
                {
                    let message = about(RAISED_MESSAGE, name);
                    self.annotations.info_raised(span, message, fix, t_ms);
                }
                return bucket::classic_quantile(q, &buckets);
            }
            Distribution::Native(h) => h,
        };
        let value = bucket::native_quantile(q, h);
        if h.sum.is_nan() && h.count > 0.0 && (0.0..=1.0).contains(&q) {
            let effect = if value.is_nan() {
                "result is NaN"
            } else {
                "result is skewed higher"
            };
            let in_buckets: f64 = bucket::native(h).iter().map(|b| b.count).sum();
            if in_buckets < h.count {
                let message = format!("input to histogram_quantile has NaN observations, {effect}");
                self.annotations.info(span, about(&message, name));
            }
        }
        value
    }

    /// The share of observations between two bounds.
    pub(super) fn distribution_fraction(
        &mut self,
        (lower, upper): (f64, f64),
        name: &str,
        distribution: &Distribution<'_>,
        span: Span,
    ) -> f64 {
        match distribution {
            Distribution::Classic(buckets) => {
                let total = buckets.last().map_or(f64::NAN, |bucket| bucket.count);
                bucket::fraction(lower, upper, &bucket::classic_parts(buckets), total, total)
            }
            Distribution::Native(h) => {
                let mut buckets = bucket::native(h);
                // A custom bucket around zero is taken to hold nothing below it.
                let is_around_zero = |b: &&mut Bucket| b.lower <= 0.0 && b.upper >= 0.0;
                if h.has_custom_bounds() {
                    let around_zero = buckets.iter_mut().filter(is_around_zero);
                    around_zero.for_each(|bucket| bucket.lower = 0.0);
                }
                let in_buckets: f64 = buckets.iter().map(|bucket| bucket.count).sum();
                let is_range = lower < upper && h.count != 0.0;
                if is_range && h.sum.is_nan() && in_buckets < h.count {
                    let message = "input to histogram_fraction has NaN observations, which are \
                                   excluded from all fractions";
                    self.annotations.info(span, about(message, name));
                }
                let in_buckets_max = if h.sum.is_nan() { in_buckets } else { h.count };
                bucket::fraction(lower, upper, &buckets, in_buckets_max, h.count)
            }
        }
    }

    /// Applies `compute` to every native histogram; floats drop out. Names are dropped.
    pub(super) fn map_native(
        &self,
        mut columns: Vec<Column>,
        compute: impl Fn(&Histogram) -> f64,
    ) -> Result<Vec<Column>, EvalError> {
        for slot in columns.iter_mut().flat_map(|column| &mut column.values) {
            *slot = match slot {
                Some(Value::Histogram(h)) => Some(Value::Float(compute(h))),
                _ => None,
            };
        }
        columns.retain(|column| !column.is_empty());
        self.without_names(columns)
    }
}

/// `message`, with the metric's name where there is one.
fn about(message: &str, name: &str) -> String {
    if name.is_empty() {
        return message.to_owned();
    }
    format!("{message} for metric name {}", quoted(name))
}

fn families(columns: &[Column]) -> Vec<Family> {
    let mut known = Groups::new(Projection::Without(&[BUCKET_LABEL]));
    let mut families: Vec<(bool, Vec<Member>)> = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        let slot = known.slot(&column.labels);
        let upper = bucket_bound(column.labels.get(BUCKET_LABEL).unwrap_or_default());
        match families.get_mut(slot) {
            Some((drop_name, members)) => {
                *drop_name |= column.drop_name;
                members.push((at, upper));
            }
            None => families.push((column.drop_name, vec![(at, upper)])),
        }
    }
    let family = |(labels, (drop_name, members))| Family {
        labels,
        drop_name,
        members,
    };
    known
        .into_labels()
        .into_iter()
        .zip(families)
        .map(family)
        .collect()
}

/// The bound that a `le` label states.
fn bucket_bound(text: &str) -> Result<f64, String> {
    // Rust also reads `infinity` and `nan`, as Go does.
    text.parse().map_err(|_| text.to_owned())
}

/// The part of a histogram below (or above) `cut`. Where anything is cut off, count and
/// sum are worked out anew from what is left, each bucket's observations in its middle.
pub(crate) fn trim(h: &Histogram, cut: f64, keep_below: bool) -> Histogram {
    let mut left = Trimmed::default();
    let part = |bucket: Bucket| keep_part(bucket, cut, keep_below);
    let keep = |buckets: &Buckets, negative: bool, left: &mut Trimmed| {
        let mut kept = Vec::with_capacity(buckets.len());
        for (index, count) in buckets.iter() {
            let bucket = one_bucket(h, index, count, negative);
            // The lowest custom bucket counts from 0, but holds whatever is below it too.
            let reaches_below = h.has_custom_bounds() && index <= 0 && bucket.lower == 0.0;
            let rest = if reaches_below && !keep_below && cut < 0.0 && cut.is_finite() {
                Bucket {
                    count: 0.0,
                    ..bucket
                }
            } else {
                part(bucket)
            };
            left.add(count, rest);
            if rest.count != 0.0 {
                kept.push((index, rest.count));
            }
        }
        Buckets::from_sorted(kept)
    };
    let positive = keep(&h.positive, false, &mut left);
    let negative = keep(&h.negative, true, &mut left);
    let zero = part(zero_bucket(h));
    left.add(h.zero_count, zero);
    if !left.changed {
        return h.clone();
    }
    Histogram {
        zero_count: zero.count,
        count: left.count,
        sum: left.sum,
        positive,
        negative,
        ..h.clone()
    }
}

/// What is left of a histogram while it is trimmed.
#[derive(Default)]
struct Trimmed {
    count: f64,
    sum: f64,
    changed: bool,
}

impl Trimmed {
    fn add(&mut self, before: f64, rest: Bucket) {
        self.changed |= rest.count != before;
        self.count += rest.count;
        if rest.count != 0.0 {
            self.sum += rest.count * rest.middle();
        }
    }
}

fn one_bucket(h: &Histogram, index: i32, count: f64, negative: bool) -> Bucket {
    let side = Buckets::from_sorted(vec![(index, count)]);
    let (positive, negative) = if negative {
        (Buckets::default(), side)
    } else {
        (side, Buckets::default())
    };
    let alone = Histogram {
        positive,
        negative,
        zero_count: 0.0,
        ..h.clone()
    };
    let nothing = Bucket {
        lower: 0.0,
        upper: 0.0,
        count: 0.0,
        linear: true,
    };
    bucket::native(&alone).first().copied().unwrap_or(nothing)
}

fn zero_bucket(h: &Histogram) -> Bucket {
    let one_sided = h.negative.is_empty() != h.positive.is_empty();
    let reach = |has_side: bool| {
        if one_sided && !has_side {
            0.0
        } else {
            h.zero_threshold
        }
    };
    Bucket {
        lower: -reach(!h.negative.is_empty()),
        upper: reach(!h.positive.is_empty()),
        count: h.zero_count,
        linear: true,
    }
}

/// What is left of a bucket. An open one is not divided: it stays whole with the cut as its
/// bound where its open side is kept, and goes where it is cut off.
fn keep_part(bucket: Bucket, cut: f64, keep_below: bool) -> Bucket {
    let nothing = Bucket {
        count: 0.0,
        ..bucket
    };
    let (inside, outside) = if keep_below {
        (bucket.upper <= cut, bucket.lower >= cut)
    } else {
        (bucket.lower >= cut, bucket.upper <= cut)
    };
    // Outside first: nothing lies beyond an infinite cut, not even a bucket that ends there.
    // Nothing lies on either side of a NaN.
    if outside || bucket.count == 0.0 || cut.is_nan() {
        return nothing;
    }
    if inside {
        return bucket;
    }
    let open_below = bucket.lower == f64::NEG_INFINITY;
    let open_above = bucket.upper == f64::INFINITY;
    let share = match (open_below, open_above) {
        (false, false) if keep_below => bucket.share_below(cut),
        (false, false) => 1.0 - bucket.share_below(cut),
        (true, false) if keep_below => 1.0,
        (false, true) if !keep_below => 1.0,
        _ => return nothing,
    };
    let count = bucket.count * share;
    if keep_below {
        Bucket {
            upper: cut,
            count,
            ..bucket
        }
    } else {
        Bucket {
            lower: cut,
            count,
            ..bucket
        }
    }
}

/// A value as `count_values` writes it into a label.
pub(crate) fn text_of(value: &Value) -> String {
    let h = match value {
        Value::Float(value) => return decimal(*value),
        Value::Histogram(h) => h,
    };
    let mut out = format!("{{count:{}, sum:{}", shortest(h.count), shortest(h.sum));
    let mut write = |open: char, lower: f64, upper: f64, close: char, count: f64| {
        let (lower, upper, count) = (shortest(lower), shortest(upper), shortest(count));
        // Writing to a String can't fail.
        let _ = write!(out, ", {open}{lower},{upper}{close}:{count}");
    };
    for (index, count) in h.negative.iter().rev().filter(|(_, count)| *count != 0.0) {
        let bucket = one_bucket(h, index, count, true);
        write('[', bucket.lower, bucket.upper, ')', count);
    }
    if h.zero_count != 0.0 {
        write('[', -h.zero_threshold, h.zero_threshold, ']', h.zero_count);
    }
    for (index, count) in h.positive.iter().filter(|(_, count)| *count != 0.0) {
        let bucket = one_bucket(h, index, count, false);
        match h.has_custom_bounds() && index <= 0 {
            true => write('[', f64::NEG_INFINITY, bucket.upper, ']', count),
            false => write('(', bucket.lower, bucket.upper, ']', count),
        }
    }
    out.push('}');
    out
}
