use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::Rates;
use crate::client::Socket;
use crate::payload::Messages;
use crate::recorder::{Nanos, Operation, Recorder};

/// A client sends what is due since the last time this often: many small sleeps would cost more than the messages.
const BURST: Duration = Duration::from_millis(50);

/// A message that is neither answered nor refused within this is an error. No client waits longer than AWS would.
const ANSWER_MAX: Duration = Duration::from_secs(29);

/// What the gateway says when it has no room, in an error frame. Anything else is an error.
const REFUSALS: [&str; 2] = ["Too Many Requests", "Service Unavailable"];

/// How fast each client sends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    pub(super) begins: Nanos,
    /// Of one client; zero is not at all.
    pub(super) per_second: f64,
}

/// Messages of all clients.
#[derive(Debug, Default)]
pub(super) struct Counts {
    offered: AtomicU64,
    answered: AtomicU64,
    shed: AtomicU64,
    held_back: AtomicU64,
}

/// [`Counts`] at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    offered: u64,
    answered: u64,
    shed: u64,
    held_back: u64,
}

impl Counts {
    pub(super) fn read(&self) -> Counted {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            offered: read(&self.offered),
            answered: read(&self.answered),
            shed: read(&self.shed),
            held_back: read(&self.held_back),
        }
    }
}

impl Counted {
    pub(super) fn since(self, before: Counted, time: Duration) -> Rates {
        let rate = |now: u64, before: u64| (now - before) as f64 / time.as_secs_f64();
        Rates {
            offered: rate(self.offered, before.offered),
            answered: rate(self.answered, before.answered),
            shed: rate(self.shed, before.shed),
            held_back: rate(self.held_back, before.held_back),
        }
    }
}

/// A client that sends at its pace, whatever becomes of what it has sent. It does not send what its socket does not
/// take: TCP has told it to wait.
pub(super) struct Offering {
    pub(super) socket: Socket,
    pub(super) replies: Arc<Recorder>,
    pub(super) driver: Arc<Recorder>,
    pub(super) counts: Arc<Counts>,
    pub(super) messages: Messages,
    pub(super) pace: watch::Receiver<Pace>,
    /// In bursts, below one: clients do not send all at the same moment.
    pub(super) offset: f64,
}

/// The messages that a client has sent.
#[derive(Default)]
struct Sent {
    next_number: u64,
    /// Number and due time of those without a reply, in the order in which they were sent. A refusal does not say which
    /// it is for, so refused ones are among them.
    waiting: VecDeque<(u64, Nanos)>,
    /// Refusals that no message of `waiting` was taken off for.
    refused: u64,
}

/// The part of an error frame that is looked at.
#[derive(Deserialize)]
struct ErrorFrame<'a> {
    message: &'a str,
}

impl Offering {
    /// Runs until `stop`, and then until all is answered or refused.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut sent = Sent::default();
        if let Err(error) = self.offer(&stop, &mut sent).await {
            self.replies.error(format!("a connection was lost: {error}"));
            return;
        }
        for _ in sent.refused..sent.waiting.len() as u64 {
            self.replies.error(format!("a message was neither answered nor refused within {ANSWER_MAX:?}"));
        }
    }

    async fn offer(&mut self, stop: &CancellationToken, sent: &mut Sent) -> Result<(), Error> {
        // The socket is taken apart, so that writing never waits for reading nor the other way round.
        let (mut sink, mut frames) = (&mut self.socket).split();
        let this =
            Parts { replies: &self.replies, driver: &self.driver, counts: &self.counts, messages: &self.messages };
        let mut burst = pin!(sleep_until(Instant::now()));
        let (mut pace, mut bursts, mut unflushed) = (Pace::default(), 0_u64, false);
        let mut ends = None;
        loop {
            if ends.is_some() && sent.is_settled() {
                return Ok(());
            }
            tokio::select! {
                frame = frames.next() => match frame.ok_or(Error::ConnectionClosed)?? {
                    Message::Text(text) => this.receive(&text, sent),
                    Message::Ping(_) | Message::Pong(_) => {}
                    Message::Close(_) => return Err(Error::ConnectionClosed),
                    other => this.replies.error(format!("an unexpected frame came: {other:?}")),
                },
                flushed = sink.flush(), if unflushed => {
                    flushed?;
                    unflushed = false;
                }
                changed = self.pace.changed(), if ends.is_none() => {
                    if changed.is_err() { return Ok(()) }
                    (pace, bursts) = (*self.pace.borrow_and_update(), 0);
                    burst.as_mut().reset(due(&this, &pace, bursts, self.offset).1);
                }
                () = &mut burst, if pace.per_second > 0.0 && ends.is_none() => {
                    let (burst_due, _) = due(&this, &pace, bursts, self.offset);
                    let per_burst = pace.per_second * BURST.as_secs_f64();
                    let until = |bursts: u64| (bursts as f64 * per_burst + self.offset) as u64;
                    let count = until(bursts + 1) - until(bursts);
                    bursts += 1;
                    burst.as_mut().reset(due(&this, &pace, bursts, self.offset).1);
                    this.driver.done(Operation::Call, this.driver.now() - (this.replies.now() - burst_due), 0);
                    this.counts.offered.fetch_add(count, Ordering::Relaxed);
                    if unflushed {
                        this.counts.held_back.fetch_add(count, Ordering::Relaxed);
                    } else if count > 0 {
                        this.send(&mut sink, count, burst_due, sent).await?;
                        unflushed = true;
                    }
                    this.give_up_old(sent);
                }
                () = stop.cancelled(), if ends.is_none() => ends = Some(Instant::now() + ANSWER_MAX),
                () = sleep_until(ends.unwrap_or_else(Instant::now)), if ends.is_some() => return Ok(()),
            }
        }
    }
}

/// When a burst is due, by the recorder and by tokio.
fn due(parts: &Parts<'_>, pace: &Pace, burst: u64, offset: f64) -> (Nanos, Instant) {
    let due = pace.begins + ((burst as f64 + offset) * BURST.as_nanos() as f64) as Nanos;
    (due, Instant::from_std(parts.replies.instant(due)))
}

/// An [`Offering`] without what its loop waits for.
struct Parts<'a> {
    replies: &'a Recorder,
    driver: &'a Recorder,
    counts: &'a Counts,
    messages: &'a Messages,
}

impl Parts<'_> {
    /// Writes a burst to the sink, which is flushed later.
    async fn send(
        &self,
        sink: &mut SplitSink<&mut Socket, Message>,
        count: u64,
        due: Nanos,
        sent: &mut Sent,
    ) -> Result<(), Error> {
        for _ in 0..count {
            sent.waiting.push_back((sent.next_number, due));
            sink.feed(Message::text(self.messages.text(sent.next_number))).await?;
            sent.next_number += 1;
        }
        Ok(())
    }

    fn receive(&self, text: &str, sent: &mut Sent) {
        if let Some(number) = self.messages.number(text) {
            match sent.waiting.binary_search_by_key(&number, |(number, _)| *number) {
                Ok(place) => {
                    let (_, due) = sent.waiting.remove(place).unwrap_or_default();
                    self.replies.done(Operation::Reply, due, 2 * text.len());
                    self.counts.answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => self.replies.error("a reply came twice, too late, or to nothing"),
            }
            return;
        }
        match serde_json::from_str::<ErrorFrame<'_>>(text) {
            Ok(frame) if REFUSALS.contains(&frame.message) => {
                sent.refused += 1;
                self.counts.shed.fetch_add(1, Ordering::Relaxed);
                if sent.refused > sent.waiting.len() as u64 {
                    self.replies.error("more refusals came than messages were sent");
                }
            }
            _ => self.replies.error(format!("a wrong reply: {}", text.chars().take(40).collect::<String>())),
        }
    }

    /// Takes off what has waited too long: refused ones first, since nobody knows which they were.
    fn give_up_old(&self, sent: &mut Sent) {
        let oldest = self.replies.now().saturating_sub(ANSWER_MAX.as_nanos() as Nanos);
        while sent.waiting.front().is_some_and(|(_, due)| *due < oldest) {
            sent.waiting.pop_front();
            match sent.refused.checked_sub(1) {
                Some(refused) => sent.refused = refused,
                None => self.replies.error(format!("a message was neither answered nor refused within {ANSWER_MAX:?}")),
            }
        }
    }
}

impl Sent {
    fn is_settled(&self) -> bool {
        self.refused >= self.waiting.len() as u64
    }
}
