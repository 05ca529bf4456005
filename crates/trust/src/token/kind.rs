//! Is it an access token at all? One kind of token is never accepted for another (RFC 8725 §3.11, §3.12).
//!
//! `typ: at+jwt` (RFC 9068) says so. Most providers write `JWT` or nothing, so every such token must besides *show* that
//! it is an access token, by what its provider puts into those and into nothing else. Absence of proof refuses.
use super::{Refused, audience, read, refused};
use crate::issuer::{Preset, Profile};
use crate::json::Object;
use crate::reason::Reason;
use serde_json::Value;

/// Claims that only other kinds of token carry, and which kind that is.
const FOREIGN: [(&str, &str); 11] = [
    ("at_hash", "an ID token"),
    ("c_hash", "an ID token"),
    ("s_hash", "an ID token"),
    ("events", "a logout token or security event"),
    ("htm", "a DPoP proof"),
    ("htu", "a DPoP proof"),
    ("req_wl", "a Txn-Token"),
    ("rctx", "a Txn-Token"),
    ("tctx", "a Txn-Token"),
    ("token_introspection", "an introspection answer"),
    ("response_type", "an authorization request"),
];

/// What `typ` in the header says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Typ {
    /// `at+jwt`: an access token, in so many words.
    AccessToken,
    /// `JWT` or nothing.
    Silent,
}

fn wrong_kind(detail: impl Into<String>) -> Refused {
    refused(Reason::TokenKind, detail)
}

pub(super) fn check(claims: &Object, typ: Option<&str>, profile: &Profile) -> Result<(), Refused> {
    let typ = header_typ(typ, profile)?;
    refuse_foreign(claims, profile)?;
    match profile.settings().preset {
        Preset::Entra => entra(claims),
        Preset::Okta => named_client(claims, "cid", "Okta"),
        Preset::Auth0 => auth0(claims, profile),
        Preset::Cognito => cognito(claims),
        Preset::Keycloak => keycloak(claims, typ),
        Preset::Google => named_client(claims, "azp", "Google's identity"),
        Preset::GithubActions => github(claims),
        Preset::Kubernetes => kubernetes(claims),
        Preset::Generic => generic(claims, typ, profile),
    }
}

/// Media types compare without case, and `application/` may be left out (RFC 7515 §4.1.9).
fn header_typ(typ: Option<&str>, profile: &Profile) -> Result<Typ, Refused> {
    let Some(written) = typ else { return silent(profile, "the header has no `typ`") };
    let lower = written.to_ascii_lowercase();
    match lower.strip_prefix("application/").unwrap_or(&lower) {
        "at+jwt" => Ok(Typ::AccessToken),
        "jwt" => silent(profile, "`typ` is `JWT`"),
        "okta-internal-at+jwt" => {
            Err(wrong_kind("a token of Okta's org authorization server: use a custom authorization server"))
        }
        _ => Err(wrong_kind(format!("`typ` is {}, which is no access token", read::quoted(written)))),
    }
}

fn silent(profile: &Profile, what: &str) -> Result<Typ, Refused> {
    if profile.settings().accept_typ_jwt {
        return Ok(Typ::Silent);
    }
    Err(wrong_kind(format!("{what}, and this issuer is configured for `at+jwt` alone")))
}

pub(super) fn refuse_foreign(claims: &Object, profile: &Profile) -> Result<(), Refused> {
    if let Some((claim, kind)) = FOREIGN.iter().find(|(claim, _)| claims.contains_key(*claim)) {
        return Err(wrong_kind(format!("`{claim}` belongs to {kind}")));
    }
    let says = |claim: &str| claims.get(claim).and_then(Value::as_str);
    // Older Keycloaks copy the nonce of the sign-in into access tokens; there the `typ` claim tells the two apart.
    let nonce_is_harmless = profile.settings().preset == Preset::Keycloak && says("typ") == Some("Bearer");
    if claims.contains_key("nonce") && !nonce_is_harmless {
        return Err(wrong_kind("`nonce` belongs to an ID token"));
    }
    if claims.get("token_use").is_some_and(|used| used.as_str() != Some("access")) {
        return Err(wrong_kind("`token_use` is not `access`"));
    }
    if let Some(kind) = says("typ").filter(|kind| matches!(*kind, "ID" | "Refresh" | "Offline" | "Logout")) {
        return Err(wrong_kind(format!("the `typ` claim is `{kind}`")));
    }
    match (says("sub"), says("iss")) {
        (Some(sub), _) if sub.starts_with("spiffe://") => Err(wrong_kind("a JWT-SVID: its `sub` is a SPIFFE ID")),
        (Some(sub), Some(iss)) if sub == iss => Err(wrong_kind("a client assertion: `sub` is `iss`")),
        _ => Ok(()),
    }
}

/// Entra writes the client (`azp`, v1 `appid`) into access tokens only, and `scp` into every access token of a person.
fn entra(claims: &Object) -> Result<(), Refused> {
    if !claims.contains_key("azp") && !claims.contains_key("appid") {
        return Err(wrong_kind(
            "names no client (`azp`, `appid`), as Entra's access tokens do and its ID tokens do not",
        ));
    }
    let app_only = super::subject::entra_is_app_only(claims)?;
    if !app_only && !claims.contains_key("scp") {
        return Err(wrong_kind("neither `scp`, as every access token of a person has, nor an app-only token"));
    }
    Ok(())
}

fn named_client(claims: &Object, claim: &str, whose: &str) -> Result<(), Refused> {
    if claims.contains_key(claim) {
        return Ok(());
    }
    Err(wrong_kind(format!("names no client (`{claim}`), as {whose} tokens do")))
}

/// Auth0 names the client in access tokens; the audience of an ID token is that client itself.
fn auth0(claims: &Object, profile: &Profile) -> Result<(), Refused> {
    let Some(client) = audience::client(claims, profile)? else {
        return Err(wrong_kind("names no client (`azp`, `client_id`), as Auth0's access tokens do"));
    };
    refuse_own_audience(claims, client)
}

/// The sole audience is the client: what an ID token looks like. Sound only where an API is never its own client.
fn refuse_own_audience(claims: &Object, client: &str) -> Result<(), Refused> {
    if audience::read_audiences(claims)? == [client] {
        return Err(wrong_kind("for the client itself, as an ID token is"));
    }
    Ok(())
}

fn cognito(claims: &Object) -> Result<(), Refused> {
    if claims.contains_key("token_use") {
        return Ok(()); // `refuse_foreign` let nothing but `access` through.
    }
    Err(wrong_kind("no `token_use`, as every token of Cognito has"))
}

/// Keycloak names the kind in a *claim* `typ`, whatever the header says.
fn keycloak(claims: &Object, typ: Typ) -> Result<(), Refused> {
    match (claims.get("typ").map(|kind| kind.as_str()), typ) {
        (Some(Some("Bearer")), _) | (None, Typ::AccessToken) => Ok(()),
        // Bound to a key; the check of `cnf` answers for it.
        (Some(Some("DPoP")), _) if claims.contains_key("cnf") => Ok(()),
        (Some(_), _) => Err(wrong_kind("the `typ` claim is not `Bearer`")),
        (None, Typ::Silent) => Err(wrong_kind("no `typ` claim, as every token of Keycloak has")),
    }
}

fn github(claims: &Object) -> Result<(), Refused> {
    if claims.contains_key("repository_id") && claims.contains_key("repository_owner_id") {
        return Ok(());
    }
    Err(wrong_kind("names no `repository_id` and `repository_owner_id`, as the token of a workflow run does"))
}

fn kubernetes(claims: &Object) -> Result<(), Refused> {
    if claims.get("kubernetes.io").is_some_and(Value::is_object) {
        return Ok(());
    }
    Err(wrong_kind("no `kubernetes.io` claim, as every bound service account token has"))
}

/// A silent token must carry what ID tokens, assertions and JWT-SVIDs never do: scopes or `client_id` (RFC 9068 §2.2).
fn generic(claims: &Object, typ: Typ, profile: &Profile) -> Result<(), Refused> {
    if typ == Typ::AccessToken {
        return Ok(());
    }
    let scopes = profile.settings().claims.scopes.as_ref().and_then(|path| read::at(claims, path));
    let scoped = scopes.is_some() || claims.contains_key("scope") || claims.contains_key("scp");
    if !scoped && !claims.contains_key("client_id") {
        return Err(wrong_kind(
            "nothing shows that this is an access token: no `typ: at+jwt`, no `scope`, no `client_id`. Make the issuer \
             send one of them",
        ));
    }
    match audience::client(claims, profile)? {
        Some(client) if !scoped => refuse_own_audience(claims, client),
        _ => Ok(()),
    }
}
