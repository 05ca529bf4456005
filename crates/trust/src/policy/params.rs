//! Query parameters as a `when` expression sees them: typed, decoded, and refused whenever two programs could read them
//! in two ways. Never the body: a decision is made before it arrives.

use std::borrow::Cow;

/// What type an expression needs a parameter to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Flag,
    Decimal,
    Address,
}

/// A parameter's value, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
    /// As Cedar's `decimal` reads it.
    Decimal(String),
    Address(std::net::IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ParamError {
    #[error("the query has no parameter `{0}`")]
    Missing(String),
    #[error("parameter `{0}` stands more than once, or in a second spelling")]
    Ambiguous(String),
    #[error("parameter `{name}` is not {expected}")]
    Kind { name: String, expected: &'static str },
    #[error("parameter `{0}` has a broken percent-encoding, is no UTF-8, or is too long")]
    Encoding(String),
}

const VALUE_BYTES_MAX: usize = 1024;

impl Kind {
    pub(super) fn described(self) -> &'static str {
        match self {
            Kind::Text => "a text",
            Kind::Number => "a whole number",
            Kind::Flag => "`true` or `false`",
            Kind::Decimal => "a decimal number with at most four places",
            Kind::Address => "an IP address",
        }
    }
}

/// The one value of `name`. `None` if nothing in the query could be taken for it.
///
/// Frameworks differ in which of two equal names wins, in whether case, surrounding space and a trailing `[]` count, so a
/// query in which another name could be taken for this one is refused.
pub(super) fn find(query: Option<&str>, name: &str, kind: Kind) -> Result<Option<Value>, ParamError> {
    let mut found = None;
    for pair in query.unwrap_or_default().split('&') {
        // Some programs also part pairs at `;` and would find another value there.
        if pair.contains(';') && pair.split(';').any(|part| could_be(part.split('=').next().unwrap_or_default(), name))
        {
            return Err(ParamError::Ambiguous(name.to_owned()));
        }
        let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
        if !could_be(raw_name, name) {
            continue;
        }
        let exact = decoded(raw_name).is_some_and(|given| given == name);
        if !exact || found.is_some() {
            return Err(ParamError::Ambiguous(name.to_owned()));
        }
        found = Some(raw_value);
    }
    let Some(raw) = found else { return Ok(None) };
    let text = decoded(raw).filter(|text| text.len() <= VALUE_BYTES_MAX);
    let text = text.ok_or_else(|| ParamError::Encoding(name.to_owned()))?;
    let value = typed(&text, kind);
    value.map(Some).ok_or_else(|| ParamError::Kind { name: name.to_owned(), expected: kind.described() })
}

/// Could some framework take `raw_name` for `name`?
fn could_be(raw_name: &str, name: &str) -> bool {
    let Some(given) = decoded(raw_name) else {
        // A name nobody can decode is no reason to refuse a request that does not depend on it, but it is not ours.
        return false;
    };
    let given = given.trim();
    let bare = given.split(['[', '\0']).next().unwrap_or_default();
    bare.trim().eq_ignore_ascii_case(name)
}

fn typed(text: &str, kind: Kind) -> Option<Value> {
    match kind {
        Kind::Text => Some(Value::Text(text.to_owned())),
        Kind::Number => is_plain_number(text).then(|| text.parse().ok().map(Value::Number)).flatten(),
        Kind::Flag => text.parse().ok().map(Value::Flag),
        Kind::Decimal => decimal(text).map(Value::Decimal),
        Kind::Address => text.parse::<std::net::IpAddr>().ok().map(|ip| Value::Address(ip.to_canonical())),
    }
}

/// No `+`, no leading zero (some read `010` as eight), no `-0`.
fn is_plain_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits && (text == "0" || !digits.starts_with('0'))
}

/// `49`, `49.9`, `-0.25` in the form Cedar reads.
fn decimal(text: &str) -> Option<String> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let good_whole = is_plain_number(whole) || whole == "-0";
    let good_places = (1..=4).contains(&places.len()) && places.bytes().all(|byte| byte.is_ascii_digit());
    (good_whole && good_places).then(|| format!("{whole}.{places}"))
}

/// `application/x-www-form-urlencoded`: `+` is a space, `%XX` a byte, and the bytes are UTF-8.
fn decoded(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(raw));
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => out.push(hex(bytes.next()?)? << 4 | hex(bytes.next()?)?),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_value_behind_a_semicolon_is_refused() {
        for query in ["x=1;amount=900&amount=5", "amount=5;amount=900", "amount=5;x=1", "amount;x=5"] {
            check(query, Kind::Number, Err("amount"));
        }
        check("x=1;y=2&amount=5", Kind::Number, Ok(Some(Value::Number(5))));
    }

    fn check(query: &str, kind: Kind, expected: Result<Option<Value>, &str>) {
        let got = find(Some(query), "amount", kind);
        match (&got, &expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{query}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{query}: {error}"),
            _ => panic!("{query}: {got:?}"),
        }
    }

    #[test]
    fn numbers_have_one_spelling() {
        let number = |value| Ok(Some(Value::Number(value)));
        check("amount=5", Kind::Number, number(5));
        check("a=b&amount=-17&c", Kind::Number, number(-17));
        check("amount=0", Kind::Number, number(0));
        check("am%6Funt=%35", Kind::Number, number(5));
        check("x=1", Kind::Number, Ok(None));
        check("", Kind::Number, Ok(None));
        for wrong in ["amount", "amount=", "amount=+5", "amount=%2B5", "amount=05", "amount=-0", "amount=5.0"] {
            check(wrong, Kind::Number, Err("not a whole number"));
        }
        for wrong in ["amount=0x5", "amount=5e1", "amount=%D9%A5", "amount=9223372036854775808"] {
            check(wrong, Kind::Number, Err("not a whole number"));
        }
        assert_eq!(find(None, "amount", Kind::Number), Ok(None));
    }

    #[test]
    fn a_second_spelling_of_the_name_is_refused() {
        for query in [
            "amount=5&amount=9",
            "amount=5&Amount=9",
            "AMOUNT=5",
            "amount[]=5",
            "amount=5&amount%5B0%5D=9",
            "amount=5&+amount=9",
            "amount=5&amount%00=9",
        ] {
            check(query, Kind::Number, Err("more than once"));
        }
        check("amount=5&amounts=9&%zz=1&am=2", Kind::Number, Ok(Some(Value::Number(5))));
    }

    #[test]
    fn other_kinds() {
        check("amount=a+b%20c", Kind::Text, Ok(Some(Value::Text("a b c".to_owned()))));
        check("amount=%ff", Kind::Text, Err("no UTF-8"));
        check("amount=%4", Kind::Text, Err("broken percent-encoding"));
        check(&format!("amount={}", "x".repeat(2000)), Kind::Text, Err("too long"));
        check("amount=true", Kind::Flag, Ok(Some(Value::Flag(true))));
        check("amount=1", Kind::Flag, Err("`true` or `false`"));
        check("amount=49", Kind::Decimal, Ok(Some(Value::Decimal("49.0".to_owned()))));
        check("amount=-0.25", Kind::Decimal, Ok(Some(Value::Decimal("-0.25".to_owned()))));
        check("amount=1.23456", Kind::Decimal, Err("decimal"));
        check("amount=.5", Kind::Decimal, Err("decimal"));
        check("amount=::ffff:10.0.0.1", Kind::Address, Ok(Some(Value::Address([10, 0, 0, 1].into()))));
        check("amount=10.0.0.1/8", Kind::Address, Err("IP address"));
    }
}
