use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::message::{InvalidMessage, MESSAGES_MAX, MessageLimits, PushMessage};
use tidegate_core::id::ConnectionId;
use tidegate_core::topic::{InvalidName, TopicName};

const X_TIDEGATE_JOIN: &str = "x-tidegate-join";
const X_TIDEGATE_LEAVE: &str = "x-tidegate-leave";
const X_TIDEGATE_USER: &str = "x-tidegate-user";

/// The requests of a backend in its answer to an event, beside the answer itself. They are carried out in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// The groups that the connection leaves.
    pub leave: Vec<TopicName>,
    /// The groups that it joins.
    pub join: Vec<TopicName>,
    /// The users that are on it from now on; `None` leaves them as they are.
    pub users: Option<Vec<TopicName>>,
    /// The messages that are sent.
    pub send: Vec<PushMessage>,
}

/// The reason why the requests in an answer cannot be carried out.
#[derive(Debug, Error)]
pub enum InvalidActions {
    #[error("`tidegate` does not have the documented form")]
    Shape(#[source] serde_json::Error),
    #[error("the header {0} is not text")]
    NotText(&'static str),
    #[error("a name cannot be used")]
    Name(#[source] InvalidName),
    #[error("message {number} of `tidegate.send` cannot be used")]
    Message {
        number: usize,
        #[source]
        error: InvalidMessage,
    },
    #[error("more than {MESSAGES_MAX} messages")]
    TooManyMessages,
}

/// The `tidegate` key of an answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawActions {
    #[serde(default)]
    join: Vec<String>,
    #[serde(default)]
    leave: Vec<String>,
    user: Option<OneOrMany>,
    #[serde(default)]
    send: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Actions {
    /// Reads the requests in the headers of an answer, and in its `tidegate` key if it has one. `own` is the connection
    /// of the event.
    ///
    /// # Errors
    /// A part of the requests cannot be used; then none is carried out.
    pub fn read(
        headers: &HeaderMap,
        tidegate: Option<Value>,
        own: ConnectionId,
        limits: MessageLimits,
    ) -> Result<Self, InvalidActions> {
        let group = |name: &str| TopicName::group(name);
        let mut actions = Actions {
            leave: listed(headers, X_TIDEGATE_LEAVE, group)?.unwrap_or_default(),
            join: listed(headers, X_TIDEGATE_JOIN, group)?.unwrap_or_default(),
            users: listed(headers, X_TIDEGATE_USER, user)?,
            send: Vec::new(),
        };
        let Some(tidegate) = tidegate.filter(|tidegate| !tidegate.is_null()) else { return Ok(actions) };
        let RawActions { join, leave, user, send } = serde_json::from_value(tidegate).map_err(InvalidActions::Shape)?;
        let add = |names: &mut Vec<TopicName>, more: Vec<String>| {
            for name in more {
                names.push(TopicName::group(&name).map_err(InvalidActions::Name)?);
            }
            Ok(())
        };
        add(&mut actions.leave, leave)?;
        add(&mut actions.join, join)?;
        if let Some(user) = user {
            let names = match user {
                OneOrMany::One(name) => vec![name],
                OneOrMany::Many(names) => names,
            };
            let names = names.iter().map(|name| TopicName::user(name)).collect::<Result<_, _>>();
            actions.users = Some(names.map_err(InvalidActions::Name)?);
        }
        if send.len() > MESSAGES_MAX {
            return Err(InvalidActions::TooManyMessages);
        }
        for (at, message) in send.into_iter().enumerate() {
            let message = PushMessage::of_answer(message, own, limits);
            actions.send.push(message.map_err(|error| InvalidActions::Message { number: at + 1, error })?);
        }
        Ok(actions)
    }

    /// Returns true if nothing is requested.
    pub fn is_empty(&self) -> bool {
        let Actions { leave, join, users, send } = self;
        leave.is_empty() && join.is_empty() && users.is_none() && send.is_empty()
    }
}

/// Reads the names in a header, which are separated by commas.
fn listed(
    headers: &HeaderMap,
    header: &'static str,
    parse: impl Fn(&str) -> Result<TopicName, InvalidName>,
) -> Result<Option<Vec<TopicName>>, InvalidActions> {
    let mut names = None;
    for value in headers.get_all(header) {
        let text = value.to_str().map_err(|_| InvalidActions::NotText(header))?;
        let names = names.get_or_insert_with(Vec::new);
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            names.push(parse(name).map_err(InvalidActions::Name)?);
        }
    }
    Ok(names)
}

/// Reads a user in a header. It is percent-encoded, because a header holds only ASCII.
fn user(encoded: &str) -> Result<TopicName, InvalidName> {
    let decoded = percent_decode_str(encoded).decode_utf8().map_err(|_| InvalidName::User)?;
    TopicName::user(&decoded)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    const LIMITS: MessageLimits = MessageLimits { targets: 10, data_bytes: 100 };

    fn read(headers: &[(&'static str, &str)], tidegate: Value) -> Result<Actions, String> {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let own = ConnectionId::parse("AAAAAAAAAAAAAAAAAAA=").unwrap();
        Actions::read(&headers.collect(), Some(tidegate), own, LIMITS).map_err(|error| error.to_string())
    }

    fn groups(names: &[&str]) -> Vec<TopicName> {
        names.iter().map(|name| TopicName::group(name).unwrap()).collect()
    }

    #[test]
    fn headers_and_the_key_add_up() {
        let headers = [("x-tidegate-join", "a, b,"), ("x-tidegate-leave", "c"), ("x-tidegate-user", "%C3%84nn%2C%20x")];
        let tidegate =
            json!({ "join": ["d"], "leave": [], "send": [{ "group": "a", "data": "x", "except": ["self"] }] });
        let actions = read(&headers, tidegate).unwrap();
        assert_eq!((actions.join, actions.leave), (groups(&["a", "b", "d"]), groups(&["c"])));
        assert_eq!(actions.users, Some(vec![TopicName::user("Änn, x").unwrap()]));
        assert_eq!(actions.send.len(), 1);
        assert!(read(&[], Value::Null).unwrap().is_empty());
        assert!(read(&[], json!({})).unwrap().is_empty());
    }

    #[test]
    fn users_are_one_or_many_or_none() {
        let check = |user: Value, expected: usize| {
            assert_eq!(read(&[], json!({ "user": user })).unwrap().users.unwrap().len(), expected);
        };
        check(json!("ann"), 1);
        check(json!(["ann", "tenant/5"]), 2);
        check(json!([]), 0);
        assert_eq!(read(&[("x-tidegate-user", "")], Value::Null).unwrap().users, Some(Vec::new()));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let check = |headers: &[(&'static str, &str)], tidegate: Value, expected: &str| {
            assert_eq!(read(headers, tidegate).unwrap_err(), expected);
        };
        check(&[("x-tidegate-join", "a b")], Value::Null, "a name cannot be used");
        check(&[("x-tidegate-user", "%ff")], Value::Null, "a name cannot be used");
        check(&[("x-tidegate-join", "ä")], Value::Null, "the header x-tidegate-join is not text");
        check(&[], json!({ "join": ["ä"] }), "a name cannot be used");
        check(&[], json!({ "join": "a" }), "`tidegate` does not have the documented form");
        check(&[], json!({ "joins": ["a"] }), "`tidegate` does not have the documented form");
        check(&[], json!({ "send": [{ "data": "x" }] }), "message 1 of `tidegate.send` cannot be used");
        check(&[], json!({ "send": vec![json!({}); 1001] }), "more than 1000 messages");
    }
}
