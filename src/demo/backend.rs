use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::callback_client::CallbackClient;
use super::chat::{Chat, ConnectionId, Leaving, Post};
use super::event::{EventType, ProxyEvent, Request, RequestContext};
use super::feed::{Feed, Record, now_epoch_millis, shorten};
use super::frame::Frame;

/// Most connections at once; the `$connect` of a further one is answered with 503.
const CONNECTIONS_MAX: usize = 2000;

/// Frames that wait for one connection. A connection that has this many waiting leaves its room.
const OUTBOX_MAX: usize = 256;

/// Posts of one frame that the gateway says it did not write (429, 503); then the frame is dropped.
const ATTEMPTS_MAX: u32 = 4;

/// Pause before the second attempt; each further one is twice as long.
const RETRY_DELAY: Duration = Duration::from_millis(100);

const HINT: &str = "No route takes this message. Try {\"action\":\"join\",\"room\":\"lobby\",\"name\":\"Ada\"} and \
                    then {\"action\":\"sendMessage\",\"text\":\"hello\"}.";

/// The chat with its connections.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) feed: Feed,
    state: Mutex<State>,
    client: CallbackClient,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// One lock holds both, so that the order of two changes is the order of their frames in every outbox.
#[derive(Debug, Default)]
struct State {
    chat: Chat,
    outboxes: HashMap<ConnectionId, Outbox>,
}

/// The way to one connection. Its owner task ends when this is dropped and what it held is posted.
#[derive(Debug)]
struct Outbox {
    frames: mpsc::Sender<Queued>,
    overflowed: Arc<AtomicBool>,
}

/// A frame on its way, and the trace of the event that caused it.
#[derive(Debug)]
struct Queued {
    frame: Bytes,
    trace: Option<HeaderValue>,
}

impl Backend {
    pub(super) fn new(gateway_addresses: Vec<String>, shutdown: CancellationToken, tasks: TaskTracker) -> Self {
        let client = CallbackClient::new(gateway_addresses, shutdown.clone(), tasks.clone());
        Backend { feed: Feed::new(), state: Mutex::default(), client, shutdown, tasks }
    }

    /// Carries out one event; returns the `statusCode` of the answer.
    ///
    /// Posts go out after the answer or beside it, never within: an event is not kept waiting by a slow client.
    /// They carry on the event's `traceparent`.
    pub(super) fn handle(self: &Arc<Self>, event: &ProxyEvent, trace: Option<&HeaderValue>) -> StatusCode {
        let context = &event.request_context;
        let id: ConnectionId = context.connection_id.as_str().into();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match context.event_type {
            EventType::Connect => match self.open(&mut state, &id, context) {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            },
            EventType::Message => {
                // A message may overtake the end of its connection: the first post then finds that it is gone.
                if !self.open(&mut state, &id, context) {
                    return StatusCode::SERVICE_UNAVAILABLE;
                }
                let posts = answer(&mut state.chat, &id, event);
                state.enqueue(posts, trace);
                StatusCode::OK
            }
            EventType::Disconnect => {
                let reason = context.disconnect_reason.as_deref().unwrap_or_default();
                state.close(&id, Leaving { code: context.disconnect_status_code, reason }, trace);
                StatusCode::OK
            }
        }
    }

    /// Makes the outbox of a connection and starts its owner, if there is none; false if there are too many.
    fn open(self: &Arc<Self>, state: &mut State, id: &ConnectionId, context: &RequestContext) -> bool {
        if state.outboxes.contains_key(id) {
            return true;
        }
        if state.outboxes.len() >= CONNECTIONS_MAX {
            return false;
        }
        let (frames, receiver) = mpsc::channel(OUTBOX_MAX);
        let overflowed = Arc::new(AtomicBool::new(false));
        state.outboxes.insert(id.clone(), Outbox { frames, overflowed: overflowed.clone() });
        let owner = Owner { backend: self.clone(), id: id.clone(), callback_url: context.callback_url.clone() };
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move { shutdown.run_until_cancelled(owner.run(receiver, overflowed)).await });
        true
    }

    fn gone(&self, id: &ConnectionId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.close(id, Leaving { code: None, reason: "connection is gone" }, None);
    }
}

/// What a client's message causes.
fn answer(chat: &mut Chat, id: &ConnectionId, event: &ProxyEvent) -> Vec<Post> {
    let context = &event.request_context;
    let to_sender = |frame: Frame<'_>| vec![Post { to: id.clone(), frame: frame.encode() }];
    let result = match Request::parse(&context.route_key, event.body.as_deref()) {
        Ok(Request::Join(join)) => chat.join(id, &context.callback_url, join),
        Ok(Request::SendMessage(text)) => chat.send_message(id, &text, context.request_time_epoch),
        Ok(Request::Unknown) => return to_sender(Frame::Hint { message: HINT }),
        Err(message) => return to_sender(Frame::Error { message: &message }),
    };
    result.unwrap_or_else(|refusal| to_sender(Frame::Error { message: &refusal.to_string() }))
}

impl State {
    /// Puts frames into outboxes, in order. A connection whose outbox is full leaves its room, which is told.
    fn enqueue(&mut self, mut posts: Vec<Post>, trace: Option<&HeaderValue>) {
        while !posts.is_empty() {
            let mut slow = Vec::new();
            for Post { to, frame } in posts {
                let Some(outbox) = self.outboxes.get(&to) else { continue };
                if outbox.frames.try_send(Queued { frame, trace: trace.cloned() }).is_err() {
                    outbox.overflowed.store(true, Ordering::Release);
                    slow.push(to);
                }
            }
            // Each round takes somebody out of a room, so this ends.
            let leaving = Leaving { code: None, reason: "reads too slowly" };
            posts = slow.iter().flat_map(|id| self.chat.leave(id, leaving)).collect();
        }
    }

    fn close(&mut self, id: &ConnectionId, leaving: Leaving<'_>, trace: Option<&HeaderValue>) {
        self.outboxes.remove(id);
        let posts = self.chat.leave(id, leaving);
        self.enqueue(posts, trace);
    }
}

/// The one task that posts to a connection, so that its frames arrive in order.
struct Owner {
    backend: Arc<Backend>,
    id: ConnectionId,
    callback_url: String,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Gone,
}

impl Owner {
    async fn run(self, mut frames: mpsc::Receiver<Queued>, overflowed: Arc<AtomicBool>) {
        while let Some(queued) = frames.recv().await {
            let mut outcome = self.deliver(queued).await;
            if outcome == Outcome::Done && frames.is_empty() && overflowed.swap(false, Ordering::AcqRel) {
                let message = "you read too slowly and have left the room: join again";
                outcome = self.deliver(Queued { frame: Frame::Error { message }.encode(), trace: None }).await;
            }
            if outcome == Outcome::Gone {
                return self.backend.gone(&self.id);
            }
        }
    }

    async fn deliver(&self, queued: Queued) -> Outcome {
        let mut delay = RETRY_DELAY;
        for attempt in 1..=ATTEMPTS_MAX {
            match self.post(&queued).await {
                Some(StatusCode::GONE) => return Outcome::Gone,
                Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) if attempt < ATTEMPTS_MAX => {
                    tokio::time::sleep(delay.mul_f64(rand::random_range(0.5..1.5))).await;
                    delay *= 2;
                }
                // Written, refused for good, or perhaps written (no answer, 424): a repetition could show it twice.
                _ => break,
            }
        }
        Outcome::Done
    }

    /// One post, shown in the feed.
    async fn post(&self, Queued { frame, trace }: &Queued) -> Option<StatusCode> {
        let (at, started) = (now_epoch_millis(), Instant::now());
        let result = self.backend.client.post(&self.callback_url, frame.clone(), trace.as_ref()).await;
        let (status, error) = match &result {
            Ok(status) => (Some(status.as_u16()), None),
            Err(error) => (None, Some(error.to_string())),
        };
        self.backend.feed.publish(&Record::Post {
            at,
            duration_micros: started.elapsed().as_micros().try_into().unwrap_or(u64::MAX),
            connection_id: &self.id,
            url: &self.callback_url,
            data: shorten(&String::from_utf8_lossy(frame)),
            status,
            error,
        });
        result.ok()
    }
}
