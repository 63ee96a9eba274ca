use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Number of clients in a crowd.
const MEMBERS: usize = 1000;

/// Most clients that connect at the same time.
const CONNECTING: usize = 64;

/// Longest time for a whole crowd: to connect, to receive the push, to leave.
const CROWD_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest answer of the gateway that is read, in bytes.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// The reason with which members of a crowd close, so that they can be distinguished from people.
pub(super) const LEAVES: &str = "crowd";

/// The group of a crowd, and the value of `?crowd=` with which its members connect. No room can have this name.
pub(super) const GROUP: &str = "demo:crowd";

/// The reason why a crowd failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CrowdError {
    #[error("a crowd is here already")]
    Busy,
    #[error("the crowd took more than {} seconds", CROWD_TIMEOUT.as_secs())]
    Timeout,
    #[error("a member could not connect")]
    Connect(#[source] tokio_tungstenite::tungstenite::Error),
    #[error("no gateway could be reached")]
    Reach(#[source] std::io::Error),
    #[error("the gateway did not accept the push")]
    Push(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("a member did not receive the push")]
    Deaf,
}

/// A crowd of simulated members of a room: real clients, all in one group, and one push to all of them. There is one
/// crowd at a time.
#[derive(Debug)]
pub(super) struct Crowd {
    gateways: Vec<Gateway>,
    place: Semaphore,
}

/// The address of a gateway, taken from a `ws` URL.
#[derive(Debug)]
pub(super) struct Gateway {
    /// The address `HOST:PORT`.
    address: String,
    /// The path `/{stage}`.
    path: String,
}

impl Gateway {
    pub(super) fn parse(websocket_url: &str) -> Option<Self> {
        let uri: Uri = websocket_url.parse().ok()?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("ws"))?;
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        Some(Gateway { address, path: uri.path().trim_end_matches('/').to_owned() })
    }
}

type Member = WebSocketStream<TcpStream>;

impl Crowd {
    pub(super) fn new(gateways: Vec<Gateway>) -> Self {
        Crowd { gateways, place: Semaphore::new(1) }
    }

    /// Gathers a crowd, posts once to its group, and reports the time until the last member had the message.
    pub(super) async fn hear(&self) -> Result<Value, CrowdError> {
        let _place = self.place.try_acquire().map_err(|_| CrowdError::Busy)?;
        timeout(CROWD_TIMEOUT, self.hear_in_time()).await.unwrap_or(Err(CrowdError::Timeout))
    }

    async fn hear_in_time(&self) -> Result<Value, CrowdError> {
        let began = Instant::now();
        let members = stream::iter(0..MEMBERS).map(|number| self.connect(number)).buffer_unordered(CONNECTING);
        let members: Vec<Member> = members.try_collect().await?;
        let connect_millis = began.elapsed().as_millis();

        let pushed = Instant::now();
        let hearing = members.into_iter().map(|member| hear(member, pushed));
        let (report, heard) = tokio::try_join!(self.push(), join_all(hearing).map(Ok))?;
        let (members, heard): (Vec<Member>, Vec<Option<Duration>>) = heard.into_iter().unzip();
        let last = heard.into_iter().collect::<Option<Vec<_>>>().and_then(|heard| heard.into_iter().max());
        join_all(members.into_iter().map(leave)).await;
        let push_micros = last.ok_or(CrowdError::Deaf)?.as_micros();
        Ok(json!({
            "members": MEMBERS, "connectMillis": connect_millis, "pushMicros": push_micros, "report": report
        }))
    }

    async fn connect(&self, number: usize) -> Result<Member, CrowdError> {
        let (Gateway { address, path }, stream) = self.reach(number).await?;
        let url = format!("ws://{address}{path}?crowd={GROUP}");
        Ok(client_async(url, stream).await.map_err(CrowdError::Connect)?.0)
    }

    /// Connects to the gateway whose turn it is, or to the next one that answers.
    async fn reach(&self, turn: usize) -> Result<(&Gateway, TcpStream), CrowdError> {
        let mut why = std::io::ErrorKind::NotFound.into();
        for at in turn..turn + self.gateways.len() {
            let gateway = &self.gateways[at % self.gateways.len()];
            match TcpStream::connect(&gateway.address).await {
                Ok(stream) => return Ok((gateway, stream)),
                Err(error) => why = error,
            }
        }
        Err(CrowdError::Reach(why))
    }

    /// Makes the one call that reaches all members.
    async fn push(&self) -> Result<Value, CrowdError> {
        let (Gateway { address, path }, stream) = self.reach(0).await?;
        let failed = |error: hyper::Error| CrowdError::Push(error.into());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let mut request = Request::new(Full::new(Bytes::from_static(b"{\"type\":\"crowd\"}")));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = format!("{path}/@groups/{GROUP}")
            .parse()
            .map_err(|error: http::uri::InvalidUri| CrowdError::Push(error.into()))?;
        let host = HeaderValue::from_str(address).map_err(|error| CrowdError::Push(error.into()))?;
        request.headers_mut().insert(header::HOST, host);
        let exchange = async {
            let response = sender.send_request(request).await.map_err(failed)?;
            let body =
                Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await.map_err(CrowdError::Push)?;
            serde_json::from_slice(&body.to_bytes()).map_err(|error| CrowdError::Push(error.into()))
        };
        tokio::select! {
            report = exchange => report,
            // The connection ends before the answer only if it fails.
            ended = connection => Err(ended.map_or_else(failed, |()| CrowdError::Push("the connection ended".into()))),
        }
    }
}

/// Waits for the push. Returns the member, and the time after `pushed` when it had the push, if it had it.
async fn hear(mut member: Member, pushed: Instant) -> (Member, Option<Duration>) {
    loop {
        match member.next().await {
            Some(Ok(Message::Text(_))) => return (member, Some(pushed.elapsed())),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return (member, None),
        }
    }
}

async fn leave(mut member: Member) {
    let frame = CloseFrame { code: 4000.into(), reason: LEAVES.into() };
    // The member may have left already.
    let _ = member.close(Some(frame)).await;
    while let Some(Ok(_)) = member.next().await {}
}
