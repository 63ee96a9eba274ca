use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

use crate::{Entrances, LIMIT, Ledger, eventually, spawn};

/// Time for which a client waits for an answer to its upgrade request or to its close.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pause between two things that a client says, on average.
const SPEAKS_EVERY: Duration = Duration::from_millis(1000);

/// Average stay of a client of a crowd that comes and goes.
const STAYS: Duration = Duration::from_millis(4000);

/// A connection as its client saw it, from its 101 to the end of the stream.
#[derive(Clone, Debug)]
pub struct Session {
    pub name: String,
    pub received: Vec<String>,
    /// The client itself began to close it.
    pub left: bool,
    /// Code of the close frame from the gateway; none if the stream just ended.
    pub code: Option<u16>,
}

impl Session {
    pub(crate) fn new(name: String) -> Self {
        Session { name, received: Vec::new(), left: false, code: None }
    }

    /// Takes down what has come.
    pub(crate) fn note(&mut self, message: Message) {
        match message {
            Message::Text(text) => self.received.push(text.to_string()),
            Message::Close(close) => self.code = close.map(|close| close.code.into()),
            _ => {}
        }
    }
}

/// Many clients, each with a name, that say something to each other through the backend. Whoever is closed comes back.
pub struct Crowd {
    clients: Vec<JoinHandle<Vec<Session>>>,
    staying: usize,
    leave: CancellationToken,
}

impl Crowd {
    /// Lets `count` clients in, at any node. The last `going` of them also leave and come back all the time.
    pub async fn gather(count: usize, going: usize, ledger: &Ledger, entrances: &Entrances) -> Self {
        let leave = CancellationToken::new();
        let clients = (0..count).map(|number| {
            let goes = number >= count - going;
            let client = Client { number, count, goes, entrances: entrances.clone(), leave: leave.clone() };
            spawn(client.run())
        });
        let crowd = Crowd { clients: clients.collect(), staying: count - going, leave };
        eventually("everybody is in", async || {
            (0..count).all(|number| ledger.connection_of(&name_of(number)).is_some())
        })
        .await;
        crowd
    }

    /// Returns the connections of those who stay.
    pub fn staying(&self, ledger: &Ledger) -> HashSet<String> {
        (0..self.staying).filter_map(|number| ledger.connection_of(&name_of(number))).collect()
    }

    /// Lets all leave; returns the sessions of each, once all streams have ended.
    pub async fn leave(self) -> Vec<Session> {
        self.leave.cancel();
        let all = timeout(LIMIT, join_all(self.clients)).await.expect("all clients leave");
        all.into_iter().flat_map(Result::unwrap).collect()
    }
}

fn name_of(number: usize) -> String {
    format!("client-{number}")
}

struct Client {
    number: usize,
    count: usize,
    goes: bool,
    entrances: Entrances,
    leave: CancellationToken,
}

impl Client {
    async fn run(self) -> Vec<Session> {
        let mut sessions = Vec::new();
        while !self.leave.is_cancelled() {
            match self.connect().await {
                Some(socket) => sessions.push(self.chat(socket).await),
                // Refused, or the node has gone: as a load balancer would, on to another.
                None => sleep(about(Duration::from_millis(100))).await,
            }
        }
        sessions
    }

    async fn connect(&self) -> Option<WebSocketStream<MaybeTlsStream<TcpStream>>> {
        let address = self.entrances.any()?.public;
        let url = format!("ws://{address}/prod?name={}", name_of(self.number));
        timeout(PATIENCE, tokio_tungstenite::connect_async(url)).await.ok()?.ok().map(|(socket, _)| socket)
    }

    /// Runs one connection to the end of its stream.
    async fn chat(&self, mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Session {
        let mut session = Session::new(name_of(self.number));
        let now = Instant::now();
        let mut speaks = now + about(SPEAKS_EVERY);
        let (goes, mut ends) = (now + about(STAYS), now);
        let mut said = 0;
        loop {
            tokio::select! {
                next = socket.next() => match next {
                    Some(Ok(message)) => session.note(message),
                    Some(Err(_)) | None => return session,
                },
                () = sleep_until(speaks), if !session.left && session.code.is_none() => {
                    said += 1;
                    speaks = Instant::now() + about(SPEAKS_EVERY);
                    let to = name_of(rand::random_range(0..self.count));
                    let text = format!("{} says {said}", session.name);
                    let message = json!({ "action": "say", "to": to, "text": text }).to_string();
                    // An error shows in what is read next.
                    let _ = socket.send(Message::text(message)).await;
                }
                () = self.is_over(goes), if !session.left => {
                    session.left = true;
                    ends = Instant::now() + LIMIT;
                    let _ = socket.close(None).await;
                }
                () = sleep_until(ends), if session.left => panic!("the gateway answers no close"),
            }
        }
    }

    /// Waits until it is time to close the connection.
    async fn is_over(&self, goes: Instant) {
        tokio::select! {
            () = sleep_until(goes), if self.goes => {}
            () = self.leave.cancelled() => {}
        }
    }
}

/// A time between half and one and a half of it.
fn about(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.5..1.5))
}
