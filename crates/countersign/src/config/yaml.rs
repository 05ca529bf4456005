//! From bytes to a tree of nodes that know their place. A configuration is a small subset of YAML 1.2 on purpose: one
//! document, text keys, no anchors, aliases, tags or merge keys, bounded size, depth and node count. Nothing here knows
//! what a key means.
//!
//! Built on `saphyr-parser`'s events and not on `saphyr`'s tree: that tree keeps one of two equal keys and resolves
//! aliases while it loads, and both are problems we want to point at.
use super::problem::{Problem, Source, Span, lines};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as EventSpan};

/// Largest file we read, in bytes.
pub const BYTES_MAX: usize = 1024 * 1024;
const DEPTH_MAX: usize = 24;
const NODES_MAX: usize = 100_000;
/// Keys of one mapping; finding a key twice costs their square.
const KEYS_MAX: usize = 2_000;

/// One value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub at: Span,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `null` or `~`.
    Null,
    Scalar {
        text: String,
        /// Written without quotes: may be read as a number or a truth value.
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub text: String,
    pub at: Span,
}

impl Node {
    /// The value under `key` of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node),
            _ => None,
        }
    }

    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// What stands here, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Bytes of a file to text, refusing what cannot be a configuration file.
pub fn text(bytes: Vec<u8>, shown: &str) -> Result<String, Problem> {
    if bytes.len() > BYTES_MAX {
        return Err(Problem::of_file(
            shown,
            format!("the file is larger than {BYTES_MAX} bytes"),
            "split it: one file per service, each under 1 MiB",
        ));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
        let line = lines(&String::from_utf8_lossy(good)).count();
        Problem::of_file(shown, format!("line {line} is not UTF-8"), "save the file as UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Parses one file. Problems of the tree (duplicate keys, anchors …) are collected; a syntax error ends the file.
pub fn parse(source: &Source, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut builder = Builder { source, problems, stack: Vec::new(), root: None, nodes: 0, documents: 0, stop: false };
    let mut parser = Parser::new_from_str(&source.text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                builder.problems.push(syntax_problem(source, &error));
                return None;
            }
        }
        if builder.stop {
            return None;
        }
    }
    builder.root
}

/// A container whose end has not come yet.
enum Open {
    List(Span, Vec<Node>),
    Map { at: Span, entries: Vec<(Key, Node)>, key: Option<Key> },
}

struct Builder<'a> {
    source: &'a Source,
    problems: &'a mut Vec<Problem>,
    stack: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
    stop: bool,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: EventSpan) {
        let at = place(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), at);
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Scalar { text: text.into_owned(), plain } };
                self.node(Node { at, value });
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), at);
                self.open(Open::List(at, Vec::new()), at);
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), at);
                self.open(Open::Map { at, entries: Vec::new(), key: None }, at);
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::List(at, items)) => self.node(Node { at, value: Value::List(items) }),
                Some(Open::Map { at, entries, .. }) => self.node(Node { at, value: Value::Map(entries) }),
                None => {}
            },
            Event::Alias(_) => {
                self.report(at, "aliases (`*name`) are not read", "write the value out where it is needed");
                self.node(Node { at, value: Value::Null });
            }
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents == 2 {
                    self.report(at, "a second document starts here", "keep one document per file; remove the `---`");
                    self.stop = true;
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }

    fn open(&mut self, container: Open, at: Span) {
        if self.stack.len() >= DEPTH_MAX {
            self.report(
                at,
                format!("nested deeper than {DEPTH_MAX} levels"),
                "no setting is nested this deep: flatten it",
            );
            self.stop = true;
            return;
        }
        if let Some(Open::Map { key: None, .. }) = self.stack.last() {
            self.report(at, "a list or mapping stands where a key is due", "keys are plain words, e.g. `name: value`");
            self.stop = true;
            return;
        }
        self.stack.push(container);
    }

    /// Puts a finished node where it belongs: into its container, or as the document itself.
    fn node(&mut self, node: Node) {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            self.report(node.at, format!("more than {NODES_MAX} values in one file"), "split the file");
            self.stop = true;
            return;
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                None => *key = Some(as_key(node)),
                Some(key) if entries.len() >= KEYS_MAX => {
                    self.report(key.at, format!("more than {KEYS_MAX} keys in one mapping"), "split the file");
                    self.stop = true;
                }
                Some(key) => {
                    let earlier = entries.iter().find(|(k, _)| k.text == key.text).map(|(k, _)| k.at.line);
                    let at = if node.value == Value::Null { key.at } else { node.at };
                    match earlier {
                        Some(line) => {
                            let what = format!("`{}` stands twice; the first is on line {line}", key.text);
                            self.report(key.at, what, "keep one of them");
                        }
                        None => entries.push((key, Node { at, ..node })),
                    }
                }
            },
        }
    }

    fn refuse_extras(&mut self, anchor: usize, tagged: bool, at: Span) {
        if anchor > 0 {
            self.report(at, "anchors (`&name`) are not read", "write the value out where it is needed");
        }
        if tagged {
            self.report(at, "tags (`!name`) are not read", "remove the tag; the key already says what is meant");
        }
    }

    fn report(&mut self, at: Span, what: impl Into<String>, fix: &str) {
        self.problems.push(self.source.problem(at, what, fix));
    }
}

fn as_key(node: Node) -> Key {
    let text = match node.value {
        Value::Scalar { text, .. } => text,
        _ => String::new(),
    };
    Key { text, at: node.at }
}

fn place(span: EventSpan) -> Span {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let width = if span.end.line() == span.start.line() { span.end.col().saturating_sub(span.start.col()) } else { 1 };
    Span { line: number(span.start.line()), column: number(span.start.col() + 1), width: number(width.max(1)) }
}

/// The parser's own words name grammar rules; these say what a person most likely did.
fn syntax_problem(source: &Source, error: &ScanError) -> Problem {
    const READINGS: &[(&str, &str, &str)] = &[
        ("tab", "a tab where spaces are due", "indent with spaces; YAML forbids tabs there"),
        (
            "mapping values are not allowed",
            "a second `:` in one value",
            "quote the value, or start a new line before this key",
        ),
        (
            "unknown anchor",
            "an alias (`*name`) starts this value",
            "a value that starts with `*` needs quotes: \"agent:*\"",
        ),
        ("anchor or alias", "a value starts with `*` or `&`", "put the value in quotes"),
        (
            "did not find expected key",
            "the indentation does not fit the lines above",
            "line this key up with its neighbours",
        ),
        ("expected '-'", "a list item is due here", "line it up with the items above and start it with `- `"),
        ("',' or '}'", "a `{ … }` is not closed or lacks a comma", "separate entries with `, ` and close with `}`"),
        ("',' or ']'", "a `[ … ]` is not closed or lacks a comma", "separate items with `, ` and close with `]`"),
        ("node content", "a value is due here, or a bracket is not closed", "write the value, or close the `[` or `{`"),
        ("end of stream", "a quote is opened and never closed", "close the quote"),
        ("simple key expect", "this line has no `:`", "write `key: value`"),
        ("recursion limit", "nested too deep", "no setting is nested this deep: flatten it"),
        (
            "invalid indentation",
            "the indentation does not fit the lines above",
            "use the same number of spaces as its neighbours",
        ),
        ("unprintable", "a control character", "remove it; the file must be plain text"),
    ];
    let mark = error.marker();
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let at = Span { line: number(mark.line()), column: number(mark.col() + 1), width: 1 };
    match READINGS.iter().find(|(part, ..)| error.info().contains(part)) {
        Some((_, what, fix)) => source.problem(at, format!("not valid YAML: {what}"), *fix),
        None => {
            source.problem(at, format!("not valid YAML: {}", error.info()), "check indentation and quotes around here")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Problems as `line:column what`.
    fn check(text: &str, expected: &[&str]) {
        let source = Source { shown: "a.yaml".into(), place: "a.yaml".into(), text: text.into() };
        let mut problems = Vec::new();
        parse(&source, &mut problems);
        let got: Vec<String> = problems.iter().map(|p| format!("{}:{} {}", p.line, p.column, p.what)).collect();
        assert_eq!(got, expected, "{text}");
        assert!(problems.iter().all(|p| !p.fix.is_empty()), "{text}");
    }

    #[test]
    fn plain_files_parse_with_places() {
        let source = Source { text: "a: 1\nb:\n  - x\n  - {k: v}\n".into(), ..Source::default() };
        let node = parse(&source, &mut Vec::new()).unwrap();
        let items = node.get("b").unwrap().items();
        assert_eq!(items[1].get("k").unwrap().at, Span { line: 4, column: 9, width: 1 });
        assert_eq!(items[0].at, Span { line: 3, column: 5, width: 1 });
        assert_eq!(node.get("a").unwrap().value, Value::Scalar { text: "1".into(), plain: true });
    }

    #[test]
    fn bare_carriage_returns_count_as_lines_in_the_place_of_a_problem() {
        check("a: 1\rb: 2\r\nb: 3\r", &["3:1 `b` stands twice; the first is on line 2"]);
        check("# a comment\r\ra: b: c\r", &["3:5 not valid YAML: a second `:` in one value"]);
    }

    #[test]
    fn what_hides_or_repeats_meaning_is_refused() {
        check("a: 1\na: 2\n", &["2:1 `a` stands twice; the first is on line 1"]);
        check("a: &x 1\n", &["1:4 anchors (`&name`) are not read"]);
        check("a: &x [1]\nb: *x\n", &["1:4 anchors (`&name`) are not read", "2:4 aliases (`*name`) are not read"]);
        check("a: !!str 1\n", &["1:4 tags (`!name`) are not read"]);
        check("a: 1\n---\nb: 2\n", &["2:1 a second document starts here"]);
        check("? [a]\n: b\n", &["1:3 a list or mapping stands where a key is due"]);
    }

    #[test]
    fn bombs_are_bounded() {
        let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
        check(&deep, &["1:25 nested deeper than 24 levels"]);
        let wide: String = (0..2_100).map(|n| format!("k{n}: 1\n")).collect();
        check(&wide, &["2001:1 more than 2000 keys in one mapping"]);
        let long = "- 1\n".repeat(100_010);
        check(&long, &["100001:3 more than 100000 values in one file"]);
        let mut laughs = "a: &a [x,x]\n".to_owned();
        for (before, name) in [("a", "b"), ("b", "c"), ("c", "d")] {
            laughs.push_str(&format!("{name}: &{name} [*{before},*{before},*{before}]\n"));
        }
        let source = Source { text: laughs, ..Source::default() };
        let mut problems = Vec::new();
        parse(&source, &mut problems);
        assert_eq!(problems.len(), 4 + 9, "every anchor and every alias, none expanded");
    }

    #[test]
    fn syntax_errors_say_what_a_person_did() {
        check("a:\n\tb: 1\n", &["2:2 not valid YAML: a tab where spaces are due"]);
        check("a: b: c\n", &["1:5 not valid YAML: a second `:` in one value"]);
        check("a: [1, 2\n", &["2:1 not valid YAML: a `[ … ]` is not closed or lacks a comma"]);
        check("a: {b: 1\n", &["2:1 not valid YAML: a `{ … }` is not closed or lacks a comma"]);
        check("a: \"b\n", &["1:4 not valid YAML: a quote is opened and never closed"]);
        check("who: *agent\n", &["1:6 not valid YAML: an alias (`*name`) starts this value"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let what = |bytes: &[u8]| text(bytes.to_vec(), "a.yaml").map_err(|p| p.what);
        assert_eq!(what(b"a: \xff\n"), Err("line 1 is not UTF-8".into()));
        assert_eq!(what(b"a: 1\nb: \xc0\xaf\n"), Err("line 2 is not UTF-8".into()));
        assert_eq!(what(b"a: 1\rb: 2\r\nc: \xff"), Err("line 3 is not UTF-8".into()));
        assert_eq!(what(&vec![b'#'; BYTES_MAX + 1]), Err("the file is larger than 1048576 bytes".into()));
        assert_eq!(what("\u{feff}a: 1".as_bytes()), Ok("a: 1".into()));
    }
}
