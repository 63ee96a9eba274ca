use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use uuid::Uuid;

use super::pace::KeepAlive;
use super::request_body::read_body;
use super::router::Answered;
use crate::data_plane::management::{
    Batch, BodyKind, CallRecord, CallRight, Change, CloseRequest, Operation, PageRequest, admit, admit_call,
    change_many, change_one, claim_call, delete_connection, delete_user, get_connection, get_connection_groups,
    list_members, permit, post_to_audience, post_to_connection, send,
};
use crate::data_plane::response::Body;
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::data_type::DataType;
use crate::deployment::Resource;
use crate::groups::{Audience, Except};
use crate::iam::{ConnectionsCall, Received};
use crate::id::{ConnectionId, EventId};
use crate::limits::LimitSettings;
use crate::topic::TopicName;

/// Prefix of the gateway's own headers.
const X_TIDEGATE: &str = "x-tidegate-";
const X_TIDEGATE_DATA_TYPE: &str = "x-tidegate-data-type";
const X_TIDEGATE_EXCEPT: &str = "x-tidegate-except";
const X_AMZN_REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const X_AMZ_APIGW_ID: HeaderName = HeaderName::from_static("x-amz-apigw-id");

/// The rule that allows a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Caller {
    /// The call must be signed.
    Signs,
    /// Everybody who reaches the listener may call, and strangers can reach it.
    Anybody,
    /// Everybody who reaches the listener may call, and only backends can reach it.
    Trusted,
}

/// Answers a call of a backend: `/{stage}/@connections/{connectionId}` and the resources beside it. A caller whose call
/// was authorized is no stranger, see [`KeepAlive`].
pub(super) async fn answer(
    plane: &DataPlane,
    mut record: CallRecord,
    caller: Caller,
    request: &mut Request<Incoming>,
) -> Answered {
    // Taken out of the request, because the head is needed while the body is read.
    let (uri, headers) = (std::mem::take(request.uri_mut()), std::mem::take(request.headers_mut()));
    let result = call(plane, &mut record, caller, (&uri, &headers), request.body_mut()).await;
    (*request.uri_mut(), *request.headers_mut()) = (uri, headers);
    let keep_alive = match (caller, record.right.grant()) {
        (Caller::Signs, None) => KeepAlive::Stranger,
        (Caller::Signs, Some(_)) | (Caller::Anybody | Caller::Trusted, _) => KeepAlive::Known,
    };
    let request_id = record.request_id();
    let mut response = record.end(plane, result);
    add_ids(response.headers_mut(), request_id);
    (response, keep_alive)
}

/// Handles a call in this order: the signature and the policy, as far as they need no body; the body; the rest of both;
/// the throttle of all APIs; the operation.
///
/// Before the signature is verified, the gateway looks only at what the signature covers and at the size of the body. A
/// caller that is not authorized takes nothing from the throttle. For unsigned calls, the throttle comes before the
/// body.
async fn call(
    plane: &DataPlane,
    record: &mut CallRecord,
    caller: Caller,
    (uri, headers): (&Uri, &HeaderMap),
    body: &mut Incoming,
) -> Result<Response<Body>, ConnectionsApiError> {
    let operation = record.operation;
    let kind = operation.map_or(BodyKind::None, Operation::body);
    let live = Arc::clone(&record.live);
    let paths;
    let claim = match caller {
        Caller::Signs => {
            paths = [record.resource.policy_path()];
            let (api_id, stage, facts) = (&record.deployment.api_id, &record.stage.name, &record.facts);
            let call = ConnectionsCall { api_id, stage, paths: &paths, facts };
            let received = Received { method: &facts.method, uri, headers };
            Some(claim_call(&live, received, call, deciding(headers, operation))?)
        }
        Caller::Anybody | Caller::Trusted => {
            admit(&live)?;
            if kind != BodyKind::None {
                // The body of a post with a wrong data type is not read.
                data_type(headers)?;
            }
            None
        }
    };
    let is_known = match &claim {
        Some(claim) => claim.is_permitted(),
        None => matches!(caller, Caller::Trusted),
    };
    let bodies = if is_known { &plane.bodies.verified } else { &plane.bodies.unverified };
    let (max, too_large) = max_bytes(&live.settings.limits, operation, kind);
    let mut held = bodies.begin(max);
    let body = match kind {
        BodyKind::None if claim.is_none() => Bytes::new(),
        BodyKind::None | BodyKind::Data | BodyKind::Bulk => {
            read_body(body, (max, too_large), &mut held, live.settings.limits.handshake_timeout()).await?
        }
    };
    record.request_bytes = body.len();
    match claim {
        Some(claim) => {
            record.right = CallRight::Granted(admit_call(claim, &body)?);
            record.span.prove();
            admit(&live)?;
        }
        None => record.right = CallRight::Unsigned,
    }
    // From here on the connections that the body is sent to account for its bytes.
    drop(held);
    let Some(operation) = operation else { return Err(ConnectionsApiError::UnknownMethod) };
    let deployment = Arc::clone(&record.deployment);
    let deployment = &deployment;
    let resource = record.resource.clone();
    let query = uri.query();
    match (operation, &resource) {
        (Operation::PostToConnection, _) => post_to_connection(plane, record, body, data_type(headers)?).await,
        (Operation::GetConnection, Resource::Connection(id)) => get_connection(plane, record, id).await,
        (Operation::DeleteConnection, Resource::Connection(id)) => {
            delete_connection(plane, record, id, &CloseRequest::parse(query)?).await
        }
        (Operation::GetConnectionGroups, Resource::ConnectionGroups(id)) => {
            get_connection_groups(plane, record, id).await
        }
        (Operation::PostToGroup | Operation::PostToUser | Operation::Broadcast, resource) => {
            let audience = Audience { except: except(headers)?, ..audience(resource, &record.stage.name)? };
            let data_type = data_type(headers)?;
            post_to_audience(plane, record, audience, body, data_type).await
        }
        (Operation::GetGroup, Resource::Group(group)) => {
            Ok(list_members(plane, deployment, group_name(group)?, &PageRequest::parse(query)?).await)
        }
        (Operation::GetUser, Resource::User(user)) => {
            Ok(list_members(plane, deployment, user_name(user)?, &PageRequest::parse(query)?).await)
        }
        (Operation::DeleteUser, Resource::User(user)) => {
            Ok(delete_user(plane, deployment, user_name(user)?, &CloseRequest::parse(query)?).await)
        }
        (Operation::JoinGroup | Operation::LeaveGroup, Resource::GroupConnection { group, connection }) => {
            let join = operation == Operation::JoinGroup;
            change_one(plane, record, Change::one(group, connection, join)?).await
        }
        (Operation::JoinGroupMany | Operation::LeaveGroupMany, Resource::GroupConnections(group)) => {
            let (join, targets) = (operation == Operation::JoinGroupMany, live.settings.limits.targets);
            Ok(change_many(plane, record, Change::many(group, &body, targets, join)?).await)
        }
        (Operation::Send, _) => {
            let (data_type, except) = (data_type(headers)?, except(headers)?);
            let batch = Batch::parse(&body, headers.get(CONTENT_TYPE), data_type, &except, &live.settings.limits)?;
            // A caller that may not post to a group may not reach it through `@send` either.
            permit(record, batch.resources())?;
            Ok(send(plane, record, batch).await)
        }
        // The resource determines the operation, so no other pair occurs.
        _ => Err(ConnectionsApiError::UnknownMethod),
    }
}

/// Returns the headers that change what a call does. In a signed call each of them must be signed too: a proxy that
/// passes the call on could otherwise add one.
fn deciding(headers: &HeaderMap, operation: Option<Operation>) -> impl Iterator<Item = &HeaderName> {
    let is_own = |name: &HeaderName| name.as_str().starts_with(X_TIDEGATE);
    // SDKs do not sign this header, and it matters for no other operation.
    let asks_for_lines = operation == Some(Operation::Send) && Batch::asks_for_lines(headers.get(CONTENT_TYPE));
    headers.keys().filter(move |name| is_own(name) || (asks_for_lines && *name == CONTENT_TYPE))
}

/// Returns the size limit of a body, in bytes, and the error for a larger one.
fn max_bytes(limits: &LimitSettings, operation: Option<Operation>, kind: BodyKind) -> (usize, ConnectionsApiError) {
    let (max, what) = match kind {
        BodyKind::None | BodyKind::Data => (limits.message_bytes, "bytes (limits.messageBytes)"),
        BodyKind::Bulk => (limits.bulk_bytes, "bytes (limits.bulkBytes)"),
    };
    match operation {
        Some(Operation::PostToConnection) => (max, ConnectionsApiError::TooLarge),
        _ => (max, ConnectionsApiError::OverLimit { what, max }),
    }
}

/// Returns the audience of a post to many connections.
fn audience(resource: &Resource, stage: &Arc<str>) -> Result<Audience, ConnectionsApiError> {
    Ok(match resource {
        Resource::Group(group) => Audience::topic(group_name(group)?),
        Resource::User(user) => Audience::topic(user_name(user)?),
        _ => Audience { stage: Some(Arc::clone(stage)), ..Audience::default() },
    })
}

fn group_name(text: &str) -> Result<TopicName, ConnectionsApiError> {
    TopicName::group(text).map_err(ConnectionsApiError::InvalidName)
}

fn user_name(text: &str) -> Result<TopicName, ConnectionsApiError> {
    TopicName::user(text).map_err(ConnectionsApiError::InvalidName)
}

/// Parses the ids of the connections that do not get a message, separated by commas.
fn except(headers: &HeaderMap) -> Result<Except, ConnectionsApiError> {
    let mut except = Except::default();
    for value in headers.get_all(X_TIDEGATE_EXCEPT) {
        let text = value.to_str().map_err(|_| ConnectionsApiError::InvalidExcept)?;
        for id in text.split(',').map(str::trim).filter(|id| !id.is_empty()) {
            except.0.insert(ConnectionId::parse(id).map_err(|_| ConnectionsApiError::InvalidExcept)?);
        }
    }
    Ok(except)
}

fn data_type(headers: &HeaderMap) -> Result<DataType, ConnectionsApiError> {
    match headers.get(X_TIDEGATE_DATA_TYPE).map(HeaderValue::as_bytes) {
        None | Some(b"text") => Ok(DataType::Text),
        Some(b"binary") => Ok(DataType::Binary),
        Some(_) => Err(ConnectionsApiError::BadRequest("x-tidegate-data-type must be `text` or `binary`")),
    }
}

/// Adds the ids that AWS puts on every answer of this API.
fn add_ids(headers: &mut HeaderMap, request_id: EventId) {
    let ids = [(X_AMZN_REQUEST_ID, Uuid::new_v4().to_string()), (X_AMZ_APIGW_ID, request_id.to_string())];
    for (name, id) in ids {
        headers.insert(name, HeaderValue::from_str(&id).expect("ids are ASCII"));
    }
}
