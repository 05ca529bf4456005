//! Entra's overage: the token says that its subject is in too many groups to list. Whose groups would have to be asked for,
//! by ids that can stand in a URL; where to ask is never taken from the token.
use super::membership;
use crate::issuer::{Preset, Profile};
use crate::json::Object;
use crate::principal::{Kind, Principal};
use serde_json::Value;

/// Whose groups the token leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Overage {
    /// The directory, a GUID.
    pub tenant: String,
    /// The person or program in it, a GUID.
    pub object: String,
    /// A program (service principal), no person.
    pub program: bool,
}

pub(super) fn of(claims: &Object, profile: &Profile, principal: &Principal) -> Option<Overage> {
    if profile.settings().preset != Preset::Entra || !membership::groups_are_elsewhere(claims) {
        return None;
    }
    let id =
        |name: &str| claims.get(name).and_then(Value::as_str).filter(|id| is_guid(id)).map(str::to_ascii_lowercase);
    Some(Overage { tenant: id("tid")?, object: id("oid")?, program: principal.kind != Kind::Person })
}

/// `8-4-4-4-12` hexadecimal digits.
pub fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
