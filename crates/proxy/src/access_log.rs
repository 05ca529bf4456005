//! The access log: one line per request in a form that log tools know, made of the audit record. Off unless configured.
//!
//! A courtesy and no proof: it has no chain, is never forced to the disk, and a disk that fails stops no request; what could
//! not be written is counted. Never a token, a cookie or a body, and a query only where that was asked for.

mod line;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;

use http::HeaderMap;
use http::header::{REFERER, USER_AGENT};

pub use writer::{AccessLog, OpenError, Stats};

/// Longest text taken from a request into a line; what is longer ends in `...`.
pub const TEXT_BYTES_MAX: usize = 2048;
const CUT: &[u8] = b"...";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub file: PathBuf,
    pub format: Format,
    /// Write the query, which often holds what nobody else should read.
    pub query: bool,
    /// Write who it was.
    pub subject: bool,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One object, with the decision id.
    Json,
    /// As nginx and Apache write it.
    Combined,
}

/// What a line tells of a request beside its audit record.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The path as it came, and the query where it is wanted.
    pub target: Box<[u8]>,
    pub referer: Option<Box<[u8]>>,
    pub user_agent: Option<Box<[u8]>>,
}

impl Seen {
    pub(crate) fn memory(&self) -> usize {
        let text = |text: &Option<Box<[u8]>>| text.as_ref().map_or(0, |text| text.len());
        size_of::<Seen>() + self.target.len() + text(&self.referer) + text(&self.user_agent)
    }
}

/// What has to be taken from a request while it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collect {
    pub query: bool,
}

impl Collect {
    #[cold]
    pub(crate) fn read(self, target: &http::Uri, headers: &HeaderMap) -> Box<Seen> {
        let query = target.query().filter(|_| self.query);
        let target = match query {
            Some(query) => cut([target.path(), "?", query].concat().as_bytes()),
            None => cut(target.path().as_bytes()),
        };
        let first = |name| headers.get(name).map(|value| cut(value.as_bytes()));
        Box::new(Seen { target, referer: first(REFERER), user_agent: first(USER_AGENT) })
    }
}

/// A copy: a field's value is a part of the buffer that the whole head was read into, and would keep all of it.
fn cut(text: &[u8]) -> Box<[u8]> {
    match text.split_at_checked(TEXT_BYTES_MAX) {
        None | Some((_, [])) => text.into(),
        Some((kept, _)) => [kept, CUT].concat().into(),
    }
}
