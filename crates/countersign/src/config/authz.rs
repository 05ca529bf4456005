//! From `authz:` to what the authz role needs: who may ask, and in which fields each known proxy says what it has. It
//! knows the proxies by their documentation; `docs/authz.md` says how to set each of them up.
use super::AuthzSettings;
use super::decode::{At, Decoder, Needed, OneOrMany};
use super::platform::{AuthzFieldsSection, AuthzFromValue, AuthzFromWord, AuthzSection, AuthzStatusesWord};
use super::proxies::networks;
use super::settings::{Context, Listening, drain, server};
use http::HeaderName;
use proxy::authz::{From, Settings, Statuses};
use std::path::{Path, PathBuf};
use wire::network::Network;
use wire::question::{Places, RequestPlaces, first_doubled};

/// Before the path of a Unix-domain socket, as nginx writes it.
const UNIX: &str = "unix:";
/// What `sun_path` holds, less its end (unix(7)).
const SOCKET_BYTES_MAX: usize = 107;
const SOCKETS_MAX: usize = 16;
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

pub fn authz(section: &At<AuthzSection>, context: &mut Context<'_, '_>) -> Option<AuthzSettings> {
    let section = &section.value;
    let drain = drain(section.timeouts.as_ref(), &mut context.to);
    let (addresses, sockets) = section.listen.0.as_ref().map(|listed| apart(listed, &mut context.to)).unzip();
    let listening = Listening {
        listen: addresses.as_ref(),
        tls: section.tls.as_ref(),
        limits: section.limits.as_ref(),
        timeouts: section.timeouts.as_ref(),
        workers: section.workers.as_ref(),
    };
    let server = server(&listening, context);
    let callers = callers(section.callers.as_ref(), &mut context.to);
    let from = match &section.from.0.as_ref()?.value {
        AuthzFromValue::Known(word) => Some(known(*word)),
        AuthzFromValue::Fields(fields) => configured(fields, &mut context.to),
    };
    Some(AuthzSettings {
        server: server?,
        sockets: sockets??,
        asked: Settings { from: from?, callers: callers? },
        drain,
    })
}

/// Addresses, and the paths of Unix-domain sockets (`None`: a problem was reported).
fn apart(listed: &OneOrMany<At<String>>, to: &mut Decoder<'_>) -> (OneOrMany<At<String>>, Option<Vec<PathBuf>>) {
    let (sockets, addresses): (Vec<_>, Vec<_>) = listed.0.iter().cloned().partition(|at| at.value.starts_with(UNIX));
    let mut paths: Vec<PathBuf> = Vec::new();
    for At { value, at } in &sockets {
        let path = Path::new(value.trim_start_matches(UNIX));
        let problem = match path.file_name() {
            _ if !path.is_absolute() => "is no absolute path",
            None => "names no file",
            Some(_) if path.as_os_str().len() > SOCKET_BYTES_MAX => {
                "is longer than the 107 bytes that a socket's path may have"
            }
            Some(_) if paths.iter().any(|known| known == path) => "is listed twice",
            Some(_) => {
                paths.push(path.to_owned());
                continue;
            }
        };
        to.report(*at, format!("`{value}` {problem}"), "write it as `unix:/run/countersign/authz.sock`");
    }
    if let Some(At { at, .. }) = sockets.get(SOCKETS_MAX) {
        to.report(*at, format!("more than {SOCKETS_MAX} sockets"), "let the proxies share one");
    }
    let complete = paths.len() == sockets.len() && sockets.len() <= SOCKETS_MAX;
    (OneOrMany(addresses), complete.then_some(paths))
}

fn callers(listed: Option<&OneOrMany<At<String>>>, to: &mut Decoder<'_>) -> Option<Vec<Network>> {
    match listed {
        Some(listed) => networks(listed, to),
        None => Some(LOOPBACK.iter().filter_map(|text| Network::parse(text).ok()).collect()),
    }
}

/// Names in the order method, target, host, scheme, address.
fn places([method, uri, host, scheme, address]: [&'static str; 5]) -> Places {
    let [method, uri, host, scheme, address] = [method, uri, host, scheme, address].map(HeaderName::from_static);
    Places { request: RequestPlaces::Fields { method, uri, host }, scheme, address }
}

fn known(word: AuthzFromWord) -> From {
    const FORWARDED: [&str; 5] =
        ["x-forwarded-method", "x-forwarded-uri", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-for"];
    const ORIGINAL: [&str; 5] =
        ["x-original-method", "x-original-uri", "x-original-host", "x-original-scheme", "x-original-address"];
    let http = |places, mend| From::Http { places, statuses: Statuses::Full, mend };
    match word {
        AuthzFromWord::Nginx => From::Http {
            places: places(ORIGINAL),
            statuses: Statuses::AuthRequest,
            mend: "in the location that asks, set each once: proxy_set_header X-Original-Method $request_method; \
                   X-Original-URI $request_uri; X-Original-Host $http_host; X-Original-Scheme $scheme; X-Original-Address \
                   $remote_addr; see examples/nginx",
        },
        AuthzFromWord::Traefik => http(
            places(FORWARDED),
            "leave `trustForwardHeader` of the forwardAuth middleware false, so that Traefik sets X-Forwarded-Method, -Uri, \
             -Host, -Proto and -For itself",
        ),
        AuthzFromWord::Caddy => http(
            places(FORWARDED),
            "ask with `forward_auth`, and without `trusted_proxies`, so that Caddy sets X-Forwarded-Method, -Uri, -Host, \
             -Proto and -For itself; see examples/caddy",
        ),
        AuthzFromWord::EnvoyHttp => From::Http {
            places: Places {
                request: RequestPlaces::Own,
                scheme: HeaderName::from_static("x-forwarded-proto"),
                address: HeaderName::from_static("x-countersign-client"),
            },
            statuses: Statuses::NoServerErrors,
            mend: "set X-Countersign-Client to %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% by an early header mutation, \
             and allow it and X-Forwarded-Proto in `allowed_headers`; see docs/authz.md",
        },
        AuthzFromWord::Envoy => From::Grpc,
    }
}

fn configured(section: &AuthzFieldsSection, to: &mut Decoder<'_>) -> Option<From> {
    let all = [&section.method, &section.uri, &section.host, &section.scheme, &section.address];
    let found = all.map(|named| name(named, to));
    let [Some(method), Some(uri), Some(host), Some(scheme), Some(address)] = found else { return None };
    if let Some(doubled) = first_doubled(&[&method, &uri, &host, &scheme, &address]) {
        let at = all
            .iter()
            .filter_map(|named| named.0.as_ref())
            .find(|named| named.value.eq_ignore_ascii_case(doubled.as_str()));
        let what = format!("`{doubled}` cannot say two things");
        to.report(at.map(|named| named.at).unwrap_or_default(), what, "have the proxy set one field for each");
        return None;
    }
    let statuses = match section.statuses.as_ref().map(|at| at.value) {
        Some(AuthzStatusesWord::AuthRequest) => Statuses::AuthRequest,
        Some(AuthzStatusesWord::Full) | None => Statuses::Full,
    };
    let places = Places { request: RequestPlaces::Fields { method, uri, host }, scheme, address };
    Some(From::Http { places, statuses, mend: "have the proxy set each field of `authz.from` exactly once" })
}

/// Fields that mean something by themselves say nothing else.
fn name(named: &Needed<At<String>>, to: &mut Decoder<'_>) -> Option<HeaderName> {
    let At { value, at } = named.0.as_ref()?;
    let fix = "name a field that only the proxy sets, e.g. `X-Original-URI`";
    let Ok(name) = HeaderName::from_bytes(value.as_bytes()) else {
        to.report(*at, format!("`{value}` is no header field name"), fix);
        return None;
    };
    let taken = matches!(
        name.as_str(),
        "authorization" | "connection" | "cookie" | "content-length" | "dpop" | "host" | "txn-token"
    ) || name.as_str().starts_with("countersign-");
    if taken || name.as_str().contains('_') {
        let why = if taken { "has a meaning of its own" } else { "holds an underscore, which many proxies drop" };
        to.report(*at, format!("`{value}` {why}"), fix);
        return None;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::super::{Loaded, Memory, load};
    use super::*;
    use std::path::Path;

    const REST: &str = "version: 1\ntrust_domain: acme.example\nissuers: { id: { issuer: https://id.acme.example, audience: a } }\n\
                        services: s/*.yaml\n";
    const SERVICE: &str = "service: a\nexpose: { host: a.example }\nrules: [{ name: r, who: anyone, can: GET /** }]\n";

    fn loaded(authz: &str, service: &str) -> Result<Loaded, Vec<String>> {
        let files = Memory::default().with("c.yaml", format!("{REST}{authz}"), 0o640).with("s/a.yaml", service, 0o640);
        load(Path::new("c.yaml"), &files)
            .map_err(|problems| problems.iter().map(|p| format!("{} {}", p.location(), p.what)).collect())
    }

    fn asked(authz: &str) -> Settings {
        loaded(authz, SERVICE).unwrap_or_else(|problems| panic!("{problems:?}")).authz.unwrap().asked
    }

    fn check(authz: &str, expected: &[&str]) {
        assert_eq!(loaded(authz, SERVICE).err().unwrap_or_default(), expected, "{authz}");
    }

    #[test]
    fn the_authz_role_stands_alone_and_its_services_need_no_upstream() {
        let loaded = loaded("authz: { listen: 127.0.0.1:9002, from: nginx }\n", SERVICE).unwrap();
        assert!(loaded.edge.is_none() && loaded.desired.services[0].upstream.is_none());
        let callers: Vec<String> = loaded.authz.unwrap().asked.callers.iter().map(ToString::to_string).collect();
        assert_eq!(callers, ["127.0.0.0/8", "::1/128"]);
        check(
            "",
            &[
                "c.yaml:1:1 neither `edge` nor `authz`: nothing would listen",
                "s/a.yaml:1:1 no `upstream`: the edge would not know where to forward to",
            ],
        );
        check(
            "edge: { listen: 127.0.0.1:1 }\n",
            &["s/a.yaml:1:1 no `upstream`: the edge would not know where to forward to"],
        );
        check("edge: { listen: 127.0.0.1:1 }\nauthz: { listen: 127.0.0.1:2, from: envoy }\n", &[]);
    }

    #[test]
    fn each_known_proxy_has_its_fields_and_statuses() {
        let of = |word: &str| asked(&format!("authz: {{ listen: 127.0.0.1:1, from: {word} }}\n")).from;
        let fields = |from: From| match from {
            From::Http {
                places: Places { request: RequestPlaces::Fields { uri, .. }, address, .. }, statuses, ..
            } => (uri.to_string(), address.to_string(), statuses),
            other => panic!("{other:?}"),
        };
        let nginx = ("x-original-uri".to_owned(), "x-original-address".to_owned(), Statuses::AuthRequest);
        assert_eq!(fields(of("nginx")), nginx);
        let forwarded = ("x-forwarded-uri".to_owned(), "x-forwarded-for".to_owned(), Statuses::Full);
        assert_eq!(fields(of("traefik")), forwarded);
        assert_eq!(fields(of("caddy")), forwarded);
        assert_eq!(of("envoy"), From::Grpc);
        assert!(matches!(of("envoy-http"), From::Http { places: Places { request: RequestPlaces::Own, .. }, .. }));
        let mine = "{ method: X-M, uri: X-U, host: X-H, scheme: X-S, address: X-A, statuses: auth-request }";
        assert_eq!(fields(of(mine)), ("x-u".to_owned(), "x-a".to_owned(), Statuses::AuthRequest));
    }

    #[test]
    fn mistakes_stand_at_their_place() {
        let with = |rest: &str| format!("authz: {{ listen: 127.0.0.1:1, {rest} }}\n");
        check("authz: { from: nginx }\n", &["c.yaml:5:8 `listen` is missing in `authz`"]);
        check("authz: { listen: 127.0.0.1:1 }\n", &["c.yaml:5:8 `from` is missing in `authz`"]);
        check(&with("from: apache"), &["c.yaml:5:37 `apache` is not known here"]);
        check(
            &with("from: nginx, callers: [10.0.0.1/8]"),
            &["c.yaml:5:54 `10.0.0.1/8` has bits set beyond its prefix"],
        );
        let everybody = "c.yaml:5:54 `0.0.0.0/0` is everybody, and everybody could write what he likes";
        check(&with("from: nginx, callers: [0.0.0.0/0]"), &[everybody]);
        check(&with("from: nginx, callers: [proxy]"), &["c.yaml:5:54 `proxy` is no address and no network"]);
        check(
            &format!("edge: {{ listen: 127.0.0.1:1 }}\n{}", with("from: nginx")),
            &[
                "c.yaml:6:8 `127.0.0.1:1` is the edge's address too",
                "s/a.yaml:1:1 no `upstream`: the edge would not know where to forward to",
            ][..1],
        );
        check(
            &format!("{}admin: {{ listen: 127.0.0.1:1 }}\n", with("from: nginx")),
            &["c.yaml:6:18 `127.0.0.1:1` is the authz role's address too"],
        );
        let fields = |method: &str, uri: &str| {
            with(&format!("from: {{ method: {method}, uri: {uri}, host: X-H, scheme: X-S, address: X-A }}"))
        };
        check(&fields("X-U", "x-u"), &["c.yaml:5:47 `x-u` cannot say two things"]);
        check(&fields("Host", "X-U"), &["c.yaml:5:47 `Host` has a meaning of its own"]);
        check(&fields("X_M", "X-U"), &["c.yaml:5:47 `X_M` holds an underscore, which many proxies drop"]);
        check(&fields("\"a b\"", "X-U"), &["c.yaml:5:47 `a b` is no header field name"]);
        check(&fields("Countersign-M", "X-U"), &["c.yaml:5:47 `Countersign-M` has a meaning of its own"]);
    }

    #[test]
    fn sockets_are_absolute_paths_beside_addresses_or_alone() {
        let of = |listen: &str| {
            let loaded = loaded(&format!("authz: {{ listen: {listen}, from: nginx }}\n"), SERVICE);
            loaded.map(|loaded| loaded.authz.unwrap()).map(|authz| (authz.server.listen.len(), authz.sockets))
        };
        let path = |text: &str| PathBuf::from(text);
        assert_eq!(of("\"unix:/run/cs/authz.sock\""), Ok((0, vec![path("/run/cs/authz.sock")])));
        let both = of("[127.0.0.1:1, \"unix:/a\", \"unix:/b\"]");
        assert_eq!(both, Ok((1, vec![path("/a"), path("/b")])));
        let check = |listen: &str, part: &str| {
            let found = of(listen).unwrap_err();
            assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
        };
        check("\"unix:authz.sock\"", "is no absolute path");
        check("\"unix:\"", "is no absolute path");
        check("\"unix:/\"", "names no file");
        check("[\"unix:/a\", \"unix:/a\"]", "is listed twice");
        assert!(of(&format!("\"unix:/{}\"", "a".repeat(106))).is_ok());
        check(&format!("\"unix:/{}\"", "a".repeat(107)), "is longer than");
        let many =
            |count: usize| format!("[{}]", (0..count).map(|n| format!("\"unix:/{n}\"")).collect::<Vec<_>>().join(", "));
        assert!(of(&many(16)).is_ok());
        check(&many(17), "more than 16 sockets");
        check("[\"unix:/a\", x]", "`x` is no address");
    }

    #[test]
    fn bounds_have_two_sides() {
        let with = |rest: &str| format!("authz: {{ listen: 127.0.0.1:1, from: nginx, {rest} }}\n");
        for (good, bad) in [
            ("workers: 1024", "workers: 1025"),
            ("timeouts: { drain: 0s }", "timeouts: { drain: 61m }"),
            ("limits: { connections: 1 }", "limits: { connections: 0 }"),
        ] {
            check(&with(good), &[]);
            let got = loaded(&with(bad), SERVICE).err().unwrap_or_default();
            assert!(got.len() == 1 && got[0].ends_with("is out of bounds"), "{bad}: {got:?}");
        }
        let many = |count: usize| with(&format!("callers: [{}]", vec!["10.0.0.7"; count].join(", ")));
        check(&many(256), &[]);
        assert!(loaded(&many(257), SERVICE).err().unwrap()[0].ends_with("more than 256 networks"));
    }
}
