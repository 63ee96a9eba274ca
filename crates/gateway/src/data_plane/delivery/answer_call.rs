use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::answer_request::answer_request;
use super::find::{count, find_here, forwarded, may_serve};
use super::reach::Reach;
use crate::data_plane::management::delete_connection::close_open;
use crate::data_plane::management::get_connection::describe;
use crate::data_plane::{DataPlane, Live};
use tidegate_access::usage::{Counted, UsageExceeded};
use tidegate_connections::cluster::link::{Caller, LocalConnections, PeerOutcome, Target};
use tidegate_connections::registry::OpenConnection;
use tidegate_connections::session::DataFrame;
use tidegate_connections::session::{PostRefused, Receipts};
use tidegate_core::clock::Timestamp;
use tidegate_core::data_type::DataType;
use tidegate_core::lock::lock;
use tidegate_telemetry::Span;

/// The answers of this node to the calls that its peers forward. A forwarded call is never forwarded again: a connection that is not on
/// this node is gone. The call is counted against the usage plan here, because this node knows the connection's key.
pub struct PeerCalls(pub Arc<DataPlane>);

impl LocalConnections for PeerCalls {
    fn post(&self, to: Target<'_>, data: Bytes, data_type: DataType, caller: &Arc<dyn Caller>, id: u64) {
        let traced = traced(&self.0, to, caller);
        let caller = traced.as_ref().unwrap_or(caller);
        let open = match find_for_peer(&self.0, to) {
            Ok(open) => open,
            Err(outcome) => return caller.answer(id, outcome),
        };
        let live = self.0.live();
        if data.len() > live.settings.limits.message_bytes {
            return caller.answer(id, PeerOutcome::TooLarge);
        }
        let (frame, now) = (DataFrame::new(data, data_type), self.0.clock.now());
        counted(&self.0, (&live, now), open, caller, id, move |open, caller| {
            let refused = open.outbox.post_for(frame, now, Arc::clone(caller) as _, id).err();
            match refused {
                None => {}
                Some(PostRefused::Gone) => caller.answer(id, PeerOutcome::Gone),
                Some(PostRefused::Full) => caller.answer(id, PeerOutcome::Full),
            }
        });
    }

    fn get(&self, to: Target<'_>, caller: &Arc<dyn Caller>, id: u64) {
        let traced = traced(&self.0, to, caller);
        let caller = traced.as_ref().unwrap_or(caller);
        let open = match find_for_peer(&self.0, to) {
            Ok(open) => open,
            Err(outcome) => return caller.answer(id, outcome),
        };
        counted(&self.0, (&self.0.live(), self.0.clock.now()), open, caller, id, move |open, caller| {
            caller.answer_info(id, describe(open));
        });
    }

    fn ask(&self, head: &[u8], data: Bytes, caller: &Arc<dyn Caller>, id: u64) {
        answer_request(&self.0, head, data, caller, id);
    }

    fn delete(&self, to: Target<'_>, code: u16, reason: &str) -> PeerOutcome {
        let span = span(&self.0, to);
        let outcome = match find_for_peer(&self.0, to) {
            Ok(open) if close_open(&open, code, reason) => PeerOutcome::Done,
            Ok(_) => PeerOutcome::Gone,
            Err(outcome) => outcome,
        };
        span.into_iter().for_each(|span| end(span, outcome));
        outcome
    }
}

/// Returns the span of a forwarded call, if its trace is recorded.
fn span(plane: &DataPlane, to: Target<'_>) -> Option<Span> {
    let mut span = forwarded(plane, to.api_id, to.trace)?;
    span.set("tidegate.connection_id", to.connection);
    Some(span)
}

fn end(mut span: Span, outcome: PeerOutcome) {
    if outcome != PeerOutcome::Done {
        span.fail(format_args!("{outcome:?}"));
    }
}

/// A caller that ends the span of a forwarded call when the call is answered.
#[derive(Debug)]
struct Traced {
    caller: Arc<dyn Caller>,
    span: Mutex<Option<Span>>,
}

/// Returns a caller that also ends the call's span, to be used instead of `caller`. Returns `None` if the call's trace
/// is not recorded.
fn traced(plane: &DataPlane, to: Target<'_>, caller: &Arc<dyn Caller>) -> Option<Arc<dyn Caller>> {
    let span = Mutex::new(Some(span(plane, to)?));
    Some(Arc::new(Traced { caller: Arc::clone(caller), span }))
}

impl Traced {
    fn end(&self, outcome: PeerOutcome) {
        let span = lock(&self.span).take();
        span.into_iter().for_each(|span| end(span, outcome));
    }
}

impl Caller for Traced {
    fn answer(&self, id: u64, outcome: PeerOutcome) {
        self.end(outcome);
        self.caller.answer(id, outcome);
    }

    fn answer_info(&self, id: u64, info: Bytes) {
        self.end(PeerOutcome::Done);
        self.caller.answer_info(id, info);
    }
}

impl Receipts for Traced {
    fn settle(&self, id: u64, written: bool) {
        self.end(if written { PeerOutcome::Done } else { PeerOutcome::Gone });
        self.caller.settle(id, written);
    }
}

fn find_for_peer(plane: &DataPlane, to: Target<'_>) -> Result<OpenConnection, PeerOutcome> {
    if !may_serve(plane) {
        return Err(PeerOutcome::Unavailable);
    }
    let reach = to.stages.map_or(Reach::Everywhere, Reach::Named);
    find_here(plane, to.api_id, &to.connection, reach).ok_or(PeerOutcome::Gone)
}

/// Calls `then` if the usage plan of the connection's API key allows it; otherwise answers `caller` with the refusal.
/// Does so at once, or in a separate task if the quota has to be read from Redis.
fn counted(
    plane: &DataPlane,
    (live, now): (&Live, Timestamp),
    open: OpenConnection,
    caller: &Arc<dyn Caller>,
    id: u64,
    then: impl FnOnce(&OpenConnection, &Arc<dyn Caller>) + Send + 'static,
) {
    let finish =
        move |counted: Result<(), UsageExceeded>, open: &OpenConnection, caller: &Arc<dyn Caller>| match counted {
            Ok(()) => then(open, caller),
            Err(UsageExceeded::Throttle) => caller.answer(id, PeerOutcome::Throttled),
            Err(UsageExceeded::Quota) => caller.answer(id, PeerOutcome::QuotaExceeded),
        };
    let stage = || Some(live.stage(&open.connection.api_id, &open.connection.stage)?.1);
    match count(&open.connection, now, stage) {
        Counted::Now(result) => finish(result, &open, caller),
        later @ Counted::Later(_) => {
            let caller = Arc::clone(caller);
            plane.lifecycle.spawn(async move { finish(later.await, &open, &caller) });
        }
    }
}
