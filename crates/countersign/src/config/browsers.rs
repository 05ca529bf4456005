//! From `cors:` and `resource_metadata:` to what clients are told about a service before they may use it.
use super::decode::{At, OneOrMany};
use super::numbers::{HOUR, MINUTE, interval};
use super::service::{CorsSection, ResourceSection};
use super::settings::Context;
use super::upstream::{self, Scheme};
use feed::{Cors, CorsOrigins, Expose, Resource};
use proxy::edge::RESOURCE_METADATA;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use trust::issuer::Profile;
use trust::path::{NormalPath, Tolerance};
use wire::websocket::Origin;

const LIST_MAX: usize = 64;
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
const HEADERS: [&str; 8] = [
    "authorization",
    "content-type",
    "dpop",
    "traceparent",
    "tracestate",
    "grpc-timeout",
    "x-grpc-web",
    "x-user-agent",
];
const EXPOSED: [&str; 5] = ["countersign-decision", "www-authenticate", "dpop-nonce", "grpc-status", "grpc-message"];

pub fn cors(section: &CorsSection, context: &mut Context<'_, '_>) -> Option<Cors> {
    let origins = origins(section, context)?;
    let credentials = section.credentials.as_ref().is_some_and(|at| at.value);
    if let (CorsOrigins::Any, Some(At { at, value: true })) = (&origins, &section.credentials) {
        let fix = "list the origins, or leave `credentials` out";
        context.to.report(
            *at,
            "any origin, with credentials: every page on the internet could act for its visitors",
            fix,
        );
        return None;
    }
    let is_token = |text: &str| !text.is_empty() && http::HeaderName::from_bytes(text.as_bytes()).is_ok();
    let is_method = |text: &str| is_token(text) && !text.bytes().any(|byte| byte.is_ascii_lowercase());
    let methods = words(section.methods.as_ref(), &METHODS, is_method, "no method; write it in upper case", context)?;
    let headers = words(section.headers.as_ref(), &HEADERS, is_token, "no header name", context)?;
    let mut expose = words(section.expose.as_ref(), &[], is_token, "no header name", context)?;
    expose.extend(EXPOSED.map(str::to_owned));
    let max_age = interval(section.max_age.as_ref(), 10 * MINUTE, Duration::ZERO..=24 * HOUR, &mut context.to);
    Some(Cors { origins, methods, headers, expose: expose.join(", "), credentials, max_age })
}

fn origins(section: &CorsSection, context: &mut Context<'_, '_>) -> Option<CorsOrigins> {
    let listed = &section.origins.0.as_ref()?.0;
    if let [At { value, .. }] = listed.as_slice()
        && value == "*"
    {
        return Some(CorsOrigins::Any);
    }
    let mut found = Vec::new();
    for At { value, at } in listed {
        match upstream::origin(value) {
            Ok(_) => {
                found.extend(Origin::parse(value.strip_suffix('/').unwrap_or(value)).map(|origin| origin.to_string()))
            }
            Err(error) => {
                context.to.report(*at, format!("{} (as an origin)", error.what), "e.g. `https://app.acme.example`");
            }
        }
    }
    if let Some(At { at, .. }) = listed.get(LIST_MAX) {
        context.to.report(*at, format!("more than {LIST_MAX} origins"), "use `\"*\"` if anybody may read the answers");
        return None;
    }
    (found.len() == listed.len()).then_some(CorsOrigins::Listed(found))
}

fn words(
    listed: Option<&OneOrMany<At<String>>>,
    default: &[&str],
    is_good: impl Fn(&str) -> bool,
    wrong: &str,
    context: &mut Context<'_, '_>,
) -> Option<Vec<String>> {
    let Some(listed) = listed else { return Some(default.iter().map(|word| (*word).to_owned()).collect()) };
    let mut good = listed.0.len() <= LIST_MAX;
    if let Some(At { at, .. }) = listed.0.get(LIST_MAX) {
        context.to.report(*at, format!("more than {LIST_MAX}"), "list fewer");
    }
    for At { value, at } in listed.0.iter().filter(|word| !is_good(&word.value)) {
        context.to.report(*at, format!("`{value}` is {wrong}"), "list names one by one");
        good = false;
    }
    good.then(|| listed.0.iter().map(|at| at.value.clone()).collect())
}

/// What the document is made of besides its own section.
pub struct Around<'a> {
    pub service: &'a str,
    pub expose: &'a [Expose],
    pub issuers: &'a [Arc<Profile>],
}

pub fn resource(section: &ResourceSection, around: &Around<'_>, context: &mut Context<'_, '_>) -> Option<Resource> {
    let At { value: url, at } = section.resource.0.as_ref()?;
    let Some((host, path)) = taken_apart(url) else {
        let fix = "write the URL that clients use, without query, e.g. `https://shop.acme.example/orders`";
        context.to.report(*at, format!("`{url}` is no URL of a resource"), fix);
        return None;
    };
    if !around.expose.iter().any(|expose| expose.host == host || expose.host == "*") {
        let fix = "use the host of `expose`: clients look for the document there";
        context.to.report(*at, format!("this service is not exposed at `{host}`"), fix);
        return None;
    }
    let issuers = issuers(section, around, context)?;
    let texts = |many: &Option<OneOrMany<At<String>>>| {
        many.as_ref().map(|many| many.0.iter().map(|at| at.value.clone()).collect::<Vec<_>>())
    };
    let document = json!({
        "resource": url,
        "resource_name": around.service,
        "authorization_servers": issuers,
        "scopes_supported": texts(&section.scopes),
        "resource_documentation": section.documentation.as_ref().map(|page| page.value.as_str()),
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": trust::dpop::ALGORITHMS.split(' ').collect::<Vec<_>>(),
    });
    // RFC 9728 §2: what does not apply is left out, not null.
    let document: serde_json::Map<_, _> = document
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let at_path = format!("{RESOURCE_METADATA}{}", path.strip_suffix('/').unwrap_or(&path));
    let authority = url.strip_suffix(&path).unwrap_or(url);
    Some(Resource {
        host,
        url: format!("{authority}{at_path}"),
        path: at_path,
        document: serde_json::Value::Object(document).to_string().into(),
    })
}

/// Lower-case host without its port, and the path as it stands (`""` if there is none).
fn taken_apart(url: &str) -> Option<(String, String)> {
    let after_scheme = url.split_once("://")?.1;
    let path = after_scheme.find('/').and_then(|at| after_scheme.get(at..)).unwrap_or("");
    let origin = upstream::origin(url.strip_suffix(path)?).ok()?;
    let is_local = matches!(origin.address.host.as_str(), "localhost" | "127.0.0.1" | "::1");
    let normal = path.is_empty() || NormalPath::parse(path, Tolerance::default()).is_ok_and(|it| it.as_str() == path);
    (normal && (origin.scheme == Scheme::Https || is_local)).then(|| (origin.address.host, path.to_owned()))
}

/// Their identifiers, as clients discover them.
fn issuers(section: &ResourceSection, around: &Around<'_>, context: &mut Context<'_, '_>) -> Option<Vec<String>> {
    let identifier = |profile: &Arc<Profile>| profile.issuers().first().cloned();
    let Some(named) = &section.issuers else { return Some(around.issuers.iter().filter_map(identifier).collect()) };
    let mut found = Vec::new();
    for At { value, at } in &named.0 {
        match around.issuers.iter().find(|profile| profile.name().as_ref() == value) {
            Some(profile) => found.extend(identifier(profile)),
            None => {
                let fix = "use a name from `issuers:` of the platform file";
                context.to.report(*at, format!("no issuer is named `{value}`"), fix);
                return None;
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use crate::config::{self, Memory};
    use std::path::Path;

    fn check(service: &str, expected: Result<(), &str>) {
        let platform = "version: 1\ntrust_domain: a.example\nservices: s/*.yaml\nedge: { listen: 127.0.0.1:0 }\n\
                        issuers: { id: { issuer: https://id.a.example, audience: a } }\n";
        let service =
            format!("service: a\nupstream: http://127.0.0.1:1\nexpose: {{ host: shop.a.example }}\n{service}\n");
        let files = Memory::default().with("c.yaml", platform, 0o640).with("s/a.yaml", &service, 0o640);
        let found = config::load(Path::new("c.yaml"), &files).map(|_| ()).map_err(|problems| problems.to_string());
        match (&found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(part)) => assert!(found.contains(part), "{service}\n{found}"),
            _ => panic!("{service}\n{found:?}"),
        }
    }

    #[test]
    fn what_browsers_are_told_is_checked() {
        check("cors: { origins: [\"https://app.a.example\", \"http://localhost:3000\"], credentials: true }", Ok(()));
        check("cors: { origins: \"*\" }", Ok(()));
        check("cors: { origins: \"*\", credentials: true }", Err("any origin, with credentials"));
        check("cors: { origins: \"null\" }", Err("`null`"));
        check("cors: { origins: [\"*\", \"https://a.example\"] }", Err("`*`"));
        check("cors: { origins: https://app.a.example/page }", Err("has a path"));
        check("cors: { origins: \"https://*.a.example\" }", Err("no valid host"));
        check("cors: {}", Err("`origins`"));
        check("cors: { origins: \"*\", methods: [get] }", Err("`get` is no method"));
        check("cors: { origins: \"*\", headers: [\"x y\"] }", Err("`x y` is no header name"));
        check("cors: { origins: \"*\", max_age: 2d }", Err("1d"));
        check("cors: { origin: \"*\" }", Err("did you mean `origins`?"));
    }

    #[test]
    fn a_resource_is_a_url_of_this_service() {
        check(
            "resource_metadata: { resource: https://shop.a.example/orders, issuers: id, scopes: [orders.read] }",
            Ok(()),
        );
        check("resource_metadata: { resource: https://shop.a.example }", Ok(()));
        check("resource_metadata: { resource: https://other.a.example }", Err("not exposed at `other.a.example`"));
        check("resource_metadata: { resource: http://shop.a.example }", Err("no URL of a resource"));
        check("resource_metadata: { resource: \"https://shop.a.example/a?b\" }", Err("no URL of a resource"));
        check("resource_metadata: { resource: https://shop.a.example/a/../b }", Err("no URL of a resource"));
        check("resource_metadata: { resource: shop.a.example }", Err("no URL of a resource"));
        check(
            "resource_metadata: { resource: https://shop.a.example, issuers: partner }",
            Err("no issuer is named `partner`"),
        );
    }
}
