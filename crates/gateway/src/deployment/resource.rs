use std::borrow::Cow;

use tidegate_access::iam::PolicyPath;
use tidegate_core::id::ConnectionId;

/// A connection id in a path. The error is the text of the caller, if that is not a connection id.
pub type PathConnection = Result<ConnectionId, String>;

const CONNECTION: &str = "/@connections/{connectionId}";

/// The resource that a backend acts on: everything below a stage that begins with `@`. Names are decoded, but not
/// checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Connection(PathConnection),
    ConnectionGroups(PathConnection),
    Group(String),
    GroupConnections(String),
    GroupConnection { group: String, connection: PathConnection },
    User(String),
    Broadcast,
    Send,
}

impl Resource {
    /// Parses the segments after a stage.
    pub(super) fn parse(segments: &[Cow<'_, str>]) -> Option<Self> {
        let text = |text: &Cow<'_, str>| text.to_string();
        let connection = |text: &Cow<'_, str>| ConnectionId::parse(text).map_err(|_| text.to_string());
        let (first, rest) = segments.split_first()?;
        Some(match (&**first, rest) {
            ("@connections", [id]) => Resource::Connection(connection(id)),
            ("@connections", [id, groups]) if groups == "groups" => Resource::ConnectionGroups(connection(id)),
            ("@groups", [group]) => Resource::Group(text(group)),
            ("@groups", [group, connections]) if connections == "connections" => {
                Resource::GroupConnections(text(group))
            }
            ("@groups", [group, connections, id]) if connections == "connections" => {
                Resource::GroupConnection { group: text(group), connection: connection(id) }
            }
            ("@users", [user]) => Resource::User(text(user)),
            ("@broadcast", []) => Resource::Broadcast,
            ("@send", []) => Resource::Send,
            _ => return None,
        })
    }

    /// Returns the path below the stage, with names in place of values.
    pub fn path(&self) -> &'static str {
        match self {
            Resource::Connection(_) => CONNECTION,
            Resource::ConnectionGroups(_) => "/@connections/{connectionId}/groups",
            Resource::Group(_) => "/@groups/{group}",
            Resource::GroupConnections(_) => "/@groups/{group}/connections",
            Resource::GroupConnection { .. } => "/@groups/{group}/connections/{connectionId}",
            Resource::User(_) => "/@users/{user}",
            Resource::Broadcast => "/@broadcast",
            Resource::Send => "/@send",
        }
    }

    /// Returns the connection id in the path, if there is one.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Resource::Connection(connection)
            | Resource::ConnectionGroups(connection)
            | Resource::GroupConnection { connection, .. } => connection.as_ref().ok().copied(),
            Resource::Group(_)
            | Resource::GroupConnections(_)
            | Resource::User(_)
            | Resource::Broadcast
            | Resource::Send => None,
        }
    }

    /// Returns the path by which policies know the resource. AWS never puts a real connection id there; groups and
    /// users have their own names.
    pub fn policy_path(&self) -> PolicyPath {
        match self {
            Resource::Group(group) => PolicyPath::named("/@groups/", group, ""),
            Resource::GroupConnections(group) => PolicyPath::named("/@groups/", group, "/connections"),
            Resource::GroupConnection { group, .. } => {
                PolicyPath::named("/@groups/", group, "/connections/{connectionId}")
            }
            Resource::User(user) => PolicyPath::named("/@users/", user, ""),
            Resource::Connection(_) | Resource::ConnectionGroups(_) | Resource::Broadcast | Resource::Send => {
                PolicyPath { escaped: self.path().into(), plain: None }
            }
        }
    }

    /// Returns the path by which policies know any connection.
    pub fn connection_policy_path() -> PolicyPath {
        PolicyPath { escaped: CONNECTION.into(), plain: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_backends_are_told_apart() {
        let check = |path: &str, expected: Option<(&str, &str)>| {
            let segments: Vec<Cow<'_, str>> = path.split('/').skip(1).map(Cow::from).collect();
            let resource = Resource::parse(&segments);
            let found = resource.as_ref().map(|resource| (resource.path(), resource.policy_path()));
            assert_eq!(found.as_ref().map(|(path, policy)| (*path, &*policy.escaped)), expected, "{path}");
        };
        let (connection, groups) = ("/@connections/{connectionId}", "/@connections/{connectionId}/groups");
        check("/@connections/AbC=", Some((connection, connection)));
        check("/@connections/AbC=/groups", Some((groups, groups)));
        check("/@groups/room-1", Some(("/@groups/{group}", "/@groups/room-1")));
        check("/@groups/connections", Some(("/@groups/{group}", "/@groups/connections")));
        check("/@groups/a/connections", Some(("/@groups/{group}/connections", "/@groups/a/connections")));
        check(
            "/@groups/a/connections/AbC=",
            Some(("/@groups/{group}/connections/{connectionId}", "/@groups/a/connections/{connectionId}")),
        );
        check("/@users/Änn", Some(("/@users/{user}", "/@users/Änn")));
        check("/@broadcast", Some(("/@broadcast", "/@broadcast")));
        check("/@send", Some(("/@send", "/@send")));
        for path in
            ["/@connections", "/@groups", "/@users", "/@send/x", "/@connections/a/b", "/@groups/a/b", "/@nothing/a"]
        {
            check(path, None);
        }
    }

    #[test]
    fn a_name_is_one_segment_of_a_policy_and_no_wildcard() {
        let check = |name: &str, expected: &str| {
            let paths = |before: &str, behind: &str| PolicyPath {
                escaped: format!("{before}{expected}{behind}").into(),
                plain: (name != expected).then(|| format!("{before}{name}{behind}")),
            };
            let (group, connection) = (name.to_owned(), Err("AbC=".to_owned()));
            assert_eq!(Resource::User(name.to_owned()).policy_path(), paths("/@users/", ""));
            assert_eq!(Resource::Group(group.clone()).policy_path(), paths("/@groups/", ""));
            assert_eq!(Resource::GroupConnections(group.clone()).policy_path(), paths("/@groups/", "/connections"));
            let resource = Resource::GroupConnection { group, connection };
            assert_eq!(resource.policy_path(), paths("/@groups/", "/connections/{connectionId}"));
        };
        check("room-1", "room-1");
        check("Änn, the 1st", "Änn, the 1st");
        check("a/b", "a%2Fb");
        check("*", "%2A");
        check("a?", "a%3F");
        check("100%", "100%25");
        check("a%2Fb", "a%252Fb");
        check("a\n\u{7f}", "a%0A%7F");
        check("/", "%2F");
    }
}
