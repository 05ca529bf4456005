//! Reading an audit log afterwards: verify its chain, find a record, filter records. Works on the files alone.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::chain::{Checker, Kind, Report};
use super::record::Record;
use super::tail::rotated_files;

/// Longest line that is read; a longer one cannot be ours.
const LINE_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`", path.display())]
pub struct ReadError {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// A log's files, oldest first: the rotated ones, then the current one.
pub fn files_of(file: &Path) -> Vec<PathBuf> {
    let mut files = rotated_files(file);
    if file.exists() {
        files.push(file.to_owned());
    }
    files
}

/// Checks the chain over `files`, oldest first.
pub fn verify(files: &[PathBuf]) -> Result<Report, ReadError> {
    let mut checker = Checker::default();
    let mut ends_with_newline = true;
    for path in files {
        checker.next_file(path);
        // A rotation may have left a file that is still empty; what the one before it ends with counts then.
        ends_with_newline = each_line(path, |line| checker.line(line))?.unwrap_or(ends_with_newline);
    }
    Ok(checker.finish(ends_with_newline))
}

/// Calls `take` with every record of a decision, or of the end of what one opened, oldest first. Lines that are no record of ours are passed over.
pub fn each_record(files: &[PathBuf], mut take: impl FnMut(Record, &[u8])) -> Result<(), ReadError> {
    #[derive(Deserialize)]
    struct Any {
        kind: Kind,
    }
    for path in files {
        each_line(path, |line| {
            let of_request = |any: Any| matches!(any.kind, Kind::Decision | Kind::End);
            if serde_json::from_slice::<Any>(line).is_ok_and(of_request)
                && let Ok(record) = serde_json::from_slice::<Record>(line)
            {
                take(record, line);
            }
        })?;
    }
    Ok(())
}

/// The newest records of one file that are `wanted`, newest first, found in its last `bytes`: a look that costs the same
/// however long the log is.
pub fn newest(
    file: &Path,
    bytes: u64,
    records_max: usize,
    wanted: impl Fn(&Record) -> bool,
) -> std::io::Result<Vec<Record>> {
    let mut file = File::open(file)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(bytes)))?;
    let mut end = Vec::new();
    file.take(bytes).read_to_end(&mut end)?;
    // The first line may be the rest of one; then it is no record.
    let records = end.rsplit(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Record>(line).ok());
    Ok(records.filter(wanted).take(records_max).collect())
}

/// The record with this decision id, or the newest for `last`.
pub fn find(files: &[PathBuf], id: &str) -> Result<Option<Record>, ReadError> {
    let mut found = None;
    each_record(files, |record, _| {
        if id == "last" || record.id.eq_ignore_ascii_case(id) {
            found = Some(record);
        }
    })?;
    Ok(found)
}

/// Every line without its newline; returns whether the file ends with one, `None` of an empty file.
fn each_line(path: &Path, mut take: impl FnMut(&[u8])) -> Result<Option<bool>, ReadError> {
    let fail = |source| ReadError { path: path.to_owned(), source };
    let mut reader = BufReader::with_capacity(256 * 1024, File::open(path).map_err(fail)?);
    let mut line = Vec::new();
    let mut ends_with_newline = None;
    loop {
        line.clear();
        let mut limited = std::io::Read::take(&mut reader, LINE_BYTES_MAX as u64 + 1);
        if limited.read_until(b'\n', &mut line).map_err(fail)? == 0 {
            return Ok(ends_with_newline);
        }
        ends_with_newline = Some(true);
        if line.pop_if(|last| *last == b'\n').is_none() {
            take(&line);
            if line.len() <= LINE_BYTES_MAX {
                return Ok(Some(false));
            }
            continue;
        }
        take(&line);
    }
}
