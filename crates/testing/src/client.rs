use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::within;

/// A client of the gateway, over TCP or whatever else carries bytes.
pub struct TestClient<S = TcpStream> {
    websocket: WebSocketStream<S>,
    id: Option<String>,
}

/// Connects to a `ws://` URL with these headers, and has to be let in.
pub async fn connect(url: &str, headers: &[(&str, &str)]) -> TestClient {
    TestClient::open(url, headers).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// Connects to a `ws://` URL with these headers, and has to be refused; returns the status and the `message` of the answer.
pub async fn refused(url: &str, headers: &[(&str, &str)]) -> (u16, String) {
    match TestClient::open(url, headers).await {
        Ok(_) => panic!("the client was let in: {url}"),
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            (response.status().as_u16(), body["message"].as_str().unwrap_or_default().to_owned())
        }
        Err(error) => panic!("{url}: {error}"),
    }
}

impl TestClient {
    /// Connects to a path of the gateway at `address`.
    ///
    /// # Errors
    /// The gateway refused it, or there is none.
    pub async fn connect(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Self, Error> {
        Self::open(&format!("ws://{address}{target}"), headers).await
    }

    /// Connects to the stage `prod` of the gateway at `address`, and has to be let in.
    pub async fn enter(address: SocketAddr) -> Self {
        connect(&format!("ws://{address}/prod"), &[]).await
    }

    async fn open(url: &str, headers: &[(&str, &str)]) -> Result<Self, Error> {
        let host = url.strip_prefix("ws://").expect("a URL of a WebSocket");
        let host = host.split(['/', '?']).next().expect("a part");
        let stream = within("a TCP connection", TcpStream::connect(host)).await?;
        Self::on(stream, url, headers).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TestClient<S> {
    /// Connects to a URL on a stream of the test's making.
    ///
    /// # Errors
    /// The gateway refused it.
    pub async fn on(stream: S, url: &str, headers: &[(&str, &str)]) -> Result<Self, Error> {
        let mut request = url.into_client_request()?;
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).expect("the name of a header");
            request.headers_mut().append(name, HeaderValue::try_from(*value).expect("the value of a header"));
        }
        let (websocket, _) = within("a handshake", Box::pin(client_async(request, stream))).await?;
        Ok(TestClient { websocket, id: None })
    }

    /// Remembers the id of its connection.
    pub(crate) fn known_as(self, id: String) -> Self {
        TestClient { id: Some(id), ..self }
    }

    /// Returns the id of its connection, which the cluster has told it.
    pub fn id(&self) -> &str {
        self.id.as_deref().expect("somebody has told the client its id")
    }

    /// Sends a text.
    pub async fn send(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    /// Sends a message of any kind.
    pub async fn send_message(&mut self, message: Message) {
        within("sending", self.websocket.send(message)).await.expect("sent");
    }

    /// Sends a text and waits for its echo.
    pub async fn echo(&mut self, text: &str) {
        self.send(text).await;
        assert_eq!(self.next_text().await, text);
    }

    /// Returns the next message of whatever kind.
    pub async fn next_message(&mut self) -> Message {
        within("a message", self.websocket.next()).await.expect("a message, not the end").expect("a message")
    }

    /// Returns the next message but for pings, which has to be a text.
    pub async fn next_text(&mut self) -> String {
        loop {
            match self.next_message().await {
                Message::Text(text) => return text.to_string(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?} is no text"),
            }
        }
    }

    /// Returns the next text as JSON.
    pub async fn next_json(&mut self) -> Value {
        serde_json::from_str(&self.next_text().await).expect("JSON")
    }

    /// Returns code and reason of the close frame, which has to be the next message but for pings; 1005 if it has none.
    pub async fn next_close(&mut self) -> (u16, String) {
        loop {
            match self.next_message().await {
                Message::Close(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
                Message::Close(None) => return (1005, String::new()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?} is no close frame"),
            }
        }
    }

    /// Sends a close frame; returns code and reason of the gateway's.
    pub async fn close(mut self, frame: Option<(u16, &str)>) -> (u16, String) {
        let frame = frame.map(|(code, reason)| CloseFrame { code: code.into(), reason: reason.to_owned().into() });
        within("sending", self.websocket.close(frame)).await.expect("sent");
        self.next_close().await
    }
}
