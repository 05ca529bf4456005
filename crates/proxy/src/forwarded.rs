//! The proxies in front of us whose word about the caller counts. What anybody else says of himself is never read.

use std::net::IpAddr;

use http::HeaderMap;
use trust::reason::Reason;
use wire::forwarded::{self, Field};
use wire::network::Network;

use crate::judge::{Client, Stop};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies {
    pub networks: Vec<Network>,
    pub field: Field,
}

impl TrustedProxies {
    fn holds(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(ip))
    }

    /// Who is behind `socket`, if that is one of these proxies. Call it before the fields are cleaned.
    pub(crate) fn caller(&self, socket: Client, headers: &HeaderMap) -> Result<Client, Stop> {
        if !self.holds(socket.ip) {
            return Ok(socket);
        }
        let hop = forwarded::caller(headers, self.field, |ip| self.holds(ip)).map_err(|error| {
            Stop::new(Reason::RequestMalformed, format!("from the trusted proxy {}: {error}", socket.ip))
        })?;
        let Some(hop) = hop else { return Ok(socket) };
        match hop.ip {
            // The certificate on our socket is the proxy's: it proves nothing for who is behind it.
            Some(ip) => Ok(Client { ip, https: hop.https.unwrap_or(socket.https), certificate: None }),
            None => Err(Stop::new(
                Reason::RequestMalformed,
                format!("the trusted proxy {} does not tell its caller's address", socket.ip),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn check(socket: &str, fields: &[(&'static str, &'static str)], expected: Option<(&str, bool)>) {
        let proxies = TrustedProxies {
            networks: ["10.0.0.0/8", "::1"].map(|text| Network::parse(text).unwrap()).into(),
            field: Field::XForwardedFor,
        };
        let headers =
            fields.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        let socket = Client { ip: socket.parse().unwrap(), https: false, certificate: None };
        let found = proxies.caller(socket, &headers.collect());
        let expected = expected.map(|(ip, https)| Client { ip: ip.parse().unwrap(), https, certificate: None });
        assert_eq!(found.map_err(|stop| stop.reason).ok(), expected, "{fields:?}");
    }

    #[test]
    fn a1_only_a_trusted_proxy_speaks_for_the_caller() {
        let spoofed = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")];
        check("203.0.113.5", &spoofed, Some(("203.0.113.5", false)));
        check("10.0.0.1", &spoofed, Some(("192.0.2.7", true)));
        check("::1", &spoofed, Some(("192.0.2.7", true)));
        check("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, 192.0.2.7, 10.9.9.9")], Some(("192.0.2.7", false)));
        check("10.0.0.1", &[("forwarded", "for=192.0.2.7;proto=https")], Some(("10.0.0.1", false)));
        check("10.0.0.1", &[], Some(("10.0.0.1", false)));
        check("10.0.0.1", &[("x-forwarded-for", "unknown")], None);
        check("10.0.0.1", &[("x-forwarded-for", "192.0.2.7, rubbish")], None);
        check("203.0.113.5", &[("x-forwarded-for", "rubbish")], Some(("203.0.113.5", false)));
    }
}
