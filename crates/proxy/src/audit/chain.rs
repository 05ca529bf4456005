//! The hash chain of an audit log: how a line is sealed, and how lines are checked afterwards, offline.
//!
//! A line is `{"kind":…,"process":…,"seq":n,"prev":"…",…,"hash":"…"}`. `hash` is the base64url SHA-256 of every byte of the
//! line before `,"hash"`; `prev` is the `hash` of the line before. One changed byte breaks its own line; a removed or
//! moved line breaks the next one's `prev`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// `prev` of the very first line of a log: 32 zero bytes in base64url.
pub const GENESIS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const SEAL_PREFIX: &[u8] = b",\"hash\":\"";
const HASH_CHARS: usize = 43;
const SEAL_BYTES: usize = SEAL_PREFIX.len() + HASH_CHARS + 2;

/// What every line starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// `start`, `decision`, `gap` or `continue` (first line of a new file).
    pub kind: Kind,
    /// Random id of the writing process.
    pub process: String,
    /// Counts from 0 within a process.
    pub seq: u64,
    pub prev: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A process opened the log.
    Start,
    Decision,
    /// What a decision opened has ended.
    End,
    /// Records that could not be written, counted.
    Gap,
    /// The log goes on in this file after a rotation.
    Continue,
}

/// base64url without padding of a SHA-256.
pub fn hash_text(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    base64url(context.finish().as_ref())
}

/// Seals the JSON object (`{…}` without newline) that starts at `from` and ends the buffer: adds `hash`, returns it.
pub fn seal(buffer: &mut Vec<u8>, from: usize) -> String {
    buffer.pop();
    let hash = hash_text(buffer.get(from..).unwrap_or_default());
    buffer.extend_from_slice(SEAL_PREFIX);
    buffer.extend_from_slice(hash.as_bytes());
    buffer.extend_from_slice(b"\"}");
    hash
}

/// A checked line: its link and its own hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub link: Link,
    pub hash: String,
}

/// Checks one line by itself (no newline).
pub fn open(line: &[u8]) -> Result<Sealed, Fault> {
    let at = line.len().checked_sub(SEAL_BYTES).ok_or(Fault::Incomplete)?;
    let (content, tail) = line.split_at(at);
    let hash = tail
        .strip_prefix(SEAL_PREFIX)
        .and_then(|rest| rest.strip_suffix(b"\"}"))
        .and_then(|hash| std::str::from_utf8(hash).ok())
        .ok_or(Fault::Incomplete)?;
    if hash_text(content) != hash {
        return Err(Fault::Changed);
    }
    let link = serde_json::from_slice(line).map_err(|_| Fault::Changed)?;
    Ok(Sealed { link, hash: hash.to_owned() })
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the line ends before its hash")]
    Incomplete,
    #[error("the line does not match its own hash: it was changed")]
    Changed,
    #[error("the line does not follow the one before: a line was removed, inserted or moved")]
    Unlinked,
    #[error("the sequence number does not follow")]
    Sequence,
}

/// One line of a log that may have several files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<PathBuf>,
    /// Counted from 1 within its file.
    pub line: u64,
}

/// The first fault of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub at: Place,
    pub fault: Fault,
    /// Decision id or sequence number found in the line, as far as it can be read.
    pub record: String,
}

/// What a check over one or more files found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub lines: u64,
    pub decisions: u64,
    pub processes: u64,
    /// Records that the log itself says are missing.
    pub gaps: u64,
    /// Lines cut off by a crash or a failed write: the last of a file, or followed by a line that tells their length.
    pub truncated_at: Vec<Place>,
    pub finding: Option<Finding>,
}

/// Checks a log line by line; feed the lines of rotated files oldest first.
#[derive(Debug, Default)]
pub struct Checker {
    report: Report,
    last: Option<Sealed>,
    /// Lines without their seal: a cut, if what follows says so.
    cut: Option<Cut>,
    at: Place,
}

#[derive(Debug)]
struct Cut {
    /// The first is where a finding points to, with its text. A rotation may stand between two of them.
    lines: Vec<Place>,
    text: Vec<u8>,
    /// Of all of them, with the newlines between.
    bytes: u64,
}

impl Checker {
    /// Lines count anew in every file; the chain goes on.
    pub fn next_file(&mut self, file: &Path) {
        self.at = Place { file: Arc::new(file.to_owned()), line: 0 };
    }

    /// One line without its newline. After the first finding nothing more is looked at.
    pub fn line(&mut self, line: &[u8]) {
        self.at.line += 1;
        if self.report.finding.is_some() {
            return;
        }
        self.report.lines += 1;
        match self.judge(line) {
            Ok(sealed) if self.cut.as_ref().is_some_and(|cut| cut_bytes_of(line, &sealed) != Some(cut.bytes)) => {
                self.find_cut()
            }
            Ok(sealed) => {
                self.count(line, &sealed);
                self.last = Some(sealed);
            }
            Err(Fault::Incomplete) => self.cut(line),
            Err(_) if self.cut.is_some() => self.find_cut(),
            Err(fault) => self.find(fault, line),
        }
    }

    fn cut(&mut self, line: &[u8]) {
        if let Some(cut) = &mut self.cut {
            cut.lines.push(self.at.clone());
            cut.bytes += 1 + line.len() as u64;
            return;
        }
        self.cut = Some(Cut { lines: vec![self.at.clone()], text: line.to_vec(), bytes: line.len() as u64 });
    }

    fn judge(&self, line: &[u8]) -> Result<Sealed, Fault> {
        let sealed = open(line)?;
        let start = sealed.link.kind == Kind::Start;
        match &self.last {
            Some(last) if last.hash != sealed.link.prev => return Err(Fault::Unlinked),
            Some(last)
                if !start && (last.link.process != sealed.link.process || last.link.seq + 1 != sealed.link.seq) =>
            {
                return Err(Fault::Sequence);
            }
            _ => {}
        }
        if start && sealed.link.seq != 0 { Err(Fault::Sequence) } else { Ok(sealed) }
    }

    fn count(&mut self, line: &[u8], sealed: &Sealed) {
        self.take_cut();
        match sealed.link.kind {
            Kind::Start => self.report.processes += 1,
            Kind::Decision => self.report.decisions += 1,
            Kind::End => {}
            Kind::Gap => self.report.gaps += missing_of(line),
            Kind::Continue => {}
        }
    }

    fn take_cut(&mut self) {
        self.report.truncated_at.extend(self.cut.take().into_iter().flat_map(|cut| cut.lines));
    }

    fn find(&mut self, fault: Fault, text: &[u8]) {
        self.report.finding = Some(Finding { at: self.at.clone(), fault, record: name_of(text) });
    }

    fn find_cut(&mut self) {
        if let Some(cut) = self.cut.take() {
            let at = cut.lines.first().cloned().unwrap_or_default();
            let record = name_of(&cut.text);
            self.report.finding = Some(Finding { at, fault: Fault::Changed, record });
        }
    }

    /// A cut line at the very end, without newline, is what a killed process leaves behind; with one, it was changed.
    pub fn finish(mut self, ends_with_newline: bool) -> Report {
        if ends_with_newline && self.report.finding.is_none() {
            self.find_cut();
        }
        self.take_cut();
        self.report
    }
}

/// How many bytes of unfinished lines this line says are before it; nothing else may follow such lines.
fn cut_bytes_of(line: &[u8], sealed: &Sealed) -> Option<u64> {
    #[derive(Deserialize)]
    struct Said {
        cut_bytes: u64,
    }
    let may_say = !matches!(sealed.link.kind, Kind::Decision | Kind::End);
    serde_json::from_slice::<Said>(line).ok().filter(|_| may_say).map(|said| said.cut_bytes)
}

fn missing_of(line: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Gap {
        missing: u64,
    }
    serde_json::from_slice::<Gap>(line).map_or(0, |gap| gap.missing)
}

/// The record's name as far as a damaged line lets it be read: its decision id, else its sequence number.
fn name_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let after = |key: &str| text.find(key).and_then(|at| text.get(at + key.len()..));
    let word = |rest: &str| rest.chars().take_while(char::is_ascii_alphanumeric).take(40).collect::<String>();
    match (after("\"id\":\"").map(word), after("\"seq\":").map(word)) {
        (Some(id), _) if !id.is_empty() => format!("decision {id}"),
        (_, Some(seq)) if !seq.is_empty() => format!("record {seq}"),
        _ => "unreadable record".to_owned(),
    }
}

/// base64url without padding; 32 bytes give 43 characters.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(count: u64) -> Vec<Vec<u8>> {
        let mut prev = GENESIS.to_owned();
        (0..count)
            .map(|seq| {
                let kind = if seq == 0 { "start" } else { "decision" };
                let mut line =
                    format!(r#"{{"kind":"{kind}","process":"p1","seq":{seq},"prev":"{prev}","id":"D{seq}"}}"#)
                        .into_bytes();
                prev = seal(&mut line, 0);
                line
            })
            .collect()
    }

    fn check(lines: &[Vec<u8>], ends_with_newline: bool) -> Report {
        let mut checker = Checker::default();
        for line in lines {
            checker.line(line);
        }
        checker.finish(ends_with_newline)
    }

    #[test]
    fn an_untouched_log_passes() {
        let report = check(&log(5), true);
        assert_eq!((report.lines, report.decisions, report.processes), (5, 4, 1));
        assert_eq!(report.finding, None);
    }

    #[test]
    fn a10_flipping_any_byte_of_any_line_is_found_and_named() {
        let lines = log(4);
        for at in 0..lines.len() {
            for byte in 0..lines[at].len() {
                let mut bad = lines.clone();
                bad[at][byte] ^= 1;
                let finding = check(&bad, true).finding.unwrap_or_else(|| panic!("line {at} byte {byte}"));
                assert_eq!(finding.at.line, at as u64 + 1, "line {at} byte {byte}");
            }
        }
    }

    #[test]
    fn removed_and_swapped_lines_are_found() {
        let mut removed = log(5);
        removed.remove(2);
        assert_eq!(check(&removed, true).finding.unwrap().fault, Fault::Unlinked);
        let mut swapped = log(5);
        swapped.swap(2, 3);
        assert_eq!(check(&swapped, true).finding.unwrap().fault, Fault::Unlinked);
    }

    #[test]
    fn a10_a_line_cut_by_a_crash_is_truncated_not_tampered() {
        let mut lines = log(4);
        let last = lines.last_mut().unwrap();
        last.truncate(last.len() / 2);
        let report = check(&lines, false);
        assert_eq!(report.finding, None);
        assert_eq!(report.truncated_at, [Place { line: 4, ..Place::default() }]);
    }

    #[test]
    fn a_cut_line_in_the_middle_is_a_finding() {
        let mut lines = log(4);
        let cut = lines[1].len() / 2;
        lines[1].truncate(cut);
        let finding = check(&lines, true).finding.unwrap();
        assert_eq!(finding.at.line, 2);
        assert_eq!(finding.record, "record 1");
    }

    #[test]
    fn base64url_agrees_with_known_values() {
        assert_eq!(base64url(b""), "");
        assert_eq!(base64url(b"f"), "Zg");
        assert_eq!(base64url(b"fo"), "Zm8");
        assert_eq!(base64url(b"foob"), "Zm9vYg");
        assert_eq!(base64url(&[0; 32]), GENESIS);
    }
}
