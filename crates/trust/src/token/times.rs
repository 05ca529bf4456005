//! `exp`, `nbf`, `iat` (RFC 7519 §4.1, `NumericDate`): JSON numbers, whole or with a fraction, within the calendar.
//!
//! Never reads a clock: `now` is an argument.
use super::{Refused, read, refused};
use crate::json::Object;
use crate::reason::Reason;
use serde_json::Value;

/// 9999-12-31T23:59:59Z; a time behind it is a mistake, not a long life.
const LAST_SECOND: i64 = 253_402_300_799;

pub(super) struct Times {
    pub(super) issued_at: Option<i64>,
    pub(super) expires_at: i64,
}

/// Which way a fraction of a second goes: always to where the token is worth less.
#[derive(Clone, Copy)]
enum Round {
    Down,
    Up,
}

pub(super) fn check(claims: &Object, leeway_s: i64, now: i64) -> Result<Times, Refused> {
    let expires_at = date(claims, "exp", Round::Down)?
        .ok_or_else(|| refused(Reason::ClaimsMalformed, "`exp` is missing: a token must end"))?;
    let not_before = date(claims, "nbf", Round::Up)?;
    let issued_at = date(claims, "iat", Round::Up)?;
    // No issuer signs in the future: one of the two clocks is wrong, and operators need to hear that word.
    if let Some(ahead) = issued_at.map(|iat| iat.saturating_sub(now)).filter(|ahead| *ahead > leeway_s) {
        let detail = format!("issued {ahead} s in the future: this host's clock is slow, or the issuer's is fast");
        return Err(refused(Reason::Clock, detail));
    }
    if let Some(ahead) = not_before.map(|nbf| nbf.saturating_sub(now)).filter(|ahead| *ahead > leeway_s) {
        return Err(refused(Reason::NotYetValid, format!("valid only in {ahead} s")));
    }
    let past = now.saturating_sub(expires_at);
    if past >= leeway_s {
        let age = issued_at.map_or_else(String::new, |iat| {
            format!(", issued {} s ago for {} s", now.saturating_sub(iat), expires_at.saturating_sub(iat))
        });
        return Err(refused(Reason::Expired, format!("expired {past} s ago{age}; leeway {leeway_s} s")));
    }
    Ok(Times { issued_at, expires_at })
}

/// When it was made, as it says.
pub(super) fn issued_at(claims: &Object) -> Result<Option<i64>, Refused> {
    date(claims, "iat", Round::Up)
}

/// A `NumericDate`. Strings, negative numbers and numbers behind the calendar are refused.
fn date(claims: &Object, name: &str, round: Round) -> Result<Option<i64>, Refused> {
    let number = match claims.get(name) {
        None => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(read::wrong_type(name, "a number")),
    };
    let seconds = match number.as_i64() {
        Some(whole) => whole,
        None => rounded(number.as_f64(), round).ok_or_else(|| out_of_range(name))?,
    };
    if !(0..=LAST_SECOND).contains(&seconds) {
        return Err(out_of_range(name));
    }
    Ok(Some(seconds))
}

fn out_of_range(name: &str) -> Refused {
    refused(Reason::ClaimsMalformed, format!("{} is not between 1970 and 9999", read::quoted(name)))
}

fn rounded(number: Option<f64>, round: Round) -> Option<i64> {
    let number = number.filter(|n| n.is_finite() && (0.0..=LAST_SECOND as f64).contains(n))?;
    let whole = match round {
        Round::Down => number.floor(),
        Round::Up => number.ceil(),
    };
    // Exact: `whole` is an integer far below 2^53.
    Some(whole as i64)
}
