use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::call::{Caller, PeerAnswer, PeerCall, PeerCallError, PeerRequest};
use super::handshake::Introduction;
use super::peer_outcome::{PeerOutcome, PeerOutcomes};
use crate::session::Receipts;
use tidegate_core::lock::lock;

/// Most bytes of calls that wait to be sent on one link. A call beyond it is refused at once: 503. A single larger one
/// is accepted when nothing else waits. The callers hold the data anyway; this bounds how far a link lags behind.
pub(super) const QUEUE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Most calls of one link that are not answered yet. A call beyond it is refused at once: 503. A peer that sends more
/// breaks the protocol.
pub(super) const IN_FLIGHT_MAX: usize = 65_536;

/// The first protocol in which a node can renew leases for others.
const RENEWAL_PROTOCOL: u16 = 2;

/// The first protocol in which a call can name the stages to which its connections must belong.
const STAGES_PROTOCOL: u16 = 3;

/// Most bytes of descriptions of connections that wait to be sent. A GET beyond it is refused: 503.
const INFO_MAX_BYTES: usize = 8 * 1024 * 1024;

type CallResult = Result<PeerAnswer, PeerCallError>;

/// A link, as its users hold it. Only its driver moves the bytes, in the order of the calls.
#[derive(Debug)]
pub struct Link {
    pub peer: Introduction,
    /// Version of the protocol that both sides speak.
    pub protocol: u16,
    /// True if this node dialled; otherwise the peer did.
    pub dialled: bool,
    pub since: Instant,
    /// Number that tells this link from earlier ones to the same peer.
    pub(super) serial: u64,
    state: Mutex<State>,
    driver: AtomicWaker,
    /// Number of calls of the peer that are not answered yet.
    owed: AtomicUsize,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    calls: VecDeque<(u64, PeerRequest)>,
    call_bytes: usize,
    waiting: HashMap<u64, oneshot::Sender<CallResult>>,
    last_id: u64,
    answers: Vec<(u64, PeerOutcome)>,
    infos: VecDeque<(u64, Bytes)>,
    info_bytes: usize,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// This node leaves: it takes no new call, then says goodbye.
    Leaving,
    Ended,
}

/// The load of a link, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkLoad {
    /// Calls of this node that the peer has not answered yet.
    pub in_flight: usize,
    /// Bytes of those calls that wait to be sent.
    pub queued_bytes: usize,
}

impl Link {
    pub(super) fn new(peer: Introduction, protocol: u16, dialled: bool, serial: u64) -> Arc<Self> {
        Arc::new(Link {
            peer,
            protocol,
            dialled,
            since: Instant::now(),
            serial,
            state: Mutex::default(),
            driver: AtomicWaker::new(),
            owed: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        })
    }

    /// Makes a call and waits for its answer for at most `within`. Calls reach the owner in the order in which they are
    /// made.
    ///
    /// # Errors
    /// [`PeerCallError::NotSent`], [`PeerCallError::Unknown`] if the call may have left, and [`PeerCallError::Gone`].
    pub async fn call(self: &Arc<Self>, call: PeerCall, within: Duration) -> Result<PeerAnswer, PeerCallError> {
        self.start(call)?.within(within).await
    }

    /// Asks the peer to renew this node's lease, and returns its answer. A peer that speaks too old a protocol is not
    /// asked.
    ///
    /// # Errors
    /// [`PeerCallError::NotSent`], [`PeerCallError::Unknown`] and [`PeerCallError::Gone`].
    pub(in crate::cluster) async fn renew(
        self: &Arc<Self>,
        epoch: u64,
        lease_millis: u32,
        within: Duration,
    ) -> Result<PeerAnswer, PeerCallError> {
        if self.protocol < RENEWAL_PROTOCOL {
            return Err(PeerCallError::NotSent);
        }
        self.start(PeerRequest::Renew { epoch, lease_millis })?.within(within).await
    }

    /// Returns true if the peer understands calls that name the stages of their connections.
    pub fn knows_stages(&self) -> bool {
        self.protocol >= STAGES_PROTOCOL
    }

    /// Makes a call whose answer is to be waited for. Calls reach the owner in the order in which they are made.
    ///
    /// # Errors
    /// [`PeerCallError::NotSent`]: the link is over or leaves, or too much waits on it.
    pub fn start(self: &Arc<Self>, call: impl Into<PeerRequest>) -> Result<PendingCall, PeerCallError> {
        let call = call.into();
        let cost = call.cost();
        let (answer, answered) = oneshot::channel();
        let (id, was_empty) = {
            let mut state = self.lock();
            let is_full = state.call_bytes > 0 && state.call_bytes + cost > QUEUE_MAX_BYTES;
            if state.phase != Phase::Open || is_full || state.waiting.len() >= IN_FLIGHT_MAX {
                return Err(PeerCallError::NotSent);
            }
            let was_empty = state.calls.is_empty();
            state.last_id += 1;
            let id = state.last_id;
            state.waiting.insert(id, answer);
            state.call_bytes += cost;
            state.calls.push_back((id, call));
            (id, was_empty)
        };
        if was_empty {
            self.driver.wake();
        }
        Ok(PendingCall { link: Arc::clone(self), id, answered, done: false })
    }

    /// Returns the load of the link.
    pub fn load(&self) -> LinkLoad {
        let state = self.lock();
        LinkLoad { in_flight: state.waiting.len(), queued_bytes: state.call_bytes }
    }

    /// Ends the link at once. Bytes that the peer has sent and that are not read yet are ignored.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.driver.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Takes no new call, answers every call of the peer, says goodbye and ends.
    pub(super) fn leave(&self) {
        {
            let mut state = self.lock();
            if state.phase == Phase::Open {
                state.phase = Phase::Leaving;
            }
        }
        self.driver.wake();
    }

    pub(super) fn register(&self, cx: &Context<'_>) {
        self.driver.register(cx.waker());
    }

    /// Moves into `out` what waits to be sent: all answers and descriptions, then calls in their order, as long as
    /// `out` has room. Returns true if it is time to say goodbye.
    pub(super) fn take(&self, out: &mut impl Outgoing) -> bool {
        let mut state = self.lock();
        if !state.answers.is_empty() {
            out.answers(&state.answers);
            state.answers.clear();
            // The memory of a burst must not stay for the life of the link.
            state.answers.shrink_to(1024);
        }
        while let Some((id, info)) = state.infos.pop_front() {
            state.info_bytes -= info.len();
            out.info(id, info);
        }
        while out.accepts_calls()
            && let Some((id, call)) = state.calls.pop_front()
        {
            state.call_bytes -= call.cost();
            out.call(id, &call);
        }
        // Read last, under the lock under which an answer is queued and then counted: if the count is 0, every answer
        // was queued before and taken above.
        state.phase == Phase::Leaving && state.waiting.is_empty() && self.owed.load(Ordering::Acquire) == 0
    }

    /// Counts a call of the peer that came. Returns false if the peer has more in flight than it may.
    pub(super) fn owe(&self) -> bool {
        self.owed.fetch_add(1, Ordering::AcqRel) < IN_FLIGHT_MAX
    }

    /// Passes on outcomes from the peer. Unknown ids are ignored.
    pub(super) fn answered(&self, answers: PeerOutcomes<'_>) {
        let mut state = self.lock();
        for (id, outcome) in answers.iter() {
            if let Some(waiting) = state.waiting.remove(&id) {
                let _ = waiting.send(Ok(PeerAnswer::Outcome(outcome)));
            }
        }
    }

    /// Passes on a description from the peer. An unknown id is ignored.
    pub(super) fn answered_info(&self, id: u64, info: Bytes) {
        if let Some(waiting) = self.lock().waiting.remove(&id) {
            let _ = waiting.send(Ok(PeerAnswer::Info(info)));
        }
    }

    /// Ends the calls that wait, because the link is over. `left` is the last call whose frame was handed to the socket
    /// as a whole: that call and earlier ones are [`PeerCallError::Unknown`], and later ones never left. After the
    /// peer's goodbye all are [`PeerCallError::Gone`], because the peer answered every call that it had acted on before
    /// it said so.
    pub(super) fn end(&self, left: u64, said_goodbye: bool) {
        let waiting = {
            let mut state = self.lock();
            state.phase = Phase::Ended;
            let State { waiting, .. } = std::mem::take(&mut *state);
            state.phase = Phase::Ended;
            waiting
        };
        for (id, waiting) in waiting {
            let error = match id {
                _ if said_goodbye => PeerCallError::Gone,
                id if id <= left => PeerCallError::Unknown,
                _ => PeerCallError::NotSent,
            };
            let _ = waiting.send(Err(error));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A collector of the bytes that a driver sends next.
pub(super) trait Outgoing {
    fn answers(&mut self, answers: &[(u64, PeerOutcome)]);
    fn info(&mut self, id: u64, info: Bytes);
    fn call(&mut self, id: u64, call: &PeerRequest);
    /// Returns true if another call may be added.
    fn accepts_calls(&self) -> bool;
}

impl Caller for Link {
    fn answer(&self, id: u64, outcome: PeerOutcome) {
        let was_empty = {
            let mut state = self.lock();
            self.owed.fetch_sub(1, Ordering::AcqRel);
            if state.phase == Phase::Ended {
                return;
            }
            state.answers.push((id, outcome));
            state.answers.len() == 1
        };
        if was_empty {
            self.driver.wake();
        }
    }

    fn answer_info(&self, id: u64, info: Bytes) {
        {
            let mut state = self.lock();
            self.owed.fetch_sub(1, Ordering::AcqRel);
            if state.phase == Phase::Ended {
                return;
            }
            if state.info_bytes + info.len() > INFO_MAX_BYTES {
                state.answers.push((id, PeerOutcome::Unavailable));
            } else {
                state.info_bytes += info.len();
                state.infos.push_back((id, info));
            }
        }
        self.driver.wake();
    }
}

impl Receipts for Link {
    fn settle(&self, id: u64, written: bool) {
        self.answer(id, if written { PeerOutcome::Done } else { PeerOutcome::Gone });
    }
}

/// A call in progress. Dropping it withdraws the call if it has not left; its answer is ignored.
#[derive(Debug)]
pub struct PendingCall {
    link: Arc<Link>,
    id: u64,
    answered: oneshot::Receiver<CallResult>,
    done: bool,
}

impl PendingCall {
    /// Waits for the answer for at most `within`.
    ///
    /// # Errors
    /// [`PeerCallError::NotSent`], [`PeerCallError::Unknown`] if the call may have left, and [`PeerCallError::Gone`].
    pub async fn within(mut self, within: Duration) -> Result<PeerAnswer, PeerCallError> {
        match timeout(within, &mut self).await {
            Ok(result) => result,
            Err(_) if self.withdraw() => Err(PeerCallError::NotSent),
            Err(_) => Err(PeerCallError::Unknown),
        }
    }

    /// Withdraws the call. Returns false if it has left, or may have.
    fn withdraw(&mut self) -> bool {
        self.done = true;
        let mut state = self.link.lock();
        state.waiting.remove(&self.id);
        match state.calls.binary_search_by_key(&self.id, |(id, _)| *id) {
            Ok(position) => {
                if let Some((_, call)) = state.calls.remove(position) {
                    state.call_bytes -= call.cost();
                }
                true
            }
            Err(_) => false,
        }
    }
}

impl std::future::Future for PendingCall {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallResult> {
        let answered = Pin::new(&mut self.answered).poll(cx);
        answered.map(|result| {
            self.done = true;
            // The link answers every call that waits, also when it ends.
            result.unwrap_or(Err(PeerCallError::Unknown))
        })
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if !self.done {
            self.withdraw();
        }
    }
}
