//! One path normaliser and one path pattern for edge, sidecar and rules: the bytes decided on are the bytes forwarded.
//!
//! Two forms of one path. The *normal* form ([`NormalPath::as_str`]) is forwarded: dot segments removed (RFC 3986
//! §5.2.4), percent-encoded unreserved characters decoded, hexadecimal digits in upper case (§6.2.2). The *reading*
//! ([`NormalPath::segments`]) is what rules match: the segments an upstream may understand, so that no spelling of a
//! path slips past a rule. It differs from the normal form only in this: a trailing slash counts for nothing,
//! percent-encoded delimiters (`%3A`, `%21` …) read as the delimiters themselves, and, where a service tolerates them,
//! path parameters and empty segments are left out.
//!
//! It never guesses: what two programs may read in two ways is refused. Matching is case-sensitive.
mod normal;
mod pattern;
#[cfg(test)]
mod tests;

pub use pattern::{Pattern, PatternError, Segment};

/// Longest path accepted, in bytes, before and after normalisation.
pub const PATH_BYTES_MAX: usize = 8 * 1024;

/// A path that was normalised once. Rules match it, and it is what the upstream gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath {
    text: Box<str>,
    /// Only where it differs from `text` in more than a trailing slash.
    reading: Option<Box<str>>,
}

/// What a service lets through that is refused by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// `%2F` stays inside its segment, as data. (`%5C` and `%00` are refused all the same.)
    pub encoded_slash: bool,
    /// `;x=y` is forwarded, and read as if it were not there.
    pub path_parameters: bool,
    /// `//` is forwarded, and read as one slash.
    pub empty_segments: bool,
    /// A segment may end with a dot or a space, which some upstreams (IIS, anything over Windows file names) drop.
    pub trailing_dots: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("a path starts with `/`")]
    NotAbsolute,
    #[error("`..` climbs above the root")]
    AboveRoot,
    #[error("an encoded slash, backslash or NUL")]
    EncodedSeparator,
    #[error("an encoded control character")]
    EncodedControl,
    #[error("a `;` path parameter")]
    PathParameter,
    #[error("an empty segment (`//`)")]
    EmptySegment,
    #[error("a segment that ends with a dot or a space")]
    TrailingDot,
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
    /// `path` without query. Refuses rather than guesses (WIRE §4). A path that is already in normal form, as nearly all
    /// are, costs one pass and one allocation.
    pub fn parse(path: &str, tolerance: Tolerance) -> Result<NormalPath, PathError> {
        if path.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong(PATH_BYTES_MAX));
        }
        if normal::is_plain(path.as_bytes()) {
            return Ok(NormalPath { text: path.into(), reading: None });
        }
        let text = normal::normalise(path, tolerance)?;
        let reading = normal::reading(&text).map(String::into_boxed_str);
        Ok(NormalPath { text: text.into_boxed_str(), reading })
    }

    /// The bytes to forward.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The segments rules match: none is empty, the root has none, a trailing slash adds none.
    pub fn segments(&self) -> Segments<'_> {
        Segments { rest: self.reading.as_deref().unwrap_or(&self.text) }
    }
}

/// Segments are short: looking at each byte is quicker than a search made for long texts.
#[derive(Debug, Clone)]
pub struct Segments<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        while !self.rest.is_empty() {
            let end = self.rest.bytes().position(|byte| byte == b'/').unwrap_or(self.rest.len());
            let (segment, rest) = self.rest.split_at_checked(end)?;
            self.rest = rest.get(1..).unwrap_or_default();
            if !segment.is_empty() {
                return Some(segment);
            }
        }
        None
    }
}

impl std::fmt::Display for NormalPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
