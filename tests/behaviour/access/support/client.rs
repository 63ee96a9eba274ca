use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const LIMIT: Duration = Duration::from_secs(10);

/// A connected client.
pub(crate) struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// Connects with these headers.
pub(crate) async fn connect(url: &str, headers: &[(&'static str, &str)]) -> Client {
    try_connect(url, headers).await.unwrap_or_else(|(status, body)| panic!("refused: {status} {body}"))
}

/// Status and `message` of the answer that refuses a client.
pub(crate) async fn refused(url: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
    let Err((status, body)) = try_connect(url, headers).await else { panic!("the client was let in") };
    let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    (status, body["message"].as_str().unwrap_or_default().to_owned())
}

async fn try_connect(url: &str, headers: &[(&'static str, &str)]) -> Result<Client, (u16, String)> {
    let mut request = url.into_client_request().expect("a URL");
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().expect("a value"));
    }
    match timeout(LIMIT, connect_async(request)).await.expect("an answer in time") {
        Ok((socket, _)) => Ok(Client(socket)),
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            Err((response.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
        }
        Err(error) => panic!("{error}"),
    }
}

impl Client {
    pub(crate) async fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.expect("an open socket");
    }

    /// The next text.
    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Message::Text(text) => text.to_string(),
            other => panic!("{other:?} is no text"),
        }
    }

    /// Code and reason of the close frame that comes next.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        match self.next().await {
            Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
            other => panic!("{other:?} is no close frame"),
        }
    }

    async fn next(&mut self) -> Message {
        loop {
            let message =
                timeout(LIMIT, self.0.next()).await.expect("a frame in time").expect("a frame").expect("a frame");
            if !message.is_ping() && !message.is_pong() {
                return message;
            }
        }
    }
}

/// Sends bytes as they are and reads all of the answer.
pub(crate) async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request).await.expect("a request");
    let mut answer = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an answer in time").expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    raw(address, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await
}
