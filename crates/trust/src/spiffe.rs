//! SPIFFE IDs (SPIFFE-ID standard, WIRE rules): parse once, compare and match by path segment, never by string prefix.

use std::sync::Arc;

/// A valid SPIFFE ID, `spiffe://<trust domain>/<segments>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    path_at: usize,
}

/// Why a text is no SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    #[error("a SPIFFE ID starts with `spiffe://`")]
    Scheme,
    #[error("a SPIFFE ID is at most 2048 bytes long")]
    TooLong,
    #[error("a trust domain is 1 to 255 of the characters a-z 0-9 . _ -")]
    TrustDomain,
    #[error("a SPIFFE ID path has segments of A-Z a-z 0-9 . _ -, none empty, `.` or `..`, and no trailing slash")]
    Path,
}

const ID_BYTES_MAX: usize = 2048;
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

impl SpiffeId {
    pub fn parse(text: &str) -> Result<SpiffeId, SpiffeIdError> {
        let rest = text.strip_prefix("spiffe://").ok_or(SpiffeIdError::Scheme)?;
        if text.len() > ID_BYTES_MAX {
            return Err(SpiffeIdError::TooLong);
        }
        let domain_len = rest.find('/').unwrap_or(rest.len());
        let (domain, path) = rest.split_at(domain_len);
        check_trust_domain(domain)?;
        check_path(path)?;
        Ok(SpiffeId { text: text.into(), path_at: text.len() - path.len() })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn trust_domain(&self) -> &str {
        self.text.get("spiffe://".len()..self.path_at).unwrap_or_default()
    }

    /// The path with its leading slash; empty for the trust domain itself.
    pub fn path(&self) -> &str {
        self.text.get(self.path_at..).unwrap_or_default()
    }

    /// Is this ID's path `prefix` itself, or below it? Compared by whole segments: `/shop/web` covers `/shop/web/v2`
    /// and not `/shop/webhook`.
    pub fn is_at_or_below(&self, prefix: &str) -> bool {
        match self.path().strip_prefix(prefix) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }
}

/// Workloads that a configuration names: one, or all at or below a path of the trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    Exact(SpiffeId),
    /// A path with its leading slash, matched by whole segments in the trust domain of whoever compares.
    Below(Arc<str>),
}

impl Pattern {
    /// A whole `spiffe://` ID with a path, or a path: `/shop/web`.
    pub fn parse(text: &str) -> Result<Pattern, SpiffeIdError> {
        if text.starts_with('/') {
            return check_path(text).map(|()| Pattern::Below(text.into()));
        }
        let id = SpiffeId::parse(text)?;
        if id.path().is_empty() { Err(SpiffeIdError::Path) } else { Ok(Pattern::Exact(id)) }
    }

    /// `id` is one that was proved to belong to our trust domain.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            Pattern::Exact(exact) => exact == id,
            Pattern::Below(path) => id.is_at_or_below(path),
        }
    }
}

/// A trust domain name: 1 to 255 bytes of `[a-z0-9._-]`.
pub fn check_trust_domain(name: &str) -> Result<(), SpiffeIdError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let fits = !name.is_empty() && name.len() <= TRUST_DOMAIN_BYTES_MAX;
    if fits && name.bytes().all(allowed) { Ok(()) } else { Err(SpiffeIdError::TrustDomain) }
}

/// A SPIFFE path: empty, or `/segment` repeated.
pub fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    let Some(segments) = path.strip_prefix('/') else {
        return if path.is_empty() { Ok(()) } else { Err(SpiffeIdError::Path) };
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let good = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(allowed);
    if segments.split('/').all(good) { Ok(()) } else { Err(SpiffeIdError::Path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(&str, &str), SpiffeIdError>) {
        let got = SpiffeId::parse(text);
        match (&got, expected) {
            (Ok(id), Ok((domain, path))) => {
                assert_eq!((id.trust_domain(), id.path()), (domain, path), "{text}")
            }
            (Err(got), Err(expected)) => assert_eq!(*got, expected, "{text}"),
            _ => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn ids_follow_the_spiffe_standard() {
        check("spiffe://acme.example/shop/orders", Ok(("acme.example", "/shop/orders")));
        check("spiffe://acme.example", Ok(("acme.example", "")));
        check("http://acme.example/x", Err(SpiffeIdError::Scheme));
        check("spiffe:///x", Err(SpiffeIdError::TrustDomain));
        check("spiffe://Acme.example/x", Err(SpiffeIdError::TrustDomain));
        check("spiffe://acme.example:80/x", Err(SpiffeIdError::TrustDomain));
        check("spiffe://u@acme.example/x", Err(SpiffeIdError::TrustDomain));
        check("spiffe://acme.example/x/", Err(SpiffeIdError::Path));
        check("spiffe://acme.example//x", Err(SpiffeIdError::Path));
        check("spiffe://acme.example/./x", Err(SpiffeIdError::Path));
        check("spiffe://acme.example/../x", Err(SpiffeIdError::Path));
        check("spiffe://acme.example/x?q", Err(SpiffeIdError::Path));
        check("spiffe://acme.example/x#f", Err(SpiffeIdError::Path));
        check("spiffe://acme.example/%41", Err(SpiffeIdError::Path));
        check(&format!("spiffe://a/{}", "x".repeat(2048)), Err(SpiffeIdError::TooLong));
        check(&format!("spiffe://{}/x", "a".repeat(256)), Err(SpiffeIdError::TrustDomain));
    }

    #[test]
    fn matching_is_by_segment_never_by_prefix() {
        let id = |s| SpiffeId::parse(s).unwrap();
        assert!(id("spiffe://a/shop/web").is_at_or_below("/shop/web"));
        assert!(id("spiffe://a/shop/web/v2").is_at_or_below("/shop/web"));
        assert!(!id("spiffe://a/shop/webhook").is_at_or_below("/shop/web"));
    }

    #[test]
    fn a_pattern_names_one_workload_or_a_path_of_them() {
        let check = |pattern: &str, expected: [bool; 4]| {
            let pattern = Pattern::parse(pattern).unwrap();
            let ids = ["spiffe://a/shop/web", "spiffe://a/shop/web/v2", "spiffe://a/shop/webhook", "spiffe://a/shop"];
            assert_eq!(ids.map(|id| pattern.matches(&SpiffeId::parse(id).unwrap())), expected, "{pattern:?}");
        };
        check("/shop/web", [true, true, false, false]);
        check("/shop", [true, true, true, true]);
        check("spiffe://a/shop/web", [true, false, false, false]);
        check("spiffe://b/shop/web", [false; 4]);
        for (text, expected) in [
            ("", SpiffeIdError::Scheme),
            ("*", SpiffeIdError::Scheme),
            ("/", SpiffeIdError::Path),
            ("/shop/", SpiffeIdError::Path),
            ("/shop/*", SpiffeIdError::Path),
            ("spiffe://a", SpiffeIdError::Path),
            ("spiffe://A/x", SpiffeIdError::TrustDomain),
        ] {
            assert_eq!(Pattern::parse(text), Err(expected), "{text}");
        }
    }
}
