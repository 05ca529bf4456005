//! Bodies in chunks, good and bad, however they are split.
use super::*;
use proptest::prelude::*;

/// Everything that `input` holds, fed in parts of `step` bytes: its data, whether it ended, and how much comes after that.
fn decode(input: &[u8], step: usize) -> Result<(Vec<u8>, bool, usize), &'static str> {
    let mut decoder = Decoder::default();
    let (mut data, mut after) = (Vec::new(), 0);
    for part in input.chunks(step) {
        let (found, rest) = decoder.take(&Bytes::copy_from_slice(part))?;
        data.extend_from_slice(&found);
        after += rest.len();
    }
    Ok((data, decoder.has_ended(), after))
}

/// However it is split.
fn check(input: &str, expected: Result<(&str, usize), &str>) {
    for step in [1, 2, 3, 7, 4096] {
        let found = decode(input.as_bytes(), step);
        let found = found.as_ref().map(|(data, has_ended, after)| {
            assert!(has_ended, "{input:?} by {step} has no end");
            (std::str::from_utf8(data).unwrap(), *after)
        });
        assert_eq!(found.map_err(|error| *error), expected, "{input:?} by {step}");
    }
}

#[test]
fn good_bodies() {
    check("0\r\n\r\n", Ok(("", 0)));
    check("2\r\nok\r\n0\r\n\r\n", Ok(("ok", 0)));
    check("2\r\nok\r\n000\r\n\r\n", Ok(("ok", 0)));
    check("A;x=\"y\"\r\n0123456789\r\n1 \r\n!\r\n0\r\n\r\n", Ok(("0123456789!", 0)));
    check("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\nevil", Ok(("ok", 4)));
}

#[test]
fn bad_bodies() {
    check("\r\n", Err("a chunk size that is no number or too large"));
    check("x\r\n", Err("a chunk size that is no number or too large"));
    check("-1\r\n", Err("a chunk size that is no number or too large"));
    check("1234567890123456\r\n", Err("a chunk size that is no number or too large"));
    check("2 x\r\nok\r\n", Err("a chunk size with something after it"));
    check("2;\u{1}\r\nok\r\n", Err("a chunk size with something after it"));
    check("2\nok\r\n0\r\n\r\n", Err("a bare line feed in the chunk framing"));
    check("2\r\nok!\r\n0\r\n\r\n", Err("a chunk longer than its size"));
    check("0\r\nno colon\r\n\r\n", Err("a header field without a colon"));
    check("0\r\n folded: x\r\n\r\n", Err("a folded header field"));
    check(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(1000)), Err("trailers too large"));
    check(&format!("1;{}", "x".repeat(5000)), Err("a line of the chunk framing is too long"));
    check(&format!("1;{}\r\n!\r\n", "x".repeat(900)).repeat(9), Err("too many chunk extensions"));
}

#[test]
fn trailers_that_frame_or_authenticate_do_not_go_out() {
    let mut trailers = HeaderMap::new();
    for name in ["x-sum", "content-length", "transfer-encoding", "authorization", "host", "grpc-status"] {
        trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
    }
    let mut out = Vec::new();
    encode_end(Some(&trailers), &mut out);
    assert_eq!(out, b"0\r\nx-sum: 1\r\ngrpc-status: 1\r\n\r\n");
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8), step in 1usize..64) {
        let mut out = Vec::new();
        for frame in &frames {
            encode(frame, &mut out);
        }
        encode_end(None, &mut out);
        let (data, has_ended, after) = decode(&out, step).unwrap();
        prop_assert_eq!(data, frames.concat());
        prop_assert_eq!((has_ended, after), (true, 0));
    }
}
