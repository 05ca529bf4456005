//! Crate edges, file headers and sizes, unfinished code, benches and fuzz targets. It knows the tree's text only.
use super::sources::Tree;
use anyhow::Result;

/// Who may depend on whom among the shipped crates. `proxy` and `control` never name each other.
const EDGES: [(&str, &[&str]); 8] = [
    ("trust", &[]),
    ("wire", &[]),
    ("net", &["trust"]),
    ("feed", &["trust"]),
    ("store", &["trust", "feed"]),
    ("proxy", &["trust", "wire", "feed", "net"]),
    ("control", &["trust", "feed", "net", "store"]),
    ("countersign", &["trust", "wire", "feed", "proxy", "control", "net"]),
];
/// The HTTP engine stays inside `net`, sockets and clocks outside `trust` and `wire`.
const ENGINES: [(&str, &[&str]); 7] = [
    ("hyper", &["net"]),
    ("hyper-util", &[]),
    ("tokio", &["net", "proxy", "control", "countersign", "testkit"]),
    ("tokio-rustls", &["net", "testkit"]),
    ("rustls", &["net", "testkit"]),
    ("rand", &[]),
    ("jsonwebtoken", &["examples/verify-txn-token/rust"]),
];
const PRODUCTION_LINES_MAX: usize = 500;

pub(super) fn edges(tree: &Tree) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (path, manifest) in tree.manifests()? {
        let Some(folder) = path.strip_suffix("/Cargo.toml") else { continue };
        let name = folder.strip_prefix("crates/").unwrap_or(folder);
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        let dependencies: Vec<&str> =
            dependencies.into_iter().flat_map(|table| table.keys().map(String::as_str)).collect();
        let known = EDGES.iter().find(|(owner, _)| *owner == name);
        if folder.starts_with("crates/") && known.is_none() {
            problems.push(format!(
                "{path}: crate `{name}` has no place in the layers; add it to EDGES or make it a module"
            ));
        }
        for dependency in dependencies {
            let ours = EDGES.iter().any(|(crate_name, _)| *crate_name == dependency);
            if ours && known.is_some_and(|(_, allowed)| !allowed.contains(&dependency)) {
                problems.push(format!("{path}: `{name}` must not depend on `{dependency}`; move the code or the need"));
            }
            let engine = ENGINES.iter().find(|(engine, _)| *engine == dependency);
            if engine.is_some_and(|(_, owners)| !owners.contains(&name)) {
                problems.push(format!("{path}: `{dependency}` has no business in `{name}`"));
            }
        }
    }
    Ok(problems)
}

pub(super) fn headers_and_sizes(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let header = text.lines().next().and_then(|line| line.strip_prefix("//! "));
        if header.is_none_or(|words| words.split_whitespace().count() < 4) {
            problems.push(format!("{path}:1: say in a `//!` line what the file is for and what it never does"));
        }
    }
    for (path, lines) in tree.production() {
        if lines.len() > PRODUCTION_LINES_MAX {
            let length = lines.len();
            problems
                .push(format!("{path}: {length} lines of production code, {PRODUCTION_LINES_MAX} at most; split it"));
        }
    }
    problems
}

/// Stubs, and tests that do not run.
pub(super) fn unfinished(tree: &Tree) -> Vec<String> {
    let words = [concat!("todo", "!("), concat!("unimpl", "emented!("), concat!("FIX", "ME"), concat!("XX", "X:")];
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".rs") {
        for (number, line) in text.lines().enumerate() {
            let stub = words.iter().find(|word| line.contains(**word));
            let unrun = line.trim_start().starts_with(concat!("#[ig", "nore")).then_some(&"an ignored test");
            if let Some(what) = stub.or(unrun) {
                problems.push(format!("{path}:{}: {what} is not finished; finish it or take it out", number + 1));
            }
        }
    }
    problems
}

/// A bench that is declared exists; a fuzz target that is declared has its source and a corpus.
pub(super) fn benches_and_corpora(tree: &Tree) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (path, manifest) in tree.manifests()? {
        let folder = path.strip_suffix("/Cargo.toml").unwrap_or("");
        for bench in declared(&manifest, "bench") {
            let source = format!("{folder}/benches/{bench}.rs");
            if !tree.exists(&source) {
                problems.push(format!("{path}: bench `{bench}` has no {source}"));
            }
        }
        for target in declared(&manifest, "bin").filter(|_| folder == "fuzz") {
            let corpus = format!("fuzz/corpus/{target}");
            if tree.files_in(&corpus) == 0 {
                problems.push(format!("{path}: fuzz target `{target}` has an empty {corpus}; add seeds to it"));
            }
        }
    }
    Ok(problems)
}

fn declared<'a>(manifest: &'a toml::Table, kind: &str) -> impl Iterator<Item = &'a str> {
    let entries = manifest.get(kind).and_then(toml::Value::as_array);
    entries.into_iter().flatten().filter_map(|entry| entry.get("name").and_then(toml::Value::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_edges(manifest: (&str, &str), expected: &[&str]) {
        let problems = edges(&Tree::of(&[manifest])).unwrap();
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(expected) {
            assert!(problem.contains(part), "{problem} should say {part}");
        }
    }

    #[test]
    fn only_the_layers_edges_pass() {
        check_edges(("crates/net/Cargo.toml", "[dependencies]\ntrust.workspace = true\nhyper = \"1\""), &[]);
        check_edges(("crates/trust/Cargo.toml", "[dependencies]\nnet.workspace = true"), &["`trust` must not"]);
        check_edges(("crates/trust/Cargo.toml", "[dependencies]\ntokio.workspace = true"), &["no business in `trust`"]);
        check_edges(
            ("crates/proxy/Cargo.toml", "[dependencies]\ncontrol = {}\nhyper = \"1\""),
            &["`control`", "`hyper`"],
        );
        check_edges(("crates/util/Cargo.toml", ""), &["no place in the layers"]);
        check_edges(("crates/trust/Cargo.toml", "[dev-dependencies]\njsonwebtoken.workspace = true"), &[]);
    }

    #[test]
    fn a_header_says_something() {
        let check = |text: &str, expected: usize| {
            assert_eq!(headers_and_sizes(&Tree::of(&[("a.rs", text)])).len(), expected, "{text}");
        };
        check("//! Reads the clock and nothing else.\n", 0);
        check("//! placeholder\n", 1);
        check("fn a() {}\n", 1);
        check(&format!("//! One two three four.\n{}", "fn a() {}\n".repeat(500)), 1);
        check(&format!("//! One two three four.\n#[cfg(test)]\nmod tests {{\n{}}}", "a\n".repeat(500)), 0);
    }

    #[test]
    fn stubs_are_found_in_tests_too() {
        let check = |text: &str, expected: usize| {
            assert_eq!(unfinished(&Tree::of(&[("a/tests.rs", text)])).len(), expected, "{text}");
        };
        check(concat!("fn a() { todo", "!() }"), 1);
        check(concat!("    #[ig", "nore = \"slow\"]"), 1);
        check("fn ignore() {}", 0);
    }

    #[test]
    fn a_target_without_corpus_is_found() {
        let tree = Tree::of(&[
            ("fuzz/Cargo.toml", "[[bin]]\nname = \"jws\""),
            ("crates/a/Cargo.toml", "[[bench]]\nname = \"b\""),
        ]);
        assert_eq!(benches_and_corpora(&tree).unwrap().len(), 2);
    }
}
