//! `countersign check`, `test` and `rules` as an operator runs them: the binary, its output, its exit code.
use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &str, args: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    Command::new(env!("CARGO_BIN_EXE_countersign")).args(args).current_dir(folder).output().unwrap()
}

fn text(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(!text.contains('\u{1b}'), "no colours unless on a terminal");
    text
}

#[test]
fn check_shows_five_mistakes_of_one_file_at_once() {
    let output = run("tests/five_mistakes", &["check"]);
    assert_eq!(text(&output), include_str!("../five_mistakes/expected.txt"));
    assert_eq!(output.status.code(), Some(1));

    let output = run("tests/five_mistakes", &["check", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let places: Vec<(u64, u64)> = document["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["line"].as_u64().unwrap(), p["column"].as_u64().unwrap()))
        .collect();
    assert_eq!(places, [(2, 11), (5, 20), (8, 5), (12, 32), (14, 19)]);
    assert_eq!(document["ok"], false);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn check_warns_of_what_lets_in_more_than_it_seems_and_ends_with_0() {
    let output = run("tests/warned", &["check"]);
    assert_eq!(text(&output), include_str!("../warned/expected.txt"));
    assert_eq!(output.status.code(), Some(0));

    let output = run("tests/warned", &["check", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found: Vec<(&str, u64, u64)> = document["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["severity"].as_str().unwrap(), p["line"].as_u64().unwrap(), p["column"].as_u64().unwrap()))
        .collect();
    assert_eq!(found, [("warning", 6, 21), ("warning", 7, 17), ("warning", 5, 33), ("warning", 8, 36)]);
    assert!(document["problems"].as_array().unwrap().iter().all(|p| p["fix"].as_str().is_some_and(|f| !f.is_empty())));
    assert_eq!((&document["ok"], output.status.code()), (&true.into(), Some(0)));
}

#[test]
fn commands_that_need_good_files_show_the_problems_and_end_with_2() {
    for command in [&["test"][..], &["rules"], &["rules", "--cedar"]] {
        let output = run("tests/five_mistakes", command);
        assert!(text(&output).contains("services/orders.yaml:8:5"), "{command:?}");
        assert_eq!(output.status.code(), Some(2), "{command:?}");
    }
}

#[test]
fn a_missing_file_says_what_to_do() {
    let output = run("tests", &["check", "-c", "none.yaml"]);
    let expected = "none.yaml: error: the file cannot be read: it does not exist\n  fix: name an existing file with `-c FILE`; \
                    `countersign dev` runs without one\n\n1 problem in 1 file\n";
    assert_eq!(text(&output), expected);
}

#[test]
fn completions_and_schemas_are_printed_whole() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(".", &["completions", shell]);
        assert!(output.status.success() && text(&output).contains("countersign"), "{shell}");
    }
    for which in ["platform", "service"] {
        let document: serde_json::Value = serde_json::from_slice(&run(".", &["schema", which]).stdout).unwrap();
        assert_eq!(document["additionalProperties"], false);
    }
}

#[test]
fn the_quickstart_checks_tests_and_shows_its_rules() {
    let folder = "../../examples/quickstart";
    let output = run(folder, &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(
        text(&output).starts_with("ok: countersign.yaml with 1 service\n  edge    127.0.0.1:8080"),
        "{}",
        text(&output)
    );
    let output = run(folder, &["test"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output).contains("3 tests hold") && text(&output).contains("services/orders.yaml:22"));
    let matrix = text(&run(folder, &["rules", "orders"]));
    assert!(matrix.contains("never  agent:*              any   DELETE /**"), "{matrix}");
    let output = run(folder, &["rules", "nowhere"]);
    assert_eq!(text(&output), "there is no service `nowhere`; the files define `orders`\n");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn one_failing_test_makes_test_end_with_1_and_check_refuse_the_file() {
    let output = run("tests/failing_test", &["test"]);
    assert_eq!(text(&output), include_str!("../failing_test/expected.txt"));
    assert_eq!(output.status.code(), Some(1));

    let output = run("tests/failing_test", &["test", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["ok"], &document["failed"]), (&false.into(), &1.into()));
    assert_eq!(document["tests"].as_array().map(Vec::len), Some(2));

    let output = run("tests/failing_test", &["check"]);
    assert!(text(&output).contains("services/orders.yaml:8:5: error: test `"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn inspect_reads_standard_input_and_ends_with_1_for_a_bad_token() {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["token", "inspect"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Bearer abc\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(text(&output).contains("WRONG  kind       an opaque token of 3 characters"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(1));
}
