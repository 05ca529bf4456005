//! Answers of an introspection endpoint: what they must say before anybody is let in.
use super::*;
use crate::principal::Kind;

fn answer() -> Value {
    json!({
        "active": true, "token_type": "Bearer", "client_id": "shop-web", "sub": "u-1", "aud": "orders-api",
        "iss": "https://id.partner.example", "scope": "orders.read", "groups": ["support"],
        "iat": NOW - 30, "exp": NOW + 300
    })
}

fn but(changes: Value) -> Object {
    let mut answer = answer();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => answer.as_object_mut().unwrap().remove(name),
            value => answer.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    answer.as_object().unwrap().clone()
}

#[track_caller]
fn check_answer(changes: Value, expected: Result<&str, Reason>) {
    let profile = profile(Preset::Generic);
    let got = introspected(&but(changes), &profile, NOW);
    let got = got.map(|token| token.into_principal().subject.to_string()).map_err(|refused| refused.reason);
    assert_eq!(got, expected.map(str::to_owned));
}

#[test]
fn api_65_active_must_be_true_and_nothing_like_it() {
    check_answer(json!({}), Ok("generic|u-1"));
    for active in [json!(false), json!("true"), json!(1), json!([true]), json!({}), Value::Null] {
        check_answer(json!({ "active": active }), Err(Reason::TokenInactive));
    }
}

#[test]
fn api_65_an_answer_is_judged_like_the_claims_of_a_jwt() {
    check_answer(json!({ "iss": "https://id.other.example" }), Err(Reason::IssuerUnknown));
    check_answer(json!({ "iss": null }), Ok("generic|u-1"));
    check_answer(json!({ "aud": "billing" }), Err(Reason::AudienceWrong));
    check_answer(json!({ "aud": ["billing", "orders-api"] }), Ok("generic|u-1"));
    check_answer(json!({ "aud": null }), Err(Reason::AudienceWrong));
    check_answer(json!({ "exp": NOW - 60 }), Err(Reason::Expired));
    check_answer(json!({ "exp": "soon" }), Err(Reason::ClaimsMalformed));
    check_answer(json!({ "nbf": NOW + 600 }), Err(Reason::NotYetValid));
    check_answer(json!({ "iat": NOW + 600 }), Err(Reason::Clock));
    check_answer(json!({ "sub": ["u-1"] }), Err(Reason::ClaimsMalformed));
    check_answer(json!({ "sub": null, "client_id": null }), Err(Reason::ClaimsMalformed));
    check_answer(json!({ "groups": [1] }), Err(Reason::ClaimsMalformed));
    // Other kinds of token are active too.
    check_answer(json!({ "token_type": null }), Err(Reason::TokenKind));
    check_answer(json!({ "token_type": "refresh_token" }), Err(Reason::TokenKind));
    check_answer(json!({ "token_type": "N_A" }), Err(Reason::TokenKind));
    check_answer(json!({ "token_type": "bearer" }), Ok("generic|u-1"));
    check_answer(json!({ "typ": "Refresh" }), Err(Reason::TokenKind));
    check_answer(json!({ "nonce": "n" }), Err(Reason::TokenKind));
}

#[test]
fn what_an_answer_may_leave_out_is_filled_to_the_safe_side() {
    let profile = profile(Preset::Generic);
    let token = introspected(&but(json!({ "sub": null, "exp": null })), &profile, NOW).unwrap();
    assert_eq!((token.principal().kind, token.principal().subject.as_ref()), (Kind::Workload, "generic|shop-web"));
    assert_eq!(token.principal().expires_at, NOW + ANSWER_LIFE_S);
    let narrowed = Profile::new(Settings { clients: vec!["shop-web".into()], ..settings(Preset::Generic) }).unwrap();
    assert!(introspected(&but(json!({ "aud": null })), &narrowed, NOW).is_ok());
    let other = introspected(&but(json!({ "aud": null, "client_id": "eve" })), &narrowed, NOW);
    assert_eq!(other.map(|_| ()).map_err(|refused| refused.reason), Err(Reason::AudienceWrong));
}

#[test]
fn api_66_what_an_answer_binds_to_is_demanded() {
    let jkt = json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" });
    let token =
        introspected(&but(json!({ "token_type": "DPoP", "cnf": jkt })), &profile(Preset::Generic), NOW).unwrap();
    assert!(token.binding().check(Scheme::Bearer, None, None).is_err());
    check_answer(json!({ "token_type": "DPoP" }), Err(Reason::SenderConstrained));
    check_answer(json!({ "cnf": { "unknown": "x" } }), Err(Reason::SenderConstrained));
    let strict = Settings { sender_constrained: SenderConstrained::Required, ..settings(Preset::Generic) };
    let refused = introspected(&but(json!({})), &Profile::new(strict).unwrap(), NOW).expect_err("a plain token");
    assert_eq!(refused.reason, Reason::SenderConstrained);
}

#[test]
fn api_65_a_signed_answer_is_the_issuers_for_us_and_new() {
    let profile = profile(Preset::Generic);
    let signer = sign::of(&profile);
    let check = |typ: &str, changes: Value, expected: Result<(), Reason>| {
        let mut claims =
            json!({ "iss": "https://id.partner.example", "aud": "edge", "iat": NOW, "token_introspection": answer() });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let text = signer.token(Some(typ), claims.as_object().unwrap());
        let got = signed_answer(&text, &profile, &signer.keys(), "edge", NOW);
        assert_eq!(got.map(|_| ()).map_err(|refused| refused.reason), expected, "{typ} {changes}");
    };
    let typ = "token-introspection+jwt";
    check(typ, json!({}), Ok(()));
    check(typ, json!({ "aud": ["other", "edge"] }), Ok(()));
    check("at+jwt", json!({}), Err(Reason::TokenKind));
    check("JWT", json!({}), Err(Reason::TokenKind));
    check(typ, json!({ "iss": "https://id.other.example" }), Err(Reason::IssuerUnknown));
    check(typ, json!({ "aud": "other" }), Err(Reason::AudienceWrong));
    check(typ, json!({ "iat": NOW - 91 }), Err(Reason::Clock));
    check(typ, json!({ "iat": NOW + 61 }), Err(Reason::Clock));
    check(typ, json!({ "iat": null }), Err(Reason::ClaimsMalformed));
    check(typ, json!({ "token_introspection": "x" }), Err(Reason::ClaimsMalformed));
    let stranger = sign::ec("ec-1").token(Some(typ), &but(json!({})));
    assert_eq!(
        signed_answer(&stranger, &profile, &signer.keys(), "edge", NOW).expect_err("a stranger").reason,
        Reason::SignatureBad
    );
}

#[test]
fn opaque_is_what_is_no_jws() {
    for text in ["abc", "a.b", "ya29.a0-_~+/x==", "a.b.c.d.e", &"x".repeat(OPAQUE_BYTES_MAX)] {
        assert!(is_opaque(text), "{text}");
    }
    for text in ["", "==", "a.b.c", "a b", "é", "a,b", "a\tb", &"x".repeat(OPAQUE_BYTES_MAX + 1)] {
        assert!(!is_opaque(text), "{text}");
    }
}
