//! `countersign check`, `test` and `rules` as an operator runs them: the binary, its output, its exit code.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
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
    assert_eq!(text(&output), include_str!("five_mistakes/expected.txt"));
    assert_eq!(output.status.code(), Some(1));

    let output = run("tests/five_mistakes", &["check", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let places: Vec<(u64, u64)> = document["problems"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| p["severity"] == "error")
        .map(|p| (p["line"].as_u64().unwrap(), p["column"].as_u64().unwrap()))
        .collect();
    assert_eq!(places, [(2, 11), (5, 20), (8, 5), (12, 32), (14, 19)]);
    assert_eq!(document["ok"], false);
    assert_eq!(output.status.code(), Some(1));
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
