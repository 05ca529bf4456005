//! Is this certificate an X.509-SVID leaf, and whose? The rules of the X509-SVID standard (§2 to §5) for the leaf alone, and
//! its SPIFFE ID. It verifies no signature, no chain and no time: the handshake does. Never trust an ID from here before it.
use crate::spiffe::{SpiffeId, SpiffeIdError};

/// Why a certificate is no X.509-SVID leaf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    #[error("the certificate is not readable as DER")]
    Malformed,
    #[error("the certificate carries an extension twice")]
    DoubledExtension,
    #[error("the certificate names no SPIFFE ID: it has no URI among its subject alternative names")]
    NoUri,
    #[error("the certificate has {0} URIs where an X.509-SVID has exactly one")]
    ManyUris(usize),
    #[error("the URI of the certificate is no SPIFFE ID: {0}")]
    Id(SpiffeIdError),
    #[error("the SPIFFE ID of the certificate has no path, and names a trust domain rather than a workload")]
    NoPath,
    #[error("the certificate is that of a certificate authority")]
    Authority,
    #[error("the key usage is missing or not critical, or lacks digitalSignature, or allows to sign certificates")]
    KeyUsage,
    #[error("the extended key usage does not name both client and server authentication")]
    ExtendedKeyUsage,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `version [0]` of a certificate.
const VERSION: u8 = 0xa0;
const OBJECT_ID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const EXTENSIONS: u8 = 0xa3;
/// `uniformResourceIdentifier [6]` of a GeneralName.
const URI: u8 = 0x86;

const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// Bits of the first byte of a key usage.
const DIGITAL_SIGNATURE: u8 = 0x80;
const SIGNS_CERTIFICATES: u8 = 0x04 | 0x02;

/// The SPIFFE ID of a leaf certificate in DER, if it is formed as an X.509-SVID leaf has to be.
pub fn leaf_id(certificate: &[u8]) -> Result<SpiffeId, SvidError> {
    let found = extensions(certificate)?;
    if let Some(constraints) = found.basic_constraints
        && Der(constraints).only(SEQUENCE)?.peek() == Some(BOOLEAN)
        && Der(constraints).only(SEQUENCE)?.take(BOOLEAN)?.0.iter().any(|byte| *byte != 0)
    {
        return Err(SvidError::Authority);
    }
    check_key_usage(found.key_usage)?;
    check_extended_key_usage(found.extended_key_usage)?;
    let mut names = Der(found.alternative_names.ok_or(SvidError::NoUri)?).only(SEQUENCE)?;
    let mut uris = Vec::new();
    while let Some((tag, name)) = names.next()? {
        if tag == URI {
            uris.push(name);
        }
    }
    let [uri] = uris.as_slice() else {
        return Err(if uris.is_empty() { SvidError::NoUri } else { SvidError::ManyUris(uris.len()) });
    };
    let text = std::str::from_utf8(uri).map_err(|_| SvidError::Id(SpiffeIdError::Path))?;
    let id = SpiffeId::parse(text).map_err(SvidError::Id)?;
    if id.path().is_empty() { Err(SvidError::NoPath) } else { Ok(id) }
}

/// When a certificate in DER ends, in Unix seconds (RFC 5280 §4.1.2.5).
pub fn not_after(certificate: &[u8]) -> Result<i64, SvidError> {
    let mut signed = Der(certificate).only(SEQUENCE)?.take(SEQUENCE)?;
    if signed.peek() == Some(VERSION) {
        signed.take(VERSION)?;
    }
    signed.take(INTEGER)?;
    // Signature algorithm and issuer.
    signed.take(SEQUENCE)?;
    signed.take(SEQUENCE)?;
    let mut validity = signed.take(SEQUENCE)?;
    validity.next()?;
    match validity.next()? {
        Some((UTC_TIME, text)) => {
            let (year, rest) = number(text, 2)?;
            moment(if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        Some((GENERALIZED_TIME, text)) => number(text, 4).and_then(|(year, rest)| moment(year, rest)),
        _ => Err(SvidError::Malformed),
    }
}

/// `MMDDHHMMSSZ` of this year: the one form that RFC 5280 leaves.
fn moment(year: i64, text: &[u8]) -> Result<i64, SvidError> {
    let (month, text) = number(text, 2)?;
    let (day, text) = number(text, 2)?;
    let (hour, text) = number(text, 2)?;
    let (minute, text) = number(text, 2)?;
    let (second, text) = number(text, 2)?;
    let is_real = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !is_real || text != b"Z" {
        return Err(SvidError::Malformed);
    }
    // Years begin in March here, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day;
    // From 0000-03-00 to 1970-01-01.
    Ok((days - 719_469) * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn number(text: &[u8], digits: usize) -> Result<(i64, &[u8]), SvidError> {
    let (found, rest) = text.split_at_checked(digits).ok_or(SvidError::Malformed)?;
    if !found.iter().all(u8::is_ascii_digit) {
        return Err(SvidError::Malformed);
    }
    Ok((found.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')), rest))
}

fn check_key_usage(usage: Option<(&[u8], bool)>) -> Result<(), SvidError> {
    let (value, critical) = usage.ok_or(SvidError::KeyUsage)?;
    // A bit string begins with the count of its unused bits.
    let bits = Der(value).only(BIT_STRING)?.0.get(1).copied().unwrap_or(0);
    let good = critical && bits & DIGITAL_SIGNATURE != 0 && bits & SIGNS_CERTIFICATES == 0;
    if good { Ok(()) } else { Err(SvidError::KeyUsage) }
}

fn check_extended_key_usage(usage: Option<&[u8]>) -> Result<(), SvidError> {
    let mut purposes = Der(usage.ok_or(SvidError::ExtendedKeyUsage)?).only(SEQUENCE)?;
    let (mut client, mut server) = (false, false);
    while let Some((tag, purpose)) = purposes.next()? {
        client |= tag == OBJECT_ID && purpose == CLIENT_AUTH;
        server |= tag == OBJECT_ID && purpose == SERVER_AUTH;
    }
    if client && server { Ok(()) } else { Err(SvidError::ExtendedKeyUsage) }
}

/// The extensions that matter, each the content of its octet string.
#[derive(Default)]
struct Extensions<'a> {
    /// And whether it is critical.
    key_usage: Option<(&'a [u8], bool)>,
    alternative_names: Option<&'a [u8]>,
    basic_constraints: Option<&'a [u8]>,
    extended_key_usage: Option<&'a [u8]>,
}

fn extensions(certificate: &[u8]) -> Result<Extensions<'_>, SvidError> {
    let mut whole = Der(certificate).only(SEQUENCE)?;
    let mut signed = whole.take(SEQUENCE)?;
    let mut found = Extensions::default();
    while let Some((tag, content)) = signed.next()? {
        if tag != EXTENSIONS {
            continue;
        }
        let mut list = Der(content).only(SEQUENCE)?;
        while let Some((tag, content)) = list.next()? {
            if tag != SEQUENCE {
                return Err(SvidError::Malformed);
            }
            found.note(Der(content))?;
        }
    }
    Ok(found)
}

impl<'a> Extensions<'a> {
    fn note(&mut self, mut extension: Der<'a>) -> Result<(), SvidError> {
        let id = extension.take(OBJECT_ID)?.0;
        let critical = extension.peek() == Some(BOOLEAN) && extension.take(BOOLEAN)?.0 != [0];
        let value = extension.take(OCTET_STRING)?.0;
        let before = match id {
            KEY_USAGE => self.key_usage.replace((value, critical)).map(|(value, _)| value),
            ALTERNATIVE_NAMES => self.alternative_names.replace(value),
            BASIC_CONSTRAINTS => self.basic_constraints.replace(value),
            EXTENDED_KEY_USAGE => self.extended_key_usage.replace(value),
            _ => None,
        };
        if before.is_some() { Err(SvidError::DoubledExtension) } else { Ok(()) }
    }
}

/// DER read from the front: one-byte tags and definite lengths, which is all that a certificate's outline has.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Tag and content of the next element; `None` at the end.
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, SvidError> {
        let Some((tag, rest)) = self.0.split_first() else { return Ok(None) };
        let (first, mut rest) = rest.split_first().ok_or(SvidError::Malformed)?;
        let mut length = usize::from(*first);
        if *first >= 0x80 {
            let digits = usize::from(*first & 0x7f);
            if !(1..=3).contains(&digits) {
                return Err(SvidError::Malformed);
            }
            let (length_bytes, after) = rest.split_at_checked(digits).ok_or(SvidError::Malformed)?;
            length = length_bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            // The shortest form is the only one.
            if length < 0x80 || length_bytes.first() == Some(&0) {
                return Err(SvidError::Malformed);
            }
            rest = after;
        }
        let (content, after) = rest.split_at_checked(length).ok_or(SvidError::Malformed)?;
        self.0 = after;
        Ok(Some((*tag, content)))
    }

    /// The next element, which has to have this tag.
    fn take(&mut self, tag: u8) -> Result<Der<'a>, SvidError> {
        match self.next()? {
            Some((found, content)) if found == tag => Ok(Der(content)),
            _ => Err(SvidError::Malformed),
        }
    }

    /// Like [`Der::take`], with nothing after it.
    fn only(mut self, tag: u8) -> Result<Der<'a>, SvidError> {
        let content = self.take(tag)?;
        if self.0.is_empty() { Ok(content) } else { Err(SvidError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
        SanType,
    };

    const ID: &str = "spiffe://acme.example/shop/orders";

    fn good(uris: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn der(params: &CertificateParams) -> Vec<u8> {
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn check(params: &CertificateParams, expected: Result<&str, SvidError>) {
        let found = leaf_id(&der(params));
        assert_eq!(found.as_ref().map(SpiffeId::as_str), expected.as_ref().copied());
    }

    fn changed(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        let mut params = good(&[ID]);
        change(&mut params);
        params
    }

    #[test]
    fn svid_a_leaf_names_one_workload() {
        check(&good(&[ID]), Ok(ID));
        check(&changed(|p| p.subject_alt_names.push(SanType::DnsName("orders.example".try_into().unwrap()))), Ok(ID));
        check(&changed(|p| p.is_ca = IsCa::ExplicitNoCa), Ok(ID));
    }

    #[test]
    fn svid_two_uris_none_and_the_wrong_ones_are_refused() {
        check(&good(&[ID, "spiffe://acme.example/other"]), Err(SvidError::ManyUris(2)));
        check(&good(&[ID, "https://acme.example/"]), Err(SvidError::ManyUris(2)));
        check(&good(&[ID, ID]), Err(SvidError::ManyUris(2)));
        check(&good(&[]), Err(SvidError::NoUri));
        check(
            &changed(|p| p.subject_alt_names = vec![SanType::DnsName("orders.example".try_into().unwrap())]),
            Err(SvidError::NoUri),
        );
        check(&good(&["https://acme.example/shop"]), Err(SvidError::Id(SpiffeIdError::Scheme)));
        check(&good(&["spiffe://Acme.example/shop"]), Err(SvidError::Id(SpiffeIdError::TrustDomain)));
        check(&good(&["spiffe://acme.example:443/shop"]), Err(SvidError::Id(SpiffeIdError::TrustDomain)));
        for path in ["/shop/", "//shop", "/./shop", "/../shop", "/shop?q", "/shop#f", "/%73hop"] {
            check(&good(&[&format!("spiffe://acme.example{path}")]), Err(SvidError::Id(SpiffeIdError::Path)));
        }
        check(&good(&["spiffe://acme.example"]), Err(SvidError::NoPath));
    }

    #[test]
    fn svid_a_leaf_signs_messages_and_no_certificates() {
        let usage = |usages: &[KeyUsagePurpose]| changed(|p| p.key_usages = usages.to_vec());
        check(&usage(&[]), Err(SvidError::KeyUsage));
        check(&usage(&[KeyUsagePurpose::KeyEncipherment]), Err(SvidError::KeyUsage));
        check(&usage(&[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign]), Err(SvidError::KeyUsage));
        check(&usage(&[KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign]), Err(SvidError::KeyUsage));
        check(&changed(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), Err(SvidError::Authority));
    }

    #[test]
    fn svid_a_key_usage_that_is_not_critical_is_refused() {
        let mut params = good(&[ID]);
        params.key_usages.clear();
        let bits = vec![BIT_STRING, 2, 7, DIGITAL_SIGNATURE];
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 15], bits)];
        check(&params, Err(SvidError::KeyUsage));
    }

    #[test]
    fn svid_a_leaf_is_for_clients_and_servers() {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let purposes = |purposes: &[ExtendedKeyUsagePurpose]| changed(|p| p.extended_key_usages = purposes.to_vec());
        check(&purposes(&[ServerAuth]), Err(SvidError::ExtendedKeyUsage));
        check(&purposes(&[ClientAuth]), Err(SvidError::ExtendedKeyUsage));
        check(&purposes(&[]), Err(SvidError::ExtendedKeyUsage));
    }

    #[test]
    fn svid_doubled_extensions_are_refused() {
        let mut params = good(&[ID]);
        let other = b"\x30\x08\x86\x06urn:ab".to_vec();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], other)];
        check(&params, Err(SvidError::DoubledExtension));
    }

    #[test]
    fn a_certificate_says_when_it_ends() {
        let check = |year, month, day, expected: i64| {
            let mut params = good(&[ID]);
            params.not_after = rcgen::date_time_ymd(year, month, day);
            assert_eq!(not_after(&der(&params)), Ok(expected), "{year}-{month}-{day}");
        };
        check(1970, 1, 1, 0);
        check(1999, 12, 31, 946_598_400);
        check(2000, 2, 29, 951_782_400);
        check(2000, 3, 1, 951_868_800);
        check(2026, 11, 22, 1_795_305_600);
        check(2049, 12, 31, 2_524_521_600);
        check(2050, 1, 1, 2_524_608_000);
        check(2100, 3, 1, 4_107_542_400);
        for text in
            [&b"1301010000Z"[..], b"01010000", b"0101240000Z", b"010100000Z", b"0101000000+0100", b"-101000000Z"]
        {
            assert_eq!(moment(2026, text), Err(SvidError::Malformed), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn svid_no_broken_certificate_is_read() {
        let whole = der(&good(&[ID]));
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), Err(SvidError::Malformed), "the first {length} bytes");
            assert_eq!(leaf_id(&whole[..length]), Err(SvidError::Malformed), "the first {length} bytes");
        }
        let long = [whole.as_slice(), b"\0"].concat();
        assert_eq!(leaf_id(&long), Err(SvidError::Malformed), "a byte too many");
        for bytes in [&b"\x30\x80\0\0"[..], b"\x30\x84\0\0\0\x01\0", b"\x30\x81\x01\0", b"\x30\x82\0\x80", b"\x31\0"] {
            assert_eq!(leaf_id(bytes), Err(SvidError::Malformed), "{bytes:x?}");
        }
    }

    #[test]
    fn svid_no_changed_byte_makes_another_valid_workload() {
        // The signature covers every byte; this only shows that nothing panics, whatever stands where.
        let whole = der(&good(&[ID]));
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            if let Ok(id) = leaf_id(&bytes) {
                assert_eq!(id.as_str(), ID, "byte {at}");
            }
        }
    }
}
