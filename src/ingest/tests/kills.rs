//! Kills between acknowledgement and flush.

use super::*;

fn options(dir: &std::path::Path) -> IngestOptions {
    IngestOptions {
        journal_dir: Some(dir.join("ingest")),
        ..IngestOptions::default()
    }
}

fn one_span() -> [ResourceSpans; 1] {
    [spans_of(service("shop", "1"), vec![span("a", 40, 2)])]
}

/// Totals of a counter over its resets, as `increase()` over all time sees them.
fn increase(bed: &Bed, metric: &str) -> f64 {
    let mut total = 0.0;
    for series in bed.series(metric) {
        let values: Vec<_> = series.samples.iter().map(|s| number(&s.value)).collect();
        for pair in values.windows(2) {
            total += if pair[1] < pair[0] {
                pair[1]
            } else {
                pair[1] - pair[0]
            };
        }
    }
    total
}

#[test]
fn a_kill_at_any_moment_loses_no_acknowledged_span() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Options::default(), T0).unwrap();
    let store = Arc::new(store);
    let mut now_ms = T0;
    let mut sent = 0.0;
    // Dropping an ingest without flushing is what a kill leaves: files, no memory.
    for life in 0..5 {
        let bed = Bed::over(store.clone(), options(dir.path()), now_ms);
        for step in 0..7 {
            now_ms += 1_300;
            bed.send(one_span(), now_ms);
            sent += 1.0;
            if (step + life) % 3 == 0 {
                bed.ingest.tick(now_ms).unwrap();
            }
        }
        now_ms += 6_000;
    }
    let bed = Bed::over(store, options(dir.path()), now_ms);
    bed.ingest.tick(now_ms + 5_000).unwrap();
    assert_eq!(increase(&bed, "traces_span_metrics_calls_total"), sent);
    assert_eq!(increase(&bed, "traces_span_metrics_duration_seconds"), sent);
    assert_eq!(increase(&bed, "slogate_observability_items_total"), sent);
}

#[test]
fn replay_restores_weights_buckets_and_edges() {
    let dir = tempfile::tempdir().unwrap();
    let call = Span {
        kind: 3,
        trace_state: "ot=th:5555".into(),
        ..span("call", 33, 0)
    };
    let serve = Span {
        parent_span_id: vec![1; 8],
        trace_state: "ot=th:5555".into(),
        ..span("serve", 21, 2)
    };
    let spans = [
        spans_of(service("web", "1"), vec![call]),
        spans_of(service("pay", "2"), vec![serve]),
    ];
    Bed::with(options(dir.path())).send(spans.clone(), T0);
    let after = Bed::with(options(dir.path()));
    let before = Bed::new();
    before.send(spans, T0);
    for bed in [&before, &after] {
        bed.ingest.flush(T0 + 5_000).unwrap();
    }
    for metric in [
        "traces_span_metrics_duration_seconds",
        "traces_service_graph_request_total",
        "traces_service_graph_request_failed_total",
        "traces_service_graph_request_client_seconds",
    ] {
        assert!(!before.series(metric).is_empty());
        assert_eq!(before.series(metric), after.series(metric), "{metric}");
    }
}

#[test]
fn a_torn_record_ends_its_file_and_keeps_what_is_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::with(options(dir.path()));
    bed.send(one_span(), T0);
    bed.send(one_span(), T0);
    drop(bed);
    let path = dir.path().join("ingest/journal-1");
    let whole = std::fs::read(&path).unwrap();
    let mut damaged: Vec<_> = (1..20)
        .map(|cut| whole[..whole.len() - cut].to_vec())
        .collect();
    damaged.push(whole);
    *damaged.last_mut().unwrap().last_mut().unwrap() ^= 1;
    for bytes in damaged {
        for old in std::fs::read_dir(dir.path().join("ingest")).unwrap() {
            std::fs::remove_file(old.unwrap().path()).unwrap();
        }
        std::fs::write(&path, &bytes).unwrap();
        let bed = Bed::with(options(dir.path()));
        bed.ingest.tick(T0 + 5_000).unwrap();
        let calls = bed.last("traces_span_metrics_calls_total");
        assert_eq!(calls[0].1, 1.0, "{} bytes", bytes.len());
    }
}

#[test]
fn a_file_of_another_version_is_refused_and_says_how_to_mend_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("ingest")).unwrap();
    std::fs::write(dir.path().join("ingest/journal-3"), b"SLGJRNL9....").unwrap();
    let (store, _) = Store::open(Options::default(), T0).unwrap();
    let error = Ingest::new(Arc::new(store), options(dir.path()), T0).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("journal-3: not an ingest journal"),
        "{error}"
    );
}

#[test]
fn flushed_files_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::with(options(dir.path()));
    for n in 1..4 {
        bed.send(one_span(), T0);
        bed.ingest.tick(T0 + n * 5_000).unwrap();
    }
    let left = std::fs::read_dir(dir.path().join("ingest"))
        .unwrap()
        .count();
    assert_eq!(left, 1);
}

#[test]
fn a_full_journal_turns_requests_away_until_the_next_flush() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::with(IngestOptions {
        journal_max_bytes: 200,
        ..options(dir.path())
    });
    bed.send(one_span(), T0);
    let error = bed
        .ingest
        .traces(&trace_request(one_span()), T0)
        .unwrap_err();
    assert!(matches!(
        error,
        IngestError::Overloaded {
            retry_after_ms: 5_000
        }
    ));
    bed.ingest.tick(T0 + 5_000).unwrap();
    bed.send(one_span(), T0 + 5_001);
}

#[test]
fn requests_and_flushes_at_once_count_every_span_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Options::default(), T0).unwrap();
    let store = Arc::new(store);
    let bed = Bed::over(store.clone(), options(dir.path()), T0);
    let (threads, requests) = (4, 300);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..requests {
                    bed.send(one_span(), T0 + 1);
                }
            });
        }
        for tick in 1..40 {
            bed.ingest.tick(T0 + tick * 5_000).unwrap();
            std::thread::yield_now();
        }
    });
    // What the last flush did not reach is in the journal, and nothing else is.
    drop(bed);
    let bed = Bed::over(store, options(dir.path()), T0 + 400_000);
    bed.ingest.tick(T0 + 405_000).unwrap();
    let sent = f64::from(threads * requests);
    assert_eq!(increase(&bed, "traces_span_metrics_calls_total"), sent);
    assert_eq!(increase(&bed, "traces_span_metrics_duration_seconds"), sent);
}

#[test]
fn a_flush_that_fails_is_made_up_for_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::with(options(dir.path()));
    bed.send(one_span(), T0);
    let journal = dir.path().join("ingest");
    std::fs::remove_dir_all(&journal).unwrap();
    assert!(matches!(
        bed.ingest.tick(T0 + 5_000),
        Err(IngestError::Storage(_))
    ));
    assert!(bed.series("traces_span_metrics_calls_total").is_empty());
    std::fs::create_dir(&journal).unwrap();
    bed.send(one_span(), T0);
    bed.ingest.tick(T0 + 10_000).unwrap();
    assert_eq!(increase(&bed, "traces_span_metrics_calls_total"), 2.0);
}
