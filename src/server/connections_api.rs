use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use uuid::Uuid;

use super::pace::KeepAlive;
use super::request_body::read_body;
use super::router::Answered;
use crate::data_plane::gateway_response::Body;
use crate::data_plane::management::{
    Asked, Batch, BodyKind, CallRecord, Change, CloseRequest, Operation, admit, admit_call, change_many, change_one,
    claim_call, close_all, delete_connection, get_connection, get_connection_groups, list, permit, post_to_audience,
    post_to_connection, send,
};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::data_type::DataType;
use crate::deployment::Resource;
use crate::groups::{Audience, Except};
use crate::iam::{ConnectionsCall, PolicyPath, Received};
use crate::id::{ConnectionId, EventId};
use crate::topic::TopicName;

/// Begins the names of the gateway's own headers.
const X_TIDEGATE: &str = "x-tidegate-";
const X_TIDEGATE_DATA_TYPE: &str = "x-tidegate-data-type";
const X_TIDEGATE_EXCEPT: &str = "x-tidegate-except";
const X_AMZN_REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const X_AMZ_APIGW_ID: HeaderName = HeaderName::from_static("x-amz-apigw-id");

/// Where a call comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) source_ip: IpAddr,
    pub(super) secure: bool,
}

/// By what right a call is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Caller {
    /// It must be signed.
    Signs(Origin),
    /// Everybody who reaches the listener may call, and strangers reach it.
    Anybody,
    /// Everybody who reaches the listener may call, and only backends do.
    Trusted,
}

/// Answers a call of a backend: `/{stage}/@connections/{connectionId}` and what stands beside it. One that was let in
/// shows that its caller is no stranger.
pub(super) async fn answer(
    plane: &DataPlane,
    mut record: CallRecord,
    caller: Caller,
    request: &mut Request<Incoming>,
) -> Answered {
    let result = call(plane, &mut record, caller, request).await;
    let keep_alive = match caller {
        Caller::Signs(_) if record.grant.is_none() => KeepAlive::Stranger,
        Caller::Signs(_) | Caller::Anybody | Caller::Trusted => KeepAlive::Known,
    };
    let request_id = record.request_id();
    let mut response = record.end(plane, result);
    add_ids(response.headers_mut(), request_id);
    (response, keep_alive)
}

/// 1. signature, as far as it needs no body  2. body  3. the rest of the signature and policy  4. throttle of all APIs
/// 5. operation
///
/// Nothing of a call is looked at before its signature, but what the signature is about and how large it may be, and who
/// may not call takes nothing from the throttle. Where nobody signs, the throttle comes before the body.
async fn call(
    plane: &DataPlane,
    record: &mut CallRecord,
    caller: Caller,
    request: &mut Request<Incoming>,
) -> Result<Response<Body>, ConnectionsApiError> {
    let operation = record.operation;
    let kind = operation.map_or(BodyKind::None, Operation::body);
    let claim = match caller {
        Caller::Signs(origin) => {
            let path = record.resource.policy_path();
            let deciding = deciding(request.headers(), operation);
            Some((claim_call(plane, &signed(request, record, origin, &[], &[path]), deciding)?, origin))
        }
        Caller::Anybody | Caller::Trusted => {
            admit(plane)?;
            if kind != BodyKind::None {
                // A post that cannot be taken is not read.
                data_type(request.headers())?;
            }
            None
        }
    };
    let is_known = match &claim {
        Some((claim, _)) => claim.proved().is_some(),
        None => matches!(caller, Caller::Trusted),
    };
    let bodies = if is_known { &plane.bodies.verified } else { &plane.bodies.unverified };
    let (max, too_large) = max_bytes(plane, operation, kind);
    let mut held = bodies.begin(max);
    let body = match kind {
        BodyKind::None if claim.is_none() => Bytes::new(),
        BodyKind::None | BodyKind::Data | BodyKind::Bulk => {
            let stall = plane.live().limits.handshake_timeout();
            read_body(request.body_mut(), (max, too_large), &mut held, stall).await?
        }
    };
    record.request_bytes = body.len();
    let mut from = None;
    if let Some((claim, origin)) = claim {
        let path = record.resource.policy_path();
        record.grant = Some(admit_call(plane, claim, &signed(request, record, origin, &body, &[path]))?);
        record.span.prove();
        from = Some(origin);
        admit(plane)?;
    }
    // From here on its bytes are those of the connections that they are for.
    drop(held);
    let Some(operation) = operation else { return Err(ConnectionsApiError::UnknownMethod) };
    let deployment = Arc::clone(&record.deployment);
    let deployment = &deployment;
    let resource = record.resource.clone();
    let query = request.uri().query();
    match (operation, &resource) {
        (Operation::PostToConnection, _) => {
            post_to_connection(plane, record, body, data_type(request.headers())?).await
        }
        (Operation::GetConnection, Resource::Connection(id)) => get_connection(plane, record, id).await,
        (Operation::DeleteConnection, Resource::Connection(id)) => {
            delete_connection(plane, record, id, &CloseRequest::parse(query)?).await
        }
        (Operation::GetConnectionGroups, Resource::ConnectionGroups(id)) => {
            get_connection_groups(plane, record, id).await
        }
        (Operation::PostToGroup | Operation::PostToUser | Operation::Broadcast, resource) => {
            let audience = Audience { except: except(request.headers())?, ..audience(resource, &record.stage.name)? };
            let data_type = data_type(request.headers())?;
            post_to_audience(plane, record, audience, body, data_type).await
        }
        (Operation::GetGroup, Resource::Group(group)) => {
            Ok(list(plane, deployment, group_name(group)?, &Asked::parse(query)?).await)
        }
        (Operation::GetUser, Resource::User(user)) => {
            Ok(list(plane, deployment, user_name(user)?, &Asked::parse(query)?).await)
        }
        (Operation::DeleteUser, Resource::User(user)) => {
            Ok(close_all(plane, deployment, user_name(user)?, &CloseRequest::parse(query)?).await)
        }
        (Operation::JoinGroup | Operation::LeaveGroup, Resource::GroupConnection { group, connection }) => {
            let join = operation == Operation::JoinGroup;
            change_one(plane, record, Change::one(group, connection, join)?).await
        }
        (Operation::JoinGroupMany | Operation::LeaveGroupMany, Resource::GroupConnections(group)) => {
            let (join, targets) = (operation == Operation::JoinGroupMany, plane.live().limits.targets);
            Ok(change_many(plane, record, Change::many(group, &body, targets, join)?).await)
        }
        (Operation::Send, _) => {
            let (headers, content_type) = (request.headers(), request.headers().get(CONTENT_TYPE));
            let (data_type, except) = (data_type(headers)?, except(headers)?);
            let batch = Batch::parse(&body, content_type, data_type, &except, &plane.live().limits)?;
            if let Some(origin) = from {
                // Whoever may not post to a group may not do so by another way.
                let paths: Vec<PolicyPath> = batch.resources().map(|resource| resource.policy_path()).collect();
                if let Some(grant) = &record.grant {
                    permit(grant, &signed(request, record, origin, &body, &paths))?;
                }
            }
            Ok(send(plane, record, batch).await)
        }
        // An operation is found by its resource, so each has its own.
        _ => Err(ConnectionsApiError::UnknownMethod),
    }
}

fn signed<'a>(
    request: &'a Request<Incoming>,
    record: &'a CallRecord,
    origin: Origin,
    body: &'a [u8],
    paths: &'a [PolicyPath],
) -> ConnectionsCall<'a> {
    let Origin { source_ip, secure } = origin;
    let received = Received { method: request.method(), uri: request.uri(), headers: request.headers(), body };
    let (api_id, stage) = (&*record.deployment.api_id, &*record.stage.name);
    ConnectionsCall { api_id, stage, paths, received, source_ip, secure }
}

/// Headers that change what a call does. Where calls are signed, each that is there must be signed too: whoever passes a
/// call on could otherwise add one.
fn deciding(headers: &HeaderMap, operation: Option<Operation>) -> impl Iterator<Item = &HeaderName> {
    let is_own = |name: &HeaderName| name.as_str().starts_with(X_TIDEGATE);
    // SDKs leave it out of their signatures, and it counts nowhere else.
    let asks_for_lines = operation == Some(Operation::Send) && Batch::asks_for_lines(headers.get(CONTENT_TYPE));
    headers.keys().filter(move |name| is_own(name) || (asks_for_lines && *name == CONTENT_TYPE))
}

/// How large a body may be, and what whoever sends a larger one is told.
fn max_bytes(plane: &DataPlane, operation: Option<Operation>, kind: BodyKind) -> (usize, ConnectionsApiError) {
    let limits = &plane.live().limits;
    let (max, what) = match kind {
        BodyKind::None | BodyKind::Data => (limits.message_bytes, "bytes (limits.messageBytes)"),
        BodyKind::Bulk => (limits.bulk_bytes, "bytes (limits.bulkBytes)"),
    };
    match operation {
        Some(Operation::PostToConnection) => (max, ConnectionsApiError::TooLarge),
        _ => (max, ConnectionsApiError::OverLimit { what, max }),
    }
}

/// Whom a post to many is for.
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

/// Who does not get a message: ids with commas between them.
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

/// The ids that AWS puts on every answer of this API.
fn add_ids(headers: &mut HeaderMap, request_id: EventId) {
    let ids = [(X_AMZN_REQUEST_ID, Uuid::new_v4().to_string()), (X_AMZ_APIGW_ID, request_id.to_string())];
    for (name, id) in ids {
        headers.insert(name, HeaderValue::from_str(&id).expect("ids are ASCII"));
    }
}
