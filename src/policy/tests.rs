//! The language as a whole: golden mistakes, the examples of the documentation, and laws.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// Set this to write the golden files anew; then read the difference.
const UPDATE: &str = "SLOGATE_UPDATE_GOLDEN";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn only(text: &str) -> Gate {
    let gates = parse("test.yaml", text).unwrap_or_else(|mistakes| panic!("{text}\n{mistakes}"));
    assert_eq!(gates.len(), 1);
    gates.into_iter().next().unwrap()
}

fn gate_with(checks: &str) -> String {
    format!(
        "apiVersion: slogate.dev/v1\nkind: Gate\nmetadata: {{ name: g }}\nspec:\n  checks:\n{checks}"
    )
}

fn mistakes_of(text: &str) -> String {
    match parse("test.yaml", text) {
        Ok(_) => panic!("read without a mistake:\n{text}"),
        Err(mistakes) => mistakes.to_string(),
    }
}

#[test]
fn mistakes_read_as_the_golden_files_show() {
    let directory = repository().join("tests/golden/policy");
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 10, "the golden files are gone");
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let shown = match parse(&name, &text) {
            Ok(_) => "no mistake\n".to_owned(),
            Err(mistakes) => format!("{mistakes}\n"),
        };
        let golden = file.with_extension("txt");
        if std::env::var_os(UPDATE).is_some() {
            fs::write(&golden, &shown).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if shown != expected {
            wrong.push(format!(
                "{name}:\n--- expected\n{expected}\n--- shown\n{shown}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n(to accept: {UPDATE}=1)",
        wrong.join("\n\n")
    );
}

/// Documentation that the parser refuses would be the first thing a new user trips over.
#[test]
fn every_example_of_the_documentation_is_a_policy() {
    let text = fs::read_to_string(repository().join("docs/policy.md")).unwrap();
    let mut examples = 0;
    for block in text.split("\n```yaml\n").skip(1) {
        let example = block.split("\n```").next().unwrap();
        let document = match example.contains("apiVersion:") {
            true => example.to_owned(),
            // A part of a gate: its checks, or other fields of its spec.
            false if example.starts_with("- ") => {
                let indented: Vec<String> =
                    example.lines().map(|line| format!("    {line}")).collect();
                gate_with(&indented.join("\n"))
            }
            false => {
                let indented: Vec<String> =
                    example.lines().map(|line| format!("  {line}")).collect();
                let check = "    - { name: e, compare: { sli: requests.errorRatio } }\n";
                format!("{}{}\n", gate_with(check), indented.join("\n"))
            }
        };
        if let Err(mistakes) = parse("docs/policy.md", &document) {
            panic!("an example of docs/policy.md:\n{example}\n{mistakes}");
        }
        examples += 1;
    }
    assert!(examples >= 6, "{examples} examples found");
}

#[test]
fn the_documentation_names_every_word() {
    let text = fs::read_to_string(repository().join("docs/policy.md")).unwrap();
    let fields = [
        "match",
        "service",
        "environment",
        "warmUp",
        "soak",
        "decideWithin",
        "onInconclusive",
        "falseAlarms",
        "falsePasses",
        "checks",
        "name",
        "critical",
        "required",
        "weight",
        "compare",
        "sli",
        "quantile",
        "worseBy",
        "passWithin",
        "direction",
        "method",
        "step",
        "after",
        "every",
        "kayenta",
        "config",
        "scope",
        "location",
        "params",
        "pass",
        "marginal",
        "absolute",
        "relative",
        "minEvents",
        "spanKind",
        "against",
        "query",
        "below",
        "atMost",
        "above",
        "atLeast",
        "staleAfter",
        "coverage",
        "signals",
        "requests.errorRatio",
        "requests.duration",
    ];
    let words = |words: &[&'static str]| words.to_vec();
    let mut all = words(&fields);
    all.extend(OnInconclusive::WORDS.iter().map(|(word, _)| *word));
    all.extend(SpanKind::WORDS.iter().map(|(word, _)| *word));
    all.extend(BaselinePreference::WORDS.iter().map(|(word, _)| *word));
    all.extend(Signal::WORDS.iter().map(|(word, _)| *word));
    all.extend(ChangeDirection::WORDS.iter().map(|(word, _)| *word));
    all.extend(SeriesMethod::WORDS.iter().map(|(word, _)| *word));
    for word in all {
        assert!(
            text.contains(&format!("`{word}`")),
            "docs/policy.md says nothing of `{word}`"
        );
    }
    for variable in Variable::ALL {
        assert!(
            text.contains(&format!("`${variable}`")),
            "nothing of ${variable}"
        );
    }
}

#[test]
fn reads_a_whole_gate() {
    let gate = only(
        r#"
apiVersion: slogate.dev/v1
kind: Gate
metadata: { name: strict }
spec:
  match: { service: "check*", environment: production }
  warmUp: 0s
  soak: 10m
  decideWithin: 1h30m
  onInconclusive: fail
  falseAlarms: 0.1%
  falsePasses: 0.02
  checks:
    - name: latency
      critical: false
      required: false
      weight: 2.5
      compare:
        sli: requests.duration
        quantile: 99%
        worseBy: { absolute: 20ms }
        minEvents: 500
        spanKind: consumer
        against: historical
    - name: lag
      query: |
        max(lag{service_version="$version"})
      atMost: 300ms
      staleAfter: 1m
    - name: identity
      coverage: { atLeast: 0.9, signals: [logs, traces] }
"#,
    );
    assert_eq!(gate.name, "strict");
    assert_eq!(
        (gate.warm_up_ms, gate.soak_ms, gate.decide_within_ms),
        (0, 600_000, 5_400_000)
    );
    assert_eq!(gate.on_inconclusive, OnInconclusive::Fail);
    assert_eq!((gate.false_alarms, gate.false_passes), (0.001, 0.02));
    assert!(gate.is_for(&Target::new("checkout", "production")));
    assert!(!gate.is_for(&Target::new("checkout", "staging")));
    let latency = &gate.checks[0];
    assert_eq!(
        (latency.critical, latency.required, latency.weight),
        (false, false, 2.5)
    );
    let compare = CompareCheck {
        sli: CompareSli::Duration {
            quantile: Some(0.99),
        },
        worse_by: Margin {
            absolute: Some(0.02),
            relative: None,
        },
        pass_within: Margin {
            absolute: Some(0.02),
            relative: None,
        },
        min_events: 500,
        span_kind: SpanKind::Consumer,
        against: BaselinePreference::Historical,
    };
    assert_eq!(latency.spec, CheckSpec::Compare(compare));
    let CheckSpec::Query(query) = &gate.checks[1].spec else {
        panic!("not a query")
    };
    assert_eq!(
        query.threshold,
        Threshold {
            op: ThresholdOp::AtMost,
            value: 0.3
        }
    );
    assert_eq!(query.stale_after_ms, 60_000);
    let coverage = CoverageCheck {
        at_least: 0.9,
        signals: vec![Signal::Traces, Signal::Logs],
    };
    assert_eq!(gate.checks[2].spec, CheckSpec::Coverage(coverage));
}

/// Kayenta's own keys and words, as its documentation lists them.
const CANARY_CONFIG: &str = r#"{
	"id": "x", "name": "golden signals", "configVersion": "1", "applications": ["ad-hoc"],
	"judge": { "name": "NetflixACAJudge-v1.0", "judgeConfigurations": {} },
	"metrics": [
		{ "name": "errors", "scopeName": "default", "groups": ["Errors"],
		  "query": { "type": "prometheus", "serviceType": "prometheus",
		             "customInlineTemplate": "PromQL:sum(rate(errors_total{v='${scope}', ns='${ns}'}[1m]))" },
		  "analysisConfigurations": { "canary": { "direction": "increase", "nanStrategy": "replace",
		    "critical": true, "mustHaveData": false,
		    "effectSize": { "allowedIncrease": 1.1, "criticalIncrease": 5 },
		    "outliers": { "strategy": "remove", "outlierFactor": 2.5 } } } },
		{ "name": "cpu", "groups": ["System"],
		  "query": { "type": "prometheus", "metricName": "node_cpu", "customFilterTemplate": "std",
		             "labelBindings": ["mode=~\"user|system\""], "groupByFields": ["mode"] },
		  "analysisConfigurations": { "canary": { "effectSize": { "measure": "cles" }, "muted": true } } }
	],
	"templates": { "std": "v='${scope}',zone='${location}'" },
	"classifier": { "groupWeights": { "Errors": 60, "System": 40.0 },
	                "scoreThresholds": { "pass": 90, "marginal": 50 } }
}"#;

#[test]
fn a_canary_config_beside_the_policy_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gate.yaml");
    fs::write(directory.path().join("canary.json"), CANARY_CONFIG).unwrap();
    let check = "    - name: k\n      kayenta:\n        config: canary.json\n        \
                 scope: web-$version\n        location: eu\n        params: { ns: shop }\n        \
                 marginal: 60\n        after: 30m\n";
    fs::write(&path, gate_with(check)).unwrap();
    let set = load(&[path]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let gate = &set.gates[0];
    let CheckSpec::Kayenta(found) = &gate.checks[0].spec else {
        panic!("not a canary config")
    };
    let queries: Vec<&str> = found.metrics.iter().map(|m| m.expr.source()).collect();
    let expected = [
        "sum(rate(errors_total{v='web-$version', ns='shop'}[1m]))",
        "avg(node_cpu{v='web-$version',zone='eu',mode=~\"user|system\"}) by (mode)",
    ];
    assert_eq!(queries, expected);
    assert_eq!(
        (found.thresholds.pass, found.thresholds.marginal),
        (90.0, 60.0)
    );
    assert_eq!(found.group_weights["System"], 40.0);
    assert_eq!(found.horizon.after_ms, Some(1_800_000));
    let errors = &found.metrics[0].config;
    assert!(errors.critical && errors.effect.critical_increase == 5.0);
    assert_eq!(errors.effect.allowed_decrease, 1.0);
    assert_eq!(errors.outliers, kayenta::Outliers::Remove { factor: 2.5 });
    assert_eq!(found.metrics[1].config.effect.allowed_increase, 0.5);
    // Shown with its config in it, it needs no other file.
    let json = serde_json::to_string(&**gate).unwrap();
    assert_eq!(only(&json), **gate);
    assert!(explain(gate).contains("judges 2 metrics, every 1m, as Kayenta does"));

    let broken = CANARY_CONFIG.replace("increase\"", "upward\"");
    fs::write(directory.path().join("canary.json"), broken).unwrap();
    let mistakes = load(&[directory.path().join("gate.yaml")])
        .unwrap_err()
        .to_string();
    assert!(mistakes.contains("canary.json:8:"), "{mistakes}");
    assert!(
        mistakes.contains("`direction` can't be `upward`"),
        "{mistakes}"
    );
}

#[test]
fn a_query_for_both_sides_is_a_comparison() {
    let gate = only(&gate_with(
        "    - name: cpu\n      weight: 2\n      compare: { query: 'sum(cpu{v=\"$version\"})' }\n    \
         - name: hits\n      compare: { query: 'hits{v=\"$version\"}', method: blockPermutation, \
         direction: decrease, step: 30s, every: 10m, worseBy: { absolute: 2% } }\n",
    ));
    let CheckSpec::Series(cpu) = &gate.checks[0].spec else {
        panic!("not a series")
    };
    assert_eq!(
        (cpu.step_ms, cpu.method),
        (15_000, SeriesMethod::Sequential)
    );
    assert_eq!(cpu.worse_by.relative, Some(0.1));
    let CheckSpec::Series(hits) = &gate.checks[1].spec else {
        panic!("not a series")
    };
    assert_eq!(hits.direction, ChangeDirection::Decrease);
    assert_eq!(
        (hits.worse_by.absolute, hits.horizon.every_ms),
        (Some(0.02), Some(600_000))
    );
    assert!(gate.checks.iter().all(Check::shares_false_alarms));
    let json = serde_json::to_string(&gate).unwrap();
    assert_eq!(only(&json), gate);
    let text = explain(&gate);
    assert!(text.contains("by a sequential test"), "{text}");
    assert!(
        text.contains("every 10m and last when the time is over"),
        "{text}"
    );
}

#[test]
fn anchors_and_merges_work_as_yaml_has_them() {
    let gate = only(&gate_with(
        "    - &errors\n      name: a\n      compare: { sli: requests.errorRatio }\n    \
         - { <<: *errors, name: b, weight: 2 }\n",
    ));
    assert_eq!(gate.checks[0].spec, gate.checks[1].spec);
    assert_eq!(gate.checks[1].name, "b");
}

/// One file is mended in one go: no mistake may hide behind another.
#[test]
fn no_mistake_hides_another() {
    let text = "apiVersion: slogate.dev/v2\nkind: Gaet\nmetadata: { nmae: x }\nspec:\n  \
                warmUp: 5\n  falseAlarms: 1\n  onInconclusive: halt\n  sok: 5m\n  checks:\n    \
                - { name: a b, critical: maybe, weight: -1, compare: { sli: errors } }\n    \
                - { name: c, query: up }\n    - { name: c, query: 'up{', below: x }\n";
    let mistakes = parse("test.yaml", text).unwrap_err();
    assert!(mistakes.items.len() >= 12, "{mistakes}");
    let lines: Vec<usize> = mistakes
        .items
        .iter()
        .map(|i| i.places[0].position().0)
        .collect();
    assert!(lines.is_sorted(), "{mistakes}");
}

#[test]
fn later_words_say_so() {
    for word in ["budget", "burnRate", "artifact"] {
        let text = mistakes_of(&gate_with(&format!(
            "    - {{ name: a, {word}: {{ slo: x }} }}\n"
        )));
        let said = format!("`{word}` is not known to this version of slogate");
        assert!(
            text.contains(&said) && text.ends_with("1 mistake"),
            "{text}"
        );
    }
}

#[test]
fn names_can_stand_in_urls() {
    for name in [
        "a/b",
        "../x",
        "'a b'",
        "-a",
        "''",
        "é",
        &"x".repeat(64),
        "[]",
        "~",
    ] {
        let text = gate_with("    - { name: e, compare: { sli: requests.errorRatio } }\n")
            .replace("name: g", &format!("name: {name}"));
        assert!(parse("test.yaml", &text).is_err(), "{name}");
    }
}

#[test]
fn sizes_are_bounded() {
    let check =
        |n: usize| format!("    - {{ name: c{n}, compare: {{ sli: requests.errorRatio }} }}\n");
    let text = gate_with(&(0..101).map(check).collect::<String>());
    assert!(mistakes_of(&text).contains("1 to 100 checks"));
    let comment = format!("# {}\n", "x".repeat(2 << 20));
    assert!(mistakes_of(&comment).contains("are read"));
    let wrong: String = (0..3000).map(|n| format!("wrong{n}: 1\n")).collect();
    let mistakes = parse("test.yaml", &wrong).unwrap_err();
    assert!(mistakes.items.len() <= 1001);
    assert!(
        mistakes
            .items
            .last()
            .unwrap()
            .message
            .contains("more mistakes")
    );
    let shown = mistakes.to_string();
    assert!(shown.contains("of them not shown") && shown.len() < 100_000);
}

#[test]
fn a_threshold_keeps_its_side_and_never_passes_nan() {
    let at = |op| Threshold { op, value: 1.0 };
    let cases = [
        (ThresholdOp::Below, [true, false, false]),
        (ThresholdOp::AtMost, [true, true, false]),
        (ThresholdOp::Above, [false, false, true]),
        (ThresholdOp::AtLeast, [false, true, true]),
    ];
    for (op, expected) in cases {
        assert_eq!(
            [0.5, 1.0, 1.5].map(|answer| at(op).holds(answer)),
            expected,
            "{op:?}"
        );
        assert!(!at(op).holds(f64::NAN));
    }
}

#[test]
fn the_boundary_grows_from_both_parts() {
    let margin = Margin {
        absolute: Some(0.001),
        relative: Some(0.25),
    };
    assert!((margin.boundary(0.01) - 0.0135).abs() < 1e-12);
    let relative = Margin {
        absolute: None,
        relative: Some(0.1),
    };
    assert!((relative.boundary(0.2) - 0.22).abs() < 1e-12);
}

/// A worse-by that is greater than what a pass certifies would let one version do both.
#[test]
fn each_margin_goes_without_the_other() {
    let margins = |sli: &str, text: &str| {
        let check = format!("    - {{ name: a, compare: {{ sli: {sli}{text} }} }}\n");
        let gate = only(&gate_with(&check));
        let CheckSpec::Compare(compare) = gate.checks[0].spec.clone() else {
            panic!("not a comparison")
        };
        let parts = |margin: Margin| (margin.absolute, margin.relative);
        (parts(compare.worse_by), parts(compare.pass_within))
    };
    let errors = |text| margins("requests.errorRatio", text);
    let default = ((None, Some(0.05)), (Some(0.001), Some(0.5)));
    assert_eq!(errors(""), default);
    let both = (Some(0.01), None);
    assert_eq!(errors(", worseBy: { absolute: 1% }"), (both, both));
    let certified = errors(", passWithin: { absolute: 1% }");
    assert_eq!(certified, ((None, Some(0.0)), both));
    let nothing = errors(", worseBy: { relative: 0% }, passWithin: { relative: 30% }");
    assert_eq!(nothing, ((None, Some(0.0)), (None, Some(0.3))));
    let durations = margins("requests.duration", ", passWithin: { relative: 2% }");
    assert_eq!(durations, ((None, Some(0.02)), (None, Some(0.02))));
}

#[test]
fn every_word_names_its_value() {
    fn check<W: Word + std::fmt::Debug>() {
        for (word, value) in W::WORDS {
            assert_eq!(value.word(), *word);
        }
    }
    check::<OnInconclusive>();
    check::<ThresholdOp>();
    check::<SpanKind>();
    check::<BaselinePreference>();
    check::<Signal>();
    check::<ChangeDirection>();
    check::<SeriesMethod>();
}

/// Margins as they stand in a check on errors and in one on durations: one of the two, or both.
fn any_margin() -> impl Strategy<Value = (String, String)> {
    (0u32..5000, 1u32..900, 0u32..99, 0usize..3).prop_map(|(ms, relative, more, which)| {
        let margins = |absolute: &dyn Fn(u32) -> String| {
            let small = format!(
                "worseBy: {{ absolute: {}, relative: {relative}% }}",
                absolute(ms)
            );
            let great = format!(
                "passWithin: {{ absolute: {}, relative: {}% }}",
                absolute(ms + more),
                relative + more
            );
            match which {
                0 => small,
                1 => great,
                _ => format!("{small}, {great}"),
            }
        };
        (
            margins(&|part| (f64::from(part) / 100_000.0).to_string()),
            margins(&|part| format!("{part}ms")),
        )
    })
}

fn any_gate() -> impl Strategy<Value = String> {
    let times = (0i64..3_600_000, 0i64..3_600_000, 1i64..86_400_000);
    let words = (0usize..3, 0usize..5, 0usize..3, 0usize..4);
    let numbers = (
        0.0001f64..0.4,
        0.001f64..0.999,
        -1e9f64..1e9,
        1u64..1_000_000,
    );
    (times, words, numbers, any_margin(), any::<[bool; 2]>()).prop_map(
        |((warm_up, soak, more), (then, kind, against, op), (rate, quantile, limit, events), (errors, duration), flags)| {
            let (then, kind) = (OnInconclusive::WORDS[then].0, SpanKind::WORDS[kind].0);
            let (against, op) = (BaselinePreference::WORDS[against].0, ThresholdOp::WORDS[op].0);
            let within = warm_up.max(soak) + more + 60_000;
            format!(
                "apiVersion: slogate.dev/v1\nkind: Gate\nmetadata: {{ name: any }}\nspec:\n  \
                 match: {{ service: 'a*' }}\n  warmUp: {warm_up}ms\n  soak: {soak}ms\n  \
                 decideWithin: {within}ms\n  onInconclusive: {then}\n  falseAlarms: {rate}\n  checks:\n  \
                 - {{ name: z, critical: {}, compare: {{ sli: requests.errorRatio, {errors}, minEvents: {events}, spanKind: {kind} }} }}\n  \
                 - {{ name: y, required: {}, compare: {{ sli: requests.duration, quantile: {quantile}, {duration}, against: {against} }} }}\n  \
                 - {{ name: x, query: 'sum(a{{v=\"$version\"}})', {op}: {limit} }}\n",
                flags[0], flags[1]
            )
        },
    )
}

proptest! {
    #[test]
    fn a_gate_reads_back_from_its_json(text in any_gate()) {
        let gate = only(&text);
        let json = serde_json::to_string(&gate).unwrap();
        prop_assert_eq!(only(&json), gate.clone());
        prop_assert!(explain(&gate).contains("Gate any"));
    }

    #[test]
    fn a_damaged_gate_is_read_or_refused(
        text in any_gate(), at in 0usize..900, drop in 0usize..20, insert in "\\PC{0,6}|[:{}\\[\\]\n'\"-]{1,3}",
    ) {
        let at = diagnostics::floor_boundary(&text, at);
        let end = diagnostics::floor_boundary(&text, at + drop).max(at);
        let damaged = format!("{}{insert}{}", &text[..at], &text[end..]);
        if let Err(mistakes) = parse("test.yaml", &damaged) {
            prop_assert!(!mistakes.items.is_empty());
            prop_assert!(mistakes.to_string().contains("error: "));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        if let Err(mistakes) = parse("test.yaml", &text) {
            prop_assert!(mistakes.to_string().contains("error: "));
        }
    }
}
