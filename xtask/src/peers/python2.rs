//! PyPy for Python 2.7 in a folder of its own, from Debian bullseye, with the Autobahn testsuite in it: the suite runs under
//! nothing newer, and CPython needs six times as long where it checks large texts. It installs nothing into the system.
use super::{is_current, mark_current};
use crate::run::{must, peers_folder, program, root, succeeds};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = "tests/peers/autobahn.txt";
const PACKAGES: [&str; 4] = ["pypy", "pypy-lib", "libffi7", "libssl1.1"];
/// The last ones that run under Python 2.7.
const INSTALLERS: [&str; 3] = ["pip==20.3.4", "wheel==0.37.1", "setuptools==44.1.1"];
/// Its wheel is CPython's, whose compiled parts PyPy passes over; its sources would want a compiler.
const TWISTED: [&str; 7] =
    ["Twisted==20.3.0", "--implementation", "cp", "--abi", "cp27mu", "--platform", "manylinux1_x86_64"];
/// The suite's server refuses a `Host` with another port than its own, which is what a server behind a proxy gets to see.
/// And it wants OpenSSL although nothing here is `wss://`.
const START: &str = "
import os, site, sys, types; site.addsitedir(os.environ['SITE'])
import twisted.internet as internet
internet.ssl = sys.modules['twisted.internet.ssl'] = types.ModuleType('ssl')
import autobahn.websocket.protocol as protocol
setup = protocol.WebSocketServerFactory.setSessionParameters
def behind_a_proxy(self, *arguments, **named):
    setup(self, *arguments, **named)
    self.externalPort = None
protocol.WebSocketServerFactory.setSessionParameters = behind_a_proxy
from autobahntestsuite import wstest; wstest.run()";

fn folder() -> PathBuf {
    peers_folder().join("python2")
}

fn interpreter(folder: &Path, site: &Path, arguments: &[&str]) -> Command {
    let mut command = program(folder.join("root/usr/bin/pypy"), &["-W", "ignore"]);
    command.env("LD_LIBRARY_PATH", folder.join("root/usr/lib/x86_64-linux-gnu")).env("PYTHONPATH", site);
    command.args(arguments);
    command
}

/// `wstest` with these arguments.
pub(crate) fn wstest(arguments: &[&str]) -> Command {
    let folder = folder();
    let site = folder.join("site");
    let mut command = interpreter(&folder, &site, &["-c", START]);
    command.args(arguments).env("SITE", site);
    command
}

pub(crate) fn install() -> Result<()> {
    let (folder, wanted) = (folder(), root().join(REQUIREMENTS));
    if is_current(&folder, &wanted)? && succeeds(wstest(&["--help"])) {
        return Ok(());
    }
    println!("installing PyPy for Python 2.7 and {REQUIREMENTS}");
    drop(fs::remove_dir_all(&folder));
    unpack_python(&folder)
        .context("pypy comes from Debian bullseye: `apt-get download` with a private list of sources")?;
    unpack_wheels(&folder.join("wheels/installers"), &folder.join("boot"), &INSTALLERS)?;
    let mut pip = interpreter(&folder, &folder.join("boot"), &["-m", "pip", "install", "--quiet", "--no-deps"]);
    pip.args(["--no-compile", "--disable-pip-version-check"])
        .arg("--target")
        .arg(folder.join("site"))
        .arg("-r")
        .arg(&wanted);
    must(pip)?;
    unpack_wheels(&folder.join("wheels/twisted"), &folder.join("site"), &TWISTED)?;
    let mut proof = wstest(&["--help"]);
    proof.stdout(std::process::Stdio::null());
    must(proof)?;
    mark_current(&folder, &wanted)
}

fn unpack_python(folder: &Path) -> Result<()> {
    for part in ["apt/lists/partial", "apt/cache/archives/partial", "debs", "root"] {
        fs::create_dir_all(folder.join(part))?;
    }
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let sources = format!("deb [signed-by={keyring}] http://deb.debian.org/debian bullseye main\n");
    fs::write(folder.join("apt/sources.list"), sources)?;
    let apt = |verb: &str| {
        let mut apt = program("apt-get", &["-q", "-q"]);
        for (option, part) in [
            ("Dir::Etc::sourcelist", "apt/sources.list"),
            ("Dir::State::lists", "apt/lists"),
            ("Dir::Cache", "apt/cache"),
        ] {
            apt.arg("-o").arg(format!("{option}={}", folder.join(part).display()));
        }
        apt.args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User=root", verb]);
        apt.current_dir(folder.join("debs"));
        apt
    };
    must(apt("update"))?;
    let mut download = apt("download");
    download.args(PACKAGES);
    must(download)?;
    for package in fs::read_dir(folder.join("debs"))? {
        let mut unpack = program("dpkg-deb", &["-x"]);
        unpack.arg(package?.path()).arg(folder.join("root"));
        must(unpack)?;
    }
    Ok(())
}

fn unpack_wheels(download_to: &Path, into: &Path, wanted: &[&str]) -> Result<()> {
    let mut download = program("python3", &["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]);
    download.args(["--disable-pip-version-check", "--python-version", "2.7", "--dest"]).arg(download_to).args(wanted);
    must(download)?;
    for wheel in fs::read_dir(download_to)? {
        let mut unpack = program("python3", &["-m", "zipfile", "-e"]);
        unpack.arg(wheel?.path()).arg(into);
        must(unpack)?;
    }
    Ok(())
}
