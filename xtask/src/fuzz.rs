//! Runs fuzz targets for a given time, then minimises each corpus and keeps it in `fuzz/corpus`. A crash ends the run and
//! leaves its input in `fuzz/artifacts`. It never deletes an input that reaches code no other input reaches, nor one that a
//! person gave a name: such a seed says what once broke.
use crate::run::{must, output, program, root, succeeds};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};

const MEMORY_MB: u32 = 2048;
const INPUT_BYTES_MAX: u32 = 16 * 1024;

pub(crate) fn run(minutes: u32, only: Option<&str>) -> Result<()> {
    install()?;
    let declared = targets()?;
    let chosen: Vec<&String> =
        declared.iter().filter(|target| only.is_none_or(|only| only == target.as_str())).collect();
    if chosen.is_empty() {
        bail!("no such target; there are {}", declared.join(", "));
    }
    for target in chosen {
        one(target, minutes).with_context(|| {
            format!("target `{target}` failed: its input is in fuzz/artifacts/{target}; mend it and keep the input in fuzz/corpus/{target}")
        })?;
    }
    Ok(())
}

fn install() -> Result<()> {
    if !succeeds(program("cargo", &["+nightly", "--version"])) {
        bail!("fuzzing needs the nightly toolchain: `rustup toolchain install nightly --profile minimal`");
    }
    if !succeeds(program("cargo", &["fuzz", "--version"])) {
        must(program("cargo", &["install", "--locked", "cargo-fuzz@0.13.2"]))?;
    }
    Ok(())
}

/// The names of the fuzz crate's binaries.
fn targets() -> Result<Vec<String>> {
    let manifest: toml::Table = std::fs::read_to_string(root().join("fuzz/Cargo.toml"))?.parse()?;
    let bins = manifest.get("bin").and_then(toml::Value::as_array).context("fuzz/Cargo.toml has no targets")?;
    Ok(bins.iter().filter_map(|bin| bin.get("name")?.as_str().map(str::to_owned)).collect())
}

fn one(target: &str, minutes: u32) -> Result<()> {
    println!("── {target}: {minutes} minutes");
    // The release profile is made for the one product binary; a dozen instrumented ones would link for an hour.
    let fuzz = |task: &str| {
        let mut command = program("cargo", &["+nightly", "fuzz", task, "--features", "libfuzzer", target]);
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        command
    };
    let before = corpus_size(target);
    let mut run = fuzz("run");
    run.arg("--").args([
        format!("-max_total_time={}", minutes * 60),
        format!("-rss_limit_mb={MEMORY_MB}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        "-timeout=10".to_owned(),
        "-print_final_stats=1".to_owned(),
    ]);
    must(run)?;
    // How often a line is reached does not count: corpora of thousands would be committed for it.
    let mut minimise = fuzz("cmin");
    minimise.args(["--", "-use_counters=0"]);
    keeping_named(&corpus(target), || output(minimise).map(drop))?;
    println!("── {target}: clean; corpus {before} → {} inputs\n", corpus_size(target));
    Ok(())
}

fn corpus(target: &str) -> PathBuf {
    root().join("fuzz/corpus").join(target)
}

fn corpus_size(target: &str) -> usize {
    std::fs::read_dir(corpus(target)).map_or(0, Iterator::count)
}

/// Minimises a corpus; libFuzzer then names every input it keeps after its SHA-1. Inputs with another name come back, and
/// where one of them was kept it does not stand there twice.
fn keeping_named(corpus: &Path, minimise: impl FnOnce() -> Result<()>) -> Result<()> {
    let named: Vec<_> = inputs(corpus)?.into_iter().filter(|(path, _)| !named_by_libfuzzer(path)).collect();
    minimise()?;
    for (path, input) in inputs(corpus)? {
        if named_by_libfuzzer(&path) && named.iter().any(|(_, seed)| *seed == input) {
            std::fs::remove_file(&path)?;
        }
    }
    named.iter().try_for_each(|(path, input)| std::fs::write(path, input))?;
    Ok(())
}

fn inputs(corpus: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(corpus).with_context(|| format!("{} cannot be read", corpus.display()))? {
        let path = entry?.path();
        let input = std::fs::read(&path)?;
        found.push((path, input));
    }
    Ok(found)
}

fn named_by_libfuzzer(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.len() == 40 && name.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    #[test]
    fn minimising_keeps_the_named_seeds_and_nothing_twice() {
        let corpus = tempfile::tempdir().unwrap();
        let [first, second, third] = ["1", "2", "3"].map(|digit| digit.repeat(40));
        let put = |name: &str, input: &str| std::fs::write(corpus.path().join(name), input).unwrap();
        put("aud_list", "seed");
        put("bom", "dull");
        put(&first, "found before");
        super::keeping_named(corpus.path(), || {
            for name in ["aud_list", "bom", &first] {
                std::fs::remove_file(corpus.path().join(name)).unwrap();
            }
            put(&second, "seed");
            put(&third, "found");
            Ok(())
        })
        .unwrap();
        let mut left = super::inputs(corpus.path()).unwrap();
        left.sort();
        let left: Vec<_> = left.iter().map(|(path, input)| (path.file_name().unwrap(), input.as_slice())).collect();
        let expected: [(&OsStr, &[u8]); 3] =
            [(third.as_ref(), b"found"), ("aud_list".as_ref(), b"seed"), ("bom".as_ref(), b"dull")];
        assert_eq!(left, expected);
    }
}
