use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{CONNECTING, Run};
use crate::client::Sending;
use crate::process::usage;

/// Connections before the measurement, so that what a process allocates once is not charged to anybody.
const WARMUP_CONNECTIONS: usize = 100;

impl Run<'_> {
    /// Memory before, with all connections, and some time after the last has gone. The warm-up is the time in which
    /// what handshakes needed may be freed; the duration is the time after which all has to be given back.
    pub(super) async fn idle(&mut self) -> anyhow::Result<()> {
        let pids = self.target.pids.clone();
        let settle = self.scenario.warmup();
        let warmup = self.connect_all(WARMUP_CONNECTIONS.min(self.scenario.connections), CONNECTING).await?;
        self.close_all(warmup).await;
        sleep(settle).await;
        let empty = usage(&pids);

        let mut sockets = self.connect_all(self.scenario.connections, CONNECTING).await?;
        let recipients = self.recipients(&mut sockets, false).await?;
        let stop = CancellationToken::new();
        // They answer pings.
        let mut clients = self.play_clients(sockets, &recipients, || Sending::Never, None, &stop);
        sleep(settle).await;
        let full = usage(&pids);

        stop.cancel();
        while let Some(ended) = clients.join_next().await {
            ended?;
        }
        sleep(self.scenario.duration()).await;
        let left = usage(&pids);

        let count = self.scenario.connections as f64;
        let grown = full.rss_kib as f64 - empty.rss_kib as f64;
        if !pids.is_empty() {
            self.note("rss_kib_per_connection", grown / count);
            self.note("pss_kib_per_connection", (full.pss_kib as f64 - empty.pss_kib as f64) / count);
            self.note("memory_left_percent", (left.rss_kib as f64 - empty.rss_kib as f64) / grown * 100.0);
            self.note("rss_mib", full.rss_kib as f64 / 1024.0);
            self.note("rss_mib_empty", empty.rss_kib as f64 / 1024.0);
        }
        Ok(())
    }
}
