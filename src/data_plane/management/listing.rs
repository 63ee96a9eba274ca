use std::sync::Arc;

use http::{Response, StatusCode};
use serde::Serialize;

use super::CloseRequest;
use crate::cluster::link::{GroupRequest, MemberPage};
use crate::data_plane::delivery::ask::{Replies, ask_all};
use crate::data_plane::response::{Body, json};
use crate::data_plane::{ConnectionsApiError, DataPlane};
use crate::deployment::Deployment;
use crate::id::ConnectionId;
use crate::session::Closing;
use crate::topic::{Topic, TopicName};

/// Number of members of a page if the call has no `limit`.
const LIMIT_DEFAULT: usize = 100;

/// Largest number of members of a page.
const LIMIT_MAX: usize = 1000;

/// A request for a page of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Number of ids requested; 0 if only the count is requested.
    pub(in crate::data_plane) limit: usize,
    /// The last id of the previous page.
    pub(in crate::data_plane) after: Option<ConnectionId>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    connections: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<String>>,
    /// The start of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// Nodes that may have members and did not answer.
    #[serde(skip_serializing_if = "is_zero")]
    unreachable_nodes: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Asked {
    /// Parses the query string: `members=true`, `limit`, `cursor`.
    ///
    /// # Errors
    /// Returns `BadRequest` if one of them has a value that is not valid.
    pub fn parse(query: Option<&str>) -> Result<Self, ConnectionsApiError> {
        let (mut members, mut limit, mut after) = (false, LIMIT_DEFAULT, None);
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "members" => {
                    members = match &*value {
                        "true" => true,
                        "false" => false,
                        _ => return Err(ConnectionsApiError::BadRequest("members must be true or false")),
                    }
                }
                "limit" => {
                    let number = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    limit = number.ok_or(ConnectionsApiError::BadRequest("limit must be 1 to 1000"))?;
                }
                "cursor" => {
                    let id = ConnectionId::parse(&value);
                    after = Some(id.map_err(|_| ConnectionsApiError::BadRequest("cursor must come from a page"))?);
                }
                _ => {}
            }
        }
        Ok(if members { Asked { limit, after } } else { Asked::default() })
    }
}

/// Carries out `GET /{stage}/@groups/{group}` and `/@users/{user}`: returns the number of connections and, if
/// requested, their ids in pages.
pub async fn list(plane: &DataPlane, deployment: &Arc<Deployment>, name: TopicName, asked: &Asked) -> Response<Body> {
    // One id more than requested shows if there is another page.
    let ask = Asked { limit: if asked.limit == 0 { 0 } else { asked.limit + 1 }, after: asked.after };
    let limit = u32::try_from(ask.limit).unwrap_or(u32::MAX);
    let api_id = &deployment.api_id;
    let elsewhere = GroupRequest::List { api_id: Arc::clone(api_id), name: name.clone(), after: ask.after, limit };
    let here = list_here(plane, api_id, name.clone(), &ask);
    let (MemberPage { count, mut ids }, unreachable) = with_others(plane, api_id, &name, here, &elsewhere).await;
    // Each node returns its first ids after `after`. Together they contain the first ids of all nodes.
    ids.sort_unstable();
    let has_more = ids.len() > asked.limit;
    let texts: Vec<String> = ids.iter().take(asked.limit).map(ToString::to_string).collect();
    json(
        StatusCode::OK,
        &Answer {
            connections: count,
            cursor: if has_more { texts.last().cloned() } else { None },
            members: (asked.limit > 0).then_some(texts),
            unreachable_nodes: unreachable,
        },
    )
}

/// Returns the members of all nodes together, and the number of nodes that did not answer.
async fn with_others(
    plane: &DataPlane,
    api_id: &Arc<str>,
    name: &TopicName,
    here: MemberPage,
    ask: &GroupRequest,
) -> (MemberPage, usize) {
    let Replies { said, mut unreachable } = ask_all(plane, api_id, name, ask).await;
    let mut all = here;
    for said in said {
        match MemberPage::decode(&said) {
            Ok(MemberPage { count, ids }) => {
                all.count += count;
                all.ids.extend(ids);
            }
            Err(_) => unreachable += 1,
        }
    }
    (all, unreachable)
}

/// Returns the members of `name` on this node.
pub(in crate::data_plane) fn list_here(
    plane: &DataPlane,
    api_id: &Arc<str>,
    name: TopicName,
    asked: &Asked,
) -> MemberPage {
    let topic = Topic { api_id: Arc::clone(api_id), name };
    let (count, ids) = plane.groups.page(&topic, asked.after.as_ref(), asked.limit);
    MemberPage { count: count as u64, ids }
}

/// Carries out `DELETE /{stage}/@users/{user}`: closes all connections of a user and returns their number.
pub async fn close_all(
    plane: &DataPlane,
    deployment: &Arc<Deployment>,
    user: TopicName,
    request: &CloseRequest,
) -> Response<Body> {
    let (api_id, code, reason) = (Arc::clone(&deployment.api_id), request.code, request.reason.as_str().into());
    let ask = GroupRequest::Close { api_id, user: user.clone(), code, reason };
    let here = close_here(plane, &deployment.api_id, user.clone(), request);
    let (MemberPage { count, .. }, unreachable_nodes) = with_others(plane, &deployment.api_id, &user, here, &ask).await;
    json(StatusCode::OK, &Answer { connections: count, members: None, cursor: None, unreachable_nodes })
}

/// Closes the connections of `user` on this node. Returns their number.
pub(in crate::data_plane) fn close_here(
    plane: &DataPlane,
    api_id: &Arc<str>,
    user: TopicName,
    request: &CloseRequest,
) -> MemberPage {
    let topic = Topic { api_id: Arc::clone(api_id), name: user };
    let closing = Closing::deleted(request.code, &request.reason);
    let members = plane.groups.members(&topic);
    let closed = members.iter().filter(|member| member.outbox.close(closing.clone())).count();
    MemberPage { count: closed as u64, ids: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_checked() {
        let check = |query: &str, expected: Option<(usize, bool)>| {
            let parsed = Asked::parse(Some(query)).ok().map(|asked| (asked.limit, asked.after.is_some()));
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
