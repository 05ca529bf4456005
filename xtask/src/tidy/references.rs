//! What documents name must exist: the tests in `ATTACKS.md`, the files that links point to. It follows no web address.
use super::sources::Tree;
use std::collections::BTreeSet;
use std::path::{Component, Path};

/// Every test that the last column of a table in `ATTACKS.md` names.
pub(super) fn attacks(tree: &Tree) -> Vec<String> {
    let tests: BTreeSet<&str> = tree.ending(".rs").flat_map(|(_, text)| functions(text)).collect();
    let mut problems = Vec::new();
    for (number, line) in tree.text("ATTACKS.md").lines().enumerate() {
        for name in named_tests(line) {
            if !tests.contains(name) {
                problems.push(format!("ATTACKS.md:{}: there is no test `{name}`", number + 1));
            }
        }
    }
    problems
}

fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().trim_start_matches("pub ").trim_start_matches("async ").strip_prefix("fn ")?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    })
}

/// The last path segments in the last cell of a table row; heading and rule rows name none.
fn named_tests(line: &str) -> Vec<&str> {
    let Some(row) = line.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|')) else { return Vec::new() };
    let cell = row.rsplit('|').next().unwrap_or_default();
    let words = cell.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let paths = words.filter(|word| word.contains("::") || word.matches('_').count() > 1);
    paths.filter_map(|path| path.rsplit("::").next()).filter(|name| !name.is_empty()).collect()
}

/// Links between documents, and from documents to files.
pub(super) fn links(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".md") {
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            for target in if fenced { Vec::new() } else { link_targets(line) } {
                if !tree.exists(&resolve(path, target)) {
                    problems.push(format!("{path}:{}: the link to `{target}` leads nowhere", number + 1));
                }
            }
        }
    }
    problems
}

/// `target` of every `[text](target)` that points into the tree, without its anchor.
fn link_targets(line: &str) -> Vec<&str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    files.filter_map(|target| target.split('#').next()).filter(|target| !target.is_empty()).collect()
}

/// `target` seen from the document at `path`, as a path from the root.
fn resolve(path: &str, target: &str) -> String {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut parts: Vec<&str> = Vec::new();
    let whole = folder.join(target);
    for part in whole.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.push(name.to_str().unwrap_or_default()),
            _ => {}
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_names_its_tests() {
        let check = |line: &str, expected: &[&str]| assert_eq!(named_tests(line), expected, "{line}");
        check("| api 49 | alg none | one alg per key | `trust::jws::tests::api_49_alg_none` |", &["api_49_alg_none"]);
        check("| a2 | x | y | a::a2_one, b::a2_two |", &["a2_one", "a2_two"]);
        check("| tag | attack | why it fails | test |", &[]);
        check("|---|---|---|---|", &[]);
        check("some text", &[]);
    }

    #[test]
    fn a_missing_test_is_found() {
        let table = "| a1 | x | y | a::a1_strips |\n| a2 | x | y | a::a2_smuggle |";
        let tree = Tree::of(&[("ATTACKS.md", table), ("a.rs", "    async fn a1_strips() {}")]);
        assert_eq!(attacks(&tree), ["ATTACKS.md:2: there is no test `a2_smuggle`"]);
    }

    #[test]
    fn links_lead_somewhere() {
        let check = |text: &str, expected: usize| {
            let tree = Tree::of(&[("docs/a.md", text), ("README.md", "")]);
            assert_eq!(links(&tree).len(), expected, "{text}");
        };
        check("[readme](../README.md#start)", 0);
        check("[web](https://example.org/x.md) [part](#here)", 0);
        check("[gone](gone.md)", 1);
        check("```\n[gone](gone.md)\n```", 0);
    }
}
