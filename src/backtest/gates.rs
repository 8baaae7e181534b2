//! Which gate a rollout is judged by.
//!
//! With policies, theirs: every gate that is for the rollout's target answers, and together they
//! are one answer: any fail is a fail, all passes are a pass. Without, the built-in gate as far as
//! the recording goes: checks on what it does not have (failed requests, durations) are left out
//! and that is said; where it has values instead (a share of failures, a percentile), these are
//! compared; and where the recording also has what the service asked of others, the same
//! checks on that, since many a defect shows only there. These can fail a rollout; a pass needs
//! the checks on what the service answers. All share the gate's `falseAlarms`.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::canonical::VALUE;
use super::reading::{CLIENT, Failures, Measure, Reading, SERVER, Values};
use crate::model::Target;
use crate::policy::{self, Gate, PolicySet};

/// What rollouts are judged by.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What to call it: the file's name, or `built-in`.
    pub name: String,
    /// The gates; `None` for the built-in one.
    pub gates: Option<PolicySet>,
}

impl Policy {
    /// The built-in gate, as far as a recording goes.
    pub fn built_in() -> Policy {
        Policy {
            name: "built-in".to_owned(),
            gates: None,
        }
    }

    /// The gates for a rollout, and what is to be said about them.
    pub(crate) fn gates_for(
        &self,
        target: &Target,
        reading: Option<&Reading>,
    ) -> (Vec<Arc<Gate>>, Vec<String>) {
        match (&self.gates, reading) {
            (Some(set), _) => {
                let gates: Vec<Arc<Gate>> = set.matching(target).cloned().collect();
                let notes = match gates.is_empty() {
                    true => vec![format!("no gate of {} is for {target}", self.name)],
                    false => Vec::new(),
                };
                (gates, notes)
            }
            (None, None) => (policy::built_in().gates, Vec::new()),
            (None, Some(reading)) => fitted(reading),
        }
    }
}

/// The built-in gate with the checks that the recording has data for.
fn fitted(reading: &Reading) -> (Vec<Arc<Gate>>, Vec<String>) {
    let built_in = policy::built_in().gates;
    let (mut gates, mut notes) = (Vec::new(), Vec::new());
    for gate in built_in {
        let Ok(mut document) = serde_json::to_value(gate.as_ref()) else {
            continue;
        };
        let checks = document.pointer("/spec/checks").and_then(Json::as_array);
        let mut fitting = Vec::new();
        for check in checks.into_iter().flatten() {
            fit(check, reading, &mut fitting, &mut notes);
        }
        let is_whole = checks.is_some_and(|checks| *checks == fitting);
        if is_whole || fitting.is_empty() {
            gates.push(gate);
            continue;
        }
        if let Some(checks) = document.pointer_mut("/spec/checks") {
            *checks = Json::Array(fitting);
        }
        match policy::parse("built-in", &document.to_string()) {
            Ok(fitted) => gates.extend(fitted.into_iter().map(Arc::new)),
            Err(mistakes) => {
                let what = mistakes.items.first().map(|item| item.message.clone());
                notes.push(format!(
                    "no checks can be made for this recording ({}): judged by the built-in gate",
                    what.unwrap_or_default()
                ));
                gates.push(gate);
            }
        }
    }
    (gates, notes)
}

fn fit(check: &Json, reading: &Reading, fitting: &mut Vec<Json>, notes: &mut Vec<String>) {
    let name = check.get("name").and_then(Json::as_str).unwrap_or_default();
    let Some(sli) = check.pointer("/compare/sli").and_then(Json::as_str) else {
        // Coverage is about requests; without any it has nothing to say.
        if reading.requests.iter().any(|one| one.kind == SERVER) {
            fitting.push(check.clone());
        }
        return;
    };
    let is_duration = sli == "requests.duration";
    let has = |kind: &str| match is_duration {
        true => reading.durations.iter().any(|one| one.kind == kind),
        false => {
            let mut own = reading.requests.iter().filter(|one| one.kind == kind);
            own.any(|one| one.failures != Failures::Unknown)
        }
    };
    let main = [SERVER, "SPAN_KIND_CONSUMER", "SPAN_KIND_INTERNAL", CLIENT];
    let main = main.into_iter().find(|kind| has(kind));
    let Some(main) = main else {
        let of_measure = |one: &&Values| (one.measure == Measure::Duration) == is_duration;
        let values = reading.values.iter().filter(of_measure);
        let before = fitting.len();
        fitting.extend(values.map(|values| of_values(name, values)));
        if fitting.len() > before {
            return;
        }
        let what = if is_duration {
            "durations"
        } else {
            "failed requests"
        };
        notes.push(format!(
            "no {what} in the recording: check {name:?} is left out"
        ));
        return;
    };
    let mut own = check.clone();
    if main != SERVER {
        put(&mut own, "/compare/spanKind", json!(word(main)));
    }
    fitting.push(own.clone());
    if main != CLIENT && has(CLIENT) {
        put(&mut own, "/name", json!(format!("{name}-of-others")));
        put(&mut own, "/compare/spanKind", json!("client"));
        put(&mut own, "/required", json!(false));
        fitting.push(own);
    }
}

/// The check for values that are there instead of counts: the mean over instances, side by side.
fn of_values(name: &str, values: &Values) -> Json {
    let is_of_others = values.kind == CLIENT;
    let query = format!(
        "avg({VALUE}{{recorded_metric=\"{}\",span_kind=\"{}\",service_version=\"$version\"}})",
        values.metric, values.kind
    );
    let (direction, worse_by, pass_within) = match values.measure {
        Measure::Failed => (
            "increase",
            json!({ "relative": 0.1 }),
            json!({ "absolute": 0.01, "relative": 0.5 }),
        ),
        Measure::Succeeded => (
            "decrease",
            json!({ "absolute": 0.001 }),
            json!({ "absolute": 0.01 }),
        ),
        Measure::Duration => (
            "increase",
            json!({ "relative": 0.05 }),
            json!({ "relative": 0.2 }),
        ),
    };
    // A step shorter than the time between samples would count each twice.
    let step_s = (values.step_ms + 999) / 1000;
    let mut compare = json!({
        "query": query,
        "direction": direction,
        "step": format!("{}s", step_s.max(10)),
        "passWithin": pass_within,
    });
    if let Some(members) = compare.as_object_mut() {
        members.insert("worseBy".to_owned(), worse_by);
    }
    json!({
        "name": if is_of_others { format!("{name}-of-others") } else { name.to_owned() },
        "required": !is_of_others,
        "compare": compare,
    })
}

fn put(check: &mut Json, pointer: &str, value: Json) {
    if let Some(place) = check.pointer_mut(pointer) {
        *place = value;
    }
}

fn word(kind: &str) -> String {
    let word = kind.strip_prefix("SPAN_KIND_").unwrap_or(kind);
    word.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backtest::arms::{Arms, Hints};
    use crate::backtest::reading::{Durations, Form, Requests};

    fn reading(kinds: &[(&'static str, Failures)], timed: &[&'static str]) -> Reading {
        let requests = kinds.iter().map(|(kind, failures)| Requests {
            kind,
            series: Vec::new(),
            form: Form::Total,
            failures: failures.clone(),
        });
        let durations = timed.iter().map(|kind| Durations {
            kind,
            series: Vec::new(),
            unit_s: 1.0,
        });
        let hints = Hints {
            start_ms: Some(0),
            ..Hints::default()
        };
        Reading {
            target: Target::new("shop", ""),
            arms: Arms::find(&[], &hints).unwrap(),
            requests: requests.collect(),
            durations: durations.collect(),
            values: Vec::new(),
            assumptions: Vec::new(),
        }
    }

    fn checks(reading: &Reading) -> (Vec<(String, bool)>, usize) {
        let (gates, notes) = fitted(reading);
        let all = gates.iter().flat_map(|gate| &gate.checks);
        let names = all.map(|check| (check.name.clone(), check.required));
        (names.collect(), notes.len())
    }

    #[test]
    fn the_gate_is_fitted_to_the_recording() {
        let owned = |names: &[(&str, bool)]| -> Vec<(String, bool)> {
            let names = names.iter();
            names
                .map(|(name, required)| ((*name).to_owned(), *required))
                .collect()
        };
        let whole = reading(&[(SERVER, Failures::Labels)], &[SERVER]);
        let expected = [("errors", true), ("latency", true), ("identity", true)];
        assert_eq!(checks(&whole), (owned(&expected), 0));
        let (gates, _) = fitted(&whole);
        assert_eq!(gates[0].hash, policy::built_in().gates[0].hash);

        let both = [(SERVER, Failures::Labels), (CLIENT, Failures::Labels)];
        let expected = [
            ("errors", true),
            ("errors-of-others", false),
            ("identity", true),
        ];
        assert_eq!(checks(&reading(&both, &[])), (owned(&expected), 1));

        let unknown = reading(&[(SERVER, Failures::Unknown)], &[SERVER]);
        let expected = [("latency", true), ("identity", true)];
        assert_eq!(checks(&unknown), (owned(&expected), 1));
    }
}
