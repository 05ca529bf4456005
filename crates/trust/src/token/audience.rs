//! Is the token for us? `aud` by exact string comparison (RFC 7519 §4.1.3), and the client where that is all there is.
//!
//! Never ignores a trailing slash or case: a near miss is refused, and the detail says how near it was.
use super::{Refused, read, refused};
use crate::issuer::{API_SERVER_AUDIENCES, Preset, Profile};
use crate::json::Object;
use crate::reason::Reason;
use serde_json::Value;

/// Most audiences a token may have, and most that are kept for the record.
const AUDIENCES_MAX: usize = 16;

pub(super) fn check(claims: &Object, profile: &Profile) -> Result<(), Refused> {
    let audiences = read_audiences(claims)?;
    let settings = profile.settings();
    let client = client(claims, profile)?;
    let is_ours = |audience: &&str| settings.audience.iter().any(|ours| ours == audience);
    if audiences.is_empty() {
        // Cognito's access tokens have no `aud`; the client below stands in for it.
        if settings.preset != Preset::Cognito || !settings.audience.is_empty() || claims.contains_key("aud") {
            return Err(refused(Reason::AudienceWrong, "the token has no `aud`"));
        }
    } else if !audiences.iter().any(is_ours) {
        return Err(wrong_audience(&audiences, &settings.audience));
    }
    if settings.preset == Preset::Kubernetes {
        refuse_api_server(claims, &audiences)?;
    }
    // OpenID Connect Core §3.1.3.7 asks for `azp` with several audiences: a token that somebody else may hold
    // rightfully must at least say whom it was given to.
    if audiences.len() > 1 && client.is_none() && !audiences.iter().all(is_ours) {
        let detail = "several audiences, not all of them ours, and no client named";
        return Err(refused(Reason::AudienceWrong, detail));
    }
    match client {
        _ if settings.clients.is_empty() => Ok(()),
        Some(client) if settings.clients.iter().any(|ours| ours == client) => Ok(()),
        Some(client) => {
            let detail = format!("issued to client {}, which is not in `clients`", read::quoted(client));
            Err(refused(Reason::AudienceWrong, detail))
        }
        None => Err(refused(Reason::AudienceWrong, "names no client, and `clients` is configured")),
    }
}

/// The OAuth client the token was issued to, as the configured path or the preset's claims say.
pub(super) fn client<'c>(claims: &'c Object, profile: &Profile) -> Result<Option<&'c str>, Refused> {
    if let Some(path) = &profile.settings().claims.client {
        return match read::at(claims, path) {
            None => Ok(None),
            Some(Value::String(client)) => read::identifier("client", client).map(Some),
            Some(_) => Err(read::wrong_type("client", "a string")),
        };
    }
    let mut named = None;
    for claim in profile.dialect().client {
        match (named, read::id(claims, claim)?) {
            (None, found) => named = found,
            (Some(first), Some(second)) if first != second => {
                return Err(refused(Reason::ClaimsMalformed, format!("{claim} names another client than its twin")));
            }
            _ => {}
        }
    }
    Ok(named)
}

/// For the record.
pub(super) fn seen(claims: &Object) -> Vec<String> {
    read_audiences(claims).unwrap_or_default().into_iter().map(str::to_owned).collect()
}

/// One string or an array of strings, RFC 7519 §4.1.3; a missing `aud` reads as none.
pub(super) fn read_audiences(claims: &Object) -> Result<Vec<&str>, Refused> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(many)) if many.len() <= AUDIENCES_MAX => many
            .iter()
            .map(|audience| audience.as_str().ok_or_else(|| read::wrong_type("aud", "an array of strings")))
            .collect(),
        Some(Value::Array(_)) => Err(refused(Reason::ClaimsMalformed, "`aud` lists more than 16 audiences")),
        Some(_) => Err(read::wrong_type("aud", "a string or an array of strings")),
    }
}

fn wrong_audience(seen: &[&str], ours: &[String]) -> Refused {
    let shown: Vec<String> = seen.iter().take(4).map(|audience| read::quoted(audience)).collect();
    let near = seen.iter().find_map(|seen| {
        ours.iter().find_map(|ours| {
            if seen.trim_end_matches('/') == ours.trim_end_matches('/') {
                Some(format!("; differs from `{ours}` only in a trailing slash"))
            } else if seen.eq_ignore_ascii_case(ours) {
                Some(format!("; differs from `{ours}` only in upper and lower case"))
            } else {
                None
            }
        })
    });
    let near = near.unwrap_or_default();
    refused(Reason::AudienceWrong, format!("for {}, which is not ours{near}", shown.join(", ")))
}

/// A token that the API server would take as well could be played on by whoever gets it from us.
fn refuse_api_server(claims: &Object, audiences: &[&str]) -> Result<(), Refused> {
    let iss = read::text(claims, "iss")?.unwrap_or_default();
    match audiences.iter().find(|audience| API_SERVER_AUDIENCES.contains(audience) || **audience == iss) {
        Some(audience) => {
            let detail = format!(
                "also good at the API server ({}); ask for a token of our audience only",
                read::quoted(audience)
            );
            Err(refused(Reason::AudienceWrong, detail))
        }
        None => Ok(()),
    }
}
