//! nginx as the service behind the edge.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::process::{Process, free_port};

/// A running nginx that answers every path with 200.
pub(crate) struct Nginx {
    _process: Process,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Nginx {
    pub(crate) fn start() -> Nginx {
        Nginx::logging("off")
    }

    /// With its access log, in its default format.
    pub(crate) fn start_with_log() -> Nginx {
        Nginx::logging("LOG combined")
    }

    fn logging(access_log: &str) -> Nginx {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display();
        let access_log = access_log.replace("LOG", &format!("{at}/access.log"));
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log {access_log}; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n\
             uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; client_max_body_size 0; keepalive_requests 1000000;\n\
             server {{ listen {address}; location / {{ return 200 \"from nginx\\n\"; }} }} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).expect("written");
        let process = Process::start(
            super::installed("nginx"),
            &["-p".into(), folder.path().as_os_str().to_owned(), "-c".into(), file.into_os_string()],
        );
        testkit::wait_for("nginx listens", Duration::from_secs(20), || std::net::TcpStream::connect(address).is_ok());
        Nginx { _process: process, folder, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("access.log")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
