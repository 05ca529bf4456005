//! `countersign check`: every problem of the files, or what would run. Starts nothing and calls nobody.
use super::counted;
use super::table::{Cell, Table, Tone};
use crate::cli::CheckArgs;
use crate::config::{self, Files, Loaded, Problem, Problems};
use crate::exit::Exit;
use serde_json::{Value, json};
use std::io::Write;

pub fn run(args: &CheckArgs, files: &dyn Files, out: &mut dyn Write) -> std::io::Result<Exit> {
    let loaded = config::load(&args.config.path, files);
    if args.json {
        let document = match &loaded {
            Ok(loaded) => {
                json!({ "ok": true, "problems": loaded.warnings.iter().collect::<Vec<_>>(), "summary": summary(loaded) })
            }
            Err(problems) => json!({ "ok": false, "problems": problems.iter().collect::<Vec<_>>() }),
        };
        writeln!(out, "{document:#}")?;
    } else {
        match &loaded {
            Ok(loaded) => write_summary(&args.config.path.display().to_string(), loaded, out)?,
            Err(problems) => write!(out, "{}\n{}\n", problems.render(), headline(problems))?,
        }
    }
    Ok(if loaded.is_ok() { Exit::Good } else { Exit::Bad })
}

/// `5 problems in 2 files; nothing was changed`.
pub(crate) fn headline(problems: &Problems) -> String {
    let mut files: Vec<&str> = problems.iter().filter(|p| p.is_error()).map(|p| p.file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    let errors = counted(problems.errors(), "problem");
    let warnings = problems.iter().count() - problems.errors();
    let warned = if warnings == 0 { String::new() } else { format!(", {}", counted(warnings, "warning")) };
    format!("\x1b[1;31m{errors}\x1b[0m in {}{warned}", counted(files.len(), "file"))
}

fn write_summary(path: &str, loaded: &Loaded, out: &mut dyn Write) -> std::io::Result<()> {
    for warning in loaded.warnings.iter() {
        writeln!(out, "{}", Problem::render(warning))?;
    }
    let services = counted(loaded.desired.services.len(), "service");
    let warned = match loaded.warnings.iter().count() {
        0 => String::new(),
        n => format!(", {}", counted(n, "warning")),
    };
    writeln!(out, "\x1b[1;32mok\x1b[0m: {} with {services}{warned}", config::problem::printable(path))?;
    write!(out, "{}", process_table(loaded).render(2))?;
    write!(out, "\n{}", services_table(loaded).render(2))
}

fn process_table(loaded: &Loaded) -> Table {
    let mut table = Table::default();
    let doors = [
        ("edge", loaded.edge.as_ref().map(|edge| &edge.server)),
        ("authz", loaded.authz.as_ref().map(|authz| &authz.server)),
        ("token endpoint", loaded.token_endpoint.as_ref().map(|door| &door.server)),
    ];
    for (name, server) in doors {
        let Some(server) = server else { continue };
        let demands_svids = |tls: &net::settings::TlsIdentity| {
            tls.client_certificates.as_ref().is_some_and(|clients| clients.svids_of.is_some())
        };
        let tls = match &server.tls {
            Some(tls) if demands_svids(tls) => "mutual TLS",
            Some(_) => "TLS",
            None => "plain HTTP",
        };
        let sockets = loaded.authz.iter().filter(|_| name == "authz").flat_map(|authz| &authz.sockets);
        let sockets = sockets.map(|path| format!("unix:{}", path.display()));
        let listen: Vec<String> = server.listen.iter().map(ToString::to_string).chain(sockets).collect();
        table.row(vec![Cell::new(name, Tone::Dim), listen.join(", ").into(), tls.into()]);
    }
    table.row(vec![
        Cell::new("admin", Tone::Dim),
        loaded.admin.listen.to_string().into(),
        "/metrics /healthz /readyz".into(),
    ]);
    table.row(vec![Cell::new("audit", Tone::Dim), loaded.audit.file.display().to_string().into()]);
    for issuer in &loaded.desired.issuers {
        let settings = issuer.settings();
        let expects = match settings.audience.as_slice() {
            [] => format!("clients {}", settings.clients.join(", ")),
            audience => format!("audience {}", audience.join(", ")),
        };
        table.row(vec![
            Cell::new("issuer", Tone::Dim),
            settings.name.as_ref().into(),
            preset(issuer).into(),
            expects.into(),
        ]);
    }
    table
}

fn preset(issuer: &trust::issuer::Profile) -> String {
    match serde_json::to_value(issuer.settings().preset) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

fn services_table(loaded: &Loaded) -> Table {
    let mut table = Table::with_head(&["SERVICE", "RULES", "NEVER", "TESTS", "ON THE EDGE", "UPSTREAM"]);
    for (service, source) in loaded.desired.services.iter().zip(&loaded.sources) {
        let exposed: Vec<String> = service.expose.iter().map(|e| format!("{}{}", e.host, e.path.as_str())).collect();
        let tests = match source.tests.len() {
            0 => Cell::new("none", Tone::Dim),
            n => Cell::new(format!("{n} hold"), Tone::Good),
        };
        let on_edge = if exposed.is_empty() { Cell::new("internal", Tone::Dim) } else { exposed.join(", ").into() };
        table.row(vec![
            service.name.as_ref().into(),
            source.rules.len().to_string().into(),
            source.never.len().to_string().into(),
            tests,
            on_edge,
            upstream(service).join(", ").into(),
        ]);
    }
    table
}

fn upstream(service: &feed::Service) -> Vec<String> {
    let Some(upstream) = &service.upstream else { return Vec::new() };
    let scheme = if upstream.tls.is_some() { "https" } else { "http" };
    let one = |a: &feed::Address| match a.host.contains(':') {
        true => format!("{scheme}://[{}]:{}", a.host, a.port),
        false => format!("{scheme}://{}:{}", a.host, a.port),
    };
    match &upstream.endpoints {
        feed::Endpoints::Listed(addresses) => addresses.iter().map(one).collect(),
        feed::Endpoints::Dns { address, .. } => vec![format!("dns of {}", one(address))],
    }
}

fn summary(loaded: &Loaded) -> Value {
    let issuers = loaded.desired.issuers.iter().map(|issuer| {
        let settings = issuer.settings();
        json!({ "name": settings.name, "preset": settings.preset, "audience": settings.audience, "clients": settings.clients })
    });
    let services = loaded.desired.services.iter().zip(&loaded.sources).map(|(service, source)| {
        let expose = service.expose.iter().map(|e| json!({ "host": e.host, "path": e.path.as_str() }));
        json!({
            "name": service.name,
            "rules": source.rules.len(),
            "never": source.never.len(),
            "tests": source.tests.len(),
            "expose": expose.collect::<Vec<_>>(),
            "upstream": upstream(service),
        })
    });
    json!({
        "trust_domain": loaded.desired.trust_domain,
        "listen": loaded.edge.as_ref().map(|edge| &edge.server.listen),
        "tls": loaded.edge.as_ref().is_some_and(|edge| edge.server.tls.is_some()),
        "authz": loaded.authz.as_ref().map(|authz| json!({
            "listen": authz.server.listen, "sockets": authz.sockets, "tls": authz.server.tls.is_some()
        })),
        "token_endpoint": loaded.token_endpoint.as_ref().map(|door| json!({ "listen": door.server.listen })),
        "admin": loaded.admin.listen,
        "audit": loaded.audit.file,
        "issuers": issuers.collect::<Vec<_>>(),
        "services": services.collect::<Vec<_>>(),
    })
}
