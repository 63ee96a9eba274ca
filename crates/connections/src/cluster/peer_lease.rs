//! The help that a node gives to a peer that does not reach Redis: it renews the peer's lease, or says that it does not
//! reach Redis either.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio_util::sync::CancellationToken;

use super::link::{Links, PeerAnswer, RenewalRequest, RenewalRequests};
use super::{Membership, scripts};
use crate::redis_client::{AttachedRedis, NodeAnswer, NodeKey, Reach, read, server_info};
use tidegate_core::id::NodeId;

/// Most renewals that go to Redis in one round trip.
const BATCH: usize = 64;

/// The answer of a peer that does not reach Redis itself.
const DETACHED: &str = "DETACHED";

/// The other nodes, as the heartbeat needs them: reached through links, or played by a simulation.
pub trait Peers: fmt::Debug + Send + Sync {
    /// Asks every linked peer to renew the lease of this node, and collects the answers that come within `within`.
    fn renew(&self, epoch: u64, lease: Duration, within: Duration) -> BoxFuture<'_, Vec<RelayedRenewal>>;

    /// Tries the addresses of all other nodes that are known and have not left, the condemned among them.
    fn reach(&self, within: Duration) -> BoxFuture<'_, Vec<Reach>>;

    /// Gives this node the id `node`. Peers learn of it when their links end.
    fn rename(&self, node: NodeId);
}

/// The answer of one peer to a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayedRenewal {
    /// The answer of Redis: what the script returned, and the run id of the server, empty if it is unknown.
    Answered { renewal: NodeAnswer, run_id: String },
    /// The peer cannot reach Redis either, and has not seen that the node is dead.
    Detached,
}

impl RelayedRenewal {
    /// Returns the text that goes over a link.
    pub fn to_text(&self) -> String {
        match self {
            RelayedRenewal::Answered { renewal, run_id } => format!("{}\n{run_id}", renewal.to_text()),
            RelayedRenewal::Detached => DETACHED.to_owned(),
        }
    }

    /// Reads the text of [`RelayedRenewal::to_text`].
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('\n') {
            Some((renewal, run_id)) => {
                Some(RelayedRenewal::Answered { renewal: NodeAnswer::parse(renewal), run_id: run_id.to_owned() })
            }
            None => (text == DETACHED).then_some(RelayedRenewal::Detached),
        }
    }
}

impl Peers for Links {
    fn renew(&self, epoch: u64, lease: Duration, within: Duration) -> BoxFuture<'_, Vec<RelayedRenewal>> {
        let lease_millis = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        Box::pin(async move {
            let links = self.all();
            let answers = join_all(links.iter().map(|link| link.renew(epoch, lease_millis, within))).await;
            let text = |answer| match answer {
                Ok(PeerAnswer::Info(text)) => Some(text),
                Ok(PeerAnswer::Outcome(_)) | Err(_) => None,
            };
            let parse = |text: bytes::Bytes| RelayedRenewal::parse(std::str::from_utf8(&text).ok()?);
            answers.into_iter().filter_map(text).filter_map(parse).collect()
        })
    }

    fn reach(&self, within: Duration) -> BoxFuture<'_, Vec<Reach>> {
        let addresses = self.addresses();
        Box::pin(async move { join_all(addresses.iter().map(|address| Reach::of(address, within))).await })
    }

    fn rename(&self, node: NodeId) {
        Links::rename(self, node);
    }
}

/// Renews leases for peers that do not reach Redis, until `stop`. Up to 64 renewals that wait share a round trip.
pub async fn serve_renewals(
    mut renewals: RenewalRequests,
    redis: Arc<AttachedRedis>,
    membership: Arc<Membership>,
    stop: CancellationToken,
) {
    let mut waiting = Vec::with_capacity(BATCH);
    while stop.run_until_cancelled(renewals.recv_many(&mut waiting, BATCH)).await.is_some_and(|count| count > 0) {
        let wanted: Vec<PeerLease> = waiting.iter().map(PeerLease::of).collect();
        let answers = renew_for(&redis, &membership, &wanted).await;
        for (renewal, answer) in waiting.drain(..).zip(answers) {
            renewal.answer(answer.to_text());
        }
    }
}

/// A lease to be renewed for another node.
#[derive(Clone, Copy, Debug)]
pub struct PeerLease {
    pub node: NodeId,
    pub epoch: u64,
    pub lease: Duration,
}

impl PeerLease {
    fn of(renewal: &RenewalRequest) -> Self {
        PeerLease { node: renewal.node(), epoch: renewal.epoch, lease: renewal.lease }
    }
}

/// Renews the leases of the `wanted` nodes, and returns the answer for each.
pub async fn renew_for(redis: &AttachedRedis, membership: &Membership, wanted: &[PeerLease]) -> Vec<RelayedRenewal> {
    let keys = redis.keys();
    let answers = match redis.connection() {
        // If this fails, this node does not reach Redis either; its own heartbeat finds out too.
        Some(connection) => {
            let calls = wanted.iter().flat_map(|PeerLease { node, epoch, lease }| {
                [server_info::ask(&connection, keys, *node, "server"), scripts::renew(keys, *node, *epoch, *lease)]
            });
            connection.run(&calls.collect::<Vec<_>>()).await.unwrap_or_default()
        }
        None => Vec::new(),
    };
    let mut answers = answers.into_iter();
    let mut answer = |wanted: &PeerLease| {
        let info = answers.next().and_then(|answer| read::<String>(answer).ok());
        let renewal = answers.next().and_then(|answer| NodeAnswer::read(answer).ok());
        match (info, renewal) {
            (Some(info), Some(renewal)) => RelayedRenewal::Answered { renewal, run_id: server_info::run_id_of(&info) },
            _ => detached(membership, &wanted.node),
        }
    };
    wanted.iter().map(&mut answer).collect()
}

/// Returns the answer of a node without Redis: what its table says of `node`.
fn detached(membership: &Membership, node: &NodeId) -> RelayedRenewal {
    match membership.table().members.get(node).map(|member| member.key) {
        Some(key @ NodeKey::Dead { .. }) => {
            RelayedRenewal::Answered { renewal: NodeAnswer::Refused(key), run_id: String::new() }
        }
        _ => RelayedRenewal::Detached,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_is_heard() {
        let answered =
            |text: &str| RelayedRenewal::Answered { renewal: NodeAnswer::parse(text), run_id: "abc".to_owned() };
        for (text, relayed) in [
            ("OK\nabc", answered("OK")),
            ("dead 7\nabc", answered("dead 7")),
            ("MISSING\nabc", answered("MISSING")),
            ("an answer of a later version\nabc", answered("an answer of a later version")),
            ("DETACHED", RelayedRenewal::Detached),
        ] {
            assert_eq!(relayed.to_text(), text);
            assert_eq!(RelayedRenewal::parse(text), Some(relayed));
        }
        assert_eq!(RelayedRenewal::parse("what"), None);
    }
}
