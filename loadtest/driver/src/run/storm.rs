use std::time::Duration;

use tokio::time::sleep;

use super::{CONNECTING, Run, Window};

/// How long the target may still work on the last handshakes when the clients have their answer.
const SETTLE: Duration = Duration::from_millis(500);

impl Run<'_> {
    /// All clients lose their connection without a word, and come back at the same moment.
    pub(super) async fn storm(&mut self) -> anyhow::Result<()> {
        let count = self.scenario.connections;
        let sockets = self.connect_all(count, CONNECTING).await?;
        sleep(self.scenario.warmup()).await;
        let window = Window::begin(self);
        drop(sockets);
        let sockets = self.connect_all(count, count).await?;
        self.recorder.end();
        let seconds = Duration::from_nanos(self.recorder.now() - window.began).as_secs_f64();
        sleep(SETTLE).await;
        window.end(self);
        self.note("operations_per_second", count as f64 / seconds);
        self.note("recovery_seconds", seconds);
        self.note_latencies();
        self.close_all(sockets).await;
        Ok(())
    }
}
