//! `countersign top`: what a running process does right now, per service, and its latest refusals. It looks at the metrics
//! and the record that are there anyway, and changes nothing.
use super::table::{Cell, Table, Tone};
use crate::cli::TopArgs;
use crate::exit::Exit;
use crate::meter::{Between, Look, Service};
use crate::operator::{self, Facts};
use crate::text::{clean, moment};
use anyhow::Context as _;
use net::client::{Get, get};
use proxy::audit::read::newest;
use proxy::audit::record::{Decision, Record};
use std::io::Write;
use std::time::{Duration, Instant};

const METRICS_BYTES_MAX: usize = 16 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);
const REFUSALS_SHOWN: usize = 8;
/// How much of the end of the record is looked through for them.
const RECORD_BYTES: u64 = 512 * 1024;
/// Home, and everything below and behind wiped.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// `live`: the output is a terminal, which can be painted over.
pub fn run(args: &TopArgs, live: bool, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let folder = operator::find(args.state.state.as_deref());
    let facts = operator::facts(&folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let look = || runtime.block_on(look(&facts));
    let interval = Duration::from_secs(args.interval);
    let (mut earlier, mut at) = (look()?, Instant::now());
    loop {
        std::thread::sleep(interval);
        let (now, looked) = (look()?, Instant::now());
        let between = now.between(&earlier, looked.duration_since(at).as_secs_f64());
        let refusals = refusals(&facts);
        if args.json {
            writeln!(out, "{}", json(&between, &refusals))?;
        } else {
            write!(out, "{}{}", if live && !args.once { CLEAR } else { "" }, screen(&between, &refusals))?;
        }
        out.flush()?;
        if args.once {
            return Ok(Exit::Good);
        }
        (earlier, at) = (now, looked);
    }
}

async fn look(facts: &Facts) -> anyhow::Result<Look> {
    let url = format!("http://{}/metrics", facts.admin);
    let got = get(Get {
        url: &url,
        etag: None,
        bytes_max: METRICS_BYTES_MAX,
        connect_timeout: PATIENCE,
        total_timeout: PATIENCE,
        roots_pem: None,
        public_addresses_only: false,
    });
    let got = got.await.with_context(|| format!("the process does not answer at {url}: is it still running?"))?;
    Ok(Look::parse(&String::from_utf8_lossy(&got.body)))
}

/// The latest ones, newest first. A record that cannot be read hides no numbers.
fn refusals(facts: &Facts) -> Vec<Record> {
    let is_refusal = |record: &Record| !matches!(record.decision, Decision::Permit | Decision::Preflight);
    newest(&facts.audit, RECORD_BYTES, REFUSALS_SHOWN, is_refusal).unwrap_or_default()
}

fn json(between: &Between, refusals: &[Record]) -> serde_json::Value {
    let ids: Vec<&str> = refusals.iter().map(|record| record.id.as_str()).collect();
    let mut document = serde_json::json!(between);
    if let Some(object) = document.as_object_mut() {
        object.insert("latest_refusals".into(), ids.into());
    }
    document
}

fn screen(between: &Between, refusals: &[Record]) -> String {
    let hits = between.token_cache_hits.map_or("-".to_owned(), |hits| format!("{:.0} %", hits * 100.0));
    let mut text = format!(
        "in flight {}   WebSockets {}   tokens known {hits}   refused early {:.1}/s   epoch {}\n\n",
        between.requests_in_flight, between.websockets_open, between.refused_early_per_s, between.epoch
    );
    let mut table = Table::with_head(&["SERVICE", "REQ/S", "ANSWERED/S", "REFUSED/S", "P50 MS", "P99 MS", "MOSTLY"]);
    for service in &between.services {
        table.row(row(service));
    }
    text.push_str(&table.render(0));
    if !refusals.is_empty() {
        text.push_str("\n\x1b[1mlatest refusals\x1b[0m  (countersign why ID)\n");
        let mut table = Table::default();
        for record in refusals {
            let who = record.principal.as_ref().map_or("nobody", |principal| &principal.subject);
            table.row(vec![
                Cell::new(moment(record.time_ms), Tone::Dim),
                record.id.as_str().into(),
                record.status.to_string().into(),
                Cell::new(record.reason.as_deref().unwrap_or("-"), Tone::Bad),
                clean(&format!("{} {}{}", record.request.method, record.request.host, record.request.path)).into(),
                clean(who).into(),
            ]);
        }
        text.push_str(&table.render(0));
    }
    text
}

fn row(service: &Service) -> Vec<Cell> {
    let ms = |ms: Option<f64>| match ms {
        None => "-".to_owned(),
        Some(ms) if ms.is_infinite() => "> 10 s".to_owned(),
        Some(ms) => format!("≤ {ms}"),
    };
    let name = if service.service == proxy::metrics::NO_SERVICE { "(none)" } else { &service.service };
    let refused = if service.refused_per_s > 0.0 { Tone::Bad } else { Tone::Dim };
    vec![
        clean(name).into(),
        format!("{:.1}", service.requests_per_s).into(),
        format!("{:.1}", service.answered_per_s).into(),
        Cell::new(format!("{:.1}", service.refused_per_s), refused),
        ms(service.p50_ms).into(),
        ms(service.p99_ms).into(),
        Cell::new(service.reason.as_deref().unwrap_or_default(), Tone::Bad),
    ]
}
