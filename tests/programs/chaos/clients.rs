use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream;
use tidegate_testing::{EventType, LIMIT, Ledger, eventually};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Upgrade requests under way at once.
const CONNECTING_MAX: usize = 32;

/// Clients of one node that say nothing, answer pings and never come back. Dropped, they are gone without a word.
pub(crate) struct Clients {
    sockets: JoinSet<Option<u16>>,
    /// Their connection ids.
    pub(crate) ids: HashSet<String>,
}

impl Clients {
    /// Lets `count` clients in, whose names begin so.
    pub(crate) async fn connect(name: &str, count: usize, node: SocketAddr, ledger: &Ledger) -> Self {
        let connect = |number: usize| async move {
            let url = format!("ws://{node}/prod?name={name}-{number}");
            timeout(LIMIT, connect_async(url)).await.expect("in time").expect("a connection").0
        };
        let mut connected = stream::iter(0..count).map(connect).buffer_unordered(CONNECTING_MAX);
        let mut sockets = JoinSet::new();
        while let Some(socket) = connected.next().await {
            sockets.spawn(read(socket));
        }
        let id = |number: usize| ledger.connection_of(&format!("{name}-{number}")).expect("the backend was asked");
        Clients { sockets, ids: (0..count).map(id).collect() }
    }

    /// Waits until all are closed; the codes of the close frames that came.
    pub(crate) async fn closed(self) -> Vec<Option<u16>> {
        timeout(LIMIT, self.sockets.join_all()).await.expect("all are closed in time")
    }
}

/// Reads to the end; the code of the close frame, if there was one.
async fn read(mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Option<u16> {
    let mut code = None;
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(close) = message {
            code = close.map(|close| close.code.into());
        }
    }
    code
}

/// Waits until the backend has been told of the end of all these, and of nobody else's; when the first call for the last
/// one began.
pub(crate) async fn all_told(ledger: &Ledger, ids: &HashSet<String>) -> Instant {
    eventually("the backend knows of every end", async || told(ledger).is_superset(ids)).await;
    assert_eq!(told(ledger).difference(ids).count(), 0, "and of no other");
    let mut calls = ledger.calls();
    calls.retain(|call| call.event_type == EventType::Disconnect);
    calls.sort_by_key(|call| call.begun);
    let mut seen = HashSet::new();
    let firsts = calls.iter().filter(|call| seen.insert(&call.connection_id)).map(|call| call.begun);
    firsts.max().expect("some were told")
}

/// Connections of whose end the backend was told.
pub(crate) fn told(ledger: &Ledger) -> HashSet<String> {
    let calls = ledger.calls().into_iter();
    calls.filter(|call| call.event_type == EventType::Disconnect).map(|call| call.connection_id).collect()
}
