//! Strict JSON for tokens: no duplicate names, no trailing bytes, bounded size and depth. `serde_json` reads, we refuse.

/// Why bytes are no acceptable JSON object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("not a JSON object")]
    Syntax,
    #[error("a name stands twice: `{0}`")]
    Duplicate(String),
    #[error("nested deeper than {0}")]
    TooDeep(usize),
    #[error("larger than {0} bytes")]
    TooLarge(usize),
}

/// A parsed JSON object. Member order is not kept.
pub type Object = serde_json::Map<String, serde_json::Value>;

/// Parses one JSON object strictly.
pub fn object(_bytes: &[u8], _bytes_max: usize) -> Result<Object, JsonError> {
    todo!()
}
