//! A simulated shop: what its services would have sent, made up from a seed.
//!
//! `storefront` answers every visitor, asks `catalog` each time and `checkout` most times, which
//! asks `payments`. Every call is a client span and a server span in one trace, with the times a
//! real call would have had: nothing sleeps, a quarter of a second's requests are made up at
//! once and dated into that quarter. Spans leave through OpenTelemetry's own exporter over gRPC,
//! one for each instance with its resource, as from processes of their own.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// The environment of every instance.
pub(super) const ENVIRONMENT: &str = "production";

/// The service that ships releases.
pub(super) const SERVICE: &str = "checkout";

/// How long a stretch of made-up traffic is.
pub(super) const STRETCH: Duration = Duration::from_millis(250);

/// Visitors a second.
const VISITORS_PER_S: f64 = 800.0;

/// The share of visitors that buy.
const BUYERS: f64 = 0.6;

/// Instances of each version of each service.
const INSTANCES: u32 = 2;

/// A version of `checkout`: how it behaves.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Release {
    /// Its `service.version`.
    pub(super) version: &'static str,
    /// The share of its requests that end in an error.
    pub(super) error_ratio: f64,
    /// How its latency relates to the usual one.
    pub(super) slowness: f64,
}

/// One process: what tells it from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instance {
    service: &'static str,
    version: &'static str,
    number: u32,
}

/// The shop and its visitors.
#[derive(Debug)]
pub(super) struct Shop {
    rng: ChaCha8Rng,
    stable: Release,
    /// The release under way, and its share of traffic from 0 to 1.
    canary: Option<(Release, f64)>,
}

/// What a service does when it is called: its share of errors, and its own time in seconds.
#[derive(Clone, Copy, Debug)]
struct Nature {
    error_ratio: f64,
    median_s: f64,
}

const STOREFRONT: Nature = Nature {
    error_ratio: 0.0005,
    median_s: 0.006,
};
const CATALOG: Nature = Nature {
    error_ratio: 0.0005,
    median_s: 0.009,
};
const PAYMENTS: Nature = Nature {
    error_ratio: 0.001,
    median_s: 0.030,
};
/// Of `checkout`, before a release's slowness.
const CHECKOUT_MEDIAN_S: f64 = 0.040;

/// How much latencies spread: the standard deviation of their logarithm.
const SPREAD: f64 = 0.35;

/// One call's spans, in the making.
struct Trace {
    id: TraceId,
    spans: Vec<(Instance, SpanData)>,
}

impl Shop {
    /// A shop whose traffic follows from `seed`, on the release `stable`.
    pub(super) fn new(seed: u64, stable: Release) -> Self {
        Shop {
            rng: ChaCha8Rng::seed_from_u64(seed),
            stable,
            canary: None,
        }
    }

    /// Sends `share` of the traffic to `release`.
    pub(super) fn shift(&mut self, release: Release, share: f64) {
        self.canary = Some((release, share));
    }

    /// Sends all traffic to the release under way.
    pub(super) fn promote(&mut self) {
        if let Some((release, _)) = self.canary.take() {
            self.stable = release;
        }
    }

    /// Sends all traffic back to where it was.
    pub(super) fn roll_back(&mut self) {
        self.canary = None;
    }

    /// What every instance sends about the visitors that were served by `end`, within one
    /// [`STRETCH`].
    pub(super) fn traffic(&mut self, end: SystemTime) -> BTreeMap<Instance, Vec<SpanData>> {
        let mean = VISITORS_PER_S * STRETCH.as_secs_f64();
        let visitors = self.around(mean);
        let mut by_instance: BTreeMap<Instance, Vec<SpanData>> = BTreeMap::new();
        for _ in 0..visitors {
            let age_s = self.rng.random_range(0.0..STRETCH.as_secs_f64());
            let served = end - Duration::from_secs_f64(age_s);
            for (instance, span) in self.visit(served) {
                by_instance.entry(instance).or_default().push(span);
            }
        }
        by_instance
    }

    /// A whole number near `mean`, as many as independent visitors would be.
    fn around(&mut self, mean: f64) -> u32 {
        let spread = mean.sqrt() * self.normal();
        (mean + spread).round().clamp(0.0, 10.0 * mean) as u32
    }

    /// A standard normal number, by Box and Muller's transformation.
    fn normal(&mut self) -> f64 {
        let (a, b): (f64, f64) = (self.rng.random(), self.rng.random());
        (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }

    /// Log-normal, as latencies are.
    fn takes_s(&mut self, median_s: f64) -> f64 {
        (median_s * (SPREAD * self.normal()).exp()).min(5.0)
    }

    /// One visitor's trace, answered at `end`.
    fn visit(&mut self, end: SystemTime) -> Vec<(Instance, SpanData)> {
        let mut trace = Trace {
            id: TraceId::from_bytes(self.rng.random::<u128>().to_be_bytes()),
            spans: Vec::new(),
        };
        let storefront = self.instance("storefront", "2.3.0");
        let root = self.span_id();
        let page_s = self.takes_s(STOREFRONT.median_s);
        let mut failed = self.rng.random_bool(STOREFRONT.error_ratio);
        // From the answer backwards: each call ends where the one after it began.
        let mut at = end - Duration::from_secs_f64(page_s / 2.0);
        if self.rng.random_bool(BUYERS) {
            let (began, is_error) = self.check_out(&mut trace, &storefront, root, at);
            (at, failed) = (began, failed || is_error);
        }
        let catalog = self.instance("catalog", "1.12.0");
        let took_s = self.takes_s(CATALOG.median_s);
        let is_error = self.rng.random_bool(CATALOG.error_ratio);
        let (began, _) = self.call(
            &mut trace,
            (&storefront, root),
            (catalog, "GET /items"),
            at,
            took_s,
            is_error,
        );
        let start = began - Duration::from_secs_f64(page_s / 2.0);
        let span = span(
            trace.id,
            (root, SpanId::INVALID),
            SpanKind::Server,
            "GET /shop",
            (start, end),
            failed || is_error,
        );
        trace.spans.push((storefront, span));
        trace.spans
    }

    /// The call of `checkout`, which calls `payments`; when it began, and whether it failed.
    fn check_out(
        &mut self,
        trace: &mut Trace,
        caller: &Instance,
        parent: SpanId,
        end: SystemTime,
    ) -> (SystemTime, bool) {
        let (version, error_ratio, slowness) = self.release();
        let checkout = self.instance(SERVICE, version);
        let payments = self.instance("payments", "2.8.1");
        let own_s = self.takes_s(CHECKOUT_MEDIAN_S * slowness);
        let payment_s = self.takes_s(PAYMENTS.median_s);
        let declined = self.rng.random_bool(PAYMENTS.error_ratio);
        let is_error = self.rng.random_bool(error_ratio) || declined;
        let took_s = own_s + payment_s + 2.0 * NETWORK_S;
        let (began, server) = self.call(
            trace,
            (caller, parent),
            (checkout.clone(), "POST /checkout"),
            end,
            took_s,
            is_error,
        );
        let paid = began + Duration::from_secs_f64(NETWORK_S + own_s / 2.0 + payment_s);
        self.call(
            trace,
            (&checkout, server),
            (payments, "POST /pay"),
            paid,
            payment_s,
            declined,
        );
        (began, is_error)
    }

    /// A client span of `from` and a server span of `to`; when the client began to wait, and the
    /// server span's id.
    fn call(
        &mut self,
        trace: &mut Trace,
        (caller, parent): (&Instance, SpanId),
        (callee, name): (Instance, &'static str),
        end: SystemTime,
        took_s: f64,
        is_error: bool,
    ) -> (SystemTime, SpanId) {
        let network = Duration::from_secs_f64(NETWORK_S);
        let took = Duration::from_secs_f64(took_s);
        let (client, server) = (self.span_id(), self.span_id());
        let (server_start, server_end) = (end - network - took, end - network);
        let start = server_start - network;
        let (id, times) = (trace.id, (server_start, server_end));
        let served = span(
            id,
            (server, client),
            SpanKind::Server,
            name,
            times,
            is_error,
        );
        let asked = span(
            id,
            (client, parent),
            SpanKind::Client,
            name,
            (start, end),
            is_error,
        );
        trace.spans.push((callee, served));
        trace.spans.push((caller.clone(), asked));
        (start, server)
    }

    /// Which release serves the next request.
    fn release(&mut self) -> (&'static str, f64, f64) {
        let chance: f64 = self.rng.random();
        let release = match &self.canary {
            Some((canary, share)) if chance < *share => canary,
            _ => &self.stable,
        };
        (release.version, release.error_ratio, release.slowness)
    }

    fn instance(&mut self, service: &'static str, version: &'static str) -> Instance {
        Instance {
            service,
            version,
            number: self.rng.random_range(0..INSTANCES),
        }
    }

    fn span_id(&mut self) -> SpanId {
        SpanId::from_bytes(self.rng.random_range(1..u64::MAX).to_be_bytes())
    }
}

/// What a message takes one way, in seconds.
const NETWORK_S: f64 = 0.0005;

fn span(
    trace: TraceId,
    (id, parent): (SpanId, SpanId),
    kind: SpanKind,
    name: &'static str,
    (start_time, end_time): (SystemTime, SystemTime),
    is_error: bool,
) -> SpanData {
    let sampled = TraceFlags::SAMPLED;
    let (method, route) = name.split_once(' ').unwrap_or(("GET", name));
    let status = if is_error { 503 } else { 200 };
    let parent_span_is_remote = kind == SpanKind::Server;
    SpanData {
        span_context: SpanContext::new(trace, id, sampled, false, TraceState::default()),
        parent_span_id: parent,
        parent_span_is_remote,
        span_kind: kind,
        name: name.into(),
        start_time,
        end_time,
        attributes: vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route),
            KeyValue::new("http.response.status_code", status),
        ],
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: match is_error {
            true => Status::error("upstream unavailable"),
            false => Status::Unset,
        },
        instrumentation_scope: InstrumentationScope::builder("slogate-demo").build(),
    }
}

/// Every instance's exporter.
#[derive(Debug)]
pub(super) struct Exporters {
    endpoint: String,
    by_instance: BTreeMap<Instance, SpanExporter>,
}

/// Why the shop's telemetry could not be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The exporter refuses its settings.
    #[error("exporter: {0}")]
    Build(#[from] ExporterBuildError),
    /// The daemon did not take it.
    #[error("export to {endpoint}: {error}")]
    Export {
        /// Where it was sent.
        endpoint: String,
        /// Why not.
        error: opentelemetry_sdk::error::OTelSdkError,
    },
}

impl Exporters {
    /// Exporters to the OTLP/gRPC `endpoint`.
    pub(super) fn to(endpoint: String) -> Self {
        Exporters {
            endpoint,
            by_instance: BTreeMap::new(),
        }
    }

    /// Sends each instance's spans as a request of its own.
    pub(super) async fn send(
        &mut self,
        traffic: BTreeMap<Instance, Vec<SpanData>>,
    ) -> Result<(), SendError> {
        for instance in traffic.keys() {
            if !self.by_instance.contains_key(instance) {
                let exporter = exporter(&self.endpoint, instance)?;
                self.by_instance.insert(instance.clone(), exporter);
            }
        }
        let exports = traffic.into_iter().filter_map(|(instance, spans)| {
            let exporter = self.by_instance.get(&instance)?;
            Some(exporter.export(spans))
        });
        for result in futures_util::future::join_all(exports).await {
            result.map_err(|error| SendError::Export {
                endpoint: self.endpoint.clone(),
                error,
            })?;
        }
        Ok(())
    }
}

fn exporter(endpoint: &str, instance: &Instance) -> Result<SpanExporter, ExporterBuildError> {
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(Duration::from_secs(5))
        .build()?;
    let Instance {
        service,
        version,
        number,
    } = instance;
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", *service),
            KeyValue::new("service.version", *version),
            KeyValue::new(
                "service.instance.id",
                format!("{service}-{version}-{number}"),
            ),
            KeyValue::new("deployment.environment.name", ENVIRONMENT),
        ])
        .build();
    exporter.set_resource(&resource);
    Ok(exporter)
}

/// A time in milliseconds since the epoch as the SDK has it.
pub(super) fn system_time(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Release = Release {
        version: "1",
        error_ratio: 0.0,
        slowness: 1.0,
    };
    const BAD: Release = Release {
        version: "2",
        error_ratio: 0.5,
        slowness: 3.0,
    };

    fn minute(shop: &mut Shop) -> Vec<(Instance, SpanData)> {
        let end = system_time(1_795_190_400_000);
        let stretches = 0..240;
        let spans = stretches
            .flat_map(|_| shop.traffic(end))
            .collect::<Vec<_>>();
        let each = |(instance, spans): (Instance, Vec<SpanData>)| {
            spans.into_iter().map(move |span| (instance.clone(), span))
        };
        spans.into_iter().flat_map(each).collect()
    }

    fn of_version<'a>(
        spans: &'a [(Instance, SpanData)],
        version: &'a str,
    ) -> impl Iterator<Item = &'a SpanData> {
        let server = |s: &SpanData| s.span_kind == SpanKind::Server;
        let is_wanted = move |i: &Instance| i.service == SERVICE && i.version == version;
        spans
            .iter()
            .filter(move |(instance, span)| is_wanted(instance) && server(span))
            .map(|(_, span)| span)
    }

    #[test]
    fn a_seed_gives_the_same_traffic() {
        let ids = |seed| {
            let mut shop = Shop::new(seed, GOOD);
            let spans = minute(&mut shop);
            spans
                .iter()
                .map(|(_, s)| s.span_context.span_id())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(7), ids(7));
        assert_ne!(ids(7), ids(8));
    }

    #[test]
    fn a_canary_gets_its_share_and_shows_its_nature() {
        let mut shop = Shop::new(1, GOOD);
        shop.shift(BAD, 0.25);
        let spans = minute(&mut shop);
        let (good, bad) = (
            of_version(&spans, "1").count(),
            of_version(&spans, "2").count(),
        );
        let share = bad as f64 / (good + bad) as f64;
        assert!((share - 0.25).abs() < 0.02, "{share}");
        let failed = of_version(&spans, "2").filter(|span| span.status != Status::Unset);
        let error_ratio = failed.count() as f64 / bad as f64;
        assert!((error_ratio - 0.5).abs() < 0.03, "{error_ratio}");
        let mean_s = |version: &str, count: usize| {
            let took = |s: &SpanData| s.end_time.duration_since(s.start_time).unwrap();
            let total: Duration = of_version(&spans, version).map(took).sum();
            total.as_secs_f64() / count as f64
        };
        assert!(mean_s("2", bad) > 1.7 * mean_s("1", good));
        shop.roll_back();
        assert_eq!(of_version(&minute(&mut shop), "2").count(), 0);
        shop.shift(BAD, 0.5);
        shop.promote();
        assert_eq!(of_version(&minute(&mut shop), "1").count(), 0);
    }

    #[test]
    fn a_trace_is_a_tree_in_time() {
        let mut shop = Shop::new(3, GOOD);
        for _ in 0..200 {
            let spans = shop.visit(system_time(1_795_190_400_000));
            let of = |id| spans.iter().find(|(_, s)| s.span_context.span_id() == id);
            assert!(spans.len() == 3 || spans.len() == 7);
            for (_, span) in &spans {
                assert!(span.start_time < span.end_time);
                if let Some((_, parent)) = of(span.parent_span_id) {
                    assert!(parent.start_time <= span.start_time);
                    assert!(parent.end_time >= span.end_time);
                } else {
                    assert_eq!(span.parent_span_id, SpanId::INVALID);
                }
            }
        }
    }
}
