//! Opens the listening sockets: one per worker and address, sharing the port. It never accepts.
use crate::server::StartError;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

const BACKLOG: i32 = 4096;

pub(crate) struct Bound {
    /// One per configured address, with port 0 resolved.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) per_worker: Vec<Vec<TcpListener>>,
}

pub(crate) fn bind(listen: &[SocketAddr], workers: usize) -> Result<Bound, StartError> {
    let mut bound = Bound { addresses: Vec::new(), per_worker: (0..workers).map(|_| Vec::new()).collect() };
    for &wanted in listen {
        let failed = |source| StartError::Listen { address: wanted, source };
        // Sharing a port would also let a second process join in unnoticed and take half of the connections. Only a
        // socket that does not share can tell whether the port is free.
        let mut address = wanted;
        if wanted.port() != 0 && workers > 1 {
            open(wanted, false).map_err(failed)?;
        }
        for listeners in &mut bound.per_worker {
            let listener = open(address, workers > 1).map_err(failed)?;
            address = listener.local_addr().map_err(failed)?;
            listeners.push(listener);
        }
        bound.addresses.push(address);
    }
    Ok(bound)
}

/// A peer that vanished without a word (a cut cable, a forgetful NAT) is noticed within two minutes, also by a connection
/// that waits for nothing but the peer's next byte.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)).with_retries(6)
}

fn open(address: SocketAddr, share_port: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    if address.is_ipv6() {
        // So that `0.0.0.0` and `[::]` can both be listed.
        socket.set_only_v6(true)?;
    }
    // What is accepted inherits it (socket(7), tcp(7)): not a system call per connection.
    socket.set_tcp_keepalive(&keepalive())?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// From here on nobody can begin a handshake, and handshakes under way still end in the queue: a classic BPF program that
/// drops a segment with SYN (bit 1 of byte 13 of the TCP header, RFC 9293 §3.1) and passes every other.
#[cfg(target_os = "linux")]
pub(crate) fn close_to_newcomers(listener: &tokio::net::TcpListener) -> std::io::Result<()> {
    use socket2::SockFilter;
    // Operation codes of linux/bpf_common.h.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    socket2::SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(JUMP_IF_SET, 0, 1, 0b10),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// Where the kernel has no such filter, a queue of one place is as near as one comes.
#[cfg(not(target_os = "linux"))]
pub(crate) fn close_to_newcomers(listener: &tokio::net::TcpListener) -> std::io::Result<()> {
    socket2::SockRef::from(listener).listen(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;

    #[test]
    fn a4_what_is_accepted_asks_after_a_silent_client() {
        let bound = bind(&[SocketAddr::from(([127, 0, 0, 1], 0))], 1).unwrap();
        let listener = &bound.per_worker[0][0];
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(bound.addresses[0]).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 6);
    }
}
