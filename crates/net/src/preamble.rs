//! What a proxy writes before the first byte of a connection to tell whose it is. How that is written is not known here: the
//! listener's owner says from whom it is due and how it is read. Nothing behind it is touched.
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The client's address and the preamble's length; `None` while more bytes are needed, all of those given being part of it.
pub type Read = fn(&[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, &'static str>;

/// From whom a preamble is due. From others none is read: who may not speak for somebody else cannot.
#[derive(Clone)]
pub struct Preamble {
    pub is_due_from: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    pub read: Read,
    pub bytes_max: usize,
}

impl fmt::Debug for Preamble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preamble").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

/// Why there is no client's address.
#[derive(Debug)]
pub(crate) enum Missing {
    Malformed(&'static str),
    Io(io::Error),
}

impl Preamble {
    /// Takes the preamble off the stream, and not a byte more. `None`: the connection is the proxy's own.
    pub(crate) async fn take(&self, stream: &mut TcpStream) -> Result<Option<SocketAddr>, Missing> {
        let mut held: Vec<u8> = Vec::new();
        let mut ahead = [0; 256];
        loop {
            // What is only looked at stays for whoever reads next.
            let seen = stream.peek(&mut ahead).await.map_err(Missing::Io)?;
            if seen == 0 {
                return Err(Missing::Malformed("the connection ended within its PROXY protocol header"));
            }
            let before = held.len();
            held.extend_from_slice(ahead.get(..seen).unwrap_or_default());
            let (found, length) = match (self.read)(&held).map_err(Missing::Malformed)? {
                Some((client, length)) => (Some(client), length),
                None if held.len() > self.bytes_max => {
                    return Err(Missing::Malformed("a PROXY protocol header that is too long"));
                }
                None => (None, held.len()),
            };
            let part = ahead.get_mut(..length.saturating_sub(before)).unwrap_or_default();
            stream.read_exact(part).await.map_err(Missing::Io)?;
            if let Some(client) = found {
                return Ok(client);
            }
        }
    }
}
