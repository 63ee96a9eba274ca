use serde::Serialize;

/// The chat's answer to an event, in the format of an `AWS_PROXY` backend.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) status_code: u16,
    pub(super) tidegate: Actions,
}

/// The requests to the gateway, in the order in which it carries them out. A room is a group.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Actions {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) leave: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) join: Vec<String>,
    /// The user on the connection from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) send: Vec<Message>,
}

/// A message, and its receivers.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Message {
    #[serde(flatten)]
    pub(super) to: To,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) except: &'static [&'static str],
    pub(super) data: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum To {
    Group(String),
    Connection(&'static str),
}

/// The gateway's word for the connection of the event.
const SELF: &str = "self";

impl Message {
    /// Returns a message to everybody in a room.
    pub(super) fn to_room(room: &str, data: String) -> Self {
        Message { to: To::Group(room.to_owned()), except: &[], data }
    }

    /// Returns a message to everybody in a room except the connection of the event.
    pub(super) fn to_others(room: &str, data: String) -> Self {
        Message { except: &[SELF], ..Message::to_room(room, data) }
    }

    /// Returns a message to the connection of the event.
    pub(super) fn to_sender(data: String) -> Self {
        Message { to: To::Connection(SELF), except: &[], data }
    }
}

impl From<Actions> for Answer {
    fn from(tidegate: Actions) -> Self {
        Answer { status_code: 200, tidegate }
    }
}
