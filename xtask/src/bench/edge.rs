//! `cargo xtask bench edge`: CPU time per request, latency and memory of the edge, beside nginx, HAProxy and Envoy. Each proxy has
//! one worker on core 1 unless the case says otherwise; the load and the origin share core 0. Nothing leaves loopback; every run
//! is bounded in time.
mod figures;
mod load;
mod memory;
mod rate;
mod websocket;

use super::process::{Running, ticks_per_s};
use crate::peers::{Purpose, install, python_of};
use crate::report::Report;
use crate::run::{cargo, must, output, program, root, step, target_folder};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use figures::{
    CASES, ECHO_ORIGIN_PORT, FIGURES, Figure, GRPC, GRPC_ORIGIN_PORT, Load, MEMORY, MTLS_ORIGIN_PORT, ORIGIN_PORT,
    OURS, PROCESSES, Process, SUBJECTS, Token,
};
use load::{BODY, BOTH_CORES, LOAD_CORE, Material, PROXY_CORE};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const COLD_TOKENS: u32 = 60_000;

#[derive(Args)]
pub(crate) struct Options {
    /// Interleaved rounds; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Seconds of load for each figure of a round
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=30))]
    seconds: u32,
    /// Only these proxies; a comparison with one that is left out is left out, too
    #[arg(long, value_delimiter = ',', value_parser = SUBJECTS)]
    only: Vec<String>,
    /// Only these cases (docs/performance.md says what each asks)
    #[arg(long, value_delimiter = ',', value_parser = CASES)]
    cases: Vec<String>,
    /// Measure this binary instead of building one for release
    #[arg(long)]
    binary: Option<PathBuf>,
}

impl Options {
    fn has_case(&self, key: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|case| case == key)
    }

    fn has_subject(&self, subject: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == subject)
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        std::thread::available_parallelism()?.get() >= 2,
        "the bench needs two cores: one for the proxy, one for the load"
    );
    step("peers", "install what the message names, then run again", || install(Purpose::Bench))?;
    let bench = Bench::prepare(options)?;
    let mut report = Report::new("edge");
    if options.has_case(MEMORY) {
        memory::measure(&bench, &mut report)?;
    }
    bench.rounds(&mut report)?;
    figures::targets(&mut report);
    report.publish()?;
    fs::remove_dir_all(&bench.folder).context("cannot remove the bench folder")
}

struct Bench<'a> {
    options: &'a Options,
    folder: PathBuf,
    binary: PathBuf,
    token: String,
    ticks_per_s: f64,
    echo: websocket::Origin,
}

impl Bench<'_> {
    fn prepare(options: &Options) -> Result<Bench<'_>> {
        let folder = root().join("target/bench/edge");
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder)?;
        if options.binary.is_none() && options.has_subject(OURS) {
            step("build", "mend the build", || must(cargo(&["build", "--release", "--locked", "--package", OURS])))?;
        }
        let built = || target_folder().join("release").join(OURS);
        let binary = options.binary.as_ref().map_or_else(|| Ok(built()), std::path::absolute)?;
        let text = folder.to_string_lossy().into_owned();
        must(program(python_of("bench"), &["bench/edge/prepare.py", &text, &COLD_TOKENS.to_string()]))?;
        fill(&root().join("bench/edge"), &folder, &text)?;
        for (file, workers) in [("envoy.json", "one"), ("envoy-two.json", "two")] {
            let made = output(program(python_of("bench"), &["bench/edge/make_envoy.py", &text, workers]))?;
            fs::write(folder.join(file), made)?;
        }
        let nginx = fs::read_to_string(folder.join("nginx.conf"))?;
        let many = nginx.replace("worker_connections 8192", "worker_connections 16384");
        fs::write(folder.join(format!("{}.conf", memory::NGINX_FOR_MANY)), many)?;
        let token = fs::read_to_string(folder.join("one.token"))?;
        let echo = websocket::Origin::bind(ECHO_ORIGIN_PORT)?;
        Ok(Bench { options, folder, binary, token, ticks_per_s: ticks_per_s()?, echo })
    }

    /// Whether a process, or whom it belongs to, is among what `--only` names.
    fn wants(&self, process: &str) -> bool {
        SUBJECTS.iter().any(|subject| process.starts_with(subject) && self.options.has_subject(subject))
    }

    fn figures(&self) -> Vec<&'static Figure> {
        let wanted =
            |figure: &&Figure| self.options.has_case(figure.case.key) && self.options.has_subject(figure.subject);
        FIGURES.iter().filter(wanted).collect()
    }

    fn start(&self, name: &str) -> Result<Running> {
        let configuration = |end: &str| self.folder.join(format!("{name}.{end}")).to_string_lossy().into_owned();
        let like = name.strip_suffix("-many").unwrap_or(name);
        let process = PROCESSES.iter().find(|process| process.name == like).context("not in the table")?;
        let Process { ports, workers, .. } = process;
        let words: Vec<String> = match name.split('-').next() {
            Some("nginx") => vec!["nginx".into(), "-c".into(), configuration("conf")],
            Some("haproxy") => vec!["haproxy".into(), "-db".into(), "-f".into(), configuration("cfg")],
            Some("envoy") => {
                let envoy = python_of("bench").with_file_name("envoy").to_string_lossy().into_owned();
                let fixed = ["--use-dynamic-base-id", "--log-level", "error", "-c"].map(String::from);
                let workers = ["--concurrency".to_owned(), workers.to_string()];
                [&[envoy], &workers[..], &fixed, &[configuration("json")]].concat()
            }
            _ => vec![self.binary.to_string_lossy().into_owned(), "run".into(), "-c".into(), configuration("yaml")],
        };
        let cores = if *workers == 1 { PROXY_CORE } else { BOTH_CORES };
        Running::start(name, &words, cores, ports, &self.folder.join(format!("{name}.out")))
    }

    fn start_origin(&self) -> Result<Running> {
        let words =
            ["nginx".to_owned(), "-c".to_owned(), self.folder.join("upstream.conf").to_string_lossy().into_owned()];
        let ports = [ORIGIN_PORT, MTLS_ORIGIN_PORT];
        Running::start("origin", &words, LOAD_CORE, &ports, &self.folder.join("origin.out"))
    }

    /// nghttpd, which answers every call with the message and the trailer of a good one.
    fn start_grpc_origin(&self) -> Result<Running> {
        let file = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let types = format!("--mime-types-file={}", file("grpc.types"));
        let port = GRPC_ORIGIN_PORT.to_string();
        let fixed = ["--no-tls", "--no-content-length", "--trailer", "grpc-status: 0", "-a", "127.0.0.1", &port];
        let words =
            [&["nghttpd".to_owned(), types, "-d".to_owned(), file("grpc")], &fixed.map(String::from)[..]].concat();
        Running::start("gRPC origin", &words, LOAD_CORE, &[GRPC_ORIGIN_PORT], &self.folder.join("grpc-origin.out"))
    }

    fn rounds(&self, report: &mut Report) -> Result<()> {
        let figures = self.figures();
        if figures.is_empty() {
            return Ok(());
        }
        let _origin = self.start_origin()?;
        let has = |load: Load| figures.iter().any(|figure| figure.case.load == load);
        let _grpc_origin = has(GRPC.load).then(|| self.start_grpc_origin()).transpose()?;
        if has(Load::Messages) || has(Load::FixedRate) {
            // From here on this process is load, too: its threads inherit the core.
            output(program("taskset", &["-cp", LOAD_CORE, &std::process::id().to_string()]))?;
        }
        let mut processes = self.start_all(&figures)?;
        for figure in &figures {
            self.warm_up(figure).with_context(|| format!("{}, {}", figure.subject, figure.case.title))?;
        }
        let mut measured: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for round in 1..=self.options.rounds {
            println!("── round {round} of {}", self.options.rounds);
            for (index, figure) in figures.iter().enumerate() {
                if figure.token() == Token::EachNew {
                    for name in figure.processes {
                        processes.remove(name);
                        processes.insert(name, self.start(name)?);
                    }
                }
                let value = self.measure(figure, &processes);
                let value = value.with_context(|| format!("{}, {}", figure.subject, figure.case.title))?;
                measured.entry(index).or_default().push(value);
            }
        }
        for (index, figure) in figures.iter().enumerate() {
            let rounds = measured.get(&index).map_or(&[] as &[f64], Vec::as_slice);
            report.add(figure.case.title, figure.subject, figure.unit(), rounds);
        }
        Ok(())
    }

    fn start_all(&self, figures: &[&Figure]) -> Result<BTreeMap<&'static str, Running>> {
        let needed = |process: &&Process| figures.iter().any(|figure| figure.processes.contains(&process.name));
        PROCESSES.iter().filter(needed).map(|process| Ok((process.name, self.start(process.name)?))).collect()
    }

    /// Looks at one answer, then fills pools and caches.
    fn warm_up(&self, figure: &Figure) -> Result<()> {
        if matches!(figure.case.load, Load::Requests(_) | Load::Http2 | Load::Grpc) {
            self.material().check(figure)?;
        }
        if figure.token() != Token::EachNew {
            self.load(figure, 1)?;
        }
        Ok(())
    }

    fn material(&self) -> Material<'_> {
        Material { folder: &self.folder, token: &self.token }
    }

    /// One figure of one round, in its unit.
    fn measure(&self, figure: &Figure, processes: &BTreeMap<&'static str, Running>) -> Result<f64> {
        let measured: Vec<&Running> = figure.processes.iter().filter_map(|name| processes.get(name)).collect();
        let cpu_s = || measured.iter().map(|running| running.cpu_s(self.ticks_per_s)).sum::<Result<f64>>();
        let before = cpu_s()?;
        let done = self.load(figure, self.options.seconds)?;
        let cpu_us = (cpu_s()? - before) * 1e6 / done.count;
        let value = done.p99_us.unwrap_or(cpu_us);
        let (title, subject, unit) = (figure.case.title, figure.subject, figure.unit());
        println!("   {title:<32} {subject:<12} {value:7.1} {unit}, {} done", done.count);
        Ok(value)
    }

    fn load(&self, figure: &Figure, seconds: u32) -> Result<Done> {
        let (port, path) = figure.port_and_path().context("no port")?;
        let count = match figure.case.load {
            Load::Requests(_) => self.material().wrk(figure, seconds)?,
            Load::Http2 | Load::Grpc => self.material().h2load(figure, seconds)?,
            Load::Messages => self.echo.messages(port, path, seconds)?,
            Load::FixedRate => {
                let (count, p99_us) = rate::run(port, path, &BODY, seconds)?;
                return Ok(Done { count, p99_us: Some(p99_us) });
            }
        };
        Ok(Done { count, p99_us: None })
    }
}

/// What a load got done.
struct Done {
    count: f64,
    p99_us: Option<f64>,
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
        let text = fs::read_to_string(&path)?.replace("@DIR@", folder);
        fs::write(target, text.replace("@BODY@", &String::from_utf8_lossy(&BODY)))?;
    }
    Ok(())
}
