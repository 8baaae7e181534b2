//! Spans, edges, coverage, budgets, ageing.

use proptest::prelude::*;
use slogate_series::is_stale;

use super::*;

fn client(id: u8, parent_trace: u8) -> Span {
    Span {
        kind: 3,
        trace_id: vec![parent_trace; 16],
        span_id: vec![id; 8],
        ..span("call", 30, 0)
    }
}

fn server(parent: u8, trace: u8, status: i32) -> Span {
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![99; 8],
        parent_span_id: vec![parent; 8],
        ..span("serve", 20, status)
    }
}

#[test]
fn spans_become_calls_and_durations() {
    let bed = Bed::new();
    let spans = vec![
        span("GET /", 100, 0),
        span("GET /", 200, 0),
        span("GET /", 50, 2),
    ];
    bed.send([spans_of(service("shop", "1.0"), spans)], T0 + 1_000);
    bed.ingest.tick(T0 + 5_000).unwrap();
    let labels = |status: &str| {
        format!(
            "{{deployment_environment_name=\"production\", service_name=\"shop\", \
             service_version=\"1.0\", span_kind=\"SPAN_KIND_SERVER\", span_name=\"GET /\", \
             status_code=\"{status}\"}}"
        )
    };
    let want = vec![
        (labels("STATUS_CODE_ERROR"), 1.0),
        (labels("STATUS_CODE_UNSET"), 2.0),
    ];
    assert_eq!(bed.last("traces_span_metrics_calls_total"), want);
    assert_eq!(bed.last("traces_span_metrics_duration_seconds"), want);
    let durations = bed.series("traces_span_metrics_duration_seconds");
    let Value::Histogram(histogram) = &durations[1].samples.last().unwrap().value else {
        panic!("durations are histograms");
    };
    assert!((histogram.sum - 0.3).abs() < 1e-12);
    assert_eq!(histogram.positive.total(), 2.0);
    assert_eq!(
        histogram
            .positive
            .get(slogate_series::histogram::bucket_index(4, 0.1)),
        1.0
    );
}

#[test]
fn a_new_series_starts_at_zero_so_that_increase_sees_its_first_errors() {
    let bed = Bed::new();
    bed.ingest.tick(T0 + 60_000).unwrap();
    bed.send(
        [spans_of(service("shop", "1.0"), vec![span("a", 1, 2)])],
        T0 + 61_000,
    );
    bed.ingest.tick(T0 + 65_000).unwrap();
    for metric in [
        "traces_span_metrics_calls_total",
        "traces_span_metrics_duration_seconds",
    ] {
        let series = bed.series(metric);
        let samples: Vec<_> = series[0]
            .samples
            .iter()
            .map(|s| (s.t_ms - T0, s.start_ms - T0, number(&s.value)))
            .collect();
        assert_eq!(
            samples,
            [(60_000, 60_000, 0.0), (65_000, 60_000, 1.0)],
            "{metric}"
        );
    }
}

#[test]
fn silence_and_return_repeats_the_old_value_before_the_new_one() {
    let bed = Bed::new();
    let minute = 60_000;
    let send = |at| bed.send([spans_of(service("shop", "1"), vec![span("a", 1, 0)])], at);
    send(T0 + 1_000);
    bed.ingest.tick(T0 + 5_000).unwrap();
    bed.ingest.tick(T0 + 10 * minute).unwrap();
    send(T0 + 20 * minute - 1_000);
    bed.ingest.tick(T0 + 20 * minute).unwrap();
    let calls = bed.series("traces_span_metrics_calls_total");
    let samples: Vec<_> = calls[0]
        .samples
        .iter()
        .map(|s| (s.t_ms - T0, number(&s.value)))
        .collect();
    let want = [
        (1, 0.0),
        (5_000, 1.0),
        (20 * minute - 5_000, 1.0),
        (20 * minute, 2.0),
    ];
    assert_eq!(
        samples, want,
        "silent after the quiet time, whole on return"
    );
}

#[test]
fn an_idle_version_ends_with_a_stale_marker_and_starts_over() {
    let bed = Bed::new();
    let hour = 3_600_000;
    let send = |at| bed.send([spans_of(service("shop", "1"), vec![span("a", 1, 0)])], at);
    send(T0);
    bed.ingest.tick(T0 + 5_000).unwrap();
    assert!(bed.ingest.stats().accumulators > 0);
    bed.ingest.tick(T0 + 2 * hour).unwrap();
    assert_eq!(bed.ingest.stats().accumulators, 0);
    assert_eq!(bed.ingest.stats().services, 0);
    let calls = bed.series("traces_span_metrics_calls_total");
    assert!(calls[0].samples.last().unwrap().value.is_stale());
    let durations = bed.series("traces_span_metrics_duration_seconds");
    assert!(durations[0].samples.last().unwrap().value.is_stale());
    send(T0 + 2 * hour + 1_000);
    bed.ingest.tick(T0 + 2 * hour + 5_000).unwrap();
    let calls = bed.last("traces_span_metrics_calls_total");
    assert_eq!(calls[0].1, 1.0, "a counter reset");
    assert!(!is_stale(calls[0].1));
}

#[test]
fn a_living_version_keeps_its_series_though_one_operation_is_quiet() {
    let bed = Bed::new();
    bed.send(
        [spans_of(service("shop", "1"), vec![span("rare", 1, 0)])],
        T0,
    );
    for minute in 1..90 {
        let at = T0 + minute * 60_000;
        bed.send(
            [spans_of(service("shop", "1"), vec![span("often", 1, 0)])],
            at,
        );
        bed.ingest.tick(at).unwrap();
    }
    let rare = bed.select(&[
        ("span_name", "rare"),
        ("__name__", "traces_span_metrics_calls_total"),
    ]);
    assert_eq!(rare[0].samples.len(), 90);
    assert!(
        rare[0]
            .samples
            .iter()
            .all(|sample| !sample.value.is_stale())
    );
}

#[test]
fn a_span_without_service_name_is_refused_and_its_neighbours_are_not() {
    let bed = Bed::new();
    let outcome = bed.traces(
        [
            spans_of(None, vec![span("lost", 1, 0)]),
            spans_of(service("shop", "1"), vec![span("kept", 1, 0)]),
        ],
        T0,
    );
    assert_eq!((outcome.accepted, outcome.rejected), (1, 1));
    assert_eq!(
        outcome.message,
        "1 spans rejected (span \"lost\"): the resource has no service.name; \
         set OTEL_SERVICE_NAME or the resource attribute"
    );
    let spans = &bed.ingest.stats().signals[0];
    assert_eq!(
        (spans.accepted, spans.rejected.clone()),
        (1, vec![(Reason::NoService, 1)])
    );
}

#[test]
fn a_span_without_version_is_taken_and_counted_as_unidentified() {
    let bed = Bed::new();
    let bare = resource(&[
        ("service.name", "shop"),
        ("deployment.environment", "staging"),
    ]);
    bed.send([spans_of(bare, vec![span("a", 1, 0), span("a", 1, 0)])], T0);
    bed.send([spans_of(service("shop", "2"), vec![span("a", 1, 0)])], T0);
    bed.ingest.tick(T0 + 5_000).unwrap();
    let calls = bed.last("traces_span_metrics_calls_total");
    assert!(calls.iter().any(|(labels, _)| {
        !labels.contains("service_version") && labels.contains("=\"staging\"")
    }));
    let items = bed.last("slogate_observability_items_total");
    let want = |artifact, environment| {
        format!(
            "{{artifact_identity=\"{artifact}\", deployment_environment_name=\"{environment}\", \
             service_name=\"shop\", signal=\"spans\"}}"
        )
    };
    let want = vec![
        (want("false", "staging"), 2.0),
        (want("true", "production"), 1.0),
    ];
    assert_eq!(items, want);
    let observed = bed.ingest.take_observed();
    assert_eq!(
        observed.len(),
        1,
        "a resource without version observes none"
    );
    assert_eq!(observed[0].version, "2");
    assert_eq!(bed.ingest.take_observed(), [], "told once until seen again");
}

#[test]
fn a_digest_is_observed_with_its_version() {
    let bed = Bed::new();
    let mut labelled = service("shop", "3").unwrap();
    let digest = format!("sha256:{}", "ab".repeat(32));
    let image = format!("registry.example/shop@{digest}");
    let array = opentelemetry_proto::tonic::common::v1::ArrayValue {
        values: vec![text("", &image).value.unwrap()],
    };
    labelled.attributes.push(KeyValue {
        key: "container.image.repo_digests".into(),
        value: Some(AnyValue {
            value: Some(AnyValueKind::ArrayValue(array)),
        }),
        ..KeyValue::default()
    });
    bed.send([spans_of(Some(labelled), vec![span("a", 1, 0)])], T0 + 7);
    let observed = bed.ingest.take_observed();
    let found = observed[0].digest.as_ref().map(ToString::to_string);
    assert_eq!(found, Some(digest));
    assert_eq!(
        (observed[0].first_seen_ms, observed[0].last_seen_ms),
        (T0 + 7, T0 + 7)
    );
}

#[test]
fn sampled_spans_weigh_what_they_stand_for() {
    let bed = Bed::new();
    let sampled = |state: &str| Span {
        trace_state: state.into(),
        ..span("a", 10, 0)
    };
    let spans = vec![
        sampled("ot=th:8"),
        sampled("x=1,ot=th:c"),
        sampled("ot=th:zz"),
    ];
    bed.send([spans_of(service("shop", "1"), spans)], T0);
    bed.ingest.tick(T0 + 5_000).unwrap();
    assert_eq!(bed.last("traces_span_metrics_calls_total")[0].1, 7.0);
    let durations = bed.series("traces_span_metrics_duration_seconds");
    let Value::Histogram(histogram) = &durations[0].samples.last().unwrap().value else {
        panic!("durations are histograms");
    };
    assert_eq!((histogram.count, histogram.positive.total()), (7.0, 7.0));
    assert!((histogram.sum - 0.07).abs() < 1e-12);
    assert_eq!(bed.ingest.stats().bad_thresholds, 1);
}

#[test]
fn a_clock_that_steps_back_gives_a_duration_of_zero() {
    let bed = Bed::new();
    let backwards = Span {
        end_time_unix_nano: 5,
        ..span("a", 10, 0)
    };
    bed.send([spans_of(service("shop", "1"), vec![backwards])], T0);
    bed.ingest.tick(T0 + 5_000).unwrap();
    let durations = bed.series("traces_span_metrics_duration_seconds");
    let Value::Histogram(histogram) = &durations[0].samples.last().unwrap().value else {
        panic!("durations are histograms");
    };
    assert_eq!((histogram.zero_count, histogram.sum), (1.0, 0.0));
}

#[test]
fn the_slowest_span_of_a_series_becomes_its_exemplar() {
    let bed = Bed::new();
    let slow = Span {
        trace_id: vec![0xab; 16],
        ..span("a", 900, 0)
    };
    let spans = vec![span("a", 10, 0), slow, span("a", 20, 0)];
    bed.send([spans_of(service("shop", "1"), spans)], T0 + 2_000);
    bed.ingest.tick(T0 + 5_000).unwrap();
    let name = Matcher::new(
        "__name__",
        MatchOp::Equal,
        "traces_span_metrics_duration_seconds",
    );
    let exemplars = bed.store.exemplars(&[name.unwrap()], i64::MIN, i64::MAX);
    let exemplar = &exemplars[0].1[0];
    assert_eq!(
        exemplar.labels.get("trace_id"),
        Some("ab".repeat(16).as_str())
    );
    assert_eq!((exemplar.value, exemplar.t_ms), (0.9, T0 + 900));
}

#[test]
fn edges_form_across_requests_in_either_order() {
    for client_first in [true, false] {
        let bed = Bed::new();
        let call = spans_of(service("web", "1"), vec![client(1, 5)]);
        let serve = spans_of(service("pay", "2"), vec![server(1, 5, 2)]);
        let (first, second) = if client_first {
            (call, serve)
        } else {
            (serve, call)
        };
        bed.send([first], T0);
        assert_eq!(bed.ingest.stats().edges_waiting, 1);
        bed.send([second], T0 + 100);
        assert_eq!(bed.ingest.stats().edges_waiting, 0);
        bed.ingest.tick(T0 + 5_000).unwrap();
        let labels = "{client=\"web\", client_version=\"1\", \
                      deployment_environment_name=\"production\", server=\"pay\", server_version=\"2\"}";
        let total = bed.last("traces_service_graph_request_total");
        assert_eq!(total, [(labels.to_string(), 1.0)]);
        assert_eq!(
            bed.last("traces_service_graph_request_failed_total")[0].1,
            1.0
        );
        for (metric, seconds) in [("server", 0.02), ("client", 0.03)] {
            let name = format!("traces_service_graph_request_{metric}_seconds");
            let series = bed.series(&name);
            let Value::Histogram(histogram) = &series[0].samples.last().unwrap().value else {
                panic!("edge durations are histograms");
            };
            assert_eq!((histogram.count, histogram.sum), (1.0, seconds));
        }
    }
}

#[test]
fn edges_form_inside_one_request_even_when_the_table_is_full() {
    let bed = Bed::with(IngestOptions {
        edges_waiting_max: 0,
        ..IngestOptions::default()
    });
    let call = spans_of(service("web", "1"), vec![client(1, 5), client(2, 5)]);
    let serve = spans_of(service("pay", "2"), vec![server(1, 5, 0)]);
    bed.send([call, serve], T0);
    let stats = bed.ingest.stats();
    assert_eq!(
        (stats.edges_paired, stats.edges_waiting, stats.edges_dropped),
        (1, 0, 1)
    );
}

#[test]
fn database_calls_are_edges_at_once_and_unanswered_peers_after_the_wait() {
    let bed = Bed::new();
    let with = |id: u8, key: &str, value: &str| Span {
        attributes: vec![text("other", "x"), text(key, value)],
        ..client(id, 9)
    };
    let spans = vec![
        with(1, "db.system", "mysql"),
        with(2, "peer.service", "mail"),
        client(3, 9),
    ];
    bed.send([spans_of(service("web", "1"), spans)], T0);
    bed.ingest.tick(T0 + 5_000).unwrap();
    let types = || -> Vec<(String, String)> {
        let series = bed.series("traces_service_graph_request_total");
        let pair = |s: &Series| {
            let get = |name| s.labels.get(name).unwrap_or("").to_string();
            (get("server"), get("connection_type"))
        };
        let mut pairs: Vec<_> = series.iter().map(pair).collect();
        pairs.sort();
        pairs
    };
    assert_eq!(types(), [("mysql".into(), "database".into())]);
    bed.ingest.tick(T0 + 10_000).unwrap();
    bed.ingest.tick(T0 + 15_000).unwrap();
    assert_eq!(
        types(),
        [
            ("mail".into(), "virtual_node".into()),
            ("mysql".into(), "database".into())
        ]
    );
    let stats = bed.ingest.stats();
    assert_eq!((stats.edges_waiting, stats.edges_expired), (0, 2));
}

#[test]
fn producers_and_consumers_pair_as_messaging() {
    let bed = Bed::new();
    let produce = Span {
        kind: 4,
        ..client(1, 5)
    };
    let consume = Span {
        kind: 5,
        ..server(1, 5, 0)
    };
    bed.send([spans_of(service("web", "1"), vec![produce])], T0);
    bed.send([spans_of(service("worker", "1"), vec![consume])], T0);
    bed.ingest.tick(T0 + 5_000).unwrap();
    let series = bed.series("traces_service_graph_request_total");
    assert_eq!(
        series[0].labels.get("connection_type"),
        Some("messaging_system")
    );
}

#[test]
fn over_the_budget_new_names_fold_and_known_ones_stay() {
    let bed = Bed::with(IngestOptions {
        span_series_per_service: 3,
        ..IngestOptions::default()
    });
    let named = |names: &[&str]| {
        let spans = names.iter().map(|name| span(name, 1, 0)).collect();
        [spans_of(service("shop", "1"), spans)]
    };
    bed.send(named(&["a", "b", "c"]), T0);
    bed.send(named(&["d", "e", "a"]), T0);
    for n in 0..50 {
        bed.send(named(&[&format!("id-{n}")]), T0);
    }
    bed.ingest.tick(T0 + 5_000).unwrap();
    let calls = bed.series("traces_span_metrics_calls_total");
    let by_name: Vec<_> = calls
        .iter()
        .map(|s| {
            (
                s.labels.get("span_name").unwrap(),
                number(&s.samples.last().unwrap().value),
            )
        })
        .collect();
    assert_eq!(
        by_name,
        [("a", 2.0), ("b", 1.0), ("c", 1.0), ("other", 52.0)]
    );
    let folded = bed.last("slogate_ingest_folded_total");
    assert_eq!(
        folded,
        [(
            "{label=\"span_name\", service_name=\"shop\"}".to_string(),
            52.0
        )]
    );
}

#[test]
fn a_version_per_request_cannot_fill_the_memory() {
    let bed = Bed::with(IngestOptions {
        versions_per_service: 5,
        span_series_per_service: 10,
        services_max: 3,
        ..IngestOptions::default()
    });
    for n in 0..200 {
        bed.send(
            [spans_of(
                service("shop", &format!("v{n}")),
                vec![span("a", 1, 0)],
            )],
            T0,
        );
    }
    assert!(bed.ingest.stats().accumulators < 20);
    assert_eq!(bed.ingest.take_observed().len(), 5);
    for n in 0..10 {
        bed.traces(
            [spans_of(
                service(&format!("s{n}"), "1"),
                vec![span("a", 1, 0)],
            )],
            T0,
        );
    }
    let stats = bed.ingest.stats();
    assert_eq!(stats.services, 3);
    assert_eq!(stats.signals[0].rejected, [(Reason::ServiceLimit, 8)]);
}

#[test]
fn a_malformed_request_leaves_no_trace() {
    let bed = Bed::new();
    let mut request = trace_request([spans_of(service("shop", "1"), vec![span("a", 1, 0)])]);
    let whole = request.len();
    request.extend([0x0a, 0x7f, 0x01]);
    let error = bed.ingest.traces(&request, T0).unwrap_err();
    assert!(matches!(error, IngestError::Malformed { offset, .. } if offset == whole + 2));
    assert_eq!(bed.ingest.stats().accumulators, 0);
    bed.ingest.tick(T0 + 5_000).unwrap();
    assert!(bed.series("traces_span_metrics_calls_total").is_empty());
    assert_eq!(bed.ingest.stats().signals[0].failed_requests, 1);
}

#[test]
fn ticks_are_aligned_and_done_once() {
    let bed = Bed::new();
    bed.send([spans_of(service("shop", "1"), vec![span("a", 1, 0)])], T0);
    assert!(bed.ingest.tick(T0 + 7_300).unwrap().samples > 0);
    assert_eq!(bed.ingest.tick(T0 + 9_900).unwrap(), TickReport::default());
    assert!(bed.ingest.tick(T0 + 10_000).unwrap().samples > 0);
    let calls = bed.series("traces_span_metrics_calls_total");
    let times: Vec<_> = calls[0].samples.iter().map(|s| s.t_ms - T0).collect();
    assert_eq!(times, [1, 5_000, 10_000]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_refused_or_taken_but_never_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<proptest::sample::Index>(),
        byte: u8,
    ) {
        let bed = Bed::new();
        let call = spans_of(service("web", "1"), vec![client(1, 5)]);
        let serve = spans_of(service("pay", "2"), vec![server(1, 5, 2)]);
        let mut mutated = trace_request([call, serve]);
        let at = at.index(mutated.len());
        mutated[at] = byte;
        for bytes in [&noise, &mutated] {
            let _ = bed.ingest.traces(bytes, T0);
            let _ = bed.ingest.metrics(bytes, T0);
            let _ = bed.ingest.logs(bytes, T0);
            let _ = bed.ingest.traces_json(bytes, T0);
        }
        prop_assert!(bed.ingest.tick(T0 + 5_000).is_ok());
    }
}

fn instance(name: &str, version: &str, instance: &str) -> Option<Resource> {
    resource(&[
        ("service.name", name),
        ("service.version", version),
        ("deployment.environment.name", "production"),
        ("service.instance.id", instance),
    ])
}

/// What each instance counts, by its name and status.
fn by_instance(bed: &Bed) -> Vec<(String, String, f64)> {
    let series = bed.series("slogate_instance_requests_total");
    let all = series.iter().map(|one| {
        let label = |name: &str| one.labels.get(name).unwrap_or_default().to_owned();
        let count = number(&one.samples.last().unwrap().value);
        (label("service_instance_id"), label("status_code"), count)
    });
    all.collect()
}

#[test]
fn instances_add_up_to_their_version_and_leave_its_series_alone() {
    let bed = Bed::with(IngestOptions {
        instances_per_version: 2,
        ..IngestOptions::default()
    });
    let spans = |names: &[&str], status: i32| -> Vec<Span> {
        names.iter().map(|name| span(name, 1, status)).collect()
    };
    // Nothing is said of instances as long as nobody names one.
    bed.send([spans_of(service("shop", "1"), spans(&["x"], 0))], T0);
    assert_eq!(bed.ingest.stats().accumulators, 2);
    for name in ["a", "b", "c", "d"] {
        let resource = instance("shop", "2", name);
        bed.send([spans_of(resource, spans(&["x", "y"], 0))], T0);
    }
    bed.send([spans_of(instance("shop", "2", "a"), spans(&["x"], 2))], T0);
    bed.send([spans_of(service("shop", "2"), spans(&["z"], 0))], T0);
    // A span inside a service is no answer.
    let mut inside = vec![span("inside", 1, 0)];
    inside[0].kind = 1;
    bed.send([spans_of(instance("shop", "2", "a"), inside)], T0);
    bed.ingest.tick(T0 + 5_000).unwrap();
    let expected = [
        ("a", "STATUS_CODE_ERROR", 1.0),
        ("a", "STATUS_CODE_UNSET", 2.0),
        ("b", "STATUS_CODE_UNSET", 2.0),
        ("other", "STATUS_CODE_UNSET", 5.0),
    ];
    let expected = expected.map(|(name, status, n)| (name.to_owned(), status.to_owned(), n));
    assert_eq!(by_instance(&bed), expected);
    let durations = bed.series("slogate_instance_duration_seconds");
    let calls = bed.series("traces_span_metrics_calls_total");
    assert_eq!(durations.len(), expected.len());
    assert!(
        calls
            .iter()
            .all(|one| one.labels.get("service_instance_id").is_none())
    );
    let of_version = calls.iter().filter(|one| {
        let is = |name: &str, value: &str| one.labels.get(name) == Some(value);
        is("service_version", "2") && is("span_kind", "SPAN_KIND_SERVER")
    });
    let total: f64 = of_version
        .map(|one| number(&one.samples.last().unwrap().value))
        .sum();
    assert_eq!(total, 10.0);
}

/// A pod that is gone frees its place for the next, and its series end.
#[test]
fn an_instance_that_is_gone_makes_room() {
    let bed = Bed::with(IngestOptions {
        instances_per_version: 1,
        idle_ms: 60_000,
        quiet_ms: 20_000,
        ..IngestOptions::default()
    });
    let answer = |name: &str| [spans_of(instance("shop", "1", name), vec![span("x", 1, 0)])];
    bed.send(answer("a"), T0);
    bed.ingest.tick(T0 + 5_000).unwrap();
    bed.ingest.tick(T0 + 200_000).unwrap();
    bed.send(answer("b"), T0 + 201_000);
    bed.ingest.tick(T0 + 205_000).unwrap();
    let names: Vec<_> = by_instance(&bed).into_iter().map(|one| one.0).collect();
    assert_eq!(names, ["a", "b"]);
    let series = bed.series("slogate_instance_requests_total");
    assert!(series[0].samples.last().unwrap().value.is_stale());
}

/// Over the service's budget an instance's first error is not lost: it counts for `other`.
#[test]
fn over_the_budget_instances_still_add_up() {
    let bed = Bed::with(IngestOptions {
        span_series_per_service: 1,
        ..IngestOptions::default()
    });
    let answer = |status: i32| {
        [spans_of(
            instance("shop", "1", "a"),
            vec![span("x", 1, status)],
        )]
    };
    bed.send(answer(0), T0);
    bed.send(answer(2), T0);
    bed.ingest.tick(T0 + 5_000).unwrap();
    let found = by_instance(&bed);
    let total: f64 = found.iter().map(|(_, _, count)| count).sum();
    assert_eq!((found.len(), total), (2, 2.0), "{found:?}");
    assert_eq!(found[1].0, "other");
}
