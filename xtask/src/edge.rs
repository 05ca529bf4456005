//! The built product in front of a tiny origin, for checks from outside: a configuration in a folder of its own, the process,
//! its addresses. It is stopped, and its folder removed, when dropped.
use crate::run::{cargo, must, program, root, succeeds, target_folder};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

pub(crate) struct Edge {
    child: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

/// A file beside `countersign.yaml`.
pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// How the edge listens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Plain,
    /// With a certificate for `localhost` made for this run.
    Tls,
}

impl Edge {
    /// Builds (debug), writes the files and starts. `issuers` is the section's text; the service is what `files` holds.
    pub(crate) fn start(name: &str, door: Door, issuers: &str, files: &[File]) -> Result<Edge> {
        must(cargo(&["build", "--quiet", "--locked", "--package", "countersign"]))?;
        let folder = root().join("target/live").join(name);
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder)?;
        let (address, admin) = (free_address()?, free_address()?);
        let tls = match door {
            Door::Plain => "",
            Door::Tls => make_certificate(&folder)?,
        };
        let platform = format!(
            "version: 1\ntrust_domain: acme.example\n{issuers}edge: {{ listen: \"{address}\"{tls} }}\nadmin: {{ listen: \"{admin}\" }}\n\
             state: state\naudit: {{ file: audit.ndjson }}\nservices: service.yaml\n"
        );
        fs::write(folder.join("countersign.yaml"), platform)?;
        for File { name, text } in files {
            fs::write(folder.join(name), text)?;
            // One of them may be a key.
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600))?;
        }
        let log = fs::File::create(folder.join("log.txt"))?;
        let mut command = program(target_folder().join("debug/countersign"), &["run", "-c"]);
        command.arg(folder.join("countersign.yaml")).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("cannot start countersign")?;
        let mut edge = Edge { child, folder, address };
        edge.wait_until_it_accepts()?;
        Ok(edge)
    }

    fn wait_until_it_accepts(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(self.address).is_err() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.join("log.txt")).unwrap_or_default();
                bail!("countersign did not start:\n{log}");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        succeeds(program("kill", &["-TERM", &self.child.id().to_string()]));
        let deadline = Instant::now() + STOP_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        // Fails when it has ended already, which is what we want.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// A certificate for `localhost`; returns what `edge:` says of it.
fn make_certificate(folder: &Path) -> Result<&'static str> {
    let (certificate, key) = (folder.join("edge.pem"), folder.join("edge.key"));
    let mut openssl =
        program("openssl", &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args([
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-out",
    ]);
    openssl.arg(certificate).arg("-keyout").arg(&key).stdout(Stdio::null()).stderr(Stdio::null());
    must(openssl)?;
    fs::set_permissions(key, fs::Permissions::from_mode(0o600))?;
    Ok(", tls: { certificate: edge.pem, key: edge.key }")
}

/// A certificate of its own authority in `folder`, `workload.pem` and `workload.key`: for `localhost` as a server, and the
/// X.509-SVID of this SPIFFE ID as a client.
pub(crate) fn make_svid(folder: &Path, id: &str) -> Result<()> {
    let config = format!(
        "[req]\ndistinguished_name = dn\nx509_extensions = svid\nprompt = no\n[dn]\nCN = localhost\n[svid]\n\
         subjectAltName = URI:{id}, DNS:localhost\nbasicConstraints = critical, CA:FALSE\n\
         keyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth, clientAuth\n"
    );
    fs::write(folder.join("svid.cnf"), config)?;
    let mut openssl =
        program("openssl", &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args(["-days", "2", "-config"]).arg(folder.join("svid.cnf"));
    openssl.arg("-out").arg(folder.join("workload.pem")).arg("-keyout").arg(folder.join("workload.key"));
    openssl.stdout(Stdio::null()).stderr(Stdio::null());
    must(openssl)
}

/// An address nobody listens on just now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
