//! `/status/…` and `/format_query`: about the server and about queries, not about series.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use slogate_tsdb::{Cardinality, Stats};

use super::answer::{Coding, Notes, answer, success};
use super::error::Failure;
use super::json;
use super::params::Form;
use crate::server::api::App;

/// The Prometheus whose API this is. Clients switch features on by it, and older ones than this
/// are unknown to some.
pub const PROMETHEUS_VERSION: &str = "3.14.0";

/// The entries of a list of `/status/tsdb`, where none are asked for and at most.
const TOP: (usize, usize) = (10, 10_000);

/// `/format_query`.
pub(super) async fn format_query(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let form = Form::read(request, &app).await?;
    answer(coding, move || {
        let expr = slogate_promql::parse(form.text("query"));
        let expr = expr.map_err(|error| Failure::parameter("query", error))?;
        Ok(success(&Notes::default(), |out| {
            json::text(out, &expr.pretty());
        }))
    })
    .await
}

/// `/status/buildinfo`. Without `features`, by which Grafana would take it for a Mimir.
pub(super) async fn build_info(request: Request) -> Result<Response, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    texts(
        Coding::of(request.headers()),
        vec![
            ("version", PROMETHEUS_VERSION.to_owned()),
            ("revision", format!("slogate-{version}")),
            ("branch", "slogate".to_owned()),
            ("buildUser", "slogate".to_owned()),
            ("buildDate", String::new()),
            ("goVersion", String::new()),
            ("application", format!("slogate {version}")),
        ],
    )
    .await
}

/// `/status/runtimeinfo`: what there is of it in a program that is not written in Go.
pub(super) async fn runtime_info(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let now_ms = app.clock.now_ms();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    answer(coding, move || {
        let here = std::env::current_dir().unwrap_or_default();
        Ok(success(&Notes::default(), |out| {
            json::raw(out, "{\"startTime\":");
            json::date(out, app.prometheus.started_ms);
            json::raw(out, ",\"CWD\":");
            json::text(out, &here.display().to_string());
            json::raw(out, ",\"serverTime\":");
            json::date(out, now_ms);
            json::raw(out, ",\"reloadConfigSuccess\":true,\"lastConfigTime\":");
            json::date(out, app.prometheus.started_ms);
            json::raw(
                out,
                &format!(
                    ",\"corruptionCount\":0,\"goroutineCount\":0,\"GOMAXPROCS\":{cores},\
                     \"GOMEMLIMIT\":0,\"GOGC\":\"\",\"GODEBUG\":\"\",\"storageRetention\":"
                ),
            );
            json::text(out, &app.prometheus.retention);
            json::raw(out, "}");
        }))
    })
    .await
}

/// `/status/config`: the settings in force, without secrets.
pub(super) async fn config(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let yaml = app.prometheus.settings.clone();
    texts(Coding::of(request.headers()), vec![("yaml", yaml)]).await
}

/// An object of texts.
async fn texts(coding: Coding, pairs: Vec<(&'static str, String)>) -> Result<Response, Failure> {
    answer(coding, move || {
        Ok(success(&Notes::default(), |out| {
            for (n, (name, value)) in pairs.iter().enumerate() {
                json::raw(out, if n == 0 { "{" } else { "," });
                json::text(out, name);
                json::raw(out, ":");
                json::text(out, value);
            }
            json::raw(out, "}");
        }))
    })
    .await
}

/// `/status/tsdb`: which metrics and labels the series come from.
pub(super) async fn tsdb(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Failure> {
    let coding = Coding::of(request.headers());
    let form = Form::read(request, &app).await?;
    let (usual, most) = TOP;
    let top = match form.text("limit") {
        "" => usual,
        text => match text.parse() {
            Ok(top) if top > most => {
                return Err(Failure::bad_data(format!("limit must not exceed {most}")));
            }
            Ok(top) if top > 0 => top,
            _ => return Err(Failure::bad_data("limit must be a positive number")),
        },
    };
    super::series::look_up(&app, coding, move |store| {
        let (stats, cardinality) = (store.stats(), store.cardinality(top));
        success(&Notes::default(), |out| {
            write_tsdb(out, &stats, &cardinality);
        })
    })
    .await
}

fn write_tsdb(out: &mut Vec<u8>, stats: &Stats, cardinality: &Cardinality) {
    let (min_ms, max_ms) = (
        stats.min_t_ms.unwrap_or(i64::MAX),
        stats.max_t_ms.unwrap_or(i64::MIN),
    );
    let head = format!(
        "{{\"headStats\":{{\"numSeries\":{},\"numLabelPairs\":{},\"chunkCount\":{},\
         \"minTime\":{min_ms},\"maxTime\":{max_ms}}}",
        stats.series, cardinality.label_pairs, cardinality.chunks
    );
    json::raw(out, &head);
    let lists = [
        ("seriesCountByMetricName", &cardinality.series_by_metric),
        ("labelValueCountByLabelName", &cardinality.values_by_label),
        ("memoryInBytesByLabelName", &cardinality.bytes_by_label),
        ("seriesCountByLabelValuePair", &cardinality.series_by_pair),
    ];
    for (key, list) in lists {
        json::raw(out, &format!(",\"{key}\":"));
        json::list(out, list, |out, (name, count)| {
            json::raw(out, "{\"name\":");
            json::text(out, name);
            json::raw(out, &format!(",\"value\":{count}}}"));
        });
    }
    json::raw(out, "}");
}
