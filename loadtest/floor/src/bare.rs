//! The least that sending to many can cost: a loop that writes a ready frame to each socket.

use std::sync::Arc;

use dashmap::DashMap;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// The writing half of every socket.
#[derive(Default)]
pub(crate) struct Sinks(DashMap<u64, Arc<Mutex<SplitSink<Stream, Message>>>>);

impl Sinks {
    /// Holds a socket until its client has gone. Whatever it says is answered with its id.
    pub(crate) async fn hold(&self, id: u64, socket: Stream) {
        let (sink, mut stream) = socket.split();
        let sink = Arc::new(Mutex::new(sink));
        self.0.insert(id, Arc::clone(&sink));
        while let Some(Ok(message)) = stream.next().await {
            if message.is_text() && sink.lock().await.send(Message::text(id.to_string())).await.is_err() {
                break;
            }
        }
        self.0.remove(&id);
    }

    /// Writes a frame to all, one after the other.
    pub(crate) async fn write_all(&self, text: &Utf8Bytes) {
        let sinks: Vec<_> = self.0.iter().map(|sink| Arc::clone(&sink)).collect();
        for sink in sinks {
            // A client that has gone needs nothing.
            let _ = sink.lock().await.send(Message::Text(text.clone())).await;
        }
    }
}
