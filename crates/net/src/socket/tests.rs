//! What is kept of bytes that came early.
use super::*;
use crate::live::Clock;
use std::future::poll_fn;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a4_a_buffer_that_never_runs_empty_does_not_grow() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let live = Arc::new(Live::new(Arc::new(Clock::new()), Waiting::Head));
    let mut socket = Socket::new(Stream::Plain(listener.accept().await.unwrap().0), live);
    let mut sent = 0;
    let mut used = 0;
    while used < 8 << 20 {
        while sent < used + 48 * 1024 {
            client.write_all(&[b'x'; 16 * 1024]).await.unwrap();
            sent += 16 * 1024;
        }
        poll_fn(|cx| socket.poll_unread(cx)).await.unwrap();
        let taken = poll_fn(|cx| socket.poll_input(cx, usize::MAX, |bytes| (bytes.len() / 2, bytes.len() / 2))).await;
        used += taken.unwrap().unwrap();
        assert!(socket.unread.capacity() < 1 << 20, "{} bytes after {used}", socket.unread.capacity());
    }
}
