use bytes::Bytes;
use http::{HeaderMap, Response, Uri};
use hyper::body::Incoming;

use super::authorize::{admit_call, claim_call, permit};
use super::change_membership::{change_many, change_one};
use super::delete_connection::delete_connection;
use super::delete_user::delete_user;
use super::get_connection::get_connection;
use super::get_connection_groups::get_connection_groups;
use super::headers::data_type;
use super::list_members::list_members;
use super::operation::CallParts;
use super::post_to_audience::post_to_audience;
use super::post_to_connection::post_to_connection;
use super::request_body::{BodyLimit, read_body};
use super::send::send;
use super::{BodyKind, CallRecord, CallRight, Operation, OperationKind};
use crate::data_plane::response::Body;
use crate::data_plane::{ConnectionsApiError, DataPlane, Live};
use tidegate_access::iam::Claim;

/// The rule by which a call is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerRule {
    /// The call must be signed.
    MustSign,
    /// Everybody who reaches the listener may call, and strangers can reach it.
    Anybody,
    /// Everybody who reaches the listener may call, and only backends can reach it.
    Trusted,
}

/// The head of a call, as it was received.
#[derive(Clone, Copy, Debug)]
pub struct CallHead<'a> {
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
}

/// Handles one call of a backend: everything that happens between its head and its response.
///
/// 1. signature and policy, as far as they need no body
/// 2. body
/// 3. signature and policy, with the body
/// 4. throttle of all APIs
/// 5. method, and values of the operation
/// 6. policy for the targets of `@send`
/// 7. operation
///
/// Up to step 3, the gateway looks only at what the signature covers and at the size of the body, and a caller that is
/// not authorized takes nothing from the throttle. For an unsigned call, the throttle comes first, then the data type, so
/// that neither a call that is throttled nor one with a wrong data type has its body read.
///
/// # Errors
/// Returns the error of the first step that fails. `call` holds what is known until then.
pub async fn handle(
    plane: &DataPlane,
    call: &mut CallRecord,
    rule: CallerRule,
    head: CallHead<'_>,
    incoming: &mut Incoming,
) -> Result<Response<Body>, ConnectionsApiError> {
    let kind = call.operation.map_or(BodyKind::None, OperationKind::body);
    let paths;
    let claim = match rule {
        CallerRule::MustSign => {
            paths = [call.resource.policy_path()];
            Some(claim_call(call, &paths, head)?)
        }
        CallerRule::Anybody | CallerRule::Trusted => {
            throttle(&call.live)?;
            if kind != BodyKind::None {
                data_type(head.headers)?;
            }
            None
        }
    };

    let is_known = claim.as_ref().map_or(rule == CallerRule::Trusted, Claim::is_permitted);
    let bodies = if is_known { &plane.bodies.verified } else { &plane.bodies.unverified };
    let limits = &call.live.settings.limits;
    let limit = BodyLimit::of(call.operation, limits);
    let mut held = bodies.begin(limit.max_bytes);
    let body = if kind == BodyKind::None && claim.is_none() {
        Bytes::new()
    } else {
        read_body(incoming, limit, &mut held, limits.handshake_timeout()).await?
    };

    let granted = claim.map(|claim| admit_call(claim, &body)).transpose();
    call.request_bytes = body.len();
    match granted? {
        Some(grant) => {
            call.right = CallRight::Granted(grant);
            call.span.prove();
            throttle(&call.live)?;
        }
        None => call.right = CallRight::Unsigned,
    }
    // From here on the connections that the body is sent to account for its bytes.
    drop(held);

    let operation = Operation::parse(&parts(call, head), body)?;
    if let Operation::Send(batch) = &operation {
        // A caller that may not post to a group may not reach it through `@send` either.
        permit(call, batch.policy_paths())?;
    }
    carry_out(plane, call, operation).await
}

/// Takes a token for a call from the throttle that all APIs share.
fn throttle(live: &Live) -> Result<(), ConnectionsApiError> {
    if live.admit() { Ok(()) } else { Err(ConnectionsApiError::Throttled) }
}

fn parts<'a>(call: &'a CallRecord, head: CallHead<'a>) -> CallParts<'a> {
    CallParts {
        method: &call.facts.method,
        resource: &call.resource,
        stage: &call.stage.name,
        query: head.uri.query(),
        headers: head.headers,
        limits: &call.live.settings.limits,
    }
}

async fn carry_out(
    plane: &DataPlane,
    call: &mut CallRecord,
    operation: Operation,
) -> Result<Response<Body>, ConnectionsApiError> {
    match operation {
        Operation::PostToConnection { connection, data, data_type } => {
            post_to_connection(plane, call, connection, data, data_type).await
        }
        Operation::GetConnection { connection } => get_connection(plane, call, connection).await,
        Operation::DeleteConnection { connection, close } => delete_connection(plane, call, connection, &close).await,
        Operation::GetConnectionGroups { connection } => get_connection_groups(plane, call, connection).await,
        Operation::PostToAudience { audience, data, data_type } => {
            Ok(post_to_audience(plane, call, audience, data, data_type).await)
        }
        Operation::ListMembers { name, page } => Ok(list_members(plane, call, name, &page).await),
        Operation::DeleteUser { user, close } => Ok(delete_user(plane, call, user, &close).await),
        Operation::ChangeOne(change) => change_one(plane, call, change).await,
        Operation::ChangeMany(change) => Ok(change_many(plane, call, change).await),
        Operation::Send(batch) => Ok(send(plane, call, batch).await),
    }
}
