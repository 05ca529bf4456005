//! The protobuf encoding, read field by field without a schema. It never goes into a field by itself, so it cannot be led
//! deeper than its caller asks, and it refuses groups, which no message here has.
use super::CheckError;

/// What a field holds. Numbers are passed over: none is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// The fields of one message, in the order they stand.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    /// Number and content of the next field.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, CheckError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0).ok_or(CheckError::Protobuf)?;
        let value = match tag & 7 {
            0 => {
                self.varint()?;
                Value::Number
            }
            1 => {
                self.take(8)?;
                Value::Number
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| CheckError::Protobuf)?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Number
            }
            _ => return Err(CheckError::Protobuf),
        };
        Ok(Some((number, value)))
    }

    fn varint(&mut self) -> Result<u64, CheckError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte, rest @ ..] = self.rest else { return Err(CheckError::Protobuf) };
            self.rest = rest;
            // The tenth byte has room for one bit.
            if shift == 63 && *byte > 1 {
                return Err(CheckError::Protobuf);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CheckError::Protobuf)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CheckError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CheckError::Protobuf)?;
        self.rest = rest;
        Ok(taken)
    }
}
