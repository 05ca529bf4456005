//! Decision ids and transaction ids: unique, sortable by time, drawn from buffered randomness.

use std::sync::Mutex;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

use crate::clock::UnixMs;

const BUFFER_BYTES: usize = 1024;
/// Crockford's base 32: no I, L, O, U, so an id survives being read out over the phone.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 2025-01-01T00:00:00Z in Unix milliseconds; 40 bits of milliseconds last until 2059.
const EPOCH_MS: u64 = 1_735_689_600_000;

/// Randomness failed: nothing may be decided without ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no randomness")]
pub struct NoRandomness;

/// One worker's source of ids.
pub struct Ids {
    random: SystemRandom,
    buffer: Mutex<Buffer>,
}

struct Buffer {
    bytes: [u8; BUFFER_BYTES],
    used: usize,
}

impl Default for Ids {
    fn default() -> Ids {
        Ids::new()
    }
}

impl Ids {
    pub fn new() -> Ids {
        Ids { random: SystemRandom::new(), buffer: Mutex::new(Buffer { bytes: [0; BUFFER_BYTES], used: BUFFER_BYTES }) }
    }

    /// 16 characters: 40 bits of milliseconds and 40 random bits, so ids sort by time and cannot be guessed in bulk.
    pub fn decision(&self, now: UnixMs) -> Result<String, NoRandomness> {
        let random: [u8; 5] = self.draw()?;
        let high = now.0.saturating_sub(EPOCH_MS) & 0xff_ffff_ffff;
        let low = random.iter().fold(0u64, |sum, b| (sum << 8) | u64::from(*b));
        let mut id = String::with_capacity(16);
        for forty_bits in [high, low] {
            for shift in [35, 30, 25, 20, 15, 10, 5, 0] {
                let digit = ALPHABET.get(((forty_bits >> shift) & 31) as usize).copied();
                id.push(digit.map_or('0', char::from));
            }
        }
        Ok(id)
    }

    /// A UUIDv7 (RFC 9562) for `txn`.
    pub fn txn(&self, now: UnixMs) -> Result<uuid::Uuid, NoRandomness> {
        Ok(uuid::Builder::from_unix_timestamp_millis(now.0, &self.draw()?).into_uuid())
    }

    /// Of a trace that begins here; never all zeros.
    pub fn trace(&self) -> Result<[u8; 16], NoRandomness> {
        self.draw().map(|id| if id == [0; 16] { [1; 16] } else { id })
    }

    /// Of a span; never all zeros.
    pub fn span(&self) -> Result<[u8; 8], NoRandomness> {
        self.draw().map(|id| if id == [0; 8] { [1; 8] } else { id })
    }

    /// For a WebSocket handshake of our own.
    pub fn nonce(&self) -> Result<[u8; 16], NoRandomness> {
        self.draw()
    }

    fn draw<const N: usize>(&self) -> Result<[u8; N], NoRandomness> {
        let mut buffer = self.buffer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if buffer.used + N > BUFFER_BYTES {
            self.random.fill(&mut buffer.bytes).map_err(|_| NoRandomness)?;
            buffer.used = 0;
        }
        let from = buffer.used;
        let slice = buffer.bytes.get_mut(from..from + N).ok_or(NoRandomness)?;
        let mut out = [0; N];
        out.copy_from_slice(slice);
        slice.fill(0);
        buffer.used = from + N;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decision_ids_are_unique_and_sort_by_time() {
        let ids = Ids::new();
        let many: std::collections::BTreeSet<_> =
            (0..10_000).map(|i| ids.decision(UnixMs(EPOCH_MS + i)).unwrap()).collect();
        assert_eq!(many.len(), 10_000);
        let early = ids.decision(UnixMs(EPOCH_MS + 1_000)).unwrap();
        let late = ids.decision(UnixMs(EPOCH_MS + 2_000)).unwrap();
        assert!(early < late);
        assert_eq!(early.len(), 16);
        assert!(early.bytes().all(|b| ALPHABET.contains(&b)));
    }

    #[test]
    fn transactions_are_version_7_uuids() {
        let id = Ids::new().txn(UnixMs::now()).unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
}
