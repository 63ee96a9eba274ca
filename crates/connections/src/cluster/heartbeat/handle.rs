use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::cluster::{Peers, Times};
use crate::redis_client::Redis;

/// Everything that the heartbeat is given.
#[derive(Debug)]
pub struct HeartbeatSettings {
    pub redis: Arc<dyn Redis>,
    /// The other nodes, which renew this node's lease while Redis does not answer.
    pub peers: Arc<dyn Peers>,
    pub times: Times,
    /// Seed of the random numbers for node ids, epochs and jitter.
    pub seed: u64,
    /// Host and port at which peers reach this node.
    pub advertise: String,
}

/// A handle on the running heartbeat.
#[derive(Clone, Debug)]
pub struct HeartbeatHandle(pub(super) mpsc::Sender<oneshot::Sender<()>>);

impl HeartbeatHandle {
    /// Writes what is still to be written and takes this node out of the cluster. Nothing of the node remains in Redis,
    /// unless it has connections whose `$disconnect` was not delivered: those are left to other nodes.
    pub async fn leave(&self) {
        let (left, done) = oneshot::channel();
        if self.0.send(left).await.is_ok() {
            let _ = done.await;
        }
    }
}
