//! The name of one address, looked up anew for each connection, and only once at a time. The system's look-up blocks a
//! thread for as long as it likes and cannot be cancelled: a name server that says nothing must not cost a thread per
//! request. It keeps no answer and never connects.
use super::connect::{self, ConnectError};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

type Answer = Result<Vec<SocketAddr>, ConnectError>;
/// Filled while a look-up is under way.
type Slot = Mutex<Option<watch::Receiver<Option<Answer>>>>;

pub(super) struct Name {
    pub(super) host: String,
    pub(super) port: u16,
    under_way: Arc<Slot>,
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<watch::Receiver<Option<Answer>>>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Name {
    pub(super) fn new(host: String, port: u16) -> Name {
        Name { host, port, under_way: Arc::default() }
    }

    /// `host:port`, as in a `Host` field.
    pub(super) fn shown(&self) -> String {
        let (host, port) = (&self.host, self.port);
        if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Who gives up waiting leaves the look-up to those who come after.
    pub(super) async fn resolve(&self) -> Answer {
        if let Some(address) = connect::literal(&self.host, self.port) {
            return Ok(vec![address]);
        }
        let (host, port) = (self.host.clone(), self.port);
        self.resolve_with(move || async move { connect::resolve(&host, port).await }).await
    }

    async fn resolve_with<F>(&self, look_up: impl FnOnce() -> F) -> Answer
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut told = self.join(look_up);
        let answer = told.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answer.unwrap_or_else(|| Err(ConnectError::Unreachable("the look-up of the name broke off".into())))
    }

    fn join<F>(&self, look_up: impl FnOnce() -> F) -> watch::Receiver<Option<Answer>>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let mut under_way = lock(&self.under_way);
        // A look-up whose task is gone will not answer.
        if let Some(told) = under_way.as_ref().filter(|told| told.has_changed().is_ok()) {
            return told.clone();
        }
        let (tell, told) = watch::channel(None);
        *under_way = Some(told.clone());
        drop(under_way);
        let (look_up, slot) = (look_up(), Arc::clone(&self.under_way));
        tokio::spawn(async move {
            let answer = look_up.await;
            *lock(&slot) = None;
            tell.send_replace(Some(answer));
        });
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;
    use tokio::sync::Notify;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A name server that counts its questions and answers when told to.
    #[derive(Default)]
    struct NameServer {
        asked: AtomicUsize,
        answer: Notify,
    }

    impl NameServer {
        fn look_up(self: &Arc<NameServer>) -> impl Future<Output = Answer> + Send + 'static {
            let server = Arc::clone(self);
            let port = u16::try_from(server.asked.fetch_add(1, SeqCst)).unwrap();
            async move {
                server.answer.notified().await;
                Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
            }
        }
    }

    #[tokio::test]
    async fn a4_a_silent_name_server_is_asked_once_at_a_time() {
        let (name, server) = (Name::new("a.example".into(), 1), Arc::new(NameServer::default()));
        let ask = || name.resolve_with(|| server.look_up());
        for _ in 0..100 {
            // Each gives up; none leaves a question of its own behind.
            assert!(tokio::time::timeout(Duration::from_millis(1), ask()).await.is_err());
        }
        assert_eq!(server.asked.load(SeqCst), 1);
        // The answer goes to who waits then; who comes after it asks anew.
        for port in [0, 1] {
            server.answer.notify_one();
            let answer = tokio::time::timeout(LIMIT, ask()).await.unwrap();
            assert_eq!(answer, Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]));
        }
        assert_eq!(server.asked.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn a_look_up_that_broke_is_asked_again() {
        let name = Name::new("a.example".into(), 1);
        let broken = name.resolve_with(|| async { panic!("as asked") }).await;
        assert!(matches!(broken, Err(ConnectError::Unreachable(_))), "{broken:?}");
        let failed = Err(ConnectError::Unreachable("no such name".into()));
        let again = failed.clone();
        assert_eq!(name.resolve_with(|| async { again }).await, failed);
        assert_eq!(name.resolve_with(|| async { Ok(Vec::new()) }).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn an_address_is_its_own_answer() {
        for (host, expected) in [("127.0.0.1", "127.0.0.1:80"), ("[::1]", "[::1]:80"), ("::1", "[::1]:80")] {
            assert_eq!(Name::new(host.into(), 80).resolve().await, Ok(vec![expected.parse().unwrap()]));
        }
    }
}
