//! The normaliser itself: bytes in, normal form out, or the first reason to refuse. It knows nothing of rules.
use super::{PATH_BYTES_MAX, PathError, Tolerance};
use std::borrow::Cow;

/// What a byte may do in a path (RFC 3986 §3.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Never raw in a path.
    Forbidden,
    /// Letters, digits, `-` `_` `~`: the same raw and encoded.
    Unreserved,
    /// `.`: unreserved, and special alone.
    Dot,
    /// Delimiters allowed in a segment, `;` excepted: raw and encoded are two spellings.
    Delimiter,
    Slash,
}

const CLASSES: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut table = [Class::Forbidden; 256];
    let mut byte = 0u8;
    loop {
        #[expect(clippy::indexing_slicing, reason = "a u8 is always within 256 entries; evaluated at compile time")]
        {
            table[byte as usize] = match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => Class::Unreserved,
                b'.' => Class::Dot,
                b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' => Class::Delimiter,
                b'/' => Class::Slash,
                _ => Class::Forbidden,
            };
        }
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

fn class(byte: u8) -> Class {
    #[expect(clippy::indexing_slicing, reason = "a u8 is always within 256 entries")]
    CLASSES[usize::from(byte)]
}

/// Is this path surely in normal form, and equal to its reading? `false` only means that a closer look is needed.
pub(super) fn is_plain(path: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    // A dot next to a slash, or at the end, may be a dot segment or a trailing dot; `//` is an empty segment.
    let mut before = Class::Unreserved;
    for &byte in path {
        let now = class(byte);
        let suspicious = match now {
            Class::Forbidden => true,
            Class::Slash => matches!(before, Class::Slash | Class::Dot),
            Class::Dot => before == Class::Slash,
            Class::Unreserved | Class::Delimiter => false,
        };
        if suspicious {
            return false;
        }
        before = now;
    }
    before != Class::Dot
}

/// The normal form of `path`.
pub(super) fn normalise(path: &str, tolerance: Tolerance) -> Result<String, PathError> {
    let rest = path.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
    let mut out = String::with_capacity(path.len());
    let mut starts: Vec<usize> = Vec::new();
    let mut raw_segments = rest.split('/').peekable();
    while let Some(raw) = raw_segments.next() {
        let last = raw_segments.peek().is_none();
        let segment = normal_segment(raw, tolerance)?;
        match &*segment {
            "." => {}
            ".." => {
                let start = starts.pop().ok_or(PathError::AboveRoot)?;
                // Whether `..` removes an empty segment, or the one before it, depends on who merges slashes first.
                if out.get(start..) == Some("/") {
                    return Err(PathError::EmptySegment);
                }
                out.truncate(start);
            }
            "" if last => {}
            "" if !tolerance.empty_segments => return Err(PathError::EmptySegment),
            text => {
                starts.push(out.len());
                out.push('/');
                out.push_str(text);
                continue;
            }
        }
        if last {
            out.push('/');
        }
    }
    if out.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong(PATH_BYTES_MAX));
    }
    Ok(out)
}

/// One segment in normal form, with everything refused that a segment alone can show.
pub(super) fn normal_segment(raw: &str, tolerance: Tolerance) -> Result<Cow<'_, str>, PathError> {
    let segment = decoded_segment(raw, tolerance)?;
    if is_doubly_encoded(segment.as_bytes()) {
        return Err(PathError::DoubleEncoding);
    }
    let bare = without_parameters(&segment);
    if bare.len() != segment.len() && matches!(bare, "" | "." | "..") {
        return Err(PathError::PathParameter);
    }
    if segment.contains("%2F") && segment.split("%2F").any(|piece| matches!(without_parameters(piece), "." | "..")) {
        return Err(PathError::EncodedSeparator);
    }
    let trails = (bare.ends_with('.') && !matches!(bare, "." | "..")) || bare.ends_with("%20");
    if trails && !tolerance.trailing_dots {
        return Err(PathError::TrailingDot);
    }
    Ok(segment)
}

fn decoded_segment(raw: &str, tolerance: Tolerance) -> Result<Cow<'_, str>, PathError> {
    if raw.bytes().all(|byte| matches!(class(byte), Class::Unreserved | Class::Dot | Class::Delimiter)) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut out = String::with_capacity(raw.len());
    let mut high_bytes = Vec::new();
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            check_utf8(&mut high_bytes)?;
            check_raw(byte, tolerance)?;
            out.push(char::from(byte));
            continue;
        }
        let value = hex_pair(bytes.next(), bytes.next()).ok_or(PathError::BrokenEncoding)?;
        if value >= 0x80 {
            high_bytes.push(value);
        } else {
            check_utf8(&mut high_bytes)?;
            check_encoded(value, tolerance)?;
        }
        push_encoded(&mut out, value);
    }
    check_utf8(&mut high_bytes)?;
    Ok(Cow::Owned(out))
}

fn check_raw(byte: u8, tolerance: Tolerance) -> Result<(), PathError> {
    match byte {
        b'\\' => Err(PathError::Backslash),
        b';' if tolerance.path_parameters => Ok(()),
        b';' => Err(PathError::PathParameter),
        _ if class(byte) == Class::Forbidden => Err(PathError::ForbiddenByte),
        _ => Ok(()),
    }
}

fn check_encoded(value: u8, tolerance: Tolerance) -> Result<(), PathError> {
    match value {
        b'/' if tolerance.encoded_slash => Ok(()),
        b'/' | b'\\' | 0 => Err(PathError::EncodedSeparator),
        b';' if tolerance.path_parameters => Ok(()),
        b';' => Err(PathError::PathParameter),
        _ if value.is_ascii_control() => Err(PathError::EncodedControl),
        _ => Ok(()),
    }
}

/// A run of encoded bytes above 127 must be whole, shortest-form UTF-8; empties the run.
fn check_utf8(high_bytes: &mut Vec<u8>) -> Result<(), PathError> {
    if !high_bytes.is_empty() {
        std::str::from_utf8(high_bytes).map_err(|_| PathError::Utf8)?;
        high_bytes.clear();
    }
    Ok(())
}

pub(super) fn push_encoded(out: &mut String, value: u8) {
    if matches!(class(value), Class::Unreserved | Class::Dot) {
        out.push(char::from(value));
        return;
    }
    out.push('%');
    for nibble in [value >> 4, value & 15] {
        let digit = char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        out.push(digit.to_ascii_uppercase());
    }
}

fn hex_pair(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let high = char::from(high?).to_digit(16)?;
    let low = char::from(low?).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

/// `%25` followed by two hexadecimal digits: decoding twice would give something else than decoding once.
fn is_doubly_encoded(segment: &[u8]) -> bool {
    segment.windows(5).any(
        |window| matches!(window, [b'%', b'2', b'5', high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit()),
    )
}

fn without_parameters(segment: &str) -> &str {
    let plain = segment.find(';').unwrap_or(segment.len());
    let encoded = segment.find("%3B").unwrap_or(segment.len());
    segment.get(..plain.min(encoded)).unwrap_or(segment)
}

/// The reading of a path in normal form, or `None` if the two do not differ but for a trailing slash.
pub(super) fn reading(normal: &str) -> Option<String> {
    if !normal.contains(['%', ';']) && !normal.contains("//") {
        return None;
    }
    let mut out = String::with_capacity(normal.len());
    for segment in normal.split('/').filter(|segment| !segment.is_empty()) {
        out.push('/');
        out.push_str(&segment_reading(segment));
    }
    (out != normal).then_some(out)
}

/// One segment as a rule reads it: no parameters, encoded delimiters decoded.
pub(super) fn segment_reading(segment: &str) -> Cow<'_, str> {
    let segment = without_parameters(segment);
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut out = String::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(char::from(byte));
            continue;
        }
        match hex_pair(bytes.next(), bytes.next()) {
            Some(value) if class(value) == Class::Delimiter => out.push(char::from(value)),
            Some(value) => push_encoded(&mut out, value),
            // Normal form holds no broken encoding.
            None => out.push('%'),
        }
    }
    Cow::Owned(out)
}
