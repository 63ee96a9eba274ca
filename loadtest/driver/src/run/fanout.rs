use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{CONNECTING, Run, Window, deal, end, lanes};
use crate::client::Sending;
use crate::poster::{self, Each, Poster, Posting};

impl Run<'_> {
    /// One post to every client, in rounds. A round ends when the last client has it.
    pub(super) async fn fanout(&mut self) -> anyhow::Result<()> {
        let scenario = self.scenario;
        let mut sockets = self.connect_all(scenario.connections, CONNECTING).await?;
        let recipients = self.recipients(&mut sockets, true).await?;
        let (stop_posters, stop_clients) = (CancellationToken::new(), CancellationToken::new());
        let delivered = Arc::new(Semaphore::new(0));
        let clients = self.play_clients(sockets, &recipients, || Sending::Never, Some(&delivered), &stop_clients);
        let hands = deal(&recipients, scenario.posters);
        let (rounds, dues) = lanes(hands.len());
        let mut posters = JoinSet::new();
        for (hand, dues) in hands.into_iter().zip(dues) {
            let poster = Poster::connect(Arc::clone(&self.target.endpoints)).await?;
            let (recorder, posts) = (Arc::clone(&self.recorder), Arc::clone(&self.posts));
            let posting = Posting::Told(dues, Each::All);
            posters.spawn(poster::run(poster, recorder, hand, posts, posting, stop_posters.clone()));
        }

        let count = u32::try_from(scenario.connections).context("too many connections")?;
        let warm = Instant::now() + scenario.warmup();
        let ends = warm + scenario.duration();
        let pause = scenario.posts_per_second.map(|per_second| Duration::from_secs(1) / per_second.max(1));
        let mut window = None;
        let (mut rounds_played, mut rounds_ms) = (0_u32, 0.0);
        let mut next_round = Instant::now();
        while Instant::now() < ends || rounds_played == 0 {
            if window.is_none() && Instant::now() >= warm {
                window = Some(Window::begin(self));
            }
            let due = self.recorder.now();
            for round in &rounds {
                round.send(due).context("a poster has ended early")?;
            }
            delivered.acquire_many(count).await?.forget();
            if window.is_some() {
                rounds_played += 1;
                rounds_ms += (self.recorder.now() - due) as f64 / 1e6;
            }
            if let Some(pause) = pause {
                next_round += pause;
                sleep_until(next_round).await;
            }
        }
        self.recorder.end();
        if let Some(window) = window {
            window.end(self);
            // One per million is one per thousand in other units: milliseconds for a thousand, seconds for a million.
            if let Some(cpu) = self.figures.get("cpu_ms_per_1000").copied() {
                self.note("cpu_seconds_per_million", cpu);
            }
        }
        self.note("round_ms", rounds_ms / f64::from(rounds_played));

        end(&stop_posters, posters).await?;
        end(&stop_clients, clients).await?;
        self.note_latencies();
        Ok(())
    }
}
