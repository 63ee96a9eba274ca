use serde::Serialize;

/// What the chat answers to an event, as an `AWS_PROXY` backend does.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) status_code: u16,
    pub(super) tidegate: Actions,
}

/// What the gateway is to do, in the order of these fields. A room is a group.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Actions {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) leave: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) join: Vec<String>,
    /// Who is on the connection from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) send: Vec<Message>,
}

/// One message, and whom it is for.
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

/// What the gateway takes for the connection of the event.
const SELF: &str = "self";

impl Message {
    /// To everybody in a room.
    pub(super) fn to_room(room: &str, data: String) -> Self {
        Message { to: To::Group(room.to_owned()), except: &[], data }
    }

    /// To everybody in a room but the connection of the event.
    pub(super) fn to_others(room: &str, data: String) -> Self {
        Message { except: &[SELF], ..Message::to_room(room, data) }
    }

    /// To the connection of the event.
    pub(super) fn to_sender(data: String) -> Self {
        Message { to: To::Connection(SELF), except: &[], data }
    }
}

impl From<Actions> for Answer {
    fn from(tidegate: Actions) -> Self {
        Answer { status_code: 200, tidegate }
    }
}
