use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{CONNECTING, Run, Window, end};
use crate::client::{EVERYBODY, Sending};
use crate::payload::Post;
use crate::poster::Poster;
use crate::process::{rss_kib_of, usage, with_descendants};

/// Clients that join in one call.
pub(super) const JOINING: usize = 5000;

/// How often memory is looked at while a post is fanned out.
const LOOK: Duration = Duration::from_millis(20);

impl Run<'_> {
    /// All clients join a group, then one post at a time goes to it. A round ends when the last client has it.
    pub(super) async fn group(&mut self) -> anyhow::Result<()> {
        let scenario = self.scenario;
        let mut sockets = self.connect_all(scenario.connections, CONNECTING).await?;
        let recipients = self.recipients(&mut sockets, true).await?;
        let mut poster = Poster::connect(Arc::clone(&self.target.endpoints)).await?;
        let before = usage(&self.target.pids).rss_kib;
        for joining in recipients.chunks(JOINING) {
            poster.join(joining).await?;
        }
        let joined_kib = usage(&self.target.pids).rss_kib as f64 - before as f64;
        self.note("join_bytes_each", joined_kib * 1024.0 / scenario.connections as f64);

        let stop = CancellationToken::new();
        let delivered = Arc::new(Semaphore::new(0));
        let clients = self.play_clients(sockets, &recipients, || Sending::Never, Some(&delivered), &stop);
        let count = u32::try_from(scenario.connections).context("too many connections")?;
        let warm = Instant::now() + scenario.warmup();
        let ends = warm + scenario.duration();
        let pids = with_descendants(&self.target.pids);
        let (rss_kib, rss_kib_max) = (rss_kib_of(&pids), Arc::new(AtomicU64::new(0)));
        // Dropped, it watches no more.
        let mut watch = JoinSet::new();
        watch.spawn(watch_rss(pids, Arc::clone(&rss_kib_max)));
        let (mut window, mut number) = (None, 0);
        let (mut rounds, mut rounds_ms) = (0_u32, 0.0);
        while Instant::now() < ends || rounds == 0 {
            if window.is_none() && Instant::now() >= warm {
                window = Some(Window::begin(self));
            }
            let due = self.recorder.now();
            let text = self.posts.text(&Post { client: EVERYBODY, number, due });
            number += 1;
            let status = poster.post_to_group(text).await?;
            anyhow::ensure!(status.is_success(), "a post was answered with {status}");
            recipients.iter().for_each(|recipient| _ = recipient.answered.fetch_add(1, Ordering::Release));
            delivered.acquire_many(count).await?.forget();
            if window.is_some() {
                rounds += 1;
                rounds_ms += (self.recorder.now() - due) as f64 / 1e6;
            }
        }
        self.recorder.end();
        if let Some(window) = window {
            window.end(self);
            if let Some(cpu) = self.figures.get("cpu_ms_per_1000").copied() {
                self.note("cpu_seconds_per_million", cpu);
            }
        }
        self.note("round_ms", rounds_ms / f64::from(rounds));
        drop(watch);
        let grown_kib = rss_kib_max.load(Ordering::Relaxed).saturating_sub(rss_kib) as f64;
        self.note("fanout_rss_kib", grown_kib);
        // A frame is held once, not once for each member.
        self.note("fanout_rss_frames", grown_kib * 1024.0 / scenario.payload_bytes as f64);
        end(&stop, clients).await?;
        self.note_latencies();
        Ok(())
    }
}

/// Keeps the highest RSS that was seen, until it is dropped.
async fn watch_rss(pids: Vec<i32>, highest: Arc<AtomicU64>) {
    loop {
        highest.fetch_max(rss_kib_of(&pids), Ordering::Relaxed);
        sleep(LOOK).await;
    }
}
