//! The edge's signing keys for Txn-Tokens: in memory only, a new one every 24 h, the old one published until the last
//! token it signed has ended.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use trust::txn::{PublishedKey, PublishedKeys, SigningKey};

/// How long a key signs, in seconds.
pub const KEY_LIFE_S: i64 = 24 * 3600;
/// Longest life of a Txn-Token, in seconds: so long an old key stays published.
pub const TOKEN_LIFE_MAX_S: i64 = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot make a signing key")]
pub struct NoKey;

/// The keys of one edge, shared by its workers.
pub struct Minter {
    spiffe_id: Arc<str>,
    now: ArcSwap<Keys>,
}

struct Keys {
    signing: Arc<SigningKey>,
    published: PublishedKeys,
    /// The published set as served: JSON.
    document: bytes::Bytes,
    rotate_at: i64,
}

impl Minter {
    /// `spiffe_id` is the edge's own; `now` in Unix seconds.
    pub fn new(spiffe_id: &str, now: i64) -> Result<Minter, NoKey> {
        Ok(Minter { spiffe_id: spiffe_id.into(), now: ArcSwap::from_pointee(next_keys(spiffe_id, Vec::new(), now)?) })
    }

    pub fn spiffe_id(&self) -> &Arc<str> {
        &self.spiffe_id
    }

    pub fn signing_key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.now.load().signing)
    }

    /// The JWKS served at `/.well-known/countersign/jwks.json`.
    pub fn document(&self) -> bytes::Bytes {
        self.now.load().document.clone()
    }

    pub fn published(&self) -> PublishedKeys {
        self.now.load().published.clone()
    }

    /// Call once a minute or so: makes the next key when the current one has signed for 24 h, and takes keys out whose
    /// tokens have all ended. Returns whether the key changed.
    pub fn rotate_if_due(&self, now: i64) -> Result<bool, NoKey> {
        let keys = self.now.load();
        let due = now >= keys.rotate_at;
        let ended = keys.published.keys.iter().any(|key| key.cs_exp <= now);
        if due {
            self.now.store(Arc::new(next_keys(&self.spiffe_id, keys.published.keys.clone(), now)?));
        } else if ended {
            let alive = keys.published.keys.iter().filter(|key| key.cs_exp > now).cloned().collect();
            self.now.store(Arc::new(publish(Arc::clone(&keys.signing), alive, now, keys.rotate_at)));
        }
        Ok(due)
    }
}

fn next_keys(spiffe_id: &str, mut published: Vec<PublishedKey>, now: i64) -> Result<Keys, NoKey> {
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map_err(|_| NoKey)?;
    let expires_at = now + KEY_LIFE_S + TOKEN_LIFE_MAX_S;
    let signing = SigningKey::from_pkcs8(pkcs8.as_ref(), spiffe_id, now, expires_at).ok_or(NoKey)?;
    published.retain(|key| key.cs_exp > now);
    published.insert(0, signing.published().clone());
    Ok(publish(Arc::new(signing), published, now, now + KEY_LIFE_S))
}

/// `seq` is the Unix second of the change: monotonic across restarts without anything kept on disk.
fn publish(signing: Arc<SigningKey>, keys: Vec<PublishedKey>, now: i64, rotate_at: i64) -> Keys {
    let published = PublishedKeys { seq: u64::try_from(now).unwrap_or(0), keys };
    let document = serde_json::to_vec(&published).unwrap_or_default().into();
    Keys { signing, published, document, rotate_at }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: &str = "spiffe://acme.example/edge";

    #[test]
    fn a_new_key_every_day_and_the_old_one_stays_until_its_tokens_ended() {
        let minter = Minter::new(EDGE, 1_000).unwrap();
        let first = minter.published().keys[0].kid.clone();
        assert!(!minter.rotate_if_due(1_000 + KEY_LIFE_S - 1).unwrap());
        assert!(minter.rotate_if_due(1_000 + KEY_LIFE_S).unwrap());
        let both = minter.published();
        assert_eq!(both.keys.len(), 2);
        assert_eq!(both.keys[1].kid, first);
        assert_ne!(both.keys[0].kid, first);
        assert!(both.seq > 1_000);
        assert!(!minter.rotate_if_due(1_000 + KEY_LIFE_S + TOKEN_LIFE_MAX_S).unwrap());
        assert_eq!(minter.published().keys.len(), 1);
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
