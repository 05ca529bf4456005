//! `countersign dev`: every role in one process with a demo issuer and a demo service, over the same files and the same
//! code as `countersign run`. Nothing here is used by `run`.

pub mod issuer;
pub mod orders;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The demo's files in its state folder: written once per start, meant to be read and edited.
pub struct Files {
    pub platform: PathBuf,
    pub service: PathBuf,
}

/// Addresses that the demo's files name.
pub struct Places<'a> {
    pub edge: &'a [std::net::SocketAddr],
    pub issuer: &'a str,
    pub orders: &'a str,
}

/// Writes the demo's configuration under `folder`.
pub fn write_files(folder: &Path, places: &Places<'_>) -> anyhow::Result<Files> {
    let config = folder.join("config");
    let services = config.join("services");
    fs::create_dir_all(&services).with_context(|| format!("cannot make `{}`", services.display()))?;
    let files = Files { platform: config.join("countersign.yaml"), service: services.join("orders.yaml") };
    fs::write(&files.platform, platform_file(folder, places))?;
    fs::write(&files.service, include_str!("dev/orders.yaml").replace("ORDERS_URL", places.orders))?;
    fs::write(services.join("welcome.yaml"), include_str!("dev/welcome.yaml").replace("ORDERS_URL", places.orders))?;
    Ok(files)
}

fn platform_file(folder: &Path, places: &Places<'_>) -> String {
    let listen: Vec<String> = places.edge.iter().map(|address| format!("\"{address}\"")).collect();
    include_str!("dev/countersign.yaml")
        .replace("EDGE_LISTEN", &listen.join(", "))
        .replace("ISSUER_URL", places.issuer)
        .replace("STATE_FOLDER", &folder.display().to_string())
}
