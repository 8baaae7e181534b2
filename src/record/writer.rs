//! The writer thread: group commit with a savepoint for each piece of work.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::WriteError;

/// Pieces of work of async callers that wait for the writer; beyond that, they wait to queue.
const QUEUE: usize = 1024;

/// Pieces of work that share one transaction at most, so that the first does not wait long.
const GROUP: usize = 128;

/// The writing end: hands work to the thread that owns the connection.
pub(super) struct Writer {
    /// `None` only while being dropped.
    queue: Option<mpsc::UnboundedSender<Box<dyn Job>>>,
    /// Bounds what async callers put in the queue; a blocking caller is its own bound.
    room: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

/// One piece of work with its caller.
trait Job: Send {
    /// Does the work within the current savepoint.
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    /// Tells the caller, after the commit or after the failure.
    fn finish(self: Box<Self>, outcome: Result<(), WriteError>);
}

struct Task<T, R, W, N> {
    work: Option<W>,
    done: Option<T>,
    then: N,
    caller: Caller<R>,
    /// A place in the queue, given back when the work is finished.
    _place: Option<OwnedSemaphorePermit>,
}

type Caller<R> = Box<dyn FnOnce(Result<R, WriteError>) + Send>;

impl<T, R, W, N> Job for Task<T, R, W, N>
where
    T: Send,
    R: Send,
    W: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    N: FnOnce(T) -> R + Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.done = Some(work(connection)?);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), WriteError>) {
        let Task {
            done, then, caller, ..
        } = *self;
        let answer = match (outcome, done) {
            (Ok(()), Some(done)) => Ok(then(done)),
            (Ok(()), None) => Err(WriteError::Stopped),
            (Err(error), _) => Err(error),
        };
        caller(answer);
    }
}

impl Writer {
    /// Starts the thread on `connection`.
    pub(super) fn start(connection: Connection) -> std::io::Result<Writer> {
        let (queue, work) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || serve(connection, work))?;
        Ok(Writer {
            queue: Some(queue),
            room: Arc::new(Semaphore::new(QUEUE)),
            thread: Some(thread),
        })
    }

    pub(super) async fn submit<T, R, W, N>(&self, work: W, then: N) -> Result<R, WriteError>
    where
        T: Send + 'static,
        R: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        N: FnOnce(T) -> R + Send + 'static,
    {
        let place = Arc::clone(&self.room).acquire_owned().await;
        let (tell, answer) = oneshot::channel();
        // A caller that has gone away has no use for the answer.
        let caller = Box::new(move |outcome| drop(tell.send(outcome)));
        self.enqueue(work, then, caller, place.ok())?;
        answer.await.map_err(|_| WriteError::Stopped)?
    }

    pub(super) fn submit_blocking<T, R, W, N>(&self, work: W, then: N) -> Result<R, WriteError>
    where
        T: Send + 'static,
        R: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        N: FnOnce(T) -> R + Send + 'static,
    {
        let (tell, answer) = std::sync::mpsc::sync_channel(1);
        let caller = Box::new(move |outcome| drop(tell.send(outcome)));
        self.enqueue(work, then, caller, None)?;
        answer.recv().map_err(|_| WriteError::Stopped)?
    }

    fn enqueue<T, R, W, N>(
        &self,
        work: W,
        then: N,
        caller: Caller<R>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<(), WriteError>
    where
        T: Send + 'static,
        R: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        N: FnOnce(T) -> R + Send + 'static,
    {
        let task = Task {
            work: Some(work),
            done: None,
            then,
            caller,
            _place: place,
        };
        let queue = self.queue.as_ref().ok_or(WriteError::Stopped)?;
        queue.send(Box::new(task)).map_err(|_| WriteError::Stopped)
    }
}

impl Drop for Writer {
    /// Lets the queue run dry, then waits for the thread so that the file is closed.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            // The last owner may be work on the writer thread itself, which can't await itself.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

fn serve(mut connection: Connection, mut work: mpsc::UnboundedReceiver<Box<dyn Job>>) {
    while let Some(first) = work.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = work.try_recv()
        {
            group.push(next);
        }
        commit(&mut connection, group);
    }
}

/// Runs a group in one transaction and answers every caller.
fn commit(connection: &mut Connection, mut group: Vec<Box<dyn Job>>) {
    let outcomes = match run_group(connection, &mut group) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            let error = WriteError::Sqlite(Arc::new(error));
            group.iter().map(|_| Err(error.clone())).collect()
        }
    };
    for (job, outcome) in group.into_iter().zip(outcomes) {
        job.finish(outcome);
    }
}

/// The outcome of each job after a commit; an error when the whole transaction is lost.
fn run_group(
    connection: &mut Connection,
    group: &mut [Box<dyn Job>],
) -> rusqlite::Result<Vec<Result<(), WriteError>>> {
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut outcomes = Vec::with_capacity(group.len());
    for job in group {
        let savepoint = transaction.savepoint()?;
        match job.run(&savepoint) {
            Ok(()) => {
                savepoint.commit()?;
                outcomes.push(Ok(()));
            }
            // On a full disk and the like SQLite drops the whole transaction by itself.
            Err(error) if savepoint.is_autocommit() => return Err(error),
            Err(error) => {
                savepoint.finish()?;
                outcomes.push(Err(WriteError::Sqlite(Arc::new(error))));
            }
        }
    }
    transaction.commit()?;
    Ok(outcomes)
}
