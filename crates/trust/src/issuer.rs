//! What we know of an issuer before its first token: its identifier(s), audience, algorithms, and where it puts groups,
//! roles and the stable id. Presets write down the dialects of the field (Entra, Okta, Auth0, Cognito, Keycloak, …).
use crate::jwk::Algorithm;
use std::sync::Arc;

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

/// One configured issuer, as data. `Profile::new` checks it and fills what the preset knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub name: Arc<str>,
    pub preset: Preset,
    /// `issuer:` of the file; presets that can derive it (entra, cognito, google, github-actions) may leave it out.
    pub issuer: Option<String>,
    /// Entra: tenant id, or `organizations`/`common` together with `tenants`.
    pub tenant: Option<String>,
    pub tenants: Vec<String>,
    /// Cognito: region and pool, e.g. `eu-west-1_AbCdEf`.
    pub pool: Option<String>,
    pub audience: Vec<String>,
    /// Cognito and others without `aud`: allowed `client_id`s.
    pub clients: Vec<String>,
    pub algorithms: Vec<Algorithm>,
    /// Claim paths by meaning: `groups`, `roles`, `scopes`, `id`, `client`. A path is split at `.` unless it names a
    /// top-level claim as a whole (Auth0 URLs, Keycloak client ids: `["a.b","roles"]` form).
    pub claims: ClaimPaths,
    /// Client ids whose tokens are an agent's (RFC 8693 `act` is understood without this).
    pub agents: Vec<String>,
    pub leeway_s: i64,
    /// Where keys come from when discovery is not wanted (Kubernetes, air-gapped): a JWKS URL or a file, else discovery.
    pub jwks_uri: Option<String>,
    pub jwks_file: Option<std::path::PathBuf>,
    /// Accept `typ: JWT` besides `at+jwt`. Generic issuers that follow RFC 9068 can turn it off.
    pub accept_typ_jwt: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimPaths {
    pub id: Option<Vec<String>>,
    pub groups: Option<Vec<String>>,
    pub roles: Option<Vec<String>>,
    pub scopes: Option<Vec<String>>,
    pub client: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("{field}: {problem}")]
    Field { field: &'static str, problem: String, fix: String },
}

/// A checked issuer, ready to judge tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    settings: Settings,
}

impl Profile {
    /// Every problem at once.
    pub fn new(_settings: Settings) -> Result<Profile, Vec<SettingsError>> {
        todo!()
    }
    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
    /// The issuer URL to discover keys at (`<this>/.well-known/openid-configuration`).
    pub fn discovery_url(&self) -> String {
        todo!()
    }
    /// What the discovery document's `issuer` must be (Entra `common` answers with a literal `{tenantid}`).
    pub fn accepts_discovered_issuer(&self, _issuer: &str) -> bool {
        todo!()
    }
    /// Is `iss` of a token ours? Exact strings; Entra: v1 and v2 forms of the configured tenants.
    pub fn accepts_iss(&self, _iss: &str) -> bool {
        todo!()
    }
}
