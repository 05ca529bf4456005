//! The PROXY protocol (HAProxy's proxy-protocol.txt, revision of 2020-03-05): the header that tells a server behind a proxy
//! whose connection it is. Here it is written, as version 1 (text) or 2 (binary), and read in `read`. Who may be believed is not judged here.
use std::net::{IpAddr, SocketAddr};

mod read;

pub use read::{HEADER_BYTES_MAX, Header, ReadError, read};

/// How the header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary; read at a glance, and the one to prefer.
    V2,
}

/// Version 2 begins so: no text protocol does.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 in the high half, the command in the low one.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Address family in the high half, a stream in the low one.
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// The header of a connection that carries what came from `source` to `destination`. An IPv4 address in IPv6 clothes is
/// IPv4; where only one of both is IPv4, both are written as IPv6.
pub fn encode(version: Version, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = alike(source.ip(), destination.ip());
    match version {
        Version::V1 => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
        }
        Version::V2 => {
            let family = if from.is_ipv4() { TCP_OVER_IPV4 } else { TCP_OVER_IPV6 };
            let mut addresses = Vec::with_capacity(36);
            for ip in [from, to] {
                match ip {
                    IpAddr::V4(ip) => addresses.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => addresses.extend_from_slice(&ip.octets()),
                }
            }
            addresses.extend_from_slice(&source.port().to_be_bytes());
            addresses.extend_from_slice(&destination.port().to_be_bytes());
            binary(PROXY, family, &addresses)
        }
    }
}

/// The header of a connection on the proxy's own behalf, such as a health check: it has no client.
pub fn encode_local(version: Version) -> Vec<u8> {
    match version {
        Version::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        Version::V2 => binary(LOCAL, 0, &[]),
    }
}

fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    // At most 36 bytes: it always fits.
    let length = u16::try_from(addresses.len()).unwrap_or(u16::MAX);
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[command, family]);
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(addresses);
    header
}

/// One family for both.
fn alike(one: IpAddr, other: IpAddr) -> (IpAddr, IpAddr) {
    match (one.to_canonical(), other.to_canonical()) {
        (IpAddr::V4(one), IpAddr::V6(other)) => (one.to_ipv6_mapped().into(), other.into()),
        (IpAddr::V6(one), IpAddr::V4(other)) => (one.into(), other.to_ipv6_mapped().into()),
        same => same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(source: &str, destination: &str, expected: &str) {
        let found = encode(Version::V1, source.parse().unwrap(), destination.parse().unwrap());
        assert_eq!(String::from_utf8(found).unwrap(), expected);
    }

    #[test]
    fn version_1_is_a_line_of_text() {
        check_text("192.168.0.1:56324", "192.168.0.11:443", "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
        check_text("[2001:db8::1]:1", "[::1]:65535", "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n");
        check_text("[::ffff:10.0.0.1]:1", "10.0.0.2:2", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n");
        check_text("10.0.0.1:1", "[2001:db8::1]:2", "PROXY TCP6 ::ffff:10.0.0.1 2001:db8::1 1 2\r\n");
        assert_eq!(encode_local(Version::V1), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn the_longest_line_is_as_long_as_the_standard_says() {
        let all = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
        assert_eq!(encode(Version::V1, all, all).len(), 104);
    }

    #[test]
    fn version_2_is_binary() {
        let found = encode(Version::V2, "192.168.0.1:56324".parse().unwrap(), "192.168.0.11:443".parse().unwrap());
        let expected = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c\
                         \xc0\xa8\x00\x01\xc0\xa8\x00\x0b\xdc\x04\x01\xbb";
        assert_eq!(found, expected);
        let found = encode(Version::V2, "[2001:db8::1]:1".parse().unwrap(), "[::1]:443".parse().unwrap());
        assert_eq!(&found[..16], b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x21\x00\x24");
        assert_eq!(found.len(), 16 + 36);
        assert_eq!(&found[48..], b"\0\x01\x01\xbb");
    }

    #[test]
    fn a_connection_of_our_own_has_no_addresses() {
        assert_eq!(encode_local(Version::V2), b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x20\x00\x00\x00");
    }

    #[test]
    fn mixed_families_are_written_as_one() {
        let found = encode(Version::V2, "[::ffff:10.0.0.1]:7".parse().unwrap(), "[2001:db8::1]:8".parse().unwrap());
        assert_eq!(found[13], 0x21);
        assert_eq!(&found[16..32], b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x01");
    }
}
