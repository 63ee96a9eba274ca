use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

use super::headers::{data_type, except};
use super::{Batch, Change, CloseRequest, PageRequest};
use crate::data_plane::ConnectionsApiError;
use crate::deployment::{PathConnection, Resource};
use tidegate_connections::groups::Audience;
use tidegate_core::data_type::DataType;
use tidegate_core::id::ConnectionId;
use tidegate_core::limits::LimitSettings;
use tidegate_core::topic::TopicName;

/// An operation that a backend calls, with its values.
#[derive(Debug)]
pub enum Operation {
    PostToConnection {
        connection: ConnectionId,
        data: Bytes,
        data_type: DataType,
    },
    GetConnection {
        connection: ConnectionId,
    },
    DeleteConnection {
        connection: ConnectionId,
        close: CloseRequest,
    },
    GetConnectionGroups {
        connection: ConnectionId,
    },
    /// `postToGroup`, `postToUser` and `broadcast`.
    PostToAudience {
        audience: Audience,
        data: Bytes,
        data_type: DataType,
    },
    /// `getGroup` and `getUser`.
    ListMembers {
        name: TopicName,
        page: PageRequest,
    },
    DeleteUser {
        user: TopicName,
        close: CloseRequest,
    },
    /// `joinGroup` and `leaveGroup`.
    ChangeOne(Change),
    /// `joinGroupMany` and `leaveGroupMany`.
    ChangeMany(Change),
    Send(Batch),
}

/// The parts of a call, apart from its body, that have the values of its operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallParts<'a> {
    pub(super) method: &'a Method,
    pub(super) resource: &'a Resource,
    /// Name of the stage.
    pub(super) stage: &'a Arc<str>,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
    pub(super) limits: &'a LimitSettings,
}

impl Operation {
    /// Parses the operation of a call, with all values in its path, query string, headers and `body`.
    ///
    /// # Errors
    /// Returns `UnknownMethod` if the resource has no operation for the method, and otherwise the error of the first
    /// value that is not valid.
    pub(super) fn parse(call: &CallParts<'_>, body: Bytes) -> Result<Self, ConnectionsApiError> {
        match call.resource {
            Resource::Connection(id) => Operation::on_connection(call, id, body),
            Resource::ConnectionGroups(id) => match *call.method {
                Method::GET => Ok(Operation::GetConnectionGroups { connection: connection(id)? }),
                _ => Err(ConnectionsApiError::UnknownMethod),
            },
            Resource::Group(name) => match *call.method {
                Method::POST => {
                    let except = except(call.headers)?;
                    Operation::post(call, Audience { except, ..Audience::topic(group(name)?) }, body)
                }
                Method::GET => Ok(Operation::ListMembers { name: group(name)?, page: PageRequest::parse(call.query)? }),
                _ => Err(ConnectionsApiError::UnknownMethod),
            },
            Resource::GroupConnection { group: name, connection: id } => {
                let join = joins(call.method)?;
                let (group, connections) = (group(name)?, vec![connection(id)?]);
                Ok(Operation::ChangeOne(Change { group, join, connections }))
            }
            Resource::GroupConnections(name) => {
                let join = joins(call.method)?;
                Ok(Operation::ChangeMany(Change::many(group(name)?, &body, call.limits.targets, join)?))
            }
            Resource::User(name) => Operation::on_user(call, name, body),
            Resource::Broadcast => match *call.method {
                Method::POST => {
                    let (except, stage) = (except(call.headers)?, Some(Arc::clone(call.stage)));
                    Operation::post(call, Audience { except, stage, ..Audience::default() }, body)
                }
                _ => Err(ConnectionsApiError::UnknownMethod),
            },
            Resource::Send => match *call.method {
                Method::POST => {
                    let (data_type, except) = (data_type(call.headers)?, except(call.headers)?);
                    let content_type = call.headers.get(CONTENT_TYPE);
                    Ok(Operation::Send(Batch::parse(&body, content_type, data_type, &except, call.limits)?))
                }
                _ => Err(ConnectionsApiError::UnknownMethod),
            },
        }
    }

    fn on_connection(call: &CallParts<'_>, id: &PathConnection, data: Bytes) -> Result<Self, ConnectionsApiError> {
        match *call.method {
            Method::POST => {
                let data_type = data_type(call.headers)?;
                Ok(Operation::PostToConnection { connection: connection(id)?, data, data_type })
            }
            Method::GET => Ok(Operation::GetConnection { connection: connection(id)? }),
            Method::DELETE => {
                let close = CloseRequest::parse(call.query)?;
                Ok(Operation::DeleteConnection { connection: connection(id)?, close })
            }
            _ => Err(ConnectionsApiError::UnknownMethod),
        }
    }

    fn on_user(call: &CallParts<'_>, name: &str, data: Bytes) -> Result<Self, ConnectionsApiError> {
        match *call.method {
            Method::POST => {
                let except = except(call.headers)?;
                Operation::post(call, Audience { except, ..Audience::topic(user(name)?) }, data)
            }
            Method::GET => Ok(Operation::ListMembers { name: user(name)?, page: PageRequest::parse(call.query)? }),
            Method::DELETE => Ok(Operation::DeleteUser { user: user(name)?, close: CloseRequest::parse(call.query)? }),
            _ => Err(ConnectionsApiError::UnknownMethod),
        }
    }

    fn post(call: &CallParts<'_>, audience: Audience, data: Bytes) -> Result<Self, ConnectionsApiError> {
        Ok(Operation::PostToAudience { audience, data, data_type: data_type(call.headers)? })
    }
}

/// Returns true if `method` makes connections join a group, and false if it makes them leave it.
fn joins(method: &Method) -> Result<bool, ConnectionsApiError> {
    match *method {
        Method::PUT => Ok(true),
        Method::DELETE => Ok(false),
        _ => Err(ConnectionsApiError::UnknownMethod),
    }
}

fn connection(id: &PathConnection) -> Result<ConnectionId, ConnectionsApiError> {
    id.clone().map_err(ConnectionsApiError::InvalidConnectionId)
}

fn group(text: &str) -> Result<TopicName, ConnectionsApiError> {
    TopicName::group(text).map_err(ConnectionsApiError::InvalidName)
}

fn user(text: &str) -> Result<TopicName, ConnectionsApiError> {
    TopicName::user(text).map_err(ConnectionsApiError::InvalidName)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::management::{OPERATIONS, OperationKind};

    const ID: &str = "AAAAAAAAAAAAAAAAAAA=";

    /// Returns each resource with valid values.
    fn resources() -> [Resource; 8] {
        let connection = ConnectionId::parse(ID).map_err(|_| String::new());
        [
            Resource::Connection(connection.clone()),
            Resource::ConnectionGroups(connection.clone()),
            Resource::Group("a".to_owned()),
            Resource::GroupConnections("a".to_owned()),
            Resource::GroupConnection { group: "a".to_owned(), connection },
            Resource::User("a".to_owned()),
            Resource::Broadcast,
            Resource::Send,
        ]
    }

    fn parse(method: &Method, resource: &Resource, query: &str, body: &str) -> Result<Operation, ConnectionsApiError> {
        let (stage, headers, limits) = (Arc::from("prod"), HeaderMap::new(), LimitSettings::default());
        let (stage, headers, limits) = (&stage, &headers, &limits);
        let call = CallParts { method, resource, stage, query: Some(query), headers, limits };
        Operation::parse(&call, Bytes::copy_from_slice(body.as_bytes()))
    }

    fn is_of_kind(operation: &Operation, kind: OperationKind) -> bool {
        use OperationKind as Kind;
        match kind {
            Kind::PostToConnection => matches!(operation, Operation::PostToConnection { .. }),
            Kind::GetConnection => matches!(operation, Operation::GetConnection { .. }),
            Kind::DeleteConnection => matches!(operation, Operation::DeleteConnection { .. }),
            Kind::GetConnectionGroups => matches!(operation, Operation::GetConnectionGroups { .. }),
            Kind::PostToGroup | Kind::PostToUser => {
                matches!(operation, Operation::PostToAudience { audience, .. } if audience.topics.len() == 1)
            }
            Kind::Broadcast => {
                matches!(operation, Operation::PostToAudience { audience, .. } if audience.stage.is_some())
            }
            Kind::GetGroup | Kind::GetUser => matches!(operation, Operation::ListMembers { .. }),
            Kind::DeleteUser => matches!(operation, Operation::DeleteUser { .. }),
            Kind::JoinGroup => matches!(operation, Operation::ChangeOne(Change { join: true, .. })),
            Kind::LeaveGroup => matches!(operation, Operation::ChangeOne(Change { join: false, .. })),
            Kind::JoinGroupMany => matches!(operation, Operation::ChangeMany(Change { join: true, .. })),
            Kind::LeaveGroupMany => matches!(operation, Operation::ChangeMany(Change { join: false, .. })),
            Kind::Send => matches!(operation, Operation::Send(_)),
        }
    }

    #[test]
    fn exactly_the_published_operations_are_parsed() {
        let mut parsed = 0;
        for resource in &resources() {
            let body = match resource {
                Resource::GroupConnections(_) => format!("{{\"connections\":[\"{ID}\"]}}"),
                _ => "{\"targets\":{\"groups\":[\"a\"]},\"data\":\"x\"}".to_owned(),
            };
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::PATCH] {
                let operation = parse(&method, resource, "", &body);
                let name = format!("{method} {}", resource.path());
                match OperationKind::find(&method, resource) {
                    Some(kind) => assert!(is_of_kind(&operation.expect(&name), kind), "{name}"),
                    None => assert!(matches!(operation, Err(ConnectionsApiError::UnknownMethod)), "{name}"),
                }
                parsed += usize::from(OperationKind::find(&method, resource).is_some());
            }
        }
        assert_eq!(parsed, OPERATIONS.len());
    }

    #[test]
    fn values_that_are_not_valid_are_refused() {
        let error = |method: Method, resource: Resource, query: &str, body: &str| {
            parse(&method, &resource, query, body).expect_err("the call has a value that is not valid").to_string()
        };
        let malformed = || Resource::Connection(Err("x".to_owned()));
        let invalid_id = ConnectionsApiError::InvalidConnectionId("x".to_owned()).to_string();
        assert_eq!(error(Method::GET, malformed(), "", ""), invalid_id);
        assert_eq!(error(Method::POST, malformed(), "", "data"), invalid_id);
        assert_eq!(error(Method::DELETE, malformed(), "", ""), invalid_id);
        let query = error(Method::DELETE, malformed(), "code=1", "");
        assert_ne!(query, invalid_id, "the query string of a DELETE is checked before its id");
        let (group, connection) = ("a b".to_owned(), Err("x".to_owned()));
        let name = error(Method::POST, Resource::Group(group.clone()), "", "data");
        assert_eq!(error(Method::GET, Resource::Group(group.clone()), "limit=0", ""), name);
        assert_eq!(error(Method::PUT, Resource::GroupConnections(group.clone()), "", "rubbish"), name);
        assert_eq!(error(Method::PUT, Resource::GroupConnection { group, connection }, "", ""), name);
    }
}
