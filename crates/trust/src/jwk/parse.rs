//! From a JWK's members to a key the signature maths can use, or to the one reason why not.
//!
//! Never guesses: a member of the wrong type, length or alphabet leaves the key out.
use super::{Algorithm, KID_BYTES_MAX, KeySet, KeySetError, LeftOut, SET_BYTES_MAX, SET_KEYS_MAX, VerifyingKey};
use crate::json::{self, JsonError, Object};
use aws_lc_rs::{digest, signature::ParsedPublicKey, signature::RsaPublicKeyComponents};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use std::sync::Arc;

/// RSA modulus bounds, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Longest RSA public exponent, in bytes: real ones are 3 and 65537, and a long one only makes a check slow.
const RSA_EXPONENT_BYTES_MAX: usize = 4;
/// Members of private and symmetric keys (RFC 7518 §6.2.2, §6.3.2, §6.4.1; RFC 8037 §2; `priv` of AKP).
const PRIVATE_MEMBERS: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
const RSA_ALGORITHMS: [Algorithm; 6] = {
    use Algorithm::*;
    [Rs256, Rs384, Rs512, Ps256, Ps384, Ps512]
};

pub(super) fn set(jwks: &[u8]) -> Result<(KeySet, Vec<LeftOut>), KeySetError> {
    let mut document = json::object(jwks, SET_BYTES_MAX).map_err(|error| match error {
        JsonError::TooLarge(bytes_max) => KeySetError::TooLarge(bytes_max),
        _ => KeySetError::Syntax,
    })?;
    let Some(Value::Array(listed)) = document.remove("keys") else { return Err(KeySetError::Syntax) };
    if listed.len() > SET_KEYS_MAX {
        return Err(KeySetError::TooMany(SET_KEYS_MAX));
    }
    let mut keys: Vec<Arc<VerifyingKey>> = Vec::with_capacity(listed.len());
    let mut left_out = Vec::new();
    for entry in &listed {
        match usable(entry, &keys) {
            Ok(key) => keys.push(Arc::new(key)),
            Err(why) => left_out.push(LeftOut { kid: shown_kid(entry), why }),
        }
    }
    if keys.is_empty() {
        return Err(KeySetError::NoneUsable(listed.len()));
    }
    Ok((KeySet::from_keys(keys), left_out))
}

fn usable(entry: &Value, earlier: &[Arc<VerifyingKey>]) -> Result<VerifyingKey, &'static str> {
    let key = key(entry.as_object().ok_or("not a JSON object")?)?;
    let repeats = |other: &Arc<VerifyingKey>| {
        other.kid == key.kid && other.thumbprint == key.thumbprint && other.algorithms == key.algorithms
    };
    if earlier.iter().any(repeats) { Err("the same key stands twice") } else { Ok(key) }
}

/// The `kid` to name a key that was left out, safe to print.
fn shown_kid(entry: &Value) -> Option<String> {
    entry.get("kid").and_then(Value::as_str).map(json::excerpt)
}

pub(super) fn key(jwk: &Object) -> Result<VerifyingKey, &'static str> {
    let kty = text(jwk, "kty")?.ok_or("`kty` is missing")?;
    if kty == "oct" {
        return Err("a symmetric key cannot be public");
    }
    if PRIVATE_MEMBERS.iter().any(|name| jwk.contains_key(*name)) {
        return Err("private key members are published: the issuer must replace this key");
    }
    check_use(jwk)?;
    let kid = text(jwk, "kid")?.map(str::to_owned);
    if kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
        return Err("`kid` is too long");
    }
    let key = match kty {
        "RSA" => rsa(jwk)?,
        "EC" => ec(jwk)?,
        "OKP" => okp(jwk)?,
        "AKP" => return Err("post-quantum keys (`AKP`) are not supported yet"),
        _ => return Err("unknown `kty`"),
    };
    Ok(VerifyingKey { kid, ..key })
}

/// A member that is text if present.
fn text<'j>(jwk: &'j Object, name: &str) -> Result<Option<&'j str>, &'static str> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("a member that must be text is not"),
    }
}

/// RFC 7517 §4.2, §4.3: a key that says what it is for must say signatures.
fn check_use(jwk: &Object) -> Result<(), &'static str> {
    if text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Err("`use` is not `sig`");
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => Ok(()),
        Some(_) => Err("`key_ops` does not hold `verify`"),
    }
}

/// What the key's type allows, narrowed by its own `alg`. A token never has a say here.
fn algorithms(jwk: &Object, fitting: &[Algorithm]) -> Result<Vec<Algorithm>, &'static str> {
    let Some(name) = text(jwk, "alg")? else { return Ok(fitting.to_vec()) };
    let algorithm = Algorithm::from_name(name).ok_or("`alg` is no signature algorithm we accept")?;
    if fitting.contains(&algorithm) { Ok(vec![algorithm]) } else { Err("`alg` does not fit the key's type") }
}

fn bytes(jwk: &Object, name: &str) -> Result<Vec<u8>, &'static str> {
    let encoded = text(jwk, name)?.ok_or("a member of the public key is missing")?;
    URL_SAFE_NO_PAD.decode(encoded).map_err(|_| "a member of the public key is not base64url")
}

fn ec(jwk: &Object) -> Result<VerifyingKey, &'static str> {
    let crv = text(jwk, "crv")?.ok_or("`crv` is missing")?;
    let (algorithm, coordinate_bytes) = match crv {
        "P-256" => (Algorithm::Es256, 32),
        "P-384" => (Algorithm::Es384, 48),
        "P-521" => (Algorithm::Es512, 66),
        _ => return Err("unknown `crv`"),
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != coordinate_bytes || y.len() != coordinate_bytes {
        return Err("a coordinate has the wrong length");
    }
    let members = format!(
        r#"{{"crv":"{crv}","kty":"EC","x":"{}","y":"{}"}}"#,
        URL_SAFE_NO_PAD.encode(&x),
        URL_SAFE_NO_PAD.encode(&y)
    );
    let point = [&[0x04], x.as_slice(), y.as_slice()].concat();
    on_curve(jwk, algorithm, &point, &members)
}

fn okp(jwk: &Object) -> Result<VerifyingKey, &'static str> {
    if text(jwk, "crv")?.ok_or("`crv` is missing")? != "Ed25519" {
        return Err("unknown `crv`");
    }
    let x = bytes(jwk, "x")?;
    if x.len() != 32 {
        return Err("a coordinate has the wrong length");
    }
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(&x));
    on_curve(jwk, Algorithm::EdDsa, &x, &members)
}

/// A curve has one algorithm; aws-lc-rs refuses a point that is not on the curve.
fn on_curve(
    jwk: &Object,
    algorithm: Algorithm,
    point: &[u8],
    thumbprint_members: &str,
) -> Result<VerifyingKey, &'static str> {
    let algorithms = algorithms(jwk, &[algorithm])?;
    let verifier = algorithm.curve().ok_or("unknown `crv`")?;
    let parsed = ParsedPublicKey::new(verifier, point).map_err(|_| "the point is not on the curve")?;
    let thumbprint = thumbprint(thumbprint_members);
    Ok(VerifyingKey { kid: None, thumbprint, algorithms, parsed: vec![parsed], modulus_bytes: 0 })
}

fn rsa(jwk: &Object) -> Result<VerifyingKey, &'static str> {
    // RFC 7518 §6.3.1.1 warns of encoders that prefix a zero octet; it changes nothing of the number.
    let (n, e) = (without_zeros(bytes(jwk, "n")?), without_zeros(bytes(jwk, "e")?));
    let bits = n.first().map_or(0, |top| n.len() * 8 - top.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err("the RSA modulus is not 2048 to 8192 bits long");
    }
    let odd = |number: &[u8]| number.last().is_some_and(|low| low & 1 == 1);
    if !odd(&e) || e == [1] || e.len() > RSA_EXPONENT_BYTES_MAX || !odd(&n) {
        return Err("the RSA modulus or exponent is not acceptable");
    }
    if is_roca(&n) {
        return Err("the RSA key was made by a chip with the ROCA flaw (CVE-2017-15361): the issuer must replace it");
    }
    let members =
        format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, URL_SAFE_NO_PAD.encode(&e), URL_SAFE_NO_PAD.encode(&n));
    let algorithms = algorithms(jwk, &RSA_ALGORITHMS)?;
    let modulus_bytes = n.len();
    let components = RsaPublicKeyComponents { n, e };
    let parse = |algorithm: &Algorithm| components.to_parsed_public_key(algorithm.rsa()?).ok();
    let parsed: Option<Vec<ParsedPublicKey>> = algorithms.iter().map(parse).collect();
    let parsed = parsed.ok_or("the RSA modulus or exponent is not acceptable")?;
    Ok(VerifyingKey { kid: None, thumbprint: thumbprint(&members), algorithms, parsed, modulus_bytes })
}

fn without_zeros(number: Vec<u8>) -> Vec<u8> {
    number.into_iter().skip_while(|byte| *byte == 0).collect()
}

/// The primes behind the fingerprint of CVE-2017-15361: every flawed modulus is a power of 65537 modulo each of them.
const ROCA_PRIMES: [u64; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Nemec et al., "The Return of Coppersmith's Attack" (CCS 2017): a sound key has this fingerprint once in 2^154.
fn is_roca(modulus: &[u8]) -> bool {
    let remainder = |prime: u64| modulus.iter().fold(0, |rest, byte| (rest << 8 | u64::from(*byte)) % prime);
    let is_power = |prime: u64| {
        let wanted = remainder(prime);
        let powers = std::iter::successors(Some(1), |power| Some(power * 65_537 % prime));
        powers.take(prime as usize).any(|power| power == wanted)
    };
    ROCA_PRIMES.into_iter().all(is_power)
}

/// RFC 7638 §3: SHA-256 over the required members, sorted, without white space.
fn thumbprint(members: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, members.as_bytes()))
}
