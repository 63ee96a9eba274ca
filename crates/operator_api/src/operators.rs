use http::{Method, Response, StatusCode, Uri};
use serde_json::json;

use tidegate_connections::cluster::{Directory, DirectoryError, NodeView};
use tidegate_connections::registry::{Page, Query};
use tidegate_core::error_chain::chain;
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::limits::PageLimit;
use tidegate_gateway::data_plane::DataPlane;
use tidegate_gateway::data_plane::response::{self, Body};

/// The status and the message that an operator gets instead of an answer.
#[derive(Debug)]
struct Failure(StatusCode, String);

const NODES: &str = "/nodes";
const CONNECTIONS: &str = "/connections";

/// Returns true if `path` shows nodes or connections to operators.
pub fn is_for(path: &str) -> bool {
    matches!(path, NODES | CONNECTIONS)
}

/// Shows nodes and connections.
///
/// - `GET /nodes`
/// - `GET /connections?api=&stage=&node=&limit=&cursor=`
///
/// With a Redis replica the answer covers all nodes, as recorded in Redis; without one only this node.
pub async fn answer(plane: &DataPlane, method: &Method, uri: &Uri) -> Response<Body> {
    let outcome = match (uri.path(), method) {
        (_, method) if *method != Method::GET => Err(Failure(StatusCode::METHOD_NOT_ALLOWED, "use GET".to_owned())),
        (NODES, _) => nodes(plane).await.map(|nodes| response::json(StatusCode::OK, &json!({ "nodes": nodes }))),
        _ => match PageRequest::parse(uri.query()) {
            Ok(request) => connections(plane, &request).await.map(|page| response::json(StatusCode::OK, &page)),
            Err(failure) => Err(failure),
        },
    };
    outcome.unwrap_or_else(|Failure(status, message)| response::json(status, &json!({ "message": message })))
}

async fn nodes(plane: &DataPlane) -> Result<Vec<NodeView>, Failure> {
    match directory(plane)? {
        Some(directory) => directory.nodes().await.map_err(|error| failed(&error)),
        None => Ok(vec![NodeView {
            node: plane.registry.node().to_string(),
            advertise: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: "live".to_owned(),
            lease_alive: true,
            connections: plane.registry.len() as u64,
        }]),
    }
}

async fn connections(plane: &DataPlane, request: &PageRequest) -> Result<Page, Failure> {
    let PageRequest { query, limit, cursor } = request;
    match directory(plane)? {
        Some(directory) => {
            directory.connections(query, cursor.as_deref(), limit.get()).await.map_err(|error| failed(&error))
        }
        None => {
            let cursor = cursor.as_deref().map(ConnectionId::parse).transpose();
            let cursor = cursor.map_err(|_| failed(&DirectoryError::Cursor))?;
            Ok(plane.registry.page(query, cursor.as_ref(), limit.get()))
        }
    }
}

/// Returns the directory of all nodes in Redis, if there is a Redis replica.
fn directory(plane: &DataPlane) -> Result<Option<Directory>, Failure> {
    let Some(replica) = plane.registry.replica() else { return Ok(None) };
    match replica.redis().connection() {
        Some(connection) => Ok(Some(Directory::new(connection, replica.keys().clone()))),
        None => Err(Failure(StatusCode::SERVICE_UNAVAILABLE, plane.registry.state().to_string())),
    }
}

fn failed(error: &DirectoryError) -> Failure {
    let status = match error {
        DirectoryError::Cursor => StatusCode::BAD_REQUEST,
        DirectoryError::Redis(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Failure(status, chain(error).to_string())
}

/// A request for a page of connections.
#[derive(Debug, PartialEq, Eq)]
struct PageRequest {
    query: Query,
    limit: PageLimit,
    cursor: Option<String>,
}

impl PageRequest {
    fn parse(text: Option<&str>) -> Result<Self, Failure> {
        let mut request = PageRequest { query: Query::default(), limit: PageLimit::default(), cursor: None };
        let wrong = |message: &str| Failure(StatusCode::BAD_REQUEST, message.to_owned());
        for (name, value) in url::form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            match &*name {
                "api" => request.query.api = Some(value.into_owned()),
                "stage" => request.query.stage = Some(value.into_owned()),
                "node" => {
                    let node = NodeId::parse(&value).map_err(|_| wrong("node must be a node id"))?;
                    request.query.node = Some(node);
                }
                "limit" => request.limit = PageLimit::parse(&value).map_err(wrong)?,
                "cursor" => request.cursor = Some(value.into_owned()),
                _ => return Err(wrong("unknown parameter; allowed: api, stage, node, limit and cursor")),
            }
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_requests_are_checked() {
        let check = |text: &str, expected: Option<usize>| {
            assert_eq!(PageRequest::parse(Some(text)).ok().map(|request| request.limit.get()), expected, "{text}");
        };
        check("", Some(100));
        check("api=chat&stage=prod&node=AAAAAAAA&limit=1000&cursor=x", Some(1000));
        check("limit=0", None);
        check("limit=1001", None);
        check("limit=x", None);
        check("node=A", None);
        check("apis=chat", None);
    }
}
