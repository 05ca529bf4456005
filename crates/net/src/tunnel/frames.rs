//! Follows WebSocket frames (RFC 6455 §5.2) as they pass towards a client, only to know where one ends. It holds no payload
//! and changes no byte; what is no WebSocket leaves it somewhere within a frame, and harms nobody.

#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; 14],
    have: usize,
    payload_left: u64,
    closed: bool,
}

const OPCODE_CLOSE: u8 = 8;

impl Frames {
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let skip = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
                self.payload_left -= u64::try_from(skip).unwrap_or(0);
                bytes = bytes.get(skip..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.head.get_mut(self.have) {
                *place = byte;
            }
            self.have += 1;
            bytes = rest;
            if let Some(length) = self.payload_length() {
                self.closed |= self.head[0] & 0x0f == OPCODE_CLOSE;
                self.payload_left = length;
                self.have = 0;
            }
        }
    }

    /// Known once the frame's head is whole.
    fn payload_length(&self) -> Option<u64> {
        let [_, second, extended @ ..] = &self.head;
        let mask_bytes = if second & 0x80 != 0 { 4 } else { 0 };
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.have < 2 || self.have < 2 + length_bytes + mask_bytes {
            return None;
        }
        if length_bytes == 0 {
            return Some(u64::from(second & 0x7f));
        }
        Some(extended.iter().take(length_bytes).fold(0, |length, byte| length << 8 | u64::from(*byte)))
    }

    /// Between two frames, and the sender has not said its last word: a Close of ours would be understood.
    pub(super) fn is_close_due(&self) -> bool {
        self.have == 0 && self.payload_left == 0 && !self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Split at every place, the answer is the same.
    fn check(bytes: &[u8], expected: bool) {
        for split in 0..=bytes.len() {
            let mut frames = Frames::default();
            let (first, second) = bytes.split_at(split);
            frames.pass(first);
            frames.pass(second);
            assert_eq!(frames.is_close_due(), expected, "{} at {split}", bytes.escape_ascii());
        }
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(u8::try_from(length).unwrap()),
            length @ 126..=65_535 => {
                frame.push(126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn a_close_is_due_between_two_frames_only() {
        check(b"", true);
        check(&frame(0x81, b"hello"), true);
        check(&frame(0x81, b""), true);
        check(&frame(0x82, &[7; 126]), true);
        check(&frame(0x82, &[7; 300])[..200], false);
        check(&[frame(0x01, b"a"), frame(0x89, b"ping"), frame(0x80, b"b")].concat(), true);
        check(b"\x81", false);
        check(b"\x81\x7e\x01", false);
        check(b"\x81\x85\x01\x02\x03\x04hello", true);
        check(b"\x81\x85\x01\x02\x03\x04hell", false);
    }

    #[test]
    fn after_a_close_there_is_no_second_one() {
        check(&frame(0x88, b"\x03\xe8"), false);
        check(&[frame(0x81, b"x"), frame(0x88, b"")].concat(), false);
    }

    #[test]
    fn the_longest_lengths_overflow_nothing() {
        check(b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xffabc", false);
        let mut large = Frames::default();
        let bytes = frame(0x82, &vec![1; 70_000]);
        bytes.chunks(1000).for_each(|part| large.pass(part));
        assert!(large.is_close_due());
    }
}
