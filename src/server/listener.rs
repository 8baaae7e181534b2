//! One kind of listener for every port of ours.
//!
//! An accept loop of our own over hyper, because the ready-made ones have no limits. Policy:
//!
//! - **A connection must earn its keep.** At most `connections_max` are open; one more is
//!   accepted and closed at once, so that its sender sees a reset and not a timeout. A
//!   connection that says nothing for `header_timeout` after it opened, or whose request header
//!   is not whole that long after its first byte, is closed. A connection without a request in
//!   flight for `idle_timeout` is closed, HTTP/2 by GOAWAY; a keep-alive connection that waits
//!   for its next request is idle, not slow. HTTP/2 peers that stop answering pings are closed.
//!   One watchdog a connection sees to it and looks four times per `header_timeout`.
//! - **A request's body** has a deadline and a size of its own; the handlers hold those
//!   ([`limits`](super::limits)).
//! - **Failing to accept never ends the loop.** Out of file descriptors, it waits and tries
//!   again; the kernel's queue holds the peers meanwhile.
//! - **Shutdown drains.** The socket closes first, so new peers are refused; idle connections
//!   close; busy ones finish their requests, for `drain` at most, and are cut after that.
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge are told apart by their first bytes, on every port.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::telemetry::catalog;
use crate::telemetry::metrics::{Counter, Gauge, Registry};

/// The wait after a failure to accept: first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// The bytes by which HTTP/2 is told from HTTP/1; fewer than these are no protocol yet.
const PREFACE_BYTES: u64 = 24;

/// What an HTTP/2 peer may send ahead of its handler's reading, per request; a connection as a
/// whole may twice that. Small enough that every connection of a full house fits into memory,
/// large enough for a batch in one go.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;

/// A listener's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections open at a time.
    pub connections_max: usize,
    /// For a connection's first bytes and for each HTTP/1 header.
    pub header_timeout: Duration,
    /// A connection without a request for this long is closed.
    pub idle_timeout: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams_max: u32,
    /// How long requests in flight may take at shutdown.
    pub drain: Duration,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            connections_max: 4_096,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            streams_max: 128,
            drain: Duration::from_secs(15),
        }
    }
}

/// Why a listener could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is taken, not ours or not allowed.
    #[error("listen {name} on {address}: {error}{hint}")]
    Bind {
        /// The listener.
        name: String,
        /// Where it should listen.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
        /// How to mend it, where that is known.
        hint: &'static str,
    },
}

/// A bound socket that does not serve yet: its address is known, peers wait in its queue.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    socket: TcpListener,
    address: SocketAddr,
    options: ListenOptions,
    meters: Meters,
}

#[derive(Clone, Debug)]
struct Meters {
    open: Gauge,
    accepted: Counter,
    accept_errors: Counter,
    cut_limit: Counter,
    cut_idle: Counter,
    cut_silent: Counter,
    cut_drain: Counter,
}

impl Meters {
    fn new(registry: &Registry, name: &str) -> Self {
        let cut = |reason| registry.counter(&catalog::CONNECTIONS_CUT, &[name, reason]);
        Meters {
            open: registry.gauge(&catalog::CONNECTIONS, &[name]),
            accepted: registry.counter(&catalog::CONNECTIONS_TOTAL, &[name]),
            accept_errors: registry.counter(&catalog::ACCEPT_ERRORS, &[name]),
            cut_limit: cut("limit"),
            cut_idle: cut("idle"),
            cut_silent: cut("silent"),
            cut_drain: cut("drain"),
        }
    }
}

impl Listener {
    /// Binds `address`; port 0 takes a free one. `name` is what logs and metrics call it.
    ///
    /// # Errors
    /// Where the address can't be bound.
    pub async fn bind(
        name: &'static str,
        address: SocketAddr,
        options: ListenOptions,
        registry: &Registry,
    ) -> Result<Listener, ListenError> {
        let fail = |error: io::Error| ListenError::Bind {
            name: name.to_owned(),
            address,
            hint: hint(&error),
            error,
        };
        let socket = TcpListener::bind(address).await.map_err(fail)?;
        let address = socket.local_addr().map_err(fail)?;
        Ok(Listener {
            name,
            socket,
            address,
            options,
            meters: Meters::new(registry, name),
        })
    }

    /// Where it listens, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` until `stop`, then drains. Returns when the last connection is closed,
    /// which is at most `drain` after `stop`.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let Listener {
            name,
            socket,
            address,
            options,
            meters,
        } = self;
        let shared = Arc::new(Shared {
            builder: builder(&options),
            router,
            cut: CancellationToken::new(),
            stop: stop.clone(),
            options,
            meters,
        });
        accept_loop(name, &socket, &shared)
            .await
            .wait_drained(socket, &shared)
            .await;
        tracing::info!(listener = name, %address, "closed");
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process listens there: stop it or choose port 0",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        _ => "",
    }
}

fn builder(options: &ListenOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // hyper's own would also close connections that only wait for their next request.
        .header_read_timeout(None)
        .max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(2 * STREAM_WINDOW_BYTES)
        .max_frame_size(64 * 1024)
        .max_header_list_size(32 * 1024)
        .max_pending_accept_reset_streams(64)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// What every connection of a listener needs.
struct Shared {
    builder: auto::Builder<TokioExecutor>,
    router: Router,
    /// Begins the drain.
    stop: CancellationToken,
    /// Ends the drain.
    cut: CancellationToken,
    options: ListenOptions,
    meters: Meters,
}

/// The connections that are still open.
struct Open(TaskTracker);

impl Open {
    async fn wait_drained(self, socket: TcpListener, shared: &Shared) {
        drop(socket);
        self.0.close();
        let drained = tokio::time::timeout(shared.options.drain, self.0.wait()).await;
        if drained.is_err() {
            shared.cut.cancel();
            self.0.wait().await;
        }
    }
}

async fn accept_loop(name: &'static str, socket: &TcpListener, shared: &Arc<Shared>) -> Open {
    let tracker = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(shared.options.connections_max));
    let mut backoff = BACKOFF.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return Open(tracker),
            accepted = socket.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_peers_fault(&error) => continue,
            Err(error) => {
                shared.meters.accept_errors.increment();
                tracing::warn!(listener = name, %error, wait = ?backoff, "can't accept");
                tokio::select! {
                    () = shared.stop.cancelled() => return Open(tracker),
                    () = sleep(backoff) => {}
                }
                backoff = (backoff * 2).min(BACKOFF.1);
                continue;
            }
        };
        backoff = BACKOFF.0;
        shared.meters.accepted.increment();
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            shared.meters.cut_limit.increment();
            continue;
        };
        let shared = shared.clone();
        let slot = Slot::new(&shared.meters.open, slot);
        tracker.spawn(async move {
            serve_connection(stream, peer, &shared).await;
            drop(slot);
        });
    }
}

/// An open connection's place, given back however its task ends.
struct Slot {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    fn new(open: &Gauge, permit: OwnedSemaphorePermit) -> Self {
        open.add(1);
        Slot {
            open: open.clone(),
            _permit: permit,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.subtract(1);
    }
}

/// Whether the peer went away between its connect and our accept.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// What a connection's watchdog looks at. Times are milliseconds after `started`.
#[derive(Debug)]
struct Activity {
    started: Instant,
    /// In flight.
    requests: AtomicUsize,
    /// When the last request began or ended.
    changed_ms: AtomicU64,
    bytes_read: AtomicU64,
    is_http2: AtomicBool,
    /// When the first bytes came that no request has claimed yet; 0 where there are none.
    head_since_ms: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Activity {
            started: Instant::now(),
            requests: AtomicUsize::new(0),
            changed_ms: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            is_http2: AtomicBool::new(false),
            head_since_ms: AtomicU64::new(0),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn read(&self, bytes: &[u8]) {
        let before = self
            .bytes_read
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        // HTTP/2 begins with "PRI"; no method of HTTP/1 has an I in third place.
        let third = 2_u64
            .checked_sub(before)
            .and_then(|at| usize::try_from(at).ok());
        if third.and_then(|at| bytes.get(at)) == Some(&b'I') {
            self.is_http2.store(true, Ordering::Relaxed);
        }
        let is_unclaimed = self.requests.load(Ordering::Relaxed) == 0;
        if is_unclaimed && self.head_since_ms.load(Ordering::Relaxed) == 0 {
            self.head_since_ms
                .store(self.now_ms().max(1), Ordering::Relaxed);
        }
    }

    /// Why the connection should be closed now, if it should.
    fn quiet(&self, options: &ListenOptions) -> Option<Quiet> {
        if self.requests.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let now_ms = self.now_ms();
        let is_over = |since_ms: u64, timeout: Duration| {
            u128::from(now_ms.saturating_sub(since_ms)) >= timeout.as_millis()
        };
        let bytes_read = self.bytes_read.load(Ordering::Relaxed);
        let is_http2 = self.is_http2.load(Ordering::Relaxed);
        let head_since_ms = self.head_since_ms.load(Ordering::Relaxed);
        let changed_ms = self.changed_ms.load(Ordering::Relaxed);
        let header_timeout = options.header_timeout;
        let is_silent = match (is_http2, head_since_ms) {
            (true, _) => bytes_read < PREFACE_BYTES && is_over(0, header_timeout),
            (false, 0) => bytes_read == 0 && is_over(0, header_timeout),
            (false, since_ms) => is_over(since_ms, header_timeout),
        };
        if is_silent {
            return Some(Quiet::Silent);
        }
        is_over(changed_ms, options.idle_timeout).then_some(Quiet::Idle)
    }
}

/// Why a quiet connection is closed.
enum Quiet {
    /// It never spoke a protocol.
    Silent,
    /// It had nothing to ask for too long.
    Idle,
}

/// Counts a request as in flight for as long as it lives.
struct InFlight(Arc<Activity>);

impl InFlight {
    fn new(activity: Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.head_since_ms.store(0, Ordering::Relaxed);
        activity
            .changed_ms
            .store(activity.now_ms(), Ordering::Relaxed);
        InFlight(activity)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.changed_ms.store(self.0.now_ms(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, shared: &Shared) {
    // Answers are small and wanted at once.
    let _ = stream.set_nodelay(true);
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(Metered {
        stream,
        activity: activity.clone(),
    });
    let service = service_fn(|request: Request<Incoming>| {
        let in_flight = InFlight::new(activity.clone());
        let answer = shared.router.clone().oneshot(request.map(Body::new));
        async move {
            let answer = answer.await;
            drop(in_flight);
            answer
        }
    });
    let mut connection = pin!(shared.builder.serve_connection(io, service));
    let period = shared.options.header_timeout / 4;
    let mut watchdog = tokio::time::interval(period.max(Duration::from_millis(1)));
    watchdog.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closing_since = None;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "connection ended early");
                }
                return;
            }
            () = shared.cut.cancelled() => {
                shared.meters.cut_drain.increment();
                return;
            }
            () = shared.stop.cancelled(), if closing_since.is_none() => {
                closing_since = Some(Instant::now());
                connection.as_mut().graceful_shutdown();
            }
            now = watchdog.tick() => match (activity.quiet(&shared.options), closing_since) {
                (None, _) => {}
                (Some(Quiet::Silent), _) => {
                    shared.meters.cut_silent.increment();
                    return;
                }
                (Some(Quiet::Idle), None) => {
                    shared.meters.cut_idle.increment();
                    closing_since = Some(now);
                    connection.as_mut().graceful_shutdown();
                }
                // It was asked to close and holds out.
                (Some(Quiet::Idle), Some(since)) => {
                    if now.duration_since(since) >= shared.options.header_timeout {
                        return;
                    }
                }
            },
        }
    }
}

/// A socket that tells what was read from it.
struct Metered {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match buf.filled().get(before..) {
            None | Some([]) => {}
            Some(bytes) => self.activity.read(bytes),
        }
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::get;
    use http::Version;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;

    use super::*;
    use crate::server::testing::{Server, http, serve};

    fn quick() -> ListenOptions {
        ListenOptions {
            header_timeout: Duration::from_millis(200),
            idle_timeout: Duration::from_millis(600),
            drain: Duration::from_secs(5),
            ..ListenOptions::default()
        }
    }

    fn hello() -> Router {
        Router::new().route("/", get(|| async { "hello" }))
    }

    /// How long until the server closes `stream`; what it says before is ignored.
    async fn time_to_close(stream: &mut TcpStream) -> Duration {
        let began = Instant::now();
        let mut sink = Vec::new();
        let closed = stream.read_to_end(&mut sink);
        let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
        let _ = closed.expect("closed by the server within ten seconds");
        began.elapsed()
    }

    async fn connect(server: &Server) -> TcpStream {
        TcpStream::connect(server.address).await.unwrap()
    }

    #[tokio::test]
    async fn one_port_speaks_http1_and_http2_and_port_0_is_told() {
        let server = serve(hello(), ListenOptions::default()).await;
        assert_ne!(server.address.port(), 0);
        let answer = http(&server, "GET", "/", &[], b"").await;
        assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()));
        let client = crate::server::testing::http2_client();
        let answer = client.get(server.url("/")).send().await.unwrap();
        assert_eq!(answer.version(), Version::HTTP_2);
        assert_eq!(answer.text().await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_closed() {
        let server = serve(hello(), quick()).await;
        let took = time_to_close(&mut connect(&server).await).await;
        assert!(took >= Duration::from_millis(190), "{took:?}");
        assert_eq!((server.cut("silent"), server.cut("idle")), (1, 0));
    }

    #[tokio::test]
    async fn a_header_that_trickles_is_cut_however_busy_it_looks() {
        let server = serve(hello(), quick()).await;
        let (mut read, mut write) = connect(&server).await.into_split();
        let trickle = tokio::spawn(async move {
            let mut text = "GET / HTTP/1.1\r\nhost: a\r\n".to_owned();
            for i in 0.. {
                if write.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
                text = format!("x-{i}: y\r\n");
                sleep(Duration::from_millis(20)).await;
            }
        });
        let mut sink = Vec::new();
        let read = read.read_to_end(&mut sink);
        let _ = tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .unwrap();
        assert_eq!((server.cut("silent"), server.cut("idle")), (1, 0));
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn a_keep_alive_connection_is_idle_and_not_slow() {
        let options = ListenOptions {
            idle_timeout: Duration::from_secs(2),
            ..quick()
        };
        let server = serve(hello(), options).await;
        let mut stream = connect(&server).await;
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut buf = [0_u8; 4096];
        assert!(stream.read(&mut buf).await.unwrap() > 0);
        // Longer than a header may take, shorter than a connection may idle.
        sleep(Duration::from_millis(500)).await;
        stream.write_all(request).await.unwrap();
        assert!(stream.read(&mut buf).await.unwrap() > 0, "still open");
        time_to_close(&mut stream).await;
        assert_eq!((server.cut("silent"), server.cut("idle")), (0, 1));
    }

    #[tokio::test]
    async fn an_idle_http2_connection_is_closed() {
        let server = serve(hello(), quick()).await;
        let mut stream = connect(&server).await;
        let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(&empty_settings).await.unwrap();
        let took = time_to_close(&mut stream).await;
        assert!(took >= Duration::from_millis(550), "{took:?}");
        assert_eq!((server.cut("silent"), server.cut("idle")), (0, 1));
    }

    #[tokio::test]
    async fn a_connection_over_the_cap_is_closed_at_once_and_a_freed_slot_is_used() {
        let options = ListenOptions {
            connections_max: 1,
            ..ListenOptions::default()
        };
        let server = serve(hello(), options).await;
        let mut first = connect(&server).await;
        first
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        assert!(first.read(&mut [0_u8; 4096]).await.unwrap() > 0);
        time_to_close(&mut connect(&server).await).await;
        assert_eq!((server.cut("limit"), server.cut("silent")), (1, 0));
        drop(first);
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let mut stream = connect(&server).await;
            let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            let mut answer = Vec::new();
            if stream.write_all(request).await.is_ok() {
                let _ = stream.read_to_end(&mut answer).await;
            }
            if answer.ends_with(b"hello") {
                return;
            }
            assert!(Instant::now() < deadline, "the slot was never freed");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// `/` answers when told to; the first value says that a request is being handled.
    fn held() -> (Router, Arc<Notify>, Arc<Notify>) {
        let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (entered, go) = (entered.clone(), go.clone());
            move || async move {
                entered.notify_one();
                go.notified().await;
                "done"
            }
        };
        (Router::new().route("/", get(handler)), entered, go)
    }

    #[tokio::test]
    async fn shutdown_finishes_requests_refuses_peers_and_closes_idle_ones() {
        let (router, entered, go) = held();
        let server = serve(router, quick()).await;
        let mut idle = connect(&server).await;
        let url = server.clone();
        let busy = tokio::spawn(async move { http(&url, "GET", "/", &[], b"").await });
        entered.notified().await;
        server.stop.cancel();
        time_to_close(&mut idle).await;
        assert!(TcpStream::connect(server.address).await.is_err(), "refused");
        go.notify_one();
        assert_eq!(busy.await.unwrap().text(), "done");
        server.ended().await;
    }

    #[tokio::test]
    async fn a_request_that_never_ends_is_cut_when_the_drain_is_over() {
        let (router, entered, _go) = held();
        let options = ListenOptions {
            drain: Duration::from_millis(150),
            ..ListenOptions::default()
        };
        let server = serve(router, options).await;
        let mut stream = connect(&server).await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        entered.notified().await;
        let began = Instant::now();
        server.stop.cancel();
        server.ended().await;
        assert!(
            began.elapsed() >= Duration::from_millis(140),
            "{:?}",
            began.elapsed()
        );
        time_to_close(&mut stream).await;
        assert_eq!(server.cut("drain"), 1);
    }

    #[tokio::test]
    async fn a_handler_that_panics_ends_its_connection_and_gives_its_place_back() {
        let panics = Router::new().route("/", get(|| async { panic_now() }));
        let options = ListenOptions {
            connections_max: 1,
            ..ListenOptions::default()
        };
        let server = serve(panics, options).await;
        for _ in 0..3 {
            let deadline = Instant::now() + Duration::from_secs(5);
            loop {
                let mut stream = connect(&server).await;
                let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
                let _ = stream.write_all(request).await;
                time_to_close(&mut stream).await;
                if server.open() == 0 {
                    break;
                }
                assert!(Instant::now() < deadline, "the place was never given back");
            }
        }
    }

    fn panic_now() -> &'static str {
        panic!("a mistake of ours, on purpose")
    }

    #[tokio::test]
    async fn a_taken_port_says_how_to_mend_it() {
        let server = serve(hello(), ListenOptions::default()).await;
        let options = ListenOptions::default();
        let taken = Listener::bind("api", server.address, options, &Registry::new()).await;
        let error = taken.unwrap_err().to_string();
        assert!(error.contains("listen api on 127.0.0.1:"), "{error}");
        assert!(error.contains("choose port 0"), "{error}");
    }
}
