use std::collections::HashMap;

use serde::Deserialize;

use super::crowd;

/// The part of a Lambda proxy event that the chat reads.
///
/// Source: AWS, "Set up a WebSocket API with Lambda proxy integration"; `callbackUrl` is tidegate's addition.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProxyEvent {
    pub(super) request_context: RequestContext,
    /// The client's message; absent in `CONNECT` and `DISCONNECT`.
    #[serde(default)]
    pub(super) body: Option<String>,
    /// The query string of a connect.
    #[serde(default)]
    pub(super) query_string_parameters: Option<HashMap<String, String>>,
}

impl ProxyEvent {
    /// Returns true if the event is about a member of a crowd that comes or goes.
    pub(super) fn is_of_crowd(&self) -> bool {
        let query = self.query_string_parameters.as_ref();
        query.and_then(|query| query.get("crowd")).is_some_and(|group| group == crowd::GROUP)
            || self.request_context.disconnect_reason.as_deref() == Some(crowd::LEAVES)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestContext {
    pub(super) route_key: String,
    pub(super) event_type: EventType,
    pub(super) connection_id: String,
    /// The whole URL to post to for this connection.
    pub(super) callback_url: String,
    #[serde(default)]
    pub(super) request_id: String,
    /// Time when the gateway received the message, in milliseconds of Unix time.
    #[serde(default)]
    pub(super) request_time_epoch: u64,
    #[serde(default)]
    pub(super) disconnect_status_code: Option<u16>,
    #[serde(default)]
    pub(super) disconnect_reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum EventType {
    Connect,
    Message,
    Disconnect,
}

/// A request of a client to the chat.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Join(Join),
    SendMessage(Text),
    /// A message that `$default` caught.
    Unknown,
}

/// A checked `{"action":"join","room":…,"name":…}`. The room is a group of the gateway, by the same name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Join {
    pub(super) room: String,
    pub(super) name: String,
}

/// A checked `text` of `{"action":"sendMessage","text":…}`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

/// Longest name of a person and of a room, in characters; a longer one is refused.
pub(super) const NAME_MAX_CHARS: usize = 40;

/// Longest text of one chat message, in characters; a longer one is refused.
pub(super) const TEXT_MAX_CHARS: usize = 2000;

impl Request {
    /// Reads the message that came in by `route_key`. The error is a sentence for the client.
    pub(super) fn parse(route_key: &str, body: Option<&str>) -> Result<Request, String> {
        #[derive(Deserialize)]
        struct JoinBody {
            room: String,
            name: String,
        }
        #[derive(Deserialize)]
        struct TextBody {
            text: String,
        }
        let body = body.unwrap_or_default();
        match route_key {
            "join" => {
                let join: JoinBody =
                    serde_json::from_str(body).map_err(|_| "join needs the strings `room` and `name`".to_owned())?;
                Ok(Request::Join(Join { room: room(&join.room)?, name: name(&join.name)? }))
            }
            "sendMessage" => {
                let message: TextBody =
                    serde_json::from_str(body).map_err(|_| "sendMessage needs the string `text`".to_owned())?;
                match message.text.chars().take(TEXT_MAX_CHARS + 1).count() {
                    _ if message.text.trim().is_empty() => Err("`text` is empty".to_owned()),
                    count if count > TEXT_MAX_CHARS => {
                        Err(format!("`text` is longer than {TEXT_MAX_CHARS} characters"))
                    }
                    _ => Ok(Request::SendMessage(Text(message.text))),
                }
            }
            _ => Ok(Request::Unknown),
        }
    }
}

/// Reads a name for people: trimmed, not empty, not too long, on one line.
fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > NAME_MAX_CHARS || text.chars().any(char::is_control) {
        return Err(format!("`name` must have 1 to {NAME_MAX_CHARS} characters and no control characters"));
    }
    Ok(text.to_owned())
}

/// Reads the name of a room, which has a part of the characters that groups may have.
fn room(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if text.is_empty() || text.len() > NAME_MAX_CHARS || !text.bytes().all(is_good) {
        return Err(format!("`room` must have 1 to {NAME_MAX_CHARS} letters, digits, `_` and `-`"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_becomes_a_request_or_a_sentence_for_the_client() {
        #[track_caller]
        fn check(route_key: &str, body: &str, expected: Result<Request, &str>) {
            match (Request::parse(route_key, Some(body)), expected) {
                (Ok(request), Ok(expected)) => assert_eq!(request, expected),
                (Err(text), Err(part)) => assert!(text.contains(part), "{text}"),
                (result, expected) => panic!("{result:?} instead of {expected:?}"),
            }
        }
        let join = |room: &str, name: &str| Ok(Request::Join(Join { room: room.to_owned(), name: name.to_owned() }));
        check("join", r#"{"action":"join","room":"lobby","name":" Ada "}"#, join("lobby", "Ada"));
        check("join", &format!(r#"{{"room":"r","name":"{}"}}"#, "é".repeat(40)), join("r", &"é".repeat(40)));
        check("join", &format!(r#"{{"room":"r","name":"{}"}}"#, "é".repeat(41)), Err("`name` must have 1 to 40"));
        check("join", r#"{"room":"r","name":"a\nb"}"#, Err("no control characters"));
        check(
            "join",
            &format!(r#"{{"room":" {} ","name":"Ada"}}"#, "r-_9".repeat(10)),
            join(&"r-_9".repeat(10), "Ada"),
        );
        for bad in [" ", "a b", "demo:crowd", "ä", &"r".repeat(41)] {
            check("join", &format!(r#"{{"room":"{bad}","name":"Ada"}}"#), Err("`room` must have 1 to 40 letters"));
        }
        check("join", r#"{"room":1,"name":"Ada"}"#, Err("join needs the strings"));
        check("sendMessage", r#"{"text":" hi "}"#, Ok(Request::SendMessage(Text(" hi ".to_owned()))));
        check("sendMessage", r#"{"text":" "}"#, Err("`text` is empty"));
        check("sendMessage", &format!(r#"{{"text":"{}"}}"#, "x".repeat(2001)), Err("longer than 2000"));
        check("sendMessage", "[]", Err("needs the string `text`"));
        check("$default", "hello", Ok(Request::Unknown));
    }
}
