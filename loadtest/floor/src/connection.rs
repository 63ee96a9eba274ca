//! One connection: its task, its mailbox, its calls to the backend.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::Floor;

/// What an idle connection keeps for reading; the library's default is 128 KiB.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Posts to one connection that are not yet written.
const MAILBOX_POSTS: usize = 64;

/// Messages of one connection that are at the backend at once.
const CONCURRENT_DISPATCHES: usize = 16;

/// A frame from the backend, and who waits until it is written.
pub(crate) struct Post {
    pub(crate) text: Utf8Bytes,
    pub(crate) written: oneshot::Sender<()>,
}

/// What routes are selected by.
#[derive(Deserialize)]
struct Routed<'a> {
    #[serde(borrow, default)]
    action: Option<std::borrow::Cow<'a, str>>,
}

impl Floor {
    /// A number for a new connection, if the backend accepts it.
    pub(crate) async fn connect(&self) -> Result<u64, StatusCode> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if self.events {
            let status =
                self.call(id, "CONNECT", "$connect", Bytes::new()).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
            if !status.0.is_success() {
                return Err(status.0);
            }
        }
        Ok(id)
    }

    /// Serves a connection from its 101 to its end.
    pub(crate) async fn serve_connection(self: Arc<Self>, id: u64, upgrade: OnUpgrade) {
        let (sender, mailbox) = mpsc::channel(MAILBOX_POSTS);
        self.mailboxes.insert(id, sender);
        if let Ok(upgraded) = upgrade.await {
            let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            match &self.bare {
                Some(sinks) => sinks.hold(id, socket).await,
                // Whatever ends the session, the connection is over.
                None => _ = self.run(id, socket, mailbox).await,
            }
        }
        self.mailboxes.remove(&id);
        if self.events {
            let _ = self.call(id, "DISCONNECT", "$disconnect", Bytes::new()).await;
        }
    }

    async fn run<S>(
        &self,
        id: u64,
        mut socket: WebSocketStream<S>,
        mut mailbox: mpsc::Receiver<Post>,
    ) -> anyhow::Result<()>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let mut dispatches = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(post) = mailbox.recv() => {
                    socket.send(Message::Text(post.text)).await?;
                    // A poster that has gone away needs no answer.
                    let _ = post.written.send(());
                }
                Some(reply) = dispatches.next() => socket.send(Message::Text(reply)).await?,
                message = socket.next(), if dispatches.len() < CONCURRENT_DISPATCHES => match message {
                    Some(Ok(Message::Text(text))) => dispatches.push(Box::pin(self.dispatch(id, text))),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                    Some(Ok(_)) => {}
                },
            }
        }
        // The library has the answer to a close frame ready.
        socket.flush().await?;
        Ok(())
    }

    /// Posts one message to the backend; the reply is its answer.
    async fn dispatch(&self, id: u64, text: Utf8Bytes) -> Utf8Bytes {
        let route_key = serde_json::from_str::<Routed<'_>>(&text).ok().and_then(|routed| routed.action);
        let route_key = route_key.as_deref().unwrap_or("$default");
        let answer = match self.call(id, "MESSAGE", route_key, Bytes::from(text.clone())).await {
            Ok((status, body)) if status.is_success() => Utf8Bytes::try_from(body).ok(),
            _ => None,
        };
        answer.unwrap_or_else(|| Utf8Bytes::from_static("{\"message\":\"Internal server error\"}"))
    }

    async fn call(
        &self,
        id: u64,
        event_type: &'static str,
        route_key: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.backend.clone();
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("x-tidegate-connection-id", HeaderValue::from(id));
        headers.insert("x-tidegate-event-type", HeaderValue::from_static(event_type));
        headers.insert("x-tidegate-route-key", HeaderValue::from_str(route_key)?);
        let response = self.client.request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
