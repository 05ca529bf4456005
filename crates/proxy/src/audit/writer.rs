//! The audit thread: takes records from a bounded queue in batches, seals, writes, syncs, rotates.
//!
//! The threads that serve requests only push; they never wait for the disk and never serialise.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::chain::{self, Kind};
use super::files::{locked_by_another, open_append, read_tail, rotated_files, rotated_name};
use super::record::Record;
use crate::clock::UnixMs;

/// Records that wait at most; beyond it they are counted as missing, and strict services are refused.
const QUEUE_MAX: usize = 65_536;
/// How long a batch may gather before it is written.
const BATCH_WAIT: Duration = Duration::from_millis(10);

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
    /// The queue is full or the last write failed.
    Failing,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the audit log `{}`", path.display())]
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

/// The handle that request threads push to. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Told after every batch, for those who wait for their records.
    done: Condvar,
    failing: AtomicBool,
    reopen: AtomicBool,
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
    /// Records ever queued, and ever dealt with (written, or counted as missing).
    queued: u64,
    dealt_with: u64,
    missing: u64,
    sleeping: bool,
    stop: bool,
}

impl Audit {
    /// Opens (or goes on with) the log and starts its thread. The file is made with mode 0600.
    pub fn open(settings: AuditSettings) -> Result<Audit, OpenError> {
        let log = Log::open(settings)?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            done: Condvar::new(),
            failing: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            stats: Stats::default(),
            thread: Mutex::new(None),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_until_stopped(&of_thread, log))
            .map_err(OpenError::Thread)?;
        *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(Audit { shared })
    }

    /// Queues one record. Full queue: the record is counted as missing, and the log will say so.
    pub fn push(&self, record: impl Into<Box<Record>>) {
        let record = record.into();
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.records.len() >= QUEUE_MAX {
            queue.missing += 1;
            self.shared.failing.store(true, Ordering::Relaxed);
            self.shared.stats.missing.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.records.push(record);
        queue.queued += 1;
        if std::mem::take(&mut queue.sleeping) {
            self.shared.wake.notify_one();
        }
    }

    pub fn health(&self) -> Health {
        if self.shared.failing.load(Ordering::Relaxed) { Health::Failing } else { Health::Writing }
    }

    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Waits until what was queued before is written or given up, at most `limit`. Returns whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let target = queue.queued;
        let waiting = |queue: &mut Queue| queue.dealt_with < target;
        let waited = self.shared.done.wait_timeout_while(queue, limit, waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// After an external rotation (SIGHUP): the next batch goes to a newly opened file.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// Writes what is queued and ends the thread.
    pub fn stop(&self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.wake.notify_one();
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the audit thread was already counted as failing; there is nothing left to write.
            let _ended = thread.join();
        }
    }
}

fn write_until_stopped(shared: &Shared, mut log: Log) {
    let mut batch = Vec::new();
    let mut missing_unsaid = 0;
    loop {
        let (missing, stop) = take_batch(shared, &mut batch);
        missing_unsaid += missing;
        if shared.reopen.swap(false, Ordering::Relaxed) {
            log.reopen_now = true;
        }
        let outcome = log.write_batch(&batch, missing_unsaid);
        match outcome {
            Ok(()) => {
                shared.stats.written.fetch_add(batch.len() as u64, Ordering::Relaxed);
                missing_unsaid = 0;
                if shared.failing.swap(false, Ordering::Relaxed) {
                    tracing::warn!("the audit log can be written again");
                }
            }
            Err(error) => {
                missing_unsaid += batch.len() as u64;
                shared.stats.missing.fetch_add(batch.len() as u64, Ordering::Relaxed);
                shared.stats.write_errors.fetch_add(1, Ordering::Relaxed);
                if !shared.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, file = %log.settings.file.display(), "the audit log cannot be written: free the disk or mend the file; strict services are refused until then");
                }
                std::thread::sleep(BATCH_WAIT);
            }
        }
        shared.queue.lock().unwrap_or_else(PoisonError::into_inner).dealt_with += batch.len() as u64;
        shared.done.notify_all();
        batch.clear();
        if stop {
            return;
        }
    }
}

/// Waits for records, lets a batch gather, and takes it. While failing it wakes by itself, to try the disk again.
#[expect(clippy::vec_box, reason = "it is swapped with the queue's")]
fn take_batch(shared: &Shared, batch: &mut Vec<Box<Record>>) -> (u64, bool) {
    let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
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
        queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
    }
    std::mem::swap(&mut queue.records, batch);
    (std::mem::take(&mut queue.missing), queue.stop)
}

/// The open file and the end of its chain.
struct Log {
    settings: AuditSettings,
    file: File,
    identity: (u64, u64),
    size: u64,
    process: String,
    seq: u64,
    prev: String,
    /// `seq` and `prev` as of the last line that is in a file: where the chain goes on after a failed write.
    in_file: (u64, String),
    synced: Instant,
    unsynced: bool,
    reopen_now: bool,
    /// Bytes of a line that a failed write left behind, to be cut off before the next one.
    torn: bool,
    buffer: Vec<u8>,
}

/// [`chain::Link`] as it is written.
#[derive(Serialize)]
struct Link<'a> {
    kind: Kind,
    process: &'a str,
    seq: u64,
    prev: &'a str,
}

#[derive(Serialize)]
struct Start<'a> {
    time_ms: u64,
    version: &'a str,
    /// Bytes of a line that the process before was killed in.
    cut_bytes: u64,
}

#[derive(Serialize)]
struct Gap {
    time_ms: u64,
    missing: u64,
}

#[derive(Serialize)]
struct Continue {
    time_ms: u64,
}

impl Log {
    fn open(settings: AuditSettings) -> Result<Log, OpenError> {
        let fail = |source| OpenError::Open { path: settings.file.clone(), source };
        let mut file = open_append(&settings.file).map_err(fail)?;
        if locked_by_another(&file) {
            return Err(OpenError::InUse { path: settings.file.clone() });
        }
        let tail = read_tail(&mut file).map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        let prev = tail.last_hash.unwrap_or_else(|| chain::GENESIS.to_owned());
        let mut log = Log {
            file,
            identity: (meta.dev(), meta.ino()),
            size: meta.len(),
            process: uuid::Uuid::now_v7().simple().to_string(),
            seq: 0,
            in_file: (0, prev.clone()),
            prev,
            synced: Instant::now(),
            unsynced: false,
            reopen_now: false,
            torn: false,
            buffer: Vec::new(),
            settings,
        };
        if tail.cut_bytes > 0 {
            log.buffer.push(b'\n');
        }
        let start = Start { time_ms: UnixMs::now().0, version: env!("CARGO_PKG_VERSION"), cut_bytes: tail.cut_bytes };
        log.append(Kind::Start, &start);
        let path = log.settings.file.clone();
        log.flush(true).map_err(|source| OpenError::Open { path, source })?;
        Ok(log)
    }

    fn write_batch(&mut self, batch: &[Box<Record>], missing: u64) -> std::io::Result<()> {
        self.follow_rotation()?;
        if batch.is_empty() && missing == 0 {
            return self.sync_if_due();
        }
        if missing > 0 {
            self.append(Kind::Gap, &Gap { time_ms: UnixMs::now().0, missing });
        }
        for record in batch {
            self.append(Kind::Decision, record);
        }
        self.flush(false)
    }

    fn append<T: Serialize>(&mut self, kind: Kind, body: &T) {
        let link = Link { kind, process: &self.process, seq: self.seq, prev: &self.prev };
        let from = self.buffer.len();
        // Records hold texts and numbers only: serialising them into memory cannot fail.
        if write_line(&mut self.buffer, &link, body).is_err() {
            self.buffer.truncate(from);
            return;
        }
        self.prev = chain::seal(&mut self.buffer, from);
        self.seq += 1;
        self.buffer.push(b'\n');
    }

    /// Writes the buffer whole or not at all: what a failed write left is cut off again, and the chain goes on from the
    /// last line that is in a file.
    fn flush(&mut self, sync: bool) -> std::io::Result<()> {
        let outcome = self.write_buffer();
        let length = self.buffer.len() as u64;
        self.buffer.clear();
        if self.buffer.capacity() > 1 << 20 {
            self.buffer.shrink_to(1 << 20);
        }
        if let Err(error) = outcome {
            (self.seq, self.prev) = self.in_file.clone();
            return Err(error);
        }
        self.in_file = (self.seq, self.prev.clone());
        self.size += length;
        self.unsynced = true;
        if sync || self.settings.fsync == Fsync::Batch {
            self.file.sync_data()?;
            self.synced = Instant::now();
            self.unsynced = false;
            return Ok(());
        }
        self.sync_if_due()
    }

    fn write_buffer(&mut self) -> std::io::Result<()> {
        if self.torn {
            self.file.set_len(self.size)?;
            self.torn = false;
        }
        let outcome = self.file.write_all(&self.buffer);
        if outcome.is_err() {
            self.torn = self.file.set_len(self.size).is_err();
        }
        outcome
    }

    fn sync_if_due(&mut self) -> std::io::Result<()> {
        if let Fsync::Every(time) = self.settings.fsync
            && self.unsynced
            && self.synced.elapsed() >= time
        {
            self.file.sync_data()?;
            self.synced = Instant::now();
            self.unsynced = false;
        }
        Ok(())
    }

    /// Rotates by size, or follows a rotation that somebody else made (renamed or removed file).
    fn follow_rotation(&mut self) -> std::io::Result<()> {
        let full = self.settings.rotate_bytes > 0 && self.size >= self.settings.rotate_bytes;
        if full {
            self.file.sync_data()?;
            let aside = rotated_name(&self.settings.file, UnixMs::now());
            std::fs::rename(&self.settings.file, aside)?;
            self.remove_oldest();
        }
        let asked = std::mem::take(&mut self.reopen_now);
        if full || asked || self.moved_away() {
            self.reopen()?;
        }
        Ok(())
    }

    fn moved_away(&self) -> bool {
        !std::fs::metadata(&self.settings.file).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity)
    }

    fn reopen(&mut self) -> std::io::Result<()> {
        let file = open_append(&self.settings.file)?;
        let meta = file.metadata()?;
        if (meta.dev(), meta.ino()) == self.identity {
            return Ok(());
        }
        if locked_by_another(&file) {
            return Err(std::io::Error::other("another process writes this file"));
        }
        self.file = file;
        self.identity = (meta.dev(), meta.ino());
        self.size = meta.len();
        self.torn = false;
        self.append(Kind::Continue, &Continue { time_ms: UnixMs::now().0 });
        self.flush(true)
    }

    fn remove_oldest(&self) {
        if self.settings.keep == 0 {
            return;
        }
        let mut files = rotated_files(&self.settings.file);
        files.truncate(files.len().saturating_sub(self.settings.keep));
        for file in files {
            if let Err(error) = std::fs::remove_file(&file) {
                tracing::warn!(%error, file = %file.display(), "cannot remove an old audit file");
            }
        }
    }
}

/// One object of the members of both. Serde's `flatten` would build every record as a map first, at three times the cost.
fn write_line<T: Serialize>(buffer: &mut Vec<u8>, link: &Link<'_>, body: &T) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *buffer, link)?;
    buffer.pop();
    let comma = buffer.len();
    serde_json::to_writer(&mut *buffer, body)?;
    // No body is empty, so its brace becomes the comma between the two.
    if let Some(brace) = buffer.get_mut(comma) {
        *brace = b',';
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::Fault;
    use crate::audit::read;
    use std::fs::OpenOptions;
    use std::path::Path;

    fn settings(folder: &Path) -> AuditSettings {
        AuditSettings { file: folder.join("audit.ndjson"), fsync: Fsync::Never, rotate_bytes: 0, keep: 0 }
    }

    fn record(id: u32) -> Record {
        Record { id: format!("D{id}"), detail: Some("a\r\nb\u{1b}[31m".into()), ..Record::default() }
    }

    #[test]
    fn a10_a_subject_with_control_characters_stays_one_escaped_line() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(settings(folder.path())).unwrap();
        audit.push(record(1));
        audit.stop();
        let text = std::fs::read_to_string(folder.path().join("audit.ndjson")).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}') && !text.contains('\r'));
    }

    #[test]
    fn a_flush_waits_for_what_was_queued_before() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(settings(folder.path())).unwrap();
        assert!(audit.flush(Duration::ZERO), "nothing to wait for");
        audit.push(record(1));
        assert!(audit.flush(Duration::from_secs(10)));
        assert!(read::find(&[folder.path().join("audit.ndjson")], "D1").unwrap().is_some());
        audit.stop();
    }

    #[test]
    fn a_restart_goes_on_with_the_chain() {
        let folder = tempfile::tempdir().unwrap();
        for start in 0..3 {
            let audit = Audit::open(settings(folder.path())).unwrap();
            (0..100).for_each(|i| audit.push(record(start * 100 + i)));
            audit.stop();
        }
        let report = read::verify(&[folder.path().join("audit.ndjson")]).unwrap();
        assert_eq!(report.finding, None);
        assert_eq!((report.decisions, report.processes), (300, 3));
    }

    #[test]
    fn a10_a_line_cut_by_a_kill_is_said_to_be_truncated_after_the_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.ndjson");
        let audit = Audit::open(settings(folder.path())).unwrap();
        (0..3).for_each(|i| audit.push(record(i)));
        audit.stop();
        let size = std::fs::metadata(&file).unwrap().len();
        OpenOptions::new().write(true).open(&file).unwrap().set_len(size - 40).unwrap();
        let cut = read::verify(std::slice::from_ref(&file)).unwrap();
        assert_eq!((cut.finding, cut.truncated_at), (None, vec![4]));
        Audit::open(settings(folder.path())).unwrap().stop();
        let after = read::verify(&[file]).unwrap();
        assert_eq!((after.finding, after.truncated_at, after.processes), (None, vec![4], 2));
    }

    #[test]
    fn a10_rotation_under_load_keeps_one_chain_over_all_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.ndjson");
        let audit = Audit::open(AuditSettings { rotate_bytes: 20_000, ..settings(folder.path()) }).unwrap();
        for i in 0..2_000 {
            audit.push(record(i));
            if i % 100 == 0 {
                std::thread::yield_now();
            }
            while audit.stats().written.load(Ordering::Relaxed) + 300 < u64::from(i) {
                std::thread::yield_now();
            }
        }
        audit.stop();
        let files = read::files_of(&file);
        assert!(files.len() > 2, "{files:?}");
        let report = read::verify(&files).unwrap();
        assert_eq!(report.finding, None);
        assert_eq!(report.decisions, 2_000);
    }

    #[test]
    fn a10_a_file_renamed_by_somebody_else_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.ndjson");
        let audit = Audit::open(settings(folder.path())).unwrap();
        audit.push(record(1));
        while audit.stats().written.load(Ordering::Relaxed) < 1 {
            std::thread::yield_now();
        }
        let aside = folder.path().join("audit.ndjson.1234567890123");
        std::fs::rename(&file, &aside).unwrap();
        audit.push(record(2));
        audit.stop();
        let report = read::verify(&[aside, file]).unwrap();
        assert_eq!((report.finding, report.decisions), (None, 2));
    }

    /// The log is a link, so that the disk behind it can be filled and freed.
    #[test]
    fn a10_a_disk_that_fills_up_during_a_rotation_leaves_a_gap_and_a_whole_chain() {
        let folder = tempfile::tempdir().unwrap();
        let (link, disk) = (folder.path().join("audit.ndjson"), folder.path().join("disk"));
        let point_to = |target: &Path| {
            let new = folder.path().join("new");
            std::os::unix::fs::symlink(target, &new).unwrap();
            std::fs::rename(new, &link).unwrap();
        };
        let wait = |reached: &dyn Fn() -> bool| {
            (0..10_000).any(|_| {
                reached() || {
                    std::thread::sleep(BATCH_WAIT);
                    false
                }
            })
        };
        point_to(&disk);
        let audit = Audit::open(settings(folder.path())).unwrap();
        let stats = audit.stats();
        audit.push(record(1));
        assert!(wait(&|| stats.written.load(Ordering::Relaxed) == 1));
        point_to(Path::new("/dev/full"));
        for missing in 1..=3 {
            audit.push(record(missing));
            assert!(wait(&|| stats.missing.load(Ordering::Relaxed) == u64::from(missing)));
        }
        assert_eq!(audit.health(), Health::Failing);
        point_to(&disk);
        assert!(wait(&|| audit.health() == Health::Writing));
        audit.push(record(4));
        audit.stop();
        let report = read::verify(std::slice::from_ref(&disk)).unwrap();
        assert_eq!((report.finding, report.decisions), (None, 2));
        assert!(std::fs::read_to_string(disk).unwrap().contains("\"missing\":3"));
    }

    #[test]
    fn a10_a_second_writer_is_refused_and_breaks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.ndjson");
        let audit = Audit::open(settings(folder.path())).unwrap();
        audit.push(record(1));
        assert!(matches!(Audit::open(settings(folder.path())), Err(OpenError::InUse { .. })));
        audit.push(record(2));
        audit.stop();
        let report = read::verify(&[file]).unwrap();
        assert_eq!((report.finding, report.decisions, report.processes), (None, 2, 1));
        Audit::open(settings(folder.path())).unwrap().stop();
    }

    #[test]
    fn a_file_missing_from_the_middle_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.ndjson");
        for start in 0..3 {
            let audit = Audit::open(settings(folder.path())).unwrap();
            audit.push(record(start));
            audit.stop();
            if start < 2 {
                std::fs::copy(&file, folder.path().join(format!("copy{start}"))).unwrap();
            }
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let without: Vec<&str> = text.lines().enumerate().filter(|(i, _)| *i != 3).map(|(_, l)| l).collect();
        std::fs::write(&file, without.join("\n") + "\n").unwrap();
        assert_eq!(read::verify(&[file]).unwrap().finding.unwrap().fault, Fault::Unlinked);
    }
}
