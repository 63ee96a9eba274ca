use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::within;

/// A client of the gateway.
pub(crate) struct TestClient {
    websocket: WebSocketStream<TcpStream>,
}

impl TestClient {
    pub(crate) async fn connect(
        address: SocketAddr,
        target: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<Self, tungstenite::Error> {
        let stream = TcpStream::connect(address).await?;
        Self::connect_on(stream, address, target, headers).await
    }

    /// On a TCP connection of the test's making.
    pub(crate) async fn connect_on(
        stream: TcpStream,
        address: SocketAddr,
        target: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<Self, tungstenite::Error> {
        let mut request = format!("ws://{address}{target}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let (websocket, _) = within("a handshake", client_async(request, stream)).await?;
        Ok(TestClient { websocket })
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        within("sending", self.websocket.send(message)).await.expect("sent");
    }

    pub(crate) async fn next_message(&mut self) -> Message {
        within("a message", self.websocket.next()).await.expect("a message, not the end").expect("a message")
    }

    /// The next data message, which has to be a text.
    pub(crate) async fn next_text(&mut self) -> String {
        loop {
            match self.next_message().await {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?} is no text"),
            }
        }
    }

    pub(crate) async fn next_json(&mut self) -> Value {
        serde_json::from_str(&self.next_text().await).expect("JSON")
    }

    /// Code and reason of the close frame, which has to be the next message but for pings; 1005 if it has none.
    pub(crate) async fn next_close(&mut self) -> (u16, String) {
        loop {
            match self.next_message().await {
                Message::Close(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
                Message::Close(None) => return (1005, String::new()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?} is no close frame"),
            }
        }
    }

    /// Sends a close frame, and returns the gateway's.
    pub(crate) async fn close(mut self, frame: Option<(u16, &str)>) -> (u16, String) {
        let frame = frame.map(|(code, reason)| CloseFrame { code: code.into(), reason: reason.to_owned().into() });
        within("sending", self.websocket.close(frame)).await.expect("sent");
        self.next_close().await
    }
}
