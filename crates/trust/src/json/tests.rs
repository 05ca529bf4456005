//! Every way a document is refused, and the large but honest ones that are not.
use super::*;
use proptest::prelude::*;

fn check(text: impl AsRef<[u8]>, expected: Result<&str, JsonError>) {
    let text = text.as_ref();
    let shown = String::from_utf8_lossy(text.get(..text.len().min(120)).unwrap_or_default()).into_owned();
    let expected = expected.map(|plain| match serde_json::from_str(plain).unwrap() {
        Value::Object(members) => members,
        other => panic!("the expectation is no object: {other}"),
    });
    assert_eq!(object(text, 64 * 1024), expected, "{shown}");
}

fn duplicate(name: &str) -> Result<&'static str, JsonError> {
    Err(JsonError::Duplicate(name.to_owned()))
}

fn syntax(text: impl AsRef<[u8]>) {
    check(text, Err(JsonError::Syntax));
}

#[test]
fn one_object_is_read_as_it_stands() {
    check("{}", Ok("{}"));
    check(" \t\r\n{ } \n", Ok("{}"));
    check(r#"{"a":1,"b":[true,false,null,-1,1.5,"x"]}"#, Ok(r#"{"b":[true,false,null,-1,1.5,"x"],"a":1}"#));
    check(r#"{"":{"":""}}"#, Ok(r#"{"":{"":""}}"#));
    check(
        r#"{"n":18446744073709551615,"m":-9223372036854775808}"#,
        Ok(r#"{"n":18446744073709551615,"m":-9223372036854775808}"#),
    );
    check(r#"{"big":1e308}"#, Ok(r#"{"big":1e308}"#));
    check(r#"{"sub":"a\u0000b"}"#, Ok(r#"{"sub":"a\u0000b"}"#));
    check(r#"{"$serde_json::private::Number":"1"}"#, Ok(r#"{"$serde_json::private::Number":"1"}"#));
}

/// A feature of `serde_json` that some crate turns on would give one of its private names a meaning, and only to some readers.
#[test]
fn private_names_of_the_library_mean_nothing_to_any_reader() {
    for name in ["RawValue", "Number"] {
        let text = format!(r#"{{"$serde_json::private::{name}":38.4036}}"#);
        let lenient: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object(text.as_bytes(), 64).map(Value::Object), Ok(lenient), "{text}");
    }
}

#[test]
fn anything_but_one_object_is_refused() {
    for text in ["", " ", "null", "true", "1", "\"x\"", "[]", "[{}]", "{", "}", "{}}", "{}{}", "{} x", "{},", "{}\0"] {
        syntax(text);
    }
    for text in
        ["{a:1}", "{'a':1}", "{\"a\":}", "{\"a\"}", "{\"a\":1,}", "{,}", "{\"a\":01}", "{\"a\":+1}", "{\"a\":.5}"]
    {
        syntax(text);
    }
    for text in [
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":1e999}",
        "{\"a\":0x1}",
        "{/**/}",
        "{\"a\":1 //\n}",
        "{\"a\":\"\n\"}",
    ] {
        syntax(text);
    }
    syntax("\u{feff}{}");
    syntax("{\"a\":\"\\ud800\"}");
    syntax(b"{\"a\":\"\xff\"}");
    syntax(b"{\"a\":\"\xc0\xaf\"}");
    syntax(b"{}\xff");
}

#[test]
fn api_56_duplicate_names_are_refused_at_any_depth_and_spelling() {
    check(r#"{"sub":"a","sub":"b"}"#, duplicate("sub"));
    check(r#"{"sub":"a","sub":"a"}"#, duplicate("sub"));
    check(r#"{"sub":"a","\u0073ub":"b"}"#, duplicate("sub"));
    check(r#"{"a":{"b":[{"c":1,"d":2,"c":3}]}}"#, duplicate("c"));
    check(r#"{"a":{"b":1},"b":{"a":1}}"#, Ok(r#"{"a":{"b":1},"b":{"a":1}}"#));
    check("{\"a\\n\":1,\"a\\n\":1}", duplicate("a\\n"));
    let long = "x".repeat(5_000);
    check(format!("{{\"{long}\":1,\"{long}\":2}}"), duplicate(&"x".repeat(EXCERPT_CHARS_MAX)));
}

#[test]
fn api_56_depth_is_bounded_without_touching_the_stack() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert!(object(nested(DEPTH_MAX).as_bytes(), 1 << 20).is_ok());
    for levels in [DEPTH_MAX + 1, 127, 128, 129, 1_000, 30_000] {
        check(nested(levels), Err(JsonError::TooDeep(DEPTH_MAX)));
    }
    check("{\"a\":".repeat(1_000), Err(JsonError::TooDeep(DEPTH_MAX)));
    let huge = "[".repeat(1 << 20);
    assert_eq!(object(format!("{{\"a\":{huge}").as_bytes(), 2 << 20), Err(JsonError::TooDeep(DEPTH_MAX)));
}

#[test]
fn api_56_five_thousand_groups_parse_and_a_value_flood_does_not() {
    let groups = |count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("\"g{i:04}\"")).collect();
        format!("{{\"groups\":[{}]}}", names.join(","))
    };
    let parsed = object(groups(5_000).as_bytes(), 64 * 1024).unwrap();
    assert_eq!(parsed["groups"].as_array().unwrap().len(), 5_000);
    let flood = |count: usize| format!("{{\"a\":[{}0]}}", "0,".repeat(count - 1));
    assert!(object(flood(VALUES_MAX - 2).as_bytes(), 1 << 20).is_ok());
    check(flood(VALUES_MAX - 1), Err(JsonError::TooMany(VALUES_MAX)));
}

#[test]
fn api_56_size_is_checked_before_anything_is_read() {
    assert_eq!(object(b"{ }", 2), Err(JsonError::TooLarge(2)));
    assert!(object(b"{ }", 3).is_ok());
    assert_eq!(object(&vec![b'['; 64 * 1024 + 1], 64 * 1024), Err(JsonError::TooLarge(64 * 1024)));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = object(&bytes, 512);
    }

    #[test]
    fn json_like_text_never_panics_and_what_is_read_survives_a_round_trip(text in "[\\{\\}\\[\\]\",:0-9a-b\\\\u e.\\-]{0,64}") {
        if let Ok(members) = object(text.as_bytes(), 512) {
            let again = serde_json::to_vec(&members).unwrap();
            prop_assert_eq!(object(&again, 4096), Ok(members));
        }
    }
}
