//! What we know of an issuer before its first token: its identifier(s), audience, algorithms, and where it puts groups,
//! roles and the stable id. Presets write down the dialects of the field (Entra, Okta, Auth0, Cognito, Keycloak, …).
//!
//! Nothing here fetches anything or believes a token; [`crate::token`] does the judging.
mod check;
mod dialect;
#[cfg(test)]
mod tests;
mod url;

pub(crate) use check::API_SERVER_AUDIENCES;
pub(crate) use dialect::{Dialect, Source};

use crate::jwk::Algorithm;
use std::sync::Arc;

/// What is wrong with the URL of an endpoint that secrets are sent to, in words; `None` when it is fine.
pub fn endpoint_problem(text: &str) -> Option<&'static str> {
    url::fetch_problem(text)
}

/// Which dialect an issuer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    Entra,
    Okta,
    Auth0,
    Cognito,
    Keycloak,
    Google,
    GithubActions,
    Kubernetes,
    Generic,
}

impl Preset {
    pub const ALL: [Preset; 9] = [
        Preset::Entra,
        Preset::Okta,
        Preset::Auth0,
        Preset::Cognito,
        Preset::Keycloak,
        Preset::Google,
        Preset::GithubActions,
        Preset::Kubernetes,
        Preset::Generic,
    ];

    /// The name the platform file uses after `preset:`.
    pub const fn name(self) -> &'static str {
        match self {
            Preset::Entra => "entra",
            Preset::Okta => "okta",
            Preset::Auth0 => "auth0",
            Preset::Cognito => "cognito",
            Preset::Keycloak => "keycloak",
            Preset::Google => "google",
            Preset::GithubActions => "github-actions",
            Preset::Kubernetes => "kubernetes",
            Preset::Generic => "generic",
        }
    }
}

/// The sets of names that a token may hold of its subject, and rules ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameSet {
    Groups,
    Roles,
    Scopes,
}

/// Clock leeway of an issuer that says nothing else, in seconds: hosts 45 s apart still understand each other.
pub const LEEWAY_DEFAULT_S: i64 = 60;
/// Largest leeway that may be configured, in seconds.
pub const LEEWAY_MAX_S: i64 = 120;

/// One configured issuer, as data. `Profile::new` checks it and fills what the preset knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub name: Arc<str>,
    pub preset: Preset,
    /// `issuer:` of the file; presets that can derive it (entra, cognito, google, github-actions) may leave it out.
    pub issuer: Option<String>,
    /// Entra: tenant id, or `organizations`/`common` together with `tenants`.
    pub tenant: Option<String>,
    /// Whose tokens we take where one issuer serves everybody. Entra with `common` or `organizations`: tenant ids,
    /// required. GitHub Actions: numeric `repository_owner_id`s. Google: Workspace domains (`hd`; shuts out service
    /// accounts, which have none).
    pub tenants: Vec<String>,
    /// Cognito: region and pool, e.g. `eu-west-1_AbCdEf`.
    pub pool: Option<String>,
    pub audience: Vec<String>,
    /// Allowed OAuth clients (`azp`, `client_id`, …). Cognito needs it, its access tokens have no `aud`; for any other
    /// issuer it narrows further when not empty.
    pub clients: Vec<String>,
    /// Empty: what the preset's issuer is known to use.
    pub algorithms: Vec<Algorithm>,
    /// Claim paths by meaning: `groups`, `roles`, `scopes`, `id`, `client`. A path is split at `.` unless it names a
    /// top-level claim as a whole (Auth0 URLs, Keycloak client ids: `["a.b","roles"]` form).
    ///
    /// A path written here is also a promise that the issuer fills it: when the claim is missing, the set is empty.
    /// A path that only the preset knows promises nothing: when the claim is missing, the set is unknown.
    pub claims: ClaimPaths,
    /// Client ids whose tokens are an agent's (RFC 8693 `act` is understood without this).
    pub agents: Vec<String>,
    /// Tolerance for `exp`, `nbf` and `iat`, in seconds; 60 unless set, 120 at most.
    pub leeway_s: i64,
    /// Where keys come from when discovery is not wanted (Kubernetes, air-gapped): a JWKS URL or a file, else discovery.
    pub jwks_uri: Option<String>,
    pub jwks_file: Option<std::path::PathBuf>,
    /// Accept `typ: JWT` besides `at+jwt`. Generic issuers that follow RFC 9068 can turn it off.
    pub accept_typ_jwt: bool,
    /// Whether a token that anybody could use who has it (no `cnf`) is taken at all.
    pub sender_constrained: SenderConstrained,
    /// Whether a DPoP proof must hold a nonce of ours.
    pub dpop_nonce: DpopNonce,
    pub introspect: Introspect,
    pub overage: OverageLookup,
}

/// What becomes of groups that a token leaves out because there are too many (Entra).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OverageLookup {
    /// They are unknown.
    #[default]
    None,
    /// They are asked for at Microsoft Graph, and unknown when that fails.
    Graph,
}

/// Which tokens are shown to the issuer for its word on them (RFC 7662).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Introspect {
    #[default]
    None,
    /// Those that nobody else can read.
    Opaque,
    /// JWTs besides, after they were verified: so that one that was revoked ends within 30 s.
    All,
}

/// Must DPoP proofs for tokens of this issuer hold a nonce that we gave out (RFC 9449 §9)?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DpopNonce {
    #[default]
    Optional,
    Required,
}

/// Must a token be bound to a key of its sender (RFC 9449, RFC 8705)? One that is bound is always held to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SenderConstrained {
    #[default]
    Optional,
    /// Plain bearer tokens are refused.
    Required,
}

impl Default for Settings {
    /// A generic issuer without name, identifier and audience: fill these three.
    fn default() -> Settings {
        Settings {
            name: Arc::from(""),
            preset: Preset::Generic,
            issuer: None,
            tenant: None,
            tenants: Vec::new(),
            pool: None,
            audience: Vec::new(),
            clients: Vec::new(),
            algorithms: Vec::new(),
            claims: ClaimPaths::default(),
            agents: Vec::new(),
            leeway_s: LEEWAY_DEFAULT_S,
            jwks_uri: None,
            jwks_file: None,
            accept_typ_jwt: true,
            sender_constrained: SenderConstrained::Optional,
            dpop_nonce: DpopNonce::Optional,
            introspect: Introspect::None,
            overage: OverageLookup::None,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimPaths {
    pub id: Option<Vec<String>>,
    pub groups: Option<Vec<String>>,
    pub roles: Option<Vec<String>>,
    pub scopes: Option<Vec<String>>,
    pub client: Option<Vec<String>>,
}

/// One thing wrong with an issuer's settings: the key, what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("{field}: {problem}")]
    Field { field: &'static str, problem: String, fix: String },
}

/// A checked issuer, ready to judge tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    settings: Settings,
    /// Every `iss` we accept, exact strings.
    issuers: Vec<String>,
}

impl Profile {
    /// Every problem at once. The kept settings have tenant ids in lower case and the algorithms filled in.
    pub fn new(settings: Settings) -> Result<Profile, Vec<SettingsError>> {
        let settings = check::normalised(settings);
        let problems = check::problems(&settings);
        if !problems.is_empty() {
            return Err(problems);
        }
        let issuers = dialect::issuers(&settings);
        Ok(Profile { settings, issuers })
    }

    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Every `iss` this issuer's tokens may carry, exact strings.
    pub fn issuers(&self) -> &[String] {
        &self.issuers
    }

    pub fn algorithms(&self) -> &[Algorithm] {
        &self.settings.algorithms
    }

    pub(crate) fn dialect(&self) -> &'static Dialect {
        dialect::of(self.settings.preset)
    }

    /// Entra `common` or `organizations`: one key set for every tenant in the world.
    pub fn is_multi_tenant(&self) -> bool {
        self.settings.preset == Preset::Entra
            && matches!(self.settings.tenant.as_deref(), Some("common" | "organizations"))
    }

    /// The issuer URL to discover keys at (`<this>/.well-known/openid-configuration`), OpenID Connect Discovery §4:
    /// the whole URL of the document.
    pub fn discovery_url(&self) -> String {
        let base = match (self.settings.preset, &self.settings.issuer, &self.settings.tenant) {
            (Preset::Entra, None, Some(tenant)) => dialect::entra_v2(tenant),
            _ => self.issuers.first().cloned().unwrap_or_default(),
        };
        format!("{}/.well-known/openid-configuration", base.strip_suffix('/').unwrap_or(&base))
    }

    /// What the discovery document's `issuer` must be (Entra `common` answers with a literal `{tenantid}`).
    pub fn accepts_discovered_issuer(&self, issuer: &str) -> bool {
        if self.is_multi_tenant() {
            return issuer == dialect::entra_v2("{tenantid}");
        }
        // The first form is the one discovery is asked at (Entra v2; Google with its scheme).
        self.issuers.first().is_some_and(|expected| expected == issuer)
    }

    /// Is `iss` of a token ours? Exact strings; Entra: v1 and v2 forms of the configured tenants.
    pub fn accepts_iss(&self, iss: &str) -> bool {
        self.issuers.iter().any(|ours| ours == iss)
    }

    /// `iss` is well-formed Entra and signed with the keys we hold, but of a tenant that is not in `tenants`: with
    /// `common` that is any Microsoft customer in the world.
    pub fn is_foreign_tenant(&self, iss: &str) -> bool {
        self.is_multi_tenant() && !self.accepts_iss(iss) && dialect::entra_tenant_of(iss).is_some()
    }

    /// Can a token of this issuer put its subject into a group (role, scope) of this name? Whether one ever will is the
    /// issuer's affair.
    pub fn can_say(&self, set: NameSet, name: &str) -> bool {
        let (configured, known) = match set {
            NameSet::Groups => (&self.settings.claims.groups, self.dialect().groups),
            NameSet::Roles => (&self.settings.claims.roles, self.dialect().roles),
            NameSet::Scopes => (&self.settings.claims.scopes, self.dialect().scopes),
        };
        configured.is_some() || known.can_say(name)
    }

    /// Does anybody in the world get tokens of this issuer, and do the settings not say whose are taken? Entra's
    /// `common` has no such state: it is refused without `tenants`.
    pub fn takes_everybody(&self) -> bool {
        let settings = &self.settings;
        match settings.preset {
            Preset::Google => settings.tenants.is_empty() && settings.clients.is_empty(),
            Preset::GithubActions => settings.tenants.is_empty(),
            _ => false,
        }
    }

    /// Why an `iss` that we do not accept looks almost like one that we do; for operators only.
    pub fn near_miss(&self, iss: &str) -> Option<String> {
        dialect::near_miss(self, iss)
    }
}
