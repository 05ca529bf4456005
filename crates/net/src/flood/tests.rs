//! Budgets of the frame meter, each fed whole and byte by byte.
use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    bytes.extend_from_slice(payload);
    bytes
}

fn feed(frames: &[u8], count: usize, now_ms: u64) -> Result<(), &'static str> {
    let bytes = [PREFACE, &frames.repeat(count)].concat();
    let whole = FrameMeter::new().feed(&bytes, now_ms);
    let mut meter = FrameMeter::new();
    let single = bytes.chunks(1).try_for_each(|byte| meter.feed(byte, now_ms));
    assert_eq!(whole, single);
    whole
}

#[test]
fn a3_floods_have_names() {
    let check = |frames: &[u8], flood: &'static str| {
        assert_eq!(feed(frames, 900, 0), Ok(()), "{flood}");
        assert_eq!(feed(frames, 1_100, 0), Err(flood));
    };
    check(&frame(SETTINGS, 0, &[]), "SETTINGS flood");
    check(&frame(PING, 0, &[0; 8]), "PING flood");
    check(&frame(PRIORITY, 0, &[0; 5]), "PRIORITY flood");
    check(&frame(DATA, 0, &[]), "empty DATA flood");
    check(&frame(HEADERS, 0, &[]), "empty HEADERS flood");
    check(&[frame(HEADERS, 5, b"x"), frame(RST_STREAM, 0, &[0; 4])].concat(), "reset flood");
    assert_eq!(feed(&frame(CONTINUATION, 0, b"x"), 33, 0), Err("CONTINUATION flood"));
}

#[test]
fn honest_traffic_is_never_a_flood() {
    let request = frame(HEADERS, 5, b"xx");
    let download = [frame(DATA, 0, &[1; 100]), frame(PING, 0, &[0; 8])].concat();
    let mut meter = FrameMeter::new();
    meter.feed(PREFACE, 0).unwrap();
    for _ in 0..100_000 {
        meter.feed(&request, 0).unwrap();
        meter.feed(&download, 0).unwrap();
        meter.feed(&frame(8, 0, &[0, 0, 1, 0]), 0).unwrap();
    }
    // One ping every ten milliseconds, for a long time.
    for now in 0..20_000u64 {
        meter.feed(&frame(PING, 0, &[0; 8]), now * 10).unwrap();
    }
}
