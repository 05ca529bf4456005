//! Nonces of our own (RFC 9449 §9), without a list of them: each is a MAC over the minute it belongs to.
//!
//! They limit how long ahead a proof can be made; that a proof is used once is the replay memory's affair. Two processes
//! with different secrets do not know one another's nonces.
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// How long one nonce is the newest, in seconds; it is accepted for that long once more.
pub const NONCE_LIFE_S: i64 = 120;
/// Bytes of the MAC that are used.
const NONCE_BYTES: usize = 18;

/// The secret behind the nonces. Wiped on drop by its library.
pub struct Nonces {
    key: hmac::Key,
}

/// How a nonce stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    Newest,
    /// Still good; the client should be given the newest one now.
    Ending,
    /// Not ours, or no longer.
    Refused,
}

impl Nonces {
    /// `secret`: fresh random bytes, of this process alone.
    pub fn new(secret: &[u8; 32]) -> Nonces {
        Nonces { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// The nonce to give out now.
    pub fn newest(&self, now: i64) -> String {
        URL_SAFE_NO_PAD.encode(self.of(period(now)))
    }

    pub fn check(&self, nonce: &str, now: i64) -> Freshness {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else { return Freshness::Refused };
        let is_of = |period: i64| verify_slices_are_equal(&bytes, &self.of(period)).is_ok();
        if is_of(period(now)) {
            Freshness::Newest
        } else if is_of(period(now).saturating_sub(1)) {
            Freshness::Ending
        } else {
            Freshness::Refused
        }
    }

    fn of(&self, period: i64) -> [u8; NONCE_BYTES] {
        let mut message = *b"cs-dpop-nonce-v1........";
        let (_, end) = message.split_at_mut(16);
        end.copy_from_slice(&period.to_be_bytes());
        let mut out = [0; NONCE_BYTES];
        out.iter_mut().zip(hmac::sign(&self.key, &message).as_ref()).for_each(|(out, byte)| *out = *byte);
        out
    }
}

fn period(now: i64) -> i64 {
    now.div_euclid(NONCE_LIFE_S)
}
