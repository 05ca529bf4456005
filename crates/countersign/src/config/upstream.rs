//! From `upstream:` to addresses, protocol and TLS. A URL here names an origin and nothing more: a path, a query or a
//! user in it would be dropped in silence, so each is refused.
use super::decode::{At, OneOrMany};
use super::numbers::{HOUR, MINUTE, SECOND, interval};
use super::problem::Span;
use super::service::{ProtocolWord, UpstreamSection, UpstreamValue};
use super::settings::Context;
use feed::{Address, Protocol, Upstream, UpstreamTls};
use std::net::Ipv6Addr;
use std::time::Duration;

const ADDRESSES_MAX: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// `http://host:port` taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub scheme: Scheme,
    pub address: Address,
}

/// Why a text is no origin, and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginError {
    pub what: String,
    pub fix: String,
}

pub fn origin(text: &str) -> Result<Origin, OriginError> {
    let fail = |what: &str, fix: &str| Err(OriginError { what: format!("`{text}` {what}"), fix: fix.to_owned() });
    let (scheme, rest) = match text.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        Some((other, _)) => {
            return Err(OriginError {
                what: format!("`{other}://` is not an upstream scheme of this version"),
                fix: "use `http://host:port` or `https://host:port`".to_owned(),
            });
        }
        None => return fail("has no scheme", &format!("write `http://{text}` or `https://{text}`")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return fail("holds a user name", "remove it; the service gets the caller's identity in the Txn-Token");
    }
    if rest.contains(['/', '?', '#']) {
        return fail("has a path or query", "name host and port only; paths are forwarded as they come");
    }
    let default = if scheme == Scheme::Http { 80 } else { 443 };
    match host_and_port(rest, default) {
        Some(address) => Ok(Origin { scheme, address }),
        None => fail("has no valid host and port", "write `http://host:port`; IPv6 in brackets: `http://[::1]:9001`"),
    }
}

/// An origin as browsers write it (RFC 6454 §6.1): without the port that the scheme has anyway.
pub fn written(origin: &Origin) -> String {
    let Address { host, port } = &origin.address;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    match (origin.scheme, port) {
        (Scheme::Http, 80) => format!("http://{host}"),
        (Scheme::Https, 443) => format!("https://{host}"),
        (Scheme::Http, port) => format!("http://{host}:{port}"),
        (Scheme::Https, port) => format!("https://{host}:{port}"),
    }
}

fn host_and_port(text: &str, default: u16) -> Option<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, port)
        }
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            is_host(host).then_some((host, port))?
        }
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|port| *port > 0)?,
        None if port.is_empty() => default,
        _ => return None,
    };
    Some(Address { host: host.to_ascii_lowercase(), port })
}

/// A DNS name (with `_`, which private names use) or an IPv4 literal.
pub fn is_host(text: &str) -> bool {
    let label = |l: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !l.is_empty() && l.len() <= 63 && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(allowed)
    };
    text.len() <= 253 && text.split('.').all(label)
}

pub fn upstream(named: &At<UpstreamValue>, context: &mut Context<'_, '_>) -> Option<Upstream> {
    let none = UpstreamSection::default();
    let (urls, section) = match &named.value {
        UpstreamValue::Urls(urls) => (urls, &none),
        UpstreamValue::Settings(section) => (section.url.0.as_ref()?, section.as_ref()),
    };
    let ms = Duration::from_millis(10);
    let connect_timeout = interval(section.connect_timeout.as_ref(), 3 * SECOND, ms..=MINUTE, &mut context.to);
    let first_byte_timeout = interval(section.first_byte_timeout.as_ref(), 30 * SECOND, ms..=HOUR, &mut context.to);
    let idle_timeout = interval(section.idle_timeout.as_ref(), 30 * SECOND, SECOND..=HOUR, &mut context.to);
    let protocol = match section.protocol.as_ref().map(|at| at.value) {
        Some(ProtocolWord::Http2) => Protocol::Http2,
        Some(ProtocolWord::Http1) | None => Protocol::Http1,
    };
    let origins = origins(urls, named.at, context)?;
    let tls = tls(section, &origins, named.at, context);
    let addresses = origins.into_iter().map(|origin| origin.address).collect();
    Some(Upstream { addresses, protocol, tls, connect_timeout, first_byte_timeout, idle_timeout })
}

/// All URLs, or `None` when one of them had a problem.
fn origins(urls: &OneOrMany<At<String>>, at: Span, context: &mut Context<'_, '_>) -> Option<Vec<Origin>> {
    let mut found: Vec<Origin> = Vec::new();
    let mut good = !urls.0.is_empty();
    for url in &urls.0 {
        match origin(&url.value) {
            Ok(one) if found.contains(&one) => {
                context.to.report(url.at, format!("`{}` is listed twice", url.value), "remove one");
                good = false;
            }
            Ok(one) => found.push(one),
            Err(OriginError { what, fix }) => {
                context.to.report(url.at, what, fix);
                good = false;
            }
        }
    }
    if found.len() > ADDRESSES_MAX {
        context.to.report(
            at,
            format!("more than {ADDRESSES_MAX} addresses"),
            "use a DNS name that answers with several",
        );
        good = false;
    }
    let first = found.first()?.scheme;
    if found.iter().any(|origin| origin.scheme != first) {
        context.to.report(at, "http and https addresses in one upstream", "make them all https, or all http");
        good = false;
    }
    good.then_some(found)
}

fn tls(section: &UpstreamSection, origins: &[Origin], at: Span, context: &mut Context<'_, '_>) -> Option<UpstreamTls> {
    let first = origins.first()?;
    if first.scheme == Scheme::Http {
        for field in [&section.ca_file, &section.server_name].into_iter().flatten() {
            context.to.report(field.at, "this is for https, and the URL is http", "remove it, or write `https://`");
        }
        return None;
    }
    let roots = section.ca_file.as_ref().and_then(|file| context.read(file, false));
    let server_name = match &section.server_name {
        Some(name) if is_host(&name.value) => name.value.to_ascii_lowercase(),
        Some(name) => {
            context.to.report(name.at, format!("`{}` is no host name", name.value), "e.g. `orders.internal`");
            name.value.clone()
        }
        None => {
            if origins.iter().any(|origin| origin.address.host != first.address.host) {
                let fix = "add `server_name:`, the one name that all their certificates carry";
                context.to.report(at, "several https hosts and no `server_name`", fix);
            }
            first.address.host.clone()
        }
    };
    Some(UpstreamTls { server_name, roots_pem: roots.map(Into::into) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(Scheme, &str, u16)>) {
        let got = origin(text).ok().map(|o| (o.scheme, o.address.host, o.address.port));
        assert_eq!(got, expected.map(|(s, h, p)| (s, h.to_owned(), p)), "{text}");
    }

    #[test]
    fn an_upstream_is_an_origin_and_nothing_more() {
        check("http://127.0.0.1:9001", Some((Scheme::Http, "127.0.0.1", 9001)));
        check("http://orders", Some((Scheme::Http, "orders", 80)));
        check("https://Orders.Internal/", Some((Scheme::Https, "orders.internal", 443)));
        check("http://[::1]:9001", Some((Scheme::Http, "::1", 9001)));
        check("http://[fe80::1]", Some((Scheme::Http, "fe80::1", 80)));
        for bad in [
            "",
            "orders:9001",
            "ftp://x",
            "http://",
            "http://u:p@x",
            "http://x/path",
            "http://x?q",
            "http://x#f",
            "http://x:",
            "http://x:0",
            "http://x:65536",
            "http://x:+80",
            "http://[::1",
            "http://[zz]:1",
            "http://-x",
            "http://x..y",
            "http://a b",
            "http://x:80:80",
            "http://[::1]80",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_url_without_scheme_says_how_to_write_it() {
        assert_eq!(origin("orders:9001").unwrap_err().fix, "write `http://orders:9001` or `https://orders:9001`");
    }
}
