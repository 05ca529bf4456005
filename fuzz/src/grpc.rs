//! gRPC's framing and gRPC-Web's text.
use wire::grpc::{self, MessageMeter, TextDecoder};

/// First byte: into what pieces the rest is cut. However it is cut, the meter and the text say the same; what the meter
/// lets pass holds no message beyond its bound; and text that was read reads the same once written again.
pub fn grpc(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else { return };
    let cut = usize::from(*cut).max(1);
    let metered = |cut: usize| {
        let mut meter = MessageMeter::new(64);
        bytes.chunks(cut).all(|piece| meter.feed(piece).is_ok())
    };
    assert_eq!(metered(cut), metered(bytes.len().max(1)), "the cut changes what is too large");
    assert_eq!(metered(cut), longest(bytes) <= 64, "the meter miscounts");
    let decoded = |cut: usize| -> Option<Vec<u8>> {
        let mut decoder = TextDecoder::default();
        let pieces: Result<Vec<Vec<u8>>, _> = bytes.chunks(cut).map(|piece| decoder.feed(piece)).collect();
        decoder.end().ok()?;
        Some(pieces.ok()?.concat())
    };
    let whole = decoded(bytes.len().max(1));
    assert_eq!(decoded(cut), whole, "the cut changes what is read");
    if let Some(whole) = whole {
        let again = TextDecoder::default().feed(&grpc::text_encoded(&whole));
        assert_eq!(again, Ok(whole), "written and read again it is another");
    }
    if let Ok(value) = http::HeaderValue::from_bytes(bytes) {
        let headers = http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), value)]);
        assert!(grpc::timeout(&headers).is_err() || bytes.len() <= 9, "more than 8 digits and a unit");
    }
}

/// The largest length that the stream announces.
fn longest(mut stream: &[u8]) -> usize {
    let mut longest = 0;
    while let [_, a, b, c, d, rest @ ..] = stream {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        longest = longest.max(length);
        stream = rest.get(length..).unwrap_or_default();
    }
    longest
}
