//! From `upstream:` to addresses, protocol and TLS. A URL here names an origin and nothing more: a path, a query or a
//! user in it would be dropped in silence, so each is refused.
use super::decode::{At, Decoder, Needed, OneOrMany};
use super::fleet;
use super::numbers::{DAY, HOUR, MINUTE, SECOND, interval};
use super::platform::TlsSection;
use super::problem::Span;
use super::service::{ProtocolWord, ProxyProtocolWord, UpstreamSection, UpstreamValue};
use super::settings::{self, Context};
use feed::{Address, ClientIdentity, Endpoints, Protocol, ProxyProtocol, Upstream, UpstreamTls};
use net::upstream::ADDRESSES_MAX;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use trust::spiffe::SpiffeId;

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
        UpstreamValue::Urls(urls) => (Some(urls), &none),
        UpstreamValue::Settings(section) => (section.url.as_ref(), section.as_ref()),
    };
    let place = place(urls, section, named.at, context);
    let to = &mut context.to;
    let ms = Duration::from_millis(10);
    // What is left out stays as a plain upstream has it.
    let mut upstream = Upstream::plain(Endpoints::Listed(Vec::new()));
    let connect_timeout = section.connect_timeout.as_ref();
    upstream.connect_timeout = interval(connect_timeout, upstream.connect_timeout, ms..=MINUTE, to);
    let first_byte_timeout = section.first_byte_timeout.as_ref();
    upstream.first_byte_timeout = interval(first_byte_timeout, upstream.first_byte_timeout, ms..=HOUR, to);
    upstream.idle_timeout = interval(section.idle_timeout.as_ref(), upstream.idle_timeout, SECOND..=HOUR, to);
    upstream.max_age = interval(section.max_age.as_ref(), upstream.max_age, SECOND..=DAY, to);
    if let Some(outliers) = &section.outliers {
        upstream.outliers = fleet::outliers(outliers, &upstream.outliers, to);
    }
    upstream.health = section.health.as_ref().and_then(|health| fleet::health(health, to));
    upstream.retries = section.retries.as_ref().and_then(|retries| fleet::retries(retries, to));
    match section.protocol.as_ref().map(|at| at.value) {
        Some(ProtocolWord::Http2) => upstream.protocol = Protocol::Http2,
        Some(ProtocolWord::Grpc) => upstream.protocol = Protocol::Grpc,
        Some(ProtocolWord::Http1) | None => {}
    }
    upstream.proxy_protocol = section.proxy_protocol.as_ref().map(|at| match at.value {
        ProxyProtocolWord::V1 => ProxyProtocol::V1,
        ProxyProtocolWord::V2 => ProxyProtocol::V2,
    });
    if let Some(at) = section.proxy_protocol.as_ref().filter(|_| upstream.protocol.is_http2()) {
        let what = "a connection with a PROXY header carries one request, and HTTP/2 is for many";
        to.report(at.at, what, "remove `proxy_protocol`, or `protocol`");
    }
    let (origins, refresh) = place?;
    upstream.tls = tls(section, &origins, named.at, context);
    let mut addresses = origins.into_iter().map(|origin| origin.address);
    upstream.endpoints = match refresh {
        Some(refresh) => Endpoints::Dns { address: addresses.next()?, refresh },
        None => Endpoints::Listed(addresses.collect()),
    };
    Some(upstream)
}

/// The origins; with `dns`, the one of the name, and how often it is looked up.
fn place(
    urls: Option<&OneOrMany<At<String>>>,
    section: &UpstreamSection,
    at: Span,
    context: &mut Context<'_, '_>,
) -> Option<(Vec<Origin>, Option<Duration>)> {
    let to = &mut context.to;
    let refresh = interval(section.refresh.as_ref(), 5 * SECOND, SECOND..=HOUR, to);
    let first = Span { width: 1, ..at };
    match (urls, &section.dns) {
        (None, None) => {
            to.report(first, "`url` is missing in `upstream`", "add `url:`, or `dns:` for a name with many addresses");
            None
        }
        (Some(_), Some(dns)) => {
            to.report(dns.at, "both `url` and `dns`", "keep the one that says where the service runs");
            None
        }
        (Some(urls), None) => {
            if let Some(at) = &section.refresh {
                let fix = "remove it; the names of URLs are looked up for each connection";
                to.report(at.at, "`refresh` is for `dns`", fix);
            }
            Some((origins(urls, at, context)?, None))
        }
        (None, Some(dns)) => Some((vec![name(dns, to)?], Some(refresh))),
    }
}

/// `host:port` or a URL, whose host is a name.
fn name(dns: &At<String>, to: &mut Decoder<'_>) -> Option<Origin> {
    let url = if dns.value.contains("://") { dns.value.clone() } else { format!("http://{}", dns.value) };
    match origin(&url) {
        Ok(found) if found.address.host.parse::<IpAddr>().is_ok() => {
            to.report(dns.at, format!("`{}` is an address and no name", dns.value), "write it as `url:`");
            None
        }
        Ok(found) => Some(found),
        Err(OriginError { what, fix }) => {
            to.report(dns.at, what, fix);
            None
        }
    }
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
        let fields = [&section.ca_file, &section.server_name, &section.spiffe_id, &section.certificate, &section.key];
        for field in fields.into_iter().flatten() {
            context.to.report(field.at, "this is for https, and the URL is http", "remove it, or write `https://`");
        }
        return None;
    }
    let roots = section.ca_file.as_ref().and_then(|file| context.read(file, false));
    let spiffe_id = section.spiffe_id.as_ref().and_then(|named| spiffe_id(named, section, &mut context.to));
    let server_name = match &section.server_name {
        Some(name) if is_host(&name.value) => name.value.to_ascii_lowercase(),
        Some(name) => {
            context.to.report(name.at, format!("`{}` is no host name", name.value), "e.g. `orders.internal`");
            name.value.clone()
        }
        None => {
            let differ = origins.iter().any(|origin| origin.address.host != first.address.host);
            if differ && section.spiffe_id.is_none() {
                let fix = "add `server_name:`, the one name that all their certificates carry";
                context.to.report(at, "several https hosts and no `server_name`", fix);
            }
            first.address.host.clone()
        }
    };
    let identity = identity(section, context);
    let tls = UpstreamTls { server_name, spiffe_id, roots_pem: roots.map(Into::into), identity };
    check_roots(section, &tls, &mut context.to);
    Some(tls)
}

fn spiffe_id(named: &At<String>, section: &UpstreamSection, to: &mut Decoder<'_>) -> Option<SpiffeId> {
    if section.ca_file.is_none() {
        let fix = "add `ca_file:`, a PEM file with the roots of its trust domain";
        to.report(named.at, "`spiffe_id` without `ca_file`", fix);
    }
    let fix = "e.g. `spiffe://acme.example/shop/orders`";
    match SpiffeId::parse(&named.value) {
        Ok(id) if id.path().is_empty() => {
            to.report(named.at, format!("`{}` names a trust domain and no workload", named.value), fix);
            None
        }
        Ok(id) => Some(id),
        Err(error) => {
            to.report(named.at, format!("`{}` is no SPIFFE ID: {error}", named.value), fix);
            None
        }
    }
}

/// Our own certificate towards the upstream.
fn identity(section: &UpstreamSection, context: &mut Context<'_, '_>) -> Option<Arc<ClientIdentity>> {
    let (certificate, key) = match (&section.certificate, &section.key) {
        (None, None) => return None,
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
        (Some(one), None) => {
            context.to.report(one.at, "`certificate` without `key`", "add `key:`, the file with its private key");
            return None;
        }
        (None, Some(one)) => {
            context.to.report(one.at, "`key` without `certificate`", "add `certificate:`, the file it belongs to");
            return None;
        }
    };
    let pair = TlsSection { certificate: Needed(Some(certificate)), key: Needed(Some(key)), ..TlsSection::default() };
    let identity = settings::identity(&pair, context)?;
    let certificate_pem = identity.certificate_pem.clone();
    Some(Arc::new(ClientIdentity { certificate_pem, key_pem: identity.key_pem.clone().into() }))
}

/// Roots that cannot be used are found here, and not at the first request.
fn check_roots(section: &UpstreamSection, tls: &UpstreamTls, to: &mut Decoder<'_>) {
    let (Some(named), Some(roots)) = (&section.ca_file, &tls.roots_pem) else { return };
    if let Err(why) = net::upstream::check_roots(roots) {
        to.report(named.at, format!("`{}`: {why}", named.value), "name a PEM file of root certificates");
    }
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
