//! Installs the peer programs: Debian packages, a Python environment, npm modules, h2spec.
//! It never replaces what is there already, and a peer that cannot be had is a failure that names the install line.
pub(crate) mod python2;

use crate::run::{must, output, peers_folder, program, root, succeeds};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Test,
    Bench,
}

/// (program, Debian package)
const FOR_TESTS: [(&str, &str); 12] = [
    ("nginx", "nginx"),
    ("caddy", "caddy"),
    ("haproxy", "haproxy"),
    ("h2load", "nghttp2-client"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("systemd-analyze", "systemd"),
    ("dpkg-deb", "dpkg"),
    ("readelf", "binutils"),
    ("setpriv", "util-linux"),
];
const FOR_BENCHES: [(&str, &str); 7] = [
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("nghttpd", "nghttp2-server"),
    ("curl", "curl"),
    ("openssl", "openssl"),
];

pub(crate) fn install(purpose: Purpose) -> Result<()> {
    debian(if purpose == Purpose::Test { &FOR_TESTS } else { &FOR_BENCHES })?;
    match purpose {
        Purpose::Test => {
            python(
                "test",
                "tests/peers/requirements.txt",
                "import envoy, grpc, joserfc, jwcrypto, kubernetes_validate, opentelemetry.proto, opentelemetry.semconv, yaml",
            )?;
            node()?;
            h2spec()
        }
        Purpose::Bench => python("bench", "bench/edge/requirements.txt", "import cryptography"),
    }
}

/// The interpreter of an environment that `install` made.
pub(crate) fn python_of(environment: &str) -> PathBuf {
    peers_folder().join(environment).join("bin/python")
}

pub(crate) fn h2spec_program() -> PathBuf {
    peers_folder().join("bin/h2spec")
}

fn debian(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| find(program).is_none()).map(|&(_, package)| package).collect();
    if missing.is_empty() { Ok(()) } else { apt_install(&missing) }
}

fn apt_install(missing: &[&str]) -> Result<()> {
    let line = format!("apt-get update && apt-get install -y --no-install-recommends {}", missing.join(" "));
    if find("apt-get").is_none() || output(program("id", &["-u"]))?.trim() != "0" {
        bail!("missing peers: install them as root with `{line}`");
    }
    println!("installing {}", missing.join(", "));
    must(program("apt-get", &["-q", "update"])).with_context(|| line.clone())?;
    let mut command = program("apt-get", &["-q", "install", "-y", "--no-install-recommends"]);
    command.args(missing).env("DEBIAN_FRONTEND", "noninteractive");
    must(command).context(line)
}

/// Where a program is, by `PATH` and the folders of system programs that a user's `PATH` may lack.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn python(environment: &str, requirements: &str, proof: &str) -> Result<()> {
    let wanted = root().join(requirements);
    let folder = peers_folder().join(environment);
    let interpreter = python_of(environment);
    if is_current(&folder, &wanted)? && succeeds(program(&interpreter, &["-c", proof])) {
        return Ok(());
    }
    if !succeeds(program("python3", &["-c", "import ensurepip, venv"])) {
        apt_install(&["python3", "python3-venv"])?;
    }
    println!("installing {requirements}");
    fs::create_dir_all(peers_folder())?;
    let folder_text = folder.to_string_lossy().into_owned();
    must(program("python3", &["-m", "venv", "--clear", &folder_text]))?;
    let mut pip = program(&interpreter, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    pip.arg(&wanted);
    must(pip)?;
    must(program(&interpreter, &["-c", proof]))?;
    mark_current(&folder, &wanted)
}

fn node() -> Result<()> {
    let folder = root().join("tests/peers");
    let lock = folder.join("package-lock.json");
    let modules = folder.join("node_modules");
    if modules.join("oidc-provider").is_dir() && is_current(&modules, &lock)? {
        return Ok(());
    }
    println!("installing tests/peers/package-lock.json");
    let mut npm = program("npm", &["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
    npm.current_dir(&folder);
    must(npm).context("`npm ci` in tests/peers needs Node 20 or newer and the npm registry")?;
    mark_current(&modules, &lock)
}

fn h2spec() -> Result<()> {
    let binary = h2spec_program();
    if binary.is_file() {
        return Ok(());
    }
    if find("go").is_none() {
        apt_install(&["golang-go"])?;
    }
    println!("building h2spec");
    let mut build = program("go", &["build", "-o"]);
    build.arg(&binary).arg("github.com/summerwind/h2spec/cmd/h2spec");
    build.current_dir(root().join("tests/peers/h2spec"));
    must(build).context("h2spec needs Go 1.24 or newer and the Go module proxy")
}

fn stamp(folder: &Path) -> PathBuf {
    folder.join(".installed-from")
}

/// Whether a folder was filled from these very requirements.
fn is_current(folder: &Path, requirements: &Path) -> Result<bool> {
    let wanted = fs::read_to_string(requirements).with_context(|| requirements.display().to_string())?;
    Ok(fs::read_to_string(stamp(folder)).is_ok_and(|installed| installed == wanted))
}

fn mark_current(folder: &Path, requirements: &Path) -> Result<()> {
    fs::copy(requirements, stamp(folder)).map(drop).context("cannot note what was installed")
}
