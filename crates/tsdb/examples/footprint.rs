//! Prints what a series costs in memory: `cargo run --release --example footprint`.
//!
//! 100,000 series with ten labels each, of four kinds, with an hour of samples 15 s apart.
//! The growth of the process's resident memory is what counts; what the store says of
//! itself stands beside it.

use std::error::Error;
use std::sync::Arc;

use slogate_series::{Buckets, Histogram, Labels};
use slogate_tsdb::{Batch, FloatRow, HistogramRow, Options, SeriesRef, Store};

const START: i64 = 1_760_000_000_000;
const STEP: i64 = 15_000;
const SAMPLES: i64 = 240;

fn labels(i: usize) -> Labels {
    Labels::from_pairs([
        (
            "__name__".to_owned(),
            format!("http_requests_{}_total", i % 5),
        ),
        ("service_name".into(), format!("service-{}", i % 50)),
        ("service_version".into(), format!("1.{}.0", i % 3)),
        (
            "service_instance_id".into(),
            format!("instance-{:05}", i / 20),
        ),
        ("deployment_environment_name".into(), "production".into()),
        ("k8s_cluster_name".into(), "cluster-1".into()),
        ("k8s_namespace_name".into(), format!("namespace-{}", i % 10)),
        ("http_request_method".into(), "GET".into()),
        ("http_route".into(), format!("/api/v1/route-{}", i % 20)),
        ("http_response_status_code".into(), "200".into()),
    ])
}

/// Resident memory in bytes, where the system tells.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A small generator of noise, the same in every run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Idle,
    Counter,
    Sum,
    Histogram,
}

fn round(kind: Kind, batch: &mut Batch, refs: &[SeriesRef], n: i64, noise: &mut Noise) {
    let t_ms = START + n * STEP + noise.below(3) as i64;
    let start_ms = START;
    if let Kind::Histogram = kind {
        let previous = std::mem::take(&mut batch.histograms);
        for (i, series) in refs.iter().enumerate() {
            let before = previous.get(i).map(|row| Arc::clone(&row.histogram));
            batch.histograms.push(HistogramRow {
                series: *series,
                t_ms,
                start_ms,
                histogram: Arc::new(observe(&before.unwrap_or_default(), noise)),
            });
        }
        return;
    }
    batch.floats.resize(
        refs.len(),
        FloatRow {
            series: refs[0],
            t_ms,
            start_ms,
            value: 0.0,
        },
    );
    for (row, series) in batch.floats.iter_mut().zip(refs) {
        row.series = *series;
        row.t_ms = t_ms;
        row.value += match kind {
            Kind::Counter => 170.0 + noise.below(60) as f64,
            Kind::Sum => noise.below(1 << 20) as f64 / 1e6,
            Kind::Idle | Kind::Histogram => 0.0,
        };
    }
}

fn observe(before: &Histogram, noise: &mut Noise) -> Histogram {
    let mut counts = [0.0; 24];
    for (slot, (_, count)) in counts.iter_mut().zip(before.positive.iter()) {
        *slot = count;
    }
    for _ in 0..50 {
        let at = noise.below(12) + noise.below(13);
        if let Some(slot) = counts.get_mut(at as usize) {
            *slot += 1.0;
        }
    }
    let all = (-30..).zip(counts).collect();
    Histogram {
        schema: 3,
        count: before.count + 50.0,
        sum: before.sum + noise.below(1 << 20) as f64 / 1e6,
        positive: Buckets::from_sorted(all),
        ..Histogram::default()
    }
}

fn measure(kind: Kind, series: usize) -> Result<(), Box<dyn Error>> {
    let base = resident();
    let (store, _) = Store::open(Options::default(), START)?;
    let mut refs = Vec::new();
    for i in 0..series {
        refs.push(store.series(&labels(i))?);
    }
    let mut batch = Batch::default();
    let mut noise = Noise(7);
    let per_series = |bytes: u64| bytes / series as u64;
    for n in 0..SAMPLES {
        round(kind, &mut batch, &refs, n, &mut noise);
        store.append(&batch, START + n * STEP)?;
        if n == 0 || n == SAMPLES - 1 {
            let stats = store.stats();
            let own = size_of_val(refs.as_slice()) + size_of_val(batch.floats.as_slice());
            println!(
                "{kind:?}, {} samples: {} B resident per series ({} B index, {} B chunks; \
                 {:.2} chunk bytes per sample)",
                n + 1,
                per_series(resident().saturating_sub(base + own as u64)),
                per_series(stats.index_bytes),
                per_series(stats.chunk_bytes),
                stats.chunk_bytes as f64 / stats.samples as f64,
            );
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let kinds = [
        ("idle", Kind::Idle, 100_000),
        ("counter", Kind::Counter, 100_000),
        ("sum", Kind::Sum, 100_000),
        ("histogram", Kind::Histogram, 10_000),
    ];
    // One kind for each process: what one frees, the next would find.
    match std::env::args().nth(1) {
        Some(wanted) => {
            let found = kinds.into_iter().find(|(name, ..)| *name == wanted);
            let (_, kind, series) = found.ok_or("expected idle, counter, sum or histogram")?;
            measure(kind, series)
        }
        None => {
            for (name, ..) in kinds {
                let program = std::env::current_exe()?;
                std::process::Command::new(program).arg(name).status()?;
            }
            Ok(())
        }
    }
}
