use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use thiserror::Error;

use super::{Audience, Except};
use crate::session::DataFrame;
use tidegate_core::data_type::DataType;
use tidegate_core::id::ConnectionId;
use tidegate_core::json;
use tidegate_core::received_base64;
use tidegate_core::topic::{InvalidName, TopicName};

/// Most messages in one call or answer.
pub const MESSAGES_MAX: usize = 1000;

/// The word for the connection of an event in its answer.
const SELF: &str = "self";

/// A message that a backend wants to send, and its receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushMessage {
    pub audience: Audience,
    pub frame: DataFrame,
}

/// The reason why a message, or a batch of them, cannot be used.
#[derive(Debug, Error)]
pub enum InvalidMessage {
    #[error("not a message")]
    Json(#[source] serde_json::Error),
    #[error("`{0}` is not a connection id")]
    ConnectionId(String),
    #[error(transparent)]
    Name(InvalidName),
    #[error("`data` is not base64, though `isBase64Encoded` says so")]
    NotBase64,
    #[error("a message needs `targets`, `group`, `user` or `connection`")]
    NoTarget,
    /// A limit of the configuration is exceeded.
    #[error("more than {max} {what}, which is the limit")]
    TooMuch { what: &'static str, max: usize },
}

/// The limits of one message.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimits {
    /// Most names and ids in its targets and exceptions.
    pub targets: usize,
    /// Largest data, in bytes.
    pub data_bytes: usize,
}

/// A message as backends write it: `{"targets":{"connections":[…],"groups":[…],"users":[…]},"except":[…],"data":"…"}`,
/// or with `group`, `user` or `connection` in place of `targets`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawMessage {
    #[serde(default)]
    targets: Targets,
    group: Option<String>,
    user: Option<String>,
    connection: Option<String>,
    #[serde(default)]
    except: Vec<String>,
    data: String,
    data_type: Option<DataType>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Targets {
    connections: Vec<String>,
    groups: Vec<String>,
    users: Vec<String>,
}

impl PushMessage {
    /// Reads messages: one after another as in JSON Lines, or a single one in any layout. `default` is the type of
    /// data of messages that name none.
    ///
    /// # Errors
    /// The error of the first message that is malformed or exceeds a limit, and the number of messages before it.
    pub fn parse_all(
        text: &[u8],
        default: DataType,
        limits: MessageLimits,
    ) -> Result<Vec<Self>, (usize, InvalidMessage)> {
        match PushMessage::read_all(text, default, limits) {
            Err((at, InvalidMessage::Json(error))) => match json::mend(text) {
                Some(mended) => PushMessage::read_all(&mended, default, limits),
                None => Err((at, InvalidMessage::Json(error))),
            },
            read => read,
        }
    }

    fn read_all(text: &[u8], default: DataType, limits: MessageLimits) -> Result<Vec<Self>, (usize, InvalidMessage)> {
        let mut messages = Vec::new();
        for written in serde_json::Deserializer::from_slice(text).into_iter::<RawMessage>() {
            let message = written
                .map_err(InvalidMessage::Json)
                .and_then(|written| PushMessage::read(written, default, None, limits))
                .map_err(|error| (messages.len(), error))?;
            if messages.len() == MESSAGES_MAX {
                let error = InvalidMessage::TooMuch { what: "messages", max: MESSAGES_MAX };
                return Err((MESSAGES_MAX, error));
            }
            messages.push(message);
        }
        Ok(messages)
    }

    /// Reads a message in an answer to an event of connection `own`, which the message may call `self`.
    ///
    /// # Errors
    /// The message is malformed or exceeds a limit.
    pub fn of_answer(
        value: serde_json::Value,
        own: ConnectionId,
        limits: MessageLimits,
    ) -> Result<Self, InvalidMessage> {
        let written = serde_json::from_value(value).map_err(InvalidMessage::Json)?;
        PushMessage::read(written, DataType::Text, Some(own), limits)
    }

    fn read(
        written: RawMessage,
        default: DataType,
        own: Option<ConnectionId>,
        limits: MessageLimits,
    ) -> Result<Self, InvalidMessage> {
        let RawMessage { targets, group, user, connection, except, data, data_type, is_base64_encoded } = written;
        let Targets { connections, groups, users } = targets;
        let names = groups.len() + users.len() + connections.len() + except.len();
        if names > limits.targets {
            return Err(InvalidMessage::TooMuch { what: "targets (limits.targets)", max: limits.targets });
        }
        let groups = groups.iter().chain(&group).map(|name| TopicName::group(name));
        let users = users.iter().chain(&user).map(|name| TopicName::user(name));
        let topics = groups.chain(users).collect::<Result<_, _>>().map_err(InvalidMessage::Name)?;
        let connections = connections.iter().chain(&connection).map(|id| connection_id(id, own));
        let connections: Vec<ConnectionId> = connections.collect::<Result<_, _>>()?;
        let except = except.iter().map(|id| connection_id(id, own)).collect::<Result<HashSet<_>, _>>()?;
        let audience = Audience { stage: None, topics, connections, except: Except(except) };
        if !audience.is_open() && audience.connections.is_empty() {
            return Err(InvalidMessage::NoTarget);
        }
        let data = match is_base64_encoded {
            true => received_base64::decode(data).map_err(|_| InvalidMessage::NotBase64)?.into(),
            false => Bytes::from(data),
        };
        if data.len() > limits.data_bytes {
            let what = "bytes of data (limits.messageBytes)";
            return Err(InvalidMessage::TooMuch { what, max: limits.data_bytes });
        }
        Ok(PushMessage { audience, frame: DataFrame::new(data, data_type.unwrap_or(default)) })
    }
}

fn connection_id(text: &str, own: Option<ConnectionId>) -> Result<ConnectionId, InvalidMessage> {
    match own {
        Some(own) if text == SELF => Ok(own),
        _ => ConnectionId::parse(text).map_err(|_| InvalidMessage::ConnectionId(truncated(text))),
    }
}

/// Returns as much of a wrong id as helps to find it.
fn truncated(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "AAAAAAAAAAAAAAAAAAA=";
    const LIMITS: MessageLimits = MessageLimits { targets: 4, data_bytes: 8 };

    fn id() -> ConnectionId {
        ConnectionId::parse(ID).unwrap()
    }

    #[test]
    fn a_message_names_its_audience() {
        let text = format!(
            r#"{{"targets":{{"connections":["{ID}"],"groups":["a"],"users":["Ä n"]}},"except":["{ID}"],"data":"hi"}}"#
        );
        let messages = PushMessage::parse_all(text.as_bytes(), DataType::Text, LIMITS).unwrap();
        let audience = Audience {
            stage: None,
            topics: vec![TopicName::group("a").unwrap(), TopicName::user("Ä n").unwrap()],
            connections: vec![id()],
            except: Except([id()].into()),
        };
        assert_eq!(messages, [PushMessage { audience, frame: DataFrame::text("hi".to_owned()) }]);
    }

    #[test]
    fn messages_are_read_line_by_line() {
        let text = br#"{"group":"a","data":"1"}
            {"user":"b","data":"Mg==","isBase64Encoded":true,"dataType":"binary"}

            {"connection":"AAAAAAAAAAAAAAAAAAA=","data":"3","dataType":"text"}"#;
        let messages = PushMessage::parse_all(text, DataType::Binary, LIMITS).unwrap();
        let frames: Vec<DataFrame> = messages.into_iter().map(|message| message.frame).collect();
        let binary = |data: &'static str| DataFrame::new(Bytes::from(data), DataType::Binary);
        assert_eq!(frames, [binary("1"), binary("2"), DataFrame::text("3".to_owned())]);
        assert_eq!(PushMessage::parse_all(b" \n ", DataType::Text, LIMITS).unwrap(), []);
        assert_eq!(PushMessage::parse_all("\u{feff}".as_bytes(), DataType::Text, LIMITS).unwrap(), []);
    }

    #[test]
    fn a_byte_order_mark_and_halves_of_surrogate_pairs_do_not_spoil_a_batch() {
        let text = concat!("\u{feff}", r#"{"group":"a","data":"x"}{"group":"a","data":"\ud83dy","extra\udc00":1}"#);
        let (at, error) = PushMessage::parse_all(text.as_bytes(), DataType::Text, LIMITS).unwrap_err();
        assert_eq!((at, error.to_string()), (1, "not a message".to_owned()));
        let text = text.replace(r#","extra\udc00":1"#, "");
        let messages = PushMessage::parse_all(text.as_bytes(), DataType::Text, LIMITS).unwrap();
        let frames: Vec<DataFrame> = messages.into_iter().map(|message| message.frame).collect();
        assert_eq!(frames, [DataFrame::text("x".to_owned()), DataFrame::text("\u{fffd}y".to_owned())]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let check = |text: &str, expected: (usize, &str)| {
            let error = PushMessage::parse_all(text.as_bytes(), DataType::Text, LIMITS).unwrap_err();
            assert_eq!((error.0, &*error.1.to_string()), expected, "{text}");
        };
        let good = r#"{"group":"a","data":""}"#;
        check("x", (0, "not a message"));
        check(&format!("{good}\n{{"), (1, "not a message"));
        check(r#"{"group":"a"}"#, (0, "not a message"));
        check(r#"{"group":"a","data":"","extra":1}"#, (0, "not a message"));
        check(r#"{"data":"hi"}"#, (0, "a message needs `targets`, `group`, `user` or `connection`"));
        check(
            r#"{"group":"a b","data":""}"#,
            (0, "a group is named by 1 to 128 characters of A-Z a-z 0-9 _ . : @ = -"),
        );
        check(r#"{"user":"","data":""}"#, (0, "a user is named by 1 to 256 bytes of UTF-8"));
        check(r#"{"connection":"self","data":""}"#, (0, "`self` is not a connection id"));
        check(r#"{"group":"a","except":["x"],"data":""}"#, (0, "`x` is not a connection id"));
        check(
            r#"{"targets":{"groups":["a","b","c","d","e"]},"data":""}"#,
            (0, "more than 4 targets (limits.targets), which is the limit"),
        );
        check(
            r#"{"group":"a","data":"123456789"}"#,
            (0, "more than 8 bytes of data (limits.messageBytes), which is the limit"),
        );
        check(
            r#"{"group":"a","data":"%","isBase64Encoded":true}"#,
            (0, "`data` is not base64, though `isBase64Encoded` says so"),
        );
        check(&format!("{good}\n").repeat(1001), (1000, "more than 1000 messages, which is the limit"));
    }

    #[test]
    fn an_answer_may_say_self() {
        let value = serde_json::json!({ "group": "a", "except": ["self"], "data": "x" });
        let message = PushMessage::of_answer(value, id(), LIMITS).unwrap();
        assert!(message.audience.except.has(&id()));
    }
}
