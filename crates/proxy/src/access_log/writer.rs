//! The access log's queue of finished lines, and the thread that writes them.
//!
//! Who brings records never waits for the disk: a queue that is full loses the line and counts it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Settings, line};
use crate::audit::{Record, Sink};

/// Bytes of lines that wait at most.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What an empty queue keeps of its room.
const KEPT_ROOM: usize = 256 * 1024;
/// How long the end of the process waits for the last lines.
const STOP: Duration = Duration::from_secs(2);
/// A file that was moved away is noticed within this time, also when nothing is written.
const LOOK: Duration = Duration::from_secs(1);
/// Readable for the group, as those who ship logs need it. The process' umask may take that away.
const MODE: u32 = 0o640;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the access log `{}`: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("cannot start the thread of the access log: {0}")]
    Thread(std::io::Error),
}

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct Stats {
    pub written: AtomicU64,
    pub missing: AtomicU64,
}

/// A handle to the open log. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog(Arc<Shared>);

struct Shared {
    settings: Settings,
    waiting_bytes_max: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
    done: Condvar,
    stats: Stats,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    lines: Vec<u8>,
    reopen: bool,
    stop: bool,
    ended: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessLog {
    /// Opens the file for appending (mode 0640 if it is new) and starts its thread.
    pub fn open(settings: Settings) -> Result<AccessLog, OpenError> {
        AccessLog::open_with(settings, WAITING_BYTES_MAX)
    }

    pub(super) fn open_with(settings: Settings, waiting_bytes_max: usize) -> Result<AccessLog, OpenError> {
        let log =
            Log::open(&settings.file).map_err(|source| OpenError::Open { path: settings.file.clone(), source })?;
        let shared = Arc::new(Shared {
            settings,
            waiting_bytes_max,
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            done: Condvar::new(),
            stats: Stats::default(),
            thread: Mutex::new(None),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_until_stopped(&of_thread, log))
            .map_err(OpenError::Thread)?;
        *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(AccessLog(shared))
    }

    /// Where finished records go.
    pub fn sink(&self) -> Box<dyn Sink> {
        Box::new(self.clone())
    }

    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// After an external rotation: the file's name is opened anew.
    pub fn reopen(&self) {
        self.0.queue().reopen = true;
        self.0.wake.notify_one();
    }

    /// Writes what waits and ends the thread. A disk that hangs is waited for 2 s.
    pub fn stop(&self) {
        let mut queue = self.0.queue();
        queue.stop = true;
        self.0.wake.notify_one();
        let waited = self.0.done.wait_timeout_while(queue, STOP, |queue| !queue.ended);
        let (queue, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(queue);
        if outcome.timed_out() {
            tracing::error!("the disk of the access log does not answer: what waits for it is given up");
            return;
        }
        if let Some(thread) = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // If it panicked, there is nothing left to write.
            let _ended = thread.join();
        }
    }
}

impl Sink for AccessLog {
    fn take(&mut self, records: &[Box<Record>]) {
        let shared = &self.0;
        let mut missing = 0;
        let mut queue = shared.queue();
        let was_empty = queue.lines.is_empty();
        for record in records {
            let before = queue.lines.len();
            line::write(&mut queue.lines, record, &shared.settings);
            if queue.lines.len() > shared.waiting_bytes_max {
                queue.lines.truncate(before);
                missing += 1;
            }
        }
        let is_new = was_empty && !queue.lines.is_empty();
        drop(queue);
        if missing > 0 {
            shared.stats.missing.fetch_add(missing, Ordering::Relaxed);
        }
        if is_new {
            shared.wake.notify_one();
        }
    }
}

/// Says that the thread ended, however it does.
struct AtEnd<'a>(&'a Shared);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.queue().ended = true;
        self.0.done.notify_all();
    }
}

fn write_until_stopped(shared: &Shared, mut log: Log) {
    let _at_end = AtEnd(shared);
    let mut lines = Vec::new();
    loop {
        let (reopen, stop) = take_lines(shared, &mut lines);
        log.follow_rotation(&shared.settings.file, reopen);
        let (written, missing) = log.write(&lines, &shared.settings.file);
        shared.stats.written.fetch_add(written, Ordering::Relaxed);
        shared.stats.missing.fetch_add(missing, Ordering::Relaxed);
        lines.clear();
        lines.shrink_to(KEPT_ROOM);
        if stop {
            return;
        }
    }
}

fn take_lines(shared: &Shared, lines: &mut Vec<u8>) -> (bool, bool) {
    let mut queue = shared.queue();
    if queue.lines.is_empty() && !queue.stop && !queue.reopen {
        queue = shared.wake.wait_timeout(queue, LOOK).unwrap_or_else(PoisonError::into_inner).0;
    }
    std::mem::swap(&mut queue.lines, lines);
    (std::mem::take(&mut queue.reopen), queue.stop)
}

/// The open file.
struct Log {
    file: File,
    identity: (u64, u64),
    /// It can be renamed under us. A terminal or pipe cannot.
    regular: bool,
    /// A failed write left the beginning of a line behind.
    torn: bool,
    failing: bool,
    /// Its name is another file's by now, and that could not be opened.
    left_behind: bool,
}

impl Log {
    fn open(path: &Path) -> std::io::Result<Log> {
        if let Some(stream) = standard(path) {
            return stream.map(|file| Log::of(file, (0, 0), false));
        }
        // Opening a named pipe waits for its reader, for ever if none comes.
        if std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
            return Err(std::io::Error::other("it is a named pipe; name a file, `/dev/stdout` or `/dev/stderr`"));
        }
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
        let found = file.metadata()?;
        Ok(Log::of(file, (found.dev(), found.ino()), found.is_file()))
    }

    fn of(file: File, identity: (u64, u64), regular: bool) -> Log {
        Log { file, identity, regular, torn: false, failing: false, left_behind: false }
    }

    /// Opens the name anew when it is another file by now, or when told to. If that fails the old file goes on.
    fn follow_rotation(&mut self, path: &Path, told: bool) {
        if !self.regular || !(told || self.is_moved_away(path)) {
            return;
        }
        match Log::open(path) {
            Ok(log) => *self = Log { failing: self.failing, ..log },
            Err(error) if !std::mem::replace(&mut self.left_behind, true) => {
                tracing::error!(%error, file = %path.display(), "the access log cannot be opened anew and goes on in the old file");
            }
            Err(_) => {}
        }
    }

    fn is_moved_away(&self, path: &Path) -> bool {
        match std::fs::metadata(path) {
            Ok(found) => (found.dev(), found.ino()) != self.identity,
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    /// How many lines were written, and how many are lost.
    fn write(&mut self, lines: &[u8], path: &Path) -> (u64, u64) {
        if lines.is_empty() {
            return (0, 0);
        }
        let all = count(lines);
        let mut written = 0;
        let wrote = self.append(lines, &mut written);
        if wrote.is_ok() && std::mem::take(&mut self.failing) {
            tracing::warn!("the access log can be written again");
        }
        let Err(error) = wrote else { return (all, 0) };
        let whole = lines.get(..written).and_then(|part| part.iter().rposition(|byte| *byte == b'\n'));
        let whole = whole.map_or(0, |end| end + 1);
        self.torn |= whole < written;
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, file = %path.display(), "the access log cannot be written: free the disk or mend the file; lines are lost until then");
        }
        let kept = lines.get(..whole).map_or(0, count);
        (kept, all - kept)
    }

    fn append(&mut self, mut rest: &[u8], written: &mut usize) -> std::io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    *written += bytes;
                    rest = rest.get(bytes..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Our own stream by its usual name. It may be a socket (under systemd), which has no name that could be opened.
fn standard(path: &Path) -> Option<std::io::Result<File>> {
    let stream = match path.to_str()? {
        "/dev/stdout" => std::io::stdout().as_fd().try_clone_to_owned(),
        "/dev/stderr" => std::io::stderr().as_fd().try_clone_to_owned(),
        _ => return None,
    };
    Some(stream.map(File::from))
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}
