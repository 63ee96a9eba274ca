use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::call::Caller as _;
use super::handle::Link;
use crate::id::NodeId;

/// Renewals that peers ask for.
pub type Renewals = mpsc::Receiver<Renewal>;

/// A peer that does not reach Redis asks this node to renew its lease.
#[derive(Debug)]
pub struct Renewal {
    link: Arc<Link>,
    id: u64,
    /// Of the peer's registration.
    pub epoch: u64,
    /// How long its lease is to last.
    pub lease: Duration,
}

impl Renewal {
    pub(super) fn new(link: &Arc<Link>, id: u64, epoch: u64, lease: Duration) -> Self {
        Renewal { link: Arc::clone(link), id, epoch, lease }
    }

    /// Who asks. It has proved that it is this node.
    pub fn node(&self) -> NodeId {
        self.link.peer.node
    }

    /// Says what became of it.
    pub fn answer(self, text: String) {
        self.link.answer_info(self.id, Bytes::from(text));
    }
}
