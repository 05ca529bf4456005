//! Runs `examples/verify-txn-token` in Rust, Python and Node with stock JOSE libraries: the good Txn-Token is accepted, and
//! each with one fault is refused. It starts no product code: the tokens come from `tests/peers/mint_txn.py`.
use crate::peers::python_of;
use crate::run::{cargo, must, output, program, root, target_folder};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

const PUBLISHED_AT: &str = "/.well-known/countersign/jwks.json";

#[derive(Deserialize)]
struct Minted {
    jwks: serde_json::Value,
    trust_domain: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    token: String,
    accepted: bool,
}

pub(crate) fn check() -> Result<()> {
    must(cargo(&["build", "--quiet", "--locked", "--package", "verify-txn-token"]))?;
    link_modules()?;
    let minted: Minted = serde_json::from_str(&output(program(python_of("test"), &["tests/peers/mint_txn.py"]))?)?;
    let url = publish(minted.jwks.to_string())?;
    let mut checked = 0;
    for language in ["Rust", "Python", "Node"] {
        for case in &minted.cases {
            let accepted = accepts(verifier(language), &url, &minted.trust_domain, &case.token)
                .with_context(|| format!("{language}, {}", case.name))?;
            if accepted != case.accepted {
                let did = if accepted { "accepted" } else { "refused" };
                bail!("the {language} example {did} the token `{}`: {}", case.name, case.token);
            }
            checked += 1;
        }
        println!("{language}: {} tokens judged as they should be", minted.cases.len());
    }
    println!("{checked} verdicts of stock JOSE libraries");
    Ok(())
}

fn verifier(language: &str) -> Command {
    match language {
        "Python" => program(python_of("test"), &["examples/verify-txn-token/python/verify.py"]),
        "Node" => program("node", &["examples/verify-txn-token/node/verify.mjs"]),
        _ => program(target_folder().join("debug/verify-txn-token"), &[]),
    }
}

/// Node looks for modules beside the script; the pinned ones are with the peers.
fn link_modules() -> Result<()> {
    let link = root().join("examples/verify-txn-token/node/node_modules");
    if link.exists() {
        return Ok(());
    }
    std::os::unix::fs::symlink("../../../tests/peers/node_modules", &link).context("cannot link node_modules")
}

fn accepts(mut command: Command, url: &str, trust_domain: &str, token: &str) -> Result<bool> {
    command.args([url, trust_domain]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no standard input")?.write_all(token.as_bytes())?;
    let out = child.wait_with_output()?;
    if !out.status.success() {
        return Ok(false);
    }
    let claims: serde_json::Value = serde_json::from_slice(&out.stdout).context("claims are not JSON")?;
    Ok(claims.get("sub").is_some())
}

/// Serves one document on a loopback port until this process ends.
fn publish(document: String) -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let url = format!("http://{}{PUBLISHED_AT}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            drop(answer(stream, &document));
        }
    });
    Ok(url)
}

fn answer(stream: TcpStream, document: &str) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().context("no request")??;
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let status = if request.starts_with(&format!("GET {PUBLISHED_AT} ")) { "200 OK" } else { "404 Not Found" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/jwk-set+json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        document.len()
    );
    (&stream).write_all((head + document).as_bytes())?;
    Ok(())
}
