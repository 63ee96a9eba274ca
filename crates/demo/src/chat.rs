use std::collections::HashMap;

use super::answer::{Actions, Message};
use super::event::{EventType, Join, ProxyEvent, Request, RequestContext, Text};
use super::frame::{Frame, Person};

/// Most people in all rooms together; a join of a further one is refused.
pub(super) const PEOPLE_MAX: usize = 2000;

/// Most people in one room; a further join is refused. The `members` frame of a full room stays far below the 128 KiB
/// that one message may have.
pub(super) const MEMBERS_MAX: usize = 100;

const HINT: &str = "No route takes this message. Try {\"action\":\"join\",\"room\":\"lobby\",\"name\":\"Ada\"} and \
                    then {\"action\":\"sendMessage\",\"text\":\"hello\"}.";

/// A request that the chat does not carry out; `Display` is the sentence for the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("join a room first")]
    NotJoined,
    #[error("this room is full: {MEMBERS_MAX} are in it")]
    RoomFull,
    #[error("the chat is full: {PEOPLE_MAX} are in it")]
    ChatFull,
}

/// The names of the people in all rooms. The gateway knows who gets what, because a room is a group.
///
/// A connection is in one room at most.
#[derive(Debug)]
pub(super) struct Chat {
    /// People by connection id.
    people: HashMap<String, Member>,
    /// Number that grows with every join and leave, so that clients can tell the newer of two lists of members.
    version: u64,
}

#[derive(Debug)]
struct Member {
    name: String,
    room: String,
    /// Version that this join made.
    since: u64,
}

impl Chat {
    /// Returns an empty chat. `version` has to be above those of an earlier process, whose clients may still be
    /// connected.
    pub(super) fn new(version: u64) -> Self {
        Chat { people: HashMap::new(), version }
    }

    /// Carries out one event. Returns the requests to the gateway.
    pub(super) fn handle(&mut self, event: &ProxyEvent) -> Actions {
        let context = &event.request_context;
        match context.event_type {
            EventType::Connect => Actions::default(),
            EventType::Message => self.message(context, event.body.as_deref()),
            EventType::Disconnect => {
                let reason = context.disconnect_reason.as_deref().unwrap_or_default();
                let left = self.leave(&context.connection_id, context.disconnect_status_code, reason);
                // A `$disconnect` may come twice, but the room gets only one message.
                let send =
                    left.map(|(room, left)| [left, self.members(&room)].map(|data| Message::to_room(&room, data)));
                Actions { send: send.into_iter().flatten().collect(), ..Actions::default() }
            }
        }
    }

    fn message(&mut self, context: &RequestContext, body: Option<&str>) -> Actions {
        let to_sender = |frame: Frame<'_>| Actions { send: vec![frame.to_sender()], ..Actions::default() };
        let done = match Request::parse(&context.route_key, body) {
            Ok(Request::Join(join)) => self.join(context, join),
            Ok(Request::SendMessage(text)) => self.send_message(context, &text),
            Ok(Request::Unknown) => return to_sender(Frame::Hint { message: HINT }),
            Err(message) => return to_sender(Frame::Error { message: &message }),
        };
        done.unwrap_or_else(|refusal| to_sender(Frame::Error { message: &refusal.to_string() }))
    }

    /// Moves a connection into a room, out of the one that it was in. If it is refused, it stays where it was.
    fn join(&mut self, context: &RequestContext, Join { room, name }: Join) -> Result<Actions, Refusal> {
        let id = &*context.connection_id;
        match self.people.get(id) {
            Some(member) if member.room == room => {}
            _ if self.people_in(&room).len() >= MEMBERS_MAX => return Err(Refusal::RoomFull),
            None if self.people.len() >= PEOPLE_MAX => return Err(Refusal::ChatFull),
            _ => {}
        }
        let mut actions = Actions { join: vec![room.clone()], user: Some(name.clone()), ..Actions::default() };
        let again = self.people.get(id).is_some_and(|member| member.room == room);
        let reason = if again { "joins again" } else { "went to another room" };
        if let Some((previous, left)) = self.leave(id, None, reason) {
            actions.send.push(Message::to_others(&previous, left));
            if !again {
                actions.send.push(Message::to_room(&previous, self.members(&previous)));
                actions.leave.push(previous);
            }
        }
        self.version += 1;
        let member = Member { name: name.clone(), room: room.clone(), since: self.version };
        self.people.insert(id.to_owned(), member);

        let joined = Frame::Joined { room: &room, connection_id: id, name: &name };
        actions.send.push(Message::to_others(&room, joined.encode()));
        let (version, members) = (self.version, self.people_in(&room));
        let callback_url = &*context.callback_url;
        let welcome = Frame::Welcome { connection_id: id, callback_url, room: &room, name: &name, version, members };
        actions.send.push(welcome.to_sender());
        actions.send.push(Message::to_others(&room, self.members(&room)));
        Ok(actions)
    }

    /// Sends a text to everybody in the sender's room, including the sender.
    fn send_message(&self, context: &RequestContext, text: &Text) -> Result<Actions, Refusal> {
        let (from, at) = (&*context.connection_id, context.request_time_epoch);
        let Member { name, room, .. } = self.people.get(from).ok_or(Refusal::NotJoined)?;
        let message = Frame::Message { room, from, name, text: &text.0, at };
        Ok(Actions { send: vec![Message::to_room(room, message.encode())], ..Actions::default() })
    }

    /// Removes a person. Returns the room and the message to it, or `None` if the person was in no room.
    fn leave(&mut self, id: &str, code: Option<u16>, reason: &str) -> Option<(String, String)> {
        let Member { name, room, .. } = self.people.remove(id)?;
        self.version += 1;
        let left = Frame::Left { room: &room, connection_id: id, name: &name, code, reason }.encode();
        Some((room, left))
    }

    fn members(&self, room: &str) -> String {
        Frame::Members { room, version: self.version, members: self.people_in(room) }.encode()
    }

    /// Returns the people in a room, in the order in which they joined.
    fn people_in(&self, room: &str) -> Vec<Person<'_>> {
        let mut members: Vec<_> = self.people.iter().filter(|(_, member)| member.room == room).collect();
        members.sort_unstable_by_key(|(_, member)| member.since);
        members.into_iter().map(|(id, Member { name, .. })| Person { connection_id: id, name }).collect()
    }
}

impl Frame<'_> {
    fn to_sender(&self) -> Message {
        Message::to_sender(self.encode())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(id: &str, event_type: &str, route_key: &str, more: &Value) -> ProxyEvent {
        let mut event = json!({ "requestContext": {
            "routeKey": route_key, "eventType": event_type, "connectionId": id, "callbackUrl": "http://gateway/url",
            "requestTimeEpoch": 7, "disconnectStatusCode": more["code"], "disconnectReason": more["reason"],
        }});
        event["body"] = more["body"].is_object().then(|| more["body"].to_string()).into();
        serde_json::from_value(event).unwrap()
    }

    /// All messages of an answer, each with its receiver.
    fn said(actions: &Actions) -> Vec<(Value, Value)> {
        let parts = |message: &Message| {
            let mut whole = serde_json::to_value(message).unwrap();
            let data = whole.as_object_mut().unwrap().remove("data").unwrap();
            (whole, serde_json::from_str(data.as_str().unwrap()).unwrap())
        };
        actions.send.iter().map(parts).collect()
    }

    fn join(chat: &mut Chat, id: &str, room: &str, name: &str) -> Actions {
        chat.handle(&event(id, "MESSAGE", "join", &json!({ "body": { "room": room, "name": name } })))
    }

    fn say(chat: &mut Chat, id: &str, text: &str) -> Actions {
        chat.handle(&event(id, "MESSAGE", "sendMessage", &json!({ "body": { "text": text } })))
    }

    fn person(id: &str, name: &str) -> Value {
        json!({ "connectionId": id, "name": name })
    }

    #[test]
    fn a_join_welcomes_the_new_one_and_tells_the_others() {
        let mut chat = Chat::new(10);
        join(&mut chat, "a", "lobby", "Ada");
        let actions = join(&mut chat, "b", "lobby", "Bob");
        assert_eq!((&*actions.join, &*actions.leave), (&["lobby".to_owned()][..], &[][..]));
        assert_eq!(actions.user.as_deref(), Some("Bob"));
        let members = [person("a", "Ada"), person("b", "Bob")];
        let others = json!({ "group": "lobby", "except": ["self"] });
        let welcome = json!({
            "type": "welcome", "connectionId": "b", "callbackUrl": "http://gateway/url", "room": "lobby", "name": "Bob",
            "version": 12, "members": members
        });
        assert_eq!(
            said(&actions),
            [
                (others.clone(), json!({ "type": "joined", "room": "lobby", "connectionId": "b", "name": "Bob" })),
                (json!({ "connection": "self" }), welcome),
                (others, json!({ "type": "members", "room": "lobby", "version": 12, "members": members })),
            ]
        );
    }

    #[test]
    fn a_message_is_one_push_to_the_room_of_its_sender() {
        let mut chat = Chat::new(0);
        join(&mut chat, "a", "lobby", "Ada");
        join(&mut chat, "b", "lobby", "Bob");
        let actions = say(&mut chat, "b", "hi");
        let message = json!({ "type": "message", "room": "lobby", "from": "b", "name": "Bob", "text": "hi", "at": 7 });
        assert_eq!(said(&actions), [(json!({ "group": "lobby" }), message)]);
        assert_eq!(actions, Actions { send: say(&mut chat, "b", "hi").send, ..Actions::default() });
    }

    #[test]
    fn joining_another_room_leaves_the_first() {
        let mut chat = Chat::new(0);
        join(&mut chat, "a", "lobby", "Ada");
        join(&mut chat, "b", "lobby", "Bob");
        let actions = join(&mut chat, "b", "help", "Bob");
        assert_eq!((&*actions.leave, &*actions.join), (&["lobby".to_owned()][..], &["help".to_owned()][..]));
        let said = said(&actions);
        let types: Vec<_> = said.iter().map(|(to, data)| (to["group"].as_str(), data["type"].as_str())).collect();
        let [lobby, help] = [Some("lobby"), Some("help")];
        let kinds = ["left", "members", "joined", "welcome", "members"].map(Some);
        assert_eq!(types, [lobby, lobby, help, None, help].into_iter().zip(kinds).collect::<Vec<_>>());
        assert_eq!(said[0].1["reason"], "went to another room");
        assert_eq!(said[1].1["members"], json!([person("a", "Ada")]));
    }

    #[test]
    fn joining_again_renames_and_leaves_nothing() {
        let mut chat = Chat::new(0);
        join(&mut chat, "a", "lobby", "Ada");
        let actions = join(&mut chat, "a", "lobby", "Ada L.");
        assert!(actions.leave.is_empty());
        let said = said(&actions);
        assert_eq!((&said[0].1["reason"], said.len()), (&json!("joins again"), 4));
        assert!(said.iter().all(|(to, _)| to["except"] == json!(["self"]) || to["connection"] == "self"));
        assert_eq!(said[3].1["members"], json!([person("a", "Ada L.")]));
    }

    #[test]
    fn bounds_refuse_and_leave_everybody_where_they_are() {
        let mut chat = Chat::new(0);
        let refusal = |actions: Actions| said(&actions)[0].1["message"].as_str().map(str::to_owned);
        for index in 0..PEOPLE_MAX {
            join(&mut chat, &format!("m{index}"), &format!("r{}", index / MEMBERS_MAX), "M");
        }
        assert_eq!(refusal(join(&mut chat, "m0", "r1", "M")), Some(Refusal::RoomFull.to_string()));
        assert_eq!(refusal(join(&mut chat, "new", "new", "M")), Some(Refusal::ChatFull.to_string()));
        assert_eq!(refusal(say(&mut chat, "new", "hi")), Some(Refusal::NotJoined.to_string()));
        assert_eq!(said(&say(&mut chat, "m0", "hi"))[0].0, json!({ "group": "r0" }));
        assert_eq!(join(&mut chat, "m0", "r0", "Renamed").user.as_deref(), Some("Renamed"));
        assert_eq!(join(&mut chat, "m0", "new", "M").leave, ["r0"]);
    }

    #[test]
    fn a_disconnect_tells_the_room_code_and_reason_once() {
        let mut chat = Chat::new(0);
        join(&mut chat, "a", "lobby", "Ada");
        join(&mut chat, "b", "lobby", "Bob");
        let end = event("b", "DISCONNECT", "$disconnect", &json!({ "code": 1001, "reason": "Going away" }));
        let said = said(&chat.handle(&end));
        let left = json!({
            "type": "left", "room": "lobby", "connectionId": "b", "name": "Bob", "code": 1001, "reason": "Going away"
        });
        let lobby = json!({ "group": "lobby" });
        let members = json!({ "type": "members", "room": "lobby", "version": 3, "members": [person("a", "Ada")] });
        assert_eq!(said, [(lobby.clone(), left), (lobby, members)]);
        assert_eq!(chat.handle(&end), Actions::default());
        chat.handle(&event("a", "DISCONNECT", "$disconnect", &json!({ "code": 1000, "reason": "" })));
        assert!(chat.people.is_empty());
    }

    #[test]
    fn the_sender_learns_what_is_wrong_with_a_message() {
        let mut chat = Chat::new(0);
        let half = event("a", "MESSAGE", "join", &json!({ "body": { "room": "lobby" } }));
        let answer = said(&chat.handle(&half));
        let error = json!({ "type": "error", "message": "join needs the strings `room` and `name`" });
        assert_eq!(answer, [(json!({ "connection": "self" }), error)]);
        let unknown = event("a", "MESSAGE", "$default", &json!({ "body": { "what": 1 } }));
        assert_eq!(said(&chat.handle(&unknown))[0].1["type"], "hint");
    }
}
