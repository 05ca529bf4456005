//! Reads claims by name or path, strictly by type. Never guesses a type and never shows a claim unescaped or unbounded.
use super::{Refused, refused};
use crate::json::Object;
use crate::principal::Membership;
use crate::reason::Reason;
use serde_json::Value;
use std::sync::Arc;

/// Longest stable id, client id or token id, in bytes.
pub(super) const ID_BYTES_MAX: usize = 255;

/// A piece of a token for a detail text: in backticks, escaped, at most 80 characters.
pub(super) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(80).is_some() { "…" } else { "" };
    format!("`{shown}{more}`")
}

/// At most `chars_max` characters, the invisible ones written out.
pub(super) fn plain(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for c in text.chars().take(chars_max) {
        if is_deceptive(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

pub(super) fn wrong_type(claim: &str, expected: &str) -> Refused {
    refused(Reason::ClaimsMalformed, format!("{} is not {expected}", quoted(claim)))
}

/// A top-level string; any other type is an error.
pub(super) fn text<'c>(claims: &'c Object, name: &str) -> Result<Option<&'c str>, Refused> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong_type(name, "a string")),
    }
}

/// The value at a path of literal member names.
pub(super) fn at<'c, S: AsRef<str>>(claims: &'c Object, path: &[S]) -> Option<&'c Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(claims.get(first.as_ref())?, |value, name| value.as_object()?.get(name.as_ref()))
}

/// Invisible and direction-changing characters have no business in a name that people read in a log.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// An identifier: not empty, bounded, nothing invisible in it.
pub(super) fn identifier<'c>(what: &str, text: &'c str) -> Result<&'c str, Refused> {
    let problem = if text.is_empty() {
        "is empty"
    } else if text.len() > ID_BYTES_MAX {
        "is longer than 255 bytes"
    } else if text.chars().any(is_deceptive) {
        "holds a control or an invisible character"
    } else {
        return Ok(text);
    };
    Err(refused(Reason::ClaimsMalformed, format!("{} {problem}", quoted(what))))
}

/// A top-level identifier, when present.
pub(super) fn id<'c>(claims: &'c Object, name: &str) -> Result<Option<&'c str>, Refused> {
    text(claims, name)?.map(|text| identifier(name, text)).transpose()
}

/// A top-level identifier that must be there.
pub(super) fn required<'c>(claims: &'c Object, name: &str) -> Result<&'c str, Refused> {
    id(claims, name)?.ok_or_else(|| refused(Reason::ClaimsMalformed, format!("{} is missing", quoted(name))))
}

/// `jti`, else Entra's `uti`; for the record only, so a strange one is left out.
pub(super) fn token_id(claims: &Object) -> Option<String> {
    let found = ["jti", "uti"].iter().find_map(|name| id(claims, name).ok().flatten());
    found.map(str::to_owned)
}

/// One string or an array of strings; anything else is refused, so that a mistyped claim never reads as "no groups".
pub(super) fn names(claim: &str, value: &Value) -> Result<Vec<Arc<str>>, Refused> {
    match value {
        Value::String(one) => Ok(vec![Arc::from(one.as_str())]),
        Value::Array(many) => many
            .iter()
            .map(|name| name.as_str().map(Arc::from).ok_or_else(|| wrong_type(claim, "an array of strings")))
            .collect(),
        _ => Err(wrong_type(claim, "a string or an array of strings")),
    }
}

/// Scopes: RFC 8693 §4.2 space-separated text, or the array that Okta sends.
pub(super) fn scopes(claim: &str, value: &Value) -> Result<Vec<Arc<str>>, Refused> {
    match value {
        Value::String(text) => Ok(text.split(' ').filter(|scope| !scope.is_empty()).map(Arc::from).collect()),
        other => names(claim, other),
    }
}

/// Nothing known, and nothing excluded.
pub(super) fn unknown() -> Membership {
    Membership::partial([])
}
