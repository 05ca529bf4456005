//! A running `countersign run` with files of its own, for the tests of this folder: start it, ask it, read its records.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testkit::client::{self, Response};
use testkit::process::Process;

pub(crate) mod nginx;
pub(crate) mod tunnel;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// One process and its folder. Dropping it kills the process and removes the folder.
pub(crate) struct Serving {
    pub(crate) process: Process,
    /// Its first door: the edge, or where proxies ask if there is no edge.
    pub(crate) edge: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
}

/// What the files say; each part can be replaced before the start.
pub(crate) struct Setup {
    pub(crate) issuers: String,
    pub(crate) edge: String,
    pub(crate) extra: String,
    pub(crate) services: Vec<(String, String)>,
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl Setup {
    /// One issuer named `id` at `issuer`, audience `acme`, groups in `groups`; one service `orders` at `upstream`.
    pub(crate) fn new(issuer: &str, upstream: &str) -> Setup {
        Setup {
            issuers: format!("  id: {{ issuer: \"{issuer}\", audience: [acme], claims: {{ groups: groups }} }}\n"),
            edge: String::new(),
            extra: String::new(),
            services: vec![("orders".into(), orders(upstream))],
            files: Vec::new(),
        }
    }

    pub(crate) fn start(&self) -> Serving {
        let folder = tempfile::tempdir().expect("a folder");
        self.write(folder.path());
        Serving::of(folder)
    }

    /// Writes the files; again for a reload.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder.join("services")).expect("a folder");
        for (name, bytes) in &self.files {
            private(&folder.join(name), bytes);
        }
        for (name, text) in &self.services {
            std::fs::write(folder.join(format!("services/{name}.yaml")), text).expect("written");
        }
        let text = format!(
            "version: 1\ntrust_domain: acme.example\nstate: state\nissuers:\n{}edge:\n  listen: 127.0.0.1:0\n{}admin: {{ listen: 127.0.0.1:0 }}\n\
             log: {{ format: json, level: info }}\nservices: services/*.yaml\n{}",
            self.issuers, self.edge, self.extra
        );
        std::fs::write(folder.join("countersign.yaml"), text).expect("written");
    }
}

/// A program of the system; Debian's package has its name.
pub(crate) fn installed(name: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/bin"];
    let found = folders.into_iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: apt-get install {name}, or cargo xtask peers"))
}

fn private(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, bytes).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("mode");
}

/// The service most tests protect: support may read and write, admins are kept apart, a page is open to anyone.
pub(crate) fn orders(upstream: &str) -> String {
    format!(
        "service: orders\nupstream: \"{upstream}\"\nexpose: {{ host: \"*\", path: /** }}\nrules:\n\
         \x20 - {{ name: support works on orders, who: \"group:support\", can: [\"GET,POST,PUT /orders/**\"] }}\n\
         \x20 - {{ name: anyone reads public pages, who: anyone, can: [\"GET,POST,PUT /public/**\"] }}\n\
         never:\n\
         \x20 - {{ name: interns stay out, who: \"group:interns\", can: \"* /orders/**\" }}\n"
    )
}

impl Serving {
    /// With the files that stand in this folder.
    pub(crate) fn of(folder: tempfile::TempDir) -> Serving {
        let config = folder.path().join("countersign.yaml");
        let process =
            Process::start(env!("CARGO_BIN_EXE_countersign"), &["run".into(), "-c".into(), config.into_os_string()]);
        let facts = folder.path().join("state/process.json");
        let found = testkit::wait_value("the process writes its facts", LIMIT, || {
            serde_json::from_slice::<Value>(&std::fs::read(&facts).ok()?).ok()
        });
        let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).expect("an address");
        let door = if found["edge"][0].is_null() { &found["authz"][0] } else { &found["edge"][0] };
        Serving { edge: address(door), admin: address(&found["admin"]), process, folder }
    }

    pub(crate) fn get(&self, target: &str, token: Option<&str>) -> Response {
        self.get_with(target, token, &[])
    }

    pub(crate) fn get_with(&self, target: &str, token: Option<&str>, more: &[(&str, &str)]) -> Response {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut fields: Vec<(&str, &str)> = vec![("host", "shop.acme.example")];
        fields.extend(bearer.as_deref().map(|value| ("authorization", value)));
        fields.extend_from_slice(more);
        client::get(self.edge, target, &fields)
    }

    pub(crate) fn audit_file(&self) -> PathBuf {
        self.folder.path().join("state/audit.ndjson")
    }

    /// A command of ours against this process; its standard output.
    pub(crate) fn command(&self, arguments: &[&str]) -> (i32, String) {
        let state = self.folder.path().join("state");
        let mut all: Vec<std::ffi::OsString> = arguments.iter().map(Into::into).collect();
        all.extend(["--state".into(), state.into_os_string()]);
        let (status, out, error) = testkit::process::run(env!("CARGO_BIN_EXE_countersign"), &all);
        (status.code().unwrap_or(-1), out + &error)
    }

    /// The record of the decision that this answer names.
    pub(crate) fn record(&self, response: &Response) -> Value {
        let id = response.field("countersign-decision").expect("every answer names its decision");
        let (code, text) = self.command(&["why", id, "--json"]);
        assert_eq!(code, 0, "{text}");
        serde_json::from_str(&text).expect("a record")
    }

    /// Asserts status and reason of one answer, and returns its record.
    pub(crate) fn expect(&self, response: &Response, status: u16, reason: &str) -> Value {
        let record = self.record(response);
        let found = record["reason"].as_str().unwrap_or("none");
        assert_eq!((response.status, found), (status, reason), "{record:#}");
        record
    }

    pub(crate) fn metrics(&self) -> String {
        client::get(self.admin, "/metrics", &[]).text()
    }

    /// Waits until a log line holds this.
    pub(crate) fn wait_log(&self, part: &str) {
        testkit::wait_for(part, LIMIT, || self.process.stderr().contains(part));
    }

    pub(crate) fn wait_ready_for(&self, target: &str, token: &str) {
        testkit::wait_for("the token is accepted", LIMIT, || self.get(target, Some(token)).status == 200);
    }
}
