//! The collecting decoder: from nodes to the structs that document the files. A failed field is reported and left out, and
//! the rest goes on, so that one run shows every problem. It never fills in a default: that is `build`'s work.
//!
//! `section!` and `words!` declare a struct or a closed set of words once; decoder and JSON Schema both come from that
//! declaration, so they cannot disagree about a key.
use super::problem::{Problem, Source, Span};
use super::units;
use super::yaml::{Key, Node, Value};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use std::time::Duration;

/// Where problems go while one file is decoded.
pub struct Decoder<'a> {
    pub source: &'a Source,
    pub problems: &'a mut Vec<Problem>,
}

impl Decoder<'_> {
    pub fn report(&mut self, at: Span, what: impl Into<String>, fix: impl Into<String>) {
        self.problems.push(self.source.problem(at, what, fix));
    }

    fn wrong_kind(&mut self, node: &Node, due: &str, example: &str) {
        let found = match &node.value {
            Value::Scalar { text, .. } => format!("`{text}`"),
            _ => node.kind().to_owned(),
        };
        self.report(node.at, format!("{found} where {due} is due"), format!("write {example}"));
    }
}

/// Reads itself from a node. `None` means a problem was reported.
pub trait Decode: Sized {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self>;
}

/// Reads itself from a field that may be absent.
pub trait Field: Sized {
    fn field(found: Option<&Node>, key: &'static str, of: &Section<'_>, to: &mut Decoder<'_>) -> Self;
}

/// The mapping a field belongs to, for messages.
pub struct Section<'a> {
    pub name: &'static str,
    pub node: &'a Node,
}

/// A field that must be there. `None` only after a problem was reported.
#[derive(Debug, Clone)]
pub struct Needed<T>(pub Option<T>);

impl<T> Default for Needed<T> {
    fn default() -> Self {
        Needed(None)
    }
}

impl<T: Decode> Field for Needed<T> {
    fn field(found: Option<&Node>, key: &'static str, of: &Section<'_>, to: &mut Decoder<'_>) -> Self {
        if found.is_none() {
            let first = Span { width: 1, ..of.node.at };
            to.report(first, format!("`{key}` is missing in {}", of.name), format!("add `{key}:`"));
        }
        Needed(found.and_then(|node| T::decode(node, to)))
    }
}

impl<T: Decode> Field for Option<T> {
    fn field(found: Option<&Node>, _key: &'static str, _of: &Section<'_>, to: &mut Decoder<'_>) -> Self {
        found.and_then(|node| T::decode(node, to))
    }
}

/// A list; left empty (`rules:` with nothing under it) it has no items.
impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::List(items) => Some(items.iter().filter_map(|item| T::decode(item, to)).collect()),
            Value::Null => Some(Vec::new()),
            _ => {
                to.wrong_kind(node, "a list", "each item on its own line, starting with `- `");
                None
            }
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    pub value: T,
    pub at: Span,
}

impl<T: Decode> Decode for At<T> {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        T::decode(node, to).map(|value| At { value, at: node.at })
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: Decode> Decode for OneOrMany<T> {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                to.report(node.at, "an empty list", "name at least one, or remove the key");
                None
            }
            Value::List(items) => Some(OneOrMany(items.iter().filter_map(|item| T::decode(item, to)).collect())),
            _ => T::decode(node, to).map(|one| OneOrMany(vec![one])),
        }
    }
}

/// Entries under names of the operator's choice, in the file's order. The node is kept to find a field's place later.
#[derive(Debug, Clone)]
pub struct Named<T>(pub Vec<(Key, T, Node)>);

impl<T: Decode> Decode for Named<T> {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            to.wrong_kind(node, "a mapping", "`name: { … }` entries, one per line");
            return None;
        };
        let one = |(key, node): &(Key, Node)| T::decode(node, to).map(|value| (key.clone(), value, node.clone()));
        Some(Named(entries.iter().filter_map(one).collect()))
    }
}

impl Decode for String {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar { text, .. } if !text.trim().is_empty() => Some(text.clone()),
            Value::Scalar { .. } => {
                to.report(node.at, "an empty text", "write a value, or remove the key");
                None
            }
            Value::Null => {
                to.report(node.at, "the value is missing", "write a value after the `:`, or remove the key");
                None
            }
            _ => {
                to.wrong_kind(node, "a text", "one value; put it in quotes if it holds `:`, `#`, `{` or `[`");
                None
            }
        }
    }
}

impl Decode for bool {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar { text, plain: true } if text == "true" => Some(true),
            Value::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => {
                to.wrong_kind(node, "true or false", "`true` or `false`, without quotes");
                None
            }
        }
    }
}

impl Decode for u64 {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        let number = match &node.value {
            Value::Scalar { text, plain: true } if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            to.wrong_kind(node, "a whole number", "digits only, without quotes");
        }
        number
    }
}

/// `30s`, `5m`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl Decode for Interval {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        let text = String::decode(node, to)?;
        let read = units::duration(&text);
        if read.is_none() {
            let guess = with_unit(&text, "s", units::duration(&format!("{text}s")).is_some());
            let fix = format!("{guess}a duration is a whole number and a unit: `250ms`, `30s`, `5m`, `12h` or `7d`");
            to.report(node.at, format!("`{text}` is no duration"), fix);
        }
        read.map(Interval)
    }
}

/// `64KiB`, `10MiB`, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl Decode for ByteSize {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        let text = String::decode(node, to)?;
        let read = units::size(&text);
        if read.is_none() {
            let guess = with_unit(&text, "B", units::size(&format!("{text}B")).is_some());
            let fix = format!("{guess}a size is a whole number and a unit: `512B`, `64KiB`, `10MiB`, `2GiB` or `1TiB`");
            to.report(node.at, format!("`{text}` is no size"), fix);
        }
        read.map(ByteSize)
    }
}

fn with_unit(text: &str, unit: &str, fits: bool) -> String {
    if fits { format!("did you mean `{text}{unit}`? ") } else { String::new() }
}

/// The entries of a mapping, with unknown keys reported.
pub fn entries<'n>(
    node: &'n Node,
    name: &'static str,
    known: &[&'static str],
    hints: &[(&'static str, &'static str)],
    to: &mut Decoder<'_>,
) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else {
        to.report(
            node.at,
            format!("{} where {name} is due", node.kind()),
            format!("write its keys: {}", listed(known)),
        );
        return None;
    };
    for (key, _) in entries {
        if !known.contains(&key.text.as_str()) {
            let fix = unknown_key_fix(&key.text, known, hints);
            to.report(key.at, format!("unknown key `{}` in {name}", key.text), fix);
        }
    }
    Some(node)
}

fn unknown_key_fix(key: &str, known: &[&'static str], hints: &[(&'static str, &'static str)]) -> String {
    if let Some((_, hint)) = hints.iter().find(|(name, _)| *name == key) {
        return (*hint).to_owned();
    }
    match nearest(key, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("remove it; known here: {}", listed(known)),
    }
}

pub fn listed(words: &[&str]) -> String {
    words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}

/// The known word a typing mistake away from `word`: at most a third of its letters changed.
pub fn nearest<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    if word.len() > 64 {
        return None;
    }
    let folded = word.to_ascii_lowercase().replace('-', "_");
    let allowed = (folded.chars().count() / 3).clamp(1, 3);
    let close = known.iter().map(|k| (distance(&folded, &k.to_ascii_lowercase().replace('-', "_")), *k));
    close.filter(|(d, _)| *d <= allowed).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |r: &[usize], k: usize| r.get(k).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

macro_rules! transparent {
    ($name:ident => $inner:ty) => {
        impl<T: JsonSchema> JsonSchema for $name<T> {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                <$inner>::schema_name()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                generator.subschema_for::<$inner>()
            }
        }
    };
}
transparent!(Needed => T);
transparent!(At => T);
transparent!(Named => std::collections::BTreeMap<String, T>);

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "minItems": 1, "items": one }] })
    }
}

macro_rules! pattern {
    ($name:ty, $title:literal, $pattern:expr, $example:literal) => {
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }
            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}
pattern!(Interval, "Duration", units::DURATION_PATTERN, "30s");
pattern!(ByteSize, "Size", units::SIZE_PATTERN, "10MiB");

/// Declares one mapping of a file: its struct, its decoder and its JSON Schema. `hints` are fixes for keys that people
/// will try and that are not there.
macro_rules! section {
    (
        $(#[$meta:meta])*
        $name:ident as $title:literal $(hints [$($hint:expr),* $(,)?])? {
            $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $name {
            pub const KEYS: &'static [&'static str] = &[$($crate::config::decode::key_name(stringify!($field))),*];
        }

        impl $crate::config::decode::Decode for $name {
            fn decode(
                node: &$crate::config::yaml::Node,
                to: &mut $crate::config::decode::Decoder<'_>,
            ) -> Option<Self> {
                let hints: &[(&'static str, &'static str)] = &[$($($hint),*)?];
                let node = $crate::config::decode::entries(node, $title, Self::KEYS, hints, to)?;
                let of = $crate::config::decode::Section { name: $title, node };
                Some($name {
                    $($field: {
                        const KEY: &str = $crate::config::decode::key_name(stringify!($field));
                        $crate::config::decode::Field::field(node.get(KEY), KEY, &of, to)
                    },)*
                })
            }
        }
    };
}
pub(crate) use section;

/// Declares a closed set of words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$word_meta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$word_meta])* $variant,)*
        }

        impl $name {
            pub const WORDS: &'static [&'static str] = &[$($word),*];
        }

        impl $crate::config::decode::Decode for $name {
            fn decode(
                node: &$crate::config::yaml::Node,
                to: &mut $crate::config::decode::Decoder<'_>,
            ) -> Option<Self> {
                let text = String::decode(node, to)?;
                match text.as_str() {
                    $($word => Some($name::$variant),)*
                    other => {
                        $crate::config::decode::unknown_word(other, Self::WORDS, node.at, to);
                        None
                    }
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": Self::WORDS })
            }
        }
    };
}
pub(crate) use words;

pub fn unknown_word(word: &str, known: &[&str], at: Span, to: &mut Decoder<'_>) {
    let fix = match nearest(word, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", listed(known)),
    };
    to.report(at, format!("`{word}` is not known here"), fix);
}

/// A field's name as the file writes it: `r#as` is `as`, `as_` would be too clever.
pub const fn key_name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}
