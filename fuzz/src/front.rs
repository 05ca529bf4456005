//! What stands before or beside a request to tell whose it is: PROXY protocol headers and forwarding fields.
use wire::forwarded::{self, Field};
use wire::proxy_protocol::{self, HEADER_BYTES_MAX, Header, Version};

/// A header is within its bounds, reads the same with anything behind it, and does not end earlier; an address that was
/// read can be written and read again. Of forwarding fields no text makes the reader fail.
pub fn front(input: &[u8]) {
    if let Ok(Some((header, length))) = proxy_protocol::read(input) {
        assert!(length <= input.len() && length <= HEADER_BYTES_MAX);
        let (own, rest) = input.split_at(length);
        assert_eq!(proxy_protocol::read(own), Ok(Some((header, length))), "what follows changes it");
        for end in 0..own.len() {
            assert_eq!(proxy_protocol::read(own.get(..end).unwrap_or(rest)), Ok(None), "it ends twice");
        }
        if let Header::Proxied { source, destination } = header {
            let again = proxy_protocol::encode(Version::V2, source, destination);
            assert!(matches!(proxy_protocol::read(&again), Ok(Some((Header::Proxied { .. }, _)))));
        }
    }
    let Ok(value) = http::HeaderValue::from_bytes(input) else { return };
    for (name, field) in [("x-forwarded-for", Field::XForwardedFor), ("forwarded", Field::Forwarded)] {
        let headers = http::HeaderMap::from_iter([(http::HeaderName::from_static(name), value.clone())]);
        let nobody = forwarded::caller(&headers, field, |_| false);
        let everybody = forwarded::caller(&headers, field, |_| true);
        assert!(nobody.is_ok() || everybody.is_err(), "who trusts nobody reads the least");
    }
}
