//! The audit queue and its thread: takes records from a bounded queue in batches and has the log write them.
//!
//! The threads that serve requests only push; they never wait for the disk and never serialise.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::disk::{Disk, SystemDisk};
use super::log::{Log, Wrote};
use super::record::Record;

/// How long a batch may gather before it is written.
const BATCH_WAIT: Duration = Duration::from_millis(10);
/// Room for records that a usual batch keeps; what a flood needed is given back.
const BATCH_ROOM: usize = 4096;

/// Bounds of the queue and of waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Records, and their bytes, that wait or are being written at most; beyond it they are counted as missing, and
    /// strict services are refused.
    pub records: usize,
    pub bytes: usize,
    /// A batch that takes longer is a disk that hangs.
    pub hangs_after: Duration,
    /// How long the end of the process waits for the last batch.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (hangs_after, stop) = (Duration::from_secs(5), Duration::from_secs(10));
        Limits { records: 65_536, bytes: 64 * 1024 * 1024, hangs_after, stop }
    }
}

/// When written lines are forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// After every batch (at most 10 ms of records are at risk).
    Batch,
    /// At most once in this time.
    Every(Duration),
    /// Left to the operating system.
    Never,
}

#[derive(Debug, Clone)]
pub struct AuditSettings {
    pub file: PathBuf,
    pub fsync: Fsync,
    /// A file that reaches this size is renamed to `NAME.<unix ms>` and a new one goes on; 0 = never.
    pub rotate_bytes: u64,
    /// How many renamed files are kept; 0 = all.
    pub keep: usize,
}

/// Whether the log can be written now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Writing,
    /// The queue is full, the last write or sync failed, or the disk hangs.
    Failing,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the audit log `{}`: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("another process writes the audit log `{}`: stop it, or name another file", path.display())]
    InUse { path: PathBuf },
    #[error("cannot start the audit thread: {0}")]
    Thread(std::io::Error),
}

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    pub written: AtomicU64,
    pub missing: AtomicU64,
    pub write_errors: AtomicU64,
}

/// Who else gets the records, after they were written or could not be: on the audit thread, which waits for it.
pub trait Sink: Send {
    fn take(&mut self, records: &[Box<Record>]);
}

/// The handle that request threads push to. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Told after every batch and at the thread's end, for those who wait for their records.
    done: Condvar,
    failing: AtomicBool,
    limits: Limits,
    opened: Instant,
    /// Milliseconds from `opened` to when the batch under way was begun, at least 1; 0: none is.
    batch_since: AtomicU64,
    hangs_said: AtomicBool,
    stats: Stats,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    #[expect(
        clippy::vec_box,
        reason = "a record is 800 bytes: in its box it is never moved again, and a full queue stays small"
    )]
    records: Vec<Box<Record>>,
    /// Records being written, and the bytes of those and of the waiting ones.
    in_hand: usize,
    bytes_in_hand: usize,
    bytes_waiting: usize,
    /// Records ever queued, and ever dealt with (written, or counted as missing).
    queued: u64,
    dealt_with: u64,
    missing: u64,
    sleeping: bool,
    stop: bool,
    ended: bool,
}

impl Queue {
    fn has_room(&self, bytes: usize, limits: &Limits) -> bool {
        self.records.len() + self.in_hand < limits.records
            && self.bytes_waiting + self.bytes_in_hand + bytes <= limits.bytes
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hangs(&self) -> bool {
        let since = self.batch_since.load(Ordering::Relaxed);
        since > 0 && self.opened.elapsed() >= Duration::from_millis(since) + self.limits.hangs_after
    }
}

impl Audit {
    /// Opens (or goes on with) the log and starts its thread. The file is made with mode 0600. A file that can be opened
    /// and not written (a full disk) is no error: the log begins as failing, and is tried again.
    pub fn open(settings: AuditSettings) -> Result<Audit, OpenError> {
        Audit::open_for(settings, Vec::new())
    }

    /// As [`Audit::open`], and hands every record on.
    pub fn open_for(settings: AuditSettings, sinks: Vec<Box<dyn Sink>>) -> Result<Audit, OpenError> {
        Audit::open_on(settings, Box::new(SystemDisk), Limits::default(), sinks)
    }

    pub(super) fn open_on(
        settings: AuditSettings,
        disk: Box<dyn Disk>,
        limits: Limits,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Result<Audit, OpenError> {
        let file = settings.file.clone();
        let mut log = Log::open(settings, disk)?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            done: Condvar::new(),
            failing: AtomicBool::new(false),
            limits,
            opened: Instant::now(),
            batch_since: AtomicU64::new(0),
            hangs_said: AtomicBool::new(false),
            stats: Stats::default(),
            thread: Mutex::new(None),
        });
        let begun = log.write(&[], 0);
        account(&shared, &file, &begun, 0);
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_until_stopped(&of_thread, log, &file, sinks))
            .map_err(OpenError::Thread)?;
        *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(Audit { shared })
    }

    /// Queues one record. Full queue: the record is counted as missing, and the log will say so.
    pub fn push(&self, record: impl Into<Box<Record>>) {
        let record = record.into();
        let bytes = record.memory();
        let mut queue = self.shared.queue();
        if !queue.has_room(bytes, &self.shared.limits) {
            queue.missing += 1;
            drop(queue);
            self.shared.stats.missing.fetch_add(1, Ordering::Relaxed);
            if !self.shared.failing.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    "the audit queue is full: the disk is too slow; strict services are refused until it has room"
                );
            }
            return;
        }
        queue.records.push(record);
        queue.bytes_waiting += bytes;
        queue.queued += 1;
        if std::mem::take(&mut queue.sleeping) {
            self.shared.wake.notify_one();
        }
    }

    pub fn health(&self) -> Health {
        if self.shared.failing.load(Ordering::Relaxed) {
            return Health::Failing;
        }
        if !self.shared.hangs() {
            return Health::Writing;
        }
        if !self.shared.hangs_said.swap(true, Ordering::Relaxed) {
            tracing::error!("the disk of the audit log hangs: strict services are refused until it answers");
        }
        Health::Failing
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Waits until what was queued before is written or given up, at most `limit`. Returns whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let queue = self.shared.queue();
        let target = queue.queued;
        let waiting = |queue: &mut Queue| queue.dealt_with < target;
        let waited = self.shared.done.wait_timeout_while(queue, limit, waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// After an external rotation (SIGHUP): looks at once whether the file is still the same, not only with the next batch.
    pub fn reopen(&self) {
        self.shared.wake.notify_one();
    }

    /// Writes what is queued and ends the thread. A disk that hangs is waited for 10 s at most.
    pub fn stop(&self) {
        let mut queue = self.shared.queue();
        queue.stop = true;
        self.shared.wake.notify_one();
        let waited = self.shared.done.wait_timeout_while(queue, self.shared.limits.stop, |queue| !queue.ended);
        let (queue, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        let lost = queue.queued - queue.dealt_with;
        drop(queue);
        if outcome.timed_out() {
            tracing::error!(lost, "the disk of the audit log does not answer: what waits for it is given up");
            return;
        }
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the audit thread was already counted as failing; there is nothing left to write.
            let _ended = thread.join();
        }
    }
}

/// Says that the thread ended, however it does.
struct AtEnd<'a>(&'a Shared);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failing.store(true, Ordering::Relaxed);
        }
        self.0.queue().ended = true;
        self.0.done.notify_all();
    }
}

fn write_until_stopped(shared: &Shared, mut log: Log, file: &Path, mut sinks: Vec<Box<dyn Sink>>) {
    let _at_end = AtEnd(shared);
    let mut batch = Vec::new();
    loop {
        let (missing, stop) = take_batch(shared, &mut batch);
        let now = u64::try_from(shared.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.batch_since.store(now.max(1), Ordering::Relaxed);
        let wrote = log.write(&batch, missing);
        shared.batch_since.store(0, Ordering::Relaxed);
        if shared.hangs_said.swap(false, Ordering::Relaxed) {
            tracing::warn!("the disk of the audit log answers again");
        }
        account(shared, file, &wrote, batch.len() as u64);
        if !batch.is_empty() {
            sinks.iter_mut().for_each(|sink| sink.take(&batch));
        }
        dealt_with(shared, &mut batch);
        if stop {
            return;
        }
        if wrote.error.is_some() {
            std::thread::sleep(BATCH_WAIT);
        }
    }
}

/// Counts what became of a batch, and says when the log fails and when it works again.
fn account(shared: &Shared, file: &Path, wrote: &Wrote, records: u64) {
    shared.stats.written.fetch_add(wrote.records, Ordering::Relaxed);
    shared.stats.missing.fetch_add(records.saturating_sub(wrote.records), Ordering::Relaxed);
    let failed_before = shared.failing.swap(wrote.error.is_some(), Ordering::Relaxed);
    match &wrote.error {
        Some(error) => {
            shared.stats.write_errors.fetch_add(1, Ordering::Relaxed);
            if !failed_before {
                tracing::error!(%error, file = %file.display(), "the audit log cannot be written: free the disk or mend the file; strict services are refused until then");
            }
        }
        None if failed_before => tracing::warn!("the audit log can be written again"),
        None => {}
    }
}

#[expect(clippy::vec_box, reason = "it is swapped with the queue's")]
fn dealt_with(shared: &Shared, batch: &mut Vec<Box<Record>>) {
    let count = batch.len();
    batch.clear();
    batch.shrink_to(BATCH_ROOM);
    let mut queue = shared.queue();
    queue.dealt_with += count as u64;
    (queue.in_hand, queue.bytes_in_hand) = (0, 0);
    drop(queue);
    shared.done.notify_all();
}

/// Waits for records, lets a batch gather, and takes it. While failing it wakes by itself, to try the disk again.
#[expect(clippy::vec_box, reason = "it is swapped with the queue's")]
fn take_batch(shared: &Shared, batch: &mut Vec<Box<Record>>) -> (u64, bool) {
    let mut queue = shared.queue();
    let failing = shared.failing.load(Ordering::Relaxed);
    if queue.records.is_empty() && !queue.stop {
        queue.sleeping = true;
        let limit = if failing { Duration::from_millis(200) } else { Duration::from_secs(1) };
        queue = shared.wake.wait_timeout(queue, limit).unwrap_or_else(PoisonError::into_inner).0;
        queue.sleeping = false;
    }
    if !queue.records.is_empty() && !queue.stop {
        drop(queue);
        std::thread::sleep(BATCH_WAIT);
        queue = shared.queue();
    }
    std::mem::swap(&mut queue.records, batch);
    queue.in_hand = batch.len();
    queue.bytes_in_hand = std::mem::take(&mut queue.bytes_waiting);
    (std::mem::take(&mut queue.missing), queue.stop)
}
