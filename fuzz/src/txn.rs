//! Claims of any shape, validly signed by a minter's own key: a signature hides the checks behind it from a fuzzer. Never
//! panics, and what is accepted says who, for whom and for how long, in one meaning, to a lenient reader too.
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use std::sync::OnceLock;
use trust::txn::{PublishedKeys, SigningKey, VerifiedTxn, Verifier};

/// 2027-01-15, the moment the corpus is made for.
const NOW: i64 = 1_800_000_000;
const MINTER: &str = "spiffe://acme.example/edge";

struct World {
    pair: EcdsaKeyPair,
    header: String,
    verifier: Verifier,
}

/// The input is the payload.
pub fn txn(input: &[u8]) {
    judged(input);
}

/// Was the payload accepted? None when it could not be signed.
fn judged(input: &[u8]) -> Option<bool> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    let Some(world) = WORLD.get_or_init(world) else { unreachable!("the fixed world is sound") };
    let signed = format!("{}.{}", world.header, URL_SAFE_NO_PAD.encode(input));
    let Ok(signature) = world.pair.sign(&SystemRandom::new(), signed.as_bytes()) else { return None };
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    match world.verifier.verify(&token, NOW) {
        Ok(verified) => {
            assert!(token.len() <= trust::txn::BYTES_MAX);
            accepted(&verified, input);
            Some(true)
        }
        Err(refused) => {
            assert!(!refused.detail.is_empty() && !refused.detail.chars().any(char::is_control), "{}", refused.detail);
            Some(false)
        }
    }
}

/// A service may read the same payload with whatever reader it has: nothing it sees may differ from what we checked.
fn accepted(verified: &VerifiedTxn, input: &[u8]) {
    let Ok(read) = serde_json::from_slice::<Value>(input) else { unreachable!("accepted what no reader reads") };
    let text = |name: &str| read.get(name).and_then(Value::as_str);
    assert_eq!((text("iss"), verified.minter()), (Some(MINTER), MINTER));
    assert_eq!(text("aud"), Some("acme.example"));
    assert_eq!((text("sub"), text("scope")), (Some(verified.subject()), Some(verified.scope())));
    assert!(!verified.subject().is_empty() && !verified.scope().is_empty());
    assert!(text("req_wl").is_some_and(|workload| !workload.is_empty()));
    assert_eq!(text("txn"), Some(verified.txn()));
    assert!(verified.txn().len() == 36 && verified.txn().as_bytes().get(14) == Some(&b'7'), "no UUIDv7");
    assert!(read.get("cnf").is_none(), "a token that asks for a proof was taken without one");
    assert_eq!(read.pointer("/act/sub").and_then(Value::as_str), verified.actor());
    assert_eq!(read.get("act").is_some(), verified.actor().is_some(), "an actor without a name");
    let (iat, exp) = (verified.issued_at(), verified.expires_at());
    assert_eq!(read.get("iat").zip(read.get("exp")), Some((&Value::from(iat), &Value::from(exp))));
    assert!((1..=300).contains(&(exp - iat)), "lives {} s", exp - iat);
    assert!(iat <= NOW + 5 && exp > NOW - 5, "alive from {iat} to {exp}");
}

/// A fresh key, the header that names it, and a verifier that knows it.
fn world() -> Option<World> {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).ok()?;
    let key = SigningKey::from_pkcs8(pkcs8.as_ref(), MINTER, NOW - 3600, NOW + 3600)?;
    let header = format!(r#"{{"typ":"{}","alg":"ES256","kid":"{}"}}"#, trust::txn::TYP, key.kid());
    let published = PublishedKeys { seq: 1, keys: vec![key.published().clone()] };
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).ok()?;
    Some(World {
        pair,
        header: URL_SAFE_NO_PAD.encode(header),
        verifier: Verifier::new("acme.example", &published, |id| id == MINTER),
    })
}

#[cfg(test)]
mod tests {
    /// Were every seed refused, the property would hold of nothing.
    #[test]
    fn the_sound_seeds_are_accepted_and_their_neighbours_refused() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/txn");
        let check = |seed: &str, accepted: bool| {
            let payload = std::fs::read(seeds.join(seed)).unwrap();
            assert_eq!(super::judged(&payload), Some(accepted), "{seed}");
        };
        for sound in ["full", "bare", "nested_act"] {
            check(sound, true);
        }
        let unsound =
            ["act_names_nobody", "aud_list", "cnf", "double_sub", "expired", "float_exp", "future", "huge_exp"];
        for seed in unsound.into_iter().chain(["long_life", "other_iss", "text_exp", "uuid_v4"]) {
            check(seed, false);
        }
    }
}
