//! A test file into tests, or everything that is wrong with it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slogate_promql::notation::{self, Item, NotationError};
use slogate_series::{Histogram, Labels, Sample, Series, Value as SampleValue};

use super::{CheckTest, Draw, Expected, GateTest, Test, TestFile, ZERO_MS};
use crate::model::{Artifact, Event, EventKind, Outcome, Reason, Step, Target};
use crate::policy::diagnostics::nearest;
use crate::policy::reader::{self, Field, Fields, Mistakes, alternatives, quoted};
use crate::policy::set::{read_file, unreadable};
use crate::policy::yaml::{Node, Value};
use crate::policy::{Diagnostics, Gate, PolicySet, SourceFile, Word, load};
use crate::simulate::{CATALOGUE, Scenario};

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;
/// The latest time in a test.
const TIME_MAX_MS: i64 = 60 * DAY_MS;
const TEXT_MAX: usize = 256;
/// The most samples of all series of a file.
const SAMPLES_MAX: usize = 2_000_000;

impl Word for Outcome {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("pass", Outcome::Pass),
        ("fail", Outcome::Fail),
        ("inconclusive", Outcome::Inconclusive),
    ];
}

/// Reads a test file and the policies it tests.
///
/// # Errors
/// Everything that is wrong with the file or with the policies.
pub fn read(path: &Path) -> Result<TestFile, Diagnostics> {
    let text = read_file(path).map_err(|error| Diagnostics {
        items: vec![unreadable(path, &error)],
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&path.display().to_string(), &text, folder)
}

/// Reads a test file's text; policies are looked for below `folder`.
pub(super) fn parse(name: &str, text: &str, folder: &Path) -> Result<TestFile, Diagnostics> {
    let file = Arc::new(SourceFile {
        name: name.to_owned(),
        text: text.to_owned(),
    });
    let (documents, mut m) = reader::documents(&file, home);
    if let Some(second) = documents.get(1) {
        let message = "a test file is one YAML document";
        m.add(
            &second.span,
            message,
            "the second",
            "put each into its own file",
        );
    }
    let mut in_policies = Diagnostics::default();
    let tests = match documents.first() {
        Some(document) => document_of(document, folder, &mut in_policies, &mut m),
        None if m.is_empty() => {
            let help = "list tests below `tests:`, or remove the file";
            let message = "there is no test in this file";
            m.add(&(0..0), message, "nothing to read", help);
            None
        }
        None => None,
    };
    let mut mistakes = m.finish();
    mistakes.items.extend(in_policies.items);
    let tests = tests.unwrap_or_default();
    mistakes.or(TestFile { file, tests })
}

/// What tests of one file share.
struct Shared {
    /// `None` where the policies have mistakes: then what is said of gates can't be checked.
    policies: Option<PolicySet>,
    interval_ms: i64,
    samples_left: usize,
}

fn document_of(
    document: &Node,
    folder: &Path,
    in_policies: &mut Diagnostics,
    m: &mut Mistakes,
) -> Option<Vec<Test>> {
    let mut fields = Fields::of(document, &document.span, "a test file", m)?;
    let paths = match fields.take("policies") {
        Some(field) => policy_paths(field, folder, m),
        // The folder of a plain file name is this one.
        None if folder.as_os_str().is_empty() => Some(vec![PathBuf::from(".")]),
        None => Some(vec![folder.to_owned()]),
    };
    let policies = paths.and_then(|paths| match load(&paths) {
        Ok(policies) => Some(policies),
        Err(mistakes) => {
            in_policies.items.extend(mistakes.items);
            None
        }
    });
    let interval_ms = fields.take_or("interval", MINUTE_MS, m, interval);
    let tests = fields.need("tests", "list tests below `tests:`", m);
    fields.finish(&[], m);
    let mut shared = Shared {
        policies,
        // The tests are read all the same, for their own mistakes.
        interval_ms: interval_ms.unwrap_or(MINUTE_MS),
        samples_left: SAMPLES_MAX,
    };
    let tests = each(tests?, "a list of tests", m, |node, m| {
        test(node, &mut shared, m)
    })?;
    let mut first_places: HashMap<&str, &Range<usize>> = HashMap::new();
    for test in &tests {
        if let Some(first) = first_places.insert(&test.name, &test.name_span) {
            let message = format!("two tests are named {}", quoted(&test.name));
            m.add_twice(
                first,
                &test.name_span,
                message,
                "give each test a name of its own",
            );
        }
    }
    Some(tests)
}

/// Reads every item of a list that has at least one; `None` where one of them is wrong.
fn each<T>(
    field: Field<'_>,
    expected: &str,
    m: &mut Mistakes,
    mut read: impl FnMut(&Node, &mut Mistakes) -> Option<T>,
) -> Option<Vec<T>> {
    let Value::List(items) = &field.node.value else {
        field.wrong(expected, "", m);
        return None;
    };
    if items.is_empty() {
        let message = format!("`{}` is empty", field.key.name);
        m.add(field.span(), message, format!("expected {expected}"), "");
        return None;
    }
    let read: Vec<Option<T>> = items.iter().map(|item| read(item, m)).collect();
    read.into_iter().collect()
}

fn policy_paths(field: Field<'_>, folder: &Path, m: &mut Mistakes) -> Option<Vec<PathBuf>> {
    let expected = "a list of files and folders, such as [canary.yaml]";
    each(field, expected, m, |node, m| match &node.value {
        Value::Scalar(path) if !path.is_empty() => Some(folder.join(path)),
        _ => {
            m.add(
                &node.span,
                "a policy's path has to be text",
                "expected a path",
                "",
            );
            None
        }
    })
}

fn interval(field: Field<'_>, m: &mut Mistakes) -> Option<i64> {
    field.duration(1, DAY_MS, m)
}

/// A time of the test, in milliseconds since the epoch.
fn time(field: Field<'_>, m: &mut Mistakes) -> Option<i64> {
    field.duration(0, TIME_MAX_MS, m).map(|ms| ZERO_MS + ms)
}

fn line(field: Field<'_>, m: &mut Mistakes) -> Option<String> {
    let expected = format!("1 to {TEXT_MAX} characters of text");
    field.scalar(&expected, "", m, |text| {
        (1..=TEXT_MAX)
            .contains(&text.chars().count())
            .then(|| text.to_owned())
    })
}

/// A field that may be absent: `Some(None)` where it is, `None` where it is wrong.
fn optional<'n, T>(
    fields: &mut Fields<'n>,
    name: &'static str,
    m: &mut Mistakes,
    read: impl FnOnce(Field<'n>, &mut Mistakes) -> Option<T>,
) -> Option<Option<T>> {
    match fields.take(name) {
        Some(field) => read(field, m).map(Some),
        None => Some(None),
    }
}

fn expected<T>(field: Field<'_>, value: T) -> Expected<T> {
    let span = field.span().clone();
    Expected { value, span }
}

fn test(node: &Node, shared: &mut Shared, m: &mut Mistakes) -> Option<Test> {
    let mut fields = Fields::of(node, &node.span, "a test", m)?;
    let name = fields.need("name", "say what the gate should do, and when", m);
    let name = name.and_then(|field| line(field, m).map(|name| expected(field, name)));
    let interval_ms = fields.take_or("interval", shared.interval_ms, m, interval);
    let help = "say what is shipped: `deployment: { service: …, version: … }`";
    let rollout = fields.need("deployment", help, m);
    let rollout = rollout.and_then(|field| deployment(field, m));
    let series = match (fields.take("input_series"), interval_ms) {
        (Some(field), Some(interval_ms)) => input_series(field, interval_ms, shared, m),
        (Some(_), None) => None,
        (None, _) => Some(Vec::new()),
    };
    let scenario = optional(&mut fields, "scenario", m, |field, m| {
        scenario(field, rollout.as_ref(), m)
    });
    let help = "say what the gate should answer: `gate_tests: [{ eval_time: …, verdict: … }]`";
    let gates = fields.need("gate_tests", help, m);
    fields.finish(&[], m);
    let gates = gates.and_then(|field| {
        each(field, "a list of what gates should answer", m, |node, m| {
            gate_test(node, rollout.as_ref(), shared.policies.as_ref(), m)
        })
    });
    let (name, rollout) = (name?, rollout?);
    Some(Test {
        name: name.value,
        name_span: name.span,
        target: rollout.target,
        version: rollout.version,
        events: rollout.events,
        series: series?,
        scenario: scenario?,
        gates: gates?,
    })
}

/// What is shipped, and all that happens to it.
struct Rollout {
    target: Target,
    version: String,
    baseline: Option<String>,
    started_ms: i64,
    events: Vec<Event>,
}

impl Rollout {
    fn event(&self, at_ms: i64, kind: EventKind, version: &str) -> Event {
        Event {
            id: self.events.len().to_string(),
            source: "policy test".to_owned(),
            time_ms: at_ms,
            kind,
            target: self.target.clone(),
            artifact: Artifact::of_version(version),
            previous: None,
            deployment: None,
            step: None,
            reason: None,
            actor: None,
            url: None,
            labels: BTreeMap::new(),
        }
    }

    fn push(&mut self, event: Event) {
        self.events.push(event);
    }
}

fn deployment(field: Field<'_>, m: &mut Mistakes) -> Option<Rollout> {
    let mut fields = Fields::of(field.node, &field.key.span, "`deployment`", m)?;
    let service = fields.need("service", "name the service that is shipped", m);
    let service = service.and_then(|field| line(field, m));
    let environment = optional(&mut fields, "environment", m, line);
    let region = optional(&mut fields, "region", m, line);
    let version = fields.need("version", "name the version that is shipped", m);
    let version = version.and_then(|field| line(field, m));
    let baseline = optional(&mut fields, "baseline", m, line);
    let started = fields.take_or("started_at", ZERO_MS, m, time);
    let before = optional(&mut fields, "before", m, |field, m| {
        each(field, "a list of earlier deployments", m, earlier)
    });
    let steps = optional(&mut fields, "steps", m, |field, m| {
        each(field, "a list of steps", m, step)
    });
    let events = optional(&mut fields, "events", m, |field, m| {
        each(field, "a list of events", m, event)
    });
    fields.finish(&[], m);
    let mut rollout = Rollout {
        target: Target {
            service: service?,
            environment: environment?.unwrap_or_default(),
            region: region?,
        },
        version: version?,
        baseline: baseline?,
        started_ms: started?,
        events: Vec::new(),
    };
    for (version, started_ms, succeeded_ms) in before?.unwrap_or_default() {
        rollout.push(rollout.event(started_ms, EventKind::Started, &version));
        rollout.push(rollout.event(succeeded_ms, EventKind::Succeeded, &version));
    }
    let (version, started_ms) = (rollout.version.clone(), rollout.started_ms);
    let previous = rollout.baseline.clone().map(Artifact::of_version);
    rollout.push(Event {
        previous,
        ..rollout.event(started_ms, EventKind::Started, &version)
    });
    for (at_ms, weight) in steps?.unwrap_or_default() {
        let step = Step {
            weight: Some(weight),
            ..Step::default()
        };
        rollout.push(Event {
            step: Some(step),
            ..rollout.event(at_ms, EventKind::Step, &version)
        });
    }
    for (at_ms, kind, reason) in events?.unwrap_or_default() {
        rollout.push(Event {
            reason,
            ..rollout.event(at_ms, kind, &version)
        });
    }
    Some(rollout)
}

/// An earlier deployment to the same target: version, start, end.
fn earlier(node: &Node, m: &mut Mistakes) -> Option<(String, i64, i64)> {
    let mut fields = Fields::of(node, &node.span, "an earlier deployment", m)?;
    let version = fields.need("version", "name the version that was shipped", m);
    let version = version.and_then(|field| line(field, m));
    let started = fields.take_or("started_at", ZERO_MS, m, time);
    let help = "an earlier deployment is one that went well: say when it did";
    let succeeded = fields.need("succeeded_at", help, m);
    let succeeded = succeeded.and_then(|field| time(field, m));
    fields.finish(&[], m);
    Some((version?, started?, succeeded?))
}

/// A step: when, and to which weight in percent.
fn step(node: &Node, m: &mut Mistakes) -> Option<(i64, f64)> {
    let mut fields = Fields::of(node, &node.span, "a step", m)?;
    let at = fields.need("at", "say when: `at: 10m`", m);
    let at = at.and_then(|field| time(field, m));
    let weight = fields.need("weight", "say how much traffic it gets: `weight: 10`", m);
    let weight = weight.and_then(|field| {
        field.scalar(
            "the candidate's share in percent, 0 to 100",
            "",
            m,
            |text| {
                let number = text.strip_suffix('%').unwrap_or(text).trim_end();
                number
                    .parse()
                    .ok()
                    .filter(|weight| (0.0..=100.0).contains(weight))
            },
        )
    });
    fields.finish(&[], m);
    Some((at?, weight?))
}

fn event(node: &Node, m: &mut Mistakes) -> Option<(i64, EventKind, Option<String>)> {
    let mut fields = Fields::of(node, &node.span, "an event", m)?;
    let at = fields.need("at", "say when: `at: 10m`", m);
    let at = at.and_then(|field| time(field, m));
    let kind = fields.need("type", "say what happened: `type: aborted`", m);
    let kind = kind.and_then(|field| {
        let names: Vec<&str> = event_kinds().map(|(name, _)| name).collect();
        let expected = alternatives(&names);
        field.scalar(&expected, "", m, |text| {
            event_kinds()
                .find(|(name, _)| *name == text)
                .map(|(_, kind)| kind)
        })
    });
    let reason = optional(&mut fields, "reason", m, line);
    fields.finish(&[], m);
    Some((at?, kind?, reason?))
}

/// What can happen to a deployment after its start, by its short name.
fn event_kinds() -> impl Iterator<Item = (&'static str, EventKind)> {
    let after_start = EventKind::ALL.into_iter().filter(|kind| {
        !matches!(
            kind,
            EventKind::Queued | EventKind::Started | EventKind::Step
        )
    });
    after_start.filter_map(|kind| Some((kind.as_str().strip_prefix("deployment.")?, kind)))
}

/// A draw of a scenario, by its name or with seed and number.
fn scenario(field: Field<'_>, rollout: Option<&Rollout>, m: &mut Mistakes) -> Option<Draw> {
    let (scenario, seed, number) = match &field.node.value {
        Value::Map(_) => {
            let mut fields = Fields::of(field.node, &field.key.span, "`scenario`", m)?;
            let named = fields.need("name", "name one of `slogate simulate --list`", m);
            let named = named.and_then(|field| known_scenario(field, m));
            let seed = fields.take_or("seed", 1, m, |field, m| {
                field.scalar("a whole number", "", m, |text| text.parse().ok())
            });
            let number = fields.take_or("rollout", 0, m, |field, m| {
                field.scalar("a whole number", "", m, |text| text.parse().ok())
            });
            fields.finish(&[], m);
            (named?, seed?, number?)
        }
        _ => (known_scenario(field, m)?, 1, 0),
    };
    let rollout = rollout?;
    let Some(baseline) = rollout.baseline.clone() else {
        let help = "add `baseline: …` to `deployment`";
        let message = "a scenario has two versions";
        m.add(
            field.span(),
            message,
            "the deployment has no baseline",
            help,
        );
        return None;
    };
    Some(Draw {
        scenario,
        seed,
        number,
        baseline,
        started_ms: rollout.started_ms,
    })
}

fn known_scenario(field: Field<'_>, m: &mut Mistakes) -> Option<&'static Scenario> {
    let names = CATALOGUE.iter().map(|scenario| scenario.name);
    let meant = match &field.node.value {
        Value::Scalar(text) => nearest(text, names),
        _ => None,
    };
    let help = match meant {
        Some(name) => format!("did you mean `{name}`? `slogate simulate --list` shows all"),
        None => "`slogate simulate --list` shows all".to_owned(),
    };
    field.scalar("the name of a scenario", &help, m, |name| {
        CATALOGUE.iter().find(|scenario| scenario.name == name)
    })
}

fn input_series(
    field: Field<'_>,
    interval_ms: i64,
    shared: &mut Shared,
    m: &mut Mistakes,
) -> Option<Vec<Series>> {
    let mut first_places: HashMap<Labels, Range<usize>> = HashMap::new();
    each(field, "a list of series", m, |node, m| {
        let mut fields = Fields::of(node, &node.span, "a series", m)?;
        let help = "name it: `series: requests_total{service_name=\"checkout\"}`";
        let described = fields.need("series", help, m);
        let labels = described.and_then(|field| labels(field, m));
        let help = "say what was measured: `values: 0+10x60`";
        let items = fields.need("values", help, m);
        let items = items.and_then(|field| values(field, shared, m));
        fields.finish(&[], m);
        let (described, labels, items) = (described?, labels?, items?);
        if let Some(first) = first_places.insert(labels.clone(), described.span().clone()) {
            let message = "two series have the same name and labels";
            m.add_twice(
                &first,
                described.span(),
                message,
                "tell them apart, or remove one",
            );
            return None;
        }
        let samples = samples(items, interval_ms);
        Some(Series { labels, samples })
    })
}

fn labels(field: Field<'_>, m: &mut Mistakes) -> Option<Labels> {
    let text = scalar(field, "a series such as requests_total{version=\"2\"}", m)?;
    match notation::metric(text) {
        Ok((labels, end)) if text.get(end..).is_some_and(|rest| rest.trim().is_empty()) => {
            Some(labels)
        }
        Ok((_, end)) => {
            let place = field.places(text, m).of(&(end..text.len()));
            let help = "values stand below `values`";
            m.add(
                &place,
                "there is more than a series",
                "expected nothing more",
                help,
            );
            None
        }
        Err(error) => {
            not_the_notation(field, text, &error, m);
            None
        }
    }
}

fn values(field: Field<'_>, shared: &mut Shared, m: &mut Mistakes) -> Option<Vec<Option<Item>>> {
    let text = scalar(field, "values such as 0+10x60", m)?;
    let items = match notation::values(text) {
        Ok(items) => items,
        Err(error) => {
            not_the_notation(field, text, &error, m);
            return None;
        }
    };
    if items.len() > shared.samples_left {
        let message = format!("more than {SAMPLES_MAX} samples in this file");
        m.add(
            field.span(),
            message,
            "here",
            "use a longer interval, or another file",
        );
        return None;
    }
    shared.samples_left -= items.len();
    let miscounted = items.iter().flatten().find_map(|item| match &item.value {
        SampleValue::Histogram(histogram) => miscounted(histogram),
        SampleValue::Float(_) => None,
    });
    if let Some((count, found)) = miscounted {
        let message = format!("a histogram counts {count}, but has {found} in its buckets");
        let help = "`count` is everything, the zero bucket and negative buckets too";
        m.add(
            field.span(),
            message,
            format!("expected count:{found}"),
            help,
        );
        return None;
    }
    Some(items)
}

/// A count that is not the sum of the buckets, where there are any, and that sum.
fn miscounted(histogram: &Histogram) -> Option<(f64, f64)> {
    let found = histogram.positive.total() + histogram.negative.total() + histogram.zero_count;
    let has_buckets = !histogram.positive.is_empty() || !histogram.negative.is_empty();
    let slack = 1e-9 * found.abs().max(1.0);
    let is_off = (histogram.count - found).abs() > slack;
    (has_buckets && is_off).then_some((histogram.count, found))
}

fn scalar<'n>(field: Field<'n>, expected: &str, m: &mut Mistakes) -> Option<&'n str> {
    match &field.node.value {
        Value::Scalar(text) => Some(text),
        _ => {
            field.wrong(expected, "", m);
            None
        }
    }
}

fn not_the_notation(field: Field<'_>, text: &str, error: &NotationError, m: &mut Mistakes) {
    let place = field.places(text, m).of(&error.span);
    let message = format!("`{}` can't be read: {}", field.key.name, error.message);
    m.add(&place, message, format!("expected {}", error.expected), "");
}

fn samples(items: Vec<Option<Item>>, interval_ms: i64) -> Vec<Sample> {
    let times = (0i64..).map(|nth| ZERO_MS.saturating_add(nth.saturating_mul(interval_ms)));
    let sample = |(t_ms, item): (i64, Option<Item>)| {
        Some(Sample {
            t_ms,
            start_ms: 0,
            value: item?.value,
        })
    };
    times.zip(items).filter_map(sample).collect()
}

fn gate_test(
    node: &Node,
    rollout: Option<&Rollout>,
    policies: Option<&PolicySet>,
    m: &mut Mistakes,
) -> Option<GateTest> {
    let mut fields = Fields::of(node, &node.span, "a gate test", m)?;
    let at = fields.need("eval_time", "say when: `eval_time: 20m`", m);
    let at_ms = at.and_then(|field| eval_time(field, rollout, m));
    let named = fields.take("gate");
    let gate = match (rollout, policies) {
        (Some(rollout), Some(policies)) => gate(node, named, rollout, policies, m),
        _ => None,
    };
    let verdict = fields.need("verdict", "say what it should answer: `verdict: pass`", m);
    let verdict = verdict.and_then(|field| Some(expected(field, field.word(m)?)));
    let reason = optional(&mut fields, "reason", m, reason);
    let is_final = optional(&mut fields, "final", m, |field, m| {
        Some(expected(field, field.boolean(m)?))
    });
    let message = optional(&mut fields, "message", m, message);
    let checks = optional(&mut fields, "checks", m, |field, m| {
        each(
            field,
            "a list of what checks should answer",
            m,
            |node, m| check_test(node, gate.as_deref(), m),
        )
    });
    fields.finish(&[], m);
    Some(GateTest {
        gate: gate.clone()?,
        at_ms: at_ms?,
        verdict: verdict?,
        reason: reason?,
        is_final: is_final?,
        message: message?,
        checks: checks?.unwrap_or_default(),
    })
}

fn eval_time(field: Field<'_>, rollout: Option<&Rollout>, m: &mut Mistakes) -> Option<i64> {
    let at_ms = time(field, m)?;
    let started_ms = rollout.map_or(ZERO_MS, |rollout| rollout.started_ms);
    if at_ms >= started_ms {
        return Some(at_ms);
    }
    let started = crate::model::time::humanize_ms(started_ms - ZERO_MS);
    let label = format!("the deployment starts at {started}");
    let help = "`eval_time` counts from the test's start, as `started_at` does";
    m.add(
        field.span(),
        "nothing is judged before it starts",
        label,
        help,
    );
    None
}

/// The gate that is named, or the only one for the target.
fn gate(
    node: &Node,
    named: Option<Field<'_>>,
    rollout: &Rollout,
    policies: &PolicySet,
    m: &mut Mistakes,
) -> Option<Arc<Gate>> {
    let target = &rollout.target;
    let matching: Vec<&Arc<Gate>> = policies.matching(target).collect();
    let names = |gates: &mut dyn Iterator<Item = &Arc<Gate>>| {
        let names: Vec<&str> = gates.map(|gate| gate.name.as_str()).collect();
        reader::list(&names)
    };
    let Some(field) = named else {
        return match matching.as_slice() {
            [only] => Some(Arc::clone(only)),
            [] => {
                let message = format!("no gate is for {target}");
                let help = format!("the gates are {}", names(&mut policies.gates.iter()));
                m.add(&node.span, message, "for this deployment", help);
                None
            }
            _ => {
                let help = format!("the gates are {}", names(&mut matching.into_iter()));
                let message = format!("several gates are for {target}");
                m.add(&node.span, message, "add `gate: …`", help);
                None
            }
        };
    };
    let help = format!("the gates are {}", names(&mut policies.gates.iter()));
    let found = field.scalar("the name of a gate", &help, m, |name| {
        policies.get(name).cloned()
    })?;
    if found.is_for(target) {
        return Some(found);
    }
    let matches = &found.matches;
    let message = format!("gate {} is not for {target}", quoted(&found.name));
    let help = format!(
        "it matches service {} in environment {}",
        quoted(matches.service.as_str()),
        quoted(matches.environment.as_str())
    );
    m.add(
        field.span(),
        message,
        "it doesn't match the deployment",
        help,
    );
    None
}

fn check_test(node: &Node, gate: Option<&Gate>, m: &mut Mistakes) -> Option<CheckTest> {
    let mut fields = Fields::of(node, &node.span, "what a check should answer", m)?;
    let name = fields.need("name", "name the check", m);
    let name = name.and_then(|field| check_name(field, gate, m));
    let verdict = optional(&mut fields, "verdict", m, |field, m| {
        Some(expected(field, field.word(m)?))
    });
    let reason = optional(&mut fields, "reason", m, reason);
    let message = optional(&mut fields, "message", m, message);
    fields.finish(&[], m);
    let (name, verdict, reason, message) = (name?, verdict?, reason?, message?);
    if verdict.is_none() && reason.is_none() && message.is_none() {
        let message = format!("nothing is expected of check {}", quoted(&name));
        let help = "a test that expects nothing can't fail";
        m.add(
            &node.span,
            message,
            "expected `verdict`, `reason` or `message`",
            help,
        );
        return None;
    }
    Some(CheckTest {
        name,
        verdict,
        reason,
        message,
    })
}

fn check_name(field: Field<'_>, gate: Option<&Gate>, m: &mut Mistakes) -> Option<String> {
    // Without a gate that is known, any name may be right.
    let Some(gate) = gate else {
        return line(field, m);
    };
    let names: Vec<&str> = gate
        .checks
        .iter()
        .map(|check| check.name.as_str())
        .collect();
    let expected = format!("a check of gate `{}`", gate.name);
    let help = format!("its checks are {}", reader::list(&names));
    field.scalar(&expected, &help, m, |name| {
        names.contains(&name).then(|| name.to_owned())
    })
}

fn reason(field: Field<'_>, m: &mut Mistakes) -> Option<Expected<Reason>> {
    let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let help = format!("the reasons are {}", reader::list(&names));
    let value = field.scalar("a reason such as not_yet_decided", &help, m, Reason::parse)?;
    Some(expected(field, value))
}

fn message(field: Field<'_>, m: &mut Mistakes) -> Option<Expected<String>> {
    Some(expected(field, line(field, m)?))
}

/// Where a key belongs, for one that stands elsewhere.
fn home(key: &str) -> Option<&'static str> {
    Some(match key {
        "policies" | "tests" => "the file itself",
        "deployment" | "input_series" | "scenario" | "gate_tests" => "a test",
        "service" | "environment" | "region" | "version" | "baseline" | "started_at" | "before"
        | "steps" | "events" => "`deployment`",
        "seed" | "rollout" => "`scenario`",
        "series" | "values" => "`input_series`",
        "eval_time" | "gate" | "final" | "checks" => "`gate_tests`",
        _ => return None,
    })
}
