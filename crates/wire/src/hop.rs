//! `Countersign-Hop` (WIRE §2): an RFC 9651 dictionary, parsed strictly.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    pub depth: u8,
    pub hid: [u8; 16],
    pub prv: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    #[error("not an RFC 9651 dictionary")]
    Syntax,
    #[error("member `{0}` is missing or of the wrong type")]
    Member(&'static str),
    #[error("an unknown member")]
    Unknown,
    #[error("deeper than 16 hops")]
    TooDeep,
}

impl Hop {
    pub fn parse(_field: &str) -> Result<Hop, HopError> {
        todo!()
    }
    pub fn to_field(&self) -> String {
        todo!()
    }
}
