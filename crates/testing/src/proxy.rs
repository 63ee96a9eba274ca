use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

/// The treatment of the bytes between a dialler and its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Passes some 400 KB in each second, as a slow network does: what it has not passed is not acknowledged, if it is
    /// narrow.
    Slow,
    /// Takes what the peer says, and keeps it.
    HoldAnswers,
    /// Takes nothing from either side: both look as if they hung.
    Hang,
    /// Cuts what is there and takes nothing new.
    Cut,
    /// The host seems to be gone: nothing comes from it, not even the refusal of a connection.
    Vanish,
}

/// A TCP proxy before a node's peer port, or before Redis.
pub struct TestProxy {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    target: watch::Sender<Option<SocketAddr>>,
}

impl TestProxy {
    /// Starts one that leads to `target`.
    pub async fn start(target: SocketAddr, tasks: &TaskTracker) -> Arc<Self> {
        let proxy = Self::open(tasks).await;
        proxy.lead_to(target);
        proxy
    }

    /// Starts one that leads nowhere yet and turns everybody away.
    pub async fn open(tasks: &TaskTracker) -> Arc<Self> {
        Self::open_at(TcpListener::bind("127.0.0.1:0").await.unwrap(), tasks)
    }

    /// Starts one that leads to `target`, and whose kernel takes little that it has not passed.
    pub async fn start_narrow(target: SocketAddr, tasks: &TaskTracker) -> Arc<Self> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let proxy = Self::open_at(socket.listen(1024).unwrap(), tasks);
        proxy.lead_to(target);
        proxy
    }

    fn open_at(listener: TcpListener, tasks: &TaskTracker) -> Arc<Self> {
        let ((mode, modes), (target, targets)) = (watch::channel(Mode::Pass), watch::channel(None));
        let proxy_address = listener.local_addr().unwrap();
        let proxy = Arc::new(TestProxy { address: proxy_address, mode, target });
        let all = tasks.clone();
        tasks.spawn(async move {
            let (mut listener, address, mut changed) = (Some(listener), proxy_address, modes.clone());
            loop {
                if *modes.borrow() == Mode::Vanish {
                    drop(listener.take());
                    let silence = silence(address).await;
                    if changed.wait_for(|mode| *mode != Mode::Vanish).await.is_err() {
                        return;
                    }
                    drop(silence);
                }
                let listener = match &mut listener {
                    Some(listener) => listener,
                    None => listener.insert(listen(address, 1024).await),
                };
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = changed.wait_for(|mode| *mode == Mode::Vanish) => continue,
                };
                let Ok((near, _)) = accepted else { return };
                if *modes.borrow() == Mode::Cut {
                    continue;
                }
                let target = *targets.borrow();
                let Some(target) = target else { continue };
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let ((from_dialler, to_dialler), (from_peer, to_peer)) = (near.into_split(), far.into_split());
                all.spawn(copy(from_dialler, to_peer, modes.clone(), |mode| mode != Mode::Hang));
                all.spawn(copy(from_peer, to_dialler, modes.clone(), |mode| matches!(mode, Mode::Pass | Mode::Slow)));
            }
        });
        proxy
    }

    /// Leads new connections to `target` from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }

    /// Treats all bytes so from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// Copies while `passes`, until the proxy is cut.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, modes: watch::Receiver<Mode>, passes: fn(Mode) -> bool) {
    let mut cut = modes.clone();
    let mut passing = modes;
    let copying = async {
        let mut buffer = [0; 4096];
        loop {
            passing.wait_for(|mode| passes(*mode)).await.unwrap();
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
            passing.wait_for(|mode| passes(*mode)).await.unwrap();
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            if *passing.borrow() == Mode::Slow {
                sleep(Duration::from_millis(10)).await;
            }
        }
    };
    tokio::select! {
        () = copying => {}
        _ = cut.wait_for(|mode| matches!(mode, Mode::Cut | Mode::Vanish)) => {}
    }
}

/// Listens at an address that was given up, with so many places for those who wait.
async fn listen(address: SocketAddr, backlog: u32) -> TcpListener {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        if socket.bind(address).is_ok()
            && let Ok(listener) = socket.listen(backlog)
        {
            return listener;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// A port that answers nobody: it listens, and its queue is full.
async fn silence(address: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let listener = listen(address, 1).await;
    let mut waiting = Vec::new();
    // Whoever comes when the queue is full waits for an answer that does not come.
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    (listener, waiting)
}
