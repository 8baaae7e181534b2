//! A YAML tree into gates.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::policy::diagnostics::{Diagnostics, SourceFile};
use crate::policy::parse::check::check;
use crate::policy::reader::{self, Field, Fields, Mistakes};
use crate::policy::value::format_duration;
use crate::policy::yaml::{Node, Value};
use crate::policy::{Check, CheckSpec, Gate, Glob, Match, OnInconclusive, defaults, document};

mod check;
mod kayenta;
mod margin;
mod series;

/// The value of `apiVersion`.
pub(super) const API_VERSION: &str = "slogate.dev/v1";

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
const CHECKS_MAX: usize = 100;

/// The most points of a series that is compared, as Prometheus has it.
const SERIES_POINTS_MAX: i64 = 11_000;
const NAME_MAX: usize = 63;

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
    let (documents, mut mistakes) = reader::documents(&Arc::new(file), home);
    if documents.is_empty() && mistakes.is_empty() {
        let help = "write a document of `kind: Gate`, or remove the file";
        mistakes.add(
            &(0..0),
            "there is no gate in this file",
            "nothing to read",
            help,
        );
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
pub(super) fn named(field: Field<'_>, m: &mut Mistakes) -> Option<(String, Range<usize>)> {
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
        series_fit(
            place,
            checks.as_deref().unwrap_or_default(),
            decide_within,
            m,
        )?;
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

/// A test that is judged once has to be judged in time, and no series may have too many points.
fn series_fit(
    place: &Range<usize>,
    checks: &[Check],
    decide_within: i64,
    m: &mut Mistakes,
) -> Option<()> {
    let mut fits = true;
    for check in checks {
        let (horizon, step_ms) = match &check.spec {
            CheckSpec::Series(series) => (series.horizon, series.step_ms),
            CheckSpec::Kayenta(kayenta) => (kayenta.horizon, kayenta.step_ms),
            _ => continue,
        };
        let name = &check.name;
        if let Some(after) = horizon.after_ms.filter(|after| *after > decide_within) {
            let after = format_duration(after);
            let message = format!("check `{name}` is judged after {after}, when the time is over");
            let label = format!("expected `decideWithin` of at least {after}");
            m.add(
                place,
                message,
                label,
                "raise `decideWithin`, or lower `after`",
            );
            fits = false;
        }
        if decide_within / step_ms > SERIES_POINTS_MAX {
            let message = format!("check `{name}` would have too many points");
            let label = format!("at most {SERIES_POINTS_MAX} steps fit in `decideWithin`");
            m.add(place, message, label, "raise the check's `step`");
            fits = false;
        }
    }
    fits.then_some(())
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

/// Where a key of the language belongs, for one that stands elsewhere.
fn home(key: &str) -> Option<&'static str> {
    Some(match key {
        "metadata" | "spec" => "the document itself",
        "match" | "warmUp" | "soak" | "decideWithin" | "onInconclusive" | "falseAlarms"
        | "falsePasses" | "checks" => "`spec`",
        "service" | "environment" => "`match`",
        "critical" | "required" | "weight" | "compare" | "coverage" | "kayenta" => "a check",
        "query" => "a check, or in `compare`",
        "below" | "atMost" | "above" | "staleAfter" => "a check, beside `query`",
        "atLeast" => "a check, beside `query`, or in `coverage`",
        "sli" | "worseBy" | "passWithin" | "against" => "`compare`",
        "quantile" | "minEvents" | "spanKind" => "`compare`, beside `sli`",
        "direction" | "method" => "`compare`, beside `query`",
        "step" | "after" | "every" => "`compare`, beside `query`, or in `kayenta`",
        "config" | "scope" | "location" | "params" | "pass" | "marginal" => "`kayenta`",
        "absolute" | "relative" => "`worseBy` or `passWithin`",
        "signals" => "`coverage`",
        _ => return None,
    })
}
