//! Any bytes as an upstream's answer over HTTP/1.1.
use bytes::Bytes;
use net::answer::{Framing, Heads};

/// How an answer is split changes nothing: not its status, nor its fields, nor its body, nor why it is none.
pub fn h1_answer(input: &[u8]) {
    let [split, is_head, bytes @ ..] = input else { return };
    let is_head = is_head & 1 == 1;
    let whole = read(std::iter::once(bytes), is_head);
    assert_eq!(whole, read(bytes.chunks(usize::from(*split).max(1)), is_head), "pieces of {split}");
    assert_eq!(whole, read(bytes.chunks(1), is_head), "single bytes");
}

/// Status, fields, and the body as far as it came; or what is wrong.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, is_head: bool) -> Result<(String, Vec<u8>), &'static str> {
    let mut heads = Heads::new(is_head);
    let mut found = None;
    let mut body = Vec::new();
    for piece in pieces {
        let bytes = match &found {
            Some(_) => Bytes::copy_from_slice(piece),
            None => match heads.take(piece)? {
                None => continue,
                Some(head) => {
                    let shown = format!("{} {:?} {}", head.status, head.headers, head.keeps);
                    found = Some((shown, head.framing));
                    head.rest
                }
            },
        };
        match found.as_mut().map(|(_, framing)| framing) {
            None => {}
            Some(Framing::Close) => body.extend_from_slice(&bytes),
            Some(Framing::Length(left)) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= u64::try_from(take).unwrap_or(0);
                body.extend_from_slice(bytes.get(..take).unwrap_or_default());
            }
            Some(Framing::Chunked(decoder)) => {
                let (data, rest) = decoder.take(&bytes)?;
                assert!(rest.is_empty() || decoder.has_ended(), "bytes are left of a body that goes on");
                body.extend_from_slice(&data);
            }
        }
    }
    Ok((found.map_or_else(String::new, |(shown, _)| shown), body))
}
