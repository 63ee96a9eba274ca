//! The only task that writes records. It always writes the present state of an entry, so puts and deletes of one id
//! coalesce, and nothing is written out of order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Registry;
use super::entry::PresentState;
use super::record::{self, RecordText, encode};
use super::redis_replica::{RedisReplica, Work};
use super::scripts::{self, RecordChange};
use crate::redis_client::{Attachment, BUCKETS, Keys, NodeAnswer, RedisCommand, RedisError, read};
use tidegate_core::error_chain::chain;
use tidegate_core::id::ConnectionId;

/// Most texts that the records of a node share. Other texts stand in their records.
const TEXTS_MAX: usize = 4096;

/// Length of the shortest text that is shared. Shorter ones stand in their records.
const TEXT_MIN_BYTES: usize = 8;

/// Writes records until `stop`. Run it once for each registry.
pub async fn run(registry: Arc<Registry>, replica: Arc<RedisReplica>, stop: CancellationToken) {
    let mut writer =
        Writer { registry, replica, texts: TextTable::default(), rebuild: VecDeque::new(), rebuild_at: None };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = writer.run() => {}
    }
}

struct Writer {
    registry: Arc<Registry>,
    replica: Arc<RedisReplica>,
    texts: TextTable,
    /// Ids that differ according to the last reconciling and are not written yet.
    rebuild: VecDeque<ConnectionId>,
    /// Time when the next of them may be written.
    rebuild_at: Option<Instant>,
}

/// The reason why a write failed.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("could not write records")]
    Redis(#[source] RedisError),
    #[error("this node's key in Redis is `{0}`")]
    NotOurs(String),
}

impl Writer {
    async fn run(&mut self) {
        loop {
            let due = self.rebuild_at.is_none_or(|at| at <= Instant::now());
            match self.replica.next(!self.rebuild.is_empty()) {
                Work::Write(attachment, incarnation, ids) => self.write(&attachment, incarnation, ids, due).await,
                Work::Reconcile(attachment, incarnation, buckets) => {
                    self.reconcile(&attachment, incarnation, buckets).await;
                }
                Work::Nothing if self.rebuild.is_empty() => self.replica.work.notified().await,
                Work::Nothing => match (self.replica.redis().attachment(), self.rebuild_at) {
                    (None, _) => self.rebuild = VecDeque::new(),
                    (Some((attachment, incarnation)), _) if due => {
                        self.write(&attachment, incarnation, Vec::new(), due).await;
                    }
                    (Some(_), at) => {
                        tokio::select! {
                            biased;
                            () = self.replica.work.notified() => {}
                            () = sleep_until(at.unwrap_or_else(Instant::now)) => {}
                        }
                    }
                },
            }
        }
    }

    /// Writes `ids`, and with `due` as many ids of the rebuild as fit into the batch and the pace.
    async fn write(&mut self, attachment: &Attachment, incarnation: u32, mut ids: Vec<ConnectionId>, due: bool) {
        let fresh = ids.len();
        if due {
            let count = self.rebuild.len().min(self.replica.settings.batch.saturating_sub(fresh));
            ids.extend(self.rebuild.drain(..count));
            let pause = Duration::from_secs_f64(count as f64 / f64::from(self.replica.settings.rebuild_per_second));
            self.rebuild_at = Some(Instant::now() + pause);
        }
        match self.write_batch(attachment, incarnation, &ids).await {
            Ok(puts) => {
                // The waiters of rebuilt ids too: a batch that failed without being noticed may have had one of them.
                self.replica.written(&ids);
                // Deletes alone prove nothing: Redis accepts them even when its memory is full.
                if puts > 0 {
                    self.replica.wrote(self.rebuild.is_empty());
                }
            }
            Err(error) => self.fail(attachment, &error),
        }
    }

    /// Writes the present state of `ids`. Returns the number of records that were put, not deleted.
    async fn write_batch(
        &mut self,
        attachment: &Attachment,
        incarnation: u32,
        ids: &[ConnectionId],
    ) -> Result<usize, WriteError> {
        let mut strings = Vec::new();
        let mut states = Vec::with_capacity(ids.len());
        let mut changes: Vec<RecordChange> = Vec::with_capacity(ids.len());
        for id in ids {
            let record = self.registry.present(id).map(|PresentState { connection, state, mark }| {
                states.push((*id, mark));
                let mut intern = |text| self.texts.intern(text, incarnation, &mut strings);
                let user_agent = connection.user_agent.as_deref().map(&mut intern);
                let client_cert = connection.client_cert.as_deref().map(|cert| intern(&cert.client_cert_pem));
                encode(&connection, &state, record::OwnTexts { user_agent, client_cert })
            });
            changes.push(RecordChange { bucket: Keys::bucket_of(id), id: id.to_string(), record });
        }
        // Deletes come first, because they need no memory: once a script has written something, Redis lets it finish.
        changes.sort_by_key(|change| change.record.is_some());
        let call = scripts::write(self.replica.keys(), attachment.node, attachment.epoch, &strings, changes);
        self.call(attachment, call).await?;
        self.texts.written(&strings, incarnation);
        for (id, mark) in &states {
            self.registry.acknowledge(id, *mark, incarnation);
        }
        Ok(states.len())
    }

    /// Runs a `write` script, and checks by its answer that the records are still this node's.
    async fn call(&self, attachment: &Attachment, call: RedisCommand) -> Result<(), WriteError> {
        let started = Instant::now();
        let answer = attachment.connection.run_one(call).await;
        self.replica.redis().metrics().took("write", started.elapsed());
        match answer.and_then(NodeAnswer::read).map_err(WriteError::Redis)? {
            NodeAnswer::Done => Ok(()),
            found @ (NodeAnswer::Refused(_) | NodeAnswer::Unexpected(_)) => Err(WriteError::NotOurs(found.to_text())),
        }
    }

    fn fail(&mut self, attachment: &Attachment, error: &WriteError) {
        self.rebuild = VecDeque::new();
        self.rebuild_at = None;
        self.replica.fail(attachment, chain(error).to_string());
    }

    /// Finds the ids that are on one side only, or whose present state was not acknowledged. Surplus records in Redis
    /// are deleted at once; the rest is written at the pace of the rebuild.
    async fn reconcile(&mut self, attachment: &Attachment, incarnation: u32, buckets: u16) {
        let mut own = self.registry.by_bucket(incarnation);
        for bucket in (0..BUCKETS).filter(|bucket| buckets & 1 << bucket != 0) {
            match self.compare(attachment, bucket, std::mem::take(&mut own[bucket])).await {
                Ok(()) if self.replica.redis().is_current(attachment) => {}
                Ok(()) => return,
                Err(error) => return self.fail(attachment, &error),
            }
        }
        debug!(differences = self.rebuild.len(), "the records in Redis were compared with this node's");
        if self.rebuild.is_empty() {
            self.replica.wrote(true);
        }
    }

    async fn compare(
        &mut self,
        attachment: &Attachment,
        bucket: usize,
        own: Vec<(ConnectionId, bool)>,
    ) -> Result<(), WriteError> {
        let key = self.replica.keys().bucket(attachment.node, bucket);
        let call = RedisCommand::new("HKEYS", key);
        let fields: Vec<String> =
            attachment.connection.run_one(call).await.and_then(read).map_err(WriteError::Redis)?;
        let there: HashSet<&str> = fields.iter().map(String::as_str).collect();
        let mut known = HashSet::with_capacity(own.len());
        for (id, is_acknowledged) in own {
            let text = id.to_string();
            if !is_acknowledged || !there.contains(text.as_str()) {
                self.rebuild.push_back(id);
            }
            known.insert(text);
        }
        let foreign: Vec<&String> = fields.iter().filter(|field| !known.contains(*field)).collect();
        for fields in foreign.chunks(self.replica.settings.batch) {
            let mut changes = Vec::with_capacity(fields.len());
            for field in fields {
                // A connection that began since the map was read is not a surplus one.
                match ConnectionId::parse(field) {
                    Ok(id) if self.registry.present(&id).is_some() => {}
                    Ok(_) => changes.push(RecordChange { bucket, id: (*field).clone(), record: None }),
                    Err(_) => {
                        warn!(bucket, "the key of a record is not a connection id; removed it from Redis");
                        changes.push(RecordChange { bucket, id: (*field).clone(), record: None });
                    }
                }
            }
            if !changes.is_empty() {
                let call = scripts::write(self.replica.keys(), attachment.node, attachment.epoch, &[], changes);
                self.call(attachment, call).await?;
            }
        }
        Ok(())
    }
}

/// The texts that many records share, and the incarnation in which Redis has them.
#[derive(Debug, Default)]
struct TextTable {
    numbers: HashMap<Box<str>, (u32, Option<u32>)>,
}

impl TextTable {
    /// Returns the text as it stands in a record. A text that Redis does not have yet is added to `strings`.
    fn intern<'a>(&mut self, text: &'a str, incarnation: u32, strings: &mut Vec<(u32, String)>) -> RecordText<'a> {
        let is_new = !self.numbers.contains_key(text);
        if is_new && (self.numbers.len() >= TEXTS_MAX || text.len() < TEXT_MIN_BYTES) {
            return RecordText::Inline(text.into());
        }
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        let (number, written) = *self.numbers.entry(text.into()).or_insert((next, None));
        if written != Some(incarnation) && strings.iter().all(|(known, _)| *known != number) {
            strings.push((number, text.to_owned()));
        }
        RecordText::Interned(number)
    }

    fn written(&mut self, strings: &[(u32, String)], incarnation: u32) {
        for (_, text) in strings {
            if let Some((_, written)) = self.numbers.get_mut(text.as_str()) {
                *written = Some(incarnation);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_text_is_written_once_and_again_after_redis_forgot() {
        let mut texts = TextTable::default();
        let mut intern = |text: &str, incarnation: u32, acknowledged: bool| {
            let mut strings = Vec::new();
            let interned = matches!(texts.intern(text, incarnation, &mut strings), RecordText::Interned(_));
            if acknowledged {
                texts.written(&strings, incarnation);
            }
            (interned, strings.len())
        };
        assert_eq!(intern("curl", 0, true), (false, 0), "short");
        assert_eq!(intern("Mozilla/5.0", 0, false), (true, 1));
        assert_eq!(intern("Mozilla/5.0", 0, true), (true, 1), "the first write failed");
        assert_eq!(intern("Mozilla/5.0", 0, true), (true, 0));
        assert_eq!(intern("Mozilla/5.0", 1, true), (true, 1), "Redis forgot");
        for number in 0..TEXTS_MAX {
            intern(&format!("agent number {number}"), 1, true);
        }
        assert_eq!(intern("one too many", 1, true), (false, 0));
    }
}
