//! From checked claims to a [`Principal`]: who it is by a stable id, what kind of party, and which agent acts.
//!
//! Never takes an e-mail address, a user name or anything else that can be given to somebody else for an identity.
use super::{Refused, audience, membership, read, refused};
use crate::issuer::{Preset, Profile};
use crate::json::Object;
use crate::principal::{Agent, Asking, Assurance, Kind, Principal};
use crate::reason::Reason;
use serde_json::Value;
use std::sync::Arc;

/// Entra knows 99 authentication contexts; what comes beyond is not met.
const CONTEXTS_MAX: usize = 99;

/// Who the token is about, before agents are looked at.
struct Party {
    kind: Kind,
    id: String,
}

pub(super) fn principal(claims: &Object, profile: &Profile, expires_at: i64) -> Result<Principal, Refused> {
    // Also where another claim is the id: a `sub` of another type is no JWT (RFC 7519 §4.1.2).
    read::text(claims, "sub")?;
    let client = audience::client(claims, profile)?;
    let agent = agent(claims, profile, client)?;
    let mut party = party(claims, profile, client)?;
    let agent = match (agent, client) {
        // The program itself holds the token: it is the agent, under the name rules know it by when it acts for people.
        (Some(Actor::Client), Some(client)) if party.kind == Kind::Workload => {
            party = Party { kind: Kind::Agent, id: client.to_owned() };
            None
        }
        (Some(Actor::Client), Some(client)) => Some(Agent { name: Arc::from(client) }),
        (Some(Actor::Claimed(name)), _) => Some(Agent { name: Arc::from(name) }),
        _ => None,
    };
    read::identifier("the stable id", &party.id)?;
    Ok(Principal {
        kind: party.kind,
        subject: Arc::from(format!("{}|{}", profile.name(), party.id)),
        issuer: Arc::clone(profile.name()),
        id: Arc::from(party.id),
        client: client.map(Arc::from),
        groups: membership::groups(claims, profile)?,
        roles: membership::roles(claims, profile)?,
        scopes: membership::scopes(claims, profile)?,
        agent,
        assurance: assurance(claims, profile),
        expires_at,
    })
}

/// Who acts, if somebody other than the subject does.
enum Actor<'c> {
    /// RFC 8693 §4.1, outermost `act`: nested ones are history and give no rights.
    Claimed(&'c str),
    /// The client is configured as an agent.
    Client,
}

fn agent<'c>(claims: &'c Object, profile: &Profile, client: Option<&str>) -> Result<Option<Actor<'c>>, Refused> {
    match claims.get("act") {
        Some(Value::Object(act)) => {
            let name = read::required(act, "sub")?;
            // Rules name such agents by their certificate; an issuer's word for it proves nothing.
            if name.starts_with("spiffe://") || name.starts_with('/') {
                let detail =
                    format!("`act.sub` {} is a SPIFFE ID, which only a certificate proves", read::quoted(name));
                return Err(refused(Reason::ClaimsMalformed, detail));
            }
            Ok(Some(Actor::Claimed(name)))
        }
        Some(_) => Err(read::wrong_type("act", "an object")),
        None => {
            let listed = client.is_some_and(|client| profile.settings().agents.iter().any(|agent| agent == client));
            Ok(listed.then_some(Actor::Client))
        }
    }
}

fn party(claims: &Object, profile: &Profile, client: Option<&str>) -> Result<Party, Refused> {
    let party = match profile.settings().preset {
        Preset::Entra => entra(claims)?,
        Preset::Okta => okta(claims, client)?,
        Preset::GithubActions => github(claims)?,
        Preset::Kubernetes => kubernetes(claims)?,
        Preset::Auth0 => auth0(claims)?,
        Preset::Keycloak => keycloak(claims)?,
        Preset::Cognito | Preset::Google | Preset::Generic => by_sub(claims, client)?,
    };
    match &profile.settings().claims.id {
        Some(path) => Ok(Party { id: configured_id(claims, path)?, ..party }),
        None => Ok(party),
    }
}

/// `sub`; a client that is its own subject is a program (RFC 9068 §2.2: client credentials).
fn by_sub(claims: &Object, client: Option<&str>) -> Result<Party, Refused> {
    let sub = read::required(claims, "sub")?;
    let kind = if client == Some(sub) { Kind::Workload } else { Kind::Person };
    Ok(Party { kind, id: sub.to_owned() })
}

fn configured_id(claims: &Object, path: &[String]) -> Result<String, Refused> {
    match read::at(claims, path) {
        Some(Value::String(id)) => Ok(id.clone()),
        Some(Value::Number(id)) if id.is_u64() => Ok(id.to_string()),
        Some(_) => Err(read::wrong_type(&path.join("."), "a string or a whole number")),
        None => Err(refused(Reason::ClaimsMalformed, format!("{} is missing", read::quoted(&path.join("."))))),
    }
}

/// `tid.oid`: the same person in every app of the tenant, and never the same as in another tenant. `sub` differs per app.
fn entra(claims: &Object) -> Result<Party, Refused> {
    let kind = if entra_is_app_only(claims)? { Kind::Workload } else { Kind::Person };
    Ok(Party { kind, id: format!("{}.{}", read::required(claims, "tid")?, read::required(claims, "oid")?) })
}

/// `idtyp` says so where the API asks for that optional claim; else an app-only token has no `scp` and is its own subject.
/// A missing `scp` alone means nothing.
pub(super) fn entra_is_app_only(claims: &Object) -> Result<bool, Refused> {
    let scoped = claims.contains_key("scp");
    match read::text(claims, "idtyp")? {
        Some("app") if scoped => {
            Err(refused(Reason::ClaimsMalformed, "`idtyp` is `app`, yet there is a person's `scp`"))
        }
        Some("app") => Ok(true),
        Some("user") => Ok(false),
        Some(other) => {
            Err(refused(Reason::TokenKind, format!("`idtyp` is {}: neither a person nor an app", read::quoted(other))))
        }
        None => Ok(!scoped && claims.contains_key("oid") && claims.get("oid") == claims.get("sub")),
    }
}

/// Of a configured customer of the provider? GitHub and Google have one issuer for all the world, Entra can have.
pub(super) fn check_tenant(claims: &Object, iss: &str, profile: &Profile) -> Result<(), Refused> {
    match profile.settings().preset {
        Preset::Entra => check_entra_tenant(claims, iss, profile),
        Preset::GithubActions => check_listed(claims, "repository_owner_id", &profile.settings().tenants),
        Preset::Google => check_listed(claims, "hd", &profile.settings().tenants),
        _ => Ok(()),
    }
}

fn check_listed(claims: &Object, claim: &str, tenants: &[String]) -> Result<(), Refused> {
    let seen = read::text(claims, claim)?;
    if tenants.is_empty() || seen.is_some_and(|seen| tenants.iter().any(|tenant| tenant == seen)) {
        return Ok(());
    }
    let seen = seen.map_or_else(|| "missing".to_owned(), read::quoted);
    Err(refused(Reason::TenantRefused, format!("`{claim}` is {seen}, which is not in `tenants`")))
}

/// The tenant the token names must be the one its issuer is for; `accepts_iss` has checked that one against the list.
fn check_entra_tenant(claims: &Object, iss: &str, profile: &Profile) -> Result<(), Refused> {
    let tid = read::required(claims, "tid")?;
    let configured = profile.settings().tenant.iter().chain(&profile.settings().tenants).any(|tenant| tenant == tid);
    if !configured || !iss.contains(tid) {
        let detail = format!("`tid` {} is not a tenant this issuer is configured for", read::quoted(tid));
        return Err(refused(Reason::TenantRefused, detail));
    }
    let expected = if iss.ends_with("/v2.0") { "2.0" } else { "1.0" };
    match read::text(claims, "ver")? {
        Some(version) if version != expected => {
            Err(refused(Reason::ClaimsMalformed, format!("`ver` is {}, `iss` is {expected}", read::quoted(version))))
        }
        _ => Ok(()),
    }
}

/// `uid` is the user; `sub` is only the login name, except for a program, whose `sub` is its client id.
fn okta(claims: &Object, client: Option<&str>) -> Result<Party, Refused> {
    match read::id(claims, "uid")? {
        Some(uid) => Ok(Party { kind: Kind::Person, id: uid.to_owned() }),
        None => {
            let sub = read::required(claims, "sub")?;
            if client != Some(sub) {
                return Err(refused(Reason::ClaimsMalformed, "no `uid`, and `sub` is only a login name"));
            }
            Ok(Party { kind: Kind::Workload, id: sub.to_owned() })
        }
    }
}

/// `<connection>|<id>` for people, `<client>@clients` for programs.
fn auth0(claims: &Object) -> Result<Party, Refused> {
    let sub = read::required(claims, "sub")?;
    let grant = |value: &Value| value.as_str() == Some("client-credentials");
    let granted =
        claims.get("gty").is_some_and(|gty| grant(gty) || gty.as_array().is_some_and(|all| all.iter().any(grant)));
    let program = sub.ends_with("@clients") || granted;
    Ok(Party { kind: if program { Kind::Workload } else { Kind::Person }, id: sub.to_owned() })
}

/// A service account has a `sub` like everybody else; what tells it apart is that nobody signed in (no `sid`) and that
/// Keycloak names the client a second time (`client_id`, before Keycloak 21 `clientId`) or as the user.
fn keycloak(claims: &Object) -> Result<Party, Refused> {
    let sub = read::required(claims, "sub")?;
    let azp = read::text(claims, "azp")?;
    let says = |claim: &str| claims.get(claim).and_then(Value::as_str);
    let named_twice = azp.is_some() && (says("client_id") == azp || says("clientId") == azp);
    let account = azp.map(|client| format!("service-account-{}", client.to_lowercase()));
    let as_user = account.is_some() && says("preferred_username") == account.as_deref();
    let program = (named_twice || as_user || azp == Some(sub)) && !claims.contains_key("sid");
    Ok(Party { kind: if program { Kind::Workload } else { Kind::Person }, id: sub.to_owned() })
}

/// `<owner id>.<repository id>`: both survive a rename, and a fork has its own. A run for a pull request works on what
/// somebody proposes, so it is somebody else: `:<event>` is appended, and no rule for the repository matches it.
fn github(claims: &Object) -> Result<Party, Refused> {
    Ok(Party { kind: Kind::Workload, id: github_id(claims)? })
}

pub(super) fn github_id(claims: &Object) -> Result<String, Refused> {
    let owner = numeric(claims, "repository_owner_id")?;
    let repository = numeric(claims, "repository_id")?;
    let event = read::id(claims, "event_name")?.filter(|event| event.starts_with("pull_request"));
    let suffix = event.map_or_else(String::new, |event| format!(":{event}"));
    Ok(format!("{owner}.{repository}{suffix}"))
}

fn numeric<'c>(claims: &'c Object, name: &str) -> Result<&'c str, Refused> {
    let id = read::required(claims, name)?;
    if id.bytes().all(|b| b.is_ascii_digit()) { Ok(id) } else { Err(read::wrong_type(name, "a numeric id")) }
}

/// `system:serviceaccount:<namespace>:<name>`, and the private claims must agree with it.
fn kubernetes(claims: &Object) -> Result<Party, Refused> {
    let sub = read::required(claims, "sub")?;
    let (namespace, name) = service_account(sub).ok_or_else(|| {
        refused(Reason::ClaimsMalformed, format!("`sub` {} is no service account", read::quoted(sub)))
    })?;
    let agrees =
        |path: &[&str], expected: &str| read::at(claims, path).is_some_and(|value| value.as_str() == Some(expected));
    if !agrees(&["kubernetes.io", "namespace"], namespace)
        || !agrees(&["kubernetes.io", "serviceaccount", "name"], name)
    {
        return Err(refused(Reason::ClaimsMalformed, "`kubernetes.io` names another service account than `sub`"));
    }
    Ok(Party { kind: Kind::Workload, id: sub.to_owned() })
}

pub(super) fn service_account(sub: &str) -> Option<(&str, &str)> {
    let (namespace, name) = sub.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let label = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
    };
    (label(namespace) && label(name)).then_some((namespace, name))
}

/// What the issuer says about the sign-in. Of the wrong type it is as good as not said: less assurance, never more.
fn assurance(claims: &Object, profile: &Profile) -> Assurance {
    let texts = |name: &str| claims.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let acr: Option<Arc<str>> = read::id(claims, "acr").ok().flatten().map(Arc::from);
    let (contexts, asking) = if profile.settings().preset == Preset::Entra {
        // `acr` of a v1 token is `0` or `1` and says nothing of contexts.
        let can_take_challenge = texts("xms_cc").any(|capability| capability.eq_ignore_ascii_case("cp1"));
        let asking = if can_take_challenge { Asking::Claims } else { Asking::Never };
        (texts("acrs").take(CONTEXTS_MAX).map(Arc::from).collect(), asking)
    } else {
        (acr.iter().cloned().collect(), Asking::Acr)
    };
    Assurance {
        acr,
        amr: texts("amr").take(16).map(Arc::from).collect(),
        contexts,
        asking,
        auth_time: claims.get("auth_time").and_then(Value::as_i64).filter(|time| *time >= 0),
        passkey_at: None,
        hardware_key: false,
    }
}
