//! Explains a token to a person: what it is, its header, its signature, each claim on its own. Reads leniently so that a
//! broken token can be shown too; every verdict of acceptance comes from `trust`, never from here. Nothing of it is ever
//! printed whole: no signature, no token, no claim beyond its first characters.
mod claims;
mod clock;
mod read;
#[cfg(test)]
mod tests;

use crate::config::problem::printable;
use serde_json::{Value, json};
use trust::issuer::Profile;
use trust::jwk::{Algorithm, KeySet};
use trust::jws::{JwsError, Unverified};
use trust::token::{BYTES_MAX, Peeked};

/// Characters of one value that are shown.
const SHOWN_MAX: usize = 120;

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    Good,
    Wrong,
    /// Neither: a fact to know.
    Note,
    /// Could not be judged with what was given.
    Unchecked,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    pub section: &'static str,
    pub name: String,
    pub mark: Mark,
    pub text: String,
}

/// Everything that was found, in the order to read it.
#[derive(Debug, Default)]
pub struct Report(pub Vec<Finding>);

/// What to judge with, as far as it is there.
#[derive(Default)]
pub struct Judge<'a> {
    pub profile: Option<&'a Profile>,
    pub keys: Option<&'a KeySet>,
    /// Unix seconds.
    pub now: i64,
}

impl Report {
    pub(crate) fn add(&mut self, section: &'static str, name: impl Into<String>, mark: Mark, text: impl AsRef<str>) {
        self.0.push(Finding { section, name: name.into(), mark, text: printable(text.as_ref()) });
    }

    pub fn wrong(&self) -> usize {
        self.0.iter().filter(|finding| finding.mark == Mark::Wrong).count()
    }

    pub fn to_json(&self) -> Value {
        json!({ "ok": self.wrong() == 0, "findings": self.0 })
    }
}

/// A value as it may be shown.
fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{short}`")
}

/// Looks at whatever came in.
pub fn inspect(input: &[u8], judge: &Judge<'_>) -> Report {
    let mut report = Report::default();
    let Ok(input) = std::str::from_utf8(input) else {
        report.add(
            "shape",
            "text",
            Mark::Wrong,
            "the input is binary, and a token is text; it may be compressed or a file of another kind",
        );
        return report;
    };
    let token = read::clean(input, &mut report);
    if token.is_empty() {
        report.add("shape", "text", Mark::Wrong, "nothing came in; try: countersign token inspect < token.txt");
        return report;
    }
    let parts: Vec<&str> = token.split('.').collect();
    match parts.as_slice() {
        [header, payload, _signature] => jws(&token, header, payload, judge, &mut report),
        [header, _, _, _, _] => jwe(header, &mut report),
        [_] => report.add(
            "shape",
            "kind",
            Mark::Wrong,
            format!(
                "an opaque token of {} characters: only its issuer can say what it means. Ask the issuer for a JWT (Okta: a \
                 custom authorization server; Auth0: request an `audience`)",
                token.len()
            ),
        ),
        [header, _] => {
            let what = "two parts: the signature is missing; it was cut off, or the token is unsigned";
            report.add("shape", "kind", Mark::Wrong, what);
            read::header(header, &mut report);
        }
        many => {
            let what = format!("{} parts between dots; a signed token has 3, an encrypted one 5", many.len());
            report.add("shape", "kind", Mark::Wrong, what);
        }
    }
    report
}

fn jwe(header: &str, report: &mut Report) {
    let what = "five parts: an encrypted token (JWE). Only the holder of its key can read it, so it cannot be checked here \
                or at the edge. Have the issuer send signed, unencrypted access tokens";
    report.add("shape", "kind", Mark::Wrong, what);
    read::header(header, report);
}

fn jws(token: &str, header: &str, payload: &str, judge: &Judge<'_>, report: &mut Report) {
    match Unverified::parse(token, BYTES_MAX) {
        Ok(_) => report.add("shape", "kind", Mark::Good, format!("a signed token (JWS), {} bytes", token.len())),
        Err(error) => report.add("shape", "kind", Mark::Wrong, shape_problem(&error, token.len())),
    }
    let header = read::header(header, report);
    signature(token, judge, report);
    let Some(claims) = read::payload(payload, report) else { return };
    claims::explain(&header.unwrap_or_default(), &claims, judge, report);
    verdict(token, judge, report);
}

fn shape_problem(error: &JwsError, bytes: usize) -> String {
    let fix = match error {
        JwsError::TooLarge(_) => format!("; it has {bytes}: too many groups or roles in it?"),
        JwsError::Shape => "; a character was lost or added when it was copied?".to_owned(),
        JwsError::Algorithm(name) if name.eq_ignore_ascii_case("none") => {
            "; it is unsigned, anybody could have made it".into()
        }
        JwsError::Algorithm(name) if name.starts_with("HS") => {
            "; whoever can check such a token can also make one, so the issuer must sign with a key pair".to_owned()
        }
        JwsError::HeaderForbidden(_) => "; a header must not bring its own key or obligations".to_owned(),
        _ => String::new(),
    };
    format!("the strict reader refuses it: {error}{fix}")
}

fn signature(token: &str, judge: &Judge<'_>, report: &mut Report) {
    let Some(keys) = judge.keys else {
        let hint = match judge.profile {
            Some(profile) => format!("; the keys are named by `jwks_uri` in {}", profile.discovery_url()),
            None => String::new(),
        };
        let text = format!("not checked: give the issuer's keys with --jwks FILE{hint}");
        return report.add("signature", "signature", Mark::Unchecked, text);
    };
    let Ok(unverified) = Unverified::parse(token, BYTES_MAX) else {
        return report.add(
            "signature",
            "signature",
            Mark::Unchecked,
            "not checked: the strict reader refuses the token",
        );
    };
    let allowed = judge.profile.map_or(&Algorithm::ALL[..], Profile::algorithms);
    match unverified.verify(keys, allowed) {
        Ok(verified) => {
            let key =
                verified.key().kid().map_or("a key without `kid`".to_owned(), |kid| format!("key {}", shown(kid)));
            report.add("signature", "signature", Mark::Good, format!("{}, fits {key}", verified.algorithm().name()));
        }
        Err(error @ JwsError::KeyUnknown(_)) => {
            let kids: Vec<String> = keys.keys().iter().filter_map(|key| key.kid()).take(8).map(shown).collect();
            let text = format!("{error}; the key set has {}. An old key set, or another issuer's?", kids.join(", "));
            report.add("signature", "signature", Mark::Wrong, text);
        }
        Err(error) => report.add("signature", "signature", Mark::Wrong, error.to_string()),
    }
}

/// What the edge would say, when there is an issuer to judge by.
fn verdict(token: &str, judge: &Judge<'_>, report: &mut Report) {
    let Some(profile) = judge.profile else { return };
    let name = profile.name();
    let peeked = match Peeked::parse(token) {
        Ok(peeked) => peeked,
        Err(refused) => return report.add("verdict", "edge", Mark::Wrong, format!("refuses it: {refused}")),
    };
    let Some(keys) = judge.keys else {
        return match peeked.plausible(profile, judge.now) {
            Ok(()) => report.add(
                "verdict",
                "edge",
                Mark::Unchecked,
                format!("would accept it from `{name}` if the signature fits"),
            ),
            Err(refused) => report.add("verdict", "edge", Mark::Wrong, format!("refuses it: {refused}")),
        };
    };
    match peeked.verify(profile, keys, judge.now) {
        Ok(verified) => {
            let subject = shown(&verified.principal().subject);
            report.add("verdict", "edge", Mark::Good, format!("accepts it as {subject}"));
        }
        Err(refused) => report.add("verdict", "edge", Mark::Wrong, format!("refuses it: {refused}")),
    }
}
