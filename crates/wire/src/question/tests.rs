//! Questions field by field: what is missing, doubled, joined or malformed. No proxy runs here.
use super::*;

fn places() -> Places {
    let name = HeaderName::from_static;
    Places {
        request: RequestPlaces::Fields { method: name("x-m"), uri: name("x-u"), host: name("x-h") },
        scheme: name("x-s"),
        address: name("x-a"),
    }
}

const GOOD: [(&str, &str); 5] = [
    ("x-m", "GET"),
    ("x-u", "/orders/42?x=1"),
    ("x-h", "Shop.Example:8443"),
    ("x-s", "https"),
    ("x-a", "::ffff:192.0.2.9"),
];

fn read(fields: &[(&str, &str)]) -> Result<Question, Fault> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    places().read(&Method::POST, &Uri::from_static("http://other.example/elsewhere"), &headers)
}

fn with<'a>(name: &str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    GOOD.iter().map(|(field, old)| (*field, if *field == name { value } else { *old })).collect()
}

fn check(name: &str, value: &str, expected: &Fault) {
    assert_eq!(read(&with(name, value)).as_ref(), Err(expected), "{name}: {value}");
}

#[test]
fn a7_a_question_is_read_from_its_fields_and_nowhere_else() {
    let question = read(&GOOD).unwrap();
    assert_eq!(question.method, Method::GET);
    assert_eq!(question.target.to_string(), "/orders/42?x=1");
    assert_eq!((question.host.as_str(), question.https), ("shop.example", true));
    assert_eq!(question.authority, "Shop.Example:8443");
    assert_eq!(question.address.to_string(), "192.0.2.9");
}

#[test]
fn a7_each_fact_stands_exactly_once() {
    for (name, value) in GOOD {
        let missing = Fault::Missing(HeaderName::from_bytes(name.as_bytes()).unwrap());
        let multiple = Fault::Multiple(HeaderName::from_bytes(name.as_bytes()).unwrap());
        let without: Vec<_> = GOOD.into_iter().filter(|(field, _)| *field != name).collect();
        assert_eq!(read(&without), Err(missing.clone()));
        check(name, "", &missing);
        for second in [value, "", "other"] {
            let doubled = [GOOD.as_slice(), &[(name, second)]].concat();
            assert_eq!(read(&doubled), Err(multiple.clone()), "{name} {second}");
        }
        if name != "x-h" {
            check(name, &format!("{value}, {value}"), &multiple);
        }
    }
}

#[test]
fn a7_a_target_is_taken_byte_for_byte_or_not_at_all() {
    for target in ["/", "/a%2fb;c//d/..", "/x?", "/x?y=%00&z=[]|{}", "/a,b"] {
        assert_eq!(read(&with("x-u", target)).unwrap().target.path_and_query().unwrap().as_str(), target);
    }
    for target in
        ["x", "?x", "*", "http://a/b", "/a b", "/a#b", "/a?b#c", "/a\"", "/<", "/{a}", "/a^", "/\u{e9}", "/a\tb"]
    {
        assert!(matches!(read(&with("x-u", target)), Err(Fault::Request(_))), "{target}");
    }
}

#[test]
fn what_is_no_scheme_address_method_or_host_is_refused() {
    let malformed = |field, due| Fault::Malformed { field: HeaderName::from_static(field), due };
    for scheme in ["HTTP", "wss", "http "] {
        check("x-s", scheme, &malformed("x-s", "scheme (`http` or `https`)"));
    }
    for address in ["unknown", "192.0.2.9:80", "[::1]", "1.2.3"] {
        check("x-a", address, &malformed("x-a", "address of a client, without port"));
    }
    assert_eq!(read(&with("x-a", "fe80::1%eth0")).unwrap().address.to_string(), "fe80::1");
    for method in ["G T", "GET/"] {
        assert!(matches!(read(&with("x-m", method)), Err(Fault::Request(_))), "{method}");
    }
    for host in ["a b", "a,b", "u@a", "a:b", "\u{e9}"] {
        assert!(matches!(read(&with("x-h", host)), Err(Fault::Request(_))), "{host}");
    }
}

#[test]
fn an_envoy_that_asks_over_http_repeats_the_request_itself() {
    let name = HeaderName::from_static;
    let places = Places { request: RequestPlaces::Own, scheme: name("x-s"), address: name("x-a") };
    let mut headers = HeaderMap::new();
    for (field, value) in [("host", "shop.example"), ("x-s", "http"), ("x-a", "::1"), ("x-u", "/elsewhere")] {
        headers.insert(name(field), HeaderValue::from_static(value));
    }
    let question = places.read(&Method::HEAD, &Uri::from_static("/orders/1"), &headers).unwrap();
    assert_eq!((question.method, question.target), (Method::HEAD, Uri::from_static("/orders/1")));
    assert_eq!((question.host.as_str(), question.authority.as_bytes()), ("shop.example", &b"shop.example"[..]));
    headers.append("host", HeaderValue::from_static("shop.example"));
    assert!(matches!(places.read(&Method::GET, &Uri::from_static("/"), &headers), Err(Fault::Request(_))));
}

#[test]
fn one_field_is_no_two_facts() {
    let [a, b] = ["x-a", "x-b"].map(HeaderName::from_static);
    assert_eq!(first_doubled(&[&a, &b]), None);
    assert_eq!(first_doubled(&[&a, &b, &a]), Some(&a));
}
