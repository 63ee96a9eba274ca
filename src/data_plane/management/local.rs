use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::answer_peer::answer_peer;
use super::delete_connection::close;
use super::get_connection::describe;
use super::reach::Reach;
use super::{count, find_here, forwarded, may_serve};
use crate::clock::Timestamp;
use crate::cluster::link::{Caller, LocalConnections, PeerOutcome, Target};
use crate::data_plane::{DataPlane, Live};
use crate::data_type::DataType;
use crate::lock::lock;
use crate::registry::OpenConnection;
use crate::session::DataFrame;
use crate::session::{PostRefused, Receipts};
use crate::telemetry::Span;
use crate::usage::{Counted, UsageExceeded};

/// What peers ask of this node. A call that was forwarded is never forwarded again: for a connection that is not here
/// it is gone. It counts against the usage plan here, where the connection's API key is known.
impl LocalConnections for Arc<DataPlane> {
    fn post(&self, to: Target<'_>, data: Bytes, data_type: DataType, caller: &Arc<dyn Caller>, id: u64) {
        let traced = traced(self, to, caller);
        let caller = traced.as_ref().unwrap_or(caller);
        let open = match find_for_peer(self, to) {
            Ok(open) => open,
            Err(outcome) => return caller.answer(id, outcome),
        };
        let live = self.live();
        if data.len() > live.settings.limits.message_bytes {
            return caller.answer(id, PeerOutcome::TooLarge);
        }
        let (frame, now) = (DataFrame::new(data, data_type), self.clock.now());
        counted(self, (&live, now), open, caller, id, move |open, caller| {
            let refused = open.outbox.post_for(frame, now, Arc::clone(caller) as _, id).err();
            match refused {
                None => {}
                Some(PostRefused::Gone) => caller.answer(id, PeerOutcome::Gone),
                Some(PostRefused::Full) => caller.answer(id, PeerOutcome::Full),
            }
        });
    }

    fn get(&self, to: Target<'_>, caller: &Arc<dyn Caller>, id: u64) {
        let traced = traced(self, to, caller);
        let caller = traced.as_ref().unwrap_or(caller);
        let open = match find_for_peer(self, to) {
            Ok(open) => open,
            Err(outcome) => return caller.answer(id, outcome),
        };
        counted(self, (&self.live(), self.clock.now()), open, caller, id, move |open, caller| {
            caller.answer_info(id, describe(open))
        });
    }

    fn ask(&self, head: &[u8], data: Bytes, caller: &Arc<dyn Caller>, id: u64) {
        answer_peer(self, head, data, caller, id);
    }

    fn delete(&self, to: Target<'_>, code: u16, reason: &str) -> PeerOutcome {
        let span = span(self, to);
        let outcome = match find_for_peer(self, to) {
            Ok(open) if close(&open, code, reason) => PeerOutcome::Done,
            Ok(_) => PeerOutcome::Gone,
            Err(outcome) => outcome,
        };
        span.into_iter().for_each(|span| end(span, outcome));
        outcome
    }
}

/// The span of a forwarded call, if its trace is made.
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

/// Ends the span of a forwarded call when the call is answered.
#[derive(Debug)]
struct Traced {
    caller: Arc<dyn Caller>,
    span: Mutex<Option<Span>>,
}

/// Who is answered instead of `caller`, if the call's trace is made.
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

/// Does something for a peer if it is within the usage plan of the connection's API key: at once, or in a task of its
/// own when the quota has to be asked for.
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
