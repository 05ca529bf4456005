//! From `edge.proxy_protocol` and `edge.trusted_proxies` to whom the edge believes about the caller.
use super::decode::{At, Decoder, OneOrMany};
use super::platform::{ForwardedWord, TrustedProxiesSection};
use net::preamble::Preamble;
use proxy::forwarded::TrustedProxies;
use std::net::SocketAddr;
use std::sync::Arc;
use wire::forwarded::Field;
use wire::network::{Network, NetworkError};
use wire::proxy_protocol::{self, HEADER_BYTES_MAX, Header};

const NETWORKS_MAX: usize = 256;

/// All of them, or none when one had a problem: a list with a hole would trust, or distrust, the wrong ones.
pub fn networks(list: &OneOrMany<At<String>>, to: &mut Decoder<'_>) -> Option<Vec<Network>> {
    let mut found = Vec::new();
    for At { value, at } in &list.0 {
        match Network::parse(value) {
            Ok(network) if network.is_everybody() => {
                let fix = "name the networks of your own proxies";
                to.report(*at, format!("`{value}` is everybody, and everybody could write what he likes"), fix);
            }
            Ok(network) => found.push(network),
            Err(error @ NetworkError::Syntax(_)) => {
                to.report(*at, error.to_string(), "write a network such as `10.0.0.0/8`, or an address");
            }
            Err(error @ NetworkError::HostBits(_)) => {
                to.report(*at, error.to_string(), "write the network's first address, or the address without a prefix");
            }
        }
    }
    if let Some(At { at, .. }) = list.0.get(NETWORKS_MAX) {
        to.report(*at, format!("more than {NETWORKS_MAX} networks"), "join neighbours to larger ones");
        return None;
    }
    (found.len() == list.0.len() && !found.is_empty()).then_some(found)
}

pub fn trusted(section: &TrustedProxiesSection, to: &mut Decoder<'_>) -> Option<TrustedProxies> {
    let field = match section.header.as_ref().map(|at| at.value) {
        Some(ForwardedWord::Forwarded) => Field::Forwarded,
        Some(ForwardedWord::XForwardedFor) | None => Field::XForwardedFor,
    };
    Some(TrustedProxies { networks: networks(section.from.0.as_ref()?, to)?, field })
}

/// PROXY protocol from these networks.
pub fn preamble(networks: Vec<Network>) -> Preamble {
    Preamble {
        is_due_from: Arc::new(move |ip| networks.iter().any(|network| network.contains(ip))),
        read: read_preamble,
        bytes_max: HEADER_BYTES_MAX,
    }
}

fn read_preamble(bytes: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, &'static str> {
    let found = proxy_protocol::read(bytes).map_err(|error| error.0)?;
    Ok(found.map(|(header, length)| match header {
        Header::Proxied { source, .. } => (Some(source), length),
        Header::Unknown => (None, length),
    }))
}

#[cfg(test)]
mod tests {
    use crate::config::{self, Memory};
    use std::path::Path;

    fn check(edge: &str, expected: Option<&str>) {
        let platform = format!(
            "version: 1\ntrust_domain: a.example\nservices: s/*.yaml\nedge: {{ listen: 127.0.0.1:0, {edge} }}\n"
        );
        let service = "service: a\nupstream: http://127.0.0.1:1\n";
        let files = Memory::default().with("c.yaml", &platform, 0o640).with("s/a.yaml", service, 0o640);
        let found = config::load(Path::new("c.yaml"), &files).err().map(|problems| problems.to_string());
        match (&found, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) => assert!(found.contains(expected), "{edge}\n{found}"),
            _ => panic!("{edge}\n{found:?}"),
        }
    }

    #[test]
    fn what_is_no_list_of_proxies_is_refused() {
        check("trusted_proxies: { from: 10.0.0.0/8 }", None);
        check("trusted_proxies: { from: [10.0.0.0/8, \"::1\"], header: forwarded }", None);
        check("proxy_protocol: [192.0.2.7, 192.0.2.8]", None);
        check("trusted_proxies: {}", Some("`from`"));
        check("trusted_proxies: { from: [] }", Some("an empty list"));
        check("trusted_proxies: { from: 0.0.0.0/0 }", Some("everybody"));
        check("proxy_protocol: \"::/0\"", Some("everybody"));
        check("trusted_proxies: { from: [10.0.0.0/8, 10.0.0.1/8] }", Some("bits set beyond its prefix"));
        check("proxy_protocol: balancer.internal", Some("no address and no network"));
        check("trusted_proxies: { from: 10.0.0.0/8, header: x-real-ip }", Some("x-forwarded-for"));
        check("trusted_proxies: { cidrs: 10.0.0.0/8 }", Some("did you mean `from`?"));
    }
}
