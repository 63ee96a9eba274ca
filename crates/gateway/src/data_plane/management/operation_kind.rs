use http::Method;

use crate::deployment::Resource;

/// An operation that backends can call, without its values: what is known of a call before its values may be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    PostToConnection,
    GetConnection,
    DeleteConnection,
    GetConnectionGroups,
    PostToGroup,
    GetGroup,
    JoinGroup,
    LeaveGroup,
    JoinGroupMany,
    LeaveGroupMany,
    PostToUser,
    GetUser,
    DeleteUser,
    Broadcast,
    Send,
}

/// All operations, each with its method, its path below the stage, and its name. The published description is checked
/// against this table.
pub const OPERATIONS: [(OperationKind, Method, &str, &str); 15] = [
    (OperationKind::PostToConnection, Method::POST, "/@connections/{connectionId}", "postToConnection"),
    (OperationKind::GetConnection, Method::GET, "/@connections/{connectionId}", "getConnection"),
    (OperationKind::DeleteConnection, Method::DELETE, "/@connections/{connectionId}", "deleteConnection"),
    (OperationKind::GetConnectionGroups, Method::GET, "/@connections/{connectionId}/groups", "getConnectionGroups"),
    (OperationKind::PostToGroup, Method::POST, "/@groups/{group}", "postToGroup"),
    (OperationKind::GetGroup, Method::GET, "/@groups/{group}", "getGroup"),
    (OperationKind::JoinGroup, Method::PUT, "/@groups/{group}/connections/{connectionId}", "joinGroup"),
    (OperationKind::LeaveGroup, Method::DELETE, "/@groups/{group}/connections/{connectionId}", "leaveGroup"),
    (OperationKind::JoinGroupMany, Method::PUT, "/@groups/{group}/connections", "joinGroupMany"),
    (OperationKind::LeaveGroupMany, Method::DELETE, "/@groups/{group}/connections", "leaveGroupMany"),
    (OperationKind::PostToUser, Method::POST, "/@users/{user}", "postToUser"),
    (OperationKind::GetUser, Method::GET, "/@users/{user}", "getUser"),
    (OperationKind::DeleteUser, Method::DELETE, "/@users/{user}", "deleteUser"),
    (OperationKind::Broadcast, Method::POST, "/@broadcast", "broadcast"),
    (OperationKind::Send, Method::POST, "/@send", "send"),
];

/// The kind of a call's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// No body.
    None,
    /// The data for clients, bounded by `limits.messageBytes`.
    Data,
    /// Names and messages, bounded by `limits.bulkBytes`.
    Bulk,
}

impl OperationKind {
    /// Returns the operation of `method` on `resource`, if there is one.
    pub fn find(method: &Method, resource: &Resource) -> Option<Self> {
        let path = resource.path();
        OPERATIONS.iter().find(|(_, its_method, its_path, _)| its_method == method && *its_path == path).map(|it| it.0)
    }

    /// Returns the name in the published description and in access logs.
    pub fn name(self) -> &'static str {
        OPERATIONS.iter().find(|(operation, ..)| *operation == self).map_or("", |(.., name)| name)
    }

    /// Returns the kind of the body.
    pub fn body(self) -> BodyKind {
        match self {
            OperationKind::PostToConnection
            | OperationKind::PostToGroup
            | OperationKind::PostToUser
            | OperationKind::Broadcast => BodyKind::Data,
            OperationKind::JoinGroupMany | OperationKind::LeaveGroupMany | OperationKind::Send => BodyKind::Bulk,
            OperationKind::GetConnection
            | OperationKind::DeleteConnection
            | OperationKind::GetConnectionGroups
            | OperationKind::GetGroup
            | OperationKind::JoinGroup
            | OperationKind::LeaveGroup
            | OperationKind::GetUser
            | OperationKind::DeleteUser => BodyKind::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_by_its_method_and_path_alone() {
        for (at, (operation, method, path, name)) in OPERATIONS.iter().enumerate() {
            assert_eq!(operation.name(), *name);
            let twins = OPERATIONS[..at].iter().filter(|(_, its_method, its_path, its_name)| {
                (its_method, its_path) == (method, path) || its_name == name
            });
            assert_eq!(twins.count(), 0, "{name}");
        }
        let group = Resource::Group("a".to_owned());
        assert_eq!(OperationKind::find(&Method::POST, &group), Some(OperationKind::PostToGroup));
        assert_eq!(OperationKind::find(&Method::DELETE, &group), None);
    }
}
