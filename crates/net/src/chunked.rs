//! The chunked transfer coding (RFC 9112 §7.1): what an upstream sent is taken apart, what we send is put together. Pure:
//! how the bytes are split changes nothing. It never holds data, only the part of a line that came before.
use crate::head::{field, has_control};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Room for one chunk-size line with its extensions, and for all extensions of one message.
const LINE_BYTES_MAX: usize = 1024;
const EXTENSION_BYTES_MAX: usize = 4096;
const TRAILER_BYTES_MAX: usize = 64 * 1024;
const TRAILER_FIELDS_MAX: usize = 256;

/// A part of the input, in the order it came.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Data(&'a [u8]),
    /// The last chunk and its trailers went by.
    End,
    /// All of the input was taken, and more has to come.
    More,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Size,
    Data(u64),
    AfterData,
    Trailer,
    Ended,
}

/// Takes one body apart.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    held: Vec<u8>,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailers: HeaderMap,
}

impl Decoder {
    /// Did the last chunk and its trailers go by?
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The next part of `input`, and what comes after it. `Err` says what is wrong; ask no more then.
    fn next<'a>(&mut self, mut input: &'a [u8]) -> Result<(Part<'a>, &'a [u8]), &'static str> {
        loop {
            if let State::Data(left) = self.state {
                if input.is_empty() {
                    return Ok((Part::More, input));
                }
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let (data, rest) = input.split_at(take);
                self.state = match left.saturating_sub(u64::try_from(take).unwrap_or(left)) {
                    0 => State::AfterData,
                    left => State::Data(left),
                };
                return Ok((Part::Data(data), rest));
            }
            if self.has_ended() {
                return Ok((Part::More, input));
            }
            let Some(end) = memchr::memchr(b'\n', input) else {
                self.hold(input)?;
                return Ok((Part::More, &[]));
            };
            let (line, rest) = input.split_at_checked(end + 1).unwrap_or((input, &[]));
            input = rest;
            if self.held.is_empty() {
                self.fits(line)?;
                self.line(line)?;
            } else {
                self.hold(line)?;
                let held = std::mem::take(&mut self.held);
                self.line(&held)?;
            }
            if self.has_ended() {
                return Ok((Part::End, input));
            }
        }
    }

    /// All data within `input`, and what comes after the body's end. One chunk is not copied.
    pub fn take(&mut self, input: &Bytes) -> Result<(Bytes, Bytes), &'static str> {
        let (mut one, mut several) = (Bytes::new(), BytesMut::new());
        let mut rest: &[u8] = input;
        loop {
            let (part, after) = self.next(rest)?;
            rest = after;
            match part {
                Part::Data(data) if one.is_empty() && several.is_empty() => one = input.slice_ref(data),
                Part::Data(data) => {
                    if several.is_empty() {
                        several.reserve(input.len());
                        several.extend_from_slice(&std::mem::take(&mut one));
                    }
                    several.extend_from_slice(data);
                }
                Part::End | Part::More => break,
            }
        }
        Ok((if several.is_empty() { one } else { several.freeze() }, input.slice_ref(rest)))
    }

    /// Those that came at the end, once.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        Some(std::mem::take(&mut self.trailers)).filter(|trailers| self.has_ended() && !trailers.is_empty())
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), &'static str> {
        self.fits(part)?;
        self.held.extend_from_slice(part);
        Ok(())
    }

    fn fits(&self, part: &[u8]) -> Result<(), &'static str> {
        let bytes_max = if matches!(self.state, State::Trailer) { TRAILER_BYTES_MAX } else { LINE_BYTES_MAX };
        if self.held.len() + part.len() > bytes_max {
            return Err("a line of the chunk framing is too long");
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err("a bare line feed in the chunk framing") };
        self.state = match self.state {
            State::AfterData if line.is_empty() => State::Size,
            State::AfterData => return Err("a chunk longer than its size"),
            State::Trailer if line.is_empty() => State::Ended,
            State::Trailer => return self.trailer(line),
            _ => match self.size(line)? {
                0 => State::Trailer,
                size => State::Data(size),
            },
        };
        Ok(())
    }

    /// `chunk-size [ chunk-ext ]`
    fn size(&mut self, line: &[u8]) -> Result<u64, &'static str> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at(digits);
        // Sixteen digits fill 64 bits; fifteen keep every later sum from overflowing.
        if digits.is_empty() || digits.len() > 15 {
            return Err("a chunk size that is no number or too large");
        }
        let extension = extension.trim_ascii_start();
        if !extension.is_empty() && extension.first() != Some(&b';') || has_control(extension) {
            return Err("a chunk size with something after it");
        }
        self.extension_bytes += extension.len();
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err("too many chunk extensions");
        }
        let value = |digit: &u8| char::from(*digit).to_digit(16).map_or(0, u64::from);
        Ok(digits.iter().fold(0, |size, digit| size << 4 | value(digit)))
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), &'static str> {
        self.trailer_bytes += line.len();
        if self.trailer_bytes > TRAILER_BYTES_MAX || self.trailers.len() >= TRAILER_FIELDS_MAX {
            return Err("trailers too large");
        }
        let (name, value) = field(line).map_err(|violation| violation.reason)?;
        let name = HeaderName::from_bytes(name).map_err(|_| "a trailer's name is malformed")?;
        let value = HeaderValue::from_bytes(value.trim_ascii()).map_err(|_| "a trailer's value is malformed")?;
        self.trailers.append(name, value);
        Ok(())
    }
}

/// Puts one chunk around `data`, which must not be empty: that would end the body.
pub(crate) fn encode(data: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut shift = usize::BITS.saturating_sub(data.len().leading_zeros()).div_ceil(4) * 4;
    while shift > 0 {
        shift -= 4;
        out.push(DIGITS.get(data.len() >> shift & 15).copied().unwrap_or(b'0'));
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The last chunk, with those of `trailers` that may stand there.
pub(crate) fn encode_end(trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| is_trailer(name)) {
        write_field(name, value, out);
    }
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn write_field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn write_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(length.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// RFC 9110 §6.5.1: no field that frames, routes, authenticates or describes the content comes after it.
fn is_trailer(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 14] = [
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::HOST,
        header::MAX_FORWARDS,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
    ];
    !NEVER.contains(name)
}

#[cfg(test)]
mod tests;
