//! The backend's side that posts to clients, on HTTP connections that stay open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::client::Recipient;
use crate::payload::{Post, Posts};
use crate::recorder::{Nanos, Recorder};
use crate::target::{Endpoints, Protocol};

/// The path of the group that all clients are in.
const GROUP: &str = "@groups/all";

/// One HTTP connection to a target.
pub(crate) struct Poster {
    endpoints: Arc<Endpoints>,
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    _driver: AbortOnDropHandle<()>,
}

impl Poster {
    /// Connects to where posts go.
    pub(crate) async fn connect(endpoints: Arc<Endpoints>) -> anyhow::Result<Self> {
        let address = endpoints.posts;
        Poster::connect_to(endpoints, address).await
    }

    /// Connects to another listener of the target.
    pub(crate) async fn connect_to(endpoints: Arc<Endpoints>, address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::runtime::Handle::current().spawn(async {
            // What goes wrong shows at the sender.
            let _ = connection.await;
        });
        let host = HeaderValue::from_str(&address.to_string())?;
        Ok(Poster { endpoints, sender, host, _driver: AbortOnDropHandle::new(driver) })
    }

    /// Calls something below the stage of a gateway; the status that it answers with.
    pub(crate) async fn call(&mut self, method: Method, path: &str, body: String) -> anyhow::Result<StatusCode> {
        let path = format!("{}/{path}", self.endpoints.stage()?);
        self.send(method, &path, body).await
    }

    /// Posts a text to a client; the status that the target answers with.
    pub(crate) async fn post(&mut self, id: &str, text: String) -> anyhow::Result<StatusCode> {
        let (path, body) = match &self.endpoints.protocol {
            Protocol::Gateway { stage } => (format!("{stage}/@connections/{id}"), text),
            Protocol::Nchan { .. } => (format!("/posts/{id}"), text),
            Protocol::Pushpin => {
                let item = serde_json::json!({"channel": id, "formats": {"ws-message": {"content": text}}});
                ("/publish/".to_owned(), serde_json::json!({"items": [item]}).to_string())
            }
        };
        self.send(Method::POST, &path, body).await
    }

    /// Puts clients into the group of all. With nchan they are in it since they came.
    pub(crate) async fn join(&mut self, recipients: &[Arc<Recipient>]) -> anyhow::Result<()> {
        if matches!(self.endpoints.protocol, Protocol::Nchan { .. }) {
            return Ok(());
        }
        let ids: Vec<&str> = recipients.iter().map(|recipient| &*recipient.id).collect();
        let body = serde_json::json!({ "connections": ids }).to_string();
        let status = self.call(Method::PUT, &format!("{GROUP}/connections"), body).await?;
        anyhow::ensure!(status.is_success(), "joining was answered with {status}");
        Ok(())
    }

    /// Posts a text to the group of all; the status that the target answers with.
    pub(crate) async fn post_to_group(&mut self, text: String) -> anyhow::Result<StatusCode> {
        match &self.endpoints.protocol {
            Protocol::Nchan { .. } => self.post("all", text).await,
            Protocol::Gateway { .. } | Protocol::Pushpin => self.call(Method::POST, GROUP, text).await,
        }
    }

    /// Calls something below the stage of a gateway; the JSON of its answer, which must be a success.
    pub(crate) async fn call_json(&mut self, method: Method, path: &str, body: String) -> anyhow::Result<Value> {
        let whole_path = format!("{}/{path}", self.endpoints.stage()?);
        let (status, answer) = self.exchange(method, &whole_path, body).await?;
        anyhow::ensure!(status.is_success(), "{path} was answered with {status}");
        serde_json::from_slice(&answer).with_context(|| format!("the answer to {path} is not JSON"))
    }

    /// Sends one request and reads its answer to the end; the status.
    pub(crate) async fn send(&mut self, method: Method, path: &str, body: String) -> anyhow::Result<StatusCode> {
        Ok(self.exchange(method, path, body).await?.0)
    }

    async fn exchange(&mut self, method: Method, path: &str, body: String) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse()?;
        request.headers_mut().insert(header::HOST, self.host.clone());
        if self.sender.ready().await.is_err() && self.endpoints.protocol == Protocol::Pushpin {
            // Pushpin closes after each answer; others keep the connection, and its loss is an error.
            *self = Poster::connect(Arc::clone(&self.endpoints)).await?;
        }
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let answer = response.into_body().collect().await.context("the answer broke off")?;
        Ok((status, answer.to_bytes()))
    }
}

/// What a poster does each time that its time has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Each {
    /// It posts to the next of its recipients.
    One,
    /// It posts to all of them.
    All,
}

/// When a poster posts.
pub(crate) enum Posting {
    /// The next one as soon as one is answered.
    Saturated,
    /// When somebody says so.
    Told(UnboundedReceiver<Nanos>, Each),
}

/// Posts to its recipients in turn, until `stop`. Nobody else posts to them, so their posts have an order.
pub(crate) async fn run(
    mut poster: Poster,
    recorder: Arc<Recorder>,
    recipients: Vec<Arc<Recipient>>,
    posts: Arc<Posts>,
    mut posting: Posting,
    stop: CancellationToken,
) {
    let mut numbers = vec![0_u64; recipients.len()];
    let mut turns = (0..recipients.len()).cycle();
    loop {
        let (due, each) = match &mut posting {
            Posting::Saturated if stop.is_cancelled() => return,
            Posting::Saturated => (recorder.now(), Each::One),
            Posting::Told(dues, each) => tokio::select! {
                biased;
                () = stop.cancelled() => return,
                due = dues.recv() => match due {
                    Some(due) => (due, *each),
                    None => return,
                },
            },
        };
        let count = if each == Each::All { recipients.len() } else { 1 };
        for turn in turns.by_ref().take(count) {
            let recipient = &recipients[turn];
            let text = posts.text(&Post { client: recipient.index, number: numbers[turn], due });
            numbers[turn] += 1;
            match poster.post(&recipient.id, text).await {
                Ok(status) if status.is_success() => {
                    recipient.answered.fetch_add(1, Ordering::Release);
                }
                Ok(status) => recorder.error(format!("a post was answered with {status}")),
                Err(error) => {
                    recorder.error(format!("a post failed: {error:#}"));
                    return;
                }
            }
        }
    }
}
