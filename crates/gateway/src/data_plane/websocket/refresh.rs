use std::sync::Arc;

use serde::Deserialize;
use tracing::debug;

use super::message::Reply;
use crate::data_plane::context::log_denial;
use crate::data_plane::gateway_response::{TokenNotice, token_frame};
use crate::data_plane::{DataPlane, MessageError};
use crate::deployment::Stage;
use tidegate_access::authorizer::Denial;
use tidegate_core::id::EventId;
use tidegate_core::json;
use tidegate_core::request_context::Connection;
use tidegate_integration::Payload;

/// The message of a client that sends a fresh token: `{"action":"refresh","token":"…"}`, where `action` stands for the
/// member that selects the authorizer's `refreshRouteKey`.
#[derive(Deserialize)]
struct Refresh {
    token: String,
}

/// Accepts a fresh token on an open connection. No backend is called. Later events have the new claims, whichever node
/// sends them.
///
/// 1. usage plan  2. token  3. principal
///
/// A token that is not valid changes nothing: the connection keeps its present one.
///
/// # Errors
/// Returns `UsageExceeded` if the usage plan is exhausted, or `RefreshDenied` if the token is not valid.
pub(super) async fn refresh(
    plane: &DataPlane,
    stage: &Stage,
    connection: &Connection,
    payload: &Payload,
    request_id: EventId,
) -> Result<Reply, MessageError> {
    let principal = connection.principal.load_full();
    let now = plane.clock.now();
    stage.usage.count(principal.as_deref(), now).await.map_err(MessageError::UsageExceeded)?;
    let Payload::Text(text) = payload else { return Err(MessageError::RefreshDenied(Denial::Unauthorized)) };
    let Refresh { token } = json::from_str(text).map_err(|_| MessageError::RefreshDenied(Denial::Unauthorized))?;
    let refreshed = match (&stage.access, &principal) {
        (Some(access), Some(principal)) => access.refresh(principal, &token, now).await,
        (None, _) | (_, None) => Err(Denial::Unauthorized),
    };
    let fresh = refreshed.map_err(|denial| {
        let what = "a client's fresh token was refused; its connection keeps the present one";
        log_denial(&denial, &connection.api_id, &connection.stage, what);
        MessageError::RefreshDenied(denial)
    })?;
    let frame = fresh.expiry.map(|expiry| token_frame(TokenNotice::Refreshed, connection.id, request_id, expiry.at));
    debug!(connection_id = %connection.id, "a client sent a fresh token");
    connection.principal.store(Some(Arc::new(fresh)));
    plane.registry.rewrite(&connection.id);
    Ok(Reply { frame, refreshed: true, refused: false })
}
