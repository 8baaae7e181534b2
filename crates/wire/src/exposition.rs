//! Writers for the two text formats a scraper asks for: Prometheus 0.0.4 and OpenMetrics 1.0.
//!
//! A [`Writer`] takes families one after the other, each with its samples, and gives the text.
//! The two formats differ in four places, all handled here: OpenMetrics names a counter's
//! family without `_total`, has a `# UNIT` line, writes bounds as canonical floats
//! (`1.0`, not `1`), and ends with `# EOF`.
//!
//! Policy: values are escaped, names are the caller's own and must be valid (checked in debug
//! builds); a family without samples writes its header only; NaN and infinities are written as
//! both formats spell them.
//!
//! Sources: the Prometheus "Exposition formats" page; OpenMetrics 1.0 specification.

use std::fmt::Write as _;

/// Which text format to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The `Content-Type` of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format a request's `Accept` header asks for: OpenMetrics where it is named with a
    /// quality above 0, else Prometheus.
    pub fn negotiate(accept: &str) -> Format {
        let wants = accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next() == Some("application/openmetrics-text");
            let refused = |part: &str| {
                let quality = part.strip_prefix("q=").map(str::parse::<f64>);
                matches!(quality, Some(Ok(quality)) if quality <= 0.0)
            };
            named && !parts.any(refused)
        });
        if wants {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }
}

/// Writes families as text.
#[derive(Debug)]
pub struct Writer {
    format: Format,
    text: String,
}

/// A family being written: add its samples, then drop it.
#[derive(Debug)]
pub struct Family<'w> {
    writer: &'w mut Writer,
    sample_name: String,
}

/// A histogram family being written: add its histograms, then drop it.
#[derive(Debug)]
pub struct HistogramFamily<'w> {
    family: Family<'w>,
}

/// A label pair: name and value.
pub type LabelPair<'a> = (&'a str, &'a str);

impl Writer {
    /// A writer of `format`.
    pub fn new(format: Format) -> Self {
        Writer {
            format,
            text: String::new(),
        }
    }

    /// Starts a counter. `name` has no `_total`; `unit` is the last word of the name, or empty.
    pub fn counter(&mut self, name: &str, unit: &str, help: &str) -> Family<'_> {
        let sample_name = format!("{name}_total");
        let family = match self.format {
            Format::Prometheus => &sample_name,
            Format::OpenMetrics => name,
        };
        self.header(family, "counter", unit, help);
        Family {
            writer: self,
            sample_name,
        }
    }

    /// Starts a gauge. `unit` is the last word of the name, or empty.
    pub fn gauge(&mut self, name: &str, unit: &str, help: &str) -> Family<'_> {
        self.header(name, "gauge", unit, help);
        Family {
            writer: self,
            sample_name: name.to_owned(),
        }
    }

    /// Starts a histogram. `unit` is the last word of the name, or empty.
    pub fn histogram(&mut self, name: &str, unit: &str, help: &str) -> HistogramFamily<'_> {
        self.header(name, "histogram", unit, help);
        HistogramFamily {
            family: Family {
                writer: self,
                sample_name: name.to_owned(),
            },
        }
    }

    /// The text, complete.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn header(&mut self, family: &str, kind: &str, unit: &str, help: &str) {
        debug_assert!(is_metric_name(family), "{family:?} is not a metric name");
        let quotes = self.format == Format::OpenMetrics;
        self.text.push_str("# HELP ");
        self.text.push_str(family);
        self.text.push(' ');
        push_escaped(&mut self.text, help, quotes);
        self.text.push('\n');
        let _ = writeln!(self.text, "# TYPE {family} {kind}");
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            debug_assert!(
                family.ends_with(unit),
                "{family:?} does not end in {unit:?}"
            );
            let _ = writeln!(self.text, "# UNIT {family} {unit}");
        }
    }

    fn line(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &[LabelPair<'_>],
        bound: Option<f64>,
        value: f64,
    ) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (name, value) in labels {
            debug_assert!(is_label_name(name), "{name:?} is not a label name");
            self.text.push(separator);
            separator = ',';
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(&mut self.text, value, true);
            self.text.push('"');
        }
        if let Some(bound) = bound {
            self.text.push(separator);
            separator = ',';
            self.text.push_str("le=\"");
            push_number(&mut self.text, bound, self.format == Format::OpenMetrics);
            self.text.push('"');
        }
        if separator == ',' {
            self.text.push('}');
        }
        self.text.push(' ');
        push_number(&mut self.text, value, false);
        self.text.push('\n');
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: &[LabelPair<'_>], value: f64) -> &mut Self {
        self.writer.line(&self.sample_name, "", labels, None, value);
        self
    }
}

impl HistogramFamily<'_> {
    /// Adds a histogram: cumulative counts at ascending upper bounds without `+Inf`, the sum of
    /// the observations and their number.
    pub fn sample(
        &mut self,
        labels: &[LabelPair<'_>],
        buckets: &[(f64, u64)],
        sum: f64,
        count: u64,
    ) -> &mut Self {
        let Family {
            writer,
            sample_name: name,
        } = &mut self.family;
        for (bound, cumulative) in buckets {
            writer.line(name, "_bucket", labels, Some(*bound), *cumulative as f64);
        }
        writer.line(name, "_bucket", labels, Some(f64::INFINITY), count as f64);
        writer.line(name, "_sum", labels, None, sum);
        writer.line(name, "_count", labels, None, count as f64);
        self
    }
}

fn push_escaped(text: &mut String, value: &str, quotes: bool) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}

/// The shortest text that reads back as `value`; with `point`, whole numbers end in `.0`.
fn push_number(text: &mut String, value: f64, point: bool) {
    let _ = if value.is_nan() {
        text.write_str("NaN")
    } else if value.is_infinite() {
        text.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else if value != 0.0 && !(1e-5..1e21).contains(&value.abs()) {
        write!(text, "{value:e}")
    } else if point {
        write!(text, "{value:?}")
    } else {
        write!(text, "{value}")
    };
}

fn is_metric_name(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    name.chars().all(valid) && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn is_label_name(name: &str) -> bool {
    is_metric_name(name) && !name.contains(':')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample_text(format: Format) -> String {
        let mut writer = Writer::new(format);
        writer
            .counter("slogate_spans", "", "Spans \"taken\".\nAll \\ of them.")
            .sample(&[("service", "a\"b\\c\nd")], 3.0)
            .sample(&[], 1e21);
        writer
            .gauge("slogate_age_seconds", "seconds", "Age.")
            .sample(&[("a", "1"), ("b", "")], f64::NAN);
        writer
            .histogram("slogate_wait_seconds", "seconds", "Wait.")
            .sample(&[("q", "x")], &[(0.25, 1), (1.0, 2)], 1.5, 3);
        writer.finish()
    }

    #[test]
    fn writes_prometheus_text() {
        let want = r#"# HELP slogate_spans_total Spans "taken".\nAll \\ of them.
# TYPE slogate_spans_total counter
slogate_spans_total{service="a\"b\\c\nd"} 3
slogate_spans_total 1e21
# HELP slogate_age_seconds Age.
# TYPE slogate_age_seconds gauge
slogate_age_seconds{a="1",b=""} NaN
# HELP slogate_wait_seconds Wait.
# TYPE slogate_wait_seconds histogram
slogate_wait_seconds_bucket{q="x",le="0.25"} 1
slogate_wait_seconds_bucket{q="x",le="1"} 2
slogate_wait_seconds_bucket{q="x",le="+Inf"} 3
slogate_wait_seconds_sum{q="x"} 1.5
slogate_wait_seconds_count{q="x"} 3
"#;
        assert_eq!(sample_text(Format::Prometheus), want);
    }

    #[test]
    fn writes_openmetrics_text() {
        let want = r#"# HELP slogate_spans Spans \"taken\".\nAll \\ of them.
# TYPE slogate_spans counter
slogate_spans_total{service="a\"b\\c\nd"} 3
slogate_spans_total 1e21
# HELP slogate_age_seconds Age.
# TYPE slogate_age_seconds gauge
# UNIT slogate_age_seconds seconds
slogate_age_seconds{a="1",b=""} NaN
# HELP slogate_wait_seconds Wait.
# TYPE slogate_wait_seconds histogram
# UNIT slogate_wait_seconds seconds
slogate_wait_seconds_bucket{q="x",le="0.25"} 1
slogate_wait_seconds_bucket{q="x",le="1.0"} 2
slogate_wait_seconds_bucket{q="x",le="+Inf"} 3
slogate_wait_seconds_sum{q="x"} 1.5
slogate_wait_seconds_count{q="x"} 3
# EOF
"#;
        assert_eq!(sample_text(Format::OpenMetrics), want);
    }

    #[test]
    fn the_accept_header_decides() {
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            (
                "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.5",
                Format::OpenMetrics,
            ),
            (
                "text/plain, application/openmetrics-text; q=0",
                Format::Prometheus,
            ),
        ] {
            assert_eq!(Format::negotiate(accept), format, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn numbers_read_back_as_they_were(value: f64, point: bool) {
            let mut text = String::new();
            push_number(&mut text, value, point);
            let back: f64 = text.parse().unwrap();
            prop_assert!(back == value || (back.is_nan() && value.is_nan()), "{text}");
        }

        #[test]
        fn a_label_value_never_ends_its_line_early(value: String) {
            let mut writer = Writer::new(Format::Prometheus);
            writer.gauge("g", "", "").sample(&[("l", &value)], 1.0);
            let text = writer.finish();
            prop_assert_eq!(text.matches('\n').count(), 3);
        }
    }
}
