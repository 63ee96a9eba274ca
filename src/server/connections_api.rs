use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use uuid::Uuid;

use crate::authorizer::{ConnectionsCall, Received};
use crate::data_plane::gateway_response::Body;
use crate::data_plane::management::{
    CallRecord, CloseRequest, DataType, admit, admit_call, check_form, delete_connection, get_connection,
    post_to_connection,
};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::id::EventId;

/// How long a backend may take to send the body of a post.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

const X_TIDEGATE_DATA_TYPE: &str = "x-tidegate-data-type";
const X_AMZN_REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const X_AMZ_APIGW_ID: HeaderName = HeaderName::from_static("x-amz-apigw-id");

/// Where a call that must be signed comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) source_ip: IpAddr,
    pub(super) secure: bool,
}

/// Answers a call of `/{stage}/@connections/{connectionId}`. A `caller` must have signed it.
pub(super) async fn answer(
    plane: &DataPlane,
    mut record: CallRecord,
    caller: Option<Caller>,
    request: &mut Request<Incoming>,
) -> Response<Body> {
    let result = call(plane, &mut record, caller, request).await;
    let request_id = record.request_id();
    let mut response = record.end(plane, result);
    add_ids(response.headers_mut(), request_id);
    response
}

/// 1. form of the signature  2. body  3. signature and policy  4. throttle of all APIs  5. operation
///
/// Nothing of a call is looked at before its signature, but what the signature is about, and who may not call takes
/// nothing from the throttle. Where nobody signs, the throttle comes before the body.
async fn call(
    plane: &DataPlane,
    record: &mut CallRecord,
    caller: Option<Caller>,
    request: &mut Request<Incoming>,
) -> Result<Response<Body>, ConnectionsApiError> {
    if let Some(caller) = caller {
        check_form(plane, &signed(request, record, caller, &[]))?;
    }
    let is_post = *request.method() == Method::POST;
    if caller.is_none() {
        admit(plane)?;
        if is_post {
            // A post that cannot be taken is not read.
            data_type(request.headers())?;
        }
    }
    let data = match is_post || caller.is_some() {
        true => read_body(request.body_mut(), plane.live().limits.message_bytes).await?,
        false => Bytes::new(),
    };
    record.request_bytes = data.len();
    if let Some(caller) = caller {
        admit_call(plane, &signed(request, record, caller, &data))?;
        admit(plane)?;
    }
    match *request.method() {
        Method::POST => {
            let data_type = data_type(request.headers())?;
            post_to_connection(plane, record, data, data_type).await
        }
        Method::GET => get_connection(plane, &record.deployment, &record.id).await,
        Method::DELETE => {
            let close = CloseRequest::parse(request.uri().query())?;
            delete_connection(plane, &record.deployment, &record.id, &close).await
        }
        _ => Err(ConnectionsApiError::UnknownMethod),
    }
}

fn signed<'a>(
    request: &'a Request<Incoming>,
    record: &'a CallRecord,
    caller: Caller,
    body: &'a [u8],
) -> ConnectionsCall<'a> {
    let Caller { source_ip, secure } = caller;
    let received = Received { method: request.method(), uri: request.uri(), headers: request.headers(), body };
    ConnectionsCall { api_id: &record.deployment.api_id, stage: &record.stage.name, received, source_ip, secure }
}

fn data_type(headers: &HeaderMap) -> Result<DataType, ConnectionsApiError> {
    match headers.get(X_TIDEGATE_DATA_TYPE).map(HeaderValue::as_bytes) {
        None | Some(b"text") => Ok(DataType::Text),
        Some(b"binary") => Ok(DataType::Binary),
        Some(_) => Err(ConnectionsApiError::BadRequest("x-tidegate-data-type must be `text` or `binary`")),
    }
}

async fn read_body(body: &mut Incoming, max: usize) -> Result<Bytes, ConnectionsApiError> {
    if body.size_hint().lower() > max as u64 {
        return Err(ConnectionsApiError::TooLarge);
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ConnectionsApiError::TooLarge),
        Ok(Err(_)) => Err(ConnectionsApiError::BodyLost),
        Err(_) => Err(ConnectionsApiError::BodyTimeout),
    }
}

/// The ids that AWS puts on every answer of this API.
fn add_ids(headers: &mut HeaderMap, request_id: EventId) {
    let ids = [(X_AMZN_REQUEST_ID, Uuid::new_v4().to_string()), (X_AMZ_APIGW_ID, request_id.to_string())];
    for (name, id) in ids {
        headers.insert(name, HeaderValue::from_str(&id).expect("ids are ASCII"));
    }
}
