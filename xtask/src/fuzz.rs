//! Runs fuzz targets for a given time, then minimises each corpus and keeps it in `fuzz/corpus`. A crash ends the run and
//! leaves its input in `fuzz/artifacts`. It never deletes an input that reaches code no other input reaches.
use crate::run::{must, output, program, root, succeeds};
use anyhow::{Context as _, Result, bail};

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
    output(fuzz("cmin"))?;
    println!("── {target}: clean; corpus {before} → {} inputs\n", corpus_size(target));
    Ok(())
}

fn corpus_size(target: &str) -> usize {
    std::fs::read_dir(root().join("fuzz/corpus").join(target)).map_or(0, Iterator::count)
}
