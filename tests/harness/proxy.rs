use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// What a proxy does with the bytes between a dialler and its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Takes what the peer says, and keeps it.
    HoldAnswers,
    /// Takes nothing from either side: both look as if they hung.
    Hang,
    /// Cuts what is there and takes nothing new.
    Cut,
}

/// A TCP proxy before a node's peer port, or before Redis.
pub(crate) struct TestProxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    target: watch::Sender<Option<SocketAddr>>,
}

impl TestProxy {
    pub(crate) async fn start(target: SocketAddr, tasks: &TaskTracker) -> Arc<Self> {
        let proxy = Self::open(tasks).await;
        proxy.lead_to(target);
        proxy
    }

    /// One that leads nowhere yet and turns everybody away.
    pub(crate) async fn open(tasks: &TaskTracker) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ((mode, modes), (target, targets)) = (watch::channel(Mode::Pass), watch::channel(None));
        let proxy = Arc::new(TestProxy { address: listener.local_addr().unwrap(), mode, target });
        let all = tasks.clone();
        tasks.spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { return };
                if *modes.borrow() == Mode::Cut {
                    continue;
                }
                let target = *targets.borrow();
                let Some(target) = target else { continue };
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let ((from_dialler, to_dialler), (from_peer, to_peer)) = (near.into_split(), far.into_split());
                all.spawn(copy(from_dialler, to_peer, modes.clone(), |mode| mode != Mode::Hang));
                all.spawn(copy(from_peer, to_dialler, modes.clone(), |mode| mode == Mode::Pass));
            }
        });
        proxy
    }

    /// Where new connections lead from now on.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }

    pub(crate) fn set(&self, mode: Mode) {
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
        }
    };
    tokio::select! {
        () = copying => {}
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}
