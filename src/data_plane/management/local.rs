use std::sync::Arc;

use bytes::Bytes;

use super::answer_peer::answer_peer;
use super::delete_connection::close;
use super::get_connection::describe;
use super::post_to_connection::frame;
use super::{DataType, count, find_here, may_serve};
use crate::authorizer::{Counted, UsageExceeded};
use crate::cluster::link::{Caller, LocalConnections, Outcome, Target};
use crate::data_plane::DataPlane;
use crate::registry::Open;
use crate::session::PostRefused;

/// What peers ask of this node. A call that was forwarded is never forwarded again: for a connection that is not here
/// it is gone. It counts against the usage plan here, where the connection's API key is known.
impl LocalConnections for Arc<DataPlane> {
    fn post(&self, to: Target<'_>, data: Bytes, binary: bool, caller: &Arc<dyn Caller>, id: u64) {
        let open = match find_for_peer(self, to) {
            Ok(open) => open,
            Err(outcome) => return caller.answer(id, outcome),
        };
        if data.len() > self.live().limits.message_bytes {
            return caller.answer(id, Outcome::TooLarge);
        }
        let (frame, now) = (frame(data, if binary { DataType::Binary } else { DataType::Text }), self.clock.now());
        counted(self, open, caller, id, move |open, caller| {
            let refused = open.outbox.post_for(frame, now, Arc::clone(caller) as _, id).err();
            match refused {
                None => {}
                Some(PostRefused::Gone) => caller.answer(id, Outcome::Gone),
                Some(PostRefused::Full) => caller.answer(id, Outcome::Full),
            }
        });
    }

    fn get(&self, to: Target<'_>, caller: &Arc<dyn Caller>, id: u64) {
        let open = match find_for_peer(self, to) {
            Ok(open) => open,
            Err(outcome) => return caller.answer(id, outcome),
        };
        counted(self, open, caller, id, move |open, caller| caller.answer_info(id, describe(open)));
    }

    fn ask(&self, head: &[u8], data: Bytes, caller: &Arc<dyn Caller>, id: u64) {
        answer_peer(self, head, data, caller, id);
    }

    fn delete(&self, to: Target<'_>, code: u16, reason: &str) -> Outcome {
        match find_for_peer(self, to) {
            Ok(open) if close(&open, code, reason) => Outcome::Done,
            Ok(_) => Outcome::Gone,
            Err(outcome) => outcome,
        }
    }
}

fn find_for_peer(plane: &DataPlane, to: Target<'_>) -> Result<Open, Outcome> {
    if !may_serve(plane) {
        return Err(Outcome::Unavailable);
    }
    find_here(plane, to.api_id, &to.connection).ok_or(Outcome::Gone)
}

/// Does something for a peer if it is within the usage plan of the connection's API key: at once, or in a task of its
/// own when the quota has to be asked for.
fn counted(
    plane: &DataPlane,
    open: Open,
    caller: &Arc<dyn Caller>,
    id: u64,
    then: impl FnOnce(&Open, &Arc<dyn Caller>) + Send + 'static,
) {
    let finish = move |counted: Result<(), UsageExceeded>, open: &Open, caller: &Arc<dyn Caller>| match counted {
        Ok(()) => then(open, caller),
        Err(UsageExceeded::Throttle) => caller.answer(id, Outcome::Throttled),
        Err(UsageExceeded::Quota) => caller.answer(id, Outcome::QuotaExceeded),
    };
    match count(plane, &open.connection) {
        Counted::Now(result) => finish(result, &open, caller),
        later @ Counted::Later(_) => {
            let caller = Arc::clone(caller);
            plane.lifecycle.spawn(async move { finish(later.await, &open, &caller) });
        }
    }
}
