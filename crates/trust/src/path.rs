//! One path normaliser and one path pattern for edge, sidecar and rules: the bytes decided on are the bytes forwarded.

/// A path that was normalised once. Rules match it, and it is what the upstream gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath {
    _private: (),
}

/// What a service lets through that is refused by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tolerance {
    pub encoded_slash: bool,
    pub path_parameters: bool,
    pub empty_segments: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("a path starts with `/`")]
    NotAbsolute,
    #[error("an encoded slash, backslash or NUL")]
    EncodedSeparator,
    #[error("a `;` path parameter")]
    PathParameter,
    #[error("an empty segment (`//`)")]
    EmptySegment,
    #[error("a backslash")]
    Backslash,
    #[error("a byte that must be percent-encoded")]
    ForbiddenByte,
    #[error("a broken percent-encoding")]
    BrokenEncoding,
    #[error("a double percent-encoding")]
    DoubleEncoding,
    #[error("invalid or overlong UTF-8")]
    Utf8,
    #[error("more than {0} bytes")]
    TooLong(usize),
}

impl NormalPath {
    /// `path` without query. Refuses rather than guesses (WIRE §4).
    pub fn parse(_path: &str, _tolerance: Tolerance) -> Result<NormalPath, PathError> {
        todo!()
    }
    /// The bytes to match and to forward.
    pub fn as_str(&self) -> &str {
        todo!()
    }
}

/// `/orders/*/refund`, `/orders/**`: `*` one segment, `**` any number, only as the last segment; else literal segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    _private: (),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern starts with `/`")]
    NotAbsolute,
    #[error("`**` may only be the last segment")]
    DeepNotLast,
    #[error("`{0}` mixes a wildcard with text in one segment")]
    Mixed(String),
    #[error("{0}")]
    Path(PathError),
}

impl Pattern {
    pub fn parse(_text: &str) -> Result<Pattern, PatternError> {
        todo!()
    }
    pub fn matches(&self, _path: &NormalPath) -> bool {
        todo!()
    }
    pub fn as_str(&self) -> &str {
        todo!()
    }
}
