//! Registering a node in Redis, taking it out again, and giving it another id after it was fenced.

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::Heartbeat;
use super::attempt::HeartbeatError;
use crate::cluster::decide::RegistrationOutcome;
use crate::cluster::node_index::NodeIndexEntry;
use crate::cluster::node_state::Fenced;
use crate::cluster::scripts::{self, LeaveAnswer};
use crate::redis_client::{Keys, NodeAnswer, NodeKey, RedisCommand, RedisConnection, RedisError};
use crate::registry::RegistryState;
use tidegate_core::error_chain::chain;
use tidegate_core::id::{NODE_ID_BYTES, NodeId};

impl Heartbeat {
    /// Registers this node: first its entry in the index, then its key, so that a crash in between leaves an entry that
    /// other nodes can find. Returns false if another step is needed.
    pub(super) async fn register(&mut self, connection: &RedisConnection) -> Result<bool, HeartbeatError> {
        let node = self.registry.node();
        let keys = self.replica.keys();
        let index = self.index_entry(keys, node);
        connection.run_one(index).await.map_err(HeartbeatError::Register)?;
        let register = scripts::register(keys, node, self.state.epoch(), self.settings.times.lease());
        let answer = connection.run_one(register).await.and_then(NodeAnswer::read).map_err(HeartbeatError::Register)?;
        match self.state.on_registration(&answer) {
            RegistrationOutcome::Registered => {
                self.observations.interrupt();
                info!(%node, "this node is registered in Redis");
                Ok(true)
            }
            RegistrationOutcome::RolledBack { .. } => {
                self.rolled_back();
                Ok(true)
            }
            RegistrationOutcome::Taken { found } => {
                // Nobody knows which server holds what was acknowledged under an earlier epoch. The empty run id equals
                // none.
                self.fence(found, "");
                Ok(false)
            }
            RegistrationOutcome::Unexpected => Err(HeartbeatError::Register(RedisError::Unexpected)),
        }
    }

    pub(super) fn index_entry(&self, keys: &Keys, node: NodeId) -> RedisCommand {
        let entry = NodeIndexEntry::own(&self.settings.advertise).encode();
        RedisCommand::new("HSET", keys.index()).arg(node.to_string()).arg(entry)
    }

    pub(super) fn rolled_back(&mut self) {
        warn!("Redis came back with an older state; reconciling all records");
        self.observations.interrupt();
    }

    /// Gives up this node's id, which belongs to other nodes now: its key was found to be `found` on the server with
    /// the run id `run_id`. Closes the sessions and goes on under another id; see [`Registry::fence`] for what becomes
    /// of the connections.
    pub(super) fn fence(&mut self, found: NodeKey, run_id: &str) {
        let fenced = self.registry.node();
        let node = NodeId::from_bits(self.random.random::<u64>() >> (64 - 8 * NODE_ID_BYTES));
        let Fenced { was_registered, others_have_records } =
            self.state.on_fenced(found, run_id, epoch(&mut self.random));
        // From here nothing is written under the old id, and no client is accepted until the new one is registered.
        self.replica.leave(&RegistryState::Starting { why: "this node was condemned and takes a new id".to_owned() });
        self.registry.fence(node, others_have_records);
        self.settings.peers.rename(node);
        if was_registered {
            error!(
                %fenced, found = found.to_text(), %node, others_have_records,
                "this node was condemned by others; closing its sessions and registering under another id"
            );
        }
        self.observations.interrupt();
    }

    pub(super) async fn leave(&mut self) {
        if self.state.attached_since().is_none() && !self.heartbeat().await {
            warn!("Redis does not answer; leaving without deregistering, and other nodes will condemn this one");
            return;
        }
        let patience = self.settings.times.heartbeat();
        let is_written = timeout(patience, self.replica.flush()).await;
        let Some(connection) = self.connection.clone() else { return };
        self.replica.leave(&RegistryState::Left);
        let node = self.registry.node();
        let keys = self.replica.keys();
        match connection.run_one(scripts::leave(keys, node, self.state.epoch())).await.and_then(LeaveAnswer::read) {
            Ok(LeaveAnswer::Removed) => {
                let index = RedisCommand::new("HDEL", keys.index()).arg(node.to_string());
                if let Err(error) = connection.run_one(index).await {
                    warn!(error = %chain(&error), "could not remove this node's index entry; others will do so");
                }
            }
            Ok(LeaveAnswer::Remains(answer)) => warn!(
                answer,
                written = matches!(is_written, Ok(true)),
                "not every $disconnect was delivered; leaving the remaining connections to other nodes"
            ),
            Err(error) => warn!(error = %chain(&error), "could not deregister this node; other nodes will condemn it"),
        }
    }
}

/// Draws an epoch, which tells one registration of a node from another. Epochs are random, so that a key in Redis says
/// whether this process wrote it.
pub(super) fn epoch(random: &mut StdRng) -> u64 {
    u64::from(random.random::<u32>()).max(1)
}
