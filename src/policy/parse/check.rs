//! One item of `checks` into a check.

use std::ops::Range;

use crate::policy::diagnostics::nearest;
use crate::policy::parse::{DAY_MS, named};
use crate::policy::reader::{Field, Fields, Mistakes, alternatives, word};
use crate::policy::yaml::{Node, Value};
use crate::policy::{
    BaselinePreference, Check, CheckSpec, CompareCheck, CompareSli, CoverageCheck, Margin,
    QueryCheck, Signal, SpanKind, Template, Threshold, ThresholdOp, Word, defaults, promql,
    promql::QUERY_BYTES_MAX, value,
};

/// Kinds of checks, in the order they are listed to the author.
const KINDS: [&str; 3] = ["compare", "query", "coverage"];

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
        "compare" => compare(field, m).map(CheckSpec::Compare),
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
fn expression(field: Field<'_>, m: &mut Mistakes) -> Option<Template> {
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

fn compare(field: Field<'_>, m: &mut Mistakes) -> Option<CompareCheck> {
    let mut fields = Fields::of(field.node, &field.key.span, "`compare`", m)?;
    let help = "add `sli: requests.errorRatio` or `sli: requests.duration`";
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
    let margins = read_margins(sli, margins, m);
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

/// What is tolerated and what a pass certifies; each goes without the other. `sli` is `None`
/// where it was mistaken; then what depends on it isn't looked at.
fn read_margins(
    sli: Option<SliWord>,
    (worse_by, pass_within): (Option<Field<'_>>, Option<Field<'_>>),
    m: &mut Mistakes,
) -> Option<(Margin, Margin)> {
    let tolerated = worse_by.map(|field| margin(sli, field, "`worseBy`", m));
    let certified = pass_within.map(|field| margin(sli, field, "`passWithin`", m));
    let defaults = sli.map(|sli| match sli {
        SliWord::ErrorRatio => (defaults::ERRORS_WORSE_BY, defaults::ERRORS_PASS_WITHIN),
        SliWord::Duration => (defaults::DURATION_WORSE_BY, defaults::DURATION_PASS_WITHIN),
    });
    let (tolerated, certified) = match (tolerated, certified) {
        (None, None) => return defaults,
        (Some(tolerated), None) => (tolerated?, tolerated?),
        (None, Some(certified)) => (at_most(defaults?.0, certified?), certified?),
        (Some(tolerated), Some(certified)) => (tolerated?, certified?),
    };
    margins_fit(tolerated, certified, (worse_by, pass_within), m)?;
    Some((tolerated, certified))
}

/// `margin`, but no part of it greater than that of `most`.
fn at_most(margin: Margin, most: Margin) -> Margin {
    let part = |part: Option<f64>, most: Option<f64>| part.map(|p| p.min(most.unwrap_or(0.0)));
    Margin {
        absolute: part(margin.absolute, most.absolute),
        relative: part(margin.relative, most.relative),
    }
}

/// Reports margins with which nothing could pass, or one version could both pass and fail.
fn margins_fit(
    tolerated: Margin,
    certified: Margin,
    fields: (Option<Field<'_>>, Option<Field<'_>>),
    m: &mut Mistakes,
) -> Option<()> {
    let (worse_by, pass_within) = fields;
    let place = pass_within.or(worse_by)?.key;
    if certified.is_nothing() {
        let message = "a margin of nothing can't be kept: no version could be shown to pass";
        let help = match pass_within {
            Some(_) => "say what a pass certifies, for example `passWithin: { relative: 50% }`",
            None => {
                "say what is tolerated, for example `worseBy: { relative: 10% }`; or keep it and \
                 say beside it what a pass certifies, for example `passWithin: { relative: 50% }`"
            }
        };
        let label = "expected `absolute` or `relative` above 0";
        m.add(&place.span, message, label, help);
        return None;
    }
    let smaller = [
        ("absolute", certified.absolute, tolerated.absolute),
        ("relative", certified.relative, tolerated.relative),
    ]
    .into_iter()
    .find(|(_, certified, tolerated)| certified.unwrap_or(0.0) < tolerated.unwrap_or(0.0));
    let Some((part, ..)) = smaller else {
        return Some(());
    };
    m.add(
        &place.span,
        "`passWithin` is smaller than `worseBy`: one version could be shown to pass and to fail",
        format!("its `{part}` is smaller than that of `worseBy`"),
        format!("raise `{part}` here, or lower it in `worseBy`"),
    );
    None
}

/// One margin. No part at all is a mistake; parts of zero are for the caller to judge.
fn margin(sli: Option<SliWord>, field: Field<'_>, what: &str, m: &mut Mistakes) -> Option<Margin> {
    let mut fields = Fields::of(field.node, &field.key.span, what, m)?;
    let is_empty = fields.left().next().is_none();
    let absolute = fields.take_or("absolute", None, m, |field, m| match sli {
        None => None,
        Some(SliWord::ErrorRatio) => {
            let expected = "a share of all requests, such as 0.1%";
            field
                .share(expected, m, |s| (0.0..=1.0).contains(&s))
                .map(Some)
        }
        Some(SliWord::Duration) => field.duration(0, DAY_MS, m).map(|ms| Some(seconds(ms))),
    });
    let relative = fields.take_or("relative", None, m, |field, m| {
        let expected = "a share of the baseline from 0 to 1000 %, such as 25%";
        field
            .share(expected, m, |s| (0.0..=10.0).contains(&s))
            .map(Some)
    });
    fields.finish(&[], m);
    if is_empty {
        let message = format!("{what} says nothing");
        let label = "expected `absolute`, `relative` or both";
        m.add(
            &field.key.span,
            message,
            label,
            "for no margin at all write `{ relative: 0% }`",
        );
        return None;
    }
    Some(Margin {
        absolute: absolute?,
        relative: relative?,
    })
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
