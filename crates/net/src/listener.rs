//! Opens the listening sockets: one per worker and address, sharing the port. It never accepts.
use crate::server::StartError;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpListener};

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

fn open(address: SocketAddr, share_port: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    if address.is_ipv6() {
        // So that `0.0.0.0` and `[::]` can both be listed.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
