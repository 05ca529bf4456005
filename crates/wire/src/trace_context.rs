//! W3C Trace Context, `traceparent` (Recommendation of 2021, §3.2): which trace a request is a part of. Syntax only: whether a
//! caller is believed is not decided here.
use http::{HeaderMap, HeaderName};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const SAMPLED: u8 = 1;
const TEXT_BYTES: usize = 55;

/// Neither id is all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// Whoever began the trace records it.
    pub sampled: bool,
}

impl TraceParent {
    /// The one valid `traceparent` of these fields.
    pub fn of(headers: &HeaderMap) -> Option<TraceParent> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        TraceParent::parse(value.as_bytes())
    }

    /// `version-traceid-parentid-flags`, in lower-case hexadecimal digits. A later version may have more behind it.
    pub fn parse(text: &[u8]) -> Option<TraceParent> {
        let (known, more) = text.split_at_checked(TEXT_BYTES)?;
        let (version, rest) = field::<1>(known)?;
        let (trace_id, rest) = field::<16>(rest.strip_prefix(b"-")?)?;
        let (span_id, rest) = field::<8>(rest.strip_prefix(b"-")?)?;
        let ([flags], _) = field::<1>(rest.strip_prefix(b"-")?)?;
        let fits = match version {
            [0] => more.is_empty(),
            [0xff] => false,
            _ => more.is_empty() || more.starts_with(b"-"),
        };
        let is_valid = fits && trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(TraceParent { trace_id, span_id, sampled: flags & SAMPLED != 0 })
    }

    /// As the field's value.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(TEXT_BYTES);
        text.push_str("00-");
        push_hex(&mut text, &self.trace_id);
        text.push('-');
        push_hex(&mut text, &self.span_id);
        text.push_str(if self.sampled { "-01" } else { "-00" });
        text
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).map_or('0', |digit| char::from(*digit));
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
}

fn field<const BYTES: usize>(text: &[u8]) -> Option<([u8; BYTES], &[u8])> {
    let (digits, rest) = text.split_at_checked(BYTES * 2)?;
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            *byte = *byte << 4 | nibble(*digit)?;
        }
    }
    Some((bytes, rest))
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn check(text: &str, expected: Option<&str>) {
        let found = TraceParent::parse(text.as_bytes()).map(|parent| parent.text());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn only_what_the_recommendation_calls_valid_is_read() {
        check(GOOD, Some(GOOD));
        check("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", Some(&GOOD.replace("-01", "-00")));
        // A later version: what is known of it is read, and passed on as version 00 without flags that nobody knows.
        check("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03", Some(GOOD));
        check("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes", Some(GOOD));
        for bad in [
            "",
            "00",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
            " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(TraceParent::of(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(TraceParent::of(&headers).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool, noise: Vec<u8>) {
            let parent = TraceParent { trace_id, span_id, sampled };
            let read = TraceParent::parse(parent.text().as_bytes());
            let is_valid = trace_id != [0; 16] && span_id != [0; 8];
            prop_assert_eq!(read, is_valid.then_some(parent));
            let _ = TraceParent::parse(&noise);
        }
    }
}
