use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::event::{Join, Text};
use super::frame::{Frame, Person};

/// Most rooms with somebody in them; a join that needs one more is refused.
pub(super) const ROOMS_MAX: usize = 100;

/// Most members of one room; a further join is refused. The `members` frame of a full room stays far below the
/// 128 KiB that one post may have.
pub(super) const MEMBERS_MAX: usize = 100;

pub(super) type ConnectionId = Arc<str>;

/// One frame for one connection.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) to: ConnectionId,
    pub(super) frame: Bytes,
}

/// Why somebody leaves a room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving<'a> {
    /// The close code, if the connection ended.
    pub(super) code: Option<u16>,
    pub(super) reason: &'a str,
}

/// A request that the chat does not carry out; `Display` is the sentence for the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("join a room first")]
    NotJoined,
    #[error("this room is full: {MEMBERS_MAX} are in it")]
    RoomFull,
    #[error("there are {ROOMS_MAX} rooms already: join one of them")]
    TooManyRooms,
}

/// Who is in which room. Every change returns the posts that it causes, in the order in which they are to be sent.
///
/// A connection is in one room at most; a room exists while somebody is in it.
#[derive(Debug, Default)]
pub(super) struct Chat {
    members: HashMap<ConnectionId, Member>,
    /// Each room's members in the order in which they joined.
    rooms: HashMap<String, Vec<ConnectionId>>,
}

#[derive(Debug)]
struct Member {
    name: String,
    room: String,
}

impl Chat {
    /// Brings a connection into a room, out of the one that it was in. Refused, it stays where it was.
    pub(super) fn join(&mut self, id: &ConnectionId, callback_url: &str, join: Join) -> Result<Vec<Post>, Refusal> {
        let previous_room = self.members.get(id).map(|member| member.room.as_str());
        if previous_room != Some(join.room.as_str()) {
            match self.rooms.get(&join.room) {
                Some(room) if room.len() >= MEMBERS_MAX => return Err(Refusal::RoomFull),
                None if self.rooms.len() >= ROOMS_MAX => return Err(Refusal::TooManyRooms),
                _ => {}
            }
        }
        let reason = if previous_room == Some(join.room.as_str()) { "joins again" } else { "went to another room" };
        let mut posts = self.leave(id, Leaving { code: None, reason });

        let Join { room, name } = join;
        let others = self.rooms.entry(room.clone()).or_default();
        let joined = Frame::Joined { room: &room, connection_id: id, name: &name }.encode();
        posts.extend(others.iter().map(|to| Post { to: to.clone(), frame: joined.clone() }));
        others.push(id.clone());
        self.members.insert(id.clone(), Member { name: name.clone(), room: room.clone() });

        let members = self.people(&room);
        let welcome = Frame::Welcome { connection_id: id, callback_url, room: &room, name: &name, members }.encode();
        posts.push(Post { to: id.clone(), frame: welcome });
        posts.extend(self.members_frames(&room).into_iter().filter(|post| post.to != *id));
        Ok(posts)
    }

    /// Sends a text to everybody in the sender's room, the sender too. `at` is in milliseconds of Unix time.
    pub(super) fn send_message(&self, id: &ConnectionId, text: &Text, at: u64) -> Result<Vec<Post>, Refusal> {
        let Member { name, room } = self.members.get(id).ok_or(Refusal::NotJoined)?;
        let message = Frame::Message { room, from: id, name, text: &text.0, at };
        Ok(self.to_room(room, &message))
    }

    /// Takes a connection out of its room. Nothing happens if it is in none, so that a `$disconnect` may come twice.
    pub(super) fn leave(&mut self, id: &ConnectionId, leaving: Leaving<'_>) -> Vec<Post> {
        let Some(Member { name, room }) = self.members.remove(id) else { return Vec::new() };
        if let Some(members) = self.rooms.get_mut(&room) {
            members.retain(|member| member != id);
            if members.is_empty() {
                self.rooms.remove(&room);
            }
        }
        let Leaving { code, reason } = leaving;
        let left = Frame::Left { room: &room, connection_id: id, name: &name, code, reason };
        let mut posts = self.to_room(&room, &left);
        posts.extend(self.members_frames(&room));
        posts
    }

    fn members_frames(&self, room: &str) -> Vec<Post> {
        self.to_room(room, &Frame::Members { room, members: self.people(room) })
    }

    fn to_room(&self, room: &str, frame: &Frame<'_>) -> Vec<Post> {
        let frame = frame.encode();
        self.ids(room).iter().map(|to| Post { to: to.clone(), frame: frame.clone() }).collect()
    }

    fn people(&self, room: &str) -> Vec<Person<'_>> {
        let person =
            |id| self.members.get_key_value(id).map(|(id, Member { name, .. })| Person { connection_id: id, name });
        self.ids(room).iter().filter_map(person).collect()
    }

    fn ids(&self, room: &str) -> &[ConnectionId] {
        self.rooms.get(room).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(chat: &mut Chat, id: &str, room: &str, name: &str) -> Result<Vec<String>, Refusal> {
        let request = Join { room: room.to_owned(), name: name.to_owned() };
        chat.join(&id.into(), "http://gateway/url", request).map(|posts| texts(&posts))
    }

    fn texts(posts: &[Post]) -> Vec<String> {
        posts.iter().map(|post| format!("{} {}", post.to, String::from_utf8_lossy(&post.frame))).collect()
    }

    #[test]
    fn a_join_welcomes_the_new_one_and_tells_the_others() {
        let mut chat = Chat::default();
        join(&mut chat, "a", "lobby", "Ada").unwrap();
        let posts = join(&mut chat, "b", "lobby", "Bob").unwrap();
        let members = r#""members":[{"connectionId":"a","name":"Ada"},{"connectionId":"b","name":"Bob"}]"#;
        assert_eq!(
            posts,
            [
                r#"a {"type":"joined","room":"lobby","connectionId":"b","name":"Bob"}"#.to_owned(),
                format!(
                    r#"b {{"type":"welcome","connectionId":"b","callbackUrl":"http://gateway/url","room":"lobby","name":"Bob",{members}}}"#
                ),
                format!(r#"a {{"type":"members","room":"lobby",{members}}}"#),
            ]
        );
    }

    #[test]
    fn joining_another_room_leaves_the_first() {
        let mut chat = Chat::default();
        join(&mut chat, "a", "lobby", "Ada").unwrap();
        join(&mut chat, "b", "lobby", "Bob").unwrap();
        let posts = join(&mut chat, "b", "help", "Bob").unwrap();
        let left =
            r#"a {"type":"left","room":"lobby","connectionId":"b","name":"Bob","reason":"went to another room"}"#;
        assert_eq!(posts[0], left);
        assert!(posts[1].starts_with(r#"a {"type":"members""#), "{posts:?}");
        assert!(posts[2].starts_with(r#"b {"type":"welcome""#), "{posts:?}");
        assert_eq!(posts.len(), 3);
        let hi = chat.send_message(&"b".into(), &Text("hi".to_owned()), 7).map(|posts| texts(&posts)).unwrap();
        assert_eq!(hi, [r#"b {"type":"message","room":"help","from":"b","name":"Bob","text":"hi","at":7}"#]);
    }

    #[test]
    fn bounds_refuse_and_leave_everybody_where_they_are() {
        let mut chat = Chat::default();
        for index in 0..MEMBERS_MAX {
            join(&mut chat, &format!("m{index}"), "full", "M").unwrap();
        }
        join(&mut chat, "a", "mine", "Ada").unwrap();
        assert_eq!(join(&mut chat, "a", "full", "Ada"), Err(Refusal::RoomFull));
        for index in 2..ROOMS_MAX {
            join(&mut chat, &format!("r{index}"), &format!("room {index}"), "R").unwrap();
        }
        assert_eq!(join(&mut chat, "a", "one more", "Ada"), Err(Refusal::TooManyRooms));
        assert_eq!(chat.send_message(&"a".into(), &Text("hi".to_owned()), 0).unwrap().len(), 1);
        assert_eq!(chat.send_message(&"?".into(), &Text("hi".to_owned()), 0).unwrap_err(), Refusal::NotJoined);
        assert!(join(&mut chat, "m0", "full", "Renamed").is_ok());
    }

    #[test]
    fn leaving_twice_tells_the_room_once_and_an_empty_room_goes() {
        let mut chat = Chat::default();
        join(&mut chat, "a", "lobby", "Ada").unwrap();
        join(&mut chat, "b", "lobby", "Bob").unwrap();
        let leaving = Leaving { code: Some(1001), reason: "Going away" };
        let posts = texts(&chat.leave(&"b".into(), leaving));
        let left =
            r#"a {"type":"left","room":"lobby","connectionId":"b","name":"Bob","code":1001,"reason":"Going away"}"#;
        assert_eq!(posts[0], left);
        assert!(chat.leave(&"b".into(), leaving).is_empty());
        assert!(chat.leave(&"a".into(), leaving).is_empty());
        assert!(chat.rooms.is_empty() && chat.members.is_empty());
    }
}
