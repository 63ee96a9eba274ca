use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

const PATIENCE: Duration = Duration::from_secs(20);

/// A client, and the id of its connection.
pub(crate) struct TestClient {
    pub(crate) id: String,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl TestClient {
    pub(super) async fn connect(url: &str) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
        timeout(PATIENCE, tokio_tungstenite::connect_async(url)).await.expect("in time").unwrap().0
    }

    pub(super) fn new(id: String, socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        TestClient { id, socket }
    }

    pub(crate) async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.socket.next()).await.expect("in time").expect("open").unwrap()
    }

    pub(crate) async fn next_text(&mut self) -> String {
        self.next().await.into_text().unwrap().to_string()
    }

    /// Code and reason of the close frame that comes next.
    pub(crate) async fn next_close(&mut self) -> (u16, String) {
        match self.next().await {
            Message::Close(Some(close)) => (close.code.into(), close.reason.to_string()),
            other => panic!("{other:?}"),
        }
    }
}
