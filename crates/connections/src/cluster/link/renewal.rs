use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::call::Caller as _;
use super::handle::Link;
use tidegate_core::id::NodeId;

/// The renewals that peers ask for.
pub type RenewalRequests = mpsc::Receiver<RenewalRequest>;

/// A request of a peer that does not reach Redis: this node is to renew its lease.
#[derive(Debug)]
pub struct RenewalRequest {
    link: Arc<Link>,
    id: u64,
    /// Epoch of the peer's registration.
    pub epoch: u64,
    /// Length of the lease.
    pub lease: Duration,
}

impl RenewalRequest {
    pub(super) fn new(link: &Arc<Link>, id: u64, epoch: u64, lease: Duration) -> Self {
        RenewalRequest { link: Arc::clone(link), id, epoch, lease }
    }

    /// Returns the node that asks. The handshake has proved its id.
    pub fn node(&self) -> NodeId {
        self.link.peer.node
    }

    /// Answers the request with `text`, the outcome of the renewal.
    pub fn answer(self, text: String) {
        self.link.answer_info(self.id, Bytes::from(text));
    }
}
