//! What each preset knows of its provider: algorithms, claim names, issuer identifiers.
//!
//! Data only; the judging is in [`crate::token`]. Nothing here was tested against a live commercial provider: the
//! sources are the providers' documents, named in the fixtures.
use super::{Preset, Profile, Settings};
use crate::jwk::Algorithm;

/// Personal Microsoft accounts all live in this one tenant.
pub(super) const ENTRA_CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
pub(super) const GITHUB_ISSUER: &str = "https://token.actions.githubusercontent.com";
const GOOGLE_ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];

/// Where a provider puts a set of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// At these top-level claims, first found. When all are missing, the provider said that there are none.
    Stated(&'static [&'static str]),
    /// At this path, if the provider was configured to send it. When missing, we do not know.
    IfSent(&'static [&'static str]),
    /// Its tokens never say, although its principals may well be members.
    Unsaid,
    /// Keycloak: realm roles by name, client roles as `<client>/<role>`.
    KeycloakRoles,
    /// GitHub Actions: what the run is, as `<id>:ref:…`, `<id>:environment:…` and the like.
    GithubRun,
    /// Kubernetes: the groups the API server itself gives to a service account.
    KubernetesGroups,
}

impl Source {
    /// Can a token hold this name there?
    pub(super) fn can_say(self, name: &str) -> bool {
        match self {
            Source::Stated(claims) => !claims.is_empty(),
            Source::IfSent(_) | Source::KeycloakRoles => true,
            Source::Unsaid => false,
            // `65.74:environment:production`: always begins with the ids of owner and repository.
            Source::GithubRun => name.starts_with(|c: char| c.is_ascii_digit()) && name.contains(':'),
            Source::KubernetesGroups => name.starts_with("system:serviceaccounts"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) algorithms: &'static [Algorithm],
    /// Claims that name the OAuth client, first found.
    pub(crate) client: &'static [&'static str],
    pub(crate) scopes: Source,
    pub(crate) groups: Source,
    pub(crate) roles: Source,
    /// The provider marks its access tokens `typ: JWT` (or not at all) and cannot do otherwise.
    pub(crate) typ_is_jwt: bool,
}

const RS256: &[Algorithm] = &[Algorithm::Rs256];
const MODERN: &[Algorithm] = &[Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::EdDsa];
const NOTHING: Source = Source::Stated(&[]);

pub(crate) fn of(preset: Preset) -> &'static Dialect {
    match preset {
        Preset::Entra => &ENTRA,
        Preset::Okta => &OKTA,
        Preset::Auth0 => &AUTH0,
        Preset::Cognito => &COGNITO,
        Preset::Keycloak => &KEYCLOAK,
        Preset::Google => &GOOGLE,
        Preset::GithubActions => &GITHUB,
        Preset::Kubernetes => &KUBERNETES,
        Preset::Generic => &GENERIC,
    }
}

static ENTRA: Dialect = Dialect {
    algorithms: RS256,
    client: &["azp", "appid"],
    scopes: Source::Stated(&["scp"]),
    groups: Source::IfSent(&["groups"]),
    // App roles are sent whenever one is assigned; nothing needs to be configured for it.
    roles: Source::Stated(&["roles"]),
    typ_is_jwt: true,
};
static OKTA: Dialect = Dialect {
    algorithms: RS256,
    client: &["cid"],
    scopes: Source::Stated(&["scp"]),
    groups: Source::IfSent(&["groups"]),
    roles: Source::IfSent(&["roles"]),
    typ_is_jwt: true,
};
static AUTH0: Dialect = Dialect {
    algorithms: &[Algorithm::Rs256, Algorithm::Ps256],
    client: &["azp", "client_id"],
    scopes: Source::Stated(&["scope"]),
    groups: Source::Unsaid,
    roles: Source::IfSent(&["permissions"]),
    typ_is_jwt: false,
};
static COGNITO: Dialect = Dialect {
    algorithms: RS256,
    client: &["client_id"],
    scopes: Source::Stated(&["scope"]),
    // Sent whenever the user is in a group; nothing needs to be configured for it.
    groups: Source::Stated(&["cognito:groups"]),
    roles: NOTHING,
    typ_is_jwt: true,
};
static KEYCLOAK: Dialect = Dialect {
    algorithms: MODERN,
    client: &["azp"],
    scopes: Source::Stated(&["scope"]),
    groups: Source::IfSent(&["groups"]),
    roles: Source::KeycloakRoles,
    typ_is_jwt: false,
};
static GOOGLE: Dialect = Dialect {
    algorithms: RS256,
    client: &["azp"],
    scopes: NOTHING,
    groups: Source::Unsaid,
    roles: NOTHING,
    typ_is_jwt: true,
};
static GITHUB: Dialect = Dialect {
    algorithms: RS256,
    client: &[],
    scopes: NOTHING,
    groups: NOTHING,
    roles: Source::GithubRun,
    typ_is_jwt: true,
};
static KUBERNETES: Dialect = Dialect {
    algorithms: &[Algorithm::Rs256, Algorithm::Es256],
    client: &[],
    scopes: NOTHING,
    groups: Source::KubernetesGroups,
    roles: NOTHING,
    typ_is_jwt: true,
};
static GENERIC: Dialect = Dialect {
    algorithms: MODERN,
    client: &["client_id", "azp"],
    scopes: Source::Stated(&["scope", "scp"]),
    groups: Source::IfSent(&["groups"]),
    roles: Source::IfSent(&["roles"]),
    typ_is_jwt: false,
};

/// Every `iss` to accept, the one that discovery answers with first.
pub(super) fn issuers(settings: &Settings) -> Vec<String> {
    match (settings.preset, &settings.issuer) {
        (Preset::Google, _) => GOOGLE_ISSUERS.map(String::from).to_vec(),
        (_, Some(issuer)) => vec![issuer.clone()],
        (Preset::Entra, None) => {
            let one = settings.tenant.iter().filter(|tenant| is_guid(tenant));
            one.chain(&settings.tenants).flat_map(|tenant| [entra_v2(tenant), entra_v1(tenant)]).collect()
        }
        (Preset::Cognito, None) => settings.pool.iter().filter_map(|pool| cognito(pool)).collect(),
        (Preset::GithubActions, None) => vec![GITHUB_ISSUER.to_owned()],
        _ => Vec::new(),
    }
}

pub(super) fn entra_v2(tenant: &str) -> String {
    format!("https://login.microsoftonline.com/{tenant}/v2.0")
}

fn entra_v1(tenant: &str) -> String {
    format!("https://sts.windows.net/{tenant}/")
}

/// The tenant an Entra `iss` of either version names.
pub(super) fn entra_tenant_of(iss: &str) -> Option<&str> {
    let v2 = iss.strip_prefix("https://login.microsoftonline.com/").and_then(|rest| rest.strip_suffix("/v2.0"));
    let v1 = || iss.strip_prefix("https://sts.windows.net/").and_then(|rest| rest.strip_suffix('/'));
    v2.or_else(v1).filter(|tenant| is_guid(tenant))
}

/// `<region>_<id>` → the pool's issuer; the China regions have a domain of their own.
pub(super) fn cognito(pool: &str) -> Option<String> {
    let (region, id) = pool.split_once('_')?;
    let plain = |text: &str, extra: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    if !plain(region, "-") || !region.contains('-') || !plain(id, "") {
        return None;
    }
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    Some(format!("https://cognito-idp.{region}.{domain}/{pool}"))
}

/// A directory id as Microsoft writes it, `8-4-4-4-12` hexadecimal digits in lower case.
pub(super) fn is_guid(text: &str) -> bool {
    let groups = [8, 4, 4, 4, 12];
    let mut parts = text.split('-');
    groups.iter().all(|&length| {
        parts.next().is_some_and(|part| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    }) && parts.next().is_none()
}

pub(super) fn near_miss(profile: &Profile, iss: &str) -> Option<String> {
    if profile.accepts_iss(iss) {
        return None;
    }
    if profile.is_foreign_tenant(iss) {
        return Some("a tenant that is not in `tenants`".to_owned());
    }
    if profile.settings.preset == Preset::Okta
        && profile.issuers.iter().any(|ours| ours.starts_with(&format!("{iss}/")))
    {
        return Some("a token of Okta's org authorization server, which nobody but Okta can check".to_owned());
    }
    profile.issuers.iter().find_map(|ours| {
        let same = |what: &str| Some(format!("differs from `{ours}` only in {what}"));
        if ours.trim_end_matches('/') == iss.trim_end_matches('/') {
            same("a trailing slash")
        } else if ours.eq_ignore_ascii_case(iss) {
            same("upper and lower case")
        } else if entra_tenant_of(ours).is_some_and(|tenant| entra_tenant_of(iss) == Some(tenant)) {
            same("the version: Entra chooses v1 or v2 by the API's manifest (`requestedAccessTokenVersion`)")
        } else {
            None
        }
    })
}
