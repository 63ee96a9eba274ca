//! One client: connects, sends messages, checks everything that comes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::machine::source_address;
use crate::payload::{Messages, Posts, WHOAMI};
use crate::recorder::{Nanos, Operation, Recorder};
use crate::target::{Endpoints, Protocol};

/// A client's connection.
pub(crate) type Socket = WebSocketStream<Either<TcpStream, TlsStream<TcpStream>>>;

/// How long a handshake may take: a storm waits for its last client.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client waits for what is still on its way when the load has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the kernel keeps of a client that wants to see what was not sent.
const UNSENT_BYTES: usize = 4 * 1024;

const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Connects client `index`.
pub(crate) async fn connect(endpoints: &Endpoints, index: usize) -> anyhow::Result<Socket> {
    timeout(CONNECT_TIMEOUT, handshake(endpoints, index)).await.context("the handshake took too long")?
}

async fn handshake(endpoints: &Endpoints, index: usize) -> anyhow::Result<Socket> {
    let socket = TcpSocket::new_v4()?;
    let source = source_address(index);
    let address = endpoints.clients[index % endpoints.clients.len()];
    if source != std::net::Ipv4Addr::LOCALHOST && address.ip().is_loopback() {
        socket.bind(SocketAddr::from((source, 0))).context("this machine has no port left")?;
    }
    let stream = socket.connect(address).await.map_err(explain)?;
    stream.set_nodelay(true)?;
    let (scheme, stream) = match &endpoints.tls {
        None => ("ws", Either::Left(stream)),
        Some(tls) => ("wss", Either::Right(tls.connector.connect(tls.name.clone(), stream).await?)),
    };
    let path = match &endpoints.protocol {
        Protocol::Gateway { stage } => stage.clone(),
        Protocol::Nchan { has_group: true } => format!("/members/{index}"),
        Protocol::Nchan { has_group: false } => format!("/clients/{index}"),
        Protocol::Pushpin => format!("/websocket/{index}"),
    };
    let url = format!("{scheme}://{address}{path}");
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let (socket, _response) = tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?;
    Ok(socket)
}

/// Says so when it is this machine that refuses.
fn explain(error: std::io::Error) -> anyhow::Error {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable};
    let is_ports = matches!(error.kind(), AddrInUse | AddrNotAvailable);
    // EMFILE and ENFILE, which have no kind of their own.
    let is_files = matches!(error.raw_os_error(), Some(23 | 24));
    let error = anyhow::Error::new(error);
    match (is_ports, is_files) {
        (true, _) => error.context("this machine has no port left: its limit is measured, not the target's"),
        (_, true) => error.context("this machine allows no more open files: its limit is measured, not the target's"),
        _ => error,
    }
}

/// Has the kernel keep little of what a client sends: more soon waits in the client, which can see it there.
pub(crate) fn keep_little_unsent(socket: &Socket) -> std::io::Result<()> {
    let stream = match socket.get_ref() {
        Either::Left(stream) => stream,
        Either::Right(stream) => stream.get_ref().0,
    };
    socket2::SockRef::from(stream).set_send_buffer_size(UNSENT_BYTES)
}

/// Closes a connection and waits for the target's answer.
pub(crate) async fn close(mut socket: Socket) {
    let _ = timeout(CLOSE_TIMEOUT, async {
        let _ = socket.close(None).await;
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
}

/// What posts to this client are addressed by. A gateway does not tell its client, so the backend is asked.
pub(crate) async fn learn_id(endpoints: &Endpoints, socket: &mut Socket, index: usize) -> anyhow::Result<String> {
    if !matches!(endpoints.protocol, Protocol::Gateway { .. }) {
        return Ok(index.to_string());
    }
    socket.send(Message::text(WHOAMI)).await?;
    timeout(CONNECT_TIMEOUT, async {
        loop {
            match socket.next().await.context("the connection was lost")?? {
                Message::Text(id) if !id.is_empty() && !id.contains('{') => return Ok(id.as_str().to_owned()),
                Message::Text(other) => anyhow::bail!("asked for the connection's id, the answer was {other}"),
                _ => {}
            }
        }
    })
    .await
    .context("the connection's id did not come")?
}

/// Stands for the client that a post is for, when it is for all.
pub(crate) const EVERYBODY: usize = 99_999_999;

/// A client that is played by a task.
pub(crate) struct Client {
    pub(crate) socket: Socket,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) messages: Messages,
    pub(crate) posts: Arc<Posts>,
    pub(crate) recipient: Arc<Recipient>,
    /// Where each delivered post is reported, besides the recorder.
    pub(crate) delivered: Option<Arc<tokio::sync::Semaphore>>,
}

/// A client as those see it that post to it.
#[derive(Debug, Default)]
pub(crate) struct Recipient {
    pub(crate) index: usize,
    /// Of its connection; empty if nobody posts.
    pub(crate) id: String,
    /// Posts that were answered with success: the client has to receive as many.
    pub(crate) answered: AtomicU64,
}

/// When a client sends.
pub(crate) enum Sending {
    Never,
    /// The next one as soon as one of `in_flight` is answered.
    Saturated {
        in_flight: usize,
    },
    /// When the pacer says so.
    Paced(UnboundedReceiver<Nanos>),
}

/// What a client knows while it runs.
struct State {
    next_number: u64,
    /// Number and due time of messages without a reply, in the order in which they were sent.
    waiting: VecDeque<(u64, Nanos)>,
    received: u64,
}

impl Client {
    /// Runs until `stop`, and then until all that is on its way has come.
    pub(crate) async fn run(mut self, mut sending: Sending, stop: CancellationToken) {
        let mut state = State { next_number: 0, waiting: VecDeque::new(), received: 0 };
        if let Err(error) = self.converse(&mut sending, &stop, &mut state).await {
            self.recorder.error(format!("a connection was lost: {error}"));
            return;
        }
        for _ in &state.waiting {
            self.recorder.error("a message had no reply");
        }
        for _ in state.received..self.recipient.answered.load(Ordering::Acquire) {
            self.recorder.error("a post was answered with success and never received");
        }
        close(self.socket).await;
    }

    async fn converse(
        &mut self,
        sending: &mut Sending,
        stop: &CancellationToken,
        state: &mut State,
    ) -> Result<(), Error> {
        let is_saturated = matches!(sending, Sending::Saturated { .. });
        if let Sending::Saturated { in_flight } = sending {
            for _ in 0..*in_flight {
                let now = self.recorder.now();
                self.send(now, state).await?;
            }
        }
        let mut drained_by = None;
        loop {
            if drained_by.is_some() && state.waiting.is_empty() {
                let answered = self.recipient.answered.load(Ordering::Acquire);
                if state.received >= answered {
                    return Ok(());
                }
            }
            let due = async {
                match sending {
                    Sending::Paced(due) => due.recv().await,
                    _ => None,
                }
            };
            tokio::select! {
                frame = self.socket.next() => {
                    match frame.ok_or(Error::ConnectionClosed)?? {
                        Message::Text(text) => {
                            let was_reply = self.receive(&text, state);
                            if was_reply && is_saturated && drained_by.is_none() {
                                let now = self.recorder.now();
                                self.send(now, state).await?;
                            }
                        }
                        Message::Ping(_) | Message::Pong(_) => {}
                        Message::Close(_) => return Err(Error::ConnectionClosed),
                        other => self.recorder.error(format!("an unexpected frame came: {other:?}")),
                    }
                }
                Some(due) = due, if drained_by.is_none() => self.send(due, state).await?,
                () = stop.cancelled(), if drained_by.is_none() => drained_by = Some(Instant::now() + DRAIN_TIMEOUT),
                () = sleep_until(drained_by.unwrap_or_else(Instant::now)), if drained_by.is_some() => return Ok(()),
            }
        }
    }

    async fn send(&mut self, due: Nanos, state: &mut State) -> Result<(), Error> {
        let text = self.messages.text(state.next_number);
        state.waiting.push_back((state.next_number, due));
        state.next_number += 1;
        self.socket.send(Message::text(text)).await
    }

    /// Takes a frame in. Whether it was the reply to a message, right or wrong.
    fn receive(&self, text: &str, state: &mut State) -> bool {
        if let Some(post) = self.posts.read(text) {
            if post.client != self.recipient.index && post.client != EVERYBODY {
                self.recorder.error("a post came to the wrong client");
            } else if post.number != state.received {
                self.recorder.error("a post was lost, doubled or out of order");
                state.received = post.number + 1;
            } else {
                state.received += 1;
                self.recorder.done(Operation::Post, post.due, text.len());
            }
            if let Some(delivered) = &self.delivered {
                delivered.add_permits(1);
            }
            return false;
        }
        let number = self.messages.number(text);
        let place = number.and_then(|number| state.waiting.iter().position(|(waiting, _)| *waiting == number));
        if let Some((_, due)) = place.and_then(|place| state.waiting.remove(place)) {
            self.recorder.done(Operation::Reply, due, 2 * text.len());
        } else {
            let start: String = text.chars().take(120).collect();
            self.recorder.error(format!("a wrong reply: {start}"));
            // Whichever it was meant for, no better one will come.
            state.waiting.pop_front();
        }
        true
    }
}
