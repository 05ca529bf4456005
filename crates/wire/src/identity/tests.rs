//! What is stripped, what is refused, what stays.
use super::*;
use http::Uri;
use proptest::prelude::*;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn lines(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut found: Vec<_> =
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    found.sort();
    found
}

/// `input` cleaned is `expected` (in any order of names).
#[track_caller]
fn check(input: &[(&str, &str)], expected: &[(&str, &str)]) {
    let mut headers = map(input);
    clean_request(&mut headers).unwrap();
    assert_eq!(lines(&headers), lines(&map(expected)));
}

#[track_caller]
fn check_refused(input: &[(&str, &str)], expected: FieldError) {
    let mut headers = map(input);
    assert_eq!(clean_request(&mut headers), Err(expected));
    assert_eq!(lines(&headers), lines(&map(input)), "fields are as they came");
}

const SPOOFS: &[&str] = &[
    "Txn-Token",
    "tXN-tOKEN",
    "Workload-Identity-Token",
    "Workload-Proof-Token",
    "Countersign-User",
    "countersign-x",
    "Countersign-Hop",
    "Countersign-Ref",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-User",
    "X-Forwarded-Uri",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Prefix",
    "X-Forwarded",
    "X-Real-IP",
    "X-Auth-User",
    "X-Auth-Request-Email",
    "X-Authenticated-User",
    "X-Authentik-Username",
    "X-User",
    "X-UserId",
    "X-User-Groups",
    "Remote-User",
    "Remote-Groups",
    "Remote-Email",
    "Cf-Access-Jwt-Assertion",
    "Cf-Access-Authenticated-User-Email",
    "Cf-Connecting-Ip",
    "X-Pomerium-Jwt-Assertion",
    "X-Goog-Authenticated-User-Email",
    "X-Goog-Iap-Jwt-Assertion",
    "X-Amzn-Oidc-Data",
    "X-Ms-Client-Principal",
    "X-Ms-Client-Principal-Name",
    "X-Ms-Token-Aad-Id-Token",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-URI",
    "X-Original-Method",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "Client-Cert",
    "Client-Cert-Chain",
    "Ssl-Client-Verify",
    "X-Ssl-Client-Dn",
    "X-Client-Cert",
    "X-Client-Ip",
    "True-Client-IP",
    "X-Cluster-Client-Ip",
    "X-Remote-User",
    "X-Webauth-User",
    "X-Consumer-Username",
    "X-Envoy-Original-Path",
    "Proxy",
    "X-Vouch-User",
    "Client-Ip",
];

#[test]
fn api_102_spoofed_identity_fields_are_dropped() {
    for name in SPOOFS {
        for spelling in [name.to_string(), name.to_lowercase(), name.to_uppercase()] {
            check(&[(&spelling, "ana"), ("accept", "*/*")], &[("accept", "*/*")]);
        }
    }
}

#[test]
fn a1_twice_and_comma_joined_fields_are_dropped() {
    check(&[("x-auth-user", "ana"), ("X-Auth-User", "bo"), ("txn-token", "a, b"), ("txn-token", "c")], &[]);
}

#[test]
fn a1_underscore_names_are_refused() {
    for name in ["x_auth_user", "remote_groups", "txn_token", "harmless_name", "_", "x-request_id"] {
        check_refused(&[(name, "x"), ("txn-token", "y")], FieldError::Underscore(name.into()));
    }
}

#[test]
fn names_with_other_marks_count_as_identity() {
    for name in
        ["x_auth_user", "remote.groups", "txn_token", "countersign_user", "x!forwarded!for", "x_http_method_override"]
    {
        assert!(is_identity(&HeaderName::from_bytes(name.as_bytes()).unwrap()), "{name}");
    }
    let long = format!("x_auth_{}", "a".repeat(4000));
    assert!(is_identity(&HeaderName::from_bytes(long.as_bytes()).unwrap()));
    let no = format!("txn_token{}", "a".repeat(4000));
    assert!(!is_identity(&HeaderName::from_bytes(no.as_bytes()).unwrap()));
}

#[test]
fn ordinary_fields_stay() {
    let ordinary = [
        "accept",
        "accept-encoding",
        "authorization",
        "cache-control",
        "content-length",
        "content-type",
        "cookie",
        "dpop",
        "host",
        "if-none-match",
        "origin",
        "range",
        "referer",
        "sec-fetch-mode",
        "signature",
        "traceparent",
        "trailer",
        "user-agent",
        "x-api-key",
        "x-request-id",
        "x-requested-with",
        "x-amz-date",
        "x-correlation-id",
        "x-csrf-token",
        "xx-user",
        "forwarded2",
        "remote",
        "proxyx",
        "txn-tokens",
    ];
    for name in ordinary {
        check(&[(name, "v")], &[(name, "v")]);
    }
}

#[test]
fn hop_by_hop_fields_are_dropped() {
    let input = [
        ("connection", "keep-alive, x-once, TE, close,,"),
        ("x-once", "1"),
        ("keep-alive", "5"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
        ("proxy-authorization", "x"),
        ("proxy-authenticate", "x"),
        ("trailer", "x-sum"),
        ("te", "gzip"),
        ("x-twice", "2"),
    ];
    check(&input, &[("trailer", "x-sum"), ("x-twice", "2")]);
    check(&[("te", "gzip, trailers;q=0.5"), ("te", "Trailers")], &[("te", "trailers")]);
    check(&[("te", "trailers;x")], &[]);
    check(&[("connection", "te"), ("te", "trailers")], &[("te", "trailers")]);
}

#[test]
fn a1_connection_may_not_nominate_what_matters() {
    let nominates = |name: &str| FieldError::ConnectionNominates(name.into());
    for name in [
        "x-forwarded-for",
        "txn-token",
        "countersign-user",
        "x_auth_user",
        "cookie",
        "authorization",
        "host",
        "content-length",
        "content-type",
        "tracestate",
        "origin",
    ] {
        check_refused(&[("connection", &format!("close, {name}"))], nominates(name));
        check_refused(&[("connection", "x-a"), ("connection", &name.to_uppercase())], nominates(name));
    }
    check_refused(&[("connection", "a b")], nominates("a b"));
    check_refused(&[("connection", "keep-alive; x")], nominates("keep-alive; x"));
}

#[test]
fn our_tracestate_member_is_dropped() {
    check(&[("tracestate", "cs=abc")], &[]);
    check(&[("tracestate", "a=1,cs=abc, b=2")], &[("tracestate", "a=1,b=2")]);
    check(&[("tracestate", "a=1 , b=2")], &[("tracestate", "a=1 , b=2")]);
    check(&[("tracestate", "a=1"), ("tracestate", " cs =x,b=2")], &[("tracestate", "a=1,b=2")]);
    check(&[("tracestate", "CS=x,csx=1,xcs=2")], &[("tracestate", "csx=1,xcs=2")]);
    check(&[("tracestate", "cs")], &[]);
}

#[test]
fn our_cookies_are_dropped() {
    check(&[("cookie", "a=1; b=2;c=3")], &[("cookie", "a=1; b=2;c=3")]);
    check(&[("cookie", "a=1; __Host-Http-cs=x; b=\"2\"")], &[("cookie", "a=1; b=\"2\"")]);
    check(&[("cookie", "__Host-cs=x")], &[]);
    check(&[("cookie", "__host-CS = x;a=1")], &[("cookie", "a=1")]);
    check(&[("cookie", "__Host-cs")], &[]);
    check(&[("cookie", "a=1"), ("cookie", "b=2")], &[("cookie", "a=1; b=2")]);
    check(&[("cookie", "__Host-csx=1; x__Host-cs=2")], &[("cookie", "__Host-csx=1; x__Host-cs=2")]);
}

#[test]
fn an_answer_loses_what_is_ours_and_hop_by_hop() {
    let mut headers = map(&[
        ("connection", "close, x-once"),
        ("x-once", "1"),
        ("transfer-encoding", "chunked"),
        ("txn-token", "x"),
        ("countersign-txn", "x"),
        ("set-cookie", "a=1"),
        ("set-cookie", "__Host-Http-cs=evil; Path=/"),
        ("set-cookie", "b=2"),
        ("trailer", "x-sum"),
        ("x-user", "stays"),
        ("content-type", "text/plain"),
    ]);
    clean_response(&mut headers);
    let expected = [
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("trailer", "x-sum"),
        ("x-user", "stays"),
        ("content-type", "text/plain"),
    ];
    assert_eq!(lines(&headers), lines(&map(&expected)));
}

#[test]
fn forwarded_fields_come_from_the_socket() {
    let check = |ip: &str, host: &str, for_: &str, forwarded: &str| {
        let mut headers = map(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "7.7.7.7")]);
        Forwarded::new(ip.parse().unwrap(), "https", host).add(&mut headers);
        let expected = [
            ("x-forwarded-for", for_),
            ("x-forwarded-host", host),
            ("x-forwarded-proto", "https"),
            ("forwarded", forwarded),
        ];
        assert_eq!(lines(&headers), lines(&map(&expected)));
    };
    check("192.0.2.7", "shop.example", "192.0.2.7", "for=192.0.2.7;host=shop.example;proto=https");
    check("10.0.105.255", "a_b", "10.0.105.255", "for=10.0.105.255;host=a_b;proto=https");
    check("::ffff:192.0.2.7", "a", "192.0.2.7", "for=192.0.2.7;host=a;proto=https");
    check("2001:db8::1", "[::1]", "2001:db8::1", "for=\"[2001:db8::1]\";host=\"[::1]\";proto=https");
}

#[track_caller]
fn check_host(target: &str, hosts: &[&str], expected: Result<&str, FieldError>) {
    let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
    let found = request_host(&target.parse::<Uri>().unwrap(), &map(&fields));
    assert_eq!(found, expected.map(str::to_owned), "{target} {hosts:?}");
}

#[test]
fn the_host_is_read() {
    check_host("/", &["shop.acme.example"], Ok("shop.acme.example"));
    check_host("/", &["Shop.ACME.example:8443"], Ok("shop.acme.example"));
    check_host("/", &["shop.example."], Ok("shop.example"));
    check_host("/", &["shop.example.:80"], Ok("shop.example"));
    check_host("/", &["localhost:"], Ok("localhost"));
    check_host("/", &["my_service"], Ok("my_service"));
    check_host("/", &["127.0.0.1:9"], Ok("127.0.0.1"));
    check_host("/", &["[::1]:8080"], Ok("[::1]"));
    check_host("/", &["[0:0::1]"], Ok("[::1]"));
    check_host("http://a.example/x", &[], Ok("a.example"));
    check_host("http://a.example/x", &["A.example"], Ok("a.example"));
    check_host("http://a.example:80/x", &["a.example"], Ok("a.example"));
    check_host("https://a.example/x", &["a.example:443"], Ok("a.example"));
    check_host("http://a.example:8080/", &["a.example:8080"], Ok("a.example"));
}

#[test]
fn a2_missing_doubled_and_differing_hosts_are_refused() {
    check_host("/", &[], Err(FieldError::HostMissing));
    check_host("/", &["a", "a"], Err(FieldError::HostTwice));
    check_host("http://a/", &["b"], Err(FieldError::AuthorityDiffers));
    check_host("http://a/", &["a:81"], Err(FieldError::AuthorityDiffers));
    check_host("http://a:80/", &["a:443"], Err(FieldError::AuthorityDiffers));
    check_host("http://a/", &["a", "b"], Err(FieldError::HostTwice));
    check_host("http://ana@a/", &["a"], Err(FieldError::HostInvalid("ana@a".into())));
}

#[test]
fn a2_what_is_no_host_is_refused() {
    let long_label = "a".repeat(64);
    for host in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a, b",
        "a b",
        "a/b",
        "ana@a",
        "a:x",
        "a:+80",
        "a:65536",
        "a:80:80",
        "[::1",
        "::1",
        "[::1%25eth0]",
        "[1.2.3.4]",
        "a%2eb",
        "a?b",
        "a#b",
        "a\\b",
        "[::1]x",
        "x[::1]",
        "*",
        &long_label,
        "a\tb",
    ] {
        check_host("/", &[host], Err(FieldError::HostInvalid(host.chars().take(64).collect())));
    }
    let long = ["a".repeat(60).as_str(); 5].join(".");
    check_host("/", &[&long], Err(FieldError::HostInvalid(long.chars().take(64).collect())));
}

fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(SPOOFS).prop_map(str::to_owned),
        "[a-z][a-z.!_-]{0,12}",
        "(x-|X-|countersign-|remote-)[a-z-]{0,9}",
        Just("connection".to_owned()),
        Just("te".to_owned()),
        Just("cookie".to_owned()),
        Just("tracestate".to_owned()),
    ]
}

proptest! {
    #[test]
    fn a1_after_cleaning_no_identity_field_remains(
        fields in proptest::collection::vec((any_name(), "[a-zA-Z=;:, -]{0,20}"), 0..12)
    ) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut headers = map(&fields);
        if clean_request(&mut headers).is_ok() {
            prop_assert!(headers.keys().all(|name| !is_identity(name) && !is_hop_by_hop(name)));
            let again = headers.clone();
            clean_request(&mut headers).unwrap();
            prop_assert_eq!(headers, again);
        }
    }

    #[test]
    fn a_host_read_is_read_again(host in "[A-Za-z0-9.:_\\[\\]@-]{0,20}") {
        if let Ok(found) = request_host(&Uri::from_static("/"), &map(&[("host", &host)])) {
            prop_assert_eq!(request_host(&Uri::from_static("/"), &map(&[("host", &found)])), Ok(found));
        }
    }
}
