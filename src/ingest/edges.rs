//! Client and server spans to edges between service versions.
//!
//! A client span and the server span whose parent it is are two halves of one request. A half
//! waits in a bounded table until the other one comes, in the same request, a later one, or
//! never.
//!
//! Policy:
//! - A producer pairs with its consumer likewise; the edge is of type `messaging_system`.
//! - A client span that names a database (`db.name`, `db.namespace`, `db.system`,
//!   `db.system.name`, in that order) is an edge at once: databases send no spans.
//! - A client half that waited in vain becomes an edge to `peer.service`, type `virtual_node`,
//!   where it has that attribute. Other halves that waited in vain are dropped and counted.
//! - An edge failed where either side has an error status. Its count is weighted with the
//!   client's sampling weight; each side's durations with its own.
//! - A half waits between half and all of the wait time. Each side has half of the table; when
//!   that is full, new halves of the side are not kept. Halves that meet inside one request
//!   never need it.
//! - Waiting halves live in memory only: a crash loses those edges, not their spans' counts.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use parking_lot::Mutex;
use slogate_series::Labels;
use slogate_wire::WireError;
use slogate_wire::otlp::Span;

use super::cells::{CellKind, Cells};
use super::identity::{Identity, OTHER, Source, cut, labels_of, word};
use super::outcome::Counters;
use super::spans::{Addition, folded};
use super::tally::{Gathering, Pages, Tally};

const SHARDS: usize = 16;

/// Trace id and the client span's id.
type Key = ([u8; 16], [u8; 8]);

/// Which side of a request a span saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// A client or producer.
    Client,
    /// A server or consumer.
    Server,
}

/// What carries the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Connection {
    Direct,
    Messaging,
    Database,
    Virtual,
}

/// One side of a request, read from a span.
#[derive(Clone, Copy, Debug)]
pub(super) struct Half<'a> {
    key: Key,
    pub(super) side: Side,
    /// The number of the resource in the request.
    source: u32,
    measure: Measure,
    messaging: bool,
    /// A database's name and `true`, or `peer.service` and `false`.
    peer: Option<(&'a str, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Measure {
    nanos: u64,
    weight: f64,
    failed: bool,
}

/// A half that waits for the other.
#[derive(Debug)]
struct Waiting {
    identity: Arc<Identity>,
    measure: Measure,
    messaging: bool,
    peer: Option<Arc<str>>,
}

/// The waiting halves.
#[derive(Debug)]
pub(super) struct Edges {
    shards: [Mutex<Shard>; SHARDS],
    queue_max: usize,
    wait_ms: i64,
    turned_ms: Mutex<i64>,
}

/// The two sides wait apart: where only one side is ever seen, looking for the other in an
/// empty table costs nothing, and a flood of one side leaves the other its room.
#[derive(Debug, Default)]
struct Shard {
    clients: Queue,
    servers: Queue,
}

/// The waiting halves of one side, by age.
#[derive(Debug, Default)]
struct Queue {
    young: HashMap<Key, Waiting>,
    old: HashMap<Key, Waiting>,
}

/// One end of an edge.
#[derive(Clone, Debug)]
enum Party {
    Known(Arc<Identity>),
    Named(Arc<str>),
}

/// The edges of one request or flush, added up.
#[derive(Debug, Default)]
pub(super) struct EdgeSums {
    sums: HashMap<(Party, Party, Connection), EdgeSum>,
    pages: Pages,
    paired: u64,
    dropped: u64,
    expired: u64,
}

#[derive(Debug, Default)]
struct EdgeSum {
    requests: u64,
    count: f64,
    failed: f64,
    server: Gathering,
    client: Gathering,
}

impl PartialEq for Party {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Party::Known(a), Party::Known(b)) => Arc::ptr_eq(a, b),
            (Party::Named(a), Party::Named(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Party {}

impl Hash for Party {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Party::Known(identity) => Arc::as_ptr(identity).hash(state),
            Party::Named(name) => name.hash(state),
        }
    }
}

impl Party {
    fn name(&self) -> Arc<str> {
        match self {
            Party::Known(identity) => identity.service.name.clone(),
            Party::Named(name) => name.clone(),
        }
    }

    fn identity(&self) -> Option<&Arc<Identity>> {
        match self {
            Party::Known(identity) => Some(identity),
            Party::Named(_) => None,
        }
    }
}

impl Connection {
    fn label(self) -> Option<&'static str> {
        match self {
            Connection::Direct => None,
            Connection::Messaging => Some("messaging_system"),
            Connection::Database => Some("database"),
            Connection::Virtual => Some("virtual_node"),
        }
    }
}

/// The half that `span` is, if it is one.
#[inline]
pub(super) fn half_of<'a>(
    span: &Span<'a>,
    source: u32,
    nanos: u64,
    weight: f64,
    failed: bool,
) -> Result<Option<Half<'a>>, WireError> {
    let (side, id) = match span.kind {
        2 | 5 => (Side::Server, span.parent_span_id),
        3 | 4 => (Side::Client, span.span_id),
        _ => return Ok(None),
    };
    let (Ok(trace_id), Ok(id)) = (span.trace_id.try_into(), id.try_into()) else {
        return Ok(None);
    };
    let peer = match side {
        Side::Client => peer_of(span)?,
        Side::Server => None,
    };
    Ok(Some(Half {
        key: (trace_id, id),
        side,
        source,
        measure: Measure {
            nanos,
            weight,
            failed,
        },
        messaging: span.kind >= 4,
        peer,
    }))
}

fn peer_of<'a>(span: &Span<'a>) -> Result<Option<(&'a str, bool)>, WireError> {
    let mut best = None;
    for attribute in span.raw_attributes() {
        let attribute = attribute?;
        let rank = match attribute.key {
            b"db.name" => 0,
            b"db.namespace" => 1,
            b"db.system" => 2,
            b"db.system.name" => 3,
            b"peer.service" => 4,
            _ => continue,
        };
        let text = attribute.value()?.as_str().filter(|text| !text.is_empty());
        if let Some(text) = text
            && best.is_none_or(|(known, _)| rank < known)
        {
            best = Some((rank, text));
        }
    }
    Ok(best.map(|(rank, text)| (cut(text), rank < 4)))
}

impl Edges {
    pub(super) fn new(waiting_max: usize, wait_ms: i64, now_ms: i64) -> Self {
        Edges {
            shards: Default::default(),
            queue_max: waiting_max.div_ceil(2 * SHARDS),
            wait_ms,
            turned_ms: Mutex::new(now_ms),
        }
    }

    /// Pairs a request's halves with each other and with those that wait.
    pub(super) fn pair(
        &self,
        halves: &[Half<'_>],
        sources: &[(Arc<Source>, u64)],
        both_sides: bool,
    ) -> EdgeSums {
        let mut sums = EdgeSums::default();
        let identity_of = |half: &Half<'_>| {
            let source = sources.get(half.source as usize);
            source.and_then(|(source, _)| source.identity.as_ref())
        };
        let mut clients = HashMap::new();
        if both_sides {
            let of_clients = halves.iter().filter(|half| half.side == Side::Client);
            clients.extend(of_clients.filter(|h| !h.is_database()).map(|h| (h.key, h)));
        }
        let mut rest: Vec<&Half<'_>> = Vec::with_capacity(halves.len());
        for half in halves {
            let Some(identity) = identity_of(half) else {
                continue;
            };
            if half.is_database() {
                sums.add_named(identity, half.peer.map_or("", |(name, _)| name), half);
            } else if half.side == Side::Client {
                if !both_sides {
                    rest.push(half);
                }
            } else if let Some(client) = clients.remove(&half.key)
                && let Some(client_identity) = identity_of(client)
            {
                let parties = (client_identity, identity);
                sums.add_pair(parties, client.measure, half.measure, half.messaging);
            } else {
                rest.push(half);
            }
        }
        rest.extend(clients.into_values());
        for half in rest {
            if let Some(identity) = identity_of(half) {
                self.meet_or_wait(half, identity, &mut sums);
            }
        }
        sums
    }

    fn meet_or_wait(&self, half: &Half<'_>, identity: &Arc<Identity>, sums: &mut EdgeSums) {
        let shard = usize::from(half.key.1[7]) % SHARDS;
        let mut shard = self.shards[shard].lock();
        let (own, others) = shard.queues(half.side);
        if let Some(other) = others.take(&half.key) {
            let (parties, client, server) = match half.side {
                Side::Client => ((identity, &other.identity), half.measure, other.measure),
                Side::Server => ((&other.identity, identity), other.measure, half.measure),
            };
            sums.add_pair(parties, client, server, half.messaging || other.messaging);
            return;
        }
        if own.len() >= self.queue_max {
            sums.dropped += 1;
            return;
        }
        let waiting = Waiting {
            identity: identity.clone(),
            measure: half.measure,
            messaging: half.messaging,
            peer: half.peer.map(|(name, _)| name.into()),
        };
        own.young.insert(half.key, waiting);
    }

    /// Gives up halves that waited long enough.
    pub(super) fn expire(&self, now_ms: i64) -> EdgeSums {
        let mut sums = EdgeSums::default();
        let mut turned_ms = self.turned_ms.lock();
        if now_ms.saturating_sub(*turned_ms) < self.wait_ms / 2 {
            return sums;
        }
        *turned_ms = now_ms;
        for shard in &self.shards {
            let mut shard = shard.lock();
            sums.expired += shard.servers.turn().len() as u64;
            let clients = shard.clients.turn();
            sums.expired += clients.len() as u64;
            for waiting in clients.into_values() {
                if let Some(peer) = &waiting.peer {
                    let key = (
                        Party::Known(waiting.identity.clone()),
                        Party::Named(peer.clone()),
                        Connection::Virtual,
                    );
                    sums.add(key, Some(waiting.measure), None);
                }
            }
        }
        sums
    }

    /// How many halves wait.
    pub(super) fn waiting(&self) -> usize {
        let sizes = self.shards.iter().map(|shard| {
            let shard = shard.lock();
            shard.clients.len() + shard.servers.len()
        });
        sizes.sum()
    }
}

impl Shard {
    /// The queue of `side`, and the other one.
    fn queues(&mut self, side: Side) -> (&mut Queue, &mut Queue) {
        match side {
            Side::Client => (&mut self.clients, &mut self.servers),
            Side::Server => (&mut self.servers, &mut self.clients),
        }
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn take(&mut self, key: &Key) -> Option<Waiting> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// Makes the young ones old, and gives out the old ones.
    fn turn(&mut self) -> HashMap<Key, Waiting> {
        std::mem::replace(&mut self.old, std::mem::take(&mut self.young))
    }
}

impl Half<'_> {
    fn is_database(&self) -> bool {
        self.peer.is_some_and(|(_, database)| database)
    }
}

impl EdgeSums {
    fn add_pair(
        &mut self,
        (client, server): (&Arc<Identity>, &Arc<Identity>),
        client_measure: Measure,
        server_measure: Measure,
        messaging: bool,
    ) {
        let connection = match messaging {
            true => Connection::Messaging,
            false => Connection::Direct,
        };
        let key = (
            Party::Known(client.clone()),
            Party::Known(server.clone()),
            connection,
        );
        self.paired += 1;
        self.add(key, Some(client_measure), Some(server_measure));
    }

    fn add_named(&mut self, client: &Arc<Identity>, server: &str, half: &Half<'_>) {
        let key = (
            Party::Known(client.clone()),
            Party::Named(server.into()),
            Connection::Database,
        );
        self.add(key, Some(half.measure), None);
    }

    fn add(
        &mut self,
        key: (Party, Party, Connection),
        client: Option<Measure>,
        server: Option<Measure>,
    ) {
        let sum = self.sums.entry(key).or_default();
        let weight = client.or(server).map_or(1.0, |measure| measure.weight);
        sum.requests += 1;
        sum.count += weight;
        if client.is_some_and(|m| m.failed) || server.is_some_and(|m| m.failed) {
            sum.failed += weight;
        }
        if let Some(measure) = client {
            sum.client
                .add(&mut self.pages, measure.nanos, measure.weight);
        }
        if let Some(measure) = server {
            sum.server
                .add(&mut self.pages, measure.nanos, measure.weight);
        }
    }

    /// The additions to the edge cells, which are made where they are missing.
    pub(super) fn additions(
        &self,
        cells: &Cells,
        budget: usize,
        now_ms: i64,
        additions: &mut Vec<Addition>,
    ) {
        for ((client, server, connection), sum) in &self.sums {
            let Some(client_identity) = client.identity() else {
                continue;
            };
            let service = &client_identity.service;
            let mut labels = edge_labels(client, server, *connection);
            let over = service.edge_cells.load(Ordering::Relaxed) >= budget;
            if over && cells.find(CellKind::Edge, &labels).is_none() {
                labels = edge_labels(client, &Party::Named(word(OTHER)), *connection);
                additions.push(folded(
                    cells,
                    client_identity,
                    "server",
                    sum.requests,
                    now_ms,
                ));
            }
            let cell = cells.get(CellKind::Edge, labels, Some(service), now_ms);
            cell.belongs_to(client_identity);
            additions.push(Addition {
                cell,
                delta: Tally {
                    count: sum.count,
                    failed: sum.failed,
                    times: [sum.server.times(&self.pages), sum.client.times(&self.pages)],
                },
                slowest: None,
            });
        }
    }

    pub(super) fn record(&self, counters: &Counters) {
        for (counter, count) in [
            (&counters.edges_paired, self.paired),
            (&counters.edges_dropped, self.dropped),
            (&counters.edges_expired, self.expired),
        ] {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}

fn edge_labels(client: &Party, server: &Party, connection: Connection) -> Labels {
    let environment_of = |party: &Party| party.identity().and_then(|i| i.environment.clone());
    let version_of = |party: &Party| party.identity().and_then(|i| i.version.clone());
    labels_of([
        ("client", Some(client.name())),
        ("client_version", version_of(client)),
        ("server", Some(server.name())),
        ("server_version", version_of(server)),
        ("connection_type", connection.label().map(word)),
        (
            "deployment_environment_name",
            environment_of(server).or_else(|| environment_of(client)),
        ),
    ])
}
