//! The actions that a backend requests in its answer to an event: join groups, leave groups, set the users of the
//! connection, push messages.

use std::sync::Arc;

use tracing::warn;

use super::context::labels;
use super::delivery::fan_out::{begin, finish};
use super::delivery::reach::Reach;
use super::{DataPlane, Live};
use tidegate_connections::groups::{Actions, JoinRefused, PushMessage};
use tidegate_core::request_context::Connection;
use tidegate_core::topic::TopicName;
use tidegate_core::trace_context::TraceContext;
use tidegate_telemetry::SpanKind;

/// Carries out the `actions` that a backend requested in its answer to an event on `connection`.
///
/// If the connection has ended, its groups and users are not changed, but the messages are still sent. When this
/// returns, the messages are queued in their order; slow members are not waited for. The messages continue the trace
/// `trace` of the event.
pub(super) async fn act(
    plane: &Arc<DataPlane>,
    live: &Arc<Live>,
    connection: &Connection,
    actions: Actions,
    trace: TraceContext,
) {
    if actions.is_empty() {
        return;
    }
    let Actions { leave, join, users, send } = actions;
    let has_joined = !join.is_empty() || users.is_some();
    leave.iter().for_each(|group| _ = plane.groups.leave(connection, group));
    if let Some(open) = plane.registry.get_open(&connection.id) {
        let most = live.most_topics();
        let joined = join.into_iter().try_for_each(|group| plane.groups.join(connection, &open.outbox, group, most));
        let named = users.map_or(Ok(()), |users| plane.groups.set_users(connection, &open.outbox, &users, most));
        if joined.and(named) == Err(JoinRefused::TooMany) {
            warn!(
                connection_id = %connection.id, api_id = &*connection.api_id, stage = &*connection.stage, most,
                "a backend's answer joins more groups than limits.groupsPerConnection allows; the rest are left out"
            );
        }
    }
    if has_joined {
        plane.recorded().await;
    }
    if send.is_empty() {
        return;
    }
    let labels = labels(connection);
    let messages = send.into_iter().map(|PushMessage { audience, frame }| (audience, frame)).collect();
    let mut span = plane.telemetry.tracer.start("send", SpanKind::Internal, Some(trace));
    span.set("tidegate.connection_id", connection.id);
    let pushing = begin(plane, &labels, &span, Reach::Everywhere, messages).await;
    let (counting, live) = (Arc::clone(plane), Arc::clone(live));
    plane.lifecycle.spawn(async move {
        let mut delivered = 0;
        for pushing in pushing {
            delivered += finish(&counting, &live, &labels, pushing).await.counts.delivered;
        }
        span.set_count("tidegate.delivered", delivered);
    });
}

/// Sets the user of `connection` that its authorizer named. Does nothing if there is none, or if its name is not valid.
pub(super) async fn name_user(plane: &DataPlane, live: &Live, connection: &Connection) {
    let principal = connection.principal.load_full();
    let Some(user) = principal.as_ref().and_then(|principal| principal.user()) else { return };
    let (Ok(user), Some(open)) = (TopicName::user(user), plane.registry.get_open(&connection.id)) else { return };
    // A new connection has no group or user yet, so its limit is not reached; one that has ended needs no user.
    let _ = plane.groups.join(connection, &open.outbox, user, live.most_topics());
    plane.recorded().await;
}
