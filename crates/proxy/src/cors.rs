//! Which scripts of other origins may read a service's answers (the CORS protocol of the Fetch standard, §3.3). It lets
//! nobody in and keeps nobody out: rules judge each request whoever's script sent it. Only preflights are answered here.

use feed::{Cors, CorsOrigins};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use net::{Body, Response};
use trust::reason::Reason;

use crate::judge::Stop;

/// What the answer to one request says to the browser.
pub(crate) enum Grant {
    /// `Access-Control-Allow-Origin`.
    To(HeaderValue),
    /// No `Origin`, or one that is not listed.
    Nobody,
}

/// A question of the browser's own, before a request that a form could not make.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

pub(crate) fn grant(cors: &Cors, headers: &HeaderMap) -> Grant {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return Grant::Nobody };
    match &cors.origins {
        CorsOrigins::Any => Grant::To(HeaderValue::from_static("*")),
        // Browsers write an origin in one way only (RFC 6454 §6.1), so it is compared as it stands.
        CorsOrigins::Listed(listed) if listed.iter().any(|one| one.as_bytes() == origin.as_bytes()) => {
            Grant::To(origin.clone())
        }
        CorsOrigins::Listed(_) => Grant::Nobody,
    }
}

/// The answer to a preflight; it never reaches the service.
pub(crate) fn preflight(cors: &Cors, headers: &HeaderMap) -> Result<Response, Stop> {
    let refused = |why: String| Stop::new(Reason::CorsRefused, why);
    let text = |value: &HeaderValue| value.to_str().unwrap_or("?").chars().take(128).collect::<String>();
    if let (Grant::Nobody, Some(origin)) = (grant(cors, headers), headers.get(ORIGIN)) {
        return Err(refused(format!("`cors: {{ origins }}` does not list `{}`", text(origin))));
    }
    let method = headers.get(ACCESS_CONTROL_REQUEST_METHOD).map(text).unwrap_or_default();
    if !cors.methods.contains(&method) {
        return Err(refused(format!("`cors: {{ methods }}` does not list `{method}`")));
    }
    let wanted = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().map(text).collect::<Vec<_>>().join(",");
    let unlisted = wanted.split(',').map(str::trim).filter(|name| !name.is_empty()).find(|name| {
        // Every further field would be looked for in the whole list.
        !cors.headers.iter().any(|listed| listed.eq_ignore_ascii_case(name))
    });
    if let Some(name) = unlisted {
        return Err(refused(format!("`cors: {{ headers }}` does not list `{name}`")));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    let list = |names: &[String]| HeaderValue::from_str(&names.join(", ")).ok();
    let further =
        [(ACCESS_CONTROL_ALLOW_METHODS, list(&cors.methods)), (ACCESS_CONTROL_ALLOW_HEADERS, list(&cors.headers))];
    further.into_iter().for_each(|(name, value)| _ = value.map(|value| fields.insert(name, value)));
    fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age.as_secs()));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Puts what we say in the place of what the service says about other origins.
pub(crate) fn apply(cors: &Cors, grant: Grant, response: &mut Response) {
    let headers = response.headers_mut();
    for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS] {
        headers.remove(name);
    }
    if matches!(cors.origins, CorsOrigins::Listed(_)) {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
    let Grant::To(origin) = grant else { return };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if cors.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if let Ok(exposed) = HeaderValue::from_str(&cors.expose) {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn cors(origins: CorsOrigins) -> Cors {
        Cors {
            origins,
            methods: vec!["GET".into(), "PUT".into()],
            headers: vec!["authorization".into(), "x-a".into()],
            expose: "x-b".into(),
            credentials: true,
            max_age: Duration::from_secs(600),
        }
    }

    fn listed() -> Cors {
        cors(CorsOrigins::Listed(vec!["https://app.acme.example".into(), "http://localhost:3000".into()]))
    }

    fn headers(origin: &str, method: &str, fields: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [(ORIGIN, origin), (ACCESS_CONTROL_REQUEST_METHOD, method), (ACCESS_CONTROL_REQUEST_HEADERS, fields)]
        {
            if !value.is_empty() {
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            }
        }
        headers
    }

    fn check(cors: &Cors, (origin, method, fields): (&str, &str, &str), expected: Result<&str, &str>) {
        let headers = headers(origin, method, fields);
        match (preflight(cors, &headers), expected) {
            (Ok(mut response), Ok(expected)) => {
                apply(cors, grant(cors, &headers), &mut response);
                let found = response.headers();
                assert_eq!(response.status(), 204);
                assert_eq!(found[ACCESS_CONTROL_ALLOW_ORIGIN], expected);
                assert_eq!(found[ACCESS_CONTROL_MAX_AGE], "600");
            }
            (Err(stop), Err(part)) => assert!(stop.detail.contains(part), "{}", stop.detail),
            (found, _) => panic!("{origin} {method} {fields}: {}", found.is_ok()),
        }
    }

    #[test]
    fn flow_77_a_preflight_is_answered_by_what_is_listed() {
        let ours = "https://app.acme.example";
        check(&listed(), (ours, "PUT", "X-A, Authorization"), Ok(ours));
        check(&listed(), ("http://localhost:3000", "GET", ""), Ok("http://localhost:3000"));
        check(&cors(CorsOrigins::Any), ("null", "GET", ""), Ok("*"));
        for foreign in [
            "null",
            "https://app.acme.example.evil",
            "https://APP.acme.example",
            "http://app.acme.example",
            "https://app.acme.example:443",
            "https://evil/https://app.acme.example",
        ] {
            check(&listed(), (foreign, "GET", ""), Err("origins"));
        }
        check(&listed(), (ours, "DELETE", ""), Err("methods"));
        check(&listed(), (ours, "get", ""), Err("methods"));
        check(&listed(), (ours, "GET", "x-a,x-secret"), Err("`x-secret`"));
    }

    #[test]
    fn only_a_browsers_question_is_a_preflight() {
        assert!(is_preflight(&Method::OPTIONS, &headers("https://a", "GET", "")));
        assert!(!is_preflight(&Method::OPTIONS, &headers("https://a", "", "")));
        assert!(!is_preflight(&Method::OPTIONS, &headers("", "GET", "")));
        assert!(!is_preflight(&Method::GET, &headers("https://a", "GET", "")));
    }

    #[test]
    fn our_word_stands_in_the_place_of_the_services() {
        let answer = |origin: &str| {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            apply(&listed(), grant(&listed(), &headers(origin, "", "")), &mut response);
            response
        };
        let allowed = answer("http://localhost:3000");
        assert_eq!(allowed.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "http://localhost:3000");
        assert_eq!(allowed.headers()[ACCESS_CONTROL_EXPOSE_HEADERS], "x-b");
        for nobody in ["", "https://evil.example"] {
            let answer = answer(nobody);
            assert!(!answer.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
            assert!(!answer.headers().contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
            assert_eq!(answer.headers()[VARY], "Origin");
        }
    }
}
