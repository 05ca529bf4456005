//! Bodies that stream both ways without buffering, count their bytes, keep their limit, and say once how they ended.
use bytes::Bytes;

/// A streaming HTTP body.
pub struct Body {
    _private: (),
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Complete,
    /// Dropped before its end: the other side went away or the task was cut.
    Aborted,
    Failed(BodyError),
}

/// Bytes that passed, and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyEnd {
    pub bytes: u64,
    pub end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("larger than the limit")]
    TooLarge,
    #[error("framing is broken")]
    Malformed,
    #[error("an identity field in a trailer")]
    ForbiddenTrailer,
    #[error("no byte for too long")]
    Stalled,
    #[error("the other side went away")]
    Gone,
}

impl Body {
    pub fn empty() -> Body {
        todo!()
    }
    pub fn full(_bytes: impl Into<Bytes>) -> Body {
        todo!()
    }
    /// `hook` runs exactly once: after the last byte, at the first error, or on drop.
    pub fn on_end(self, _hook: impl FnOnce(BodyEnd) + Send + 'static) -> Body {
        todo!()
    }
    pub fn limit(self, _bytes_max: u64) -> Body {
        todo!()
    }
    /// Refuse trailers for which `forbidden(name)`; the body then fails with `ForbiddenTrailer`.
    pub fn guard_trailers(self, _forbidden: fn(&http::HeaderName) -> bool) -> Body {
        todo!()
    }
    /// Known length, if any.
    pub fn len_hint(&self) -> Option<u64> {
        todo!()
    }
    pub async fn read_all(self, _bytes_max: usize) -> Result<Bytes, BodyError> {
        todo!()
    }
}
