use http::Method;

use crate::deployment::Resource;

/// An operation that backends can call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
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
pub const OPERATIONS: [(Operation, Method, &str, &str); 15] = [
    (Operation::PostToConnection, Method::POST, "/@connections/{connectionId}", "postToConnection"),
    (Operation::GetConnection, Method::GET, "/@connections/{connectionId}", "getConnection"),
    (Operation::DeleteConnection, Method::DELETE, "/@connections/{connectionId}", "deleteConnection"),
    (Operation::GetConnectionGroups, Method::GET, "/@connections/{connectionId}/groups", "getConnectionGroups"),
    (Operation::PostToGroup, Method::POST, "/@groups/{group}", "postToGroup"),
    (Operation::GetGroup, Method::GET, "/@groups/{group}", "getGroup"),
    (Operation::JoinGroup, Method::PUT, "/@groups/{group}/connections/{connectionId}", "joinGroup"),
    (Operation::LeaveGroup, Method::DELETE, "/@groups/{group}/connections/{connectionId}", "leaveGroup"),
    (Operation::JoinGroupMany, Method::PUT, "/@groups/{group}/connections", "joinGroupMany"),
    (Operation::LeaveGroupMany, Method::DELETE, "/@groups/{group}/connections", "leaveGroupMany"),
    (Operation::PostToUser, Method::POST, "/@users/{user}", "postToUser"),
    (Operation::GetUser, Method::GET, "/@users/{user}", "getUser"),
    (Operation::DeleteUser, Method::DELETE, "/@users/{user}", "deleteUser"),
    (Operation::Broadcast, Method::POST, "/@broadcast", "broadcast"),
    (Operation::Send, Method::POST, "/@send", "send"),
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

impl Operation {
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
            Operation::PostToConnection | Operation::PostToGroup | Operation::PostToUser | Operation::Broadcast => {
                BodyKind::Data
            }
            Operation::JoinGroupMany | Operation::LeaveGroupMany | Operation::Send => BodyKind::Bulk,
            Operation::GetConnection
            | Operation::DeleteConnection
            | Operation::GetConnectionGroups
            | Operation::GetGroup
            | Operation::JoinGroup
            | Operation::LeaveGroup
            | Operation::GetUser
            | Operation::DeleteUser => BodyKind::None,
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
        assert_eq!(Operation::find(&Method::POST, &group), Some(Operation::PostToGroup));
        assert_eq!(Operation::find(&Method::DELETE, &group), None);
    }
}
