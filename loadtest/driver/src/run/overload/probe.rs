use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use http::Method;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::super::{deal, lanes};
use crate::client::{self, Client, Recipient, Sending, Socket};
use crate::pacer;
use crate::payload::{Messages, Posts};
use crate::poster::{self, Each, Poster, Posting};
use crate::recorder::{Nanos, Operation, Recorder};
use crate::target::Endpoints;

/// Of each stream, a second.
const HEALTH_PER_SECOND: u32 = 20;
const POSTS_PER_SECOND: u32 = 50;
const LOOKS_PER_SECOND: u32 = 20;
const CLOSES_PER_SECOND: u32 = 5;

/// Clients that get the posts, and HTTP connections that they come on: one that waits holds up a few others only.
const RECIPIENTS: usize = 16;
const POSTERS: usize = 8;

/// First index of the clients of the probe.
const FIRST: usize = 1_000_000;

/// Length of a post.
const POST_BYTES: usize = 128;

/// What is not answered within this is an error.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What those see who are not the overload. It runs in a thread of its own, so that the driver's own load does not hold
/// it up.
pub(super) struct Probe {
    pub(super) health: Arc<Recorder>,
    pub(super) posts: Arc<Recorder>,
    pub(super) looks: Arc<Recorder>,
    pub(super) closes: Arc<Recorder>,
    stop: CancellationToken,
    /// Until it is joined.
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Probe {
    /// Starts to probe. Has connected all that it needs for so long.
    pub(super) async fn start(endpoints: Arc<Endpoints>, time: Duration) -> anyhow::Result<Self> {
        let recorders: [Arc<Recorder>; 4] = Default::default();
        let stop = CancellationToken::new();
        let (ready, is_ready) = oneshot::channel();
        let thread = std::thread::spawn({
            let (recorders, stop) = (recorders.clone(), stop.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(probe(&endpoints, time, &recorders, ready, &stop))
            }
        });
        let [health, posts, looks, closes] = recorders;
        let mut probe = Probe { health, posts, looks, closes, stop, thread: Some(thread) };
        // Without an answer it has failed, and says why when it is joined.
        match is_ready.await {
            Ok(()) => Ok(probe),
            Err(_failed) => match probe.stop().await {
                Err(error) => Err(error),
                Ok(()) => anyhow::bail!("the probe ended early"),
            },
        }
    }

    /// Ends it when all that it has asked is answered.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        joined.map_err(|_panic| anyhow::anyhow!("the probe has panicked"))?
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn probe(
    endpoints: &Arc<Endpoints>,
    time: Duration,
    [health, posts, looks, closes]: &[Arc<Recorder>; 4],
    ready: oneshot::Sender<()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let health_address = endpoints.health.context("it does not tell its health")?;
    let mut recipients = Vec::with_capacity(RECIPIENTS);
    let mut clients = JoinSet::new();
    let (stop_clients, texts) = (CancellationToken::new(), Arc::new(Posts::new(POST_BYTES)));
    for index in FIRST..FIRST + RECIPIENTS {
        let (socket, id) = connect(endpoints, index).await?;
        let recipient = Arc::new(Recipient { index, id, ..Recipient::default() });
        recipients.push(Arc::clone(&recipient));
        let client = Client {
            socket,
            recorder: Arc::clone(posts),
            messages: Messages::new(index, 1, POST_BYTES),
            posts: Arc::clone(&texts),
            recipient,
            delivered: None,
        };
        clients.spawn(client.run(Sending::Never, stop_clients.clone()));
    }
    let mut doomed = Vec::new();
    for index in 0..(time.as_secs_f64() * f64::from(CLOSES_PER_SECOND)).ceil() as usize {
        let (socket, id) = connect(endpoints, FIRST + RECIPIENTS + index).await?;
        let (closed, is_closed) = oneshot::channel();
        clients.spawn(until_closed(socket, closed, stop_clients.clone()));
        doomed.push((id, is_closed));
    }
    let stage = endpoints.stage()?.to_owned();
    let look = format!("{stage}/@connections/{}", recipients[0].id);
    let new_poster = || Poster::connect(Arc::clone(endpoints));
    let to_health = Poster::connect_to(Arc::clone(endpoints), health_address).await?;
    let (to_looks, to_closes) = (new_poster().await?, new_poster().await?);
    let hands = deal(&recipients, POSTERS);
    let (pace, posts_due) = lanes(hands.len());
    let mut streams = JoinSet::new();
    for (hand, dues) in hands.into_iter().zip(posts_due) {
        let (poster, told, texts) = (new_poster().await?, Posting::Told(dues, Each::One), Arc::clone(&texts));
        streams.spawn(poster::run(poster, Arc::clone(posts), hand, texts, told, stop.clone()));
    }
    if ready.send(()).is_err() {
        return Ok(());
    }

    pacer::start(Arc::clone(posts), POSTS_PER_SECOND, pace);
    let asked = dues(health, HEALTH_PER_SECOND);
    streams.spawn(ask(to_health, Arc::clone(health), "/healthz".to_owned(), asked, stop.clone()));
    streams.spawn(ask(to_looks, Arc::clone(looks), look, dues(looks, LOOKS_PER_SECOND), stop.clone()));
    let asked = dues(closes, CLOSES_PER_SECOND);
    streams.spawn(close(to_closes, Arc::clone(closes), stage, doomed, asked, stop.clone()));
    while let Some(ended) = streams.join_next().await {
        ended?;
    }
    stop_clients.cancel();
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    Ok(())
}

async fn connect(endpoints: &Endpoints, index: usize) -> anyhow::Result<(Socket, String)> {
    let mut socket = client::connect(endpoints, index).await?;
    let id = client::learn_id(endpoints, &mut socket, index).await?;
    Ok((socket, id))
}

fn dues(recorder: &Arc<Recorder>, per_second: u32) -> mpsc::UnboundedReceiver<Nanos> {
    let (pace, dues) = mpsc::unbounded_channel();
    pacer::start(Arc::clone(recorder), per_second, vec![pace]);
    dues
}

/// Asks for one thing again and again.
async fn ask(
    mut poster: Poster,
    recorder: Arc<Recorder>,
    path: String,
    mut dues: mpsc::UnboundedReceiver<Nanos>,
    stop: CancellationToken,
) {
    while let Some(due) = next(&mut dues, &stop).await {
        match timeout(ANSWER_MAX, poster.send(Method::GET, &path, String::new())).await {
            Ok(Ok(status)) if status.is_success() => recorder.done(Operation::Call, due, 0),
            Ok(Ok(status)) => recorder.error(format!("GET was answered with {status}")),
            Ok(Err(error)) => return recorder.error(format!("GET failed: {error:#}")),
            Err(_) => return recorder.error(format!("GET was not answered within {ANSWER_MAX:?}")),
        }
    }
}

/// Closes one client after the other, until the client has its close.
async fn close(
    mut poster: Poster,
    recorder: Arc<Recorder>,
    stage: String,
    mut doomed: Vec<(String, oneshot::Receiver<()>)>,
    mut dues: mpsc::UnboundedReceiver<Nanos>,
    stop: CancellationToken,
) {
    while let Some((id, is_closed)) = doomed.pop() {
        let Some(due) = next(&mut dues, &stop).await else { break };
        let closed = async {
            let status = poster.send(Method::DELETE, &format!("{stage}/@connections/{id}"), String::new()).await?;
            anyhow::ensure!(status.is_success(), "it was answered with {status}");
            is_closed.await.context("the connection ended without a close")
        };
        match timeout(ANSWER_MAX, closed).await {
            Ok(Ok(())) => recorder.done(Operation::Call, due, 0),
            Ok(Err(error)) => return recorder.error(format!("DELETE failed: {error:#}")),
            Err(_) => return recorder.error(format!("DELETE closed nothing within {ANSWER_MAX:?}")),
        }
    }
}

/// A client that only answers pings, until it is closed or not needed.
async fn until_closed(mut socket: Socket, closed: oneshot::Sender<()>, stop: CancellationToken) {
    loop {
        tokio::select! {
            frame = socket.next() => match frame {
                Some(Ok(Message::Close(_))) => return closed.send(()).unwrap_or_default(),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            () = stop.cancelled() => return client::close(socket).await,
        }
    }
}

async fn next(dues: &mut mpsc::UnboundedReceiver<Nanos>, stop: &CancellationToken) -> Option<Nanos> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        due = dues.recv() => due,
    }
}
