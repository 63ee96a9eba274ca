//! Groups and users: the names by which connections are found, besides their ids.

use std::sync::{Arc, Mutex};

use thiserror::Error;

use crate::lock::lock;

/// Longest name of a group, in bytes.
pub const GROUP_NAME_MAX_BYTES: usize = 128;

/// Longest name of a user, in bytes.
pub const USER_NAME_MAX_BYTES: usize = 256;

/// The name of a group or of a user. A group and a user with the same name have nothing in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName {
    kind: TopicKind,
    text: Box<str>,
}

/// The kind of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicKind {
    Group,
    User,
}

/// A group or a user of one API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    pub api_id: Arc<str>,
    pub name: TopicName,
}

/// The reason why a text cannot be a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidName {
    #[error("a group is named by 1 to 128 characters of A-Z a-z 0-9 _ . : @ = -")]
    Group,
    #[error("a user is named by 1 to 256 bytes of UTF-8")]
    User,
}

impl TopicName {
    /// Parses the name of a group: `[A-Za-z0-9_.:@=-]{1,128}`.
    ///
    /// # Errors
    /// Returns [`InvalidName::Group`] if the text is empty or too long, or has another character.
    pub fn group(text: &str) -> Result<Self, InvalidName> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:@=-".contains(&byte);
        if (1..=GROUP_NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(TopicName { kind: TopicKind::Group, text: text.into() })
        } else {
            Err(InvalidName::Group)
        }
    }

    /// Parses the name of a user: any text of 1 to 256 bytes.
    ///
    /// # Errors
    /// Returns [`InvalidName::User`] if the text is empty or too long.
    pub fn user(text: &str) -> Result<Self, InvalidName> {
        if (1..=USER_NAME_MAX_BYTES).contains(&text.len()) {
            Ok(TopicName { kind: TopicKind::User, text: text.into() })
        } else {
            Err(InvalidName::User)
        }
    }

    /// Returns the kind of the name.
    pub fn kind(&self) -> TopicKind {
        self.kind
    }

    /// Returns the text of the name.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The groups and users of one connection. Each takes eight bytes of the connection; the names are shared.
#[derive(Debug)]
pub struct Topics(Mutex<Option<Vec<Arc<Topic>>>>);

impl Default for Topics {
    fn default() -> Self {
        Topics(Mutex::new(Some(Vec::new())))
    }
}

impl Topics {
    /// Calls `act` with the list, to read or to change it. Returns `None` once the connection has ended: nothing can be
    /// added then.
    pub fn with<R>(&self, act: impl FnOnce(&mut Vec<Arc<Topic>>) -> R) -> Option<R> {
        lock(&self.0).as_mut().map(act)
    }

    /// Ends the list, because the connection has ended. Returns the groups and users in it; later calls return an empty
    /// list.
    pub fn end(&self) -> Vec<Arc<Topic>> {
        lock(&self.0).take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_groups_are_strict() {
        let check = |text: &str, right: bool| assert_eq!(TopicName::group(text).is_ok(), right, "{text:?}");
        check("room-1", true);
        check("Az09_.:@=-", true);
        check(&"a".repeat(128), true);
        check(&"a".repeat(129), false);
        check("", false);
        check("a b", false);
        check("a/b", false);
        check("a%20", false);
        check("a\0", false);
        check("ä", false);
        check("a,b", false);
    }

    #[test]
    fn names_of_users_are_any_text() {
        let check = |text: &str, right: bool| assert_eq!(TopicName::user(text).is_ok(), right, "{text:?}");
        check("ann", true);
        check("Änn / Ünn, 1\n", true);
        check(&"ä".repeat(128), true);
        check(&"ä".repeat(129), false);
        check("", false);
    }

    #[test]
    fn nothing_is_added_to_a_connection_that_is_over() {
        let topics = Topics::default();
        let topic = Arc::new(Topic { api_id: "chat".into(), name: TopicName::group("a").unwrap() });
        assert_eq!(topics.with(|list| list.push(Arc::clone(&topic))), Some(()));
        assert_eq!(topics.end(), [topic]);
        assert_eq!(topics.with(|list| list.len()), None);
        assert_eq!(topics.end(), []);
    }
}
