//! Path patterns of rules and routes: literal segments, `*` and `**`. A pattern is written by a team, read here once, and
//! its literals go through the same normaliser as paths, so that both are always spelled alike.
use super::{NormalPath, PathError, Tolerance, normal};

/// `/orders/*/refund`, `/orders/**`: `*` one segment, `**` any number, only as the last segment; else literal segments.
///
/// `/orders/**` matches `/orders`, `/orders/` and everything below; `/orders/*` matches neither of the first two.
/// `/orders` and `/orders/` match the same paths. Letters outside ASCII and spaces may be written as they are.
/// A literal star is written `%2A`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    segments: Box<[Segment]>,
}

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Exactly this, as [`NormalPath::segments`] yields it.
    Literal(Box<str>),
    /// `*`: any one segment.
    Any,
    /// `**`: any number of segments, none included. Always last.
    Deep,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern starts with `/`")]
    NotAbsolute,
    #[error("`**` may only be the last segment")]
    DeepNotLast,
    #[error("`{0}` mixes a wildcard with text in one segment")]
    Mixed(String),
    #[error("`.` and `..` have no place in a pattern")]
    DotSegment,
    #[error("{0}")]
    Path(PathError),
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        if text.len() > super::PATH_BYTES_MAX {
            return Err(PatternError::Path(PathError::TooLong(super::PATH_BYTES_MAX)));
        }
        let rest = text.strip_prefix('/').ok_or(PatternError::NotAbsolute)?;
        let is_root = rest.is_empty();
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let mut segments = Vec::new();
        let mut normal = String::with_capacity(text.len());
        for raw in rest.split('/').filter(|_| !is_root) {
            if segments.last() == Some(&Segment::Deep) {
                return Err(PatternError::DeepNotLast);
            }
            normal.push('/');
            segments.push(parse_segment(raw, &mut normal)?);
        }
        if normal.is_empty() {
            normal.push('/');
        }
        Ok(Pattern { text: normal.into_boxed_str(), segments: segments.into_boxed_slice() })
    }

    pub fn matches(&self, path: &NormalPath) -> bool {
        let mut parts = path.segments();
        for segment in &self.segments {
            let matched = match segment {
                Segment::Deep => return true,
                Segment::Any => parts.next().is_some(),
                Segment::Literal(literal) => parts.next() == Some(&**literal),
            };
            if !matched {
                return false;
            }
        }
        parts.next().is_none()
    }

    /// The pattern in normal form, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse_segment(raw: &str, normal: &mut String) -> Result<Segment, PatternError> {
    match raw {
        "" => return Err(PatternError::Path(PathError::EmptySegment)),
        "*" => {
            normal.push_str(raw);
            return Ok(Segment::Any);
        }
        "**" => {
            normal.push_str(raw);
            return Ok(Segment::Deep);
        }
        _ if raw.contains('*') => return Err(PatternError::Mixed(raw.to_owned())),
        _ => {}
    }
    // A service that tolerates these in requests must be able to write rules for them.
    let tolerance = Tolerance { encoded_slash: true, trailing_dots: true, ..Tolerance::default() };
    let segment = normal::normal_segment(&percent_encoded(raw), tolerance).map_err(PatternError::Path)?.into_owned();
    if matches!(&*segment, "." | "..") {
        return Err(PatternError::DotSegment);
    }
    normal.push_str(&segment);
    Ok(Segment::Literal(normal::segment_reading(&segment).into()))
}

/// People write `/café`; the wire says `/caf%C3%A9`.
fn percent_encoded(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for byte in raw.bytes() {
        if byte == b' ' || byte >= 0x80 { normal::push_encoded(&mut out, byte) } else { out.push(char::from(byte)) }
    }
    out
}
