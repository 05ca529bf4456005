//! Where a log goes on: the end of a file's chain, and the rotated files before it.
//!
//! Only reads.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::chain::{self, Sealed};
use super::disk::locked_by_another;

const TAIL_BYTES_MAX: u64 = 1024 * 1024;

/// The end of a file: its last whole line, and what follows that line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub last: Option<Sealed>,
    /// Bytes of unfinished lines after it, with the newlines between them; `None`: there are none.
    pub cut: Option<u64>,
    /// The file does not end with a newline.
    pub unended: bool,
}

impl Tail {
    pub(super) fn of(mut file: &File) -> std::io::Result<Tail> {
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(size.min(TAIL_BYTES_MAX)).read_to_end(&mut bytes)?;
        Ok(Tail::in_bytes(&bytes))
    }

    fn in_bytes(bytes: &[u8]) -> Tail {
        if bytes.is_empty() {
            return Tail::default();
        }
        let body = bytes.strip_suffix(b"\n");
        let unended = body.is_none();
        let mut cut = None;
        for line in body.unwrap_or(bytes).rsplit(|b| *b == b'\n') {
            if let Ok(sealed) = chain::open(line) {
                return Tail { last: Some(sealed), cut, unended };
            }
            cut = joined(cut, Some(line.len() as u64));
        }
        Tail { last: None, cut, unended }
    }
}

/// Bytes of unfinished lines that follow each other, counted with the newline between them.
pub(super) fn joined(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + 1 + other),
        (one, other) => one.or(other),
    }
}

/// The end of the chain in the rotated files, for a log whose newest file holds no whole line yet: its process ended
/// between renaming the old file and the first line of the new one. `Err`: another process still writes that file.
pub(super) fn tail_of_rotated(file: &Path) -> Result<(Option<Sealed>, Option<u64>), PathBuf> {
    let mut cut = None;
    for path in rotated_files(file).into_iter().rev() {
        let (locked, tail) = match File::open(&path).and_then(|old| Ok((locked_by_another(&old), Tail::of(&old)?))) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "cannot read the rotated audit file that the chain goes on from: verify will say so");
                break;
            }
        };
        if locked {
            return Err(path);
        }
        cut = joined(tail.cut, cut);
        if tail.last.is_some() {
            return Ok((tail.last, cut));
        }
    }
    Ok((None, cut))
}

/// The name a full file gets: later than every rotated one, also when the clock went back.
pub(super) fn rotated_name(file: &Path, now_ms: u64) -> PathBuf {
    let newest = rotated_files(file).last().and_then(|path| path.extension()?.to_str()?.parse::<u64>().ok());
    let stamp = newest.map_or(now_ms, |newest| now_ms.max(newest + 1));
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{stamp:013}"));
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
