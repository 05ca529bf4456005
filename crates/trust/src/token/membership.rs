//! Groups, roles and scopes, each of them known or unknown.
//!
//! Three states, and the third is the point: an issuer that says "too many to list" (Entra's overage), points elsewhere
//! (OpenID Connect Core §5.6.2) or was never told to send the claim has not said "none". Only an issuer that always sends
//! the claim, or a path written in the configuration, makes a missing claim an empty set. A mistyped claim is refused.
use super::{Refused, read};
use crate::issuer::{Profile, Source};
use crate::json::Object;
use crate::principal::Membership;
use serde_json::Value;
use std::sync::Arc;

/// What a missing claim means.
#[derive(Clone, Copy)]
enum Missing {
    Empty,
    Unknown,
}

type ReadNames = fn(&str, &Value) -> Result<Vec<Arc<str>>, Refused>;

pub(super) fn groups(claims: &Object, profile: &Profile) -> Result<Membership, Refused> {
    let too_many = too_many(claims);
    let read: ReadNames = match profile.settings().preset {
        crate::issuer::Preset::Keycloak => keycloak_groups,
        _ => read::names,
    };
    let found = one(claims, profile.settings().claims.groups.as_deref(), profile.dialect().groups, read)?;
    Ok(if too_many { Membership::partial(found.names().cloned()) } else { found })
}

/// Entra's other way of saying that there are too many, seen in implicit flows.
fn too_many(claims: &Object) -> bool {
    claims.get("hasgroups").is_some_and(|has| has != &Value::Bool(false))
        || claims.keys().any(|claim| claim.starts_with("groups:src"))
}

/// Does the token say that its subject's groups are to be asked for?
pub(super) fn groups_are_elsewhere(claims: &Object) -> bool {
    too_many(claims) || is_elsewhere(claims, "groups")
}

pub(super) fn roles(claims: &Object, profile: &Profile) -> Result<Membership, Refused> {
    one(claims, profile.settings().claims.roles.as_deref(), profile.dialect().roles, read::names)
}

pub(super) fn scopes(claims: &Object, profile: &Profile) -> Result<Membership, Refused> {
    one(claims, profile.settings().claims.scopes.as_deref(), profile.dialect().scopes, read::scopes)
}

fn one(claims: &Object, configured: Option<&[String]>, known: Source, read: ReadNames) -> Result<Membership, Refused> {
    if let Some(path) = configured {
        return at_path(claims, path, Missing::Empty, read);
    }
    match known {
        Source::Stated(names) => match names.iter().find(|name| is_said(claims, name)) {
            Some(name) => at_path(claims, &[*name], Missing::Empty, read),
            None => Ok(Membership::complete([])),
        },
        Source::IfSent(path) => at_path(claims, path, Missing::Unknown, read),
        Source::Unsaid => Ok(read::unknown()),
        Source::KeycloakRoles => keycloak_roles(claims),
        Source::GithubRun => Ok(Membership::complete(github_run(claims)?)),
        Source::KubernetesGroups => Ok(Membership::complete(kubernetes_groups(claims)?)),
    }
}

fn is_said(claims: &Object, name: &str) -> bool {
    claims.contains_key(name) || is_elsewhere(claims, name)
}

/// A distributed or aggregated claim: its value must be fetched, and we do not.
fn is_elsewhere(claims: &Object, name: &str) -> bool {
    claims.get("_claim_names").and_then(Value::as_object).is_some_and(|names| names.contains_key(name))
}

fn at_path<S: AsRef<str>>(
    claims: &Object,
    path: &[S],
    missing: Missing,
    read: ReadNames,
) -> Result<Membership, Refused> {
    let first = path.first().map(AsRef::as_ref).unwrap_or_default();
    let elsewhere = is_elsewhere(claims, first);
    let label = path.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(".");
    match (read::at(claims, path), missing) {
        // `null` is no list of nothing: the issuer had nothing to say.
        (Some(Value::Null), _) => Ok(read::unknown()),
        (Some(value), _) if elsewhere => Ok(Membership::partial(read(&label, value)?)),
        (Some(value), _) => Ok(Membership::complete(read(&label, value)?)),
        (None, _) if elsewhere => Ok(read::unknown()),
        (None, Missing::Unknown) => Ok(read::unknown()),
        (None, Missing::Empty) => {
            parents_are_objects(claims, path)?;
            Ok(Membership::complete([]))
        }
    }
}

/// `realm_access: "x"` with path `realm_access.roles` is a mistyped claim, not a missing one.
fn parents_are_objects<S: AsRef<str>>(claims: &Object, path: &[S]) -> Result<(), Refused> {
    let mut here = claims;
    for name in path {
        here = match here.get(name.as_ref()) {
            None => return Ok(()),
            Some(Value::Object(inner)) => inner,
            Some(_) => return Err(read::wrong_type(name.as_ref(), "an object")),
        };
    }
    Ok(())
}

/// With "full group path" Keycloak writes `/shop/support`: rules say `shop/support`. Exactly one slash goes, so two
/// groups never become one.
fn keycloak_groups(claim: &str, value: &Value) -> Result<Vec<Arc<str>>, Refused> {
    let plain = |group: &Arc<str>| Arc::from(group.strip_prefix('/').unwrap_or(group));
    Ok(read::names(claim, value)?.iter().map(plain).collect())
}

fn keycloak_roles(claims: &Object) -> Result<Membership, Refused> {
    let realm = at_path(claims, &["realm_access", "roles"], Missing::Unknown, read::names)?;
    let mut names: Vec<Arc<str>> = realm.names().cloned().collect();
    let clients = match claims.get("resource_access") {
        None => None,
        Some(Value::Object(clients)) => Some(clients),
        Some(_) => return Err(read::wrong_type("resource_access", "an object")),
    };
    for (client, access) in clients.into_iter().flatten() {
        let Some(access) = access.as_object() else { return Err(read::wrong_type("resource_access", "of objects")) };
        let Some(roles) = access.get("roles") else { continue };
        names.extend(read::names("resource_access", roles)?.iter().map(|role| Arc::from(format!("{client}/{role}"))));
    }
    // The `roles` scope sends both or neither; a token with one of them had the scope.
    let said = realm.is_complete() || clients.is_some();
    Ok(if said { Membership::complete(names) } else { Membership::partial(names) })
}

/// What a workflow run is, as roles that rules can name: `role:<owner id>.<repository id>:environment:production`. The id
/// is part of the name, for anybody in the world can make a repository with an environment called `production`.
fn github_run(claims: &Object) -> Result<Vec<Arc<str>>, Refused> {
    const SAID: [(&str, &str); 7] = [
        ("ref", "ref"),
        ("environment", "environment"),
        ("event_name", "event"),
        ("workflow_ref", "workflow"),
        ("job_workflow_ref", "job-workflow"),
        ("ref_protected", "ref-protected"),
        ("runner_environment", "runner"),
    ];
    let id = super::subject::github_id(claims)?;
    let mut names = Vec::new();
    for (claim, prefix) in SAID {
        if let Some(value) = read::text(claims, claim)?.filter(|value| !value.is_empty()) {
            names.push(Arc::from(format!("{id}:{prefix}:{value}")));
        }
    }
    Ok(names)
}

/// As the API server does it: every service account, and those of the namespace.
fn kubernetes_groups(claims: &Object) -> Result<Vec<Arc<str>>, Refused> {
    let sub = read::required(claims, "sub")?;
    let namespace = super::subject::service_account(sub).map(|(namespace, _)| namespace).unwrap_or_default();
    Ok(vec![Arc::from("system:serviceaccounts"), Arc::from(format!("system:serviceaccounts:{namespace}"))])
}
