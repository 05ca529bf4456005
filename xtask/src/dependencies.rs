//! Dependencies are chosen: each direct one has its reason in `deny.toml`, each of the whole graph an allowed licence and source.
//! It does what `cargo deny check bans licenses sources` does where that tool is not at hand, from the same file.
use crate::run::{cargo, output, root};
use anyhow::{Context as _, Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// A reason in `deny.toml` is a comment line `# NAME: who keeps it; what it is for`.
fn reason_of(line: &str) -> Option<(&str, &str)> {
    let (name, reason) = line.strip_prefix("# ")?.split_once(": ")?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    is_name.then_some((name, reason))
}

/// Direct dependencies without a reason, and reasons without a dependency.
pub(crate) fn reasons(manifests: &BTreeMap<String, toml::Table>, deny: &str) -> Result<Vec<String>> {
    let section = deny.split_once("# Direct dependencies").map_or("", |(_, rest)| rest);
    let reasons: BTreeMap<&str, &str> = section.lines().filter_map(reason_of).collect();
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for manifest in manifests.values() {
        used.extend(direct(manifest));
    }
    let mut problems = Vec::new();
    for name in &used {
        if reasons.get(name).is_none_or(|reason| reason.split_whitespace().count() < 4) {
            problems.push(format!("deny.toml: say who keeps `{name}` and what it replaces: `# {name}: …`"));
        }
    }
    for name in reasons.keys().filter(|name| !used.contains(*name)) {
        problems.push(format!("deny.toml: nothing depends on `{name}` any more; take its line out"));
    }
    Ok(problems)
}

/// Names of a manifest's dependencies that come from a registry.
fn direct(manifest: &toml::Table) -> BTreeSet<&str> {
    let own = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = own.iter().filter_map(|kind| manifest.get(*kind));
    let shared = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let entries = tables.chain(shared).filter_map(toml::Value::as_table).flatten();
    let from_registry = entries.filter(|(_, value)| value.is_str() || value.get("version").is_some());
    from_registry.map(|(name, _)| name.as_str()).collect()
}

/// Licences and sources of the whole resolved graph.
pub(crate) fn check_graph() -> Result<()> {
    let deny: toml::Table = std::fs::read_to_string(root().join("deny.toml"))?.parse().context("deny.toml")?;
    let allowed = strings(&deny, "licenses", "allow");
    let banned = deny.get("bans").and_then(|bans| bans.get("deny")).and_then(toml::Value::as_array);
    let banned: Vec<&str> =
        banned.into_iter().flatten().filter_map(|entry| entry.get("crate").and_then(toml::Value::as_str)).collect();
    let sources = strings(&deny, "sources", "allow-registry");
    let graph = output(cargo(&["metadata", "--format-version", "1", "--locked"]))?;
    let graph: serde_json::Value = serde_json::from_str(&graph)?;
    let packages =
        graph.get("packages").and_then(serde_json::Value::as_array).context("cargo metadata without packages")?;
    let text = |package: &serde_json::Value, key: &str| {
        package.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
    };
    // The lock file also names what no feature of ours turns on; only what is built can be banned.
    let built = output(cargo(&["tree", "--workspace", "--locked", "--target", "all", "--prefix", "none"]))?;
    let mut problems = Vec::new();
    for package in packages {
        let (name, licence, source) = (text(package, "name"), text(package, "license"), text(package, "source"));
        if !licence_allowed(&licence, &allowed) {
            problems.push(format!("`{name}` is under `{licence}`, which deny.toml does not allow"));
        }
        if !source.is_empty() && !sources.iter().any(|wanted| source == format!("registry+{wanted}")) {
            problems.push(format!("`{name}` comes from `{source}`, which deny.toml does not allow"));
        }
        if banned.contains(&name.as_str()) && built.lines().any(|line| line.split(' ').next() == Some(&name)) {
            problems.push(format!("`{name}` is banned by deny.toml; `cargo tree -i {name}` shows who brings it"));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    println!("{} packages: licences and sources as in deny.toml", packages.len());
    Ok(())
}

fn strings(table: &toml::Table, section: &str, key: &str) -> Vec<String> {
    let list = table.get(section).and_then(|section| section.get(key)).and_then(toml::Value::as_array);
    list.into_iter().flatten().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

/// SPDX expressions of AND, OR and parentheses: every AND part needs one allowed alternative.
fn licence_allowed(expression: &str, allowed: &[String]) -> bool {
    let flat = expression.replace('/', " OR ");
    let parts = split_outside_parentheses(&flat, " AND ");
    if parts.len() > 1 {
        return parts.iter().all(|part| licence_allowed(part, allowed));
    }
    let parts = split_outside_parentheses(&flat, " OR ");
    if parts.len() > 1 {
        return parts.iter().any(|part| licence_allowed(part, allowed));
    }
    let one = flat.trim();
    match one.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => licence_allowed(inner, allowed),
        None => allowed.iter().any(|name| name == one),
    }
}

fn split_outside_parentheses<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(separator) {
        let head = text.get(..at).unwrap_or_default();
        if head.matches('(').count() == head.matches(')').count() {
            parts.push(text.get(start..at).unwrap_or_default());
            start = at + separator.len();
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_is_as_deny_toml_says() {
        check_graph().unwrap();
    }

    #[test]
    fn licence_expressions() {
        let allowed = ["MIT", "Apache-2.0", "ISC"].map(str::to_owned);
        let check = |expression: &str, expected: bool| {
            assert_eq!(licence_allowed(expression, &allowed), expected, "{expression}");
        };
        check("MIT", true);
        check("MIT OR GPL-3.0", true);
        check("MIT/Apache-2.0", true);
        check("ISC AND (Apache-2.0 OR ISC)", true);
        check("ISC AND (Apache-2.0 OR ISC) AND OpenSSL", false);
        check("(MIT OR Apache-2.0) AND Unicode-3.0", false);
        check("GPL-3.0-only", false);
        check("", false);
    }

    #[test]
    fn every_direct_dependency_has_a_reason_and_no_reason_is_stale() {
        let check = |manifest: &str, deny: &str, expected: usize| {
            let manifests = BTreeMap::from([("Cargo.toml".to_owned(), manifest.parse().unwrap())]);
            let problems = reasons(&manifests, &format!("# Direct dependencies\n{deny}")).unwrap();
            assert_eq!(problems.len(), expected, "{problems:?}");
        };
        check("[dependencies]\nbytes = \"1\"", "# bytes: tokio project; shared buffers without copies", 0);
        check("[dependencies]\nbytes = \"1\"", "", 1);
        check("[dependencies]\nbytes = \"1\"", "# bytes: yes", 1);
        check("[dependencies]\ntrust = { path = \"x\" }\nbytes.workspace = true", "", 0);
        check("", "# bytes: tokio project; shared buffers without copies", 1);
    }
}
