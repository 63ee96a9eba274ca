use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::{TestBackend, spawn};

/// A relay between a gateway and a backend: it counts connections, and may speak in the backend's place on the first of
/// them.
pub struct Relay {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

/// Takes the place of a backend on one connection.
pub type Impostor = fn(TcpStream) -> Pin<Box<dyn Future<Output = ()> + Send>>;

impl Relay {
    /// Gives the first `times` connections to `impostor`, the others to `backend`.
    pub async fn start(backend: &TestBackend, times: usize, impostor: Impostor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay { address: listener.local_addr().unwrap(), connections: Arc::default() };
        let (backend, connections) = (backend.address(), Arc::clone(&relay.connections));
        spawn(async move {
            let tasks = TaskTracker::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if connections.fetch_add(1, Ordering::SeqCst) < times {
                    tasks.spawn(impostor(stream));
                } else {
                    tasks.spawn(async move {
                        let mut onwards = TcpStream::connect(backend).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut onwards).await;
                    });
                }
            }
        });
        relay
    }

    /// Returns its URL, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Counts the connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
