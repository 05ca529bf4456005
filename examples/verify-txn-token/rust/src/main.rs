//! How a Rust service checks a Txn-Token with the `jsonwebtoken` crate. It trusts nothing but the edge's published keys.
//! `verify-txn-token JWKS_URL TRUST_DOMAIN < TOKEN` prints the claims.
use anyhow::{Context as _, ensure};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

fn verify(token: &str, jwks: &Value, trust_domain: &str) -> anyhow::Result<Value> {
    let header = decode_header(token)?;
    ensure!(header.typ.as_deref() == Some("txntoken+jwt"), "not a Txn-Token");
    let jwk =
        jwks["keys"].as_array().and_then(|keys| keys.iter().find(|key| key["kid"].as_str() == header.kid.as_deref()));
    let jwk = jwk.context("no such key: fetch the set again, at most once a minute")?;
    let mut rules = Validation::new(Algorithm::ES256);
    (rules.leeway, rules.reject_tokens_expiring_in_less_than) = (5, 0);
    rules.set_audience(&[trust_domain]);
    rules.set_issuer(&[jwk["cs_iss"].as_str().context("the key names no minter")?]);
    rules.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    Ok(decode(token, &DecodingKey::from_jwk(&serde_json::from_value(jwk.clone())?)?, &rules)?.claims)
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (url, trust_domain) = arguments.next().zip(arguments.next()).context("usage: JWKS_URL TRUST_DOMAIN < TOKEN")?;
    let jwks: Value = serde_json::from_str(&ureq::get(&url).call()?.body_mut().read_to_string()?)?;
    let token = std::io::read_to_string(std::io::stdin())?;
    println!("{}", verify(token.trim(), &jwks, &trust_domain)?);
    Ok(())
}
