//! Answers of Prometheus's HTTP API.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value as Json;
use slogate_promql::{InstantSample, QueryValue};
use slogate_series::{Buckets, Histogram, Labels, ResetHint, Sample, Series, Value};

#[derive(Deserialize)]
pub(super) struct Envelope {
    pub(super) status: String,
    pub(super) data: Option<Data>,
    #[serde(rename = "errorType")]
    pub(super) error_type: Option<String>,
    pub(super) error: Option<String>,
    #[serde(default)]
    pub(super) warnings: Vec<String>,
    #[serde(default)]
    pub(super) infos: Vec<String>,
    /// What VictoriaMetrics says of an answer without the parts that were away.
    #[serde(rename = "isPartial", default)]
    pub(super) is_partial: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Data {
    pub(super) result_type: String,
    pub(super) result: Json,
}

/// The value of an answer; `None` where it has another shape than its type says.
pub(super) fn parse_value(kind: &str, result: &Json) -> Option<QueryValue> {
    match kind {
        "scalar" => Some(QueryValue::Scalar(parse_number(result.get(1)?)?)),
        "string" => Some(QueryValue::String(result.get(1)?.as_str()?.to_owned())),
        "vector" => {
            let rows = result.as_array()?.iter().map(|row| {
                let labels = parse_labels(row.get("metric")?)?;
                let sample = match row.get("histogram") {
                    Some(histogram) => parse_histogram(histogram)?,
                    None => parse_float(row.get("value")?)?,
                };
                Some(InstantSample {
                    labels,
                    value: sample.value,
                })
            });
            rows.collect::<Option<Vec<_>>>().map(QueryValue::Vector)
        }
        "matrix" => {
            let rows = result.as_array()?.iter().map(|row| {
                let labels = parse_labels(row.get("metric")?)?;
                let list = |key: &str| row.get(key).and_then(Json::as_array);
                let floats = list("values").into_iter().flatten().map(parse_float);
                let histograms = list("histograms")
                    .into_iter()
                    .flatten()
                    .map(parse_histogram);
                let mut samples = floats.chain(histograms).collect::<Option<Vec<_>>>()?;
                samples.sort_by_key(|sample| sample.t_ms);
                Some(Series { labels, samples })
            });
            rows.collect::<Option<Vec<_>>>().map(QueryValue::Matrix)
        }
        _ => None,
    }
}

fn parse_labels(metric: &Json) -> Option<Labels> {
    let pairs = metric.as_object()?.iter();
    let pairs: Option<Vec<_>> = pairs
        .map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .collect();
    Some(Labels::from_pairs(pairs?))
}

fn parse_number(text: &Json) -> Option<f64> {
    match text.as_str()? {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    }
}

fn parse_time(value: &Json) -> Option<i64> {
    Some((value.as_f64()? * 1000.0).round() as i64)
}

fn parse_float(pair: &Json) -> Option<Sample> {
    let value = Value::Float(parse_number(pair.get(1)?)?);
    Some(Sample {
        t_ms: parse_time(pair.get(0)?)?,
        start_ms: 0,
        value,
    })
}

/// A histogram as the HTTP API shows it: buckets by their bounds, the schema left out.
///
/// The schema is recovered from the width of the first bucket that does not touch zero;
/// bounds that fit no schema become explicit bounds.
fn parse_histogram(pair: &Json) -> Option<Sample> {
    let body = pair.get(1)?;
    let mut rows = Vec::new();
    for bucket in body
        .get("buckets")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
    {
        let number = |at: usize| bucket.get(at).and_then(parse_number);
        rows.push((number(1)?, number(2)?, number(3)?));
    }
    let schema = rows
        .iter()
        .filter(|(low, high, _)| *low > 0.0 && high.is_finite())
        .find_map(|(low, high, _)| {
            let schema = -(high.log2() - low.log2()).log2();
            let whole = schema.round();
            ((schema - whole).abs() < 1e-6 && (-4.0..=8.0).contains(&whole)).then_some(whole as i8)
        });
    let mut histogram = Histogram {
        schema: schema.unwrap_or(slogate_series::histogram::CUSTOM_SCHEMA),
        reset_hint: ResetHint::Unknown,
        count: parse_number(body.get("count")?)?,
        sum: parse_number(body.get("sum")?)?,
        ..Histogram::default()
    };
    match schema {
        Some(schema) => fill_exponential(&mut histogram, schema, &rows),
        None => fill_explicit(&mut histogram, &rows),
    }
    Some(Sample {
        t_ms: parse_time(pair.get(0)?)?,
        start_ms: 0,
        value: Value::Histogram(Arc::new(histogram)),
    })
}

fn fill_exponential(histogram: &mut Histogram, schema: i8, rows: &[(f64, f64, f64)]) {
    let (mut positive, mut negative) = (Vec::new(), Vec::new());
    // A bound is printed with all its digits, so its logarithm rounds to the index.
    let index = |bound: f64| (bound.log2() * f64::from(schema).exp2()).round() as i32;
    for (low, high, count) in rows {
        if *low > 0.0 {
            positive.push((index(*high), *count));
        } else if *high < 0.0 {
            negative.push((index(-low), *count));
        } else {
            histogram.zero_threshold = high.max(-low);
            histogram.zero_count = *count;
        }
    }
    positive.sort_by_key(|(index, _)| *index);
    negative.sort_by_key(|(index, _)| *index);
    positive.dedup_by_key(|(index, _)| *index);
    negative.dedup_by_key(|(index, _)| *index);
    histogram.positive = Buckets::from_sorted(positive);
    histogram.negative = Buckets::from_sorted(negative);
}

fn fill_explicit(histogram: &mut Histogram, rows: &[(f64, f64, f64)]) {
    let mut bounds: Vec<f64> = Vec::new();
    let mut entries: Vec<(i32, f64)> = Vec::new();
    for (low, high, count) in rows {
        for bound in [*low, *high] {
            if bound.is_finite() && bound != 0.0 && bounds.last().is_none_or(|last| *last < bound) {
                bounds.push(bound);
            }
        }
        let at = bounds
            .iter()
            .position(|bound| bound >= high)
            .unwrap_or(bounds.len());
        let at = i32::try_from(at).unwrap_or(i32::MAX);
        if entries.last().is_none_or(|(last, _)| *last < at) {
            entries.push((at, *count));
        }
    }
    histogram.custom_bounds = bounds.into();
    histogram.positive = Buckets::from_sorted(entries);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_the_four_shapes() {
        let scalar = parse_value("scalar", &json!([1.5, "NaN"])).unwrap();
        assert!(matches!(scalar, QueryValue::Scalar(value) if value.is_nan()));
        let vector = json!([{"metric": {"a": "b"}, "value": [1, "+Inf"]}]);
        let Some(QueryValue::Vector(rows)) = parse_value("vector", &vector) else {
            panic!()
        };
        assert_eq!(rows[0].labels.to_string(), r#"{a="b"}"#);
        assert_eq!(rows[0].value, Value::Float(f64::INFINITY));
        let matrix = json!([{"metric": {}, "values": [[1.25, "3"], [2, "1e-07"]]}]);
        let Some(QueryValue::Matrix(rows)) = parse_value("matrix", &matrix) else {
            panic!()
        };
        assert_eq!(rows[0].samples[0].t_ms, 1250);
        assert_eq!(rows[0].samples[1].value, Value::Float(1e-7));
        assert!(parse_value("tensor", &json!([])).is_none());
        assert!(parse_value("vector", &json!([{"metric": {}}])).is_none());
    }

    #[test]
    fn native_histograms_get_their_schema_back() {
        let high = slogate_series::histogram::upper_bound(4, 3);
        let low = slogate_series::histogram::upper_bound(4, 2);
        let sample = json!([10, {"count": "7", "sum": "8.5", "buckets": [
            [3, "-0.001", "0.001", "2"], [0, low.to_string(), high.to_string(), "5"]]}]);
        let sample = parse_histogram(&sample).unwrap();
        let Value::Histogram(histogram) = sample.value else {
            panic!()
        };
        assert_eq!(
            (histogram.schema, histogram.count, histogram.zero_count),
            (4, 7.0, 2.0)
        );
        assert_eq!(histogram.positive.as_slice(), [(3, 5.0)]);
    }

    #[test]
    fn other_bounds_become_explicit() {
        let sample = json!([10, {"count": "6", "sum": "8", "buckets": [
            [3, "0", "1", "2"], [0, "1", "3", "3"], [0, "3", "+Inf", "1"]]}]);
        let sample = parse_histogram(&sample).unwrap();
        let Value::Histogram(histogram) = sample.value else {
            panic!()
        };
        assert!(histogram.has_custom_bounds());
        assert_eq!(&*histogram.custom_bounds, [1.0, 3.0]);
        assert_eq!(
            histogram.positive.as_slice(),
            [(0, 2.0), (1, 3.0), (2, 1.0)]
        );
    }
}
