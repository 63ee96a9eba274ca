use std::sync::Arc;

use bytes::Bytes;

use super::CloseRequest;
use super::DataType;
use super::forwarded;
use super::listing::{Asked, close_here, list_here};
use super::membership::{Change, change_here, names_here};
use super::post_to_connection::frame;
use super::push::{queue_here, settle_here};
use super::reach::Reach;
use crate::cluster::link::{Caller, Outcome};
use crate::data_plane::DataPlane;
use crate::groups::{Ask, Names};
use crate::telemetry::StageLabels;

/// Answers what a peer asks about this node's own connections. What is to be queued is queued when this returns, in the
/// order of the questions; a task of its own waits for slow members.
pub(super) fn answer_peer(plane: &Arc<DataPlane>, head: &[u8], data: Bytes, caller: &Arc<dyn Caller>, id: u64) {
    let Ok(ask) = Ask::decode(head) else { return caller.answer(id, Outcome::Unavailable) };
    plane.metrics.links().asked();
    let (ask, stages) = match ask {
        Ask::Within { stages, ask } => (*ask, Some(stages)),
        ask => (ask, None),
    };
    let reach = stages.as_ref().map_or(Reach::Everywhere, |stages| Reach::Named(stages.borrowed()));
    let said = match ask {
        Ask::Push { api_id, stage, audience, binary, trace } => {
            let span = forwarded(plane, &api_id, trace);
            let labels = StageLabels { api_id, stage };
            let frame = frame(data, if binary { DataType::Binary } else { DataType::Text });
            let here = queue_here(plane, &labels, &audience, &frame, reach);
            let (settling, caller) = (Arc::clone(plane), Arc::clone(caller));
            plane.lifecycle.spawn(async move {
                let pushed = settle_here(&settling, &labels, here).await;
                span.into_iter().for_each(|mut span| span.set_count("tidegate.delivered", pushed.counts.delivered));
                caller.answer_info(id, pushed.encode());
            });
            return;
        }
        Ask::Change { api_id, group, connections, join } => {
            let changed = change_here(plane, &api_id, &Change { group, join, connections }, reach);
            if join {
                let (recording, caller) = (Arc::clone(plane), Arc::clone(caller));
                plane.lifecycle.spawn(async move {
                    recording.recorded().await;
                    caller.answer_info(id, changed.encode());
                });
                return;
            }
            changed.encode()
        }
        Ask::List { api_id, name, after, limit } => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            list_here(plane, &api_id, name, &Asked { limit, after }).encode()
        }
        Ask::Names { api_id, connection } => Names(names_here(plane, &api_id, &connection, reach)).encode(),
        Ask::Close { api_id, user, code, reason } => {
            close_here(plane, &api_id, user, &CloseRequest { code, reason: reason.to_string() }).encode()
        }
        // Reading an ask finds none within another.
        Ask::Within { .. } => return caller.answer(id, Outcome::Unavailable),
    };
    caller.answer_info(id, said);
}
