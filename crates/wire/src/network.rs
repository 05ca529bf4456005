//! A network of addresses as configuration writes it (`10.0.0.0/8`, `::1/128`, `192.0.2.7`). It resolves no name.
use std::net::IpAddr;

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("`{0}` is no address and no network")]
    Syntax(String),
    /// Bits after the prefix are mostly a slip of the pen, and then another network is meant.
    #[error("`{0}` has bits set beyond its prefix")]
    HostBits(String),
}

impl Network {
    /// `address/bits`, or an address alone.
    pub fn parse(text: &str) -> Result<Network, NetworkError> {
        let syntax = || NetworkError::Syntax(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let first: IpAddr = address.parse().map_err(|_| syntax())?;
        let most: u8 = if first.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            // `u8::from_str` takes a plus sign.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= most).ok_or_else(syntax)?
            }
            Some(_) => return Err(syntax()),
        };
        let network = Network { first, bits };
        if head(first, bits) != number(first) {
            return Err(NetworkError::HostBits(text.to_owned()));
        }
        Ok(network)
    }

    /// All addresses of a family.
    pub fn is_everybody(&self) -> bool {
        self.bits == 0
    }

    /// An IPv4 address that came through an IPv6 socket counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && head(address, self.bits) == number(self.first)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// The address's bits at the top of 128.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn head(address: IpAddr, bits: u8) -> u128 {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    number(address) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(network: &str, address: &str, expected: bool) {
        let parsed = Network::parse(network).unwrap();
        assert_eq!(parsed.contains(address.parse().unwrap()), expected, "{network} {address}");
    }

    #[test]
    fn a_network_holds_its_own_addresses_and_no_other() {
        check("127.0.0.0/8", "127.0.0.1", true);
        check("127.0.0.0/8", "127.255.255.255", true);
        check("127.0.0.0/8", "128.0.0.0", false);
        check("127.0.0.0/8", "::1", false);
        check("127.0.0.0/8", "::ffff:127.0.0.1", true);
        check("192.0.2.7", "192.0.2.7", true);
        check("192.0.2.7", "192.0.2.6", false);
        check("192.0.2.128/25", "192.0.2.127", false);
        check("0.0.0.0/0", "255.255.255.255", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("::/0", "2001:db8::1", true);
        check("::/0", "10.0.0.1", false);
        check("2001:db8::/32", "2001:db8:ffff::", true);
        check("2001:db8::/32", "2001:db9::", false);
        check("::1", "::1", true);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0/8",
            "::/129",
            "localhost",
            "10.0.0.0/8/8",
            " ::1",
        ] {
            assert_eq!(Network::parse(text), Err(NetworkError::Syntax(text.to_owned())));
        }
        for text in ["10.0.0.1/8", "2001:db8::1/64"] {
            assert_eq!(Network::parse(text), Err(NetworkError::HostBits(text.to_owned())));
        }
        assert_eq!(Network::parse("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert!(Network::parse("0.0.0.0/0").unwrap().is_everybody() && !Network::parse("::1").unwrap().is_everybody());
    }
}
