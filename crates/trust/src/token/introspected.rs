//! Tokens that only their issuer can read (RFC 7662): what its answer says, judged as strictly as a JWT's claims.
//!
//! `active` alone makes nobody: the answer must besides be about an access token, for us, alive, and name its subject.
use super::{
    Binding, Facts, Refused, VerifiedToken, audience, constrained_enough, kind, read, refused, subject, times,
};
use crate::issuer::Profile;
use crate::json::{self, Object};
use crate::jwk::KeySet;
use crate::jws::Unverified;
use crate::reason::Reason;
use serde_json::Value;

/// Longest opaque token, in bytes.
pub const OPAQUE_BYTES_MAX: usize = 4 * 1024;
/// Largest answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// An answer is believed for so long at most, in seconds, and a signed one must be no older.
pub const ANSWER_LIFE_S: i64 = 30;

/// Can nobody but its issuer read this? What may stand after a scheme (RFC 9110 §11.2), and not the three parts of a JWS.
pub fn is_opaque(text: &str) -> bool {
    let (body, _) = text.split_at(text.trim_end_matches('=').len());
    let mark = |byte: u8| matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    !body.is_empty()
        && text.len() <= OPAQUE_BYTES_MAX
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || mark(byte))
        && text.split('.').count() != 3
}

/// What an introspection answer proves. `now` is when the question was asked; believe it for [`ANSWER_LIFE_S`] at most.
pub fn introspected(answer: &Object, profile: &Profile, now: i64) -> Result<VerifiedToken, Refused> {
    match answer.get("active") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => {
            return Err(refused(Reason::TokenInactive, "the issuer says that it is not active"));
        }
        _ => return Err(refused(Reason::TokenInactive, "the issuer's answer has no `active: true`")),
    }
    let claims = completed(answer, profile, now)?;
    kind::refuse_foreign(&claims, profile)?;
    let iss = read::required(&claims, "iss")?;
    if !profile.accepts_iss(iss) {
        return Err(super::iss_refusal(profile, iss));
    }
    check_audience(&claims, profile)?;
    let times = times::check(&claims, profile.settings().leeway_s, now)?;
    subject::check_tenant(&claims, iss, profile)?;
    let binding = Binding::of(&claims)?;
    check_type(&claims, &binding)?;
    constrained_enough(&binding, profile)?;
    let principal = subject::principal(&claims, profile, times.expires_at)?;
    let facts = Facts {
        kid: None,
        algorithm: "introspection".to_owned(),
        audience: audience::seen(&claims),
        issued_at: times.issued_at,
        expires_at: times.expires_at,
        token_id: read::token_id(&claims),
        bound: binding.bound(),
    };
    Ok(VerifiedToken { principal, facts, binding, overage: None })
}

/// What RFC 7662 lets an issuer leave out: its own name, for we asked nobody else; an end, then the answer's own; and the
/// subject of a program that acts for itself, which is the client (as RFC 9068 §2.2 has it).
fn completed(answer: &Object, profile: &Profile, now: i64) -> Result<Object, Refused> {
    let mut claims = answer.clone();
    if let Some(own) = profile.issuers().first() {
        claims.entry("iss").or_insert_with(|| own.as_str().into());
    }
    claims.entry("exp").or_insert_with(|| now.saturating_add(ANSWER_LIFE_S).into());
    if !claims.contains_key("sub")
        && let Some(client) = audience::client(answer, profile)?
    {
        claims.insert("sub".to_owned(), client.into());
    }
    Ok(claims)
}

/// A refresh token can be `active` too (RFC 7662 §4), so the answer must say that this is none.
fn check_type(claims: &Object, binding: &Binding) -> Result<(), Refused> {
    let Some(written) = read::text(claims, "token_type")? else {
        let detail = "the answer has no `token_type`, so it could be about a refresh token";
        return Err(refused(Reason::TokenKind, detail));
    };
    match written.to_ascii_lowercase().as_str() {
        "bearer" => Ok(()),
        "dpop" if binding.bound().is_some() => Ok(()),
        "dpop" => Err(refused(Reason::SenderConstrained, "`token_type` is `DPoP`, and `cnf` names no key")),
        _ => {
            let detail = format!("`token_type` is {}, which is no access token", read::quoted(written));
            Err(refused(Reason::TokenKind, detail))
        }
    }
}

/// As for a JWT. An answer without `aud` will do only where `clients` says whose tokens are meant.
fn check_audience(claims: &Object, profile: &Profile) -> Result<(), Refused> {
    let listed = &profile.settings().clients;
    if claims.contains_key("aud") || listed.is_empty() {
        return audience::check(claims, profile);
    }
    match audience::client(claims, profile)? {
        Some(client) if listed.iter().any(|ours| ours == client) => Ok(()),
        _ => Err(refused(Reason::AudienceWrong, "the answer has no `aud`, and its client is not in `clients`")),
    }
}

/// A signed answer (RFC 9701 §5): the issuer's signature, for our client, and new. Returns what it says of the token.
pub fn signed_answer(
    text: &str,
    profile: &Profile,
    keys: &KeySet,
    client_id: &str,
    now: i64,
) -> Result<Object, Refused> {
    let signed = Unverified::parse(text, ANSWER_BYTES_MAX)?.verify(keys, profile.algorithms())?;
    if signed.typ() != Some("token-introspection+jwt") {
        return Err(refused(Reason::TokenKind, "`typ` of the answer is not `token-introspection+jwt`"));
    }
    let mut claims = json::object(signed.payload(), ANSWER_BYTES_MAX)
        .map_err(|error| refused(Reason::ClaimsMalformed, format!("claims of the answer: {error}")))?;
    let iss = read::required(&claims, "iss")?;
    if !profile.accepts_iss(iss) {
        return Err(super::iss_refusal(profile, iss));
    }
    if !audience::read_audiences(&claims)?.contains(&client_id) {
        return Err(refused(Reason::AudienceWrong, "the answer is for another client than ours"));
    }
    let age = times::issued_at(&claims)?.map(|iat| now.saturating_sub(iat));
    let old = ANSWER_LIFE_S + profile.settings().leeway_s;
    if !age.is_some_and(|age| (-profile.settings().leeway_s..=old).contains(&age)) {
        return Err(refused(Reason::Clock, "`iat` of the answer is missing, or not now"));
    }
    match claims.remove("token_introspection") {
        Some(Value::Object(answer)) => Ok(answer),
        _ => Err(read::wrong_type("token_introspection", "an object")),
    }
}
