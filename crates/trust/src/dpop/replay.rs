//! Proofs that were used, for as long as they could be used again (RFC 9449 §11.1). Bounded: when it is full, new proofs
//! are refused; nothing is forgotten before its time. Once it is half full no key may hold more than its share of it, so
//! that one busy client does not shut out the others.
use super::{Proof, WINDOW_S};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Most proofs remembered at once: about 4,000 a second, in at most some 80 MiB.
pub const REPLAYS_MAX: usize = 512 * 1024;
/// What one key may hold once half of the memory is taken: this part of all.
const SHARE: usize = 8;
/// Proofs whose `iat` fall into one such span are forgotten together, in seconds.
const SPAN_S: i64 = 15;

/// Why a proof is not accepted, though it is genuine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("this proof was used before (`jti`)")]
    Used,
    #[error("{REPLAYS_MAX} proofs of the last two minutes are remembered, and no more can be")]
    Full,
    #[error(
        "many proofs of the last two minutes are remembered, and more than an eighth of what can be are of this key"
    )]
    Share,
}

/// The memory of used proofs of one process.
#[derive(Debug)]
pub struct Replays {
    /// By span of `iat`: half the hash says enough, for nobody can choose it but who holds the key.
    spans: BTreeMap<i64, Span>,
    count: usize,
    count_max: usize,
}

#[derive(Debug, Default)]
struct Span {
    ids: HashSet<[u8; 16]>,
    /// How many of them each key made, by half its thumbprint.
    of_key: HashMap<[u8; 16], usize>,
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
        let (id, key) = (half(&proof.id), half(&proof.thumbprint));
        if self.spans.values().any(|span| span.ids.contains(&id)) {
            return Err(ReplayError::Used);
        }
        if self.count >= self.count_max {
            return Err(ReplayError::Full);
        }
        if self.count >= self.count_max / 2 && self.held_by(&key) >= (self.count_max / SHARE).max(1) {
            return Err(ReplayError::Share);
        }
        let span = self.spans.entry(proof.issued_at.div_euclid(SPAN_S)).or_default();
        span.ids.insert(id);
        *span.of_key.entry(key).or_default() += 1;
        self.count += 1;
        Ok(())
    }

    fn held_by(&self, key: &[u8; 16]) -> usize {
        self.spans.values().filter_map(|span| span.of_key.get(key)).sum()
    }

    /// A span ends when the last proof of it is too old to be accepted.
    fn forget(&mut self, now: i64) {
        while let Some(span) = self.spans.first_entry() {
            if span.key().saturating_add(1).saturating_mul(SPAN_S) > now.saturating_sub(WINDOW_S) {
                return;
            }
            self.count = self.count.saturating_sub(span.remove().ids.len());
        }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

fn half(hash: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(hash).for_each(|(half, byte)| *half = *byte);
    half
}
