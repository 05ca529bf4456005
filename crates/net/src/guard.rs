//! Follows an HTTP/1 byte stream with a framing machine of its own and judges every request head and every chunk before
//! anything is made of it. Pure: bytes in, bytes passed on or a violation; how the bytes are split changes no verdict.
//! It never decodes a body and never buffers more than one head.
use crate::head::{Framing, Head, Violation, bad, field, has_control};

/// Room for one chunk-size line with its extensions, and for all extensions of one message.
const CHUNK_LINE_MAX: usize = 1024;
const CHUNK_EXTENSIONS_MAX: usize = 4096;
/// Blank lines tolerated before a request line (RFC 9112 §2.2).
const BLANK_LINES_MAX: usize = 4;

/// Limits of one request head, in bytes and fields; trailers have the same.
#[derive(Debug, Clone, Copy)]
pub struct GuardLimits {
    pub header_bytes_max: usize,
    pub header_fields_max: usize,
}

/// What was wrong, and whether a request had already been handed on when it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The head never went through: nothing of it reaches the service.
    Head { violation: Violation, head_method: bool },
    /// The head went through and its body's framing is broken.
    Body(&'static str),
}

/// Where the machine stands between two reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Between two messages.
    Between,
    InHead,
    InBody,
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    ChunkLine,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
    Stopped,
}

/// The framing machine of one connection.
#[derive(Debug)]
pub struct Machine {
    state: State,
    limits: GuardLimits,
    head: Head,
    /// The part of a head or of a chunk line that came before.
    held: Vec<u8>,
    /// Start of the line not judged yet, and how far it was searched, both from the start of the head.
    line_start: usize,
    searched: usize,
    blank_lines: usize,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailer_fields: usize,
    messages: u64,
}

impl Machine {
    pub fn new(limits: GuardLimits) -> Machine {
        Machine {
            state: State::Head,
            limits,
            head: Head::default(),
            held: Vec::new(),
            line_start: 0,
            searched: 0,
            blank_lines: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
            messages: 0,
        }
    }

    /// Heads handed on so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    pub fn position(&self) -> Position {
        match self.state {
            State::Head if self.held.is_empty() => Position::Between,
            State::Head => Position::InHead,
            State::Stopped => Position::Between,
            _ => Position::InBody,
        }
    }

    /// Bytes held back for the head or chunk line that is not whole yet.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Judges `input` and hands what is safe to `pass`, in order. After a fault the machine swallows everything.
    pub fn feed(&mut self, mut input: &[u8], pass: &mut impl FnMut(&[u8])) -> Result<(), Fault> {
        while !input.is_empty() {
            input = self.feed_message(input, pass)?;
        }
        Ok(())
    }

    /// The same up to the end of a message. Gives back what comes after it.
    pub fn feed_message<'a>(&mut self, mut input: &'a [u8], pass: &mut impl FnMut(&[u8])) -> Result<&'a [u8], Fault> {
        while !input.is_empty() {
            let result = match self.state {
                State::Head => self.feed_head(input, pass),
                State::Length(left) => Ok(self.feed_data(input, left, pass, |left| match left {
                    0 => State::Head,
                    left => State::Length(left),
                })),
                State::ChunkData(left) => Ok(self.feed_data(input, left, pass, |left| match left {
                    0 => State::ChunkEnd,
                    left => State::ChunkData(left),
                })),
                State::ChunkLine | State::ChunkEnd | State::Trailer => self.feed_line(input, pass).map_err(Fault::Body),
                State::Stopped => return Ok(&[]),
            };
            input = result.inspect_err(|_| self.state = State::Stopped)?;
            if matches!(self.state, State::Head) {
                break;
            }
        }
        Ok(input)
    }

    /// Between two messages: judges up to the end of a head. Gives back what comes after it.
    pub(crate) fn feed_to_body<'a>(
        &mut self,
        input: &'a [u8],
        pass: &mut impl FnMut(&[u8]),
    ) -> Result<&'a [u8], Fault> {
        if matches!(self.state, State::Stopped) {
            return Ok(&[]);
        }
        self.feed_head(input, pass).inspect_err(|_| self.state = State::Stopped)
    }

    /// How the body is delimited that a head announced.
    pub(crate) fn announced(&self) -> Framing {
        match self.state {
            State::Head | State::Stopped => Framing::None,
            State::Length(length) => Framing::Length(length),
            _ => Framing::Chunked,
        }
    }

    fn feed_data<'a>(
        &mut self,
        input: &'a [u8],
        left: u64,
        pass: &mut impl FnMut(&[u8]),
        next: fn(u64) -> State,
    ) -> &'a [u8] {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let (data, rest) = input.split_at(take);
        pass(data);
        self.state = next(left - u64::try_from(take).unwrap_or(left));
        rest
    }

    fn feed_head<'a>(&mut self, input: &'a [u8], pass: &mut impl FnMut(&[u8])) -> Result<&'a [u8], Fault> {
        if self.held.is_empty() {
            return match self.judge_head(input)? {
                Some(end) => {
                    let (head, rest) = input.split_at_checked(end).unwrap_or((input, &[]));
                    pass(head);
                    Ok(rest)
                }
                None => {
                    self.held.extend_from_slice(input);
                    Ok(&[])
                }
            };
        }
        let before = self.held.len();
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(input);
        match self.judge_head(&held)? {
            Some(end) => {
                pass(held.get(..end).unwrap_or(&held));
                Ok(input.get(end.saturating_sub(before)..).unwrap_or_default())
            }
            None => {
                self.held = held;
                Ok(&[])
            }
        }
    }

    /// Judges the lines of `bytes`, which starts where the head starts, from where it stopped last time. `Some(end)` when
    /// the head is whole and good.
    fn judge_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        loop {
            let found = bytes.get(self.searched..).and_then(|rest| memchr::memchr(b'\n', rest));
            let seen = found.map_or(bytes.len(), |at| self.searched + at + 1);
            if seen > self.limits.header_bytes_max {
                return Err(self.too_large());
            }
            self.searched = seen;
            if found.is_none() {
                return Ok(None);
            }
            let line = bytes.get(self.line_start..seen).unwrap_or_default();
            self.line_start = seen;
            if self.judge_line(line).map_err(|violation| self.head_fault(violation))? {
                return Ok(Some(seen));
            }
        }
    }

    /// `true` at the end of a good head.
    fn judge_line(&mut self, line: &[u8]) -> Result<bool, Violation> {
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err(bad("a bare line feed")) };
        if !line.is_empty() {
            self.head.line(line, self.limits.header_fields_max)?;
            return Ok(false);
        }
        if !self.head.has_request_line() {
            self.blank_lines += 1;
            return if self.blank_lines > BLANK_LINES_MAX { Err(bad("too many blank lines")) } else { Ok(false) };
        }
        let framing = self.head.end()?;
        self.state = match framing {
            Framing::None => State::Head,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkLine,
        };
        self.head = Head::default();
        self.line_start = 0;
        self.searched = 0;
        self.blank_lines = 0;
        self.extension_bytes = 0;
        self.trailer_bytes = 0;
        self.trailer_fields = 0;
        self.messages += 1;
        Ok(true)
    }

    fn too_large(&self) -> Fault {
        self.head_fault(if self.head.has_request_line() {
            Violation { status: 431, reason: "header fields too large" }
        } else {
            Violation { status: 414, reason: "request line too long" }
        })
    }

    fn head_fault(&self, violation: Violation) -> Fault {
        Fault::Head { violation, head_method: self.head.is_head_request() }
    }

    /// A chunk-size line, the end of a chunk, or a trailer line. Lines are short, so those that come in parts are held.
    fn feed_line<'a>(&mut self, input: &'a [u8], pass: &mut impl FnMut(&[u8])) -> Result<&'a [u8], &'static str> {
        let line_max = match self.state {
            State::ChunkEnd => 2,
            State::Trailer => self.limits.header_bytes_max,
            _ => CHUNK_LINE_MAX,
        };
        let line_end = memchr::memchr(b'\n', input);
        let take = line_end.map_or(input.len(), |at| at + 1);
        if self.held.len() + take > line_max {
            return Err(match self.state {
                State::ChunkEnd => "a chunk longer than its size",
                State::Trailer => "trailers too large",
                _ => "a chunk-size line too long",
            });
        }
        let (part, rest) = input.split_at_checked(take).unwrap_or((input, &[]));
        if line_end.is_none() {
            self.held.extend_from_slice(part);
            return Ok(&[]);
        }
        if self.held.is_empty() {
            self.judge_body_line(part)?;
            pass(part);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(part);
            self.judge_body_line(&held)?;
            pass(&held);
        }
        Ok(rest)
    }

    fn judge_body_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err("a bare line feed in the chunk framing") };
        self.state = match self.state {
            State::ChunkEnd if line.is_empty() => State::ChunkLine,
            State::ChunkEnd => return Err("a chunk longer than its size"),
            State::Trailer => return self.judge_trailer(line),
            _ => match self.chunk_size(line)? {
                0 => State::Trailer,
                size => State::ChunkData(size),
            },
        };
        Ok(())
    }

    fn judge_trailer(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if line.is_empty() {
            self.state = State::Head;
            return Ok(());
        }
        self.trailer_bytes += line.len();
        self.trailer_fields += 1;
        if self.trailer_bytes > self.limits.header_bytes_max || self.trailer_fields > self.limits.header_fields_max {
            return Err("trailers too large");
        }
        field(line).map(|_| ()).map_err(|violation| violation.reason)
    }

    /// RFC 9112 §7.1: `chunk-size [ chunk-ext ]`.
    fn chunk_size(&mut self, line: &[u8]) -> Result<u64, &'static str> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at(digits);
        // Sixteen digits fill 64 bits; fifteen keep every later sum from overflowing.
        if digits.is_empty() || digits.len() > 15 {
            return Err("a chunk size that is no number or too large");
        }
        let after_space = extension.trim_ascii_start();
        if !after_space.is_empty() && after_space.first() != Some(&b';')
            || after_space.is_empty() && !extension.is_empty()
        {
            return Err("a chunk size with something after it");
        }
        if has_control(extension) {
            return Err("a control character in a chunk extension");
        }
        self.extension_bytes += extension.len();
        if self.extension_bytes > CHUNK_EXTENSIONS_MAX {
            return Err("too many chunk extensions");
        }
        Ok(digits.iter().fold(0, |size, &digit| size << 4 | u64::from(hex(digit))))
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests;
