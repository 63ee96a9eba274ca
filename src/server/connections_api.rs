use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use uuid::Uuid;

use crate::data_plane::gateway_response::Body;
use crate::data_plane::management::{
    CloseRequest, ConnectionsCall, DataType, delete_connection, get_connection, post_to_connection,
};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::id::EventId;

/// How long a backend may take to send the body of a post.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

const X_TIDEGATE_DATA_TYPE: &str = "x-tidegate-data-type";
const X_AMZN_REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const X_AMZ_APIGW_ID: HeaderName = HeaderName::from_static("x-amz-apigw-id");

/// Answers a call of `/{stage}/@connections/{connectionId}`.
pub(super) async fn answer(
    plane: &DataPlane,
    mut call: ConnectionsCall,
    request: &mut Request<Incoming>,
) -> Response<Body> {
    let result = match *request.method() {
        Method::POST => post(plane, &mut call, request).await,
        Method::GET => get_connection(plane, &call.deployment, &call.id).await,
        Method::DELETE => match CloseRequest::parse(request.uri().query()) {
            Ok(close) => delete_connection(plane, &call.deployment, &call.id, &close).await,
            Err(error) => Err(error),
        },
        _ => Err(ConnectionsApiError::UnknownMethod),
    };
    let request_id = call.request_id();
    let mut response = call.end(plane, result);
    add_ids(response.headers_mut(), request_id);
    response
}

async fn post(
    plane: &DataPlane,
    call: &mut ConnectionsCall,
    request: &mut Request<Incoming>,
) -> Result<Response<Body>, ConnectionsApiError> {
    let data_type = data_type(request.headers())?;
    let data = read_body(request.body_mut(), plane.live().limits.message_bytes).await?;
    call.request_bytes = data.len();
    post_to_connection(plane, call, data, data_type).await
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
