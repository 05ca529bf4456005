//! The audit log's file: lines are chained and appended whole, forced to the disk, and carried on over rotations.
//!
//! Whatever step fails, the chain's end held here stays the one that is in the file; nothing is kept for a later try
//! but the count of what is missing. Never waits and never tries again by itself.

use std::fs::File;
use std::io::{ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::chain::{self, Kind};
use super::disk::{Disk, locked_by_another};
use super::record::Record;
use super::tail::{Tail, joined, rotated_files, rotated_name, tail_of_rotated};
use super::writer::{AuditSettings, Fsync, OpenError};
use crate::clock::UnixMs;

/// Records that are serialised and written at once: what bounds the buffer.
const CHUNK_RECORDS: usize = 1024;
/// How long a rotation that failed is left alone; meanwhile the file grows on.
const ROTATION_PAUSE: Duration = Duration::from_secs(1);

/// The open file and the end of its chain.
pub(super) struct Log {
    settings: AuditSettings,
    disk: Box<dyn Disk>,
    file: File,
    identity: (u64, u64),
    /// Bytes of the file that stand: a failed write is cut off here.
    size: u64,
    process: String,
    end: End,
    before: Before,
    /// The line that must come first: `start` of a process, `continue` of a file.
    first: Option<Kind>,
    /// Records that are missing and not yet said to be.
    owed: u64,
    /// Empty while nothing is under way; kept after a failed write until what it left is known.
    staged: Staged,
    /// A failed write may have left bytes behind.
    torn: bool,
    synced: Instant,
    unsynced: bool,
    /// A first line was written, or a sync failed: the next one does not wait for its time.
    sync_now: bool,
    rotation: Rotation,
}

/// The end of the chain: the next line's number, and the hash it goes on from.
#[derive(Clone)]
struct End {
    seq: u64,
    prev: String,
}

/// What must come before the next line, or be said by it.
#[derive(Default)]
struct Before {
    newline: bool,
    /// Bytes of unfinished lines at the end of this file, and of the files before it.
    cut_here: Option<u64>,
    cut_earlier: Option<u64>,
}

impl Before {
    fn cut(&self) -> Option<u64> {
        joined(self.cut_earlier, self.cut_here)
    }
}

/// Lines that are about to be written.
struct Staged {
    bytes: Vec<u8>,
    end: End,
    first: bool,
    /// Records said to be missing, if a gap line is among them.
    gap: Option<u64>,
}

#[derive(Default)]
struct Rotation {
    /// The open file is one that we renamed, and no new one could be opened yet.
    aside: bool,
    failed_at: Option<Instant>,
}

/// What became of records.
pub(super) struct Wrote {
    pub records: u64,
    pub error: Option<std::io::Error>,
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
    /// Bytes of unfinished lines that the process before was killed in.
    cut_bytes: u64,
}

#[derive(Serialize)]
struct Gap {
    time_ms: u64,
    missing: u64,
    /// Bytes of unfinished lines before this one that could not be cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Continue {
    time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_bytes: Option<u64>,
}

impl Log {
    /// Opens the file and finds the end of its chain. Writes nothing yet: `start` comes with the first write.
    pub(super) fn open(settings: AuditSettings, disk: Box<dyn Disk>) -> std::result::Result<Log, OpenError> {
        let fail = |source| OpenError::Open { path: settings.file.clone(), source };
        let file = disk.open(&settings.file).map_err(fail)?;
        if locked_by_another(&file) {
            return Err(OpenError::InUse { path: settings.file.clone() });
        }
        let tail = Tail::of(&file).map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        let (last, cut_earlier) = match tail.last {
            Some(last) => (Some(last), None),
            None => tail_of_rotated(&settings.file).map_err(|path| OpenError::InUse { path })?,
        };
        let end = End { seq: 0, prev: last.map_or_else(|| chain::GENESIS.to_owned(), |last| last.hash) };
        Ok(Log {
            file,
            disk,
            identity: (meta.dev(), meta.ino()),
            size: meta.len(),
            process: uuid::Uuid::now_v7().simple().to_string(),
            staged: Staged { bytes: Vec::new(), end: end.clone(), first: false, gap: None },
            end,
            before: Before { newline: tail.unended, cut_here: tail.cut, cut_earlier },
            first: Some(Kind::Start),
            owed: 0,
            torn: false,
            synced: Instant::now(),
            unsynced: false,
            sync_now: false,
            rotation: Rotation::default(),
            settings,
        })
    }

    /// Appends the records, after a gap line for those that are missing. Without any it mends, rotates and syncs as due.
    /// Records that are not written count as missing from then on. An error with all records written is a failed sync.
    pub(super) fn write(&mut self, records: &[Box<Record>], missing: u64) -> Wrote {
        self.owed += missing;
        let mut wrote = Wrote { records: 0, error: None };
        let mut rest = records;
        loop {
            let (chunk, after) = rest.split_at(rest.len().min(CHUNK_RECORDS));
            if let Err(error) = self.write_chunk(chunk, &mut wrote.records) {
                self.owed += after.len() as u64;
                return Wrote { error: Some(error), ..wrote };
            }
            if after.is_empty() {
                return Wrote { error: self.sync_if_due().err(), ..wrote };
            }
            rest = after;
        }
    }

    fn write_chunk(&mut self, records: &[Box<Record>], written: &mut u64) -> Result<()> {
        self.owed += records.len() as u64;
        self.mend()?;
        self.follow_rotation()?;
        self.owed -= records.len() as u64;
        self.stage(records);
        if self.staged.bytes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.disk.write(&self.file, &self.staged.bytes) {
            self.owed += records.len() as u64;
            self.torn = true;
            // What cannot be mended now is tried again before the next write.
            *written += self.mend().unwrap_or(0);
            return Err(error);
        }
        *written += records.len() as u64;
        self.size += self.staged.bytes.len() as u64;
        self.end = self.staged.end.clone();
        self.said(self.staged.first, self.staged.gap);
        self.before = Before::default();
        Ok(())
    }

    /// Serialises what is due in front of the records, and the records.
    fn stage(&mut self, records: &[Box<Record>]) {
        self.staged.bytes.clear();
        self.staged.bytes.shrink_to(1 << 20);
        self.staged.end = self.end.clone();
        self.staged.first = self.first.is_some();
        self.staged.gap = None;
        let (time_ms, mut cut_bytes) = (UnixMs::now().0, self.before.cut());
        let gap = self.owed > 0 || (self.first.is_none() && cut_bytes.is_some());
        if self.first.is_none() && !gap && records.is_empty() {
            return;
        }
        if self.before.newline {
            self.staged.bytes.push(b'\n');
        }
        match self.first {
            Some(Kind::Start) => {
                let cut_bytes = cut_bytes.take().unwrap_or(0);
                self.append(Kind::Start, &Start { time_ms, version: env!("CARGO_PKG_VERSION"), cut_bytes });
            }
            Some(kind) => self.append(kind, &Continue { time_ms, cut_bytes: cut_bytes.take() }),
            None => {}
        }
        if gap {
            self.append(Kind::Gap, &Gap { time_ms, missing: self.owed, cut_bytes });
            self.staged.gap = Some(self.owed);
        }
        for record in records {
            self.append(if record.is_end { Kind::End } else { Kind::Decision }, record);
        }
    }

    fn append<T: Serialize>(&mut self, kind: Kind, body: &T) {
        let Staged { bytes, end, .. } = &mut self.staged;
        let link = Link { kind, process: &self.process, seq: end.seq, prev: &end.prev };
        let from = bytes.len();
        // Records hold texts and numbers only: serialising them into memory cannot fail.
        if write_line(bytes, &link, body).is_err() {
            bytes.truncate(from);
            return;
        }
        end.prev = chain::seal(bytes, from);
        end.seq += 1;
        bytes.push(b'\n');
    }

    /// A first line or a gap line stands in the file.
    fn said(&mut self, first: bool, gap: Option<u64>) {
        self.unsynced = true;
        self.sync_now |= first;
        self.owed = self.owed.saturating_sub(gap.unwrap_or(0));
        if first {
            self.first = None;
        }
    }

    /// After a failed write: cuts off what it left. Where that is forbidden (an append-only file) what stands there is
    /// taken as it is: whole lines are written, and the next line names the unfinished one. Returns the records written.
    fn mend(&mut self) -> Result<u64> {
        if !self.torn {
            return Ok(0);
        }
        if self.disk.cut(&self.file, self.size).is_ok() {
            self.torn = false;
            return Ok(0);
        }
        let tail = Tail::of(&self.file)?;
        self.size = self.file.metadata()?.len();
        self.torn = false;
        self.before.newline = tail.unended;
        self.before.cut_here = tail.cut;
        let Some(last) = tail.last else { return Ok(0) };
        self.before.cut_earlier = None;
        let lines = (last.link.seq + 1).saturating_sub(self.end.seq);
        if last.link.process != self.process || lines == 0 {
            return Ok(0);
        }
        self.end = End { seq: last.link.seq + 1, prev: last.hash };
        let first = u64::from(self.staged.first);
        let gap = self.staged.gap.filter(|_| lines > first);
        let records = lines - first - u64::from(gap.is_some());
        self.said(self.staged.first, gap);
        self.owed = self.owed.saturating_sub(records);
        Ok(records)
    }

    /// A sync that failed leaves the lines where they are: written, and not yet safe from a power failure.
    fn sync_if_due(&mut self) -> Result<()> {
        let due = match self.settings.fsync {
            Fsync::Batch => true,
            Fsync::Every(time) => self.synced.elapsed() >= time,
            Fsync::Never => false,
        };
        if self.unsynced && (due || self.sync_now) { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<()> {
        self.sync_now = true;
        self.disk.sync(&self.file)?;
        self.sync_now = false;
        self.unsynced = false;
        self.synced = Instant::now();
        Ok(())
    }

    /// Rotates by size, or follows a rotation that somebody else made (renamed or removed file). A rotation of our own
    /// that fails stops nothing: the open file goes on.
    fn follow_rotation(&mut self) -> Result<()> {
        let mut away = self.moved_away();
        if !away && self.rotation_due() {
            match self.rotate() {
                Ok(()) => away = true,
                Err(error) => self.rotation_failed(&error),
            }
        }
        if !away {
            return Ok(());
        }
        match self.reopen() {
            Err(error) if self.rotation.aside => {
                self.rotation_failed(&error);
                Ok(())
            }
            reopened => reopened,
        }
    }

    fn rotation_due(&self) -> bool {
        let full = self.settings.rotate_bytes > 0 && self.size >= self.settings.rotate_bytes;
        full && self.rotation.failed_at.is_none_or(|at| at.elapsed() >= ROTATION_PAUSE)
    }

    fn rotate(&mut self) -> Result<()> {
        self.sync()?;
        let aside = rotated_name(&self.settings.file, UnixMs::now().0);
        self.disk.rename(&self.settings.file, &aside)?;
        self.rotation.aside = true;
        self.remove_oldest();
        Ok(())
    }

    fn rotation_failed(&mut self, error: &std::io::Error) {
        if self.rotation.failed_at.replace(Instant::now()).is_none() {
            tracing::error!(%error, file = %self.settings.file.display(), "the audit log cannot be rotated and goes on in the old file: make its folder writable");
        }
    }

    fn moved_away(&self) -> bool {
        match std::fs::metadata(&self.settings.file) {
            Ok(meta) => (meta.dev(), meta.ino()) != self.identity,
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    fn reopen(&mut self) -> Result<()> {
        let file = self.disk.open(&self.settings.file)?;
        let meta = file.metadata()?;
        if locked_by_another(&file) {
            return Err(std::io::Error::other("another process writes this file"));
        }
        let tail = Tail::of(&file)?;
        if self.unsynced
            && let Err(error) = self.sync()
        {
            tracing::error!(%error, "the end of the rotated audit file may not survive a power failure");
        }
        self.file = file;
        self.identity = (meta.dev(), meta.ino());
        self.size = meta.len();
        self.before = Before { newline: tail.unended, cut_here: tail.cut, cut_earlier: self.before.cut() };
        self.first.get_or_insert(Kind::Continue);
        self.rotation = Rotation::default();
        Ok(())
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

/// One object of the members of both. Serde's `flatten` would build every record as a map first.
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
