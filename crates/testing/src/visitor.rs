use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::{LIMIT, Ledger, Session};

/// A client that a test controls step by step.
pub struct Visitor {
    pub id: String,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Session,
}

impl Visitor {
    /// Comes in under a name that nobody has yet.
    pub async fn enter(node: SocketAddr, name: &str, ledger: &Ledger) -> Self {
        let url = format!("ws://{node}/prod?name={name}");
        let (socket, _) = timeout(LIMIT, tokio_tungstenite::connect_async(url)).await.expect("in time").unwrap();
        let id = ledger.connection_of(name).expect("the backend was asked");
        Visitor { id, socket, session: Session::new(name.to_owned()) }
    }

    /// Returns the next text.
    pub async fn next_text(&mut self) -> String {
        let next = timeout(LIMIT, self.socket.next()).await.expect("in time").expect("open").unwrap();
        let text = next.into_text().unwrap().to_string();
        self.session.received.push(text.clone());
        text
    }

    /// Waits until the gateway has closed it; returns all that it has received.
    pub async fn closed(mut self) -> Session {
        let rest = async {
            while let Some(Ok(message)) = self.socket.next().await {
                self.session.note(message);
            }
        };
        timeout(LIMIT, rest).await.expect("the stream ends");
        self.session
    }

    /// Closes it; returns all that it has received.
    pub async fn leave(mut self) -> Session {
        self.session.left = true;
        let _ = self.socket.send(Message::Close(None)).await;
        self.closed().await
    }
}
