use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tidegate_connections::cluster::{Membership, Peers, RelayedRenewal};
use tidegate_connections::redis_client::Reach;
use tidegate_core::id::NodeId;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::world::{Message, World};

/// The other processes, through links that can be cut.
pub(crate) struct SimPeers {
    pub(crate) world: World,
    pub(crate) place: usize,
    pub(crate) membership: Arc<Membership>,
}

impl fmt::Debug for SimPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimPeers")
    }
}

impl Peers for SimPeers {
    fn renew(&self, epoch: u64, lease: Duration, within: Duration) -> BoxFuture<'_, Vec<RelayedRenewal>> {
        Box::pin(async move {
            let answers: Vec<_> = {
                let inner = self.world.lock();
                let Some(node) = inner.name_of(self.place) else { return Vec::new() };
                // A node has links to those that it has heard of.
                let known = self.membership.table();
                let others = (0..inner.places.len()).filter(|other| {
                    let name = inner.name_of(*other);
                    inner.is_linked(self.place, *other) && name.is_some_and(|name| known.members.contains_key(&name))
                });
                let ask = |other: usize| {
                    let (reply, answer) = oneshot::channel();
                    let message = Message::Renew { node, epoch, lease, reply };
                    inner.places[other].inbox.as_ref().map(|inbox| inbox.send(message));
                    async move { (other, timeout(within, answer).await) }
                };
                others.map(ask).collect()
            };
            let answers = join_all(answers).await;
            let inner = self.world.lock();
            let heard = |(other, answer): (usize, Result<Result<RelayedRenewal, _>, _>)| {
                answer.ok()?.ok().filter(|_| inner.is_linked(self.place, other))
            };
            answers.into_iter().filter_map(heard).collect()
        })
    }

    fn reach(&self, within: Duration) -> BoxFuture<'_, Vec<Reach>> {
        Box::pin(async move {
            let reached: Vec<Reach> = {
                let inner = self.world.lock();
                let own = inner.name_of(self.place);
                let table = self.membership.table();
                let may_live = table.members.values().filter(|member| Some(member.node) != own);
                let reach = |node: &NodeId| match inner.nodes.get(node) {
                    Some(place) if *place == self.place => Reach::Accepted,
                    Some(place) if inner.is_cut(self.place, *place) => Reach::Silent,
                    Some(place) if inner.places[*place].is_running => Reach::Accepted,
                    Some(_) | None => Reach::Refused,
                };
                may_live.map(|member| reach(&member.node)).collect()
            };
            if reached.contains(&Reach::Silent) {
                sleep(within).await;
            }
            reached
        })
    }

    fn rename(&self, node: NodeId) {
        let mut inner = self.world.lock();
        inner.nodes.insert(node, self.place);
        inner.names.insert(self.place, node);
        inner.say(&format!("place {} was fenced and is {node} now", self.place));
    }
}
