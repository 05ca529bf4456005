//! Strict JSON for tokens and key sets: UTF-8, exactly one object, no duplicate names at any depth, no trailing bytes,
//! bounded size, depth and number of values. `serde_json` reads the grammar, this module refuses.
//!
//! Two readers of one document must never see two different meanings, so nothing is repaired and nothing overwritten.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use std::cell::{Cell, RefCell};
use std::fmt;

/// Deepest nesting we follow; the outermost object is level 1.
pub const DEPTH_MAX: usize = 32;
/// Most values (members and elements, at all depths together) one document may hold.
pub const VALUES_MAX: usize = 16_384;
/// How much of a foreign name is repeated in an error, in characters.
const EXCERPT_CHARS_MAX: usize = 64;

/// Why bytes are no acceptable JSON object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("not a JSON object")]
    Syntax,
    #[error("a name stands twice: `{0}`")]
    Duplicate(String),
    #[error("nested deeper than {0}")]
    TooDeep(usize),
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    #[error("more than {0} values")]
    TooMany(usize),
}

/// A parsed JSON object. Member order is not kept.
pub type Object = serde_json::Map<String, Value>;

/// Parses one JSON object strictly (RFC 8259; names are compared after unescaping, as RFC 7515 §4 asks).
pub fn object(bytes: &[u8], bytes_max: usize) -> Result<Object, JsonError> {
    if bytes.len() > bytes_max {
        return Err(JsonError::TooLarge(bytes_max));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::Syntax)?;
    let watch = Watch::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Level { watch: &watch, depth: 0 }.deserialize(&mut reader);
    if let Some(fault) = watch.fault.into_inner() {
        return Err(fault);
    }
    match (value, reader.end()) {
        (Ok(Value::Object(members)), Ok(())) => Ok(members),
        _ => Err(JsonError::Syntax),
    }
}

/// A short, escaped piece of foreign text that is safe to put into an error message or a log line.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// What is counted over a whole document, and the first fault that serde's own error type cannot carry.
#[derive(Default)]
struct Watch {
    values: Cell<usize>,
    fault: RefCell<Option<JsonError>>,
}

impl Watch {
    fn refuse<E: serde::de::Error>(&self, fault: JsonError) -> E {
        self.fault.borrow_mut().get_or_insert(fault);
        E::custom("refused")
    }

    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        let seen = self.values.get() + 1;
        self.values.set(seen);
        if seen > VALUES_MAX { Err(self.refuse(JsonError::TooMany(VALUES_MAX))) } else { Ok(()) }
    }
}

/// Reads one value that stands inside `depth` arrays and objects.
#[derive(Clone, Copy)]
struct Level<'w> {
    watch: &'w Watch,
    depth: usize,
}

impl<'w> Level<'w> {
    fn inside<E: serde::de::Error>(self) -> Result<Level<'w>, E> {
        if self.depth >= DEPTH_MAX {
            return Err(self.watch.refuse(JsonError::TooDeep(DEPTH_MAX)));
        }
        Ok(Level { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.watch.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut elements = Vec::new();
        while let Some(element) = access.next_element_seed(inside)? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut members = Object::new();
        while let Some(name) = access.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(self.watch.refuse(JsonError::Duplicate(excerpt(&name))));
            }
            let value = access.next_value_seed(inside)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests;
