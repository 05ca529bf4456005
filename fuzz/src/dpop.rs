//! Proofs of any claims, validly signed by the key of their header: a signature hides the checks behind it from a fuzzer.
//! Never panics, and what is accepted was made for the request, the token and the minute.
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use std::sync::OnceLock;
use trust::dpop::{Asked, Proof, Replays, WINDOW_S};
use trust::path::{NormalPath, Tolerance};

/// 2026-09-21, the moment the corpus is made for.
const NOW: i64 = 1_790_000_000;
const TOKEN: &[u8] = b"header.payload.signature";

struct World {
    pair: EcdsaKeyPair,
    header: String,
    path: NormalPath,
    token: [u8; 32],
}

/// `c<claims>`: signed as they are. Anything else: the proof itself, as a stranger sends it.
pub fn dpop(input: &[u8]) {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    let Some(world) = WORLD.get_or_init(world) else { unreachable!("the fixed world is sound") };
    let asked = Asked {
        method: "GET",
        https: true,
        authority: "shop.acme.example",
        path: &world.path,
        tolerance: Tolerance::default(),
        token_sha256: &world.token,
        now: NOW,
    };
    let Some(claims) = input.strip_prefix(b"c") else {
        let Ok(text) = std::str::from_utf8(input) else { return };
        drop(Proof::verify(text, &asked));
        return;
    };
    let signed = format!("{}.{}", world.header, URL_SAFE_NO_PAD.encode(claims));
    let Ok(signature) = world.pair.sign(&SystemRandom::new(), signed.as_bytes()) else { return };
    let text = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    match Proof::verify(&text, &asked) {
        Ok(proof) => accepted(&proof, claims),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A lenient reader sees in it what the strict one accepted, and it is good once.
fn accepted(proof: &Proof, claims: &[u8]) {
    let Ok(claims) = serde_json::from_slice::<Value>(claims) else { unreachable!("accepted, and yet no JSON") };
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    assert_eq!(text("htm"), "GET");
    assert!(text("htu").to_ascii_lowercase().starts_with("https://shop.acme.example"), "{}", text("htu"));
    assert_eq!(text("ath"), URL_SAFE_NO_PAD.encode(digest(&SHA256, TOKEN)));
    assert!(!text("jti").is_empty());
    let age = claims.get("iat").and_then(Value::as_f64).map_or(f64::MAX, |iat| (NOW as f64 - iat).abs());
    assert!(age <= WINDOW_S as f64 + 1.0, "{age} s");
    let mut replays = Replays::default();
    assert!(replays.use_up(proof, NOW).is_ok() && replays.use_up(proof, NOW).is_err());
}

fn world() -> Option<World> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
    let (x, y) = pair.public_key().as_ref().get(1..)?.split_at_checked(32)?;
    let header = format!(
        r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}}}"#,
        URL_SAFE_NO_PAD.encode(x),
        URL_SAFE_NO_PAD.encode(y)
    );
    let header = URL_SAFE_NO_PAD.encode(header);
    let path = NormalPath::parse("/orders/42", Tolerance::default()).ok()?;
    let mut token = [0; 32];
    token.copy_from_slice(digest(&SHA256, TOKEN).as_ref());
    Some(World { pair, header, path, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the fuzzer would only ever see refusals.
    #[test]
    fn the_fixed_world_accepts_a_good_proof() {
        let Some(world) = world() else { panic!("no world") };
        let ath = URL_SAFE_NO_PAD.encode(world.token);
        let input = format!(
            r#"c{{"jti":"j","htm":"GET","htu":"https://shop.acme.example/orders/42","iat":{NOW},"ath":"{ath}"}}"#
        );
        dpop(input.as_bytes());
        let seed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/dpop/good");
        assert_eq!(std::fs::read_to_string(seed).unwrap(), input);
    }
}
