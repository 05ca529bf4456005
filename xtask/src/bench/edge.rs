//! `cargo xtask bench edge`: CPU time per request and memory of the edge, beside nginx, HAProxy and Envoy. Each proxy has one
//! worker on core 1; the load and the origin share core 0. Nothing leaves loopback; every run is bounded in time.
use super::process::{Running, ticks_per_s};
use crate::peers::{Purpose, install, python_of};
use crate::report::Report;
use crate::run::{cargo, must, output, program, root, step, target_folder};
use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const LOAD_CORE: usize = 0;
const PROXY_CORE: usize = 1;
const CONNECTIONS: u32 = 48;
const IDLE: u32 = 1000;
const COLD_TOKENS: u32 = 60_000;
const ORIGIN_PORT: u16 = 19080;
const OURS: &str = "countersign";

#[derive(Args)]
pub(crate) struct Options {
    /// Interleaved rounds; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Seconds of load for each figure of a round
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=30))]
    seconds: u32,
    /// Only these proxies: nginx, haproxy, envoy, countersign
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    None,
    One,
    /// A fresh one for every request, to a proxy that was just started.
    EachNew,
}

/// One figure: a proxy, what is asked of it, and how.
struct Figure {
    case: &'static str,
    proxy: &'static str,
    url: &'static str,
    token: Token,
}

const PLAIN: &str = "plain HTTP/1.1";
const LOGGED: &str = "plain, every request logged";
const TLS: &str = "TLS 1.3";
const ONE: &str = "ES256, one token";
const COLD: &str = "ES256, every token new";
const FULL: &str = "identity-aware, 30 rules";

const fn figure(case: &'static str, proxy: &'static str, url: &'static str, token: Token) -> Figure {
    Figure { case, proxy, url, token }
}

const FIGURES: [Figure; 18] = [
    figure(PLAIN, "nginx", "http://127.0.0.1:19101/open/42", Token::None),
    figure(PLAIN, "haproxy", "http://127.0.0.1:19201/open/42", Token::None),
    figure(PLAIN, "envoy", "http://127.0.0.1:19301/open/42", Token::None),
    figure(PLAIN, OURS, "http://127.0.0.1:19401/open/42", Token::None),
    figure(LOGGED, "nginx", "http://127.0.0.1:19103/open/42", Token::None),
    figure(LOGGED, OURS, "http://127.0.0.1:19401/open/42", Token::None),
    figure(TLS, "nginx", "https://127.0.0.1:19102/open/42", Token::None),
    figure(TLS, "haproxy", "https://127.0.0.1:19202/open/42", Token::None),
    figure(TLS, "envoy", "https://127.0.0.1:19302/open/42", Token::None),
    figure(TLS, "countersign-tls", "https://127.0.0.1:19402/open/42", Token::None),
    figure(ONE, "haproxy", "http://127.0.0.1:19203/signed-in/42", Token::One),
    figure(ONE, "envoy", "http://127.0.0.1:19303/signed-in/42", Token::One),
    figure(ONE, OURS, "http://127.0.0.1:19401/signed-in/42", Token::One),
    figure(COLD, "haproxy", "http://127.0.0.1:19203/signed-in/42", Token::EachNew),
    figure(COLD, "envoy", "http://127.0.0.1:19303/signed-in/42", Token::EachNew),
    figure(COLD, OURS, "http://127.0.0.1:19401/signed-in/42", Token::EachNew),
    figure(FULL, "envoy", "http://127.0.0.1:19304/area-15/42", Token::One),
    figure(FULL, OURS, "http://127.0.0.1:19401/area-15/42", Token::One),
];

/// (program, ports)
const PROXIES: [(&str, &[u16]); 5] = [
    ("nginx", &[19101, 19102, 19103]),
    ("haproxy", &[19201, 19202, 19203]),
    ("envoy", &[19301, 19302, 19303, 19304]),
    (OURS, &[19401]),
    ("countersign-tls", &[19402]),
];

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        std::thread::available_parallelism()?.get() >= 2,
        "the bench needs two cores: one for the proxy, one for the load"
    );
    step("peers", "install what the message names, then run again", || install(Purpose::Bench))?;
    let bench = Bench::prepare(options)?;
    let mut report = Report::new("edge");
    bench.memory(&mut report)?;
    bench.rounds(&mut report)?;
    targets(&mut report);
    report.publish()?;
    fs::remove_dir_all(&bench.folder).context("cannot remove the bench folder")
}

/// What the project promises (`docs/performance.md`).
fn targets(report: &mut Report) {
    report.compare((PLAIN, OURS), (PLAIN, "nginx"), Some(1.15));
    report.compare((LOGGED, OURS), (LOGGED, "nginx"), None);
    report.compare((TLS, OURS), (TLS, "nginx"), Some(1.1));
    report.compare((FULL, OURS), (PLAIN, "nginx"), Some(1.6));
    report.compare((FULL, OURS), (FULL, "envoy"), Some(0.4));
    report.compare((COLD, OURS), (COLD, "envoy"), Some(0.75));
    report.limit("memory, idle", OURS, 20.0);
}

struct Bench<'a> {
    options: &'a Options,
    folder: PathBuf,
    token: String,
    ticks_per_s: f64,
}

impl Bench<'_> {
    fn prepare(options: &Options) -> Result<Bench<'_>> {
        let folder = root().join("target/bench/edge");
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder)?;
        if wanted(options, OURS) {
            step("build", "mend the build", || must(cargo(&["build", "--release", "--locked", "--package", OURS])))?;
        }
        let text = folder.to_string_lossy().into_owned();
        must(program(python_of("bench"), &["bench/edge/prepare.py", &text, &COLD_TOKENS.to_string()]))?;
        fill(&root().join("bench/edge"), &folder, &text)?;
        fs::write(
            folder.join("envoy.json"),
            output(program(python_of("bench"), &["bench/edge/make_envoy.py", &text]))?,
        )?;
        let token = fs::read_to_string(folder.join("one.token"))?;
        Ok(Bench { options, folder, token, ticks_per_s: ticks_per_s()? })
    }

    fn start(&self, proxy: &str) -> Result<Running> {
        let file = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let ours = target_folder().join("release").join(OURS).to_string_lossy().into_owned();
        let envoy = python_of("bench").with_file_name("envoy").to_string_lossy().into_owned();
        let words: Vec<String> = match proxy {
            "nginx" => vec!["nginx".into(), "-c".into(), file("nginx.conf")],
            "haproxy" => vec!["haproxy".into(), "-db".into(), "-f".into(), file("haproxy.cfg")],
            "envoy" => {
                let fixed =
                    ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error", "-c"].map(String::from);
                [vec![envoy], fixed.to_vec(), vec![file("envoy.json")]].concat()
            }
            other => vec![ours, "run".into(), "-c".into(), file(&format!("{other}.yaml"))],
        };
        let ports = PROXIES.iter().find(|(name, _)| *name == proxy).map_or(&[] as &[u16], |(_, ports)| ports);
        Running::start(proxy, &words, PROXY_CORE, ports, &self.folder.join(format!("{proxy}.out")))
    }

    fn start_all(&self) -> Result<BTreeMap<&'static str, Running>> {
        let wanted = PROXIES.iter().filter(|(name, _)| wanted(self.options, name));
        wanted.map(|(name, _)| Ok((*name, self.start(name)?))).collect()
    }

    fn start_origin(&self) -> Result<Running> {
        let words =
            ["nginx".to_owned(), "-c".to_owned(), self.folder.join("upstream.conf").to_string_lossy().into_owned()];
        Running::start("origin", &words, LOAD_CORE, &[ORIGIN_PORT], &self.folder.join("origin.out"))
    }

    /// Resident memory of fresh processes: at rest, and with idle connections.
    fn memory(&self, report: &mut Report) -> Result<()> {
        let _origin = self.start_origin()?;
        for (name, running) in &self.start_all()? {
            report.add("memory, idle", name, "MB", &[running.resident_mb()?]);
        }
        for (case, like) in [("memory, 1,000 idle connections", PLAIN), ("memory, 1,000 idle TLS connections", TLS)] {
            for figure in FIGURES.iter().filter(|figure| figure.case == like && wanted(self.options, figure.proxy)) {
                let running = self.start(figure.proxy)?;
                let resident = self.with_idle_connections(figure, || running.resident_mb())?;
                report.add(case, shown(figure.proxy), "MB", &[resident]);
            }
        }
        Ok(())
    }

    fn with_idle_connections(&self, figure: &Figure, measure: impl FnOnce() -> Result<f64>) -> Result<f64> {
        let (address, path) =
            figure.url.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split_once('/')).context("no port")?;
        let mut command = program(python_of("bench"), &["bench/edge/idle.py", address, &IDLE.to_string()]);
        command.arg(format!("/{path}")).args((figure.case == TLS).then_some("tls"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let measured = if line.trim() == "held" {
            measure()
        } else {
            Err(anyhow::anyhow!("{} refused a connection", figure.proxy))
        };
        drop(child.stdin.take());
        child.wait()?;
        measured
    }

    fn rounds(&self, report: &mut Report) -> Result<()> {
        let _origin = self.start_origin()?;
        let mut proxies = self.start_all()?;
        let figures: Vec<&Figure> = FIGURES.iter().filter(|figure| wanted(self.options, figure.proxy)).collect();
        for figure in figures.iter().filter(|figure| figure.token != Token::EachNew) {
            self.load(figure, 1)?;
        }
        let mut measured: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for round in 1..=self.options.rounds {
            println!("── round {round} of {}", self.options.rounds);
            for (index, figure) in figures.iter().enumerate() {
                if figure.token == Token::EachNew {
                    proxies.remove(figure.proxy);
                    proxies.insert(figure.proxy, self.start(figure.proxy)?);
                }
                let running = proxies.get(figure.proxy).context("not started")?;
                let before = running.cpu_s(self.ticks_per_s)?;
                let requests = self.load(figure, self.options.seconds)?;
                let used_us = (running.cpu_s(self.ticks_per_s)? - before) * 1e6;
                println!(
                    "   {:<26} {:<16} {:6.1} µs, {requests} requests",
                    figure.case,
                    figure.proxy,
                    used_us / requests
                );
                measured.entry(index).or_default().push(used_us / requests);
            }
        }
        for (index, figure) in figures.iter().enumerate() {
            report.add(
                figure.case,
                shown(figure.proxy),
                "µs CPU/request",
                measured.get(&index).map_or(&[], Vec::as_slice),
            );
        }
        Ok(())
    }

    /// Runs the load and gives the number of answered requests; any answer but 200 is an error.
    fn load(&self, figure: &Figure, seconds: u32) -> Result<f64> {
        let (duration, connections) = (format!("-d{seconds}s"), format!("-c{CONNECTIONS}"));
        let mut wrk = program("taskset", &["-c", &LOAD_CORE.to_string(), "wrk", "-t1", &connections, &duration]);
        match figure.token {
            Token::None => drop(wrk.arg(figure.url)),
            Token::One => drop(wrk.arg("-H").arg(format!("Authorization: Bearer {}", self.token)).arg(figure.url)),
            Token::EachNew => {
                wrk.arg("-s")
                    .arg(self.folder.join("cold.lua"))
                    .arg(figure.url)
                    .arg("--")
                    .arg(self.folder.join("cold.tokens"));
            }
        }
        answered(&output(wrk)?).with_context(|| format!("{}, {}", figure.proxy, figure.case))
    }
}

fn wanted(options: &Options, proxy: &str) -> bool {
    options.only.is_empty() || options.only.iter().any(|only| only == shown(proxy))
}

/// Our two processes are one subject.
fn shown(proxy: &str) -> &str {
    proxy.trim_end_matches("-tls")
}

/// Copies the configurations, with the folder's path and the origin's body filled in.
fn fill(from: &Path, to: &Path, folder: &str) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            fill(&path, &target, folder)?;
            continue;
        }
        let text = fs::read_to_string(&path)?.replace("@DIR@", folder).replace("@BODY@", &"x".repeat(1024));
        fs::write(target, text)?;
    }
    Ok(())
}

/// The count in wrk's report: `  181273 requests in 4.00s, 210.33MB read`.
fn answered(report: &str) -> Result<f64> {
    for bad in ["Non-2xx", "Socket errors"] {
        if let Some(line) = report.lines().find(|line| line.contains(bad)) {
            bail!("{}", line.trim());
        }
    }
    let line = report.lines().find_map(|line| line.trim().split_once(" requests in "));
    line.context("wrk reported no requests")?.0.parse().context("wrk's count")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_reports() {
        let check = |report: &str, expected: Option<f64>| assert_eq!(answered(report).ok(), expected, "{report}");
        check("Running 4s test\n  181273 requests in 4.00s, 210.33MB read\nRequests/sec: 1\n", Some(181_273.0));
        check("  10 requests in 4.00s, 2MB read\n  Non-2xx or 3xx responses: 10\n", None);
        check("  10 requests in 4.00s\n  Socket errors: connect 0, read 1, write 0, timeout 0\n", None);
        check("", None);
    }

    #[test]
    fn every_figure_has_its_proxy() {
        for figure in &FIGURES {
            assert!(PROXIES.iter().any(|(name, _)| *name == figure.proxy), "{}", figure.proxy);
        }
    }
}
