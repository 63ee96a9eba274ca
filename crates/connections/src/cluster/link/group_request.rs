use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut, TryGetError};
use thiserror::Error;

use super::codec::{
    MalformedField, end, ids, name, names, put_ids, put_name, put_names, put_stages, put_text, put_trace, stages, text,
    trace,
};
use crate::groups::{Audience, Except};
use tidegate_core::data_type::DataType;
use tidegate_core::id::ConnectionId;
use tidegate_core::stage_names::StageNames;
use tidegate_core::topic::TopicName;
use tidegate_core::trace_context::TraceContext;

const PUSH: u8 = 1;
const JOIN: u8 = 2;
const LEAVE: u8 = 3;
const LIST: u8 = 4;
const NAMES: u8 = 5;
const CLOSE: u8 = 6;
const WITHIN: u8 = 7;

/// Flags of a push.
const BINARY: u8 = 1;
const EVERYBODY: u8 = 2;
/// Flag: a place in a trace follows at the end.
const TRACED: u8 = 4;

/// A question from one node to another about the other's own connections. The data of a push are sent beside it.
///
/// Numbers are big-endian; a list follows four bytes with its length, a text two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRequest {
    /// Sends a message. Answered with [`PushResult`](super::PushResult). Only places in sampled traces are sent.
    Push { api_id: Arc<str>, stage: Arc<str>, audience: Audience, data_type: DataType, trace: Option<TraceContext> },
    /// Puts connections into a group, or takes them out. Answered with [`ChangeResult`](super::ChangeResult).
    Change { api_id: Arc<str>, group: TopicName, connections: Vec<ConnectionId>, join: bool },
    /// Asks for the number of members, and up to `limit` ids behind `after`. Answered with [`MemberPage`](super::MemberPage).
    List { api_id: Arc<str>, name: TopicName, after: Option<ConnectionId>, limit: u32 },
    /// Asks for the groups of a connection. Answered with [`GroupNames`](super::GroupNames).
    Names { api_id: Arc<str>, connection: ConnectionId },
    /// Closes all connections of a user. Answered with [`MemberPage`](super::MemberPage), without ids.
    Close { api_id: Arc<str>, user: TopicName, code: u16, reason: Arc<str> },
    /// Carries another request, limited to `stages`: a named connection of any other stage is treated as gone. Only for
    /// a peer whose link has protocol 3.
    Within { stages: StageNames<Bytes>, request: Box<GroupRequest> },
}

/// An error: the bytes are no question or answer about groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a valid question or answer about groups")]
pub struct MalformedGroupRequest;

pub(super) type Read<T> = Result<T, MalformedGroupRequest>;

impl GroupRequest {
    /// Encodes the question.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            GroupRequest::Push { api_id, stage, audience, data_type, trace } => {
                let trace = trace.filter(|trace| trace.sampled);
                let Audience { stage: everybody, topics, connections, except } = audience;
                out.put_u8(PUSH);
                put_text(&mut out, api_id);
                put_text(&mut out, stage);
                let flags = [
                    (BINARY, *data_type == DataType::Binary),
                    (EVERYBODY, everybody.is_some()),
                    (TRACED, trace.is_some()),
                ];
                out.put_u8(flags.into_iter().filter_map(|(flag, is_set)| is_set.then_some(flag)).sum());
                put_names(&mut out, topics);
                put_ids(&mut out, connections);
                put_ids(&mut out, &except.0);
                put_trace(&mut out, trace);
            }
            GroupRequest::Change { api_id, group, connections, join } => {
                out.put_u8(if *join { JOIN } else { LEAVE });
                put_text(&mut out, api_id);
                put_name(&mut out, group);
                put_ids(&mut out, connections);
            }
            GroupRequest::List { api_id, name, after, limit } => {
                out.put_u8(LIST);
                put_text(&mut out, api_id);
                put_name(&mut out, name);
                put_ids(&mut out, after);
                out.put_u32(*limit);
            }
            GroupRequest::Names { api_id, connection } => {
                out.put_u8(NAMES);
                put_text(&mut out, api_id);
                put_ids(&mut out, [connection]);
            }
            GroupRequest::Close { api_id, user, code, reason } => {
                out.put_u8(CLOSE);
                put_text(&mut out, api_id);
                put_name(&mut out, user);
                out.put_u16(*code);
                put_text(&mut out, reason);
            }
            GroupRequest::Within { stages, request } => {
                out.put_u8(WITHIN);
                put_stages(&mut out, stages);
                out.put_slice(&request.encode());
            }
        }
        out.freeze()
    }

    /// Reads a question.
    ///
    /// # Errors
    /// [`MalformedGroupRequest`]: the bytes are not a valid question, or something follows it.
    pub fn decode(mut bytes: &[u8]) -> Read<Self> {
        if bytes.first() != Some(&WITHIN) {
            return GroupRequest::decode_plain(bytes);
        }
        bytes.advance(1);
        let stages = stages(&mut bytes, Bytes::copy_from_slice)?;
        Ok(GroupRequest::Within { stages, request: Box::new(GroupRequest::decode_plain(bytes)?) })
    }

    /// Decodes a request that does not carry another one.
    fn decode_plain(mut bytes: &[u8]) -> Read<Self> {
        let rest = &mut bytes;
        let kind = rest.try_get_u8()?;
        let api_id: Arc<str> = text(rest)?.into();
        let request = match kind {
            PUSH => {
                let stage: Arc<str> = text(rest)?.into();
                let flags = rest.try_get_u8()?;
                let everybody = (flags & EVERYBODY != 0).then(|| Arc::clone(&stage));
                let (topics, connections) = (names(rest)?, ids(rest)?);
                let except = Except(ids::<HashSet<_>>(rest)?);
                let audience = Audience { stage: everybody, topics, connections, except };
                let trace = if flags & TRACED == 0 { None } else { Some(trace(rest)?) };
                let data_type = if flags & BINARY != 0 { DataType::Binary } else { DataType::Text };
                GroupRequest::Push { api_id, stage, audience, data_type, trace }
            }
            JOIN | LEAVE => {
                GroupRequest::Change { api_id, group: name(rest)?, connections: ids(rest)?, join: kind == JOIN }
            }
            LIST => {
                let (name, after) = (name(rest)?, ids::<Vec<_>>(rest)?.pop());
                GroupRequest::List { api_id, name, after, limit: rest.try_get_u32()? }
            }
            NAMES => {
                GroupRequest::Names { api_id, connection: ids::<Vec<_>>(rest)?.pop().ok_or(MalformedGroupRequest)? }
            }
            CLOSE => {
                let (user, code) = (name(rest)?, rest.try_get_u16()?);
                GroupRequest::Close { api_id, user, code, reason: text(rest)?.into() }
            }
            _ => return Err(MalformedGroupRequest),
        };
        Ok(end(rest, request)?)
    }
}

impl From<MalformedField> for MalformedGroupRequest {
    fn from(_: MalformedField) -> Self {
        MalformedGroupRequest
    }
}

impl From<TryGetError> for MalformedGroupRequest {
    fn from(_: TryGetError) -> Self {
        MalformedGroupRequest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use tidegate_core::id::{CONNECTION_ID_BYTES, NodeId};

    fn requests() -> Vec<GroupRequest> {
        let id = || ConnectionId::random(NodeId::random());
        let (group, user) = (TopicName::group("room-1").unwrap(), TopicName::user("Ä n\n").unwrap());
        let (api_id, stage): (Arc<str>, Arc<str>) = ("chat".into(), "prod".into());
        let audience = Audience {
            stage: Some(Arc::clone(&stage)),
            topics: vec![group.clone(), user.clone()],
            connections: vec![id(), id()],
            except: Except([id()].into()),
        };
        let trace = Some(TraceContext { trace_id: 7, span_id: 8, sampled: true });
        let everybody = GroupRequest::Push {
            api_id: api_id.clone(),
            stage: stage.clone(),
            audience,
            data_type: DataType::Binary,
            trace,
        };
        let audience = Audience::topic(group.clone());
        let connections = vec![id()];
        vec![
            everybody,
            GroupRequest::Push { api_id: api_id.clone(), stage, audience, data_type: DataType::Text, trace: None },
            GroupRequest::Change {
                api_id: api_id.clone(),
                group: group.clone(),
                connections: connections.clone(),
                join: true,
            },
            GroupRequest::Change { api_id: api_id.clone(), group: group.clone(), connections, join: false },
            GroupRequest::List { api_id: api_id.clone(), name: group, after: Some(id()), limit: 100 },
            GroupRequest::List { api_id: api_id.clone(), name: user.clone(), after: None, limit: 0 },
            GroupRequest::Names { api_id: api_id.clone(), connection: id() },
            GroupRequest::Within {
                stages: StageNames::new(["prod", "dev"]),
                request: Box::new(GroupRequest::Names { api_id: api_id.clone(), connection: id() }),
            },
            GroupRequest::Close { api_id, user, code: 4001, reason: "kicked".into() },
        ]
    }

    #[test]
    fn what_is_asked_is_heard_and_nothing_shorter_or_longer() {
        for request in requests() {
            let bytes = request.encode();
            assert_eq!(GroupRequest::decode(&bytes), Ok(request.clone()));
            for length in 0..bytes.len() {
                assert_eq!(
                    GroupRequest::decode(&bytes[..length]),
                    Err(MalformedGroupRequest),
                    "{request:?} cut to {length}"
                );
            }
            assert_eq!(GroupRequest::decode(&[&bytes[..], &[0]].concat()), Err(MalformedGroupRequest), "{request:?}");
        }
    }

    #[test]
    fn an_ask_within_an_ask_has_no_other_within_it() {
        let stages = || StageNames::new(["prod"]);
        let names = GroupRequest::Names { api_id: "chat".into(), connection: ConnectionId::random(NodeId::random()) };
        let once = GroupRequest::Within { stages: stages(), request: Box::new(names) };
        let twice = GroupRequest::Within { stages: stages(), request: Box::new(once) };
        assert_eq!(GroupRequest::decode(&twice.encode()), Err(MalformedGroupRequest));
    }

    #[test]
    fn a_trace_that_is_not_made_does_not_travel() {
        let push = |trace| {
            let (api_id, stage) = ("chat".into(), "prod".into());
            GroupRequest::Push { api_id, stage, audience: Audience::default(), data_type: DataType::Text, trace }
        };
        let unsampled = TraceContext { trace_id: 7, span_id: 8, sampled: false };
        assert_eq!(push(Some(unsampled)).encode(), push(None).encode());
        let mut zero = push(Some(TraceContext { sampled: true, ..unsampled })).encode().to_vec();
        *zero.last_mut().unwrap() = 0;
        assert_eq!(GroupRequest::decode(&zero), Err(MalformedGroupRequest));
    }

    #[test]
    fn every_request_has_the_bytes_that_earlier_versions_read() {
        let check = |request: GroupRequest, expected: &[&[u8]]| {
            assert_eq!(request.encode(), expected.concat(), "{request:?}");
        };
        let (one, other) = ([9; CONNECTION_ID_BYTES], [8; CONNECTION_ID_BYTES]);
        let [id, except] = [one, other].map(ConnectionId::from_bytes);
        let (group, user) = (TopicName::group("room").unwrap(), TopicName::user("me").unwrap());
        let (api_id, stage): (Arc<str>, Arc<str>) = ("chat".into(), "prod".into());
        let once = [0, 0, 0, 1];
        let api = b"\x00\x04chat";
        let audience = Audience {
            stage: Some(Arc::clone(&stage)),
            topics: vec![group.clone(), user.clone()],
            connections: vec![id],
            except: Except([except].into()),
        };
        let trace = TraceContext { trace_id: 7, span_id: 8, sampled: true };
        let push = |audience, data_type, trace| {
            let (api_id, stage) = (Arc::clone(&api_id), Arc::clone(&stage));
            GroupRequest::Push { api_id, stage, audience, data_type, trace }
        };
        let names = b"\x00\x00\x00\x02\x00\x00\x04room\x01\x00\x02me";
        let place = [[0; 15].as_slice(), &[7], &[0; 7], &[8]].concat();
        check(
            push(audience, DataType::Binary, Some(trace)),
            &[&[1], api, b"\x00\x04prod\x07", names, &once, &one, &once, &other, &place],
        );
        check(push(Audience::default(), DataType::Text, None), &[&[1], api, b"\x00\x04prod\x00", &[0; 12]]);
        for (join, kind) in [(true, 2), (false, 3)] {
            let (api_id, group) = (Arc::clone(&api_id), group.clone());
            let change = GroupRequest::Change { api_id, group, connections: vec![id], join };
            check(change, &[&[kind], api, b"\x00\x00\x04room", &once, &one]);
        }
        let list =
            |after| GroupRequest::List { api_id: Arc::clone(&api_id), name: user.clone(), after, limit: 0x0102_0304 };
        check(list(None), &[&[4], api, b"\x01\x00\x02me", &[0; 4], &[1, 2, 3, 4]]);
        check(list(Some(id)), &[&[4], api, b"\x01\x00\x02me", &once, &one, &[1, 2, 3, 4]]);
        let names = || GroupRequest::Names { api_id: Arc::clone(&api_id), connection: id };
        check(names(), &[&[5], api, &once, &one]);
        let stages = StageNames::new(["prod", "dev"]);
        let within = GroupRequest::Within { stages, request: Box::new(names()) };
        check(within, &[&[7, 0, 9], b"\x03dev\x04prod", &[5], api, &once, &one]);
        let close = GroupRequest::Close { api_id: Arc::clone(&api_id), user, code: 4001, reason: "kicked".into() };
        check(close, &[&[6], api, b"\x01\x00\x02me", &[0x0f, 0xa1], b"\x00\x06kicked"]);
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = GroupRequest::decode(&bytes);
        }
    }
}
