//! Tests of issuer settings: every problem at once, each with its key and its cure, and the identifiers that follow.
use super::*;

const TENANT: &str = "11111111-2222-3333-4444-555555555555";

fn sound(preset: Preset) -> Settings {
    let base =
        Settings { name: Arc::from(preset.name()), preset, audience: vec!["orders".into()], ..Settings::default() };
    match preset {
        Preset::Entra => Settings { tenant: Some(TENANT.into()), ..base },
        Preset::Okta => Settings { issuer: Some("https://acme.okta.com/oauth2/default".into()), ..base },
        Preset::Auth0 => Settings { issuer: Some("https://acme.eu.auth0.com/".into()), ..base },
        Preset::Cognito => Settings { pool: Some("eu-west-1_AbC".into()), clients: vec!["web".into()], ..base },
        Preset::Keycloak => Settings { issuer: Some("https://sso.acme.example/realms/shop".into()), ..base },
        Preset::Google | Preset::GithubActions => base,
        Preset::Kubernetes => Settings { issuer: Some("https://kubernetes.default.svc".into()), ..base },
        Preset::Generic => Settings { issuer: Some("https://id.partner.example".into()), ..base },
    }
}

/// The settings give exactly these messages, each with a cure.
fn check(settings: Settings, expected: &[&str]) {
    let problems = Profile::new(settings).err().unwrap_or_default();
    let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(messages, expected);
    for SettingsError::Field { fix, .. } in &problems {
        assert!(fix.len() > 10, "no cure: {fix}");
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn sound_settings_of_every_preset_are_accepted() {
    for preset in Preset::ALL {
        check(sound(preset), &[]);
    }
}

#[test]
fn an_issuer_can_say_only_the_names_its_tokens_have_a_place_for() {
    let check = |settings: Settings, set: NameSet, name: &str, expected: bool| {
        let profile = Profile::new(settings).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!(profile.can_say(set, name), expected, "{} {set:?} {name}", profile.name());
    };
    let (groups, roles, scopes) = (NameSet::Groups, NameSet::Roles, NameSet::Scopes);
    for preset in [Preset::Entra, Preset::Okta, Preset::Cognito, Preset::Keycloak, Preset::Generic] {
        check(sound(preset), groups, "support", true);
        check(sound(preset), scopes, "orders.read", true);
    }
    for preset in [Preset::Auth0, Preset::Google, Preset::GithubActions, Preset::Kubernetes] {
        check(sound(preset), groups, "support", false);
        let paths = ClaimPaths { groups: Some(texts(&["groups"])), ..ClaimPaths::default() };
        check(Settings { claims: paths, ..sound(preset) }, groups, "support", true);
    }
    check(sound(Preset::Kubernetes), groups, "system:serviceaccounts:shop", true);
    check(sound(Preset::GithubActions), roles, "65.74:environment:production", true);
    check(sound(Preset::GithubActions), roles, "admin", false);
    check(sound(Preset::Cognito), roles, "admin", false);
    check(sound(Preset::Google), scopes, "orders.read", false);
}

#[test]
fn google_and_github_take_everybody_until_narrowed() {
    let everybody = |settings: Settings| Profile::new(settings).is_ok_and(|profile| profile.takes_everybody());
    for preset in Preset::ALL {
        let expected = matches!(preset, Preset::Google | Preset::GithubActions);
        assert_eq!(everybody(sound(preset)), expected, "{}", preset.name());
    }
    assert!(!everybody(Settings { tenants: texts(&["acme.example"]), ..sound(Preset::Google) }));
    assert!(!everybody(Settings { clients: texts(&["1.apps"]), ..sound(Preset::Google) }));
    assert!(!everybody(Settings { tenants: texts(&["65"]), ..sound(Preset::GithubActions) }));
}

#[test]
fn every_problem_is_shown_at_once() {
    let claims = ClaimPaths { id: Some(texts(&["email"])), groups: Some(Vec::new()), ..ClaimPaths::default() };
    let settings = Settings {
        name: Arc::from("My|Issuer"),
        issuer: Some("http://id.partner.example".into()),
        tenant: Some(TENANT.into()),
        pool: Some("x".into()),
        leeway_s: 600,
        claims,
        jwks_uri: Some("ftp://x".into()),
        jwks_file: Some("keys.json".into()),
        agents: texts(&["a b"]),
        ..Settings::default()
    };
    check(
        settings,
        &[
            "name: `My|Issuer` is no issuer name",
            "leeway: 600 s is not between 0 and 120",
            "issuer: `http://id.partner.example` is not https (plain http is for loopback only)",
            "tenant: only the entra preset has a tenant",
            "pool: only the cognito preset has a pool",
            "audience: is missing",
            "agents: `a b` is no client id",
            "claims.groups: is no path to a claim",
            "claims.id: `email` can be changed or given to somebody else, so it is no identity",
            "jwks_file: stands beside `jwks_uri`",
            "jwks_uri: `ftp://x` is no `https://` URL",
        ],
    );
}

#[test]
fn entra_needs_a_tenant_and_all_tenants_need_a_list() {
    let entra = |tenant: Option<&str>, tenants: &[&str]| Settings {
        tenant: tenant.map(str::to_owned),
        tenants: texts(tenants),
        ..sound(Preset::Entra)
    };
    check(entra(None, &[]), &["tenant: is missing"]);
    check(entra(Some("acme.onmicrosoft.com"), &[]), &["tenant: `acme.onmicrosoft.com` is no tenant id"]);
    check(entra(Some("common"), &[]), &["tenants: is missing, and `tenant: common` needs it"]);
    check(entra(Some("Organizations"), &[]), &["tenants: is missing, and `tenant: organizations` needs it"]);
    check(entra(Some("common"), &["*"]), &["tenants: `*` is no tenant id"]);
    check(entra(Some(TENANT), &[TENANT]), &["tenants: needs `tenant: organizations` or `tenant: common`"]);
    check(
        entra(Some("organizations"), &["consumers"]),
        &["tenants: `organizations` never holds personal accounts (`consumers`)"],
    );
    check(entra(Some("common"), &["consumers", &TENANT.to_uppercase()]), &[]);
    let elsewhere = Settings { issuer: Some("https://login.microsoftonline.us/x/v2.0".into()), ..sound(Preset::Entra) };
    let message = format!("issuer: `https://login.microsoftonline.us/x/v2.0` does not name tenant `{TENANT}`");
    check(elsewhere, &[&message]);
}

#[test]
fn the_traps_of_each_provider_are_settings_errors() {
    let okta = Settings { issuer: Some("https://acme.okta.com".into()), ..sound(Preset::Okta) };
    check(
        okta,
        &[
            "issuer: `https://acme.okta.com` is Okta's org authorization server, whose access tokens nobody but Okta can check",
        ],
    );
    let auth0 = Settings { issuer: Some("https://acme.eu.auth0.com".into()), ..sound(Preset::Auth0) };
    check(auth0, &["issuer: `https://acme.eu.auth0.com` does not end with `/`, as every Auth0 issuer does"]);
    let github = Settings { audience: texts(&["https://github.com/acme"]), ..sound(Preset::GithubActions) };
    check(
        github,
        &[
            "audience: `https://github.com/acme` is GitHub's default, which any workflow of that owner gets without asking",
        ],
    );
    check(Settings { clients: Vec::new(), ..sound(Preset::Cognito) }, &["clients: is missing"]);
    check(Settings { pool: Some("AbC".into()), ..sound(Preset::Cognito) }, &["pool: `AbC` is no user pool id"]);
    for audience in ["https://kubernetes.default.svc", "kubernetes", "k3s"] {
        let message =
            format!("audience: `{audience}` is the API server's audience, which every pod's default token carries");
        check(Settings { audience: texts(&[audience]), ..sound(Preset::Kubernetes) }, &[&message]);
    }
    check(
        Settings { tenants: texts(&["acme"]), ..sound(Preset::GithubActions) },
        &["tenants: `acme` is no tenant of github-actions"],
    );
    check(
        Settings { tenants: texts(&["acme.example"]), ..sound(Preset::Okta) },
        &["tenants: `acme.example` is no tenant of okta"],
    );
    check(Settings { tenants: texts(&["42"]), ..sound(Preset::GithubActions) }, &[]);
    check(Settings { tenants: texts(&["acme.example"]), ..sound(Preset::Google) }, &[]);
    check(
        Settings { accept_typ_jwt: false, ..sound(Preset::Entra) },
        &["accept_typ_jwt: entra marks its access tokens `JWT`, so none would be accepted"],
    );
    check(
        Settings { agents: texts(&["bot"]), ..sound(Preset::Kubernetes) },
        &["agents: tokens of kubernetes name no OAuth client"],
    );
}

#[test]
fn issuer_urls_are_plain_https_or_loopback() {
    let generic = |issuer: &str| Settings { issuer: Some(issuer.into()), ..sound(Preset::Generic) };
    for fine in [
        "https://id.example",
        "https://id.example/a/b/",
        "http://localhost:8080",
        "http://127.0.0.1:9/x",
        "http://[::1]:9",
        "http://issuer.localhost",
    ] {
        check(generic(fine), &[]);
    }
    for (issuer, problem) in [
        ("id.example", "is no `https://` URL"),
        ("", "is no `https://` URL"),
        ("https://", "names no host"),
        ("https://:443", "names no host"),
        ("https://a@id.example", "holds a user name"),
        ("https://id.example?x=1", "holds a query or a fragment"),
        ("https://id.example#x", "holds a query or a fragment"),
        ("https://id .example", "holds a character that no URL may hold"),
        ("http://localhost.evil.example", "is not https (plain http is for loopback only)"),
        ("http://127.0.0.1.evil.example", "is not https (plain http is for loopback only)"),
        ("http://10.0.0.1", "is not https (plain http is for loopback only)"),
    ] {
        check(generic(issuer), &[&format!("issuer: `{issuer}` {problem}")]);
    }
}

#[test]
fn identifiers_and_discovery_follow_from_the_settings() {
    let facts = |settings: Settings| {
        let profile = Profile::new(settings).unwrap();
        (profile.issuers().to_vec(), profile.discovery_url())
    };
    let v2 = format!("https://login.microsoftonline.com/{TENANT}/v2.0");
    let v1 = format!("https://sts.windows.net/{TENANT}/");
    let at = |base: &str| format!("{base}/.well-known/openid-configuration");
    assert_eq!(facts(sound(Preset::Entra)), (vec![v2.clone(), v1.clone()], at(&v2)));
    let multi = Settings { tenant: Some("common".into()), tenants: texts(&[TENANT]), ..sound(Preset::Entra) };
    assert_eq!(facts(multi), (vec![v2.clone(), v1], at("https://login.microsoftonline.com/common/v2.0")));
    let fixed = Settings { issuer: Some(v2.clone()), ..sound(Preset::Entra) };
    assert_eq!(facts(fixed), (vec![v2.clone()], at(&v2)));
    // OpenID Connect Discovery §4: one terminating slash goes.
    assert_eq!(facts(sound(Preset::Auth0)).1, at("https://acme.eu.auth0.com"));
    let pool = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbC";
    assert_eq!(facts(sound(Preset::Cognito)), (texts(&[pool]), at(pool)));
    let china = facts(Settings { pool: Some("cn-north-1_AbC".into()), ..sound(Preset::Cognito) });
    assert_eq!(china.0, ["https://cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_AbC"]);
    assert_eq!(facts(sound(Preset::Google)).0, ["https://accounts.google.com", "accounts.google.com"]);
    assert_eq!(facts(sound(Preset::GithubActions)).0, ["https://token.actions.githubusercontent.com"]);
}

#[test]
fn the_discovered_issuer_must_be_the_expected_one() {
    let discovered =
        |settings: Settings, issuer: &str| Profile::new(settings).unwrap().accepts_discovered_issuer(issuer);
    let multi = Settings { tenant: Some("organizations".into()), tenants: texts(&[TENANT]), ..sound(Preset::Entra) };
    assert!(discovered(multi.clone(), "https://login.microsoftonline.com/{tenantid}/v2.0"));
    assert!(!discovered(multi, &format!("https://login.microsoftonline.com/{TENANT}/v2.0")));
    assert!(discovered(sound(Preset::Entra), &format!("https://login.microsoftonline.com/{TENANT}/v2.0")));
    assert!(!discovered(sound(Preset::Entra), "https://login.microsoftonline.com/{tenantid}/v2.0"));
    assert!(!discovered(sound(Preset::Entra), &format!("https://sts.windows.net/{TENANT}/")));
    assert!(discovered(sound(Preset::Auth0), "https://acme.eu.auth0.com/"));
    assert!(!discovered(sound(Preset::Auth0), "https://acme.eu.auth0.com"));
    assert!(!discovered(sound(Preset::Google), "accounts.google.com"));
}
