//! The hostile cases of tokens and claims, by tag and number.
use super::*;
use crate::principal::{Asking, Kind, Member};

fn reason(token: &str, profile: &Profile) -> Reason {
    let keys = sign::of(profile).keys();
    Peeked::parse(token).and_then(|peeked| peeked.verify(profile, &keys, NOW)).expect_err("refused").reason
}

/// A generic token whose claims are this text.
fn with_payload(payload: &str) -> String {
    let signer = sign::of(&profile(Preset::Generic));
    signer.compact(&json!({ "alg": signer.algorithm(), "kid": signer.kid() }), payload)
}

#[test]
fn api_49_alg_none_and_confusions_are_refused() {
    let profile = profile(Preset::Okta);
    let claims = Value::Object(good(Preset::Okta)).to_string();
    let signer = sign::of(&profile);
    for alg in ["none", "None", "HS256", "ES256", "PS256", "RS384", "EdDSA", "", "rs256"] {
        let token = signer.compact(&json!({ "alg": alg, "kid": signer.kid() }), &claims);
        assert_eq!(reason(&token, &profile), Reason::AlgorithmRefused, "{alg}");
    }
    let unsigned = format!("{}.{}.", sign::base64url(r#"{"alg":"none"}"#), sign::base64url(&claims));
    assert!(matches!(reason(&unsigned, &profile), Reason::AlgorithmRefused | Reason::TokenMalformed));
    // The issuer's allow-list, not the key's abilities, decides.
    let other = sign::ec("ec-2");
    let token = other.token(Some("JWT"), &good(Preset::Okta));
    let refused = Peeked::parse(&token).unwrap().verify(&profile, &other.keys(), NOW).expect_err("ES256 at Okta");
    assert_eq!(refused.reason, Reason::AlgorithmRefused);
}

#[test]
fn api_50_a_header_that_brings_its_own_key_is_refused() {
    let profile = profile(Preset::Generic);
    let signer = sign::of(&profile);
    for name in ["jku", "x5u", "jwk", "x5c"] {
        let header = json!({ "alg": signer.algorithm(), "kid": signer.kid(), name: "https://evil.example/jwks" });
        let token = signer.compact(&header, &Value::Object(good(Preset::Generic)).to_string());
        assert_eq!(reason(&token, &profile), Reason::TokenHeaderForbidden, "{name}");
    }
}

#[test]
fn api_51_audience_and_issuer_must_be_there_and_exact() {
    let generic = profile(Preset::Generic);
    let aud = |aud: Value, expected| check(&generic, &good_but(Preset::Generic, json!({ "aud": aud })), expected);
    aud(Value::Null, Err(Reason::AudienceWrong));
    aud(json!([]), Err(Reason::AudienceWrong));
    aud(json!(""), Err(Reason::AudienceWrong));
    for near in [
        "orders-api/",
        "Orders-API",
        "orders-ap",
        "orders-api ",
        " orders-api",
        "https://orders-api",
        "orders-api\u{0}",
    ] {
        aud(json!(near), Err(Reason::AudienceWrong));
        aud(json!([near]), Err(Reason::AudienceWrong));
    }
    aud(json!(["orders-api"]), Ok("generic|u-1"));
    aud(json!(["billing", "orders-api"]), Ok("generic|u-1"));
    aud(json!(7), Err(Reason::ClaimsMalformed));
    aud(json!({ "orders-api": true }), Err(Reason::ClaimsMalformed));
    aud(json!(["orders-api", 7]), Err(Reason::ClaimsMalformed));
    aud(json!(vec!["orders-api"; 17]), Err(Reason::ClaimsMalformed));
    // Several audiences, and nobody named to whom the token was given.
    let nobody = json!({ "aud": ["billing", "orders-api"], "client_id": null });
    check(&generic, &good_but(Preset::Generic, nobody), Err(Reason::AudienceWrong));

    check(&generic, &good_but(Preset::Generic, json!({ "iss": null })), Err(Reason::IssuerUnknown));
    check(
        &generic,
        &good_but(Preset::Generic, json!({ "iss": ["https://id.partner.example"] })),
        Err(Reason::ClaimsMalformed),
    );
}

#[test]
fn api_51_a_near_miss_is_named_for_operators_only() {
    let claims = good_but(Preset::Generic, json!({ "aud": "orders-api/" }));
    let refused = verdict(&profile(Preset::Generic), None, &claims).expect_err("near miss");
    assert_eq!(
        refused.detail,
        "for `orders-api/`, which is not ours; differs from `orders-api` only in a trailing slash"
    );
    assert!(!refused.reason.public().detail.contains("slash"));
}

#[test]
fn api_52_times_must_be_numbers_within_the_calendar() {
    let generic = profile(Preset::Generic);
    let with = |name: &str, value: Value, expected| {
        check(&generic, &good_but(Preset::Generic, json!({ name: value })), expected)
    };
    with("exp", Value::Null, Err(Reason::ClaimsMalformed));
    for name in ["exp", "nbf", "iat"] {
        for value in [json!("1790000300"), json!(-1), json!(1e308), json!(true), json!([1]), json!({}), json!(-0.5)] {
            with(name, value, Err(Reason::ClaimsMalformed));
        }
        with(name, json!(253_402_300_800_i64), Err(Reason::ClaimsMalformed));
        with(name, json!(u64::MAX), Err(Reason::ClaimsMalformed));
    }
    // RFC 7519 allows a fraction; it never lengthens a life.
    with("exp", json!(NOW as f64 + 300.5), Ok("generic|u-1"));
    with("exp", json!(NOW - 60), Err(Reason::Expired));
    with("exp", json!(NOW as f64 - 59.5), Err(Reason::Expired));
    with("exp", json!(NOW - 59), Ok("generic|u-1"));
    with("exp", json!(0), Err(Reason::Expired));
    with("nbf", json!(NOW + 60), Ok("generic|u-1"));
    with("nbf", json!(NOW + 61), Err(Reason::NotYetValid));
    with("nbf", json!(NOW as f64 + 60.5), Err(Reason::NotYetValid));
    with("nbf", json!(NOW + 365 * 86_400), Err(Reason::NotYetValid));
    with("iat", Value::Null, Ok("generic|u-1"));
    // Too large for a number at all.
    let text = Value::Object(good(Preset::Generic)).to_string().replace(&(NOW + 300).to_string(), "1e999");
    assert_eq!(reason(&with_payload(&text), &generic), Reason::ClaimsMalformed);
}

#[test]
fn api_53_unknown_obligations_are_refused() {
    let profile = profile(Preset::Generic);
    let signer = sign::of(&profile);
    for (name, value) in [("crit", json!(["exp"])), ("b64", json!(false))] {
        let header = json!({ "alg": signer.algorithm(), "kid": signer.kid(), name: value });
        let token = signer.compact(&header, &Value::Object(good(Preset::Generic)).to_string());
        assert_eq!(reason(&token, &profile), Reason::TokenHeaderForbidden, "{name}");
    }
}

#[test]
fn api_56_duplicates_depth_and_size_are_bounded() {
    let generic = profile(Preset::Generic);
    let text = Value::Object(good(Preset::Generic)).to_string();
    let twice = text.replacen('{', r#"{"sub":"root","#, 1);
    assert_eq!(reason(&with_payload(&twice), &generic), Reason::ClaimsMalformed);
    let deep = text.replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(1000), "]".repeat(1000)), 1);
    assert_eq!(reason(&with_payload(&deep), &generic), Reason::ClaimsMalformed);
    let large = good_but(Preset::Generic, json!({ "x": "a".repeat(64 * 1024) }));
    check(&generic, &large, Err(Reason::TokenTooLarge));
    for payload in ["[]", "null", "\"x\"", "{} {}", "{\"iss\":\"a\"}x", "\u{feff}{}", "{\"a\":1,}"] {
        assert_eq!(reason(&with_payload(payload), &generic), Reason::ClaimsMalformed, "{payload:?}");
    }
}

#[test]
fn api_56_identifiers_hold_nothing_invisible() {
    let generic = profile(Preset::Generic);
    for sub in
        ["", "a\u{0}b", "a\nb", "a\u{1b}[31mb", "a\u{202e}b", "a\u{200b}", "\u{feff}a", "a\u{85}b", &"a".repeat(256)]
    {
        check(&generic, &good_but(Preset::Generic, json!({ "sub": sub })), Err(Reason::ClaimsMalformed));
        check(&generic, &good_but(Preset::Generic, json!({ "client_id": sub })), Err(Reason::ClaimsMalformed));
        check(&generic, &good_but(Preset::Generic, json!({ "act": { "sub": sub } })), Err(Reason::ClaimsMalformed));
    }
    check(&generic, &good_but(Preset::Generic, json!({ "sub": null })), Err(Reason::ClaimsMalformed));
    check(&generic, &good_but(Preset::Generic, json!({ "sub": 7 })), Err(Reason::ClaimsMalformed));
    // Where another claim is the id, too.
    for preset in Preset::ALL {
        check(&profile(preset), &good_but(preset, json!({ "sub": [] })), Err(Reason::ClaimsMalformed));
    }
    let longest = "a".repeat(255);
    check(&generic, &good_but(Preset::Generic, json!({ "sub": longest })), Ok(&format!("generic|{longest}")));
    check(&generic, &good_but(Preset::Generic, json!({ "sub": "Zoë 蔡" })), Ok("generic|Zoë 蔡"));
}

#[test]
fn api_56_five_thousand_groups_are_read_and_a_token_of_them_is_too_large() {
    let groups: Vec<String> = (0..5000).map(|n| format!("g{n}")).collect();
    let claims = good_but(Preset::Generic, json!({ "groups": groups }));
    let principal = subject::principal(&claims, &profile(Preset::Generic), NOW + 300).unwrap();
    assert_eq!(principal.groups.names().count(), 5000);
    assert_eq!(principal.groups.state("g4999"), Member::Present);
    assert_eq!(principal.groups.state("g5000"), Member::Absent);
    check(&profile(Preset::Generic), &claims, Err(Reason::TokenTooLarge));
    let fewer: Vec<String> = (0..1200).map(|n| format!("g{n}")).collect();
    check(&profile(Preset::Generic), &good_but(Preset::Generic, json!({ "groups": fewer })), Ok("generic|u-1"));
}

#[test]
fn api_57_an_issuer_that_differs_in_slash_or_case_is_another_issuer() {
    let cases = [
        (Preset::Auth0, "https://acme.eu.auth0.com"),
        (Preset::Auth0, "https://Acme.eu.auth0.com/"),
        (Preset::Generic, "https://id.partner.example/"),
        (Preset::Generic, "HTTPS://id.partner.example"),
        (Preset::Keycloak, "https://sso.acme.example/realms/shop/"),
        (Preset::Keycloak, "https://sso.acme.example/auth/realms/shop"),
        (Preset::Okta, "https://acme.okta.com"),
        (Preset::Google, "https://accounts.google.com/"),
        (Preset::Entra, "https://sts.windows.net/11111111-2222-3333-4444-555555555555"),
        (Preset::Entra, "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0/"),
        (Preset::Entra, "https://login.microsoftonline.com/{tenantid}/v2.0"),
    ];
    for (preset, iss) in cases {
        check(&profile(preset), &good_but(preset, json!({ "iss": iss })), Err(Reason::IssuerUnknown));
    }
    let okta = profile(Preset::Okta);
    assert!(okta.near_miss("https://acme.okta.com").unwrap().contains("org authorization server"));
    assert!(profile(Preset::Auth0).near_miss("https://acme.eu.auth0.com").unwrap().contains("trailing slash"));
}

#[test]
fn api_57_a_v1_token_is_refused_by_a_v2_policy() {
    let v1 =
        json!({ "iss": format!("https://sts.windows.net/{TENANT}/"), "ver": "1.0", "azp": null, "appid": "shop-web" });
    let claims = good_but(Preset::Entra, v1);
    let subject = format!("entra|{TENANT}.aaaaaaaa-0000-0000-0000-000000000001");
    check(&profile(Preset::Entra), &claims, Ok(&subject));
    let v2_only = Settings {
        issuer: Some(format!("https://login.microsoftonline.com/{TENANT}/v2.0")),
        ..settings(Preset::Entra)
    };
    let v2_only = Profile::new(v2_only).unwrap();
    check(&v2_only, &claims, Err(Reason::IssuerUnknown));
    check(&v2_only, &good(Preset::Entra), Ok(&subject));
    // The version claim of one, the issuer of the other.
    check(&profile(Preset::Entra), &good_but(Preset::Entra, json!({ "ver": "1.0" })), Err(Reason::ClaimsMalformed));
}

#[test]
fn api_58_a_tenant_outside_the_list_is_refused() {
    for tenant in ["common", "organizations"] {
        let settings =
            Settings { tenant: Some(tenant.into()), tenants: vec![TENANT.into()], ..settings(Preset::Entra) };
        let profile = Profile::new(settings).unwrap();
        let subject = format!("entra|{TENANT}.aaaaaaaa-0000-0000-0000-000000000001");
        check(&profile, &good(Preset::Entra), Ok(&subject));
        let foreign =
            json!({ "tid": OTHER_TENANT, "iss": format!("https://login.microsoftonline.com/{OTHER_TENANT}/v2.0") });
        check(&profile, &good_but(Preset::Entra, foreign.clone()), Err(Reason::TenantRefused));
        // Ours in one place, theirs in the other.
        check(&profile, &good_but(Preset::Entra, json!({ "tid": OTHER_TENANT })), Err(Reason::TenantRefused));
        check(&profile, &good_but(Preset::Entra, json!({ "iss": foreign["iss"] })), Err(Reason::TenantRefused));
        check(&profile, &good_but(Preset::Entra, json!({ "tid": tenant })), Err(Reason::TenantRefused));
        check(&profile, &good_but(Preset::Entra, json!({ "tid": null })), Err(Reason::ClaimsMalformed));
    }
}

#[test]
fn api_58_candidates_name_the_reason_before_any_key_is_looked_at() {
    let multi = Settings { tenant: Some("common".into()), tenants: vec![TENANT.into()], ..settings(Preset::Entra) };
    let profiles = [profile(Preset::Okta), Profile::new(multi).unwrap(), profile(Preset::Auth0)];
    let candidates = |iss: &str| {
        let token = with_payload(&json!({ "iss": iss }).to_string());
        let peeked = Peeked::parse(&token).unwrap();
        peeked
            .candidates(&profiles)
            .map(|found| found.iter().map(|p| p.name().to_string()).collect())
            .map_err(|r| r.reason)
    };
    assert_eq!(candidates("https://acme.okta.com/oauth2/default"), Ok(vec!["okta".to_owned()]));
    assert_eq!(candidates(&format!("https://sts.windows.net/{TENANT}/")), Ok(vec!["entra".to_owned()]));
    assert_eq!(candidates(&format!("https://sts.windows.net/{OTHER_TENANT}/")), Err(Reason::TenantRefused));
    assert_eq!(candidates("https://acme.eu.auth0.com"), Err(Reason::IssuerUnknown));
    assert_eq!(candidates("https://nobody.example"), Err(Reason::IssuerUnknown));
}

#[test]
fn api_59_two_clusters_with_one_issuer_are_told_apart_by_their_keys() {
    let cluster =
        |name: &str| Profile::new(Settings { name: Arc::from(name), ..settings(Preset::Kubernetes) }).unwrap();
    let (east, west) = (cluster("east"), cluster("west"));
    let (east_key, west_key) = (sign::ec("k"), sign::ec("k"));
    let token = west_key.token(None, &good(Preset::Kubernetes));
    let both = [east, west];
    let candidates = Peeked::parse(&token).unwrap().candidates(&both).unwrap().len();
    assert_eq!(candidates, 2);
    let at = |profile, key: &sign::Signer| Peeked::parse(&token).unwrap().verify(profile, &key.keys(), NOW);
    assert_eq!(at(&both[0], &east_key).expect_err("foreign key").reason, Reason::SignatureBad);
    let principal = at(&both[1], &west_key).unwrap().into_principal();
    assert_eq!(principal.subject.as_ref(), "west|system:serviceaccount:shop:web");
}

#[test]
fn api_60_a_github_run_is_known_by_ids_that_outlive_names() {
    let github = profile(Preset::GithubActions);
    let run = |changes: Value, expected| check(&github, &good_but(Preset::GithubActions, changes), expected);
    run(
        json!({ "repository": "acme/store", "sub": "repo:acme/store:ref:refs/heads/main" }),
        Ok("github-actions|42.7001"),
    );
    // A fork, and a repository that took the name over, have other ids.
    run(json!({ "repository_id": "9009", "repository_owner_id": "666" }), Ok("github-actions|666.9009"));
    run(
        json!({ "event_name": "pull_request", "sub": "repo:acme/shop:pull_request" }),
        Ok("github-actions|42.7001:pull_request"),
    );
    run(json!({ "event_name": "pull_request_target" }), Ok("github-actions|42.7001:pull_request_target"));
    run(json!({ "aud": "https://github.com/acme" }), Err(Reason::AudienceWrong));
    run(json!({ "repository_id": null }), Err(Reason::TokenKind));
    run(json!({ "repository_id": "7001:x" }), Err(Reason::ClaimsMalformed));
    run(json!({ "repository_id": 7001 }), Err(Reason::ClaimsMalformed));

    let ours = Profile::new(Settings { tenants: vec!["42".into()], ..settings(Preset::GithubActions) }).unwrap();
    check(&ours, &good(Preset::GithubActions), Ok("github-actions|42.7001"));
    let fork = good_but(Preset::GithubActions, json!({ "repository_owner_id": "666" }));
    check(&ours, &fork, Err(Reason::TenantRefused));
}

#[test]
fn api_60_a_github_role_names_the_repository_it_is_of() {
    let roles = |changes: Value| {
        let claims = good_but(Preset::GithubActions, changes);
        verdict(&profile(Preset::GithubActions), None, &claims).unwrap().into_principal().roles
    };
    assert_eq!(roles(json!({})).state("42.7001:environment:production"), Member::Present);
    assert_eq!(roles(json!({})).state("42.7001:ref:refs/heads/main"), Member::Present);
    let stranger = roles(json!({ "repository_owner_id": "666", "repository_id": "9009" }));
    assert_eq!(stranger.state("42.7001:environment:production"), Member::Absent);
    let proposal = roles(json!({ "event_name": "pull_request_target" }));
    assert_eq!(proposal.state("42.7001:ref:refs/heads/main"), Member::Absent);
}

#[test]
fn api_61_cognito_takes_access_tokens_of_its_own_clients_only() {
    let cognito = profile(Preset::Cognito);
    let token = |changes: Value, expected| check(&cognito, &good_but(Preset::Cognito, changes), expected);
    token(json!({ "token_use": "id" }), Err(Reason::TokenKind));
    token(json!({ "token_use": null }), Err(Reason::TokenKind));
    token(json!({ "token_use": 1 }), Err(Reason::TokenKind));
    token(json!({ "client_id": "somebody-elses-app" }), Err(Reason::AudienceWrong));
    token(json!({ "client_id": null }), Err(Reason::AudienceWrong));
    token(json!({ "client_id": ["shop-web"] }), Err(Reason::ClaimsMalformed));
    // Bound to a resource that is not ours (resource binding gives access tokens an `aud`).
    token(json!({ "aud": "billing" }), Err(Reason::AudienceWrong));
    token(json!({ "aud": [] }), Err(Reason::AudienceWrong));
    token(json!({ "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Other" }), Err(Reason::IssuerUnknown));
}

#[test]
fn api_62_entra_overage_makes_every_other_group_unknown() {
    let groups = |changes: Value| {
        verdict(&profile(Preset::Entra), None, &good_but(Preset::Entra, changes)).unwrap().into_principal().groups
    };
    let source = json!({ "src1": { "endpoint": "https://graph.windows.net/t/users/u/getMemberObjects" } });
    let overages = [
        json!({ "_claim_names": { "groups": "src1" }, "_claim_sources": source }),
        json!({ "hasgroups": true }),
        json!({ "hasgroups": "true" }),
        json!({ "groups:src1": "https://graph.windows.net/t/users/u" }),
        json!({ "groups": ["g-1"], "hasgroups": true }),
        json!({ "groups": ["g-1"], "_claim_names": { "groups": "src1" } }),
        json!({ "groups": [], "hasgroups": true }),
    ];
    for overage in overages {
        let groups = groups(overage.clone());
        assert_eq!(groups.state("banned"), Member::Unknown, "{overage}");
    }
    assert_eq!(groups(json!({ "groups": ["g-1"], "hasgroups": true })).state("g-1"), Member::Present);
    assert_eq!(groups(json!({ "groups": ["g-1"], "hasgroups": false })).state("banned"), Member::Absent);

    // Also where the configuration promises that the claim is always there.
    let claims = ClaimPaths { groups: Some(vec!["groups".into()]), ..ClaimPaths::default() };
    let promised = Profile::new(Settings { claims, ..settings(Preset::Entra) }).unwrap();
    let overage = good_but(Preset::Entra, json!({ "_claim_names": { "groups": "src1" } }));
    assert_eq!(verdict(&promised, None, &overage).unwrap().principal().groups.state("banned"), Member::Unknown);
    assert_eq!(
        verdict(&promised, None, &good(Preset::Entra)).unwrap().principal().groups.state("banned"),
        Member::Absent
    );
}

#[test]
fn api_63_a_groups_claim_that_was_never_sent_is_unknown_unless_promised() {
    let state = |preset, changes: Value| {
        verdict(&profile(preset), None, &good_but(preset, changes)).unwrap().principal().groups.state("banned")
    };
    for preset in [Preset::Entra, Preset::Okta, Preset::Auth0, Preset::Keycloak, Preset::Google, Preset::Generic] {
        assert_eq!(state(preset, json!({ "groups": null })), Member::Unknown, "{}", preset.name());
    }
    for preset in [Preset::GithubActions, Preset::Kubernetes] {
        assert_eq!(state(preset, json!({})), Member::Absent, "{}", preset.name());
    }
    // Cognito sends the claim whenever there is a group to send.
    assert_eq!(state(Preset::Cognito, json!({ "cognito:groups": null })), Member::Absent);
    assert_eq!(state(Preset::Keycloak, json!({ "groups": [] })), Member::Absent);
}

#[test]
fn a_mistyped_membership_never_reads_as_none() {
    for (preset, claim) in
        [(Preset::Generic, "groups"), (Preset::Entra, "groups"), (Preset::Entra, "roles"), (Preset::Okta, "scp")]
    {
        for value in [json!(7), json!({ "a": 1 }), json!([["a"]]), json!(["a", 7]), json!(true)] {
            check(&profile(preset), &good_but(preset, json!({ claim: value })), Err(Reason::ClaimsMalformed));
        }
    }
    let keycloak = |value: Value| {
        check(&profile(Preset::Keycloak), &good_but(Preset::Keycloak, value), Err(Reason::ClaimsMalformed))
    };
    keycloak(json!({ "realm_access": { "roles": 7 } }));
    keycloak(json!({ "resource_access": "all" }));
    keycloak(json!({ "resource_access": { "orders": ["admin"] } }));
}

#[test]
fn api_64_an_app_only_token_is_a_workload_and_no_person() {
    let entra = profile(Preset::Entra);
    let kind = |changes: Value| {
        let claims = good_but(Preset::Entra, changes);
        verdict(&entra, None, &claims).map(|token| token.principal().kind).map_err(|refused| refused.reason)
    };
    let app = "bbbbbbbb-0000-0000-0000-000000000002";
    assert_eq!(kind(json!({ "idtyp": "app", "scp": null, "roles": ["Orders.Read.All"] })), Ok(Kind::Workload));
    assert_eq!(kind(json!({ "scp": null, "oid": app, "sub": app, "roles": ["Orders.Read.All"] })), Ok(Kind::Workload));
    assert_eq!(kind(json!({ "idtyp": "user" })), Ok(Kind::Person));
    assert_eq!(kind(json!({})), Ok(Kind::Person));
    // Says both: refused, not guessed.
    assert_eq!(kind(json!({ "idtyp": "app" })), Err(Reason::ClaimsMalformed));
    assert_eq!(kind(json!({ "idtyp": "device" })), Err(Reason::TokenKind));
    // No `scp` does not make an app, nor does a role.
    assert_eq!(kind(json!({ "scp": null, "roles": ["Orders.Read.All"] })), Err(Reason::TokenKind));
}

#[test]
fn authentication_contexts_are_those_the_issuer_lists() {
    let check = |preset: Preset, changes: Value, contexts: &[&str], asking: Asking| {
        let token = verdict(&profile(preset), None, &good_but(preset, changes)).unwrap();
        let assurance = &token.principal().assurance;
        let found: Vec<&str> = assurance.contexts.iter().map(AsRef::as_ref).collect();
        assert_eq!((found.as_slice(), assurance.asking), (contexts, asking));
    };
    let entra = |changes, contexts: &[&str], asking| check(Preset::Entra, changes, contexts, asking);
    entra(json!({}), &[], Asking::Never);
    entra(json!({ "acrs": ["c1", "c25"], "xms_cc": ["CP1"] }), &["c1", "c25"], Asking::Claims);
    entra(json!({ "xms_cc": ["cp2", "cp1"] }), &[], Asking::Claims);
    // Of the wrong type it is as good as not said.
    entra(json!({ "acrs": "c1", "xms_cc": "cp1" }), &[], Asking::Never);
    entra(json!({ "acrs": [1, {"c1": true}, ["c1"]] }), &[], Asking::Never);
    // A v1 token's `acr` is no context, and neither is one that somebody names `c1`.
    entra(json!({ "acr": "c1" }), &[], Asking::Never);
    let many: Vec<String> = (1..=200).map(|n| format!("c{n}")).collect();
    let first: Vec<&str> = many.iter().take(99).map(String::as_str).collect();
    entra(json!({ "acrs": many }), &first, Asking::Never);
    check(Preset::Generic, json!({ "acr": "silver", "acrs": ["c1"] }), &["silver"], Asking::Acr);
    check(Preset::Generic, json!({ "acr": ["silver"] }), &[], Asking::Acr);
    check(Preset::Generic, json!({}), &[], Asking::Acr);
}

#[test]
fn api_64_client_credentials_make_a_workload_with_every_provider() {
    let kind =
        |preset, changes: Value| verdict(&profile(preset), None, &good_but(preset, changes)).unwrap().principal().kind;
    let program = [
        (Preset::Okta, json!({ "uid": null, "sub": "shop-web" })),
        (Preset::Auth0, json!({ "sub": "shop-web@clients", "gty": "client-credentials" })),
        (Preset::Auth0, json!({ "sub": "shop-web@clients" })),
        (Preset::Auth0, json!({ "gty": ["client-credentials"] })),
        (Preset::Cognito, json!({ "sub": "shop-batch", "client_id": "shop-batch" })),
        (Preset::Keycloak, json!({ "sid": null, "client_id": "shop-web" })),
        (Preset::Keycloak, json!({ "sid": null, "clientId": "shop-web" })),
        (Preset::Keycloak, json!({ "sid": null, "preferred_username": "service-account-shop-web" })),
        (Preset::Google, json!({})),
        (Preset::Generic, json!({ "sub": "shop-web" })),
    ];
    for (preset, changes) in program {
        assert_eq!(kind(preset, changes.clone()), Kind::Workload, "{} {changes}", preset.name());
    }
}

#[test]
fn api_65_an_opaque_token_gets_a_clear_refusal() {
    for text in ["", "opaque", "00TnWq2Xjk1ePqfH3pXhJ9zqkvhG6C8QF8pVbKp0bY"] {
        let refused = Peeked::parse(text).expect_err("opaque");
        assert_eq!(refused.reason, Reason::TokenMalformed);
        assert!(refused.detail.contains("custom authorization server"), "{}", refused.detail);
    }
    for text in ["a.b", "..", "a.b.c", "a.b.c.d", "a.b.c.d.e", " ", "é.é.é"] {
        assert!(Peeked::parse(text).is_err(), "{text}");
    }
    let okta = profile(Preset::Okta);
    check_typ(&okta, Some("application/okta-internal-at+jwt"), &good(Preset::Okta), Err(Reason::TokenKind));
}

#[test]
fn api_66_a_token_bound_to_a_key_is_no_bearer() {
    for preset in Preset::ALL {
        for cnf in [json!({ "jkt": "x" }), json!({ "x5t#S256": "x" }), json!({}), json!("x")] {
            check(&profile(preset), &good_but(preset, json!({ "cnf": cnf })), Err(Reason::SenderConstrained));
        }
        let mut null = good(preset);
        null.insert("cnf".into(), Value::Null);
        check(&profile(preset), &null, Err(Reason::SenderConstrained));
    }
    let dpop = good_but(Preset::Keycloak, json!({ "typ": "DPoP", "cnf": { "jkt": "x" } }));
    check(&profile(Preset::Keycloak), &dpop, Err(Reason::SenderConstrained));
}

#[test]
fn api_66_every_proof_that_a_token_asks_for_is_demanded_and_no_other_will_do() {
    const JKT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    const X5T: &str = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2";
    let (key, certificate) =
        (crate::dpop::sha256(JKT), crate::dpop::sha256("bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg0"));
    assert!(crate::dpop::sha256(X5T).is_none(), "bits beyond the last byte are no second spelling");
    let (key, certificate) = (key.as_ref(), certificate.as_ref());
    let other = &[7; 32];
    let generic = profile(Preset::Generic);
    let bound =
        |cnf: Value| *verdict(&generic, None, &good_but(Preset::Generic, json!({ "cnf": cnf }))).unwrap().binding();
    let x5t = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg0";
    let dpop = bound(json!({ "jkt": JKT }));
    let mtls = bound(json!({ "x5t#S256": x5t }));
    let both = bound(json!({ "jkt": JKT, "x5t#S256": x5t }));
    let plain = *verdict(&generic, None, &good(Preset::Generic)).unwrap().binding();
    assert_eq!(
        [plain, dpop, mtls, both].map(|binding| binding.bound()),
        [None, Some(Bound::Dpop), Some(Bound::Certificate), Some(Bound::DpopAndCertificate)]
    );
    let cases = [
        (plain, Scheme::Bearer, None, None, true),
        (plain, Scheme::Bearer, Some(other), Some(other), true),
        (plain, Scheme::Dpop, key, None, false),
        (dpop, Scheme::Dpop, key, None, true),
        (dpop, Scheme::Dpop, key, Some(other), true),
        (dpop, Scheme::Dpop, Some(other), None, false),
        (dpop, Scheme::Dpop, None, certificate, false),
        (dpop, Scheme::Bearer, key, None, false),
        (mtls, Scheme::Bearer, None, certificate, true),
        (mtls, Scheme::Bearer, None, Some(other), false),
        (mtls, Scheme::Bearer, certificate, None, false),
        (mtls, Scheme::Dpop, key, certificate, false),
        (both, Scheme::Dpop, key, certificate, true),
        (both, Scheme::Dpop, key, None, false),
        (both, Scheme::Dpop, Some(other), certificate, false),
        (both, Scheme::Bearer, key, certificate, false),
    ];
    for (at, (binding, scheme, key, certificate, good)) in cases.into_iter().enumerate() {
        let got = binding.check(scheme, key, certificate).map_err(|refused| refused.reason);
        assert_eq!(got, if good { Ok(()) } else { Err(Reason::SenderConstrained) }, "case {at}");
    }
    // A way of binding that we do not know is never ignored, also beside one we know.
    for cnf in [json!({ "kid": "x" }), json!({ "jkt": JKT, "jwk": {} }), json!({ "jkt": [JKT] }), json!({ "jkt": X5T })]
    {
        check(&generic, &good_but(Preset::Generic, json!({ "cnf": cnf })), Err(Reason::SenderConstrained));
    }
}

#[test]
fn api_66_an_issuer_can_be_held_to_bound_tokens() {
    for preset in Preset::ALL {
        let strict = Settings { sender_constrained: SenderConstrained::Required, ..settings(preset) };
        let strict = Profile::new(strict).unwrap();
        check(&strict, &good(preset), Err(Reason::SenderConstrained));
        let cnf = json!({ "cnf": { "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" } });
        assert!(verdict(&strict, None, &good_but(preset, cnf)).is_ok_and(|token| token.binding().bound().is_some()));
    }
}

#[test]
fn api_69_forty_five_seconds_work_and_ten_minutes_are_named() {
    for preset in Preset::ALL {
        let profile = profile(preset);
        // Issued by the true clock, for five minutes.
        let claims = good_but(preset, json!({ "iat": NOW, "nbf": NOW, "exp": NOW + 300 }));
        let at = |now| verdict_at(&profile, None, &claims, now).map(|_| ()).map_err(|refused| refused.reason);
        assert_eq!(at(NOW - 45), Ok(()), "{} slow", preset.name());
        assert_eq!(at(NOW + 300 + 45), Ok(()), "{} fast, at the end of its life", preset.name());
        assert_eq!(at(NOW - 600), Err(Reason::Clock));
        // A fast clock cannot be told from an old token: the reason is the true one, and the detail has the ages.
        let refused = verdict_at(&profile, None, &claims, NOW + 600).expect_err("ten minutes fast");
        assert_eq!(refused.reason, Reason::Expired);
        assert_eq!(refused.detail, "expired 300 s ago, issued 600 s ago for 300 s; leeway 60 s");
    }
}

#[test]
fn the_signature_is_checked_before_any_claim_is_judged() {
    // Everything about this token is wrong; the reason names the signature.
    let generic = profile(Preset::Generic);
    let stranger = sign::ec("ec-1");
    let claims = good_but(Preset::Generic, json!({ "aud": "x", "exp": 1, "iss": "https://x.example", "cnf": {} }));
    let token = stranger.token(Some("dpop+jwt"), &claims);
    assert_eq!(reason(&token, &generic), Reason::SignatureBad);
    let unknown = sign::ec("other").token(None, &good(Preset::Generic));
    assert_eq!(reason(&unknown, &generic), Reason::KeyUnknown);
    // And without a key, the cheap checks save the fetch.
    let peeked = |claims: &Object| {
        Peeked::parse(&sign::ec("other").token(None, claims)).unwrap().plausible(&generic, NOW).map_err(|r| r.reason)
    };
    assert_eq!(peeked(&good(Preset::Generic)), Ok(()));
    assert_eq!(peeked(&good_but(Preset::Generic, json!({ "aud": "x" }))), Err(Reason::AudienceWrong));
    assert_eq!(peeked(&good_but(Preset::Generic, json!({ "exp": 1 }))), Err(Reason::Expired));
    let rsa = sign::of(&profile(Preset::Okta)).token(None, &good(Preset::Okta));
    let refused =
        Peeked::parse(&rsa).unwrap().plausible(&profile(Preset::Kubernetes), NOW).expect_err("Okta's, not ours");
    assert_eq!(refused.reason, Reason::TokenKind);
}

#[test]
fn an_email_or_user_name_is_never_the_identity() {
    for preset in Preset::ALL {
        let before = verdict(&profile(preset), None, &good(preset)).unwrap().into_principal();
        let renamed = good_but(
            preset,
            json!({ "email": "ceo@acme.example", "upn": "ceo@acme.example", "preferred_username": "ceo", "unique_name": "ceo",
                    "username": "ceo", "name": "CEO" }),
        );
        let after = verdict(&profile(preset), None, &renamed).unwrap().into_principal();
        assert_eq!(before, after, "{}", preset.name());
    }
}

#[test]
fn an_agent_acts_beside_the_person_or_for_itself() {
    let generic = Profile::new(Settings { agents: vec!["report-bot".into()], ..settings(Preset::Generic) }).unwrap();
    let principal =
        |changes: Value| verdict(&generic, None, &good_but(Preset::Generic, changes)).unwrap().into_principal();
    let agent = |changes: Value| principal(changes).agent.map(|agent| agent.name.to_string());

    assert_eq!(agent(json!({})), None);
    assert_eq!(agent(json!({ "act": { "sub": "helper", "act": { "sub": "earlier" } } })).as_deref(), Some("helper"));
    assert_eq!(agent(json!({ "client_id": "report-bot" })).as_deref(), Some("report-bot"));
    assert_eq!(agent(json!({ "client_id": "report-bot", "act": { "sub": "helper" } })).as_deref(), Some("helper"));
    assert_eq!(principal(json!({ "client_id": "report-bot" })).kind, Kind::Person);

    let alone = principal(json!({ "client_id": "report-bot", "sub": "report-bot" }));
    assert_eq!((alone.kind, alone.subject.as_ref(), alone.agent), (Kind::Agent, "generic|report-bot", None));
    // An agent that rules know by its certificate cannot be claimed by an issuer.
    let svid = json!({ "sub": "spiffe://acme.example/agents/bot" });
    for act in [json!("helper"), json!({}), json!({ "sub": 7 }), json!([]), svid, json!({ "sub": "/agents/bot" })] {
        check(&generic, &good_but(Preset::Generic, json!({ "act": act })), Err(Reason::ClaimsMalformed));
    }
}

#[test]
fn kubernetes_tokens_good_at_the_api_server_are_refused() {
    let cluster = profile(Preset::Kubernetes);
    let token = |changes: Value, expected| check(&cluster, &good_but(Preset::Kubernetes, changes), expected);
    token(json!({ "aud": ["https://kubernetes.default.svc.cluster.local"] }), Err(Reason::AudienceWrong));
    token(json!({ "aud": ["orders-api", "https://kubernetes.default.svc.cluster.local"] }), Err(Reason::AudienceWrong));
    token(json!({ "aud": ["orders-api", "https://kubernetes.default.svc"] }), Err(Reason::AudienceWrong));
    token(json!({ "aud": ["orders-api", "vault"] }), Err(Reason::AudienceWrong));
    for sub in [
        "system:serviceaccount:shop:web:x",
        "system:serviceaccount:shop",
        "system:node:a",
        "system:serviceaccount::web",
    ] {
        token(json!({ "sub": sub }), Err(Reason::ClaimsMalformed));
    }
    token(json!({ "sub": "system:serviceaccount:shop:admin" }), Err(Reason::ClaimsMalformed));
}

#[test]
fn a_refusal_is_one_bounded_line_whatever_the_token_says() {
    let nasty = "\u{1b}[2J\r\n\u{202e}`".repeat(200);
    let generic = profile(Preset::Generic);
    let twice = format!(r#"{{"{n}":1,"{n}":2}}"#, n = "a\\u001b".repeat(500));
    let mut details = vec![
        Peeked::parse(&with_payload(&twice)).expect_err("a name twice").detail,
        verdict(&generic, Some(&nasty), &good(Preset::Generic)).expect_err("typ").detail,
    ];
    for claim in ["aud", "sub", "client_id", "exp", "groups", "act", "iss"] {
        let claims = good_but(Preset::Generic, json!({ claim: nasty }));
        details.extend(verdict(&generic, None, &claims).err().map(|refused| refused.detail));
    }
    assert!(details.len() >= 7);
    for detail in details {
        assert!(detail.len() < 4000 && !detail.chars().any(|c| c.is_control() || c == '\u{202e}'), "{detail:?}");
    }
}
