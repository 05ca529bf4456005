//! The audit log: one NDJSON line per decision, chained by hashes, written by a thread of its own from a bounded queue.
//!
//! Never a token, a cookie or a body. A queue that is full or a disk that fails is never silent: strict services are
//! refused, the others counted and alarmed, and the log itself says how many records are missing.

pub mod chain;
mod disk;
mod log;
pub mod read;
pub mod record;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub use record::Record;
pub use writer::{Audit, AuditSettings, Fsync, Health, OpenError, Sink, Stats};
