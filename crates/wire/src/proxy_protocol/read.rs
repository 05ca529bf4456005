//! The reading half: a header at the start of a connection, as version 1 or 2. It takes nothing on trust but that the
//! sender is one who sends such headers, and keeps none of the additions (TLVs) of version 2.
use super::{LOCAL, PROXY, SIGNATURE, TCP_OVER_IPV4, TCP_OVER_IPV6};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A header is no longer than this: what follows the addresses in version 2 is skipped, and bounded.
pub const HEADER_BYTES_MAX: usize = 16 + 1024;
/// As the standard says, with CRLF.
const LINE_BYTES_MAX: usize = 107;

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Of a client at `source`, who connected to `destination`.
    Proxied { source: SocketAddr, destination: SocketAddr },
    /// The proxy's own (`LOCAL`, `UNKNOWN`), or of a client without an IP address.
    Unknown,
}

/// What begins the connection is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReadError(pub &'static str);

/// The header at the start of `bytes`, and its length. `None` while more bytes are needed; all of `bytes` belong to the
/// header then.
pub fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, ReadError> {
    let begins = |with: &[u8]| {
        let seen = bytes.len().min(with.len());
        bytes.get(..seen) == with.get(..seen)
    };
    if begins(&SIGNATURE) {
        return read_binary(bytes);
    }
    if begins(b"PROXY ") {
        return read_line(bytes);
    }
    Err(ReadError("no PROXY protocol header"))
}

fn read_binary(bytes: &[u8]) -> Result<Option<(Header, usize)>, ReadError> {
    let Some((head, rest)) = bytes.split_at_checked(16) else { return Ok(None) };
    let &[.., command, family, high, low] = head else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > HEADER_BYTES_MAX - 16 {
        return Err(ReadError("a PROXY protocol header that is too long"));
    }
    if !matches!(command, LOCAL | PROXY) {
        return Err(ReadError("a PROXY protocol header of no known version or command"));
    }
    let Some(addresses) = rest.get(..length) else { return Ok(None) };
    let header = match (command, family) {
        (PROXY, TCP_OVER_IPV4) => {
            addresses_of(addresses, &mut |ip| take::<4>(ip).map(|octets| Ipv4Addr::from(octets).into()))?
        }
        (PROXY, TCP_OVER_IPV6) => {
            addresses_of(addresses, &mut |ip| take::<16>(ip).map(|octets| Ipv6Addr::from(octets).into()))?
        }
        // Datagrams do not come over a connection; Unix sockets and unspecified families have no address for us.
        (PROXY, 0x12 | 0x22) => return Err(ReadError("a PROXY protocol header of a datagram")),
        _ => Header::Unknown,
    };
    Ok(Some((header, 16 + length)))
}

fn addresses_of(mut bytes: &[u8], ip: &mut dyn FnMut(&mut &[u8]) -> Option<IpAddr>) -> Result<Header, ReadError> {
    let mut all = || {
        let (from, to) = (ip(&mut bytes)?, ip(&mut bytes)?);
        let (from_port, to_port) = (take::<2>(&mut bytes)?, take::<2>(&mut bytes)?);
        let source = SocketAddr::new(from, u16::from_be_bytes(from_port));
        Some(Header::Proxied { source, destination: SocketAddr::new(to, u16::from_be_bytes(to_port)) })
    };
    all().ok_or(ReadError("a PROXY protocol header without its addresses"))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn read_line(bytes: &[u8]) -> Result<Option<(Header, usize)>, ReadError> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let is_long = bytes.len() >= LINE_BYTES_MAX;
        return if is_long { Err(ReadError("a PROXY protocol line that is too long")) } else { Ok(None) };
    };
    let bad = ReadError("a PROXY protocol line that is none");
    let line =
        bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")).filter(|_| end < LINE_BYTES_MAX).ok_or(bad)?;
    let line = std::str::from_utf8(line).map_err(|_| bad)?;
    let mut words = line.split(' ').skip(1);
    let header = match words.next() {
        // What follows is to be ignored.
        Some("UNKNOWN") => Header::Unknown,
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut address = || words.next()?.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == (family == "TCP4"));
            let (from, to) = (address().ok_or(bad)?, address().ok_or(bad)?);
            let mut port = || words.next().and_then(port);
            let (source, destination) = (port().ok_or(bad)?, port().ok_or(bad)?);
            if words.next().is_some() {
                return Err(bad);
            }
            Header::Proxied { source: SocketAddr::new(from, source), destination: SocketAddr::new(to, destination) }
        }
        _ => return Err(bad),
    };
    Ok(Some((header, end + 1)))
}

/// Decimal, without sign and leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::super::{Version, encode, encode_local};
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], expected: Option<Header>) {
        let with_more = [bytes, b"GET /"].concat();
        let found = read(&with_more);
        let wanted = expected.map(|header| Some((header, bytes.len())));
        assert_eq!(found.ok(), wanted, "{}", bytes.escape_ascii());
        if expected.is_some() {
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Ok(None), "the first {end} bytes");
            }
        }
    }

    fn proxied(source: &str, destination: &str) -> Option<Header> {
        Some(Header::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    #[test]
    fn lines_are_read() {
        check(b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n", proxied("192.0.2.7:56324", "192.0.2.1:443"));
        check(b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n", proxied("[2001:db8::7]:0", "[::1]:65535"));
        check(b"PROXY UNKNOWN\r\n", Some(Header::Unknown));
        check(b"PROXY UNKNOWN whatever this may be\r\n", Some(Header::Unknown));
        for bad in [
            "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 56324\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 56324 443 1\r\n",
            "PROXY TCP4  192.0.2.7 192.0.2.1 56324 443\r\n",
            "PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 01 443\r\n",
            "PROXY TCP4 192.0.2.07 192.0.2.1 1 443\r\n",
            "PROXY UDP4 192.0.2.7 192.0.2.1 1 443\r\n",
            "PROXY \r\n",
            "proxy TCP4 192.0.2.7 192.0.2.1 56324 443\r\n",
            "GET / HTTP/1.1\r\n",
            "PROXYTCP4",
        ] {
            check(bad.as_bytes(), None);
        }
        assert_eq!(read(&[b"PROXY ".as_slice(), &[b'x'; 100]].concat()), Ok(None));
        assert!(read(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat()).is_err(), "no line is that long");
    }

    #[test]
    fn binary_headers_are_read() {
        let v2 = |command: u8, family: u8, rest: &[u8]| {
            let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
            [&SIGNATURE[..], &[command, family], &length, rest].concat()
        };
        let four = b"\xc0\0\x02\x07\xc0\0\x02\x01\0\x07\x01\xbb";
        check(&v2(0x21, 0x11, four), proxied("192.0.2.7:7", "192.0.2.1:443"));
        check(&v2(0x21, 0x11, &[four.as_slice(), &[4, 0, 1, 0]].concat()), proxied("192.0.2.7:7", "192.0.2.1:443"));
        check(&v2(0x20, 0x11, four), Some(Header::Unknown));
        check(&v2(0x20, 0, b""), Some(Header::Unknown));
        check(&v2(0x21, 0, b""), Some(Header::Unknown));
        check(&v2(0x21, 0x31, &[0; 216]), Some(Header::Unknown));
        check(&v2(0x21, 0x11, &four[..11]), None);
        check(&v2(0x21, 0x21, &[0; 35]), None);
        check(&v2(0x21, 0x12, four), None);
        check(&v2(0x22, 0x11, four), None);
        check(&v2(0x11, 0x11, four), None);
        check(&v2(0x21, 0x11, &[0; 1025]), None);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(source: (u128, u16), destination: (u128, u16), four: bool, text: bool) {
            let address = |(ip, port): (u128, u16)| {
                let ip: IpAddr = if four { Ipv4Addr::from_bits(ip as u32).into() } else { Ipv6Addr::from_bits(ip).into() };
                SocketAddr::new(ip.to_canonical(), port)
            };
            let (source, destination) = (address(source), address(destination));
            prop_assume!(source.is_ipv4() == destination.is_ipv4());
            let version = if text { Version::V1 } else { Version::V2 };
            let bytes = encode(version, source, destination);
            prop_assert_eq!(read(&bytes), Ok(Some((Header::Proxied { source, destination }, bytes.len()))));
            let own = encode_local(version);
            prop_assert_eq!(read(&own), Ok(Some((Header::Unknown, own.len()))));
        }
    }
}
