//! What is wrong with a configuration file: where it stands, what it is, and how to mend it. Renders for a terminal and
//! for a script; never prints what looks like a key or a token.
use std::fmt::Write as _;

/// Columns of a quoted line that are shown at most; longer lines are cut around the caret.
const QUOTE_COLUMNS_MAX: usize = 110;

/// A place in a file, in characters: line and column count from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub line: u32,
    pub column: u32,
    pub width: u32,
}

/// One file as it was read: its name for messages, its name in records, and its text for quoting.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// As the operator can open it, e.g. `examples/quickstart/services/orders.yaml`.
    pub shown: String,
    /// Relative to the platform file's folder, e.g. `services/orders.yaml`: stable across machines, for records.
    pub place: String,
    pub text: String,
}

/// Does a problem stop the load?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

/// One problem. `line` and `column` are 0 when it concerns the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    pub severity: Severity,
    pub file: String,
    pub line: u32,
    pub column: u32,
    pub what: String,
    pub fix: String,
    #[serde(skip)]
    quote: Option<Box<Quote>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Quote {
    text: String,
    /// Characters before the caret, and carets.
    indent: usize,
    carets: usize,
}

impl Source {
    /// A problem at a place of this file.
    pub fn problem(&self, at: Span, what: impl Into<String>, fix: impl Into<String>) -> Problem {
        let line = lines(&self.text).nth((at.line as usize).saturating_sub(1)).unwrap_or_default();
        let quote = (at.line > 0).then(|| Box::new(quote(line, at)));
        Problem {
            severity: Severity::Error,
            file: self.shown.clone(),
            line: at.line,
            column: at.column,
            what: what.into(),
            fix: fix.into(),
            quote,
        }
    }
}

/// Lines as YAML and its parser count them (YAML 1.2.2 §5.4): each ends with LF, CR or CRLF; what follows the last break is
/// a line too, even an empty one. `str::lines` would show another line than the one a problem stands on.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let line = text.split(['\r', '\n']).next()?;
        let after = text.get(line.len()..)?;
        rest = ["\r\n", "\r", "\n"].into_iter().find_map(|end| after.strip_prefix(end));
        Some(line)
    })
}

impl Problem {
    /// A problem of a whole file, or of a path that could not be read.
    pub fn of_file(shown: &str, what: impl Into<String>, fix: impl Into<String>) -> Problem {
        let source = Source { shown: shown.to_owned(), ..Source::default() };
        source.problem(Span::default(), what, fix)
    }

    /// The same, but it does not stop the load.
    pub fn warning(self) -> Problem {
        Problem { severity: Severity::Warning, ..self }
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// `file:line:column`, or the file alone.
    pub fn location(&self) -> String {
        if self.line == 0 { self.file.clone() } else { format!("{}:{}:{}", self.file, self.line, self.column) }
    }

    /// Several lines for people: place and problem, the quoted line with carets, the fix. Colours are ANSI; the stream
    /// that prints them drops them when it is no terminal.
    pub fn render(&self) -> String {
        let (mark, bold, dim, reset) = match self.severity {
            Severity::Error => ("\x1b[1;31m", "\x1b[1m", "\x1b[2m", "\x1b[0m"),
            Severity::Warning => ("\x1b[1;33m", "\x1b[1m", "\x1b[2m", "\x1b[0m"),
        };
        let label = if self.is_error() { "error" } else { "warning" };
        let mut out =
            format!("{bold}{}{reset}: {mark}{label}{reset}: {}\n", printable(&self.location()), printable(&self.what));
        if let Some(quote) = &self.quote {
            let number = self.line.to_string();
            let gutter = " ".repeat(number.len());
            let indent = " ".repeat(quote.indent);
            let carets = "^".repeat(quote.carets);
            let _ = writeln!(out, "  {dim}{number} |{reset} {}", quote.text);
            let _ = writeln!(out, "  {dim}{gutter} |{reset} {indent}{mark}{carets}{reset}");
        }
        let _ = writeln!(out, "  {bold}fix:{reset} {}", printable(&self.fix));
        out
    }
}

/// Every problem of one load, ordered by file and place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub fn new(mut problems: Vec<Problem>) -> Problems {
        problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        problems.dedup();
        Problems(problems)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn errors(&self) -> usize {
        self.0.iter().filter(|p| p.is_error()).count()
    }

    pub fn render(&self) -> String {
        self.0.iter().map(Problem::render).collect::<Vec<_>>().join("\n")
    }
}

impl std::fmt::Display for Problems {
    /// One line per problem, for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { "; " };
            write!(f, "{gap}{}: {} ({})", problem.location(), problem.what, problem.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

fn quote(line: &str, at: Span) -> Quote {
    let line = hide_secrets(line);
    let characters: Vec<char> = line.chars().map(plain).collect();
    let column = (at.column as usize).saturating_sub(1).min(characters.len());
    let start = column.saturating_sub(QUOTE_COLUMNS_MAX * 2 / 3);
    let start = if characters.len() <= QUOTE_COLUMNS_MAX { 0 } else { start };
    let shown: String = characters.iter().skip(start).take(QUOTE_COLUMNS_MAX).collect();
    let lead = if start > 0 { "…" } else { "" };
    let tail = if characters.len() > start + QUOTE_COLUMNS_MAX { "…" } else { "" };
    let room = shown.chars().count().saturating_sub(column - start).max(1);
    Quote {
        text: format!("{lead}{shown}{tail}"),
        indent: column - start + lead.chars().count(),
        carets: (at.width as usize).clamp(1, room),
    }
}

/// A terminal acts on control characters; a reader needs to see that one was there.
fn plain(character: char) -> char {
    match character {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}' | '\u{feff}' => '\u{fffd}',
        c => c,
    }
}

/// Text for a terminal: control characters and bidirectional overrides are replaced.
pub fn printable(text: &str) -> String {
    hide_secrets(text).chars().map(plain).collect()
}

/// Blanks what follows the start of a token or of a PEM body, keeping the width so that carets stay right.
fn hide_secrets(text: &str) -> String {
    let starts = ["eyJ", "-----BEGIN"];
    let Some(at) = starts.iter().filter_map(|s| text.find(s)).min() else {
        return text.to_owned();
    };
    let (before, secret) = text.split_at(at);
    let end = secret.find(|c: char| c.is_whitespace() || c == '`' || c == '"').unwrap_or(secret.len());
    let (secret, after) = if secret.starts_with('-') { (secret, "") } else { secret.split_at(end) };
    format!("{before}{}{}", "•".repeat(secret.chars().count()), hide_secrets(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(problem: &Problem) -> String {
        anstream::adapter::strip_str(&problem.render()).to_string()
    }

    fn source(text: &str) -> Source {
        Source { shown: "a.yaml".into(), place: "a.yaml".into(), text: text.into() }
    }

    #[test]
    fn a_problem_quotes_its_line_with_carets_under_it() {
        let got = source("one\ntwo: three\n").problem(
            Span { line: 2, column: 6, width: 5 },
            "`three` is no number",
            "write 3",
        );
        let expected = "a.yaml:2:6: error: `three` is no number\n  2 | two: three\n    |      ^^^^^\n  fix: write 3\n";
        assert_eq!(bare(&got), expected);
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("{}here{}", "x".repeat(300), "y".repeat(300));
        let got = bare(&source(&text).problem(Span { line: 1, column: 301, width: 4 }, "w", "f"));
        let lines: Vec<&str> = got.lines().collect();
        assert!(lines[1].chars().count() < 125, "{got}");
        let at = lines[2].find('^').map(|b| lines[2][..b].chars().count()).unwrap();
        assert!(lines[1].chars().skip(at).collect::<String>().starts_with("here"), "{got}");
    }

    #[test]
    fn tokens_and_keys_in_a_quoted_line_are_blanked_and_controls_replaced() {
        let got =
            bare(&source("t: eyJhbGciOi.x.y # z").problem(Span { line: 1, column: 4, width: 3 }, "`eyJabc`", "f"));
        assert!(!got.contains("eyJ") && got.contains("# z"), "{got}");
        let got =
            bare(&source("k: -----BEGIN PRIVATE KEY-----MIIB").problem(Span { line: 1, column: 1, width: 1 }, "w", ""));
        assert!(!got.contains("MIIB"), "{got}");
        let got =
            source("k: \u{1b}[31mred\u{202e}").problem(Span { line: 1, column: 1, width: 1 }, "a\u{7}b", "").render();
        assert!(!got.contains("\u{1b}[31mred") && !got.contains('\u{202e}') && !got.contains('\u{7}'), "{got}");
    }

    #[test]
    fn carriage_returns_end_lines_as_they_do_in_yaml() {
        let check = |text: &str, expected: &[&str]| assert_eq!(lines(text).collect::<Vec<_>>(), expected, "{text:?}");
        check("", &[""]);
        check("a\nb", &["a", "b"]);
        check("a\r\nb\r\n", &["a", "b", ""]);
        check("a\rb\r\rc", &["a", "b", "", "c"]);
        check("a\r\r\nb\n\rc", &["a", "", "b", "", "c"]);
        check("a\u{85}b\u{2028}c", &["a\u{85}b\u{2028}c"]);
        let got = bare(&source("one\rtwo: x\r").problem(Span { line: 2, column: 6, width: 1 }, "w", "f"));
        assert!(got.contains("  2 | two: x\n    |      ^\n"), "{got}");
    }

    #[test]
    fn problems_come_in_the_order_of_the_file_and_once() {
        let s = source("a\nb\n");
        let at = |line| s.problem(Span { line, column: 1, width: 1 }, "w", "f");
        let got = Problems::new(vec![at(2), at(1), at(2)]);
        assert_eq!(got.iter().map(|p| p.line).collect::<Vec<_>>(), [1, 2]);
    }
}
