use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{CONNECTING, Run, end};
use crate::client::{Recipient, Sending};
use crate::payload::{Post, Posts};
use crate::poster::Poster;

/// Length of a post to a client that does not read: its socket's buffers are full after some.
const SLOW_POST_BYTES: usize = 64 * 1024;

impl Run<'_> {
    /// Posts to clients that read and to some that have stopped. Latencies are of those that read; what became of
    /// posts to the others is noted.
    pub(super) async fn slow(&mut self) -> anyhow::Result<()> {
        let count = self.scenario.connections;
        let mut sockets = self.connect_all(count, CONNECTING).await?;
        let recipients = self.recipients(&mut sockets, true).await?;
        let slow = ((count as f64 * self.scenario.slow_percent / 100.0).ceil() as usize).min(count);
        // They are open, and nobody reads them.
        let unread = sockets.split_off(count - slow);
        let (quick, slow) = recipients.split_at(count - slow);
        let (stop_posters, stop_clients) = (CancellationToken::new(), CancellationToken::new());
        let clients = self.play_clients(sockets, quick, || Sending::Never, None, &stop_clients);
        let posters = self.play_posters(quick, &stop_posters).await?;
        let mut slow_posters = JoinSet::new();
        for recipient in slow {
            let poster = Poster::connect(Arc::clone(&self.target.endpoints)).await?;
            let (recipient, recorder) = (Arc::clone(recipient), Arc::clone(&self.recorder));
            slow_posters.spawn(async move {
                let outcome = post_until_refused(poster, &recipient).await;
                recorder.note(format!("posts to a client that does not read ended with {outcome}"));
            });
        }

        self.measure_load().await;

        while slow_posters.try_join_next().is_some() {}
        let blocked = slow_posters.len();
        for _ in 0..blocked {
            self.recorder.note("posts to a client that does not read were still waiting at the end");
        }
        drop(slow_posters);
        drop(unread);
        end(&stop_posters, posters).await?;
        end(&stop_clients, clients).await?;
        self.note_latencies();
        Ok(())
    }
}

async fn post_until_refused(mut poster: Poster, recipient: &Recipient) -> String {
    let posts = Posts::new(SLOW_POST_BYTES);
    for number in 0.. {
        let text = posts.text(&Post { client: recipient.index, number, due: 0 });
        match poster.post(&recipient.id, text).await {
            Ok(status) if status.is_success() => {}
            Ok(status) => return status.to_string(),
            Err(error) => return format!("{error:#}"),
        }
    }
    String::new()
}
