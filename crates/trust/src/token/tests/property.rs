//! Whatever an issuer signs: no panic, and a token that is accepted holds what `verify` promises.
use super::*;
use proptest::prelude::*;

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (NOW - 700..NOW + 700).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["orders-api", "shop-web", "Bearer", "access", "app", TENANT]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Names that mean something to some preset, and others.
fn name() -> impl Strategy<Value = String> {
    let known = vec![
        "iss",
        "aud",
        "sub",
        "exp",
        "nbf",
        "iat",
        "azp",
        "appid",
        "client_id",
        "cid",
        "uid",
        "tid",
        "oid",
        "ver",
        "idtyp",
        "scp",
        "scope",
        "groups",
        "roles",
        "realm_access",
        "resource_access",
        "act",
        "cnf",
        "typ",
        "token_use",
        "kubernetes.io",
        "_claim_names",
        "hasgroups",
        "gty",
        "repository_id",
        "repository_owner_id",
        "event_name",
        "amr",
        "acr",
        "auth_time",
        "hd",
    ];
    prop_oneof![4 => prop::sample::select(known).prop_map(str::to_owned), 1 => ".{0,6}"]
}

fn has_audience(claims: &Object, profile: &Profile) -> bool {
    let ours =
        |value: &Value| value.as_str().is_some_and(|aud| profile.settings().audience.iter().any(|ours| ours == aud));
    match claims.get("aud") {
        Some(Value::Array(many)) => many.iter().any(ours),
        Some(one) => ours(one),
        None => profile.settings().preset == Preset::Cognito,
    }
}

/// A second, independent reader of the same token: signature, issuer, and audience where there is any.
fn jsonwebtoken_accepts(profile: &Profile, token: &str, claims: &Object) -> bool {
    let signer = sign::of(profile);
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(signer.jwk()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let mut validation = jsonwebtoken::Validation::new(signer.algorithm().parse().unwrap());
    validation.set_issuer(profile.issuers());
    if claims.contains_key("aud") {
        validation.set_audience(&profile.settings().audience)
    } else {
        validation.validate_aud = false
    };
    // Its clock cannot be set: the times are judged by our own assertion.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.required_spec_claims = ["exp", "iss"].map(str::to_owned).into();
    jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_accepted_token_holds_its_promises(
        preset in prop::sample::select(Preset::ALL.to_vec()),
        changes in prop::collection::hash_map(name(), value(), 0..4),
        from_good in prop::bool::weighted(0.9),
        typ in prop::option::of(prop::sample::select(vec!["JWT", "at+jwt", "dpop+jwt", "x"])),
    ) {
        let profile = profile(preset);
        let mut claims = if from_good { good(preset) } else { Object::new() };
        claims.extend(changes);
        let signer = sign::of(&profile);
        let text = signer.token(typ, &claims);
        let keys = signer.keys();
        if let Ok(token) = Peeked::parse(&text).and_then(|peeked| peeked.verify(&profile, &keys, NOW)) {
            let iss = claims.get("iss").and_then(Value::as_str).unwrap();
            prop_assert!(profile.accepts_iss(iss));
            prop_assert!(has_audience(&claims, &profile));
            prop_assert!(claims.get("exp").and_then(Value::as_f64).unwrap() > (NOW - 60) as f64);
            let bearer = token.binding().check(Scheme::Bearer, None, None);
            prop_assert_eq!(bearer.is_ok(), !claims.contains_key("cnf"));
            prop_assert!(jsonwebtoken_accepts(&profile, &text, &claims));
            prop_assert!(typ.is_none_or(|typ| typ == "JWT" || typ == "at+jwt"));
            let principal = token.into_principal();
            let (issuer, id) = principal.subject.split_once('|').unwrap();
            prop_assert_eq!(issuer, preset.name());
            prop_assert_eq!(id, principal.id.as_ref());
            prop_assert!(!id.is_empty() && id.len() <= 255 && !id.chars().any(char::is_control));
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,400}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5)) {
        let keys = sign::of(&profile(Preset::Generic)).keys();
        for text in [text, parts.join(".")] {
            if let Ok(peeked) = Peeked::parse(&text) {
                prop_assert!(peeked.verify(&profile(Preset::Generic), &keys, NOW).is_err());
            }
        }
    }
}
