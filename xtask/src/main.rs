//! The project's own tasks: `cargo xtask test` is everything CI runs, `tidy`, `fuzz` and `bench` are its parts and tools.
//! It never ships, and nothing in the product depends on it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks on its standard streams")]

mod autobahn;
mod bench;
mod dependencies;
mod dist;
mod edge;
mod examples;
mod fuzz;
mod h2spec;
mod origin;
mod peers;
mod report;
mod run;
mod test;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Everything that checks, measures and proves Countersign")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything CI runs: installs the peers, then format, lints, tidy, tests, documentation, corpora, examples
    Test {
        /// Only what needs no peer program: for the edit-compile loop
        #[arg(long)]
        quick: bool,
    },
    /// The rules of the house that no compiler checks: crate edges, headers, file sizes, purity, links
    Tidy,
    /// The Txn-Token examples in Rust, Python and Node against good and faulty tokens
    Examples,
    /// HTTP/2 conformance of the edge, judged by h2spec
    H2spec,
    /// The release as an archive and a Debian package, in `target/dist`
    Dist {
        /// Package this binary instead of building one for release
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
        /// Package the debug binary twice, install it into a throw-away copy of this system, and look at everything
        #[arg(long, conflicts_with = "binary")]
        check: bool,
    },
    /// WebSocket through the edge, judged by the Autobahn testsuite: no case worse than without the edge
    Autobahn {
        /// Also the slow groups, for an hour: large messages and compression
        #[arg(long)]
        all: bool,
        /// Only these, as the suite counts them: `12.1.*`, `9.*`, `6.4.1`
        #[arg(long, value_delimiter = ',', conflicts_with = "all")]
        cases: Vec<String>,
    },
    /// Install the peer programs that tests and benchmarks talk to, and nothing else
    Peers {
        /// Those that `bench` needs instead (Envoy, HAProxy, wrk, nghttpd)
        #[arg(long)]
        bench: bool,
    },
    /// Run the fuzz targets with the nightly toolchain, then minimise and keep their corpora
    Fuzz {
        /// Minutes for each target
        minutes: u32,
        /// One target; absent = all, one after the other
        target: Option<String>,
    },
    /// Measure against the peers and write `target/reports/NAME.json`
    Bench {
        #[command(subcommand)]
        which: Bench,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// CPU time per request, latency and memory of the edge against nginx, HAProxy and Envoy: about twenty minutes
    Edge(bench::edge::Options),
}

fn main() -> std::process::ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Test { quick } => test::run(quick),
        Task::Tidy => tidy::run(),
        Task::Examples => examples::check(),
        Task::H2spec => h2spec::check(),
        Task::Dist { check: true, .. } => dist::check(),
        Task::Dist { binary, .. } => dist::run(binary.as_deref()),
        Task::Autobahn { all, cases } => autobahn::check(all, &cases),
        Task::Peers { bench } => peers::install(if bench { peers::Purpose::Bench } else { peers::Purpose::Test }),
        Task::Fuzz { minutes, target } => fuzz::run(minutes, target.as_deref()),
        Task::Bench { which: Bench::Edge(options) } => bench::edge::run(&options),
    }
}
