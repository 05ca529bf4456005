//! Token requests parameter by parameter: missing, doubled, misspelt, of another kind. No token is looked at here.
use super::*;
use proptest::prelude::*;

const CALLER: &str = "spiffe://acme.example/gateway";

/// Every parameter as it should be.
fn good() -> Vec<(&'static str, &'static str)> {
    vec![
        ("grant_type", GRANT_TYPE),
        ("audience", "acme.example"),
        ("scope", "orders.read"),
        ("requested_token_type", TXN_TOKEN),
        ("subject_token", "abc.def-_g"),
        ("subject_token_type", ACCESS_TOKEN),
        ("request_context", r#"{"req_ip":"192.0.2.7"}"#),
        ("request_details", r#"{"method":"GET","path":"/orders/42","host":"shop.acme.example"}"#),
    ]
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn form(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&")
}

fn read(body: &str) -> Result<Exchange, Fault> {
    Exchange::read(body.as_bytes(), "acme.example", CALLER)
}

fn check(parameters: &[(&str, &str)], expected: Result<(), Fault>) {
    assert_eq!(read(&form(parameters)).map(|_| ()), expected, "{parameters:?}");
}

fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut all = good();
    all.retain(|(known, _)| *known != name);
    all.push((name, value));
    all
}

#[test]
fn a_good_request_is_read_whole() {
    let exchange = read(&form(&good())).ok().unwrap();
    assert_eq!((exchange.subject_token.as_str(), exchange.scope.as_str()), ("abc.def-_g", "orders.read"));
    assert_eq!(exchange.request_context, r#"{"req_ip":"192.0.2.7"}"#);
    assert!(exchange.request_details.starts_with('{'));
    check(&with("subject_token_type", JWT), Ok(()));
    check(&with("client_id", CALLER), Ok(()));
    check(&with("request_context", ""), Ok(()));
    // Names that mean nothing here are ignored (RFC 6749 §3.2).
    check(&with("state", "x"), Ok(()));
    let spaced = form(&good()).replace("%7B", "+%7B");
    assert_eq!(read(&spaced).ok().unwrap().request_context, r#" {"req_ip":"192.0.2.7"}"#);
}

#[test]
fn every_parameter_that_is_due_is_missed_when_it_is_not_there_or_empty() {
    for (name, _) in good().into_iter().filter(|(name, _)| *name != "request_context") {
        check(&with(name, ""), Err(Fault::Missing(name)));
        let without: Vec<_> = good().into_iter().filter(|(known, _)| *known != name).collect();
        check(&without, Err(Fault::Missing(name)));
    }
    assert!(matches!(read(""), Err(Fault::Missing("grant_type"))));
}

#[test]
fn a_doubled_parameter_is_refused_whatever_it_holds() {
    for (name, value) in good() {
        let mut twice = good();
        twice.push((name, value));
        check(&twice, Err(Fault::Multiple));
        twice.pop();
        twice.insert(0, (name, ""));
        check(&twice, Err(Fault::Multiple));
    }
    // Another spelling of the same name.
    let doubled = format!("{}&%73cope=orders.write", form(&good()));
    assert!(matches!(read(&doubled), Err(Fault::Multiple)));
    let unread = format!("{}&x=1&x=2", form(&good()));
    assert!(matches!(read(&unread), Err(Fault::Multiple)));
}

#[test]
fn what_is_asked_for_must_be_a_txn_token_for_an_access_token() {
    check(&with("grant_type", "client_credentials"), Err(Fault::GrantType));
    check(&with("grant_type", "refresh_token"), Err(Fault::GrantType));
    check(&with("requested_token_type", ACCESS_TOKEN), Err(Fault::RequestedType));
    for (urn, kind) in [
        ("urn:ietf:params:oauth:token-type:refresh_token", SubjectType::Refresh),
        ("urn:ietf:params:oauth:token-type:id_token", SubjectType::Id),
        ("urn:ietf:params:oauth:token-type:txn_token", SubjectType::TxnToken),
        ("urn:ietf:params:oauth:token-type:self_signed", SubjectType::SelfSigned),
        ("urn:ietf:params:oauth:token-type:unsigned_json", SubjectType::UnsignedJson),
        ("urn:ietf:params:oauth:token-type:saml2", SubjectType::Other),
        ("URN:ietf:params:oauth:token-type:access_token", SubjectType::Other),
        ("access_token", SubjectType::Other),
    ] {
        check(&with("subject_token_type", urn), Err(Fault::SubjectType(kind)));
    }
    check(&with("audience", "other.example"), Err(Fault::Audience));
    check(&with("audience", "ACME.example"), Err(Fault::Audience));
    for scope in ["orders.read orders.write", "orders.read ", "a\"b", "a\\b", "é"] {
        check(&with("scope", scope), Err(Fault::Scope));
    }
}

#[test]
fn parameters_that_would_change_the_question_are_not_ignored() {
    for (name, fault) in REFUSED {
        check(&with(name, "x"), Err(fault));
    }
    check(&with("client_id", "spiffe://acme.example/other"), Err(Fault::ClientId));
}

#[test]
fn a_body_that_is_no_form_is_refused() {
    for body in
        ["a=%", "a=%4", "a=%zz", "a=%+1", "a=%C3", "a=\u{e9}", "a=b c", "a=b\n", "a=%00", "%ff=1", "{\"a\":1}\t"]
    {
        assert!(matches!(read(body), Err(Fault::Form)), "{body:?}");
    }
    let many: Vec<String> = (0..=PARAMETERS_MAX).map(|n| format!("p{n}=1")).collect();
    assert!(matches!(read(&many.join("&")), Err(Fault::TooMany)));
    assert!(matches!(read(&many[1..].join("&&")), Err(Fault::Missing(_))));
}

#[test]
fn the_request_that_is_named_is_read_as_it_would_be_sent() {
    let check = |method: &str, path: &str, host: &str, expected: Result<(&str, &str), Fault>| {
        let got = Named::read(method, path, host);
        let got = got.as_ref().map(|named| (named.target.to_string(), named.host.as_str()));
        assert_eq!(
            got.as_ref().map(|(target, host)| (target.as_str(), *host)).map_err(|fault| **fault),
            expected,
            "{path}"
        );
    };
    check("GET", "/orders/42?a=b", "Shop.Acme.example:443", Ok(("/orders/42?a=b", "shop.acme.example")));
    for path in ["", "orders", "http://a/x", "/a b", "/a#b", "/a\n", "/é", "/a\"", "?a"] {
        check("GET", path, "a", Err(Fault::Path));
    }
    for host in ["", "a b", "a/b", "a:b", "@a", "[::1"] {
        check("GET", "/", host, Err(Fault::Host));
    }
    for method in ["", "G T", "GET\r\n", "é"] {
        check(method, "/", "a", Err(Fault::Method));
    }
    assert_eq!(address("::ffff:192.0.2.7"), Ok("192.0.2.7".parse().unwrap()));
    assert_eq!(address("192.0.2.7:80"), Err(Fault::Address));
}

proptest! {
    #[test]
    fn what_was_encoded_is_what_is_read(value in "[^\0]{1,40}") {
        prop_assert_eq!(decoded(encoded(&value).as_bytes()), Ok(value));
    }

    #[test]
    fn nothing_panics_and_no_fault_repeats_the_caller(body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(fault) = Exchange::read(&body, "acme.example", CALLER) {
            prop_assert!(fault.to_string().is_ascii());
        }
    }
}
