//! The audit log as files: opening and locking, names of rotated files, the end of an existing log. It never writes a line.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::chain;
use crate::clock::UnixMs;

const TAIL_BYTES_MAX: u64 = 1024 * 1024;

pub(super) fn open_append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// Two writers would break each other's chain. A file system without locks is no reason to stand still.
pub(super) fn locked_by_another(file: &File) -> bool {
    matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
}

pub(super) fn rotated_name(file: &Path, now: UnixMs) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{:013}", now.0));
    PathBuf::from(name)
}

/// The rotated files of a log, oldest first.
pub(super) fn rotated_files(file: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let is_rotated = |candidate: &str| {
        candidate
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|stamp| stamp.len() == 13 && stamp.bytes().all(|b| b.is_ascii_digit()))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is_rotated)).map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// The end of an existing log: the hash to go on from, and what a killed process left of its last line.
pub(super) struct Tail {
    pub(super) last_hash: Option<String>,
    pub(super) cut_bytes: u64,
}

pub(super) fn read_tail(file: &mut File) -> std::io::Result<Tail> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let cut_bytes = (bytes.len() - whole) as u64;
    let lines = bytes.get(..whole).unwrap_or_default();
    let last = lines.split(|b| *b == b'\n').rfind(|line| !line.is_empty());
    Ok(Tail { last_hash: last.and_then(|line| chain::open(line).ok()).map(|sealed| sealed.hash), cut_bytes })
}
