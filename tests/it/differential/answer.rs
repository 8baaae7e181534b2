//! What an engine answered, and whether two answers are the same.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value as Json;

/// How far apart two numbers may be, relative to the larger. Engines add in different orders.
const TOLERANCE: f64 = 1e-9;

pub(super) type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug)]
pub(super) enum Point {
    Float(f64),
    Histogram(Box<Histogram>),
}

#[derive(Clone, Debug)]
pub(super) struct Histogram {
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) buckets: Vec<Bucket>,
}

#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Which bounds belong to it: 0 the upper, 1 the lower, 2 none, 3 both.
    pub(super) rule: u64,
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) count: f64,
}

/// A series of an answer: its labels and its points by time in milliseconds.
pub(super) type Row = (Labels, Vec<(i64, Point)>);

#[derive(Clone, Debug)]
pub(super) enum Data {
    Scalar(i64, f64),
    Text(String),
    /// An instant vector, in the engine's order.
    Vector(Vec<Row>),
    /// Series, in the engine's order.
    Matrix(Vec<Row>),
    Error {
        kind: String,
        message: String,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) data: Data,
    /// Warnings and infos, sorted.
    pub(super) warnings: Vec<String>,
    pub(super) infos: Vec<String>,
}

/// How closely answers are held against each other.
#[derive(Clone, Copy)]
pub(super) struct Strictness {
    /// Whether an instant vector's order counts.
    pub(super) is_ordered: bool,
    /// Whether the order of series with several points counts.
    pub(super) has_ordered_series: bool,
    /// Whether warnings and infos count.
    pub(super) with_annotations: bool,
}

impl Answer {
    /// Reads the body of an answer of the Prometheus API.
    pub(super) fn read(body: &[u8]) -> Answer {
        let text = || String::from_utf8_lossy(body).into_owned();
        let json: Json = serde_json::from_slice(body)
            .unwrap_or_else(|error| panic!("{error} in an answer: {}", text()));
        let texts = |key: &str| {
            let list = json[key].as_array().into_iter().flatten();
            let mut texts: Vec<_> = list
                .map(|one| one.as_str().expect("a text").to_owned())
                .collect();
            texts.sort();
            texts
        };
        let data = match json["status"].as_str() {
            Some("success") => read_data(&json["data"]),
            _ => Some(Data::Error {
                kind: json["errorType"].as_str().unwrap_or_default().to_owned(),
                message: json["error"].as_str().unwrap_or_default().to_owned(),
            }),
        };
        Answer {
            data: data.unwrap_or_else(|| panic!("not an answer: {}", text())),
            warnings: texts("warnings"),
            infos: texts("infos"),
        }
    }

    /// What is different in `other`, or `None`.
    pub(super) fn difference(&self, other: &Answer, strictness: Strictness) -> Option<String> {
        if let Some(found) = data_difference(&self.data, &other.data, strictness) {
            return Some(found);
        }
        if !strictness.with_annotations {
            return None;
        }
        for (what, ours, theirs) in [
            ("warnings", &self.warnings, &other.warnings),
            ("infos", &self.infos, &other.infos),
        ] {
            if notes(ours) != notes(theirs) {
                return Some(format!("{what} {ours:?} and {theirs:?}"));
            }
        }
        None
    }
}

/// How many warnings or infos an answer holds at most; which, if there are more, is chance.
const NOTES_MAX: usize = 10;

/// Warnings or infos without what is not compared.
fn notes(texts: &[String]) -> Vec<String> {
    if texts.len() >= NOTES_MAX {
        return vec!["many".to_owned()];
    }
    let bare = |text: &String| {
        // Of the pairs that an operator can't combine Prometheus names one, by chance.
        if let Some((pair, _)) = text.split_once("\": ")
            && pair.contains("incompatible sample types")
        {
            return pair.to_owned();
        }
        let (head, tail) = text.split_once(" samples from ").unwrap_or((text, ""));
        let head = head.trim_end_matches(|c: char| !tail.is_empty() && c.is_ascii_digit());
        format!("{head}{tail}")
    };
    let mut bare: Vec<String> = texts.iter().map(bare).collect();
    bare.dedup();
    bare
}

fn number(json: &Json) -> Option<f64> {
    match json.as_str()? {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        text => text.parse().ok(),
    }
}

fn time_ms(json: &Json) -> Option<i64> {
    Some((json.as_f64()? * 1_000.0).round() as i64)
}

fn labels(json: &Json) -> Option<Labels> {
    let pairs = json.as_object()?.iter();
    pairs
        .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn histogram(json: &Json) -> Option<Point> {
    let buckets = json["buckets"].as_array().into_iter().flatten();
    let bucket = |bucket: &Json| {
        Some(Bucket {
            rule: bucket[0].as_u64()?,
            lower: number(&bucket[1])?,
            upper: number(&bucket[2])?,
            count: number(&bucket[3])?,
        })
    };
    Some(Point::Histogram(Box::new(Histogram {
        count: number(&json["count"])?,
        sum: number(&json["sum"])?,
        buckets: buckets.map(bucket).collect::<Option<_>>()?,
    })))
}

fn row(json: &Json) -> Option<Row> {
    let float = |pair: &Json| Some((time_ms(&pair[0])?, Point::Float(number(&pair[1])?)));
    let native = |pair: &Json| Some((time_ms(&pair[0])?, histogram(&pair[1])?));
    let list = |key: &str| json[key].as_array().into_iter().flatten();
    let one = |key: &str| json.get(key).into_iter();
    let floats = list("values").chain(one("value")).map(float);
    let natives = list("histograms").chain(one("histogram")).map(native);
    let mut points: Vec<_> = floats.chain(natives).collect::<Option<_>>()?;
    points.sort_by_key(|(t_ms, _)| *t_ms);
    Some((labels(&json["metric"])?, points))
}

fn read_data(data: &Json) -> Option<Data> {
    let result = &data["result"];
    let rows = || result.as_array()?.iter().map(row).collect::<Option<_>>();
    Some(match data["resultType"].as_str()? {
        "scalar" => Data::Scalar(time_ms(&result[0])?, number(&result[1])?),
        "string" => Data::Text(result[1].as_str()?.to_owned()),
        "vector" => Data::Vector(rows()?),
        "matrix" => Data::Matrix(rows()?),
        _ => return None,
    })
}

fn data_difference(ours: &Data, theirs: &Data, strictness: Strictness) -> Option<String> {
    match (ours, theirs) {
        (Data::Scalar(t1, v1), Data::Scalar(t2, v2)) => {
            let differs = t1 != t2 || !same_number(*v1, *v2);
            differs.then(|| format!("{v1} at {t1} and {v2} at {t2}"))
        }
        (Data::Text(a), Data::Text(b)) => (a != b).then(|| format!("{a:?} and {b:?}")),
        (Data::Vector(a), Data::Vector(b)) if !strictness.is_ordered => {
            rows_difference(&sorted(a), &sorted(b))
        }
        (Data::Matrix(a), Data::Matrix(b)) if !strictness.has_ordered_series => {
            rows_difference(&sorted(a), &sorted(b))
        }
        (Data::Vector(a), Data::Vector(b)) | (Data::Matrix(a), Data::Matrix(b)) => {
            rows_difference(a, b)
        }
        (Data::Error { kind: a, .. }, Data::Error { kind: b, .. }) if a == b => None,
        (a, b) => Some(format!("{} and {}", Shown(a), Shown(b))),
    }
}

fn sorted(rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

fn rows_difference(ours: &[Row], theirs: &[Row]) -> Option<String> {
    let only = |these: &[Row], those: &[Row]| {
        let is_alone = |row: &&Row| those.iter().all(|other| other.0 != row.0);
        these
            .iter()
            .find(is_alone)
            .map(|row| ShownRow(row).to_string())
    };
    if let Some(row) = only(ours, theirs) {
        return Some(format!("{row} and nothing of these labels"));
    }
    if let Some(row) = only(theirs, ours) {
        return Some(format!("nothing of these labels and {row}"));
    }
    for (a, b) in ours.iter().zip(theirs) {
        if a.0 != b.0 {
            return Some(format!("in another order: {:?} and {:?}", a.0, b.0));
        }
        if let Some(found) = points_difference(&a.1, &b.1) {
            return Some(format!("{:?}: {found}", a.0));
        }
    }
    (ours.len() != theirs.len()).then(|| format!("{} and {} series", ours.len(), theirs.len()))
}

fn points_difference(ours: &[(i64, Point)], theirs: &[(i64, Point)]) -> Option<String> {
    let times = |points: &[(i64, Point)]| points.iter().map(|(t, _)| *t).collect::<Vec<_>>();
    let (our_times, their_times) = (times(ours), times(theirs));
    if our_times != their_times {
        let odd = |a: &[i64], b: &[i64]| a.iter().copied().find(|t| !b.contains(t));
        return Some(format!(
            "{} and {} points; only on one side: {:?} and {:?}",
            ours.len(),
            theirs.len(),
            odd(&our_times, &their_times),
            odd(&their_times, &our_times)
        ));
    }
    for ((t_ms, a), (_, b)) in ours.iter().zip(theirs) {
        if !same_point(a, b) {
            return Some(format!("{} and {} at {t_ms}", ShownPoint(a), ShownPoint(b)));
        }
    }
    None
}

fn same_number(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

fn same_point(a: &Point, b: &Point) -> bool {
    match (a, b) {
        (Point::Float(a), Point::Float(b)) => same_number(*a, *b),
        (Point::Histogram(a), Point::Histogram(b)) => {
            let same_bucket = |(a, b): (&Bucket, &Bucket)| {
                a.rule == b.rule
                    && same_number(a.lower, b.lower)
                    && same_number(a.upper, b.upper)
                    && same_number(a.count, b.count)
            };
            same_number(a.count, b.count)
                && same_number(a.sum, b.sum)
                && a.buckets.len() == b.buckets.len()
                && a.buckets.iter().zip(&b.buckets).all(same_bucket)
        }
        _ => false,
    }
}

struct ShownPoint<'a>(&'a Point);

impl fmt::Display for ShownPoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Point::Float(value) => write!(f, "{value:?}"),
            Point::Histogram(h) => {
                write!(f, "{{count {:?} sum {:?}", h.count, h.sum)?;
                for b in &h.buckets {
                    write!(f, " {}[{:?} {:?}]{:?}", b.rule, b.lower, b.upper, b.count)?;
                }
                write!(f, "}}")
            }
        }
    }
}

struct ShownRow<'a>(&'a Row);

impl fmt::Display for ShownRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.0)?;
        for (t_ms, point) in self.0.1.iter().take(3) {
            write!(f, " {}@{t_ms}", ShownPoint(point))?;
        }
        Ok(())
    }
}

struct Shown<'a>(&'a Data);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Data::Scalar(_, value) => write!(f, "the number {value}"),
            Data::Text(text) => write!(f, "the text {text:?}"),
            Data::Vector(rows) | Data::Matrix(rows) => {
                write!(f, "{} series", rows.len())?;
                rows.first()
                    .map_or(Ok(()), |row| write!(f, " ({})", ShownRow(row)))
            }
            Data::Error { kind, message } => write!(f, "{kind}: {message}"),
        }
    }
}
