//! Spans to counts and durations.
//!
//! A request is reduced first, touching nothing shared: spans of one (resource, kind, status,
//! name) become one count and one distribution. Only then are accumulators looked up, once for
//! each of those. So a request that turns out to be malformed leaves no trace.
//!
//! Policy:
//! - A span counts when it arrives, whenever it happened: late spans are not lost, and nothing
//!   that was already judged changes.
//! - A span without `service.name` is refused; one without `service.version` is taken.
//! - A sampled span stands for `2^56 / (2^56 - T)` spans, `T` being the threshold in
//!   tracestate `ot=th:` (OpenTelemetry probability sampling). A threshold that is not 1 to 14
//!   hex digits, or that would keep nothing, counts as 1 and is reported in the statistics.
//! - Unknown kinds read as `SPAN_KIND_UNSPECIFIED`, unknown status codes as
//!   `STATUS_CODE_UNSET`.
//! - What a version answers (server and consumer spans) is counted by instance too, in series of
//!   its own without span names: the series of requests, and all that is asked of them, stay as
//!   they are however many instances come and go. Every such span of a version that names
//!   instances counts for one of them, so that they add up to the version: what has no place of
//!   its own, for the limit or the budget, counts for the instance `other`.
//! - Over the service's budget, new span names become `other`; at twice the budget the kind
//!   does too. What exists is kept. One request's distinct names are bounded as well.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use slogate_series::Labels;
use slogate_wire::WireError;
use slogate_wire::otlp::{Span, TracesRequest};

use super::cells::{Cell, CellKind, Cells, SpanExemplar};
use super::edges::{Half, Side, half_of};
use super::identity::{
    Directory, Identity, Instance, OTHER, Source, SpanCell, cut, labels_of, word,
};
use super::outcome::{Counters, Reason, Rejections};
use super::tally::{Gathering, Pages, Tally};

/// Distinct (resource, kind, status, name) held apart in one request.
const SLOTS_MAX: usize = 16_384;

const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

/// The kinds of spans by which a service answers requests.
const ANSWERS: [u8; 2] = [2, 5];

/// A kind that was folded.
const KIND_OTHER: u8 = KINDS.len() as u8;

const STATUSES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

pub(super) const STATUS_ERROR: u8 = 2;

/// What a trace request came down to.
#[derive(Debug)]
pub(super) struct Reduced<'a> {
    /// The resources, in the order sent, with the number of their spans.
    pub(super) sources: Vec<(Arc<Source>, u64)>,
    slots: Vec<Slot<'a>>,
    pages: Pages,
    /// Spans that may be one side of an edge.
    pub(super) halves: Vec<Half<'a>>,
    pub(super) spans: u64,
    pub(super) rejections: Rejections,
}

/// The spans of one (resource, kind, status, name).
#[derive(Debug)]
struct Slot<'a> {
    source: u32,
    kind: u8,
    status: u8,
    name: &'a str,
    hash: u64,
    spans: u64,
    durations: Gathering,
    slowest: Option<(u64, Span<'a>)>,
}

/// An amount to add to a cell.
#[derive(Debug)]
pub(super) struct Addition {
    pub(super) cell: Arc<Cell>,
    pub(super) delta: Tally,
    pub(super) slowest: Option<SpanExemplar>,
}

/// Reads a trace request.
pub(super) fn reduce<'a>(
    request: &'a [u8],
    directory: &Directory,
    counters: &Counters,
    now_ms: i64,
) -> Result<Reduced<'a>, WireError> {
    let mut reduced = Reduced {
        sources: Vec::new(),
        slots: Vec::new(),
        pages: Pages::default(),
        halves: Vec::new(),
        spans: 0,
        rejections: Rejections::default(),
    };
    let hasher = DefaultHashBuilder::default();
    let mut table = HashTable::new();
    for resource_spans in TracesRequest::new(request).resource_spans() {
        let resource_spans = resource_spans?;
        let source = directory.source(&resource_spans.resource, now_ms)?;
        let refused = match &source {
            Ok(source) if source.identity.is_some() => None,
            Ok(_) => Some(Reason::NoService),
            Err(reason) => Some(*reason),
        };
        let number = reduced.sources.len() as u32;
        let before = reduced.spans;
        for scope_spans in resource_spans.scope_spans() {
            for span in scope_spans?.spans() {
                let span = span?;
                reduced.spans += 1;
                match refused {
                    Some(reason) => reduced.refuse(reason, &span),
                    None => reduced.add(&hasher, &mut table, number, &span, counters)?,
                }
            }
        }
        if let (Ok(source), None) = (source, refused) {
            reduced.sources.push((source, reduced.spans - before));
        }
    }
    Ok(reduced)
}

impl<'a> Reduced<'a> {
    #[cold]
    fn refuse(&mut self, reason: Reason, span: &Span<'_>) {
        self.rejections
            .add(reason, 1, || format!("span {:?}", cut(span.name)));
    }

    #[inline]
    fn add(
        &mut self,
        hasher: &DefaultHashBuilder,
        table: &mut HashTable<u32>,
        source: u32,
        span: &Span<'a>,
        counters: &Counters,
    ) -> Result<(), WireError> {
        let kind = u8::try_from(span.kind).unwrap_or(0);
        let kind = if usize::from(kind) < KINDS.len() {
            kind
        } else {
            0
        };
        let status = u8::try_from(span.status_code).unwrap_or(0);
        let status = if usize::from(status) < STATUSES.len() {
            status
        } else {
            0
        };
        let weight = if span.trace_state.is_empty() {
            1.0
        } else {
            weight_of(span.trace_state).unwrap_or_else(|| {
                counters.bad_thresholds.fetch_add(1, Ordering::Relaxed);
                1.0
            })
        };
        let nanos = span.end_unix_nano.saturating_sub(span.start_unix_nano);
        let at = self.slot(hasher, table, source, kind, status, span.name);
        let slot = &mut self.slots[at];
        slot.spans += 1;
        slot.durations.add(&mut self.pages, nanos, weight);
        if slot
            .slowest
            .as_ref()
            .is_none_or(|(slowest, _)| *slowest < nanos)
        {
            slot.slowest = Some((nanos, *span));
        }
        let failed = status == STATUS_ERROR;
        self.halves
            .extend(half_of(span, source, nanos, weight, failed)?);
        Ok(())
    }

    #[inline]
    fn slot(
        &mut self,
        hasher: &DefaultHashBuilder,
        table: &mut HashTable<u32>,
        source: u32,
        kind: u8,
        status: u8,
        name: &'a str,
    ) -> usize {
        let full = self.slots.len() >= SLOTS_MAX;
        let (kind, name) = if full { (kind, OTHER) } else { (kind, name) };
        let hash = hasher.hash_one((source, kind, status, name));
        let slots = &self.slots;
        let found = table.find(hash, |at| {
            let slot = &slots[*at as usize];
            slot.name == name && (slot.source, slot.kind, slot.status) == (source, kind, status)
        });
        if let Some(at) = found {
            return *at as usize;
        }
        let at = self.slots.len();
        self.slots.push(Slot {
            source,
            kind,
            status,
            name,
            hash,
            spans: 0,
            durations: Gathering::default(),
            slowest: None,
        });
        let slots = &self.slots;
        table.insert_unique(hash, at as u32, |at| slots[*at as usize].hash);
        at
    }

    /// Whether both sides of an edge may be in this request.
    pub(super) fn has_both_sides(&self) -> bool {
        let has = |side| self.halves.iter().any(|half| half.side == side);
        has(Side::Client) && has(Side::Server)
    }

    /// The additions to the span cells, which are made where they are missing.
    pub(super) fn additions(
        &self,
        cells: &Cells,
        budget: usize,
        now_ms: i64,
        additions: &mut Vec<Addition>,
    ) {
        // What was answered, by source, kind and status.
        let mut answered: HashMap<(u32, u8, u8), (Arc<Cell>, Tally)> = HashMap::new();
        for slot in &self.slots {
            let source = self.sources.get(slot.source as usize);
            let Some((source, identity)) =
                source.and_then(|(source, _)| Some((source, source.identity.as_ref()?)))
            else {
                continue;
            };
            let place = Place {
                cells,
                identity,
                budget,
                now_ms,
            };
            let cell = place.cell(
                slot.kind,
                slot.status,
                cut(slot.name),
                slot.spans,
                additions,
            );
            let mut delta = Tally::default();
            delta.times[0] = slot.durations.times(&self.pages);
            if ANSWERS.contains(&slot.kind) {
                let key = (slot.source, slot.kind, slot.status);
                if let Some((_, sum)) = answered.get_mut(&key) {
                    sum.add(&delta);
                } else if let Some(cell) = place.instance_cell(source, slot.kind, slot.status) {
                    answered.insert(key, (cell, delta.clone()));
                }
            }
            additions.push(Addition {
                cell,
                delta,
                slowest: slot.exemplar(now_ms),
            });
        }
        additions.extend(answered.into_values().map(|(cell, delta)| Addition {
            cell,
            delta,
            slowest: None,
        }));
    }
}

impl Slot<'_> {
    fn exemplar(&self, now_ms: i64) -> Option<SpanExemplar> {
        let (nanos, span) = self.slowest.as_ref()?;
        let end_ms = i64::try_from(span.end_unix_nano / 1_000_000).ok()?;
        Some(SpanExemplar {
            trace_id: span.trace_id.try_into().ok()?,
            span_id: span.span_id.try_into().ok()?,
            seconds: *nanos as f64 / 1e9,
            t_ms: end_ms.min(now_ms),
        })
    }
}

/// Where a span's cell is looked for.
struct Place<'p> {
    cells: &'p Cells,
    identity: &'p Arc<Identity>,
    budget: usize,
    now_ms: i64,
}

impl Place<'_> {
    fn cell(
        &self,
        kind: u8,
        status: u8,
        name: &str,
        spans: u64,
        additions: &mut Vec<Addition>,
    ) -> Arc<Cell> {
        if self.identity.folded {
            additions.push(folded(
                self.cells,
                self.identity,
                "service_version",
                spans,
                self.now_ms,
            ));
        }
        if let Some(cell) = self.known(kind, status, name) {
            return cell;
        }
        let used = self.identity.service.span_cells.load(Ordering::Relaxed);
        if used < self.budget {
            return self.make(kind, status, name.into());
        }
        // The cell may be there, found through another resource of the same version.
        let shared: Arc<str> = name.into();
        let labels = self.labels(kind, status, shared.clone());
        if let Some(cell) = self.cells.find(CellKind::Span, &labels) {
            return self.keep(kind, status, shared, cell);
        }
        additions.push(folded(
            self.cells,
            self.identity,
            "span_name",
            spans,
            self.now_ms,
        ));
        let kind = if used < self.budget.saturating_mul(2) {
            kind
        } else {
            KIND_OTHER
        };
        self.known(kind, status, OTHER)
            .unwrap_or_else(|| self.make(kind, status, word(OTHER)))
    }

    /// The cell of the instance that answered; `None` where the version names no instances.
    fn instance_cell(&self, source: &Source, kind: u8, status: u8) -> Option<Arc<Cell>> {
        let Some(instance) = &source.instance else {
            let other = self.identity.other_instance(self.now_ms)?;
            return Some(self.cell_of(&other, kind, status));
        };
        if let Some(cell) = known_of(instance, kind, status) {
            return Some(cell);
        }
        let used = &self.identity.service.instance_cells;
        if used.load(Ordering::Relaxed) < self.budget {
            return Some(self.cell_of(instance, kind, status));
        }
        let other = self.identity.other_instance(self.now_ms)?;
        Some(self.cell_of(&other, kind, status))
    }

    fn cell_of(&self, instance: &Instance, kind: u8, status: u8) -> Arc<Cell> {
        if let Some(cell) = known_of(instance, kind, status) {
            return cell;
        }
        let mut labels = self.identity_labels(kind, status).to_vec();
        labels.push(("service_instance_id", Some(instance.name.clone())));
        let service = Some(&self.identity.service);
        let labels = labels_of(labels);
        let cell = self
            .cells
            .get(CellKind::Instance, labels, service, self.now_ms);
        let mut known = instance.cells.lock();
        known.retain(|(_, _, cell)| !cell.is_retired());
        known.push((kind, status, cell.clone()));
        cell
    }

    fn known(&self, kind: u8, status: u8, name: &str) -> Option<Arc<Cell>> {
        let hash = self.identity.span_hash(kind, status, name);
        let spans = self.identity.spans.lock();
        let found = spans.find(hash, |known| {
            (known.kind, known.status) == (kind, status) && *known.name == *name
        });
        found
            .filter(|known| !known.cell.is_retired())
            .map(|known| known.cell.clone())
    }

    fn make(&self, kind: u8, status: u8, name: Arc<str>) -> Arc<Cell> {
        let labels = self.labels(kind, status, name.clone());
        let service = Some(&self.identity.service);
        let cell = self.cells.get(CellKind::Span, labels, service, self.now_ms);
        self.keep(kind, status, name, cell)
    }

    fn keep(&self, kind: u8, status: u8, name: Arc<str>, cell: Arc<Cell>) -> Arc<Cell> {
        cell.belongs_to(self.identity);
        let hash = self.identity.span_hash(kind, status, &name);
        let mut spans = self.identity.spans.lock();
        spans.retain(|known| !known.cell.is_retired());
        let known = spans.find(hash, |known| {
            (known.kind, known.status) == (kind, status) && known.name == name
        });
        if known.is_none() {
            let entry = SpanCell {
                hash,
                kind,
                status,
                name,
                cell: cell.clone(),
            };
            spans.insert_unique(hash, entry, |known| known.hash);
        }
        cell
    }

    fn labels(&self, kind: u8, status: u8, name: Arc<str>) -> Labels {
        let own = self.identity_labels(kind, status).into_iter();
        labels_of(own.chain([("span_name", Some(name))]))
    }

    fn identity_labels(&self, kind: u8, status: u8) -> [(&'static str, Option<Arc<str>>); 5] {
        let kind = KINDS.get(usize::from(kind)).copied().unwrap_or(OTHER);
        let status = STATUSES.get(usize::from(status)).copied();
        [
            ("service_name", Some(self.identity.service.name.clone())),
            ("service_version", self.identity.version.clone()),
            (
                "deployment_environment_name",
                self.identity.environment.clone(),
            ),
            ("span_kind", Some(word(kind))),
            ("status_code", status.map(word)),
        ]
    }
}

fn known_of(instance: &Instance, kind: u8, status: u8) -> Option<Arc<Cell>> {
    let cells = instance.cells.lock();
    let mut found = cells.iter().filter(|one| (one.0, one.1) == (kind, status));
    let (_, _, cell) = found.find(|(_, _, cell)| !cell.is_retired())?;
    Some(cell.clone())
}

/// The addition that says that `items` lost a label to `other`.
pub(super) fn folded(
    cells: &Cells,
    identity: &Arc<Identity>,
    label: &'static str,
    items: u64,
    now_ms: i64,
) -> Addition {
    let labels = labels_of([
        ("service_name", Some(identity.service.name.clone())),
        ("label", Some(word(label))),
    ]);
    Addition {
        cell: cells.get(CellKind::Folded, labels, None, now_ms),
        delta: Tally::of(items as f64),
        slowest: None,
    }
}

/// How many spans a span stands for, from its tracestate; `None` for a malformed threshold.
///
/// The threshold is 1 to 14 hex digits, the leading ones of 56 bits.
/// Source: OpenTelemetry specification, "TraceState: Probability Sampling".
fn weight_of(trace_state: &[u8]) -> Option<f64> {
    let mut members = trace_state.split(|byte| *byte == b',');
    let Some(ot) = members.find_map(|member| member.trim_ascii().strip_prefix(b"ot=")) else {
        return Some(1.0);
    };
    let mut values = ot.split(|byte| *byte == b';');
    let Some(digits) = values.find_map(|value| value.strip_prefix(b"th:")) else {
        return Some(1.0);
    };
    if digits.is_empty() || digits.len() > 14 {
        return None;
    }
    let text = std::str::from_utf8(digits).ok()?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let leading = u64::from_str_radix(text, 16).ok()?;
    let threshold = leading << (4 * (14 - digits.len()));
    const RANGE: u64 = 1 << 56;
    Some(RANGE as f64 / (RANGE - threshold) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_weigh_as_the_specification_says() {
        for (state, weight) in [
            ("ot=th:0", Some(1.0)),
            ("ot=th:8", Some(2.0)),
            ("ot=th:c", Some(4.0)),
            ("ot=th:C", Some(4.0)),
            ("ot=th:fd70a4", Some(100.000_152)),
            ("vendor=1, ot=rv:12345678901234;th:8", Some(2.0)),
            ("ot=th:ffffffffffffff", Some(72_057_594_037_927_936.0)),
            ("ot=rv:12", Some(1.0)),
            ("other=th:8", Some(1.0)),
            ("ot=th:", None),
            ("ot=th:+8", None),
            ("ot=th:xyz", None),
            ("ot=th:123456789012345", None),
        ] {
            match (weight_of(state.as_bytes()), weight) {
                (Some(got), Some(want)) => assert!((got / want - 1.0).abs() < 1e-6, "{state}"),
                (got, want) => assert_eq!(got, want, "{state}"),
            }
        }
    }
}
