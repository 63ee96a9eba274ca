use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;

use super::CallRecord;
use crate::data_plane::DataPlane;
use crate::data_plane::delivery::fan_out::{Outcome, begin, finish};
use crate::data_plane::delivery::reach::Reach;
use crate::data_plane::response::{Body, json};
use tidegate_connections::groups::Audience;
use tidegate_connections::session::DataFrame;
use tidegate_core::data_type::DataType;

/// The result of a message to many, as the response has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    delivered: usize,
    gone: usize,
    full: usize,
    pending: usize,
    unreachable_nodes: usize,
    /// Named connections that are gone. Absent from calls that cannot name connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    gone_connections: Option<Vec<String>>,
}

impl Report {
    pub(super) fn new(outcome: &Outcome) -> Self {
        let counts = outcome.counts;
        Report {
            delivered: counts.delivered,
            gone: counts.gone,
            full: counts.full,
            pending: counts.pending,
            unreachable_nodes: outcome.unreachable_nodes,
            gone_connections: None,
        }
    }

    pub(super) fn with_names(outcome: &Outcome) -> Self {
        let gone = outcome.gone.iter().map(ToString::to_string).collect();
        Report { gone_connections: Some(gone), ..Report::new(outcome) }
    }
}

/// Carries out `POST /{stage}/@groups/{group}`, `/@users/{user}` and `/@broadcast`: sends data to all members. Returns
/// when each member has the data, is gone, or is too slow to be waited for. Responds with 200 even if there is no
/// member.
pub(super) async fn post_to_audience(
    plane: &DataPlane,
    call: &mut CallRecord,
    audience: Audience,
    data: Bytes,
    data_type: DataType,
) -> Response<Body> {
    let labels = call.labels();
    let mut outcome = Outcome::default();
    let messages = vec![(audience, DataFrame::new(data, data_type))];
    for pushing in begin(plane, &labels, &call.span, Reach::Everywhere, messages).await {
        outcome = finish(plane, &call.live, &labels, pushing).await;
    }
    call.fanned_out(&outcome);
    json(StatusCode::OK, &Report::new(&outcome))
}
