use http::{HeaderMap, HeaderName, HeaderValue, Request};
use hyper::body::Incoming;
use uuid::Uuid;

use super::pace::KeepAlive;
use super::router::Answered;
use tidegate_core::id::EventId;
use tidegate_gateway::data_plane::DataPlane;
use tidegate_gateway::data_plane::management::{CallHead, CallRecord, CallerRule, handle};

const X_AMZN_REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const X_AMZ_APIGW_ID: HeaderName = HeaderName::from_static("x-amz-apigw-id");

/// Answers a call of a backend: `/{stage}/@connections/{connectionId}` and the resources beside it. A caller whose call
/// was authorized is no stranger, see [`KeepAlive`].
pub(super) async fn answer(
    plane: &DataPlane,
    mut record: CallRecord,
    rule: CallerRule,
    request: &mut Request<Incoming>,
) -> Answered {
    // Taken out of the request, because the head is needed while the body is read.
    let (uri, headers) = (std::mem::take(request.uri_mut()), std::mem::take(request.headers_mut()));
    let head = CallHead { uri: &uri, headers: &headers };
    let result = handle(plane, &mut record, rule, head, request.body_mut()).await;
    (*request.uri_mut(), *request.headers_mut()) = (uri, headers);
    let keep_alive = match (rule, record.right.grant()) {
        (CallerRule::MustSign, None) => KeepAlive::Stranger,
        (CallerRule::MustSign, Some(_)) | (CallerRule::Anybody | CallerRule::Trusted, _) => KeepAlive::Known,
    };
    let request_id = record.request_id();
    let mut response = record.end(plane, result);
    add_ids(response.headers_mut(), request_id);
    (response, keep_alive)
}

/// Adds the ids that AWS puts on every answer of this API.
fn add_ids(headers: &mut HeaderMap, request_id: EventId) {
    let ids = [(X_AMZN_REQUEST_ID, Uuid::new_v4().to_string()), (X_AMZ_APIGW_ID, request_id.to_string())];
    for (name, id) in ids {
        headers.insert(name, HeaderValue::from_str(&id).expect("ids are ASCII"));
    }
}
