//! `countersign dev`: the whole product in one process, with nothing to configure and nothing left behind.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use net::settings::{Limits, ServerSettings, Timeouts};
use proxy::clock::UnixMs;

use crate::cli::DevArgs;
use crate::commands::run::OfRunning;
use crate::config::{self, LogFormat, LogLevel, LogSettings};
use crate::dev::issuer::{Documents, Issuer};
use crate::dev::orders::Orders;
use crate::dev::{self, Files, Places};
use crate::exit::Exit;
use crate::operator::{self, Answers, Operator, Question};
use crate::running::Running;
use crate::{commands, serve, telemetry};

const DEMO_DRAIN: Duration = Duration::from_millis(100);

pub fn run(args: &DevArgs) -> anyhow::Result<Exit> {
    telemetry::start_logs(&LogSettings { format: Some(LogFormat::Human), level: LogLevel::Warn });
    let folder = Folder::make(args.state.as_deref())?;
    let issuer = Arc::new(OnceLock::new());
    let minter = Arc::new(OnceLock::new());
    let (of_issuer, of_orders) = (Arc::clone(&issuer), Arc::clone(&minter));
    let issuer_server = net::Server::start(demo_server(), move |_| Documents(Arc::clone(&of_issuer)))?;
    let orders_server = net::Server::start(demo_server(), move |_| Orders { minter: Arc::clone(&of_orders) })?;
    let made = Issuer::new(first(&issuer_server)?)?;
    let demo = issuer.get_or_init(|| made);
    let orders_url = format!("http://{}", first(&orders_server)?);
    let edge = listen(args.listen);
    let places = Places { edge: &edge, issuer: demo.url(), orders: &orders_url };
    let files = dev::write_files(&folder.path, &places)?;
    let loaded = match config::load(&files.platform, &config::Disk) {
        Ok(loaded) => loaded,
        Err(problems) => {
            return Ok(commands::refuse(&problems, false, &mut anstream::stderr())?);
        }
    };
    let watched = loaded.watched.clone();
    let running = Running::start(loaded)
        .with_context(|| format!("is something else on {}? Try --listen 127.0.0.1:0", args.listen))?;
    minter.get_or_init(|| running.minter());
    let exit_after = args.exit_after.map(Duration::from_secs);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let answers = Arc::new(OfDev { running: OfRunning::of(&running), issuer: Arc::clone(&issuer) });
        let _operator = Operator::start(&folder.path, &commands::run::facts(&running), answers)?;
        wait_for_keys(&running.keys()).await;
        announce(args.json, &running, &places, &files)?;
        serve::until_stopped(running, &files.platform, watched, exit_after).await
    })?;
    issuer_server.drain(DEMO_DRAIN);
    orders_server.drain(DEMO_DRAIN);
    Ok(Exit::Good)
}

/// The first request must find the demo issuer's keys; they are a loopback fetch away.
async fn wait_for_keys(keys: &control::Keys) {
    let there = || keys.key_report().issuers.iter().all(|issuer| issuer.keys.age_s.is_some());
    for _ in 0..200 {
        if there() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tracing::warn!("the demo issuer's keys are not there yet; the first requests may answer 503");
}

/// The state folder: made for this run and removed at its end, unless it was named.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn make(named: Option<&Path>) -> anyhow::Result<Folder> {
        let path = named.map_or_else(operator::dev_folder, Path::to_owned);
        let temporary = named.is_none();
        operator::refuse_second(&path)
            .map_err(|error| anyhow::anyhow!("{error}; a second demo also needs --listen 127.0.0.1:0"))?;
        if temporary && path.exists() {
            operator::make_private(&path)?;
            std::fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove the remains in `{}`", path.display()))?;
        }
        operator::make_private(&path)?;
        let path = std::fs::canonicalize(&path)?;
        Ok(Folder { path, temporary })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed now is removed by the next start.
            let _removed = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// `localhost` is two addresses; a browser or curl tries ::1 first.
fn listen(asked: SocketAddr) -> Vec<SocketAddr> {
    let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, asked.port()));
    let both = asked.ip() == std::net::Ipv4Addr::LOCALHOST && asked.port() != 0;
    if both && std::net::TcpListener::bind(v6).is_ok() { vec![asked, v6] } else { vec![asked] }
}

fn demo_server() -> ServerSettings {
    ServerSettings {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        tls: None,
        preamble: None,
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        workers: 1,
    }
}

fn first(server: &net::Server) -> anyhow::Result<SocketAddr> {
    server.addresses().first().copied().context("the demo has no address")
}

fn announce(json: bool, running: &Running, places: &Places<'_>, files: &Files) -> anyhow::Result<()> {
    let edge = running.edge_addresses().first().copied().context("the edge has no address")?;
    let host = if edge.ip().is_loopback() { format!("localhost:{}", edge.port()) } else { edge.to_string() };
    let edge_url = format!("http://{host}");
    let admin = running.admin_addresses().first().map(ToString::to_string).unwrap_or_default();
    let mut out = anstream::stdout().lock();
    if json {
        let ready = serde_json::json!({
            "event": "ready", "edge": edge_url, "issuer": places.issuer, "orders": places.orders,
            "admin": format!("http://{admin}"), "state": running.state, "config": files.platform,
        });
        writeln!(out, "{ready}")?;
        return Ok(out.flush()?);
    }
    let name = own_name();
    let dev_state = if running.state == canonical(&operator::dev_folder()) {
        String::new()
    } else {
        format!(" --state {}", running.state.display())
    };
    write!(
        out,
        "\n  \x1b[1mcountersign dev\x1b[0m   everything in this process; Ctrl-C leaves nothing behind\n\n\
         \x20 edge     {edge_url}\n\
         \x20 issuer   {issuer}   people: ana (support), bo (finance); agent: report-bot\n\
         \x20 orders   {orders}   the demo service behind the edge\n\
         \x20 metrics  http://{admin}/metrics\n\
         \x20 rules    {rules}   edit and save: loaded again at once\n\n\
         \x1b[1mTry\x1b[0m\n\
         \x20 1. Ana may read orders:\n\
         \x20    curl -H \"Authorization: Bearer $({name} token ana{dev_state})\" {host}/orders/42\n\
         \x20 2. Bo may not, and is told a decision id:\n\
         \x20    curl -i -H \"Authorization: Bearer $({name} token bo{dev_state})\" {host}/orders/42\n\
         \x20 3. Ask why:\n\
         \x20    {name} why last{dev_state}\n\n\
         ready {edge_url}\n",
        issuer = places.issuer,
        orders = places.orders,
        rules = files.service.display(),
    )?;
    Ok(out.flush()?)
}

fn canonical(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// How this program is called: by name when the shell finds it, else by path.
fn own_name() -> String {
    let own = std::env::current_exe().unwrap_or_else(|_| "countersign".into());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("countersign")).find(|file| file.is_file());
    let found = found.and_then(|file| std::fs::canonicalize(file).ok());
    if found.is_some_and(|file| file == own) { "countersign".into() } else { own.display().to_string() }
}

struct OfDev {
    running: OfRunning,
    issuer: Arc<OnceLock<Issuer>>,
}

impl Answers for OfDev {
    fn answer(&self, question: Question) -> Result<serde_json::Value, String> {
        match question {
            Question::Token { name, agent } => {
                let issuer = self.issuer.get().ok_or("the demo issuer is not ready yet")?;
                let token = issuer.token(&name, agent.as_deref(), UnixMs::now().seconds());
                token.map(serde_json::Value::String).map_err(|error| error.to_string())
            }
            other => self.running.answer(other),
        }
    }
}
