//! Proofs that were used, for as long as they could be used again (RFC 9449 §11.1). Bounded: when it is full, new proofs
//! are refused; nothing is forgotten before its time.
use super::{Proof, WINDOW_S};
use std::collections::{BTreeMap, HashSet};

/// Most proofs remembered at once: about 4,000 a second, in at most some 40 MiB.
pub const REPLAYS_MAX: usize = 512 * 1024;
/// Proofs whose `iat` fall into one such span are forgotten together, in seconds.
const SPAN_S: i64 = 15;

/// Why a proof is not accepted, though it is genuine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("this proof was used before (`jti`)")]
    Used,
    #[error("{REPLAYS_MAX} proofs of the last two minutes are remembered, and no more can be")]
    Full,
}

/// The memory of used proofs of one process.
#[derive(Debug)]
pub struct Replays {
    /// By span of `iat`: half the hash says enough, for nobody can choose it but who holds the key.
    spans: BTreeMap<i64, HashSet<[u8; 16]>>,
    count: usize,
    count_max: usize,
}

impl Default for Replays {
    fn default() -> Replays {
        Replays::new(REPLAYS_MAX)
    }
}

impl Replays {
    pub fn new(count_max: usize) -> Replays {
        Replays { spans: BTreeMap::new(), count: 0, count_max }
    }

    /// Uses `proof` up. The same `jti` under the same key is refused also when another proof carries it.
    pub fn use_up(&mut self, proof: &Proof, now: i64) -> Result<(), ReplayError> {
        self.forget(now);
        let mut id = [0; 16];
        id.iter_mut().zip(proof.id).for_each(|(half, byte)| *half = byte);
        if self.spans.values().any(|span| span.contains(&id)) {
            return Err(ReplayError::Used);
        }
        if self.count >= self.count_max {
            return Err(ReplayError::Full);
        }
        self.spans.entry(proof.issued_at.div_euclid(SPAN_S)).or_default().insert(id);
        self.count += 1;
        Ok(())
    }

    /// A span ends when the last proof of it is too old to be accepted.
    fn forget(&mut self, now: i64) {
        while let Some(span) = self.spans.first_entry() {
            if span.key().saturating_add(1).saturating_mul(SPAN_S) > now.saturating_sub(WINDOW_S) {
                return;
            }
            self.count = self.count.saturating_sub(span.remove().len());
        }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
