use std::num::NonZeroUsize;
use std::sync::Arc;

use http::{Response, StatusCode};
use serde::Serialize;

use super::CallRecord;
use crate::data_plane::delivery::ask::members_of_all;
use crate::data_plane::response::{Body, json};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use tidegate_connections::cluster::link::{GroupRequest, MemberPage};
use tidegate_core::id::ConnectionId;
use tidegate_core::limits::PageLimit;
use tidegate_core::topic::{Topic, TopicName};

/// A request for a page of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Number of ids requested; 0 if only the count is requested.
    pub(in crate::data_plane) limit: usize,
    /// The last id of the previous page.
    pub(in crate::data_plane) after: Option<ConnectionId>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberList {
    connections: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<String>>,
    /// The start of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// Nodes that may have members and did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable_nodes: Option<NonZeroUsize>,
}

impl PageRequest {
    /// Parses the query string: `members=true`, `limit`, `cursor`.
    ///
    /// # Errors
    /// Returns `BadRequest` if one of them has a value that is not valid.
    pub fn parse(query: Option<&str>) -> Result<Self, ConnectionsApiError> {
        let (mut members, mut limit, mut after) = (false, PageLimit::default(), None);
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "members" => {
                    members = match &*value {
                        "true" => true,
                        "false" => false,
                        _ => return Err(ConnectionsApiError::BadRequest("members must be true or false")),
                    }
                }
                "limit" => limit = PageLimit::parse(&value).map_err(ConnectionsApiError::BadRequest)?,
                "cursor" => {
                    let id = ConnectionId::parse(&value);
                    after = Some(id.map_err(|_| ConnectionsApiError::BadRequest("cursor must come from a page"))?);
                }
                _ => {}
            }
        }
        Ok(if members { PageRequest { limit: limit.get(), after } } else { PageRequest::default() })
    }
}

/// Carries out `GET /{stage}/@groups/{group}` and `/@users/{user}`: returns the number of connections and, if
/// requested, their ids in pages.
pub(super) async fn list_members(
    plane: &DataPlane,
    call: &CallRecord,
    name: TopicName,
    page: &PageRequest,
) -> Response<Body> {
    // One id more than requested shows if there is another page.
    let request = PageRequest { limit: if page.limit == 0 { 0 } else { page.limit + 1 }, after: page.after };
    let limit = u32::try_from(request.limit).unwrap_or(u32::MAX);
    let api_id = &call.deployment.api_id;
    let elsewhere = GroupRequest::List { api_id: Arc::clone(api_id), name: name.clone(), after: request.after, limit };
    let here = list_here(plane, api_id, name.clone(), &request);
    let (MemberPage { count, mut ids }, unreachable) = members_of_all(plane, api_id, &name, here, &elsewhere).await;
    // Each node returns its first ids after `after`. Together they contain the first ids of all nodes.
    ids.sort_unstable();
    let has_more = ids.len() > page.limit;
    let texts: Vec<String> = ids.iter().take(page.limit).map(ToString::to_string).collect();
    json(
        StatusCode::OK,
        &MemberList {
            connections: count,
            cursor: if has_more { texts.last().cloned() } else { None },
            members: (page.limit > 0).then_some(texts),
            unreachable_nodes: NonZeroUsize::new(unreachable),
        },
    )
}

/// Returns the members of `name` on this node.
pub(in crate::data_plane) fn list_here(
    plane: &DataPlane,
    api_id: &Arc<str>,
    name: TopicName,
    request: &PageRequest,
) -> MemberPage {
    let topic = Topic { api_id: Arc::clone(api_id), name };
    let (count, ids) = plane.groups.page(&topic, request.after.as_ref(), request.limit);
    MemberPage { count: count as u64, ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_requests_are_checked() {
        let check = |query: &str, expected: Option<(usize, bool)>| {
            let parsed = PageRequest::parse(Some(query)).ok().map(|page| (page.limit, page.after.is_some()));
            assert_eq!(parsed, expected, "{query}");
        };
        check("", Some((0, false)));
        check("members=false&limit=5", Some((0, false)));
        check("members=true", Some((100, false)));
        check("members=true&limit=1000&cursor=AAAAAAAAAAAAAAAAAAA%3D", Some((1000, true)));
        check("members=true&limit=0", None);
        check("members=true&limit=1001", None);
        check("members=yes", None);
        check("members=true&cursor=x", None);
        check("X-Amz-Signature=abc", Some((0, false)));
    }
}
