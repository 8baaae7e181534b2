//! One item of `checks` into a check.

use std::ops::Range;

use crate::policy::diagnostics::nearest;
use crate::policy::parse::kayenta::kayenta;
use crate::policy::parse::margin::{Unit, margins_of};
use crate::policy::parse::named;
use crate::policy::parse::series::series;
use crate::policy::reader::{Field, Fields, Mistakes, alternatives, word};
use crate::policy::yaml::{Node, Value};
use crate::policy::{
    BaselinePreference, Check, CheckSpec, CompareCheck, CompareSli, CoverageCheck, Margin,
    QueryCheck, Signal, SpanKind, Template, Threshold, ThresholdOp, Word, defaults, promql,
    promql::QUERY_BYTES_MAX, value,
};

/// Kinds of checks, in the order they are listed to the author.
const KINDS: [&str; 4] = ["compare", "query", "coverage", "kayenta"];

/// What stands beside `query`.
const THRESHOLD_FIELDS: [&str; 5] = ["below", "atMost", "above", "atLeast", "staleAfter"];

/// Kinds of checks that are words of the language but not of this version.
const LATER_KINDS: [&str; 3] = ["budget", "burnRate", "artifact"];

/// The check that is `item`, and where its name stands.
pub(super) fn check(item: &Node, m: &mut Mistakes) -> Option<(Check, Range<usize>)> {
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
    let is_query = found
        .iter()
        .flatten()
        .any(|field| field.key.name == "query");
    let spec = one_kind(&fields, found, m).and_then(|field| match field.key.name.as_str() {
        "compare" => compare(field, m),
        "kayenta" => kayenta(field, m).map(CheckSpec::Kayenta),
        "coverage" => coverage(field, m).map(CheckSpec::Coverage),
        _ => query(field, &mut fields, m).map(CheckSpec::Query),
    });
    // Beside a kind that is misspelt or one too many, a threshold is not the mistake.
    if spec.is_none() || is_query {
        let _ = THRESHOLD_FIELDS.map(|word| fields.take(word));
    }
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
        field.duration(1000, defaults::STALE_AFTER_MS, m)
    });
    Some(QueryCheck {
        expr: expr?,
        threshold: threshold?,
        stale_after_ms: stale_after_ms?,
    })
}

/// Reads the PromQL of a check; its mistakes are shown where they stand in the YAML.
pub(super) fn expression(field: Field<'_>, m: &mut Mistakes) -> Option<Template> {
    let fits = |text: &str| !text.trim().is_empty() && text.len() <= QUERY_BYTES_MAX;
    let expected = format!("a PromQL expression of at most {QUERY_BYTES_MAX} bytes");
    let text = field.scalar(&expected, "", m, |text| fits(text).then(|| text.to_owned()))?;
    let places = field.places(&text, m);
    let place = |span: Range<usize>| places.of(&span);
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
                let message = "a query check has one threshold, not two";
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

fn compare(field: Field<'_>, m: &mut Mistakes) -> Option<CheckSpec> {
    let mut fields = Fields::of(field.node, &field.key.span, "`compare`", m)?;
    match fields.take("query") {
        Some(query) => series(query, fields, m).map(CheckSpec::Series),
        None => compare_requests(fields, m).map(CheckSpec::Compare),
    }
}

fn compare_requests(mut fields: Fields<'_>, m: &mut Mistakes) -> Option<CompareCheck> {
    let help =
        "add `sli: requests.errorRatio`, `sli: requests.duration`, or a `query:` of your own";
    let sli = fields
        .need("sli", help, m)
        .and_then(|field| field.word::<SliWord>(m));
    let quantile = fields.take("quantile");
    let margins = (fields.take("worseBy"), fields.take("passWithin"));
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
    let margins = match sli {
        Some(SliWord::ErrorRatio) => {
            let defaults = (defaults::ERRORS_WORSE_BY, defaults::ERRORS_PASS_WITHIN);
            margins_of(Unit::Share, defaults, margins, m)
        }
        Some(SliWord::Duration) => {
            let defaults = (defaults::DURATION_WORSE_BY, defaults::DURATION_PASS_WITHIN);
            margins_of(Unit::Seconds, defaults, margins, m)
        }
        None => {
            // What may be wrong with a part of it is said all the same.
            let none = (Margin::default(), Margin::default());
            margins_of(Unit::Number, none, margins, m);
            None
        }
    };
    let sli = sli.and_then(|sli| compare_sli(sli, quantile, m));
    Some(CompareCheck {
        sli: sli?,
        worse_by: margins?.0,
        pass_within: margins?.1,
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
        (SliWord::Duration, None) => Some(CompareSli::Duration { quantile: None }),
        (SliWord::Duration, Some(field)) => {
            let help = "write 0.95 or 95%; 0.5 is the median";
            let fits = |quantile: &f64| *quantile > 0.0 && *quantile < 1.0;
            let read = |text: &str| value::share(text).filter(fits);
            let quantile = field.scalar("a quantile above 0 and below 1", help, m, read)?;
            Some(CompareSli::Duration {
                quantile: Some(quantile),
            })
        }
        (SliWord::ErrorRatio, None) => Some(CompareSli::ErrorRatio),
        (SliWord::ErrorRatio, Some(field)) => {
            let message = "`quantile` is for `requests.duration`; a ratio has none";
            m.add(&field.key.span, message, "no use here", "remove it");
            None
        }
    }
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

pub(super) fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
