//! From `issuers:` to checked profiles. What each provider needs is known by `trust::issuer`; here its problems are only
//! given their place in the file.
use super::client_auth::{Asked, client_auth};
use super::decode::{At, OneOrMany};
use super::numbers::interval;
use super::platform::{AlgorithmWord, IssuerSection, PlatformFile, PresetWord};
use super::problem::Span;
use super::settings::Context;
use super::token_kinds::{
    GraphSection, IntrospectedWord, IntrospectionSection, NonceWord, SenderConstrainedWord, SignedWord,
};
use super::wide::warn_of_issuer;
use super::yaml::{Key, Node};
use std::sync::Arc;
use std::time::Duration;
use trust::issuer::{
    ClaimPaths, DpopNonce, Introspect, LEEWAY_DEFAULT_S, LEEWAY_MAX_S, OverageLookup, Preset, Profile,
    SenderConstrained, Settings, SettingsError,
};
use trust::jwk::{Algorithm, KeySet};

const ISSUERS_MAX: usize = 64;

pub fn profiles(file: &PlatformFile, context: &mut Context<'_, '_>) -> Vec<Arc<Profile>> {
    let Some(named) = &file.issuers else { return Vec::new() };
    if let Some((key, ..)) = named.0.get(ISSUERS_MAX) {
        context.to.report(key.at, format!("more than {ISSUERS_MAX} issuers"), "remove those that are not used");
    }
    named.0.iter().filter_map(|(key, section, node)| profile(key, section, node, context)).collect()
}

fn profile(key: &Key, section: &IssuerSection, node: &Node, context: &mut Context<'_, '_>) -> Option<Arc<Profile>> {
    let problems_before = context.to.problems.len();
    let settings = settings(key, section, context);
    if let Some(file) = &section.jwks_file {
        check_keys(file, context);
    }
    // A field that could not be read is already reported; judging its absence too would only confuse.
    if context.to.problems.len() > problems_before || has_broken_field(section, node) {
        return None;
    }
    match Profile::new(settings) {
        Ok(profile) => {
            warn_of_issuer(key, &profile, node, &mut context.to);
            Some(Arc::new(profile))
        }
        Err(errors) => {
            for SettingsError::Field { field, problem, fix } in errors {
                let at = find(node, field).unwrap_or(key.at);
                context.to.report(at, format!("issuer `{}`, `{field}`: {problem}", key.text), fix);
            }
            None
        }
    }
}

/// A key stands in the file, but its value could not be decoded.
fn has_broken_field(section: &IssuerSection, node: &Node) -> bool {
    let decoded = [
        ("preset", section.preset.is_some()),
        ("issuer", section.issuer.is_some()),
        ("tenant", section.tenant.is_some()),
        ("tenants", section.tenants.is_some()),
        ("pool", section.pool.is_some()),
        ("audience", section.audience.is_some()),
        ("clients", section.clients.is_some()),
        ("algorithms", section.algorithms.is_some()),
        ("claims", section.claims.is_some()),
        ("agents", section.agents.is_some()),
        ("leeway", section.leeway.is_some()),
        ("jwks_uri", section.jwks_uri.is_some()),
        ("jwks_file", section.jwks_file.is_some()),
        ("accept_typ_jwt", section.accept_typ_jwt.is_some()),
        ("sender_constrained", section.sender_constrained.is_some()),
        ("dpop", section.dpop.is_some()),
        ("introspection", section.introspection.is_some()),
        ("graph", section.graph.is_some()),
    ];
    decoded.iter().any(|(key, good)| !good && node.get(key).is_some())
}

fn settings(key: &Key, section: &IssuerSection, context: &mut Context<'_, '_>) -> Settings {
    let seconds = |s: i64| Duration::from_secs(s.unsigned_abs());
    let text = |field: &Option<At<String>>| field.as_ref().map(|at| at.value.clone());
    let leeway = interval(
        section.leeway.as_ref(),
        seconds(LEEWAY_DEFAULT_S),
        Duration::ZERO..=seconds(LEEWAY_MAX_S),
        &mut context.to,
    );
    let claims = section.claims.clone().unwrap_or_default();
    let path = |field: Option<At<super::platform::ClaimPath>>| field.map(|at| at.value.0);
    Settings {
        name: key.text.as_str().into(),
        preset: preset(section.preset.as_ref().map(|at| at.value)),
        issuer: text(&section.issuer),
        tenant: text(&section.tenant),
        tenants: texts(section.tenants.as_ref()),
        pool: text(&section.pool),
        audience: texts(section.audience.as_ref()),
        clients: texts(section.clients.as_ref()),
        algorithms: algorithms(section.algorithms.as_ref()),
        claims: ClaimPaths {
            id: path(claims.id),
            groups: path(claims.groups),
            roles: path(claims.roles),
            scopes: path(claims.scopes),
            client: path(claims.client),
        },
        agents: texts(section.agents.as_ref()),
        leeway_s: i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX),
        jwks_uri: text(&section.jwks_uri),
        jwks_file: section.jwks_file.as_ref().map(|at| context.path(&at.value)),
        accept_typ_jwt: section.accept_typ_jwt.as_ref().is_none_or(|at| at.value),
        overage: if section.graph.is_some() { OverageLookup::Graph } else { OverageLookup::None },
        introspect: match section.introspection.as_ref().map(|asked| asked.tokens.as_ref().map(|at| at.value)) {
            None => Introspect::None,
            Some(Some(IntrospectedWord::All)) => Introspect::All,
            Some(Some(IntrospectedWord::Opaque) | None) => Introspect::Opaque,
        },
        sender_constrained: sender_constrained(section.sender_constrained.as_ref()),
        dpop_nonce: match section.dpop.as_ref().and_then(|dpop| dpop.nonce.as_ref()).map(|at| at.value) {
            Some(NonceWord::Required) => DpopNonce::Required,
            Some(NonceWord::Optional) | None => DpopNonce::Optional,
        },
    }
}

/// Where issuers are asked about tokens.
pub fn introspection(file: &PlatformFile, context: &mut Context<'_, '_>) -> Vec<Arc<feed::Introspection>> {
    let Some(named) = &file.issuers else { return Vec::new() };
    let mut found = Vec::new();
    let mut asking = 0;
    for (key, section, node) in &named.0 {
        let Some(section) = &section.introspection else { continue };
        asking += 1;
        if asking > 1 {
            let at = find(node, "introspection").unwrap_or(key.at);
            let what = "another issuer has `introspection` already, and an opaque token does not say whose it is";
            context.to.report(at, what, "let all issuers but one send JWTs");
        }
        found.extend(asked_at(key, section, context).map(Arc::new));
    }
    found
}

/// `None`: a problem was reported.
fn asked_at(key: &Key, section: &IntrospectionSection, context: &mut Context<'_, '_>) -> Option<feed::Introspection> {
    if let Some(At { value, at }) = &section.endpoint
        && let Some(problem) = trust::issuer::endpoint_problem(value)
    {
        let fix = "write the `introspection_endpoint` of the provider's discovery document";
        context.to.report(*at, format!("`{value}` {problem}"), fix);
        return None;
    }
    let asked = Asked { secret: section.client_secret_file.as_ref(), key: section.client_auth.as_ref() };
    let auth = client_auth(&asked, key.at, "introspection", Algorithm::Rs256, context)?;
    Some(feed::Introspection {
        issuer: key.text.as_str().into(),
        endpoint: section.endpoint.as_ref().map(|at| at.value.clone()),
        client_id: section.client_id.0.as_ref()?.value.clone(),
        auth,
        signed: section.signed.as_ref().is_some_and(|at| at.value == SignedWord::Required),
    })
}

/// Where Microsoft Graph is asked for groups.
pub fn graph(file: &PlatformFile, context: &mut Context<'_, '_>) -> Vec<Arc<feed::Graph>> {
    let Some(named) = &file.issuers else { return Vec::new() };
    let mut found = Vec::new();
    for (key, section, node) in &named.0 {
        let Some(graph) = &section.graph else { continue };
        if preset(section.preset.as_ref().map(|at| at.value)) != Preset::Entra {
            let at = find(node, "graph").unwrap_or(key.at);
            context.to.report(at, "only Entra's groups can be asked for at Microsoft Graph", "remove `graph`");
            continue;
        }
        found.extend(graph_of(key, graph, context).map(Arc::new));
    }
    found
}

fn graph_of(key: &Key, section: &GraphSection, context: &mut Context<'_, '_>) -> Option<feed::Graph> {
    let endpoint = place(section.endpoint.as_ref(), "https://graph.microsoft.com", context);
    let login = place(section.login.as_ref(), "https://login.microsoftonline.com", context);
    let asked = Asked { secret: section.client_secret_file.as_ref(), key: section.client_auth.as_ref() };
    let auth = client_auth(&asked, key.at, "graph", Algorithm::Ps256, context)?;
    let client_id = section.client_id.0.as_ref()?.value.clone();
    Some(feed::Graph { issuer: key.text.as_str().into(), client_id, auth, endpoint: endpoint?, login: login? })
}

/// A URL that paths are appended to. `None`: a problem was reported.
fn place(named: Option<&At<String>>, default: &str, context: &mut Context<'_, '_>) -> Option<String> {
    let Some(At { value, at }) = named else { return Some(default.to_owned()) };
    match trust::issuer::endpoint_problem(value) {
        None if !value.contains('?') => Some(value.trim_end_matches('/').to_owned()),
        problem => {
            let what = format!("`{value}` {}", problem.unwrap_or("holds a query or a fragment"));
            context.to.report(*at, what, format!("write it as `{default}`"));
            None
        }
    }
}

/// Of an issuer or of a service.
pub fn sender_constrained(field: Option<&At<SenderConstrainedWord>>) -> SenderConstrained {
    match field.map(|at| at.value) {
        Some(SenderConstrainedWord::Required) => SenderConstrained::Required,
        Some(SenderConstrainedWord::Optional) | None => SenderConstrained::Optional,
    }
}

fn texts(field: Option<&OneOrMany<At<String>>>) -> Vec<String> {
    field.map(|many| many.0.iter().map(|at| at.value.clone()).collect()).unwrap_or_default()
}

fn preset(word: Option<PresetWord>) -> Preset {
    match word {
        Some(PresetWord::Entra) => Preset::Entra,
        Some(PresetWord::Okta) => Preset::Okta,
        Some(PresetWord::Auth0) => Preset::Auth0,
        Some(PresetWord::Cognito) => Preset::Cognito,
        Some(PresetWord::Keycloak) => Preset::Keycloak,
        Some(PresetWord::Google) => Preset::Google,
        Some(PresetWord::GithubActions) => Preset::GithubActions,
        Some(PresetWord::Kubernetes) => Preset::Kubernetes,
        Some(PresetWord::Generic) | None => Preset::Generic,
    }
}

fn algorithms(field: Option<&OneOrMany<At<AlgorithmWord>>>) -> Vec<Algorithm> {
    let one = |word: AlgorithmWord| match word {
        AlgorithmWord::Es256 => Algorithm::Es256,
        AlgorithmWord::Es384 => Algorithm::Es384,
        AlgorithmWord::Es512 => Algorithm::Es512,
        AlgorithmWord::Rs256 => Algorithm::Rs256,
        AlgorithmWord::Rs384 => Algorithm::Rs384,
        AlgorithmWord::Rs512 => Algorithm::Rs512,
        AlgorithmWord::Ps256 => Algorithm::Ps256,
        AlgorithmWord::Ps384 => Algorithm::Ps384,
        AlgorithmWord::Ps512 => Algorithm::Ps512,
        AlgorithmWord::EdDsa => Algorithm::EdDsa,
    };
    field.map(|many| many.0.iter().map(|at| one(at.value)).collect()).unwrap_or_default()
}

fn check_keys(file: &At<String>, context: &mut Context<'_, '_>) {
    let Some(bytes) = context.read(file, false) else { return };
    if let Err(error) = KeySet::parse(&bytes) {
        let what = format!("`{}` is no usable key set: {error}", file.value);
        context.to.report(file.at, what, "put the issuer's JWK Set there: what its `jwks_uri` answers");
    }
}

/// The place of `claims.groups` or `audience` within an issuer.
pub fn find(node: &Node, field: &str) -> Option<Span> {
    let mut here = node;
    for part in field.split('.') {
        here = here.get(part)?;
    }
    Some(here.at)
}
