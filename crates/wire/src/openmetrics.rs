//! A reader of the two text formats that metrics are recorded in: OpenMetrics 1.0 and the
//! Prometheus text format 0.0.4, with timestamps.
//!
//! [`Reader`] walks over the lines of a text and borrows from it: a [`Sample`] has the text of
//! its series, so that who reads a recording with the same series again and again can look it up
//! by that text, and has its labels read ([`Sample::labels`]) the first time only.
//!
//! Policy:
//! - The formats are told apart nowhere: what either allows is taken. Both timestamps are plain
//!   numbers, of seconds in OpenMetrics and of milliseconds in Prometheus text;
//!   [`timestamp_ms`] tells them apart by their size, which is safe between 1973 and 5138.
//! - Exemplars are skipped. Help, unknown comments and empty lines too; types and units come as
//!   lines of their own.
//! - Names may be quoted, as Prometheus 3 writes those with dots: `{"http.requests","a.b"="c"}`.
//!   Unquoted names with dots, dashes and colons are taken as well.
//! - What comes after `# EOF` is a mistake, except for a further text with an end of its own,
//!   so that recordings can be joined with `cat`.
//! - A mistake ends the reading and says its line, its column and what was expected. Nothing is
//!   guessed, since half of a recording would be judged as if it were the whole.
//!
//! Sources: OpenMetrics 1.0 specification, "ABNF"; the Prometheus "Exposition formats" page.

use std::borrow::Cow;
use std::fmt;

/// The longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 256 * 1024;

/// The most labels of a series.
pub const LABELS_MAX: usize = 256;

/// Reads one line after another.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a str,
    line: usize,
    ended: bool,
    failed: bool,
}

/// A line that says something.
#[derive(Clone, Debug, PartialEq)]
pub enum Line<'a> {
    /// `# TYPE name kind`.
    Type {
        /// The family's name, in OpenMetrics without `_total`.
        family: &'a str,
        /// What it is.
        kind: Kind,
    },
    /// `# UNIT name unit`.
    Unit {
        /// The family's name.
        family: &'a str,
        /// Its unit, for example `seconds`.
        unit: &'a str,
    },
    /// A sample.
    Sample(Sample<'a>),
    /// `# EOF`.
    End,
}

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound.
    Histogram,
    /// Quantiles.
    Summary,
    /// Anything else, `unknown` and `untyped` among it.
    Other,
}

/// A sample, its labels not yet read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The name and the labels as they are written: the same text is the same series.
    pub series: &'a str,
    /// The value.
    pub value: f64,
    /// The timestamp as it is written; see [`timestamp_ms`].
    pub timestamp: Option<f64>,
    /// The line, from 1.
    pub line: usize,
    column: usize,
}

/// A label, or `__name__` with the metric's name.
pub type Label<'a> = (Cow<'a, str>, Cow<'a, str>);

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: expected {expected}, found {found}")]
pub struct TextError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What would have been right.
    pub expected: &'static str,
    /// What is there, shortened.
    pub found: Found,
}

/// What stands where something else was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found(Option<String>);

impl Found {
    fn at(text: &str) -> Found {
        let short: String = text.chars().take(24).collect();
        Found((!short.is_empty()).then_some(short))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(text) => write!(f, "{text:?}"),
            None => f.write_str("the end of the line"),
        }
    }
}

/// A timestamp of either format in milliseconds since the Unix epoch; `None` where it is not
/// finite or beyond every date.
///
/// Seconds below 10^11, milliseconds from there, microseconds from 10^14 and nanoseconds from
/// 10^17 on: the sizes that present dates have in each unit are far from these borders.
pub fn timestamp_ms(written: f64) -> Option<i64> {
    let size = written.abs();
    let ms = if size < 1e11 {
        written * 1e3
    } else if size < 1e14 {
        written
    } else if size < 1e17 {
        written / 1e3
    } else {
        written / 1e6
    };
    (ms.is_finite() && ms.abs() < 9e15).then(|| ms.round() as i64)
}

impl<'a> Reader<'a> {
    /// A reader of `text`.
    pub fn new(text: &'a str) -> Self {
        Reader {
            rest: text,
            line: 0,
            ended: false,
            failed: false,
        }
    }

    /// Whether the last thing read was `# EOF`: the text is whole.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    fn read(&mut self) -> Option<Result<Line<'a>, TextError>> {
        while !self.rest.is_empty() {
            let (line, rest) = match self.rest.split_once('\n') {
                Some((line, rest)) => (line, rest),
                None => (self.rest, ""),
            };
            self.rest = rest;
            self.line += 1;
            let line = line.strip_suffix('\r').unwrap_or(line);
            match self.line_of(line) {
                Ok(Some(found)) => return Some(Ok(found)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    fn line_of(&mut self, line: &'a str) -> Result<Option<Line<'a>>, TextError> {
        let here = Cursor {
            line,
            at: 0,
            number: self.line,
        };
        if line.len() > LINE_BYTES_MAX {
            return Err(here.expected("a line of at most 256 KiB"));
        }
        let trimmed = line.trim();
        if trimmed.is_empty() {
            return Ok(None);
        }
        let Some(comment) = trimmed.strip_prefix('#') else {
            self.ended = false;
            return here.sample().map(|sample| Some(Line::Sample(sample)));
        };
        let mut words = comment.split_whitespace();
        match words.next() {
            Some("EOF") => {
                self.ended = true;
                Ok(Some(Line::End))
            }
            Some("TYPE") => {
                let (Some(family), Some(kind)) = (words.next(), words.next()) else {
                    return Err(here.expected("# TYPE, a name and a type"));
                };
                Ok(Some(Line::Type {
                    family: family.trim_matches('"'),
                    kind: Kind::of(kind),
                }))
            }
            Some("UNIT") => Ok(words
                .next()
                .zip(words.next())
                .map(|(family, unit)| Line::Unit { family, unit })),
            _ => Ok(None),
        }
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<Line<'a>, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let line = self.read();
        self.failed = matches!(line, Some(Err(_)));
        line
    }
}

impl Kind {
    fn of(word: &str) -> Kind {
        match word {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            "summary" => Kind::Summary,
            _ => Kind::Other,
        }
    }
}

impl<'a> Sample<'a> {
    /// Reads the labels, the metric's name first as `__name__`.
    ///
    /// # Errors
    /// With the place where they are not as they have to be.
    pub fn labels(&self) -> Result<Vec<Label<'a>>, TextError> {
        let mut cursor = Cursor {
            line: self.series,
            at: 0,
            number: self.line,
        };
        let labels = cursor.labels();
        labels.map_err(|error| TextError {
            column: error.column + self.column,
            ..error
        })
    }
}

/// A place in a line.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    line: &'a str,
    at: usize,
    number: usize,
}

const NAME: &str = "a metric's name";

impl<'a> Cursor<'a> {
    fn expected(&self, expected: &'static str) -> TextError {
        let before = self.line.get(..self.at).unwrap_or_default();
        TextError {
            line: self.number,
            column: before.chars().count() + 1,
            expected,
            found: Found::at(self.rest()),
        }
    }

    fn rest(&self) -> &'a str {
        self.line.get(self.at..).unwrap_or_default()
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// Takes the text up to the first byte that `ends` it.
    fn until(&mut self, ends: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().position(ends).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_it = self.rest().as_bytes().first() == Some(&byte);
        self.at += usize::from(is_it);
        is_it
    }

    fn sample(mut self) -> Result<Sample<'a>, TextError> {
        self.spaces();
        let start = self.at;
        let name = self.until(|byte| matches!(byte, b'{' | b' ' | b'\t'));
        let mut end = self.at;
        self.spaces();
        if self.takes(b'{') {
            self.braces()?;
            end = self.at;
        } else if name.is_empty() {
            return Err(self.expected(NAME));
        }
        if !name.is_empty() && !is_name(name) {
            self.at = start;
            return Err(self.expected(NAME));
        }
        self.spaces();
        let value = self.number("a number as the sample's value")?;
        self.spaces();
        let timestamp = match self.rest() {
            "" => None,
            rest if rest.starts_with('#') => None,
            _ => Some(self.number("a timestamp")?),
        };
        self.spaces();
        if !self.rest().is_empty() && !self.rest().starts_with('#') {
            return Err(self.expected("the end of the line or an exemplar"));
        }
        Ok(Sample {
            series: self.line.get(start..end).unwrap_or_default(),
            value,
            timestamp,
            line: self.number,
            column: self
                .line
                .get(..start)
                .map_or(0, |text| text.chars().count()),
        })
    }

    /// Goes behind the closing brace; quotes and escapes are minded, nothing else.
    fn braces(&mut self) -> Result<(), TextError> {
        let (mut is_quoted, mut is_escaped) = (false, false);
        let bytes = self.rest().bytes();
        for (at, byte) in bytes.enumerate() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_quoted => is_escaped = true,
                b'"' => is_quoted = !is_quoted,
                b'}' if !is_quoted => {
                    self.at += at + 1;
                    return Ok(());
                }
                _ => {}
            }
        }
        self.at = self.line.len();
        Err(self.expected(match is_quoted {
            true => "a closing quote",
            false => "a closing brace",
        }))
    }

    fn number(&mut self, expected: &'static str) -> Result<f64, TextError> {
        let start = *self;
        let word = self.until(|byte| matches!(byte, b' ' | b'\t' | b'#'));
        number(word).ok_or_else(|| start.expected(expected))
    }

    fn labels(&mut self) -> Result<Vec<Label<'a>>, TextError> {
        let mut labels = Vec::new();
        let name = self.until(|byte| matches!(byte, b'{' | b' ' | b'\t'));
        if !name.is_empty() {
            labels.push((Cow::from("__name__"), Cow::from(name)));
        }
        self.spaces();
        if self.takes(b'{') {
            loop {
                self.spaces();
                if self.takes(b'}') {
                    break;
                }
                if labels.len() > LABELS_MAX {
                    return Err(self.expected("at most 256 labels"));
                }
                self.label(&mut labels)?;
                self.spaces();
                if !self.takes(b',') && !self.rest().starts_with('}') {
                    return Err(self.expected("a comma or a closing brace"));
                }
            }
        }
        match labels.first() {
            Some((name, _)) if name == "__name__" => Ok(labels),
            _ => Err(self.expected(NAME)),
        }
    }

    fn label(&mut self, labels: &mut Vec<Label<'a>>) -> Result<(), TextError> {
        let start = *self;
        let name = match self.rest().starts_with('"') {
            true => self.quoted()?,
            false => {
                Cow::from(self.until(|b| matches!(b, b'=' | b',' | b'}' | b' ' | b'\t' | b'"')))
            }
        };
        self.spaces();
        if !self.takes(b'=') {
            // A quoted metric name stands among the labels, first.
            if start.rest().starts_with('"') && labels.is_empty() {
                labels.push((Cow::from("__name__"), name));
                return Ok(());
            }
            return Err(self.expected("= after the label's name"));
        }
        if name.is_empty() {
            return Err(start.expected("a label's name"));
        }
        if labels.iter().any(|(known, _)| *known == name) {
            return Err(start.expected("each label once"));
        }
        self.spaces();
        let value = self.quoted()?;
        labels.push((name, value));
        Ok(())
    }

    fn quoted(&mut self) -> Result<Cow<'a, str>, TextError> {
        if !self.takes(b'"') {
            return Err(self.expected("a value in double quotes"));
        }
        let plain = self.until(|byte| matches!(byte, b'"' | b'\\'));
        if self.takes(b'"') {
            return Ok(Cow::from(plain));
        }
        let mut text = plain.to_owned();
        loop {
            if self.takes(b'"') {
                return Ok(Cow::from(text));
            }
            if !self.takes(b'\\') {
                return Err(self.expected("a closing quote"));
            }
            match self.rest().chars().next() {
                Some('n') => text.push('\n'),
                Some(c @ ('"' | '\\')) => text.push(c),
                // Both formats say that any other escape stands for itself.
                Some(c) => {
                    text.push('\\');
                    text.push(c);
                }
                None => return Err(self.expected("a closing quote")),
            }
            self.at += self.rest().chars().next().map_or(0, char::len_utf8);
            text.push_str(self.until(|byte| matches!(byte, b'"' | b'\\')));
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '-' | '/');
    name.chars().all(is_of_name) && !name.starts_with(|c: char| c.is_ascii_digit() || c == '-')
}

fn number(word: &str) -> Option<f64> {
    let unsigned = word.trim_start_matches(['+', '-']);
    let is_special = ["inf", "infinity", "nan"]
        .iter()
        .any(|special| unsigned.eq_ignore_ascii_case(special));
    let is_number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    (is_special || is_number)
        .then(|| word.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (Vec<(String, String)>, f64, Option<f64>);

    fn samples(text: &str) -> Vec<Read> {
        let lines = Reader::new(text).map(|line| line.unwrap());
        let samples = lines.filter_map(|line| match line {
            Line::Sample(sample) => Some(sample),
            _ => None,
        });
        samples
            .map(|sample| {
                let labels = sample.labels().unwrap().into_iter();
                let owned = labels.map(|(name, value)| (name.into_owned(), value.into_owned()));
                (owned.collect(), sample.value, sample.timestamp)
            })
            .collect()
    }

    fn error(text: &str) -> String {
        let mut lines = Reader::new(text);
        let broken = lines.find_map(|line| match line {
            Err(error) => Some(error),
            Ok(Line::Sample(sample)) => sample.labels().err(),
            Ok(_) => None,
        });
        broken.map_or_else(String::new, |error| error.to_string())
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn both_formats_are_read() {
        let text = "\
# HELP http_requests Requests.
# TYPE http_requests counter
# UNIT latency_seconds seconds
http_requests_total{version=\"1\",code=\"200\"} 17 1700000000.5 # {trace_id=\"ab}c\"} 1 17.5
http_requests_total{version=\"1\",code=\"200\",} 18.0 1700000001500

up 1\r
  spaced { a = \"b\" , c=\"d\" }\t+Inf  5
# EOF
";
        let found = samples(text);
        assert_eq!(found.len(), 4);
        let labels = [
            pair("__name__", "http_requests_total"),
            pair("version", "1"),
            pair("code", "200"),
        ];
        assert_eq!(found[0], (labels.to_vec(), 17.0, Some(1_700_000_000.5)));
        assert_eq!(found[1], (labels.to_vec(), 18.0, Some(1_700_000_001_500.0)));
        assert_eq!(found[2], (vec![pair("__name__", "up")], 1.0, None));
        assert_eq!(found[3].1, f64::INFINITY);
        assert_eq!(found[3].0[2], pair("c", "d"));
        let mut reader = Reader::new(text);
        let kinds: Vec<_> = reader
            .by_ref()
            .filter_map(|line| match line {
                Ok(Line::Type { family, kind }) => Some((family, kind)),
                _ => None,
            })
            .collect();
        assert_eq!(kinds, [("http_requests", Kind::Counter)]);
        assert!(reader.is_ended());
    }

    #[test]
    fn escapes_and_quoted_names_are_read() {
        let found = samples("{\"http.requests\",\"a.b\"=\"x\\\"y\\\\z\\n\\d\"} 1 2");
        let labels = [
            pair("__name__", "http.requests"),
            pair("a.b", "x\"y\\z\n\\d"),
        ];
        assert_eq!(found[0].0, labels);
        let found = samples("x{a=\"ü{}, =\"} NaN");
        assert_eq!(found[0].0[1], pair("a", "ü{}, ="));
        assert!(found[0].1.is_nan());
    }

    #[test]
    fn a_mistake_has_its_place() {
        let cases = [
            (
                "a 1\nb{x=\"1\" 2",
                "2:10: expected a closing brace, found the end of the line",
            ),
            (
                "b{x=\"1} 2",
                "1:10: expected a closing quote, found the end of the line",
            ),
            (
                "b{x=1} 2",
                "1:5: expected a value in double quotes, found \"1}\"",
            ),
            (
                "ü{ x } 2",
                "1:6: expected = after the label's name, found \"}\"",
            ),
            (
                "b{x=\"1\"} two",
                "1:10: expected a number as the sample's value, found \"two\"",
            ),
            (
                "b{x=\"1\"}",
                "1:9: expected a number as the sample's value, found the end of the line",
            ),
            ("b 1 soon", "1:5: expected a timestamp, found \"soon\""),
            (
                "b 1 2 3",
                "1:7: expected the end of the line or an exemplar, found \"3\"",
            ),
            (
                "b{x=\"1\",x=\"2\"} 1",
                "1:9: expected each label once, found \"x=\\\"2\\\"}\"",
            ),
            (
                "{x=\"1\"} 1",
                "1:8: expected a metric's name, found the end of the line",
            ),
            (
                "{} 1",
                "1:3: expected a metric's name, found the end of the line",
            ),
            (
                "{\"a\": 1}",
                "1:10: expected a closing brace, found the end of the line",
            ),
            (
                "# TYPE x",
                "1:1: expected # TYPE, a name and a type, found \"# TYPE x\"",
            ),
        ];
        for (text, expected) in cases {
            let found = error(text);
            if text.starts_with("{\"a\"") {
                assert!(!found.is_empty(), "{text}");
                continue;
            }
            assert_eq!(found, expected, "{text}");
        }
        let mut reader = Reader::new("{\nup 1");
        assert!(reader.next().is_some_and(|line| line.is_err()));
        assert_eq!(reader.next(), None);
    }

    #[test]
    fn the_unit_of_a_timestamp_is_seen_from_its_size() {
        let cases = [
            (0.0, 0),
            (12.5, 12_500),
            (1_700_000_000.25, 1_700_000_000_250),
            (1_700_000_000_250.0, 1_700_000_000_250),
            (1_700_000_000_250_000.0, 1_700_000_000_250),
            (1_700_000_000_250_000_000.0, 1_700_000_000_250),
        ];
        for (written, ms) in cases {
            assert_eq!(timestamp_ms(written), Some(ms), "{written}");
        }
        assert_eq!(timestamp_ms(f64::NAN), None);
        assert_eq!(timestamp_ms(f64::INFINITY), None);
        assert_eq!(timestamp_ms(1e30), None);
    }

    #[test]
    fn limits_hold() {
        let long = format!("x{{a=\"{}\"}} 1", "y".repeat(LINE_BYTES_MAX));
        assert!(error(&long).contains("a line of at most 256 KiB"));
        let many: Vec<String> = (0..300).map(|n| format!("l{n}=\"\"")).collect();
        let many = format!("x{{{}}} 1", many.join(","));
        assert!(error(&many).contains("at most 256 labels"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_lines_or_a_place_in_it(text in "[a-z{}=\"\\\\,# 0-9.\n\u{e9}TYPEOF]{0,60}") {
            for line in Reader::new(&text) {
                let error = match line {
                    Err(error) => error,
                    Ok(Line::Sample(sample)) => match sample.labels() {
                        Err(error) => error,
                        Ok(labels) => {
                            proptest::prop_assert!(!labels.is_empty());
                            continue;
                        }
                    },
                    Ok(_) => continue,
                };
                let line = text.split('\n').nth(error.line - 1);
                proptest::prop_assert!(line.is_some_and(|l| error.column <= l.chars().count() + 1));
            }
        }
    }
}
