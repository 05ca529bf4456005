//! The protobuf encoding, read and written field by field without a schema. The reader never goes into a field by itself, so
//! it cannot be led deeper than its caller asks, and it refuses groups, which no message here has.
use bytes::{BufMut as _, BytesMut};

const WIRE_VARINT: u8 = 0;
const WIRE_EIGHT: u8 = 1;
const WIRE_BYTES: u8 = 2;
const WIRE_FOUR: u8 = 5;

/// The bytes are no protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of one message, in the order they stand.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    /// Number and content of the next field.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0).ok_or(Malformed)?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Number(little_endian(self.take(8)?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Number(little_endian(self.take(4)?)),
            _ => return Err(Malformed),
        };
        Ok(Some((number, value)))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte, rest @ ..] = self.rest else { return Err(Malformed) };
            self.rest = rest;
            // The tenth byte has room for one bit.
            if shift == 63 && *byte > 1 {
                return Err(Malformed);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// One message being written. What has its default is the caller's to leave out.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) BytesMut);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Writer {
        Writer(BytesMut::with_capacity(bytes))
    }

    pub(crate) fn bytes(&mut self, number: u8, content: &[u8]) {
        self.tag(number, WIRE_BYTES);
        self.length(content.len());
        self.0.put_slice(content);
    }

    /// A message within this one.
    pub(crate) fn message(&mut self, number: u8, content: &Writer) {
        self.bytes(number, &content.0);
    }

    pub(crate) fn number(&mut self, number: u8, value: u64) {
        self.tag(number, WIRE_VARINT);
        self.varint(value);
    }

    pub(crate) fn fixed64(&mut self, number: u8, value: u64) {
        self.tag(number, WIRE_EIGHT);
        self.0.put_u64_le(value);
    }

    pub(crate) fn fixed32(&mut self, number: u8, value: u32) {
        self.tag(number, WIRE_FOUR);
        self.0.put_u32_le(value);
    }

    fn tag(&mut self, number: u8, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    fn length(&mut self, bytes: usize) {
        self.varint(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }
}
