//! The calls between gateway and backend, as Server-Sent Events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use tidegate_core::clock::{Clock, SystemClock};
use tidegate_core::lock::lock;

/// Most records that are kept for new subscribers; the oldest goes first. A subscriber that falls this far behind the
/// live records loses the oldest, and gets their number.
const RECENT_MAX: usize = 200;

/// Most subscribers at once; a further one is refused.
const SUBSCRIBERS_MAX: usize = 50;

/// Longest text of one field of a record, in bytes; the rest is cut off. It bounds what the recent records can hold.
const TEXT_MAX_BYTES: usize = 4096;

/// Silence after which a comment is sent, so that it is noticed when a subscriber has gone away.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A call of the gateway, for the integration of a route. `at` is the time when it began, in milliseconds of Unix time.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record<'a> {
    pub(super) at: u64,
    pub(super) duration_micros: u64,
    pub(super) route_key: &'a str,
    pub(super) connection_id: &'a str,
    pub(super) request_id: &'a str,
    pub(super) event: &'a Value,
    pub(super) answer: &'a Value,
}

/// The recent records, and the subscribers.
#[derive(Debug)]
pub(super) struct Feed {
    /// Time of the start, which tells the ids of this feed from those of an earlier process on the same port.
    started_at: u64,
    recent: Mutex<Recent>,
    live: broadcast::Sender<Entry>,
    subscribers: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Recent {
    last_sequence: u64,
    entries: VecDeque<Entry>,
}

/// A record in the form in which it is sent.
#[derive(Clone, Debug)]
struct Entry {
    sequence: u64,
    wire: Bytes,
}

impl Feed {
    pub(super) fn new() -> Self {
        Feed {
            started_at: now_epoch_millis(),
            recent: Mutex::default(),
            live: broadcast::Sender::new(RECENT_MAX),
            subscribers: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)),
        }
    }

    pub(super) fn publish(&self, record: &Record<'_>) {
        let json = serde_json::to_string(record).expect("a record always becomes JSON");
        let mut recent = lock(&self.recent);
        recent.last_sequence += 1;
        let sequence = recent.last_sequence;
        // JSON has no line breaks, so a single `data` line is enough.
        let wire = format!("id: {}-{sequence}\ndata: {json}\n\n", self.started_at).into();
        let entry = Entry { sequence, wire };
        if recent.entries.len() == RECENT_MAX {
            recent.entries.pop_front();
        }
        recent.entries.push_back(entry.clone());
        // Sent under the lock, so that a new subscriber gets each record once. It is no error if there is no
        // subscriber.
        let _ = self.live.send(entry);
    }

    /// Returns the recent records after `last_event_id`, then the live ones until `shutdown`. Returns `None` if there
    /// are too many subscribers.
    pub(super) fn subscribe(
        &self,
        last_event_id: Option<&str>,
        shutdown: CancellationToken,
    ) -> Option<impl Stream<Item = Result<Bytes, Infallible>> + Send + use<>> {
        let permit = self.subscribers.clone().try_acquire_owned().ok()?;
        let seen = last_event_id
            .and_then(|id| id.split_once('-'))
            .filter(|(started_at, _)| started_at.parse() == Ok(self.started_at))
            .and_then(|(_, sequence)| sequence.parse().ok())
            .unwrap_or(0);
        let recent = lock(&self.recent);
        let replay = recent.entries.iter().filter(|entry| entry.sequence > seen).map(|entry| entry.wire.clone());
        // The comment sends the head of the answer at once, even if nothing has happened yet.
        let replay = std::iter::once(Bytes::from_static(b": open\n\n")).chain(replay).collect();
        let subscription = Subscription { replay, live: self.live.subscribe(), shutdown, _permit: permit };
        drop(recent);
        Some(stream::unfold(subscription, |mut subscription| async move {
            let wire = subscription.next().await?;
            Some((Ok(wire), subscription))
        }))
    }
}

struct Subscription {
    replay: VecDeque<Bytes>,
    live: broadcast::Receiver<Entry>,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Subscription {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(wire) = self.replay.pop_front() {
            return Some(wire);
        }
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            received = self.live.recv() => match received {
                Ok(entry) => Some(entry.wire),
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    Some(format!("event: lagged\ndata: {{\"count\":{count}}}\n\n").into())
                }
                Err(broadcast::error::RecvError::Closed) => None,
            },
            () = tokio::time::sleep(HEARTBEAT) => Some(Bytes::from_static(b": still here\n\n")),
        }
    }
}

/// Returns the wall time for people who watch the feed; no decision depends on it.
pub(super) fn now_epoch_millis() -> u64 {
    SystemClock.now().millis()
}

/// Returns the beginning of `text`, cut at a character.
fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX_BYTES)]
}

/// Shortens every long text of an event, wherever it is.
pub(super) fn shorten_all(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > TEXT_MAX_BYTES => {
            *text = format!("{}… ({} bytes)", shorten(text), text.len());
        }
        Value::Array(values) => values.iter_mut().for_each(shorten_all),
        Value::Object(fields) => fields.values_mut().for_each(shorten_all),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use serde_json::json;

    use super::*;

    fn publish(feed: &Feed, connection_id: &str) {
        let (route_key, request_id) = ("join", "r");
        let (event, answer) = (&json!({}), &json!({ "statusCode": 200 }));
        feed.publish(&Record { at: 1, duration_micros: 2, route_key, connection_id, request_id, event, answer });
    }

    /// Returns the next `count` events of a new subscriber.
    async fn read(feed: &Feed, last_event_id: Option<&str>, count: usize) -> Vec<String> {
        let stream = feed.subscribe(last_event_id, CancellationToken::new()).unwrap();
        let text = |wire: Result<Bytes, Infallible>| String::from_utf8(wire.unwrap().to_vec()).unwrap();
        stream.skip(1).take(count).map(text).collect().await
    }

    #[tokio::test]
    async fn a_new_subscriber_gets_the_last_200_records() {
        let feed = Feed::new();
        for index in 0..RECENT_MAX + 5 {
            publish(&feed, &format!("c{index}"));
        }
        let events = read(&feed, None, RECENT_MAX).await;
        let json = r#"{"at":1,"durationMicros":2,"routeKey":"join","connectionId":"c5","requestId":"r","event":{},"answer":{"statusCode":200}}"#;
        assert_eq!(events[0], format!("id: {}-6\ndata: {json}\n\n", feed.started_at));
        assert!(events[RECENT_MAX - 1].contains("\"c204\""));
    }

    #[tokio::test]
    async fn a_subscriber_that_comes_back_gets_only_what_it_missed() {
        let feed = Feed::new();
        for id in ["a", "b", "c"] {
            publish(&feed, id);
        }
        let same = format!("{}-2", feed.started_at);
        assert!(read(&feed, Some(&same), 1).await[0].contains("\"c\""));
        assert!(read(&feed, Some("1-2"), 1).await[0].contains("\"a\""), "an id of another process counts for nothing");
    }

    #[tokio::test]
    async fn subscribers_are_bounded_and_leave_room_when_they_go() {
        let feed = Feed::new();
        let subscribe = || feed.subscribe(None, CancellationToken::new());
        let mut streams: Vec<_> = (0..SUBSCRIBERS_MAX).map(|_| subscribe().unwrap()).collect();
        assert!(subscribe().is_none());
        streams.pop();
        assert!(subscribe().is_some());
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut event = json!({ "body": "é".repeat(3000), "n": 1, "list": ["x".repeat(5000)] });
        shorten_all(&mut event);
        assert_eq!(event["body"], format!("{}… (6000 bytes)", "é".repeat(2048)));
        assert_eq!(event["list"][0].as_str().map(str::len), Some(4096 + "… (5000 bytes)".len()));
    }
}
