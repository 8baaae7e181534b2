//! A YAML tree into gates.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::policy::diagnostics::{Diagnostics, SourceFile, nearest};
use crate::policy::reader::{Field, Fields, Mistakes, alternatives, word};
use crate::policy::value::{self, format_duration};
use crate::policy::yaml::{self, FILE_BYTES_MAX, Node, Value};
use crate::policy::{
    BaselinePreference, Check, CheckSpec, CompareCheck, CompareSli, CoverageCheck, Gate, Glob,
    Margin, Match, OnInconclusive, QueryCheck, Signal, SpanKind, Template, Threshold, ThresholdOp,
    Word, document, promql,
};

/// The value of `apiVersion`.
pub(super) const API_VERSION: &str = "slogate.dev/v1";

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
const CHECKS_MAX: usize = 100;
const NAME_MAX: usize = 63;

/// What a gate has where its author says nothing.
pub(super) mod defaults {
    use super::MINUTE_MS;

    pub(crate) const WARM_UP_MS: i64 = 2 * MINUTE_MS;
    pub(crate) const SOAK_MS: i64 = 5 * MINUTE_MS;
    pub(crate) const DECIDE_WITHIN_MS: i64 = 60 * MINUTE_MS;
    pub(crate) const FALSE_ALARMS: f64 = 0.01;
    pub(crate) const FALSE_PASSES: f64 = 0.05;
    pub(crate) const STALE_AFTER_MS: i64 = 5 * MINUTE_MS;
    pub(crate) const MIN_EVENTS: u64 = 50;
    pub(crate) const QUANTILE: f64 = 0.95;
    pub(crate) const WEIGHT: f64 = 1.0;
    /// A quarter more errors, or one in a thousand requests, is no reason to stop a rollout.
    pub(crate) const ERRORS_ABSOLUTE: f64 = 0.001;
    pub(crate) const ERRORS_RELATIVE: f64 = 0.25;
    /// A tenth slower, or five milliseconds, is no reason to stop a rollout.
    pub(crate) const DURATION_ABSOLUTE: f64 = 0.005;
    pub(crate) const DURATION_RELATIVE: f64 = 0.10;
    pub(crate) const COVERAGE: f64 = 0.95;
}

/// Kinds of checks, in the order they are listed to the author.
const KINDS: [&str; 3] = ["compare", "query", "coverage"];

/// Kinds of checks that are words of the language but not of this version.
const LATER_KINDS: [&str; 3] = ["budget", "burnRate", "artifact"];

/// Reads the gates of one file, which may hold several YAML documents.
///
/// # Errors
/// Everything that is wrong with the file, each with its place.
pub fn parse(file_name: &str, text: &str) -> Result<Vec<Gate>, Diagnostics> {
    let placed = parse_with_places(file_name, text)?;
    Ok(placed.into_iter().map(|placed| placed.gate).collect())
}

/// A gate and where its name stands.
pub(super) struct Placed {
    pub(super) gate: Gate,
    pub(super) file: Arc<SourceFile>,
    pub(super) name_span: Range<usize>,
}

pub(super) fn parse_with_places(file_name: &str, text: &str) -> Result<Vec<Placed>, Diagnostics> {
    let file = SourceFile {
        name: file_name.to_owned(),
        text: text.to_owned(),
    };
    let mut mistakes = Mistakes::new(Arc::new(file));
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes", text.len());
        mistakes.add(
            &(0..0),
            message,
            format!("at most {FILE_BYTES_MAX} are read"),
            "split it",
        );
        return Err(mistakes.finish());
    }
    let (documents, errors) = yaml::read(text);
    if documents.is_empty() && errors.is_empty() {
        let help = "write a document of `kind: Gate`, or remove the file";
        mistakes.add(
            &(0..0),
            "there is no gate in this file",
            "nothing to read",
            help,
        );
    }
    for error in errors {
        mistakes.add(&error.span, error.message, "here", error.help);
    }
    let mut gates: Vec<Placed> = Vec::new();
    for document in &documents {
        let Some(placed) = gate_document(document, &mut mistakes) else {
            continue;
        };
        match gates
            .iter()
            .find(|other| other.gate.name == placed.gate.name)
        {
            Some(first) => mistakes.add_twice(
                &first.name_span,
                &placed.name_span,
                format!("two gates are named `{}`", placed.gate.name),
                "give each gate a name of its own",
            ),
            None => gates.push(placed),
        }
    }
    mistakes.finish().or(gates)
}

fn gate_document(document: &Node, m: &mut Mistakes) -> Option<Placed> {
    let owner = &document.span;
    let mut fields = Fields::of(document, owner, "a policy document", m)?;
    let version = fields.need("apiVersion", "add `apiVersion: slogate.dev/v1`", m);
    let version = version.and_then(|field| {
        field.scalar(API_VERSION, "", m, |text| {
            (text == API_VERSION).then_some(())
        })
    });
    let kind = fields.need("kind", "add `kind: Gate`", m);
    let kind = kind.and_then(|field| {
        let help = "this version of slogate reads documents of kind Gate";
        field.scalar("Gate", help, m, |text| (text == "Gate").then_some(()))
    });
    let metadata = fields.need("metadata", "add `metadata: { name: … }`", m);
    let name = metadata.and_then(|field| {
        let mut fields = Fields::of(field.node, &field.key.span, "`metadata`", m)?;
        let name = fields
            .need("name", "add `name: …`", m)
            .and_then(|field| named(field, m));
        fields.finish(&[], m);
        name
    });
    let spec = fields.need("spec", "add `spec:` with `checks:`", m);
    fields.finish(&[], m);
    let spec = spec.and_then(|field| gate_spec(field, m));
    let ((), (), (name, name_span), mut gate) = (version?, kind?, name?, spec?);
    gate.name = name;
    gate.hash = document::hash(&gate);
    Some(Placed {
        gate,
        file: Arc::clone(&m.file),
        name_span,
    })
}

/// A name: what can stand in a URL, a label and a sentence.
fn named(field: Field<'_>, m: &mut Mistakes) -> Option<(String, Range<usize>)> {
    let expected = "1 to 63 letters, digits, `-`, `_` or `.`, starting with a letter or a digit";
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name = field.scalar(expected, "", m, |text| {
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        (starts && text.len() <= NAME_MAX && text.chars().all(ok)).then(|| text.to_owned())
    })?;
    Some((name, field.node.span.clone()))
}

/// The gate under `spec`, still without name and hash.
fn gate_spec(spec: Field<'_>, m: &mut Mistakes) -> Option<Gate> {
    let mut fields = Fields::of(spec.node, &spec.key.span, "`spec`", m)?;
    let matches = fields.take_or("match", Match::default(), m, selector);
    let warm_up = fields.take_or("warmUp", defaults::WARM_UP_MS, m, |field, m| {
        field.duration(0, DAY_MS, m)
    });
    let soak = fields.take_or("soak", defaults::SOAK_MS, m, |field, m| {
        field.duration(0, 30 * DAY_MS, m)
    });
    let deadline = fields.take("decideWithin");
    let decide_within = match deadline {
        Some(field) => field.duration(MINUTE_MS, 30 * DAY_MS, m),
        None => Some(defaults::DECIDE_WITHIN_MS),
    };
    let on_inconclusive = fields.take_or(
        "onInconclusive",
        OnInconclusive::default(),
        m,
        |field, m| field.word(m),
    );
    let error_rate = |field: Field<'_>, m: &mut Mistakes| {
        field.share("a share above 0 and below 50 %, such as 1%", m, |s| {
            s > 0.0 && s < 0.5
        })
    };
    let false_alarms = fields.take_or("falseAlarms", defaults::FALSE_ALARMS, m, error_rate);
    let false_passes = fields.take_or("falsePasses", defaults::FALSE_PASSES, m, error_rate);
    let help = "a gate without checks guards nothing: list at least one";
    let checks = fields
        .need("checks", help, m)
        .and_then(|field| checks(field, m));
    fields.finish(&[], m);
    if let (Some(warm_up), Some(soak), Some(decide_within)) = (warm_up, soak, decide_within) {
        let place = deadline.map_or(&spec.key.span, |field| field.span());
        deadline_is_reachable(place, warm_up, soak, decide_within, m)?;
    }
    Some(Gate {
        name: String::new(),
        matches: matches?,
        warm_up_ms: warm_up?,
        soak_ms: soak?,
        decide_within_ms: decide_within?,
        on_inconclusive: on_inconclusive?,
        false_alarms: false_alarms?,
        false_passes: false_passes?,
        checks: checks?,
        hash: String::new(),
    })
}

/// A gate whose time is over before it may decide would never pass anything.
fn deadline_is_reachable(
    place: &Range<usize>,
    warm_up: i64,
    soak: i64,
    decide_within: i64,
    m: &mut Mistakes,
) -> Option<()> {
    let (what, needed) = if warm_up >= soak {
        ("warmUp", warm_up)
    } else {
        ("soak", soak)
    };
    if decide_within > needed {
        return Some(());
    }
    let message = format!("`decideWithin` is over before `{what}` is: nothing could pass");
    let label = format!("expected more than {}", format_duration(needed));
    m.add(
        place,
        message,
        label,
        format!("raise `decideWithin`, which is 60m where left out, or lower `{what}`"),
    );
    None
}

fn selector(field: Field<'_>, m: &mut Mistakes) -> Option<Match> {
    let mut fields = Fields::of(field.node, &field.key.span, "`match`", m)?;
    let glob = |field: Field<'_>, m: &mut Mistakes| {
        let expected = "a name, or a pattern such as \"prod-*\"";
        let ok = |text: &str| !text.is_empty() && text.len() <= 256;
        field.scalar(expected, "", m, |text| ok(text).then(|| Glob::new(text)))
    };
    let service = fields.take_or("service", Glob::default(), m, glob);
    let environment = fields.take_or("environment", Glob::default(), m, glob);
    fields.finish(&[], m);
    Some(Match {
        service: service?,
        environment: environment?,
    })
}

fn checks(field: Field<'_>, m: &mut Mistakes) -> Option<Vec<Check>> {
    let Value::List(items) = &field.node.value else {
        field.wrong("a list of checks", "start each check with `- name: …`", m);
        return None;
    };
    if items.is_empty() || items.len() > CHECKS_MAX {
        let message = format!("a gate has 1 to {CHECKS_MAX} checks, not {}", items.len());
        m.add(field.span(), message, "this list", "");
        return None;
    }
    let mut first_places: HashMap<String, Range<usize>> = HashMap::new();
    let mut checks = Vec::with_capacity(items.len());
    for item in items {
        let Some((check, span)) = check(item, m) else {
            continue;
        };
        match first_places.get(&check.name) {
            Some(first) => {
                let message = format!("two checks are named `{}`", check.name);
                m.add_twice(first, &span, message, "give each check a name of its own");
            }
            None => {
                first_places.insert(check.name.clone(), span);
                checks.push(check);
            }
        }
    }
    (checks.len() == items.len()).then_some(checks)
}

fn check(item: &Node, m: &mut Mistakes) -> Option<(Check, Range<usize>)> {
    let mut fields = Fields::of(item, &item.span, "a check", m)?;
    let name = fields
        .need("name", "add `name: …`", m)
        .and_then(|field| named(field, m));
    let flag = |field: Field<'_>, m: &mut Mistakes| field.boolean(m);
    let critical = fields.take_or("critical", true, m, flag);
    let required = fields.take_or("required", true, m, flag);
    let weight = fields.take_or("weight", defaults::WEIGHT, m, |field, m| {
        let fits = |weight: &f64| *weight > 0.0 && *weight <= 1000.0;
        field.scalar("a number above 0, at most 1000", "", m, |text| {
            value::number(text).filter(fits)
        })
    });
    let found = KINDS.map(|kind| fields.take(kind));
    let spec = one_kind(&fields, found, m).and_then(|field| match field.key.name.as_str() {
        "compare" => compare(field, m).map(CheckSpec::Compare),
        "coverage" => coverage(field, m).map(CheckSpec::Coverage),
        _ => query(field, &mut fields, m).map(CheckSpec::Query),
    });
    fields.finish(&LATER_KINDS, m);
    let (name, span) = name?;
    let (critical, required) = (critical?, required?);
    Some((
        Check {
            name,
            critical,
            required,
            spec: spec?,
            weight: weight?,
        },
        span,
    ))
}

/// The one kind that a check is of.
fn one_kind<'n>(
    fields: &Fields<'n>,
    found: [Option<Field<'n>>; KINDS.len()],
    m: &mut Mistakes,
) -> Option<Field<'n>> {
    let mut found = found.into_iter().flatten();
    let kind = found.next();
    for more in found {
        let first = kind.map_or(&more.key.span, |field: Field<'_>| &field.key.span);
        let help = "a check asks one question: make two checks of it";
        let message = format!("a check can't also be a `{}`", more.key.name);
        m.add_twice(first, &more.key.span, message, help);
    }
    // A misspelt or later kind is reported as an unknown key, which says more.
    let looks_like_kind =
        |name: &str| LATER_KINDS.contains(&name) || nearest(name, KINDS).is_some();
    if kind.is_none() && !fields.left().any(looks_like_kind) {
        let help = format!("add {}", alternatives(&KINDS.map(|kind| kind)));
        m.add(
            &fields.owner,
            "a check has to ask something",
            "this one asks nothing",
            help,
        );
    }
    kind
}

fn query(field: Field<'_>, fields: &mut Fields<'_>, m: &mut Mistakes) -> Option<QueryCheck> {
    let expr = expression(field, m);
    let threshold = threshold(field, fields, m);
    let stale_after_ms = fields.take_or("staleAfter", defaults::STALE_AFTER_MS, m, |field, m| {
        field.duration(1000, DAY_MS, m)
    });
    Some(QueryCheck {
        expr: expr?,
        threshold: threshold?,
        stale_after_ms: stale_after_ms?,
    })
}

/// Reads the PromQL of a check; its mistakes are shown where they stand in the YAML.
fn expression(field: Field<'_>, m: &mut Mistakes) -> Option<Template> {
    let some = |text: &str| (!text.trim().is_empty()).then(|| text.to_owned());
    let text = field.scalar("a PromQL expression", "", m, some)?;
    let whole = &field.node.span;
    let places = yaml::places_of_value(&m.file.text, whole, &text);
    let place = |span: Range<usize>| {
        let at = |byte: usize| places.as_ref().and_then(|places| places.get(byte)).copied();
        match (at(span.start), at(span.end)) {
            // The end is one past the last byte, which may be lines away from the next one.
            (Some(start), Some(_)) if span.is_empty() => start..start,
            (Some(start), Some(end)) => {
                start..at(span.end - 1).map_or(end, |last| (last + 1).max(start))
            }
            _ => whole.clone(),
        }
    };
    let template = match Template::parse(&text) {
        Ok(template) => template,
        Err(errors) => {
            for error in errors {
                m.add(
                    &place(error.span),
                    error.message,
                    "this variable",
                    error.help,
                );
            }
            return None;
        }
    };
    match promql::check(&template) {
        Ok(()) => Some(template),
        Err(error) => {
            let message = format!("`{}` is not a usable PromQL expression", field.key.name);
            m.add(&place(error.span), message, error.message, error.help);
            None
        }
    }
}

/// The one threshold that stands beside `query`.
fn threshold(query: Field<'_>, fields: &mut Fields<'_>, m: &mut Mistakes) -> Option<Threshold> {
    let mut first: Option<(Field<'_>, ThresholdOp)> = None;
    let mut only = true;
    for (word, op) in ThresholdOp::WORDS {
        let Some(field) = fields.take(word) else {
            continue;
        };
        match first {
            None => first = Some((field, *op)),
            Some((other, _)) => {
                let message = format!("a query check has one threshold, not `{word}` as well");
                let help = "for a range write two checks";
                m.add_twice(&other.key.span, &field.key.span, message, help);
                only = false;
            }
        }
    }
    let Some((field, op)) = first else {
        let words: Vec<&str> = ThresholdOp::WORDS.iter().map(|(word, _)| *word).collect();
        let help = format!("add {} beside `query`", alternatives(&words));
        m.add(
            &query.key.span,
            "a query check has no threshold",
            "what should it be?",
            help,
        );
        return None;
    };
    let value = field.scalar(
        "a number, a percentage (1% is 0.01) or a duration (300ms is 0.3)",
        "",
        m,
        |text| value::share(text).or_else(|| value::duration_ms(text).map(seconds)),
    )?;
    only.then_some(Threshold { op, value })
}

fn compare(field: Field<'_>, m: &mut Mistakes) -> Option<CompareCheck> {
    let mut fields = Fields::of(field.node, &field.key.span, "`compare`", m)?;
    let help = "add `sli: requests.errorRatio` or `sli: requests.duration`";
    let sli = fields
        .need("sli", help, m)
        .and_then(|field| field.word::<SliWord>(m));
    let quantile = fields.take("quantile");
    let margin = fields.take("worseBy");
    let min_events = fields.take_or("minEvents", defaults::MIN_EVENTS, m, |field, m| {
        let fits = |text: &str| {
            text.parse()
                .ok()
                .filter(|n| (1..=1_000_000_000).contains(n))
        };
        field.scalar("a whole number of at least 1", "", m, fits)
    });
    let span_kind = fields.take_or("spanKind", SpanKind::default(), m, |field, m| field.word(m));
    let against = fields.take_or("against", BaselinePreference::default(), m, |field, m| {
        field.word(m)
    });
    fields.finish(&[], m);
    let sli_word = sli?;
    let sli = compare_sli(sli_word, quantile, m);
    let worse_by = match margin {
        Some(field) => worse_by(sli_word, field, m),
        None => Some(default_margin(sli_word)),
    };
    Some(CompareCheck {
        sli: sli?,
        worse_by: worse_by?,
        min_events: min_events?,
        span_kind: span_kind?,
        against: against?,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum SliWord {
    ErrorRatio,
    Duration,
}

impl Word for SliWord {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("requests.errorRatio", SliWord::ErrorRatio),
        ("requests.duration", SliWord::Duration),
    ];
}

fn compare_sli(sli: SliWord, quantile: Option<Field<'_>>, m: &mut Mistakes) -> Option<CompareSli> {
    match (sli, quantile) {
        (SliWord::Duration, None) => Some(CompareSli::Duration {
            quantile: defaults::QUANTILE,
        }),
        (SliWord::Duration, Some(field)) => {
            let help = "write 0.95 or 95%; 0.5 is the median";
            let fits = |quantile: &f64| *quantile > 0.0 && *quantile < 1.0;
            let read = |text: &str| value::share(text).filter(fits);
            let quantile = field.scalar("a quantile above 0 and below 1", help, m, read)?;
            Some(CompareSli::Duration { quantile })
        }
        (SliWord::ErrorRatio, None) => Some(CompareSli::ErrorRatio),
        (SliWord::ErrorRatio, Some(field)) => {
            let message = "`quantile` is for `requests.duration`; a ratio has none";
            m.add(&field.key.span, message, "no use here", "remove it");
            None
        }
    }
}

fn default_margin(sli: SliWord) -> Margin {
    let (absolute, relative) = match sli {
        SliWord::ErrorRatio => (defaults::ERRORS_ABSOLUTE, defaults::ERRORS_RELATIVE),
        SliWord::Duration => (defaults::DURATION_ABSOLUTE, defaults::DURATION_RELATIVE),
    };
    Margin {
        absolute: Some(absolute),
        relative: Some(relative),
    }
}

fn worse_by(sli: SliWord, field: Field<'_>, m: &mut Mistakes) -> Option<Margin> {
    let mut fields = Fields::of(field.node, &field.key.span, "`worseBy`", m)?;
    let absolute = fields.take_or("absolute", None, m, |field, m| match sli {
        SliWord::ErrorRatio => {
            let expected = "a share of all requests, such as 0.1%";
            field
                .share(expected, m, |s| (0.0..=1.0).contains(&s))
                .map(Some)
        }
        SliWord::Duration => field.duration(0, DAY_MS, m).map(|ms| Some(seconds(ms))),
    });
    let relative = fields.take_or("relative", None, m, |field, m| {
        let expected = "a share of the baseline from 0 to 1000 %, such as 25%";
        field
            .share(expected, m, |s| (0.0..=10.0).contains(&s))
            .map(Some)
    });
    fields.finish(&[], m);
    let margin = Margin {
        absolute: absolute?,
        relative: relative?,
    };
    if margin.boundary(1.0) > 1.0 {
        return Some(margin);
    }
    let message = "a margin of nothing can't be kept: no version could be shown to pass";
    let help = "say what is tolerated, for example `worseBy: { relative: 10% }`";
    m.add(
        &field.key.span,
        message,
        "expected `absolute` or `relative` above 0",
        help,
    );
    None
}

fn coverage(field: Field<'_>, m: &mut Mistakes) -> Option<CoverageCheck> {
    let mut fields = Fields::of(field.node, &field.key.span, "`coverage`", m)?;
    let at_least = fields.take_or("atLeast", defaults::COVERAGE, m, |field, m| {
        field.share("a share above 0, at most 100 %", m, |s| s > 0.0 && s <= 1.0)
    });
    let signals = fields.take_or("signals", vec![Signal::Traces], m, signals);
    fields.finish(&[], m);
    Some(CoverageCheck {
        at_least: at_least?,
        signals: signals?,
    })
}

fn signals(field: Field<'_>, m: &mut Mistakes) -> Option<Vec<Signal>> {
    let Value::List(items) = &field.node.value else {
        field.wrong("a list such as [traces, logs]", "", m);
        return None;
    };
    if items.is_empty() {
        field.wrong("at least one of traces, metrics, logs", "", m);
        return None;
    }
    let read: Vec<Option<Signal>> = items
        .iter()
        .map(|item| word(item, &field.key.span, "a signal", m))
        .collect();
    let mut signals: Vec<Signal> = read.into_iter().collect::<Option<_>>()?;
    signals.sort_unstable();
    signals.dedup();
    Some(signals)
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
