//! How long an answer may be called fresh (RFC 9111 `Cache-Control` and `Age`). It never says how long keys may be used.

/// Caching words of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// Nothing usable was said.
    #[default]
    Silent,
    /// `no-cache` or `no-store`: soon, but not at every request (Okta and Zitadel say it of their keys).
    NoCache,
    /// `max-age` less `Age`, in seconds.
    Seconds(u64),
}

impl Freshness {
    /// Reads the two fields as they came; several `Cache-Control` fields are joined with `,` by the caller.
    pub fn read(cache_control: &str, age: &str) -> Freshness {
        let mut seconds: Option<u64> = None;
        for directive in cache_control.split(',') {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let name = name.trim();
            if name.eq_ignore_ascii_case("no-cache") || name.eq_ignore_ascii_case("no-store") {
                return Freshness::NoCache;
            }
            if name.eq_ignore_ascii_case("max-age")
                && let Some(stated) = delta_seconds(value.trim().trim_matches('"'))
            {
                seconds = Some(seconds.map_or(stated, |earlier| earlier.min(stated)));
            }
        }
        let age = delta_seconds(age.trim()).unwrap_or(0);
        seconds.map_or(Freshness::Silent, |seconds| Freshness::Seconds(seconds.saturating_sub(age)))
    }
}

/// RFC 9111 §1.2.2: digits only; a number too large to hold counts as the largest.
fn delta_seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Freshness::{self, NoCache, Seconds, Silent};

    fn check(cache_control: &str, age: &str, expected: Freshness) {
        assert_eq!(Freshness::read(cache_control, age), expected, "{cache_control:?} {age:?}");
    }

    #[test]
    fn api_46_cache_control_words() {
        check("", "", Silent);
        check("public", "", Silent);
        check("no-cache", "", NoCache);
        check("no-store, max-age=600", "", NoCache);
        check("max-age=600, NO-CACHE", "", NoCache);
        check("max-age=0", "", Seconds(0));
        check("max-age=31536000", "", Seconds(31_536_000));
        check("public, Max-Age = 600 , must-revalidate", "", Seconds(600));
        check("max-age=\"600\"", "", Seconds(600));
        check("max-age=600", "590", Seconds(10));
        check("max-age=600", "900", Seconds(0));
        check("max-age=600", "-1", Seconds(600));
        check("max-age=600, max-age=60", "", Seconds(60));
        check("max-age=99999999999999999999999", "", Seconds(u64::MAX));
        check("max-age=-5", "", Silent);
        check("max-age=1e3", "", Silent);
        check("max-age", "", Silent);
        check("s-maxage=600", "", Silent);
        check(",,,=,;", "x", Silent);
    }
}
