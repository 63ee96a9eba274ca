//! The end of serving: this node's clients are closed when its serving lease has run out, or when others own them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Registry;
use super::entry::EntryState;
use crate::session::Closing;
use tidegate_core::id::{ConnectionId, NodeId};

/// Closes all clients whenever the serving lease has run out and they were held for as long as they may be, until
/// `stop`.
pub async fn watch_gate(registry: Arc<Registry>, stop: CancellationToken) {
    while stop.run_until_cancelled(registry.gate().given_up()).await.is_some() {
        let connections = registry.isolate();
        if connections > 0 {
            error!(connections, "this node lost its lease and no peer could renew it; closing its clients");
        }
        if stop.run_until_cancelled(registry.gate().opened()).await.is_none() {
            return;
        }
    }
}

impl Registry {
    /// Returns true if `id` may be served at this moment: the serving lease has not run out, and the connection is of
    /// this node and not of the id that it had before it was fenced.
    pub fn may_serve(&self, id: &ConnectionId) -> bool {
        id.node() == self.node() && self.gate.is_open()
    }

    /// Gives this node the id `node`, because the old id belongs to other nodes. The serving lease ends, every session
    /// of the old id is closed, and a client whose `$connect` is under way is refused when it is answered.
    ///
    /// With `others_have_records` the other nodes hold every record that the Redis replica has acknowledged: those
    /// entries are dropped here. No other node may know of the rest: this node sends their `$disconnect` events, and
    /// records them under the new id.
    pub fn fence(&self, node: NodeId, others_have_records: bool) {
        self.gate.close();
        self.node.store(node.to_bits(), Ordering::Release);
        for outbox in self.all_open() {
            outbox.close(Closing::fenced());
        }
        if others_have_records && let Some(replica) = &self.replica {
            let incarnation = replica.redis().incarnation();
            let mut dropped = Vec::new();
            self.entries.retain(|id, entry| {
                let is_replicated = entry.acknowledged.mark != 0 && entry.acknowledged.incarnation == incarnation;
                if is_replicated {
                    dropped.push((*id, !matches!(entry.state, EntryState::Ended(_))));
                }
                !is_replicated
            });
            for (id, was_live) in dropped {
                match was_live {
                    true => _ = self.live.fetch_sub(1, Ordering::Relaxed),
                    false => self.backlog.remove(1),
                }
                self.removed(&id);
            }
        }
    }

    /// Closes every session, because this node must not serve and does not expect to be able to soon. Returns their
    /// number.
    pub fn isolate(&self) -> usize {
        let open = self.all_open();
        for outbox in &open {
            outbox.close(Closing::isolated());
        }
        open.len()
    }
}
