use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::frame::{LinkFrame, Target};
use super::peer_outcome::PeerOutcome;
use crate::session::Receipts;
use tidegate_core::data_type::DataType;
use tidegate_core::id::ConnectionId;
use tidegate_core::stage_names::StageNames;
use tidegate_core::trace_context::TraceContext;

/// Size of a queued call beside its data, in bytes: its place in the queue and its head.
const CALL_OVERHEAD_BYTES: usize = 128;

/// A call about a connection of another node.
#[derive(Clone, Debug)]
pub struct PeerCall {
    pub connection: ConnectionId,
    /// The API in whose name it is made. A connection of another API counts as gone.
    pub api_id: Arc<str>,
    /// The span in whose name it is made.
    pub trace: TraceContext,
    /// The stages to which the connection must belong, or `None` for every stage. Only for a peer that
    /// [`knows`](super::Link::knows_stages) them.
    pub stages: Option<StageNames<Bytes>>,
    pub action: Action,
}

/// A request to a peer.
#[derive(Clone, Debug)]
pub enum PeerRequest {
    /// A call about one connection.
    Call(PeerCall),
    /// A question about many connections, in the format of the room that asks: `head` says what is asked, and `data`
    /// are shared, not copied. The answer is a [`PeerAnswer::Info`] in the same format.
    Ask { head: Bytes, data: Bytes },
    /// A request to renew this node's lease in Redis. Only to a peer that speaks protocol 2.
    Renew { epoch: u64, lease_millis: u32 },
}

/// The operation on a connection.
#[derive(Clone, Debug)]
pub enum Action {
    Post { data: Bytes, data_type: DataType },
    Get,
    Delete { code: u16, reason: Arc<str> },
}

/// The answer of the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAnswer {
    Outcome(PeerOutcome),
    /// The description that a GET requested, or the answer to a request or a renewal.
    Info(Bytes),
}

/// The reason why there is no answer of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PeerCallError {
    #[error("the call did not leave this node")]
    NotSent,
    #[error("the link was lost, or the time was up, before the owner answered")]
    Unknown,
    #[error("the owner has left for good")]
    Gone,
}

/// A peer that waits for answers. Each call is answered once, by a receipt or by one of these methods.
pub trait Caller: Receipts {
    /// Answers call number `id` with its `outcome`.
    fn answer(&self, id: u64, outcome: PeerOutcome);

    /// Answers call number `id` with the description that it asked for.
    fn answer_info(&self, id: u64, info: Bytes);
}

/// The operations by which a node answers the calls of its peers. It uses its own connections alone and forwards
/// nothing, and no method waits. Calls are begun in their order and keep it, except for those that wait for the count
/// of a quota.
pub trait LocalConnections: Send + Sync {
    /// Queues `data` for a connection.
    fn post(&self, to: Target<'_>, data: Bytes, data_type: DataType, caller: &Arc<dyn Caller>, id: u64);

    /// Describes a connection, in the format that backends get.
    fn get(&self, to: Target<'_>, caller: &Arc<dyn Caller>, id: u64);

    /// Closes a connection after everything that was posted before is written.
    fn delete(&self, to: Target<'_>, code: u16, reason: &str) -> PeerOutcome;

    /// Answers a question about many connections.
    fn ask(&self, head: &[u8], data: Bytes, caller: &Arc<dyn Caller>, id: u64);
}

impl From<PeerCall> for PeerRequest {
    fn from(call: PeerCall) -> Self {
        PeerRequest::Call(call)
    }
}

impl PeerRequest {
    pub(super) fn cost(&self) -> usize {
        CALL_OVERHEAD_BYTES
            + match self {
                PeerRequest::Call(PeerCall { action: Action::Post { data, .. }, .. }) => data.len(),
                PeerRequest::Call(_) | PeerRequest::Renew { .. } => 0,
                PeerRequest::Ask { head, data } => head.len() + data.len(),
            }
    }

    pub(super) fn frame(&self, id: u64) -> LinkFrame<'_> {
        let call = match self {
            PeerRequest::Call(call) => call,
            PeerRequest::Ask { head, data } => return LinkFrame::Ask { id, head, data: data.clone() },
            PeerRequest::Renew { epoch, lease_millis } => {
                return LinkFrame::Renew { id, epoch: *epoch, lease_millis: *lease_millis };
            }
        };
        let trace = Some(call.trace).filter(|trace| trace.sampled);
        let stages = call.stages.as_ref().map(StageNames::borrowed);
        let to = Target { connection: call.connection, api_id: &call.api_id, trace, stages };
        match &call.action {
            Action::Post { data, data_type } => LinkFrame::Post { id, to, data_type: *data_type, data: data.clone() },
            Action::Get => LinkFrame::Get { id, to },
            Action::Delete { code, reason } => LinkFrame::Delete { id, to, code: *code, reason },
        }
    }
}
