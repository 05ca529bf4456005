//! The rules of the house that no compiler checks, each a function over the tree's text. It reads files and changes none.
//! They run in `cargo xtask tidy` and, as a test, in every `cargo test`.
mod layout;
mod purity;
mod references;
mod sources;

use crate::run::root;
use anyhow::{Result, bail};
use sources::Tree;

pub(crate) fn run() -> Result<()> {
    let problems = problems()?;
    for problem in &problems {
        println!("tidy: {problem}");
    }
    if problems.is_empty() {
        println!("tidy: everything in its place");
        return Ok(());
    }
    bail!("tidy found {} problems", problems.len());
}

/// Every breach found, as `place: what is wrong, what to do`.
pub(crate) fn problems() -> Result<Vec<String>> {
    let tree = Tree::read(&root())?;
    let mut found = layout::edges(&tree)?;
    found.extend(layout::headers_and_sizes(&tree));
    found.extend(layout::unfinished(&tree));
    found.extend(purity::purity(&tree));
    found.extend(crate::dependencies::reasons(&tree.manifests()?, &tree.text("deny.toml"))?);
    found.extend(layout::benches_and_corpora(&tree)?);
    found.extend(references::attacks(&tree));
    found.extend(references::links(&tree));
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_is_tidy() {
        let problems = super::problems().unwrap();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}
