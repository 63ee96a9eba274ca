use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Listener;
use super::accepting::Accepting;
use super::entrance::Peer;
use tidegate_connections::cluster::link::{Links, LocalConnections};
use tidegate_gateway::data_plane::{DataPlane, PeerCalls};

impl Listener {
    /// Accepts other nodes' links until `stop`. A link of a node that does not know the cluster's secret is refused.
    pub async fn serve_peers(self, plane: Arc<DataPlane>, links: Arc<Links>, stop: CancellationToken) {
        let start = |stream: TcpStream, peer: Peer, _file| {
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "a connection was lost before it began");
                return;
            }
            let local: Arc<dyn LocalConnections> = Arc::new(PeerCalls(Arc::clone(&plane)));
            let link = Arc::clone(&links).accept(stream, peer.remote, local);
            plane.lifecycle.spawn(plane.lifecycle.aborting().clone().run_until_cancelled_owned(link));
        };
        let accepting = Accepting::new("peers", plane.telemetry.metrics.accept_gauge());
        self.accept(stop, None, accepting, start).await;
    }
}
