use serde::Serialize;

/// A message from the chat to its clients, as JSON with the variant's name in `type`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Frame<'a> {
    /// Sent to a client that joined a room: its own id, its callback URL, and the members.
    Welcome {
        connection_id: &'a str,
        callback_url: &'a str,
        room: &'a str,
        name: &'a str,
        version: u64,
        members: Vec<Person<'a>>,
    },
    /// Sent to the other members of the room.
    Joined { room: &'a str, connection_id: &'a str, name: &'a str },
    /// Sent to the members who stay. `code` is the close code if the connection ended.
    Left {
        room: &'a str,
        connection_id: &'a str,
        name: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        reason: &'a str,
    },
    /// The members of the room; follows each `joined` and `left`. Of two such lists the one with the higher `version`
    /// is the newer, in whatever order they arrive.
    Members { room: &'a str, version: u64, members: Vec<Person<'a>> },
    /// A chat message, also to its sender. `at` is in milliseconds of Unix time.
    Message { room: &'a str, from: &'a str, name: &'a str, text: &'a str, at: u64 },
    /// The reason why a request was refused, to its sender.
    Error { message: &'a str },
    /// A list of the messages that the chat understands, to the sender of another one.
    Hint { message: &'a str },
}

/// A member, as clients see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Person<'a> {
    pub(super) connection_id: &'a str,
    pub(super) name: &'a str,
}

impl Frame<'_> {
    /// Returns the frame as JSON.
    pub(super) fn encode(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers alone always become JSON")
    }
}
