//! `cargo xtask test`: every check of the project, one step after the other; the first failure ends it and says what to do.
//! It skips nothing: a missing peer program is a failure that names its install line.
use crate::run::{cargo, must, step};
use crate::{autobahn, dependencies, dist, examples, h2spec, peers, tidy};
use anyhow::Result;
use std::time::Instant;

pub(crate) fn run(quick: bool) -> Result<()> {
    let started = Instant::now();
    if !quick {
        step("peers", "install what the message names, then run again", || peers::install(peers::Purpose::Test))?;
    }
    step("format", "run `cargo fmt --all`", || must(cargo(&["fmt", "--all", "--check"])))?;
    step("tidy", "each line says what to mend", tidy::run)?;
    step("dependencies", "change the dependency or `deny.toml`, with a reason", dependencies::check_graph)?;
    step("lints", "mend what clippy shows, or `#[expect(…, reason = \"…\")]` it", lints)?;
    step("documentation", "mend the doc comment that rustdoc names", documentation)?;
    if quick {
        step("unit tests", "run the failing test alone with `cargo test -p CRATE NAME`", unit_tests)?;
    } else {
        step("tests", "run the failing test alone with `cargo test -p CRATE NAME`", tests)?;
        step("txn-token examples", "run the example by hand with the token it refused", examples::check)?;
        step("packages", "`cargo xtask dist --check` runs this step alone", dist::check)?;
        step("h2spec", "`target/peers/bin/h2spec -h HOST -p PORT CASE` runs one case alone", h2spec::check)?;
        step("autobahn", "`target/autobahn/reports/index.html` tells of each case", || autobahn::check(false, &[]))?;
    }
    println!("all steps passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn lints() -> Result<()> {
    must(cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

fn documentation() -> Result<()> {
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    must(doc)
}

/// Unit, integration and documentation tests, and the replay of every fuzz corpus.
fn tests() -> Result<()> {
    must(cargo(&["test", "--workspace", "--locked"]))
}

fn unit_tests() -> Result<()> {
    must(cargo(&["test", "--workspace", "--locked", "--lib", "--bins"]))
}
