//! Tests of the access token profile: throwaway keys sign simulated claims, every verdict is exact.
mod fixtures;
mod hostile;
mod introspected;
mod kinds;
mod property;
mod sign;

use super::*;
use crate::issuer::{ClaimPaths, Preset, Settings};
use serde_json::{Value, json};
use std::sync::Arc;

/// 2026-09-21T13:33:20Z, the moment of every test.
pub(super) const NOW: i64 = 1_790_000_000;
pub(super) const TENANT: &str = "11111111-2222-3333-4444-555555555555";
pub(super) const OTHER_TENANT: &str = "99999999-8888-7777-6666-555555555555";

/// Settings of each preset as a platform team would write them.
pub(super) fn settings(preset: Preset) -> Settings {
    let base =
        Settings { name: Arc::from(preset.name()), preset, audience: vec!["orders-api".into()], ..Settings::default() };
    let issuer = |issuer: &str| Some(issuer.to_owned());
    match preset {
        Preset::Entra => {
            Settings { tenant: Some(TENANT.into()), audience: vec!["api://orders".into(), "orders-api".into()], ..base }
        }
        Preset::Okta => Settings { issuer: issuer("https://acme.okta.com/oauth2/default"), ..base },
        Preset::Auth0 => Settings { issuer: issuer("https://acme.eu.auth0.com/"), ..base },
        Preset::Cognito => Settings {
            pool: Some("eu-west-1_AbCdEf123".into()),
            audience: Vec::new(),
            clients: vec!["shop-web".into(), "shop-batch".into()],
            ..base
        },
        Preset::Keycloak => Settings { issuer: issuer("https://sso.acme.example/realms/shop"), ..base },
        Preset::Google | Preset::GithubActions => base,
        Preset::Kubernetes => Settings { issuer: issuer("https://kubernetes.default.svc.cluster.local"), ..base },
        Preset::Generic => Settings { issuer: issuer("https://id.partner.example"), ..base },
    }
}

pub(super) fn profile(preset: Preset) -> Profile {
    Profile::new(settings(preset)).expect("sound settings")
}

/// An access token of a person (or, where there are none, of a workload) that every preset's [`profile`] accepts.
pub(super) fn good(preset: Preset) -> Object {
    let claims = match preset {
        Preset::Entra => json!({
            "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"), "aud": "orders-api", "ver": "2.0",
            "tid": TENANT, "oid": "aaaaaaaa-0000-0000-0000-000000000001", "sub": "pairwise-1", "azp": "shop-web",
            "azpacr": "1", "scp": "Orders.Read Orders.Write", "uti": "uti-1"
        }),
        Preset::Okta => json!({
            "iss": "https://acme.okta.com/oauth2/default", "aud": "orders-api", "ver": 1, "jti": "AT.1", "cid": "shop-web",
            "uid": "00u1", "sub": "ana@acme.example", "scp": ["openid", "orders.read"]
        }),
        Preset::Auth0 => json!({
            "iss": "https://acme.eu.auth0.com/", "aud": ["orders-api", "https://acme.eu.auth0.com/userinfo"],
            "sub": "auth0|64f0", "azp": "shop-web", "scope": "openid read:orders", "permissions": ["read:orders"]
        }),
        Preset::Cognito => json!({
            "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEf123", "client_id": "shop-web",
            "token_use": "access", "sub": "7f3e", "username": "ana", "scope": "orders/read", "jti": "j-1",
            "cognito:groups": ["support"]
        }),
        Preset::Keycloak => json!({
            "iss": "https://sso.acme.example/realms/shop", "aud": ["orders-api", "account"], "sub": "f:1:ana", "typ": "Bearer",
            "azp": "shop-web", "sid": "s-1", "scope": "openid profile", "jti": "j-1",
            "realm_access": { "roles": ["clerk"] }, "groups": ["/support"]
        }),
        Preset::Google => json!({
            "iss": "https://accounts.google.com", "aud": "orders-api", "azp": "1122334455", "sub": "1122334455",
            "email": "batch@acme.iam.gserviceaccount.com", "email_verified": true
        }),
        Preset::GithubActions => json!({
            "iss": "https://token.actions.githubusercontent.com", "aud": "orders-api",
            "sub": "repo:acme/shop:environment:production", "repository": "acme/shop", "repository_id": "7001",
            "repository_owner": "acme", "repository_owner_id": "42", "ref": "refs/heads/main", "event_name": "push",
            "environment": "production", "jti": "j-1"
        }),
        Preset::Kubernetes => json!({
            "iss": "https://kubernetes.default.svc.cluster.local", "aud": ["orders-api"],
            "sub": "system:serviceaccount:shop:web",
            "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "web", "uid": "u-1" } }
        }),
        Preset::Generic => json!({
            "iss": "https://id.partner.example", "aud": "orders-api", "sub": "u-1", "client_id": "shop-web", "jti": "j-1",
            "scope": "orders.read", "groups": ["support"]
        }),
    };
    let mut claims = claims.as_object().expect("an object").clone();
    for (name, value) in [("iat", NOW - 30), ("nbf", NOW - 30), ("exp", NOW + 300)] {
        claims.insert(name.into(), value.into());
    }
    claims
}

/// [`good`] with some claims replaced; `null` takes a claim away.
pub(super) fn good_but(preset: Preset, changes: Value) -> Object {
    let mut claims = good(preset);
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => claims.remove(name),
            value => claims.insert(name.clone(), value.clone()),
        };
    }
    claims
}

/// Signs as the preset's provider does and verifies at [`NOW`].
pub(super) fn verdict(profile: &Profile, typ: Option<&str>, claims: &Object) -> Result<VerifiedToken, Refused> {
    verdict_at(profile, typ, claims, NOW)
}

pub(super) fn verdict_at(
    profile: &Profile,
    typ: Option<&str>,
    claims: &Object,
    now: i64,
) -> Result<VerifiedToken, Refused> {
    let signer = sign::of(profile);
    let token = signer.token(typ, claims);
    Peeked::parse(&token)?.verify(profile, &signer.keys(), now)
}

/// A token presented as a bearer token, by a sender who proves nothing else.
pub(super) fn as_bearer(token: VerifiedToken) -> Result<VerifiedToken, Refused> {
    token.binding().check(Scheme::Bearer, None, None)?;
    Ok(token)
}

/// One token, one outcome: the subject it makes, or the reason it is refused for. Whatever `verify` refuses for its claims
/// `plausible` refuses as well, or lets pass; it never refuses what `verify` accepts.
pub(super) fn check(profile: &Profile, claims: &Object, expected: Result<&str, Reason>) {
    check_typ(profile, Some("JWT"), claims, expected);
}

pub(super) fn check_typ(profile: &Profile, typ: Option<&str>, claims: &Object, expected: Result<&str, Reason>) {
    let signer = sign::of(profile);
    let token = signer.token(typ, claims);
    let plausible = Peeked::parse(&token).and_then(|peeked| peeked.plausible(profile, NOW));
    let outcome = verdict(profile, typ, claims).and_then(as_bearer);
    if outcome.is_ok() {
        assert_eq!(plausible, Ok(()), "{claims:?}");
    }
    let outcome = outcome.as_ref().map(|token| token.principal().subject.as_ref()).map_err(|refused| refused.reason);
    assert_eq!(outcome, expected, "{:?} {typ:?} {claims:?}", profile.name());
}

#[test]
fn a_good_token_of_every_preset_is_accepted() {
    let subjects = [
        (Preset::Entra, format!("entra|{TENANT}.aaaaaaaa-0000-0000-0000-000000000001")),
        (Preset::Okta, "okta|00u1".to_owned()),
        (Preset::Auth0, "auth0|auth0|64f0".to_owned()),
        (Preset::Cognito, "cognito|7f3e".to_owned()),
        (Preset::Keycloak, "keycloak|f:1:ana".to_owned()),
        (Preset::Google, "google|1122334455".to_owned()),
        (Preset::GithubActions, "github-actions|42.7001".to_owned()),
        (Preset::Kubernetes, "kubernetes|system:serviceaccount:shop:web".to_owned()),
        (Preset::Generic, "generic|u-1".to_owned()),
    ];
    assert_eq!(subjects.len(), Preset::ALL.len());
    for (preset, subject) in subjects {
        check(&profile(preset), &good(preset), Ok(&subject));
        check_typ(&profile(preset), None, &good(preset), Ok(&subject));
        check_typ(&profile(preset), Some("application/AT+JWT"), &good(preset), Ok(&subject));
    }
}

#[test]
fn the_record_gets_the_facts() {
    let profile = profile(Preset::Entra);
    let token = verdict(&profile, Some("JWT"), &good(Preset::Entra)).unwrap();
    let expected = Facts {
        kid: Some("rsa-1".into()),
        algorithm: "RS256".into(),
        audience: vec!["orders-api".into()],
        issued_at: Some(NOW - 30),
        expires_at: NOW + 300,
        token_id: Some("uti-1".into()),
        bound: None,
    };
    assert_eq!(token.facts(), &expected);
    assert_eq!(token.principal().expires_at, NOW + 300);
    assert_eq!(token.principal().client.as_deref(), Some("shop-web"));
}

#[test]
fn assurance_is_what_the_issuer_said_and_never_a_passkey() {
    let claims = good_but(Preset::Generic, json!({ "acr": "high", "amr": ["pwd", "hwk"], "auth_time": NOW - 60 }));
    let principal = verdict(&profile(Preset::Generic), None, &claims).unwrap().into_principal();
    assert_eq!(principal.assurance.acr.as_deref(), Some("high"));
    assert_eq!(principal.assurance.amr, [Arc::from("pwd"), Arc::from("hwk")]);
    assert_eq!(principal.assurance.auth_time, Some(NOW - 60));
    assert_eq!((principal.assurance.passkey_at, principal.assurance.hardware_key), (None, false));
    let mistyped = good_but(Preset::Generic, json!({ "acr": 3, "amr": "hwk", "auth_time": "now" }));
    let principal = verdict(&profile(Preset::Generic), None, &mistyped).unwrap().into_principal();
    assert_eq!(principal.assurance, Default::default());
}

#[test]
fn claim_paths_of_the_configuration_win() {
    let paths = |groups: &[&str]| Some(groups.iter().map(|name| (*name).to_owned()).collect());
    let claims = ClaimPaths {
        groups: paths(&["https://acme.example/groups"]),
        roles: paths(&["resource_access", "orders.v1", "roles"]),
        scopes: paths(&["rights"]),
        id: paths(&["employee", "number"]),
        client: paths(&["app"]),
    };
    let profile = Profile::new(Settings { claims, ..settings(Preset::Generic) }).unwrap();
    let token = good_but(
        Preset::Generic,
        json!({
            "https://acme.example/groups": ["a", "b"], "resource_access": { "orders.v1": { "roles": ["clerk"] } },
            "rights": "r w", "employee": { "number": 4711 }, "app": "till"
        }),
    );
    let principal = verdict(&profile, None, &token).unwrap().into_principal();
    let names = |set: &crate::principal::Membership| set.names().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(principal.subject.as_ref(), "generic|4711");
    assert_eq!(principal.client.as_deref(), Some("till"));
    assert_eq!(names(&principal.groups), ["a", "b"]);
    assert_eq!(names(&principal.roles), ["clerk"]);
    assert_eq!(names(&principal.scopes), ["r", "w"]);
}
