use std::time::Duration;

use tokio::time::sleep;

use super::{Run, Window};

/// Handshakes in flight.
const LANES: usize = 32;

/// Connections before the measurement.
const WARMUP_CONNECTIONS: usize = 200;

/// How long the target may still work on the last handshakes when the clients have their answer.
const SETTLE: Duration = Duration::from_millis(200);

impl Run<'_> {
    /// Clients connect and stay.
    pub(super) async fn accept(&mut self) -> anyhow::Result<()> {
        let count = self.scenario.connections;
        let warmup = self.connect_all(WARMUP_CONNECTIONS.min(count), LANES).await?;
        self.close_all(warmup).await;
        let window = Window::begin(self);
        let sockets = self.connect_all(count, LANES).await?;
        self.recorder.end();
        let seconds = Duration::from_nanos(self.recorder.now() - window.began).as_secs_f64();
        sleep(SETTLE).await;
        window.end(self);
        self.note("operations_per_second", count as f64 / seconds);
        self.note_latencies();
        self.close_all(sockets).await;
        Ok(())
    }
}
