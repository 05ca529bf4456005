//! Every spelling of a path we know of, and what becomes of it.
use super::*;
use proptest::prelude::*;

const STRICT: Tolerance =
    Tolerance { encoded_slash: false, path_parameters: false, empty_segments: false, trailing_dots: false };
const LENIENT: Tolerance =
    Tolerance { encoded_slash: true, path_parameters: true, empty_segments: true, trailing_dots: true };

#[track_caller]
fn check(path: &str, expected: Result<&str, PathError>) {
    let found = NormalPath::parse(path, STRICT);
    assert_eq!(found.as_ref().map(NormalPath::as_str).map_err(|error| *error), expected, "{path}");
}

#[track_caller]
fn check_lenient(path: &str, normal: &str, segments: &[&str]) {
    let found = NormalPath::parse(path, LENIENT).unwrap();
    assert_eq!(found.as_str(), normal, "{path}");
    assert_eq!(found.segments().collect::<Vec<_>>(), segments, "{path}");
}

#[track_caller]
fn check_match(pattern: &str, path: &str, expected: bool) {
    let pattern = Pattern::parse(pattern).unwrap();
    let path = NormalPath::parse(path, LENIENT).unwrap();
    assert_eq!(pattern.matches(&path), expected, "{pattern} against {path}");
}

#[test]
fn plain_paths_stay_as_they_are() {
    for path in ["/", "/orders", "/orders/", "/orders/42", "/a-b_c~d/e.f", "/.well-known/x", "/users:batch", "/a@b,c=d"]
    {
        check(path, Ok(path));
    }
}

#[test]
fn a5_dot_segments_are_removed() {
    check("/a/./b", Ok("/a/b"));
    check("/a/../b", Ok("/b"));
    check("/a/b/..", Ok("/a/"));
    check("/a/.", Ok("/a/"));
    check("/.", Ok("/"));
    check("/a/..", Ok("/"));
    check("/a/%2e/b", Ok("/a/b"));
    check("/public/%2e%2E/admin", Ok("/admin"));
    check("/public/.%2e/admin", Ok("/admin"));
    check("/a/b/c/./../../g", Ok("/a/g"));
    check("/..", Err(PathError::AboveRoot));
    check("/a/../../b", Err(PathError::AboveRoot));
    check("/%2e%2e/admin", Err(PathError::AboveRoot));
}

#[test]
fn a5_encoded_separators_are_refused() {
    for path in ["/a%2fb", "/a%2Fb", "/..%2fadmin", "/a%5cb", "/a%5Cb", "/a%00", "/%00/b"] {
        check(path, Err(PathError::EncodedSeparator));
    }
    for path in ["/a%0ab", "/a%0d%0aX:y", "/a%1f", "/a%7f", "/a%09"] {
        check(path, Err(PathError::EncodedControl));
    }
}

#[test]
fn a5_path_parameters_are_refused() {
    for path in ["/a;x=y", "/admin;/b", "/;/admin", "/..;/admin", "/a%3bx=y", "/a%3Bx"] {
        check(path, Err(PathError::PathParameter));
    }
}

#[test]
fn a5_empty_segments_and_backslashes_are_refused() {
    for path in ["//", "//admin", "/a//b", "/a//", "/a/%2e//b"] {
        check(path, Err(PathError::EmptySegment));
    }
    for path in ["/a\\b", "/\\admin", "\\admin"] {
        let expected = if path.starts_with('/') { PathError::Backslash } else { PathError::NotAbsolute };
        check(path, Err(expected));
    }
}

#[test]
fn a5_double_encoding_is_refused() {
    for path in ["/%252e%252e/admin", "/a%252fb", "/a%25252f", "/a%25%32%66", "/%2525", "/a%25%36%31"] {
        check(path, Err(PathError::DoubleEncoding));
    }
    check("/100%25", Ok("/100%25"));
    check("/100%25/x", Ok("/100%25/x"));
    check("/100%25-off", Ok("/100%25-off"));
}

#[test]
fn a5_broken_encodings_are_refused() {
    for path in ["/%", "/%2", "/%zz", "/%u002e", "/a%2", "/%%32%65", "/% 2", "/%+2"] {
        check(path, Err(PathError::BrokenEncoding));
    }
}

#[test]
fn a5_overlong_and_invalid_utf8_are_refused() {
    for path in
        ["/%c0%af", "/%c0%ae%c0%ae/", "/%e0%80%af", "/%ff", "/%c3", "/%c3/%a9", "/%c3x%a9", "/%ed%a0%80", "/%80"]
    {
        check(path, Err(PathError::Utf8));
    }
    check("/caf%c3%a9", Ok("/caf%C3%A9"));
    check("/%f0%9f%98%80", Ok("/%F0%9F%98%80"));
}

#[test]
fn a5_trailing_dots_and_spaces_are_refused() {
    for path in ["/admin.", "/admin./x", "/admin...", "/.../x", "/admin%20", "/admin%20/x", "/admin%2e", "/%20"] {
        check(path, Err(PathError::TrailingDot));
    }
    check("/a%20b", Ok("/a%20b"));
    check("/.hidden", Ok("/.hidden"));
}

#[test]
fn a5_raw_bytes_that_must_be_encoded_are_refused() {
    for path in [
        "/a b", "/a\tb", "/a\r\nb", "/\0", "/é", "/a\"", "/<", "/>", "/^", "/`", "/{id}", "/a|b", "/a#b", "/a?b", "/[",
        "/]",
    ] {
        check(path, Err(PathError::ForbiddenByte));
    }
    for path in ["", "*", "a/b", "http://x/y", "?x", "%2fadmin"] {
        check(path, Err(PathError::NotAbsolute));
    }
}

#[test]
fn encodings_are_spelled_one_way() {
    check("/%61%62c", Ok("/abc"));
    check("/%7euser/%2D", Ok("/~user/-"));
    check("/a%3ab%2c", Ok("/a%3Ab%2C"));
    check("/a%3fb", Ok("/a%3Fb"));
    check("/a%23b", Ok("/a%23b"));
}

#[test]
fn the_length_is_bounded() {
    let longest = format!("/{}", "a".repeat(PATH_BYTES_MAX - 1));
    check(&longest, Ok(&longest));
    check(&format!("{longest}a"), Err(PathError::TooLong(PATH_BYTES_MAX)));
}

#[test]
fn tolerated_spellings_are_forwarded_and_read_safely() {
    check_lenient("/a%2fb/c", "/a%2Fb/c", &["a%2Fb", "c"]);
    check_lenient("/admin;x=y/z", "/admin;x=y/z", &["admin", "z"]);
    check_lenient("/admin%3bx=y/z", "/admin%3Bx=y/z", &["admin", "z"]);
    check_lenient("//admin///x//", "//admin///x//", &["admin", "x"]);
    check_lenient("/Acme%20Inc./x", "/Acme%20Inc./x", &["Acme%20Inc.", "x"]);
    check_lenient("/users%3Adelete/%2B%21", "/users%3Adelete/%2B%21", &["users:delete", "+!"]);
    check_lenient("/caf%c3%a9%2c", "/caf%C3%A9%2C", &["caf%C3%A9,"]);
}

#[test]
fn a5_tolerance_never_lets_a_traversal_through() {
    for (path, error) in [
        ("/a/..%2fadmin", PathError::EncodedSeparator),
        ("/a%2f..%2fadmin", PathError::EncodedSeparator),
        ("/a%2f%2e%2e;x/b", PathError::EncodedSeparator),
        ("/a/..;/admin", PathError::PathParameter),
        ("/a/..%3b/admin", PathError::PathParameter),
        ("/;/admin", PathError::PathParameter),
        ("/a//../admin", PathError::EmptySegment),
        ("/a%5c..%5cadmin", PathError::EncodedSeparator),
        ("/a%00", PathError::EncodedSeparator),
        ("/a%252e", PathError::DoubleEncoding),
        ("/a\\b", PathError::Backslash),
    ] {
        assert_eq!(NormalPath::parse(path, LENIENT), Err(error), "{path}");
    }
}

/// However `/admin/x` is spelled, it is refused or a rule for `/admin/**` sees it.
#[test]
fn a5_no_spelling_slips_past_a_rule() {
    let rule = Pattern::parse("/admin/**").unwrap();
    let spellings = [
        "/admin/x",
        "/admin",
        "/admin/",
        "//admin/x",
        "/./admin/x",
        "/a/../admin/x",
        "/%61dmin/x",
        "/a/%2e%2e/admin/x",
        "/admin%2fx",
        "/admin%5cx",
        "/admin%00/x",
        "/%c1%a1dmin/x",
        "/admin;a=b/x",
        "/admin%3ba=b/x",
        "/%2561dmin/x",
        "/admin./x",
        "/admin%20/x",
        "/admin/./x",
        "/admin//x",
        "/\\admin/x",
        "/admin\\x",
        "/a/..;/admin/x",
        "/ADMIN%2e/x",
        "/admin%0a/x",
        "/admin#/x",
        "/admin?/x",
    ];
    for spelling in spellings {
        match NormalPath::parse(spelling, STRICT) {
            Ok(path) => assert!(rule.matches(&path), "{spelling} became {path}"),
            Err(_) => continue,
        }
    }
    let tolerant = Tolerance { encoded_slash: false, trailing_dots: false, ..LENIENT };
    for spelling in spellings {
        match NormalPath::parse(spelling, tolerant) {
            Ok(path) => assert!(rule.matches(&path), "{spelling} became {path}"),
            Err(_) => continue,
        }
    }
}

#[test]
fn patterns_match_by_segment() {
    check_match("/orders/**", "/orders", true);
    check_match("/orders/**", "/orders/", true);
    check_match("/orders/**", "/orders/1/2", true);
    check_match("/orders/**", "/orders2", false);
    check_match("/orders/*", "/orders/1", true);
    check_match("/orders/*", "/orders/1/", true);
    check_match("/orders/*", "/orders/", false);
    check_match("/orders/*", "/orders/1/2", false);
    check_match("/orders/*/refund", "/orders/9/refund", true);
    check_match("/orders/*/refund", "/orders/9/refunds", false);
    check_match("/orders", "/orders/", true);
    check_match("/orders/", "/orders", true);
    check_match("/", "/", true);
    check_match("/", "/a", false);
    check_match("/**", "/", true);
    check_match("/**", "/a/b", true);
    check_match("/*", "/", false);
    check_match("/Orders", "/orders", false);
    check_match("/users:delete", "/users%3Adelete", true);
    check_match("/caf\u{e9}/a b", "/caf%C3%A9/a%20b", true);
    check_match("/%2A", "/*", true);
    check_match("/%2A", "/a", false);
    check_match("/%61b", "/ab", true);
    check_match("/a%2Fb", "/a%2fb", true);
}

#[test]
fn patterns_that_cannot_be_meant_are_refused() {
    let check = |text: &str, expected| assert_eq!(Pattern::parse(text), Err(expected), "{text}");
    check("orders", PatternError::NotAbsolute);
    check("", PatternError::NotAbsolute);
    check("/**/x", PatternError::DeepNotLast);
    check("/**/**", PatternError::DeepNotLast);
    check("/a*", PatternError::Mixed("a*".into()));
    check("/***", PatternError::Mixed("***".into()));
    check("/a/../b", PatternError::DotSegment);
    check("/%2e", PatternError::DotSegment);
    check("/a//b", PatternError::Path(PathError::EmptySegment));
    check("//", PatternError::Path(PathError::EmptySegment));
    check("/a;b", PatternError::Path(PathError::PathParameter));
    check("/{id}", PatternError::Path(PathError::ForbiddenByte));
    check("/a%2", PatternError::Path(PathError::BrokenEncoding));
    check(&"/a".repeat(PATH_BYTES_MAX), PatternError::Path(PathError::TooLong(PATH_BYTES_MAX)));
}

#[test]
fn a_pattern_is_shown_in_normal_form() {
    for (text, shown) in
        [("/", "/"), ("/a/", "/a"), ("/%61/*/**", "/a/*/**"), ("/caf\u{e9}", "/caf%C3%A9"), ("/%2a", "/%2A")]
    {
        let pattern = Pattern::parse(text).unwrap();
        assert_eq!(pattern.as_str(), shown);
        assert_eq!(Pattern::parse(shown), Ok(pattern));
    }
}

/// Pieces that hit the normaliser's every branch far more often than random text would.
fn hostile_path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("."),
        Just(".."),
        Just("%2e"),
        Just("%2F"),
        Just("%25"),
        Just("%"),
        Just(";"),
        Just("%3b"),
        Just("a"),
        Just("admin"),
        Just("%61"),
        Just("%c3%a9"),
        Just("%3A"),
        Just(":"),
        Just("%20"),
        Just("2"),
        Just("e"),
        Just("//"),
        Just("*"),
        Just("\\"),
        Just("%zz"),
        Just("\u{e9}"),
    ];
    proptest::collection::vec(piece, 0..14).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn any_tolerance() -> impl Strategy<Value = Tolerance> {
    any::<(bool, bool, bool, bool)>().prop_map(|(encoded_slash, path_parameters, empty_segments, trailing_dots)| {
        Tolerance { encoded_slash, path_parameters, empty_segments, trailing_dots }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn normalising_twice_changes_nothing(path in hostile_path(), tolerance in any_tolerance()) {
        if let Ok(normal) = NormalPath::parse(&path, tolerance) {
            prop_assert_eq!(NormalPath::parse(normal.as_str(), tolerance), Ok(normal.clone()));
            prop_assert!(normal.segments().all(|segment| !matches!(segment, "" | "." | "..")));
            prop_assert!(normal.as_str().is_ascii());
        }
    }

    #[test]
    fn no_text_panics(path in ".*", tolerance in any_tolerance()) {
        if let Ok(normal) = NormalPath::parse(&path, tolerance) {
            prop_assert!(normal.as_str().starts_with('/'));
        }
        if let Ok(pattern) = Pattern::parse(&path) {
            prop_assert_eq!(Pattern::parse(pattern.as_str()), Ok(pattern.clone()));
        }
    }

    #[test]
    fn a_path_as_pattern_matches_itself(path in "(/[a-z0-9:!%]{1,4}){1,4}") {
        if let (Ok(normal), Ok(pattern)) = (NormalPath::parse(&path, STRICT), Pattern::parse(&path)) {
            prop_assert!(pattern.matches(&normal));
        }
    }

    #[test]
    fn the_quick_look_never_errs(path in hostile_path()) {
        if normal::is_plain(path.as_bytes()) {
            prop_assert_eq!(normal::normalise(&path, STRICT), Ok(path.clone()));
            prop_assert_eq!(normal::reading(&path), None);
        }
    }
}
