//! Texts for a terminal: nothing a caller sent may move the cursor or change the colour, and moments read as people do.

/// Replaces control characters, and the marks that reorder text, by their escape.
pub fn clean(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if !text.chars().any(harmful) {
        return text.to_owned();
    }
    text.chars().map(|c| if harmful(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// Unix milliseconds as RFC 3339 in UTC, to the millisecond.
pub fn moment(unix_ms: u64) -> String {
    proxy::clock::UnixMs(unix_ms).rfc_3339()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a10_nothing_a_caller_sent_reaches_the_terminal_raw() {
        assert_eq!(clean("ana"), "ana");
        assert_eq!(clean("\u{1b}[31mred\r\n"), "\\u{1b}[31mred\\u{d}\\u{a}");
        assert_eq!(clean("a\u{202e}b"), "a\\u{202e}b");
    }
}
