//! What gRPC says of requests, deadlines, lengths and trailers, case by case.
use super::*;
use proptest::prelude::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    pairs.iter().for_each(|(name, value)| _ = headers.append(*name, HeaderValue::from_static(value)));
    headers
}

#[test]
fn kinds_are_told_by_their_content_type() {
    let check = |value: &'static str, expected| {
        assert_eq!(kind(&headers(&[("content-type", value)])), expected, "{value}");
    };
    check("application/grpc", Some(Kind::Grpc));
    check("application/grpc+proto", Some(Kind::Grpc));
    check("Application/GRPC; x=y", Some(Kind::Grpc));
    check("application/grpc-web", Some(Kind::Web));
    check("application/grpc-web+proto", Some(Kind::Web));
    check("application/grpc-web-text", Some(Kind::WebText));
    check("application/grpc-web-text+proto", Some(Kind::WebText));
    for other in ["", "application/json", "application/grpcx", "application/grpc-webx", "text/grpc", "application/grp"]
    {
        check(other, None);
    }
    assert_eq!(kind(&HeaderMap::new()), None);
}

#[test]
fn a_content_type_changes_its_name_and_keeps_its_suffix() {
    let check = |of: &'static str, kind, expected: &str| {
        assert_eq!(content_type(&HeaderValue::from_static(of), kind).unwrap(), expected, "{of}");
    };
    check("application/grpc-web+proto", Kind::Grpc, "application/grpc+proto");
    check("application/grpc-web-text", Kind::Grpc, "application/grpc");
    check("application/grpc+json;a=b", Kind::Web, "application/grpc-web+json;a=b");
    check("application/grpc+proto", Kind::WebText, "application/grpc-web-text+proto");
}

#[test]
fn a_deadline_is_read_strictly() {
    let check = |values: &[&'static str], expected: Result<Option<Duration>, TimeoutError>| {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| _ = headers.append(GRPC_TIMEOUT, HeaderValue::from_static(value)));
        assert_eq!(timeout(&headers), expected, "{values:?}");
    };
    check(&[], Ok(None));
    check(&["1H"], Ok(Some(Duration::from_secs(3_600))));
    check(&["2M"], Ok(Some(Duration::from_secs(120))));
    check(&["3S"], Ok(Some(Duration::from_secs(3))));
    check(&["100m"], Ok(Some(Duration::from_millis(100))));
    check(&["7u"], Ok(Some(Duration::from_micros(7))));
    check(&["99999999n"], Ok(Some(Duration::from_nanos(99_999_999))));
    check(&["0S"], Ok(Some(Duration::ZERO)));
    for bad in ["", "S", "1", "123456789S", "1s", "-1S", "+1S", "1.5S", "1 S", "0x1S"] {
        check(&[bad], Err(TimeoutError));
    }
    check(&["1S", "1S"], Err(TimeoutError));
}

#[test]
fn refusals_speak_grpc() {
    let check = |http, had_deadline, expected| assert_eq!(status_of(http, had_deadline), expected, "{http}");
    check(401, false, 16);
    check(403, false, 7);
    check(404, false, 12);
    check(400, false, 13);
    check(413, false, 8);
    check(503, false, 14);
    check(504, false, 14);
    check(504, true, 4);
    check(500, false, 13);
    let mut fields = HeaderMap::new();
    assert_eq!(refuse(&mut fields, Kind::Web, 7, "100 % müde\r\nx: y"), 200);
    assert_eq!(fields["content-type"], "application/grpc-web");
    assert_eq!(fields["grpc-status"], "7");
    assert_eq!(fields["grpc-message"], "100 %25 m%C3%BCde%0D%0Ax: y");
}

fn message(length: u32) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.resize(5 + length as usize, b'x');
    bytes
}

#[test]
fn messages_are_bounded_and_streams_are_not() {
    let mut meter = MessageMeter::new(10);
    for _ in 0..1_000 {
        assert_eq!(meter.feed(&message(10)), Ok(()));
        assert_eq!(meter.feed(&message(0)), Ok(()));
    }
    assert_eq!(meter.feed(&message(11)), Err(TooLarge { bytes: 11, bytes_max: 10 }));
    let mut meter = MessageMeter::new(u64::from(u32::MAX) - 1);
    assert_eq!(meter.feed(&[0, 255, 255, 255]), Ok(()));
    assert!(meter.feed(&[255]).is_err(), "told with the last byte of the length");
}

#[test]
fn trailers_become_the_last_frame() {
    let trailers = headers(&[("grpc-status", "0"), ("x-a", "b")]);
    assert_eq!(web_trailers(&trailers), b"\x80\x00\x00\x00\x18grpc-status: 0\r\nx-a: b\r\n");
    assert_eq!(web_trailers(&HeaderMap::new()), b"\x80\x00\x00\x00\x00");
}

#[test]
fn text_is_read_with_padding_within_and_nothing_else() {
    let check = |text: &str, expected: Option<&[u8]>| {
        let mut decoder = TextDecoder::default();
        let got = decoder.feed(text.as_bytes()).and_then(|bytes| decoder.end().map(|()| bytes));
        assert_eq!(got.ok().as_deref(), expected, "{text}");
    };
    check("", Some(b""));
    check("Zm9v", Some(b"foo"));
    check("Zm8=", Some(b"fo"));
    check("Zg==", Some(b"f"));
    check("Zg==Zm8=Zm9v", Some(b"ffofoo"));
    for bad in ["Z", "Zg", "Zg=", "Zg=a", "Z===", "====", "=", "Zh==", "Zm9=", "Zm9v\n", "Zm-v", "Zm9vZ"] {
        check(bad, None);
    }
}

proptest! {
    #[test]
    fn any_cut_of_any_text_is_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..9) {
        let text = text_encoded(&bytes);
        let mut decoder = TextDecoder::default();
        let mut got = Vec::new();
        for piece in text.chunks(cut) {
            got.extend(decoder.feed(piece).unwrap());
        }
        decoder.end().unwrap();
        prop_assert_eq!(got, bytes);
    }

    #[test]
    fn any_cut_of_messages_is_the_same(lengths in proptest::collection::vec(0_u32..40, 0..20), cut in 1_usize..9) {
        let stream: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
        let expected = lengths.iter().all(|length| *length <= 30);
        let mut meter = MessageMeter::new(30);
        prop_assert_eq!(stream.chunks(cut).all(|piece| meter.feed(piece).is_ok()), expected);
    }
}
