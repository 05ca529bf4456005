//! Claim sets written down from the providers' documents, one file each, with the verdict they must get. None was seen
//! live: every file says what it was simulated from.
use super::*;
use crate::principal::{Kind, Membership};
use std::collections::BTreeMap;
use std::path::Path;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    _source: String,
    /// What differs from this preset's [`settings`].
    #[serde(default)]
    issuer: Issuer,
    typ: Option<String>,
    claims: Object,
    expect: Expect,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Issuer {
    tenant: Option<String>,
    tenants: Option<Vec<String>>,
    audience: Option<Vec<String>>,
    clients: Option<Vec<String>>,
    agents: Option<Vec<String>>,
    groups: Option<Vec<String>>,
    roles: Option<Vec<String>>,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Expect {
    Refused(String),
    Accepted(Accepted),
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    subject: String,
    kind: String,
    client: Option<String>,
    agent: Option<String>,
    groups: Names,
    roles: Names,
    scopes: Names,
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(untagged)]
enum Names {
    All(Vec<String>),
    /// These, and nobody knows which others.
    AtLeast {
        at_least: Vec<String>,
    },
}

fn names(set: &Membership) -> Names {
    let names = set.names().map(ToString::to_string).collect();
    if set.is_complete() { Names::All(names) } else { Names::AtLeast { at_least: names } }
}

fn outcome(profile: &Profile, fixture: &Fixture) -> Expect {
    let principal = match verdict(profile, fixture.typ.as_deref(), &fixture.claims).and_then(as_bearer) {
        Ok(token) => token.into_principal(),
        Err(refused) => return Expect::Refused(refused.reason.code().to_owned()),
    };
    let kind = match principal.kind {
        Kind::Person => "person",
        Kind::Workload => "workload",
        Kind::Agent => "agent",
    };
    Expect::Accepted(Accepted {
        subject: principal.subject.to_string(),
        kind: kind.to_owned(),
        client: principal.client.map(|client| client.to_string()),
        agent: principal.agent.map(|agent| agent.name.to_string()),
        groups: names(&principal.groups),
        roles: names(&principal.roles),
        scopes: names(&principal.scopes),
    })
}

fn configured(preset: Preset, issuer: &Issuer) -> Profile {
    let mut settings = settings(preset);
    settings.tenant = issuer.tenant.clone().or(settings.tenant);
    for (field, value) in [
        (&mut settings.tenants, &issuer.tenants),
        (&mut settings.audience, &issuer.audience),
        (&mut settings.clients, &issuer.clients),
        (&mut settings.agents, &issuer.agents),
    ] {
        if let Some(value) = value {
            field.clone_from(value);
        }
    }
    settings.claims.groups.clone_from(&issuer.groups);
    settings.claims.roles.clone_from(&issuer.roles);
    Profile::new(settings).expect("sound settings")
}

#[test]
fn fixtures_of_every_preset_get_their_verdict() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/issuers");
    let mut seen: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for preset in Preset::ALL {
        for entry in std::fs::read_dir(root.join(preset.name())).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let fixture: Fixture = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            assert!(fixture._source.starts_with("simulated from documentation of "), "{path:?}");
            let outcome = outcome(&configured(preset, &fixture.issuer), &fixture);
            assert_eq!(outcome, fixture.expect, "{path:?}");
            let (accepted, refused) = seen.entry(preset.name()).or_default();
            *(if matches!(outcome, Expect::Accepted(_)) { accepted } else { refused }) += 1;
        }
    }
    for (preset, (accepted, refused)) in &seen {
        assert!(*accepted >= 1 && *refused >= 1, "{preset}: {accepted} accepted, {refused} refused");
    }
    assert_eq!(seen.len(), Preset::ALL.len());
}
