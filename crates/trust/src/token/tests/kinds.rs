//! One kind of token is never accepted for another: every other kind, signed by the very key of the issuer and dressed up
//! as well as it can be, against every preset.
use super::*;

/// What each foreign kind looks like when its `iss`, audience and times are made to fit the preset: the header `typ` it
/// has, and what it adds to or lacks from nothing but these.
fn bare(preset: Preset, extra: Value) -> Object {
    let access = good(preset);
    let mut claims = Object::new();
    for name in ["iss", "aud", "iat", "exp", "jti"] {
        if let Some(value) = access.get(name) {
            claims.insert(name.into(), value.clone());
        }
    }
    claims.entry("aud").or_insert("orders-api".into());
    claims.extend(extra.as_object().expect("an object").clone());
    claims
}

/// An ID token as the preset's provider makes it, but for our audience: the hardest one to tell.
fn id_token(preset: Preset) -> Object {
    let sub = good(preset)["sub"].clone();
    match preset {
        Preset::Entra => bare(
            preset,
            json!({ "ver": "2.0", "tid": TENANT, "oid": "aaaaaaaa-0000-0000-0000-000000000001", "sub": sub,
                    "preferred_username": "ana@acme.example", "name": "Ana", "roles": ["Clerk"], "uti": "u" }),
        ),
        Preset::Okta => {
            bare(preset, json!({ "ver": 1, "sub": "00u1", "amr": ["pwd"], "idp": "00o1", "auth_time": NOW - 60 }))
        }
        Preset::Auth0 => bare(preset, json!({ "aud": "orders-api", "sub": sub, "name": "Ana", "sid": "s-1" })),
        Preset::Cognito => bare(
            preset,
            json!({ "aud": "shop-web", "sub": sub, "token_use": "id", "cognito:username": "ana", "cognito:groups": ["support"] }),
        ),
        Preset::Keycloak => {
            bare(preset, json!({ "sub": sub, "typ": "ID", "azp": "shop-web", "sid": "s-1", "acr": "1" }))
        }
        // The preset takes Google's identity tokens; the ones of a sign-in carry these two.
        Preset::Google => bare(preset, json!({ "sub": sub, "azp": "orders-api", "at_hash": "x", "nonce": "n" })),
        Preset::GithubActions | Preset::Kubernetes => bare(preset, json!({ "sub": sub, "nonce": "n" })),
        Preset::Generic => {
            bare(preset, json!({ "sub": sub, "azp": "orders-api", "auth_time": NOW - 60, "email": "a@b.example" }))
        }
    }
}

/// (kind, its own `typ`, claims)
fn foreign_kinds(preset: Preset) -> Vec<(&'static str, Option<&'static str>, Object)> {
    let iss = good(preset)["iss"].clone();
    let sub = good(preset)["sub"].clone();
    let logout = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
    let revoked = json!({ "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {} });
    vec![
        ("ID token", Some("JWT"), id_token(preset)),
        ("ID token of a sign-in", Some("JWT"), bare(preset, json!({ "sub": sub, "nonce": "n", "azp": "shop-web" }))),
        (
            "ID token of a hybrid flow",
            Some("JWT"),
            bare(preset, json!({ "sub": sub, "c_hash": "c", "azp": "shop-web" })),
        ),
        ("JWT-SVID", Some("JOSE"), bare(preset, json!({ "sub": "spiffe://acme.example/shop/web" }))),
        (
            "Txn-Token",
            Some("txntoken+jwt"),
            bare(
                preset,
                json!({ "sub": sub, "txn": "t-1", "scope": "orders.read", "req_wl": "spiffe://acme.example/edge" }),
            ),
        ),
        ("logout token", Some("logout+jwt"), bare(preset, json!({ "sub": sub, "sid": "s-1", "events": logout }))),
        (
            "SET",
            Some("secevent+jwt"),
            bare(preset, json!({ "sub_id": { "format": "opaque", "id": "1" }, "events": revoked })),
        ),
        (
            "DPoP proof",
            Some("dpop+jwt"),
            bare(preset, json!({ "htm": "GET", "htu": "https://shop.acme.example/orders" })),
        ),
        ("client assertion", Some("JWT"), bare(preset, json!({ "sub": "shop-web" }))),
        ("client assertion of the issuer for itself", Some("JWT"), bare(preset, json!({ "sub": iss }))),
        (
            "introspection answer",
            Some("token-introspection+jwt"),
            bare(preset, json!({ "token_introspection": { "active": true } })),
        ),
        (
            "authorization request",
            Some("oauth-authz-req+jwt"),
            bare(preset, json!({ "response_type": "code", "client_id": "shop-web" })),
        ),
    ]
}

#[test]
fn a8_no_other_kind_of_token_is_an_access_token() {
    for preset in Preset::ALL {
        let profile = profile(preset);
        for (kind, typ, claims) in foreign_kinds(preset) {
            // With its own `typ`, without any, and as plain `JWT`.
            for typ in [typ, None, Some("JWT")] {
                let refused = verdict(&profile, typ, &claims).expect_err(kind);
                assert_eq!(refused.reason, Reason::TokenKind, "{} {kind} {typ:?}: {}", preset.name(), refused.detail);
            }
        }
    }
}

#[test]
fn a8_the_marks_of_another_kind_refuse_an_otherwise_good_access_token() {
    for preset in Preset::ALL {
        for mark in ["at_hash", "c_hash", "s_hash", "events", "htm", "htu", "req_wl", "rctx", "tctx", "response_type"] {
            let claims = good_but(preset, json!({ mark: "x" }));
            check(&profile(preset), &claims, Err(Reason::TokenKind));
            check_typ(&profile(preset), Some("at+jwt"), &claims, Err(Reason::TokenKind));
        }
        for typ in ["ID", "Refresh", "Offline", "Logout"] {
            check(&profile(preset), &good_but(preset, json!({ "typ": typ })), Err(Reason::TokenKind));
        }
    }
}

#[test]
fn api_54_an_id_token_is_no_access_token_with_any_provider() {
    for preset in Preset::ALL {
        check(&profile(preset), &id_token(preset), Err(Reason::TokenKind));
        if preset != Preset::Keycloak {
            check(&profile(preset), &good_but(preset, json!({ "nonce": "n" })), Err(Reason::TokenKind));
        }
    }
    // Older Keycloaks copy the nonce; their `typ` claim decides.
    check(&profile(Preset::Keycloak), &good_but(Preset::Keycloak, json!({ "nonce": "n" })), Ok("keycloak|f:1:ana"));
}

#[test]
fn api_55_logout_tokens_events_proofs_and_assertions_are_no_access_tokens() {
    let typs = [
        "logout+jwt",
        "secevent+jwt",
        "dpop+jwt",
        "txntoken+jwt",
        "client-authentication+jwt",
        "jose",
        "id+jwt",
        "JWS",
    ];
    for preset in Preset::ALL {
        for typ in typs {
            // Even over the claims of a perfect access token.
            check_typ(&profile(preset), Some(typ), &good(preset), Err(Reason::TokenKind));
            check_typ(&profile(preset), Some(&format!("application/{typ}")), &good(preset), Err(Reason::TokenKind));
        }
    }
}

#[test]
fn an_issuer_of_rfc_9068_can_insist_on_its_typ() {
    for preset in [Preset::Generic, Preset::Keycloak, Preset::Auth0] {
        let strict = Profile::new(Settings { accept_typ_jwt: false, ..settings(preset) }).unwrap();
        let subject = verdict(&strict, Some("at+jwt"), &good(preset)).unwrap().into_principal().subject;
        check_typ(&strict, Some("application/at+jwt"), &good(preset), Ok(&subject));
        for typ in [None, Some("JWT"), Some("at+jwt2"), Some("application/application/at+jwt"), Some("")] {
            check_typ(&strict, typ, &good(preset), Err(Reason::TokenKind));
        }
    }
}

#[test]
fn a_silent_token_must_show_what_it_is() {
    let generic = profile(Preset::Generic);
    let silent = good_but(Preset::Generic, json!({ "client_id": null, "scope": null }));
    check(&generic, &silent, Err(Reason::TokenKind));
    check_typ(&generic, Some("at+jwt"), &silent, Ok("generic|u-1"));
    // Only the client's own audience and no scope: an ID token that somebody gave a `client_id`.
    let own = good_but(Preset::Generic, json!({ "client_id": "orders-api", "scope": null }));
    check(&generic, &own, Err(Reason::TokenKind));
    let entra = profile(Preset::Entra);
    check(&entra, &good_but(Preset::Entra, json!({ "azp": null })), Err(Reason::TokenKind));
    check(&entra, &good_but(Preset::Entra, json!({ "scp": null })), Err(Reason::TokenKind));
    check(&entra, &good_but(Preset::Entra, json!({ "scp": null, "idtyp": "user" })), Err(Reason::TokenKind));
    check(&profile(Preset::Keycloak), &good_but(Preset::Keycloak, json!({ "typ": null })), Err(Reason::TokenKind));
    check(&profile(Preset::Keycloak), &good_but(Preset::Keycloak, json!({ "typ": "DPoP" })), Err(Reason::TokenKind));
    check(&profile(Preset::Keycloak), &good_but(Preset::Keycloak, json!({ "typ": 1 })), Err(Reason::TokenKind));
    check(
        &profile(Preset::Kubernetes),
        &good_but(Preset::Kubernetes, json!({ "kubernetes.io": null })),
        Err(Reason::TokenKind),
    );
}

#[test]
fn a8_a_txn_token_of_a_real_minter_is_no_access_token_even_to_an_issuer_that_shares_its_key() {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let edge = "spiffe://acme.example/countersign/edge/a";
    let key = crate::txn::SigningKey::from_pkcs8(pkcs8.as_ref(), edge, NOW - 60, NOW + 3600).unwrap();
    let generic = profile(Preset::Generic);
    let ana = verdict(&generic, None, &good(Preset::Generic)).unwrap().into_principal();
    let claims = crate::txn::Claims {
        audience: "orders-api",
        txn: "01890000-0000-7000-8000-000000000001".parse().unwrap(),
        issued_at: NOW,
        expires_at: NOW + 60,
        principal: &ana,
        scope: "orders.read",
        req_wl: edge,
        req_ip: None,
        sid: None,
        binding: &Binding::default(),
        route: "orders:GET /orders/{id}",
        params: &[],
        groups: &[],
    };
    let token = key.mint(&claims).unwrap();
    let keys = KeySet::parse(json!({ "keys": [key.published()] }).to_string().as_bytes()).unwrap().0;
    for preset in Preset::ALL {
        let profile =
            Profile::new(Settings { algorithms: vec![crate::jwk::Algorithm::Es256], ..settings(preset) }).unwrap();
        let refused = Peeked::parse(&token).unwrap().verify(&profile, &keys, NOW).expect_err("a Txn-Token");
        assert_eq!(refused.reason, Reason::TokenKind, "{}", preset.name());
    }
}
