//! The claim of one bucket of a dead node, from taking it to giving it back.

use tokio::time::Instant;
use tracing::{debug, warn};

use super::scripts::{self, ClaimAnswer, KeepAnswer};
use super::unreadable::id_of;
use super::{BATCH, ReapError, Reaper, ReaperPass};
use crate::cluster::decide::{ClaimRenewal, after_keep, is_same_run};
use crate::redis_client::{RedisCommand, read, server_info};
use crate::registry::claims::{Bucket, ClaimView};
use crate::registry::record::{self, Record, RecordTexts, texts_of};
use tidegate_core::error_chain::chain;
use tidegate_core::id::{ConnectionId, NodeId};

/// Largest number of pages of [`BATCH`] records that are read from a bucket before claims are renewed again.
const PAGES: usize = 16;

/// Reads the texts that the records of a dead node share.
pub(super) async fn read_texts(pass: &ReaperPass<'_>, node: NodeId) -> Result<RecordTexts, ReapError> {
    Ok(texts_of(pass.ask(RedisCommand::new("HGETALL", pass.keys.strings(node))).await?))
}

impl Reaper {
    /// Claims a bucket, and reads its records while there is room. Returns true if there is more to read at once.
    pub(super) async fn claim(
        &mut self,
        pass: &ReaperPass<'_>,
        bucket: Bucket,
        run_id: &str,
    ) -> Result<bool, ReapError> {
        let (node, number) = bucket;
        let (sent, times) = (Instant::now(), self.settings.times);
        let claim = scripts::claim(pass.keys, node, number, pass.node, times.lease());
        let (answer, names) = pass.ask_for(claim, ClaimAnswer::read_with_names).await?;
        match answer {
            ClaimAnswer::Mine => {}
            ClaimAnswer::Taken | ClaimAnswer::NotDead(_) => {
                debug!(%node, bucket = number, answer = answer.as_str(), "a bucket was not claimed");
                return Ok(false);
            }
        }
        let Some(dead_node) = self.dead_nodes.get_mut(&node) else { return Ok(false) };
        dead_node.announce();
        let ids: Vec<ConnectionId> = names.iter().filter_map(|name| id_of(name)).collect();
        let strange: Vec<Vec<u8>> = names.into_iter().filter(|name| id_of(name).is_none()).collect();
        self.registry.claims().take(bucket, run_id, sent + times.proven(), ids);
        self.set_aside(pass, bucket, &strange, "the name is no connection id").await?;
        self.read_on(pass, bucket).await
    }

    /// Continues to read a claimed bucket while there is room. Returns true if there is more to read at once.
    pub(super) async fn read_on(&mut self, pass: &ReaperPass<'_>, bucket: Bucket) -> Result<bool, ReapError> {
        let (node, number) = bucket;
        let key = pass.keys.bucket(node, number);
        for _ in 0..PAGES {
            let ids = self.next_page(bucket);
            if ids.is_empty() {
                return Ok(false);
            }
            if self.dead_nodes.get(&node).is_some_and(|dead_node| dead_node.texts.is_none()) {
                let texts = read_texts(pass, node).await?;
                self.dead_nodes.entry(node).and_modify(|dead_node| dead_node.texts = Some(texts));
            }
            let names: Vec<Vec<u8>> = ids.iter().map(|id| id.to_string().into_bytes()).collect();
            let call = names.iter().fold(RedisCommand::new("HMGET", key.clone()), RedisCommand::arg);
            let fields: Vec<Option<Vec<u8>>> = pass.ask(call).await?;
            let (mut records, mut unreadable, mut why) = (Vec::with_capacity(ids.len()), Vec::new(), String::new());
            for (id, bytes) in ids.iter().zip(fields) {
                match bytes.map(|bytes| self.read_record(node, *id, &bytes)) {
                    Some(Ok(record)) => records.push(record),
                    Some(Err(error)) => {
                        unreadable.push(id.to_string().into_bytes());
                        why = chain(&error).to_string();
                    }
                    // The event of this record is over.
                    None => {}
                }
            }
            let new = self.registry.claims().add(bucket, ids.len(), records);
            self.dead_nodes.entry(node).and_modify(|dead_node| dead_node.taken += new);
            self.set_aside(pass, bucket, &unreadable, &why).await?;
            // A large bucket must not hold up other tasks.
            tokio::task::yield_now().await;
        }
        Ok(!self.next_page(bucket).is_empty())
    }

    /// Returns the records to read next: none until there is room for several at once.
    fn next_page(&self, bucket: Bucket) -> Vec<ConnectionId> {
        let claims = self.registry.claims();
        let held_max = self.held_max();
        let room = held_max.saturating_sub(claims.len());
        let few = BATCH.min(held_max.div_ceil(4));
        claims.unread(bucket, BATCH, if room < few { 0 } else { room })
    }

    /// Decodes one record. A shared text that is missing becomes empty, so that the event is not lost with it.
    fn read_record(&self, node: NodeId, id: ConnectionId, bytes: &[u8]) -> Result<Record, record::RecordError> {
        let texts = self.dead_nodes.get(&node).and_then(|dead_node| dead_node.texts.as_ref());
        let text = |number: u32| Some(texts.and_then(|texts| texts.get(&number).cloned()).unwrap_or_default());
        record::decode(id, bytes, self.registry.client_header_bytes(), text)
    }

    /// Renews all claims.
    pub(super) async fn keep_claims(&mut self, pass: &ReaperPass<'_>) -> Result<(), ReapError> {
        let views = self.registry.claims().views();
        if views.is_empty() {
            return Ok(());
        }
        let (sent, lease) = (Instant::now(), self.settings.times.lease());
        let calls = views.iter().flat_map(|ClaimView { bucket: (node, bucket), .. }| {
            let info = server_info::ask(pass.connection, pass.keys, *node, "server");
            [info, scripts::keep(pass.keys, *node, *bucket, pass.node, lease)]
        });
        let calls: Vec<RedisCommand> = calls.collect();
        let answers = pass.connection.run(&calls).await.map_err(ReapError::Redis)?;
        for (view, answer) in views.iter().zip(answers.as_chunks::<2>().0) {
            let info: String = read(answer[0].clone()).map_err(ReapError::Redis)?;
            let answer = KeepAnswer::read(answer[1].clone()).map_err(ReapError::Redis)?;
            let run_id = server_info::run_id_of(&info);
            self.kept(pass, view, answer, &run_id, sent).await?;
        }
        Ok(())
    }

    async fn kept(
        &mut self,
        pass: &ReaperPass<'_>,
        ClaimView { bucket, is_fresh, run_id: granted_by, .. }: &ClaimView,
        KeepAnswer { claim, found }: KeepAnswer,
        run_id: &str,
        sent: Instant,
    ) -> Result<(), ReapError> {
        let (node, number) = *bucket;
        let claims = self.registry.claims();
        match after_keep(claim, *is_fresh, is_same_run(granted_by, run_id)) {
            ClaimRenewal::Kept => claims.keep(*bucket, run_id, sent + self.settings.times.proven()),
            ClaimRenewal::Lost => {
                debug!(%node, bucket = number, "another node has the bucket");
                claims.forget(*bucket);
            }
            ClaimRenewal::Restore => {
                warn!(%node, bucket = number, found, "Redis lost records that this node took over; writing them back");
                self.restore(pass, *bucket, run_id).await?;
            }
            // The records are read later in the same pass.
            ClaimRenewal::Reload => _ = self.claim(pass, *bucket, run_id).await?,
        }
        Ok(())
    }

    /// Writes the records of a bucket that are held here back to Redis. The index is written first: if this node dies
    /// in between, others find the rest.
    async fn restore(&mut self, pass: &ReaperPass<'_>, bucket: Bucket, run_id: &str) -> Result<(), ReapError> {
        let (sent, times) = (Instant::now(), self.settings.times);
        if let Some(dead_node) = self.dead_nodes.get(&bucket.0) {
            let index = Self::index_entry(pass, &dead_node.member);
            pass.connection.run_one(index).await.map_err(ReapError::Redis)?;
        }
        let records = self.registry.claims().unfinished(bucket);
        let mut chunks: Vec<_> = records.chunks(BATCH).map(<[_]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        let mut is_mine = true;
        for records in chunks {
            let restore = scripts::restore(pass.keys, bucket, pass.node, times.lease(), records);
            is_mine &= pass.ask_for(restore, ClaimAnswer::read).await? == ClaimAnswer::Mine;
        }
        match is_mine {
            true => self.registry.claims().keep(bucket, run_id, sent + times.proven()),
            false => self.registry.claims().forget(bucket),
        }
        Ok(())
    }

    /// Notes the outcomes of events in Redis. Gives a bucket back if nothing of it is left.
    pub(super) async fn note_outcomes(&mut self, pass: &ReaperPass<'_>) -> Result<(), ReapError> {
        for ClaimView { bucket, .. } in self.registry.claims().views() {
            loop {
                let claims = self.registry.claims();
                let outcomes = claims.outcomes(bucket, BATCH);
                if outcomes.is_empty() && !outcomes.is_last {
                    break;
                }
                let done: Vec<String> = outcomes.done.iter().map(ToString::to_string).collect();
                let failed = outcomes.failed.clone();
                let finish = scripts::finish(pass.keys, bucket, pass.node, !outcomes.is_last, &done, failed);
                let answer: String = pass.ask(finish).await?;
                claims.noted(bucket, &outcomes);
                if let Some(dead_node) = self.dead_nodes.get_mut(&bucket.0) {
                    dead_node.left = dead_node.left.saturating_sub(done.len());
                    if outcomes.is_last {
                        // There is room again, or nothing is left.
                        dead_node.look_at = Instant::now();
                    }
                }
                if outcomes.is_last {
                    debug!(node = %bucket.0, bucket = bucket.1, answer, "a bucket is done");
                    claims.forget(bucket);
                    break;
                }
            }
        }
        Ok(())
    }
}
