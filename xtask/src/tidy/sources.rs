//! The tree as tidy sees it: text files by path, and where production code ends in each. It never looks into build output.
use anyhow::{Context as _, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const NOT_OURS: [&str; 7] = ["target", "node_modules", ".git", "artifacts", "corpus", ".venv", "__pycache__"];
const TEXT: [&str; 3] = ["rs", "toml", "md"];

/// A path from the workspace's root, with `/`, to the file's text.
pub(super) struct Tree {
    files: BTreeMap<String, String>,
    root: PathBuf,
}

impl Tree {
    pub(super) fn read(root: &Path) -> Result<Tree> {
        let mut tree = Tree { files: BTreeMap::new(), root: root.to_path_buf() };
        tree.read_folder(root)?;
        Ok(tree)
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Tree { files, root: PathBuf::from("/no/such/folder") }
    }

    fn read_folder(&mut self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !NOT_OURS.contains(&name.as_str()) {
                    self.read_folder(&path)?;
                }
            } else if path.extension().is_some_and(|end| TEXT.iter().any(|text| end == *text)) {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                self.files.insert(path.strip_prefix(&self.root)?.to_string_lossy().into_owned(), text);
            }
        }
        Ok(())
    }

    pub(super) fn ending<'a>(&'a self, end: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.ends_with(end))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Rust files that end up in a build of the crate itself: not tests, benches or examples.
    pub(super) fn production(&self) -> impl Iterator<Item = (&str, Vec<(usize, &str)>)> {
        let for_tests: BTreeSet<String> =
            self.ending(".rs").flat_map(|(path, text)| test_modules(path, text)).collect();
        let counted = self.ending(".rs").filter(move |(path, _)| !is_test_file(path) && !for_tests.contains(*path));
        counted.map(|(path, text)| (path, production_lines(text)))
    }

    /// The text of one file, empty when there is none.
    pub(super) fn text(&self, path: &str) -> String {
        self.files.get(path).cloned().unwrap_or_default()
    }

    /// Whether a file or folder is there, of any kind.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.files.contains_key(path) || self.root.join(path).exists()
    }

    /// How many files a folder holds.
    pub(super) fn files_in(&self, folder: &str) -> usize {
        fs::read_dir(self.root.join(folder))
            .map_or(0, |entries| entries.flatten().filter(|e| e.path().is_file()).count())
    }

    /// Every manifest, by its path.
    pub(super) fn manifests(&self) -> Result<BTreeMap<String, toml::Table>> {
        let manifests = self.ending("Cargo.toml");
        manifests.map(|(path, text)| Ok((path.to_owned(), text.parse().with_context(|| path.to_owned())?))).collect()
    }
}

fn is_test_file(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name == "tests.rs" || name.starts_with("tests_"))
        || ["/tests/", "/benches/", "/examples/"].iter().any(|folder| path.contains(folder))
        || path.starts_with("examples/")
}

/// The files of `#[cfg(test)] mod NAME;` in the file at `path`.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let folder = ["/lib", "/main", "/mod"].iter().find_map(|root| stem.strip_suffix(root)).unwrap_or(stem);
    let mut lines = text.lines().map(str::trim).peekable();
    let mut files = Vec::new();
    while let Some(line) = lines.next() {
        let declared = lines.peek().and_then(|next| next.strip_suffix(';')?.rsplit_once("mod "));
        if let (TEST_ONLY, Some((_, name))) = (line, declared) {
            files.push(format!("{folder}/{name}.rs"));
        }
    }
    files
}

const TEST_ONLY: &str = "#[cfg(test)]";

/// Numbered lines from 1 up to the unit tests at the file's end.
fn production_lines(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        matches!(pair, [first, second] if first.trim() == TEST_ONLY && second.starts_with("mod ") && !second.ends_with(';'))
    });
    lines.into_iter().take(tests.unwrap_or(usize::MAX)).enumerate().map(|(index, line)| (index + 1, line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_ends_where_the_tests_begin() {
        let check = |text: &str, expected: usize| assert_eq!(production_lines(text).len(), expected, "{text}");
        check("//! a\nfn a() {}\n#[cfg(test)]\nmod tests {}\n", 2);
        check("#[cfg(test)]\nfn only_for_tests() {}\nfn a() {}\n", 3);
        check("#[cfg(test)]\nmod tests;\nfn a() {}\n", 3);
        check("a\nb\n", 2);
        check("", 0);
    }

    #[test]
    fn tests_are_no_production() {
        let check = |path: &str, expected: bool| assert_eq!(is_test_file(path), expected, "{path}");
        check("crates/trust/src/jws/tests.rs", true);
        check("crates/countersign/tests/edge.rs", true);
        check("crates/trust/benches/jws.rs", true);
        check("crates/trust/src/policy/tests_world.rs", true);
        check("crates/trust/src/jws.rs", false);
        check("crates/countersign/src/command/test.rs", false);
    }

    #[test]
    fn modules_for_tests_are_no_production() {
        let check = |path: &str, expected: &[&str]| {
            assert_eq!(
                test_modules(path, "mod a;\n#[cfg(test)]\npub(crate) mod made;\n#[cfg(test)]\nmod tests {\n"),
                expected
            );
        };
        check("crates/trust/src/jwk.rs", &["crates/trust/src/jwk/made.rs"]);
        check("crates/trust/src/lib.rs", &["crates/trust/src/made.rs"]);
    }
}
