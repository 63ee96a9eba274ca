//! Condemning the nodes that are silent.

use tokio::time::Instant;
use tracing::{debug, warn};

use super::Heartbeat;
use crate::cluster::observe::CondemnCandidate;
use crate::cluster::reaper::scripts::{self, CondemnAnswer};
use crate::redis_client::{RedisCommand, RedisConnection};
use tidegate_core::error_chain::chain;

impl Heartbeat {
    /// Condemns the nodes that were silent for long enough at the look that was sent at `sent`, if this node's own
    /// serving lease has not run out. Redis decides each case in one atomic step, by what it holds at that moment.
    pub(super) async fn condemn(&mut self, connection: &RedisConnection, sent: Instant) {
        let times = self.settings.times;
        let candidates = self.observations.condemnable(sent, times.watch());
        if candidates.is_empty() || !self.registry.gate().is_open() {
            return;
        }
        let slack = u64::try_from(times.slack().as_millis()).unwrap_or(u64::MAX);
        let call = |CondemnCandidate { node, key, time_millis }: &CondemnCandidate| -> RedisCommand {
            scripts::condemn(self.replica.keys(), *node, *key, time_millis.saturating_add(slack))
        };
        let calls: Vec<RedisCommand> = candidates.iter().map(call).collect();
        let answers = match connection.run(&calls).await {
            Ok(answers) => answers,
            // The lease is renewed all the same. If the connection is at fault, the next heartbeat finds out.
            Err(error) => {
                let why = chain(&error).to_string();
                if let Some(repeated) = self.condemning.due(&why) {
                    warn!(error = why, repeated, "could not declare silent nodes dead; trying again");
                }
                return;
            }
        };
        self.condemning.over();
        for (CondemnCandidate { node, key, .. }, answer) in candidates.iter().zip(answers) {
            match CondemnAnswer::read(answer) {
                CondemnAnswer::Condemned => {
                    let key = key.to_text();
                    warn!(%node, key, "a node was silent for longer than its lease; it is declared dead");
                    self.observations.condemned(node);
                }
                CondemnAnswer::Refused(answer) => {
                    debug!(%node, answer, "a silent node was not declared dead; looking again soon");
                }
            }
        }
    }
}
