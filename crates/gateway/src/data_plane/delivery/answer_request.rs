use std::sync::Arc;

use bytes::Bytes;

use super::fan_out::{queue_here, settle_here};
use super::find::forwarded;
use super::reach::Reach;
use crate::data_plane::DataPlane;
use crate::data_plane::management::CloseRequest;
use crate::data_plane::management::change_membership::{Change, change_here};
use crate::data_plane::management::delete_user::close_here;
use crate::data_plane::management::get_connection_groups::names_here;
use crate::data_plane::management::list_members::{PageRequest, list_here};
use tidegate_connections::cluster::link::{Caller, GroupNames, GroupRequest, PeerOutcome};
use tidegate_connections::session::DataFrame;
use tidegate_telemetry::StageLabels;

/// Answers the request `head` of a peer about this node's own connections. A message of the request is queued when this
/// returns, so messages keep the order of their requests. A separate task waits for slow members.
pub(super) fn answer_request(plane: &Arc<DataPlane>, head: &[u8], data: Bytes, caller: &Arc<dyn Caller>, id: u64) {
    let Ok(request) = GroupRequest::decode(head) else { return caller.answer(id, PeerOutcome::Unavailable) };
    plane.telemetry.metrics.links().asked();
    let live = plane.live_owned();
    let (request, stages) = match request {
        GroupRequest::Within { stages, request } => (*request, Some(stages)),
        request => (request, None),
    };
    let reach = stages.as_ref().map_or(Reach::Everywhere, |stages| Reach::Named(stages.borrowed()));
    let answer = match request {
        GroupRequest::Push { api_id, stage, audience, data_type, trace } => {
            let span = forwarded(plane, &api_id, trace);
            let labels = StageLabels { api_id, stage };
            let frame = DataFrame::new(data, data_type);
            let here = queue_here(plane, &labels, &audience, &frame, reach);
            let (settling, caller) = (Arc::clone(plane), Arc::clone(caller));
            plane.lifecycle.spawn(async move {
                let pushed = settle_here(&settling, &live, &labels, here).await;
                span.into_iter().for_each(|mut span| span.set_count("tidegate.delivered", pushed.counts.delivered));
                caller.answer_info(id, pushed.encode());
            });
            return;
        }
        GroupRequest::Change { api_id, group, connections, join } => {
            let changed = change_here(plane, &live, &api_id, &Change { group, join, connections }, reach);
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
        GroupRequest::List { api_id, name, after, limit } => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            list_here(plane, &api_id, name, &PageRequest { limit, after }).encode()
        }
        GroupRequest::Names { api_id, connection } => {
            GroupNames(names_here(plane, &api_id, &connection, reach)).encode()
        }
        GroupRequest::Close { api_id, user, code, reason } => {
            close_here(plane, &api_id, user, &CloseRequest { code, reason: reason.to_string() }).encode()
        }
        // Decoding never returns a request nested twice.
        GroupRequest::Within { .. } => return caller.answer(id, PeerOutcome::Unavailable),
    };
    caller.answer_info(id, answer);
}
