//! The edge's signing keys for Txn-Tokens: in memory only, a new one every 24 h, the old one published until the last
//! token it signed has ended.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use trust::txn::{PublishedKey, PublishedKeys, SigningKey};

/// How long a key signs, in seconds.
pub const KEY_LIFE_S: i64 = 24 * 3600;
/// Longest life of a Txn-Token, in seconds: so long an old key stays published.
pub const TOKEN_LIFE_MAX_S: i64 = 300;
/// So long before it signs a key is published, in seconds: several times what the published set may be cached.
pub const PUBLISHED_AHEAD_S: i64 = 300;
/// A clock that is set back by less than this finds the key valid still.
const CLOCK_SLACK_S: i64 = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot make a signing key")]
pub struct NoKey;

/// The keys of one edge, shared by its workers.
pub struct Minter {
    spiffe_id: Arc<str>,
    now: ArcSwap<Keys>,
    changing: Mutex<()>,
}

struct Keys {
    signing: Arc<SigningKey>,
    kid: Arc<str>,
    /// Published already, signs from `rotate_at` on.
    next: Option<Arc<SigningKey>>,
    published: PublishedKeys,
    /// The published set as served: JSON.
    document: bytes::Bytes,
    rotate_at: i64,
}

impl Minter {
    /// `spiffe_id` is the edge's own; `now` in Unix seconds.
    pub fn new(spiffe_id: &str, now: i64) -> Result<Minter, NoKey> {
        let signing = make_key(spiffe_id, now)?;
        let published = vec![signing.published().clone()];
        let first = Keys::of(signing, None, published, seq_after(0, now), now + KEY_LIFE_S);
        Ok(Minter { spiffe_id: spiffe_id.into(), now: ArcSwap::from_pointee(first), changing: Mutex::new(()) })
    }

    pub fn spiffe_id(&self) -> &Arc<str> {
        &self.spiffe_id
    }

    /// The key that signs at `now`. A clock that jumped out of the key's life gets a new key at once.
    pub fn signing_key(&self, now: i64) -> Arc<SigningKey> {
        self.signing(now).0
    }

    /// [`Minter::signing_key`] and its `kid`.
    pub fn signing(&self, now: i64) -> (Arc<SigningKey>, Arc<str>) {
        let mut keys = self.now.load();
        let life = keys.signing.published();
        if now < life.cs_nbf || now >= keys.rotate_at {
            // Without a new key the old one is tried; minting then refuses with its own reason.
            let _kept = self.rotate_if_due(now);
            keys = self.now.load();
        }
        (Arc::clone(&keys.signing), Arc::clone(&keys.kid))
    }

    /// The JWKS served at `/.well-known/countersign/jwks.json`.
    pub fn document(&self) -> bytes::Bytes {
        self.now.load().document.clone()
    }

    pub fn published(&self) -> PublishedKeys {
        self.now.load().published.clone()
    }

    /// Call once a minute or so: publishes the next key some minutes ahead, lets it sign when the current one has signed
    /// for 24 h, and takes keys out whose tokens have all ended. Returns whether another key signs now.
    pub fn rotate_if_due(&self, now: i64) -> Result<bool, NoKey> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.now.load_full();
        let mut published = keys.published.keys.clone();
        published.retain(|key| key.cs_exp > now);
        let before_its_life = now < keys.signing.published().cs_nbf;
        let (mut signing, mut next, mut rotate_at) = (Arc::clone(&keys.signing), keys.next.clone(), keys.rotate_at);
        let due = before_its_life || now >= rotate_at;
        if due {
            let usable = next.take().filter(|next| next.published().cs_nbf <= now && now < next.published().cs_exp);
            signing = match usable {
                Some(next) => next,
                None => make_key(&self.spiffe_id, now)?,
            };
            rotate_at = now + KEY_LIFE_S;
        } else if next.is_none() && now >= rotate_at - PUBLISHED_AHEAD_S {
            next = Some(make_key(&self.spiffe_id, now)?);
        }
        for key in [Some(&signing), next.as_ref()].into_iter().flatten() {
            if !published.iter().any(|known| known.kid == key.kid()) {
                published.insert(0, key.published().clone());
            }
        }
        if published != keys.published.keys || due {
            let seq = seq_after(keys.published.seq, now);
            self.now.store(Arc::new(Keys::of(signing, next, published, seq, rotate_at)));
        }
        Ok(due)
    }
}

impl Keys {
    fn of(
        signing: Arc<SigningKey>,
        next: Option<Arc<SigningKey>>,
        keys: Vec<PublishedKey>,
        seq: u64,
        rotate_at: i64,
    ) -> Keys {
        let published = PublishedKeys { seq, keys };
        let document = serde_json::to_vec(&published).unwrap_or_default().into();
        Keys { kid: signing.kid().into(), signing, next, published, document, rotate_at }
    }
}

fn make_key(spiffe_id: &str, now: i64) -> Result<Arc<SigningKey>, NoKey> {
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map_err(|_| NoKey)?;
    let expires_at = now + PUBLISHED_AHEAD_S + KEY_LIFE_S + TOKEN_LIFE_MAX_S;
    SigningKey::from_pkcs8(pkcs8.as_ref(), spiffe_id, now - CLOCK_SLACK_S, expires_at).map(Arc::new).ok_or(NoKey)
}

/// The Unix second of the change, so that it grows across restarts without anything kept on disk; always more than before.
fn seq_after(before: u64, now: i64) -> u64 {
    u64::try_from(now).unwrap_or(0).max(before + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: &str = "spiffe://acme.example/edge";

    fn kids(minter: &Minter) -> Vec<String> {
        minter.published().keys.into_iter().map(|key| key.kid).collect()
    }

    #[test]
    fn a_new_key_every_day_published_before_it_signs_and_after_it_signed() {
        let start = 1_000_000;
        let minter = Minter::new(EDGE, start).unwrap();
        let first = kids(&minter);
        let rotate_at = start + KEY_LIFE_S;
        assert!(!minter.rotate_if_due(rotate_at - PUBLISHED_AHEAD_S - 1).unwrap());
        assert_eq!(kids(&minter), first);
        assert!(!minter.rotate_if_due(rotate_at - PUBLISHED_AHEAD_S).unwrap());
        let both = kids(&minter);
        assert_eq!(both.len(), 2);
        assert_eq!(minter.signing_key(rotate_at - 1).kid(), first[0]);
        assert_eq!(minter.signing_key(rotate_at).kid(), both[0], "the key published ahead");
        assert!(minter.published().seq > start as u64);
        let ended = rotate_at + PUBLISHED_AHEAD_S + TOKEN_LIFE_MAX_S;
        assert!(!minter.rotate_if_due(ended).unwrap());
        assert_eq!(kids(&minter), [both[0].clone()]);
    }

    #[test]
    fn api_109_a_clock_that_jumps_never_stops_the_signing() {
        let minter = Minter::new(EDGE, 1_000_000).unwrap();
        let mut seq = minter.published().seq;
        for now in [1_000_000 - 200, 1_000_000 - 3_600, 1_000_000 + 10 * KEY_LIFE_S, 1_000_000] {
            let key = minter.signing_key(now);
            let life = key.published();
            assert!((life.cs_nbf..life.cs_exp - TOKEN_LIFE_MAX_S).contains(&now), "{now}");
            assert!(kids(&minter).contains(&key.kid().to_owned()), "{now}");
            assert!(minter.published().seq >= seq, "never back");
            seq = minter.published().seq;
        }
    }

    #[test]
    fn the_published_document_holds_no_private_part() {
        let minter = Minter::new(EDGE, 1_000).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&minter.document()).unwrap();
        let key = &document["keys"][0];
        assert_eq!(key["kty"], "EC");
        assert_eq!(key["cs_iss"], EDGE);
        assert!(key.get("d").is_none());
        assert_eq!(document["seq"], 1_000);
    }
}
