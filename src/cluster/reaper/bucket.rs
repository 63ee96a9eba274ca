//! One bucket of a dead node: claimed, kept, given back.

use std::collections::HashMap;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{BATCH, Estate, Pass, ReapError, Reaper};
use crate::cluster::decide::{Claimed, Keeping, after_claim, is_same_run, keeping};
use crate::cluster::survey::run_id_of;
use crate::id::ConnectionId;
use crate::redis_client::{Call, RedisError, read, reaping, scripts};
use crate::registry::claims::{Bucket, ClaimView};
use crate::registry::record::{self, Record, RecordError};
use crate::telemetry::chain;

impl Reaper {
    /// Claims a bucket, with its records.
    pub(super) async fn claim(&mut self, pass: &Pass<'_>, bucket: Bucket, run_id: &str) -> Result<(), ReapError> {
        let (node, number) = bucket;
        let (sent, times) = (Instant::now(), self.settings.times);
        let claim = reaping::claim(pass.keys, node, number, pass.node, times.lease());
        let texts = Call::command("HGETALL", pass.keys.strings(node));
        let needs_texts = self.estates.get(&node).is_none_or(|estate| estate.texts.is_none());
        let calls: Vec<Call> = [claim].into_iter().chain(needs_texts.then_some(texts)).collect();
        let mut answers = pass.connection.run(&calls).await.map_err(ReapError::Redis)?.into_iter();
        let answer = answers.next().ok_or(ReapError::Redis(RedisError::Unexpected))?;
        let (answer, fields): (String, Vec<Vec<u8>>) = read(answer).map_err(ReapError::Redis)?;
        match after_claim(&answer) {
            Claimed::Mine => {}
            Claimed::Taken | Claimed::NotDead => {
                debug!(%node, bucket = number, answer, "a bucket was not claimed");
                return Ok(());
            }
        }
        let Some(estate) = self.estates.get_mut(&node) else { return Ok(()) };
        if let Some(texts) = answers.next() {
            let texts: HashMap<u32, String> = read(texts).map_err(ReapError::Redis)?;
            estate.texts = Some(texts.into_iter().map(|(number, text)| (number, text.into())).collect());
        }
        let (records, rubbish) = estate.read_records(&fields).await;
        estate.taken += records.len();
        estate.announce();
        let until = sent + times.proven();
        self.registry.claims().take(bucket, run_id, until, records);
        if !rubbish.is_empty() {
            let finish = reaping::finish(pass.keys, bucket, pass.node, true, &rubbish, Vec::new());
            pass.connection.run_one(finish).await.map_err(ReapError::Redis)?;
        }
        Ok(())
    }

    /// Renews all claims.
    pub(super) async fn keep_claims(&mut self, pass: &Pass<'_>) -> Result<(), ReapError> {
        let views = self.registry.claims().views();
        if views.is_empty() {
            return Ok(());
        }
        let (sent, lease) = (Instant::now(), self.settings.times.lease());
        let calls = views.iter().flat_map(|ClaimView { bucket: (node, bucket), .. }| {
            let info = scripts::info(pass.connection, pass.keys, *node, "server");
            [info, reaping::keep(pass.keys, *node, *bucket, pass.node, lease)]
        });
        let calls: Vec<Call> = calls.collect();
        let answers = pass.connection.run(&calls).await.map_err(ReapError::Redis)?;
        for (view, answer) in views.iter().zip(answers.as_chunks::<2>().0) {
            let info: String = read(answer[0].clone()).map_err(ReapError::Redis)?;
            let (answer, found): (String, String) = read(answer[1].clone()).map_err(ReapError::Redis)?;
            let run_id = run_id_of(&info);
            self.kept(pass, view, (&answer, &found), &run_id, sent).await?;
        }
        Ok(())
    }

    async fn kept(
        &mut self,
        pass: &Pass<'_>,
        ClaimView { bucket, is_fresh, run_id: granted_by, .. }: &ClaimView,
        (answer, found): (&str, &str),
        run_id: &str,
        sent: Instant,
    ) -> Result<(), ReapError> {
        let (node, number) = *bucket;
        let claims = self.registry.claims();
        match keeping(answer, found, *is_fresh, is_same_run(granted_by, run_id)) {
            Keeping::Kept => claims.keep(*bucket, run_id, sent + self.settings.times.proven()),
            Keeping::Lost => {
                debug!(%node, bucket = number, "another node has the bucket");
                claims.forget(*bucket);
            }
            Keeping::Restore => {
                warn!(%node, bucket = number, found, "Redis has forgotten what this node took over; it is written back");
                self.restore(pass, *bucket, run_id).await?;
            }
            Keeping::Reload => self.claim(pass, *bucket, run_id).await?,
        }
        Ok(())
    }

    /// Writes back what is held of a bucket. The index comes first: should this node die, others find the rest.
    async fn restore(&mut self, pass: &Pass<'_>, bucket: Bucket, run_id: &str) -> Result<(), ReapError> {
        let (sent, times) = (Instant::now(), self.settings.times);
        if let Some(estate) = self.estates.get(&bucket.0) {
            let index = Self::index_entry(pass, &estate.member);
            pass.connection.run_one(index).await.map_err(ReapError::Redis)?;
        }
        let records = self.registry.claims().unfinished(bucket);
        let mut chunks: Vec<_> = records.chunks(BATCH).map(<[_]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        let mut is_mine = true;
        for records in chunks {
            let restore = reaping::restore(pass.keys, bucket, pass.node, times.lease(), records);
            let answer: String = pass.connection.run_one(restore).await.and_then(read).map_err(ReapError::Redis)?;
            is_mine &= after_claim(&answer) == Claimed::Mine;
        }
        match is_mine {
            true => self.registry.claims().keep(bucket, run_id, sent + times.proven()),
            false => self.registry.claims().forget(bucket),
        }
        Ok(())
    }

    /// Tells Redis what became of events. A bucket of which nothing is left is given back.
    pub(super) async fn note_outcomes(&mut self, pass: &Pass<'_>) -> Result<(), ReapError> {
        for ClaimView { bucket, .. } in self.registry.claims().views() {
            loop {
                let claims = self.registry.claims();
                let outcomes = claims.outcomes(bucket, BATCH);
                if outcomes.is_empty() && !outcomes.is_last {
                    break;
                }
                let done: Vec<String> = outcomes.done.iter().map(ToString::to_string).collect();
                let failed = outcomes.failed.clone();
                let finish = reaping::finish(pass.keys, bucket, pass.node, !outcomes.is_last, &done, failed);
                let answer: String = pass.connection.run_one(finish).await.and_then(read).map_err(ReapError::Redis)?;
                claims.noted(bucket, &outcomes);
                if let Some(estate) = self.estates.get_mut(&bucket.0) {
                    estate.left = estate.left.saturating_sub(done.len());
                    if outcomes.is_last {
                        // There is room again, or nothing is left.
                        estate.look_at = Instant::now();
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

impl Estate {
    /// Reads the fields of a bucket: its records, and the names of those that nobody can read.
    async fn read_records(&mut self, fields: &[Vec<u8>]) -> (Vec<Record>, Vec<String>) {
        let (mut records, mut rubbish) = (Vec::with_capacity(fields.len() / 2), Vec::new());
        // A text that is lost is no reason to lose the event.
        let texts = self.texts.as_ref();
        let text = |number: u32| Some(texts.and_then(|texts| texts.get(&number).cloned()).unwrap_or_default());
        for (count, [id, bytes]) in fields.as_chunks::<2>().0.iter().enumerate() {
            if count % BATCH == BATCH - 1 {
                // A large bucket must not keep others waiting.
                tokio::task::yield_now().await;
            }
            let name = String::from_utf8_lossy(id);
            let read = ConnectionId::parse(&name).map(|id| record::decode(id, bytes, text));
            match read {
                Ok(Ok(record)) => records.push(record),
                Ok(Err(error @ RecordError::Newer(_))) => {
                    warn!(connection_id = %name, error = %chain(&error), "a record of a dead node waits for a newer version");
                    self.is_unreadable = true;
                }
                Ok(Err(error)) => {
                    warn!(connection_id = %name, error = %chain(&error), "a record of a dead node is removed unread");
                    rubbish.push(name.into_owned());
                }
                Err(error) => {
                    warn!(node = %self.member.node, %error, "a record without a connection id is removed");
                    rubbish.push(name.into_owned());
                }
            }
        }
        (records, rubbish)
    }
}
