//! Bodies of a gigabyte pass at flat memory.
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::serving::{Serving, Setup};
use testkit::client::Connection;
use testkit::issuer::Issuer;
use testkit::upstream::Upstream;

const GIB: u64 = 1024 * 1024 * 1024;
const BLOCK: usize = 256 * 1024;
/// What the process may grow by while a body passes that is 64 times as large.
const GROWTH_KIB: u64 = 16 * 1024;
const TIME_MAX: Duration = Duration::from_secs(120);

struct World {
    _issuer: Issuer,
    upstream: Upstream,
    serving: Serving,
}

impl World {
    fn start() -> World {
        let (issuer, upstream) = (Issuer::start(), Upstream::start());
        let mut setup = Setup::new(&issuer.url(), &upstream.url());
        setup.services = vec![("orders".into(), crate::serving::orders(&upstream.url()) + "limits: { body: 2GiB }\n")];
        let serving = setup.start();
        // Once around, so that what is allocated once is allocated.
        assert_eq!(serving.get("/public/x?do=stream:4000000", None).body.len(), 4_000_000);
        World { _issuer: issuer, upstream, serving }
    }
}

/// The largest growth seen while this watched.
struct Watch<'a> {
    serving: &'a Serving,
    before: u64,
    largest: u64,
    until: Instant,
}

impl Watch<'_> {
    fn start(serving: &Serving) -> Watch<'_> {
        let before = serving.process.resident_kib();
        Watch { serving, before, largest: before, until: Instant::now() + TIME_MAX }
    }

    fn look(&mut self) {
        self.largest = self.largest.max(self.serving.process.resident_kib());
        let growth = self.largest - self.before;
        assert!(growth <= GROWTH_KIB, "grew by {growth} KiB from {} KiB", self.before);
        assert!(Instant::now() < self.until, "the body did not pass in {TIME_MAX:?}");
    }
}

#[test]
fn an_upload_of_one_gib_passes_at_flat_memory() {
    let world = World::start();
    let connection = Connection::open(world.serving.edge);
    let mut stream = connection.stream().try_clone().unwrap();
    let head = format!("PUT /public/upload HTTP/1.1\r\nhost: shop.acme.example\r\ncontent-length: {GIB}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut watch = Watch::start(&world.serving);
    let block = vec![b'x'; BLOCK];
    for n in 0..GIB / BLOCK as u64 {
        stream.write_all(&block).unwrap();
        if n.is_multiple_of(64) {
            watch.look();
        }
    }
    let mut connection = connection;
    let answer = connection.read().unwrap();
    watch.look();
    assert_eq!((answer.status, &answer.json()["body_bytes"]), (200, &serde_json::json!(GIB)));
    assert!(world.upstream.last().complete);
}

#[test]
fn a_download_of_one_gib_passes_at_flat_memory() {
    let world = World::start();
    let connection = Connection::open(world.serving.edge);
    let mut stream = connection.stream().try_clone().unwrap();
    let head = format!(
        "GET /public/download?do=stream:{GIB} HTTP/1.1\r\nhost: shop.acme.example\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut watch = Watch::start(&world.serving);
    let mut block = vec![0; BLOCK];
    let (mut bytes, mut reads) = (0, 0);
    loop {
        let read = stream.read(&mut block).unwrap();
        if read == 0 {
            break;
        }
        bytes += read as u64;
        reads += 1;
        if u64::is_multiple_of(reads, 256) {
            watch.look();
        }
    }
    watch.look();
    assert!(bytes > GIB && bytes < GIB + 4096, "{bytes}");
}
