use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut, TryGetError};
use thiserror::Error;

use super::{Audience, Except, PushCounts};
use crate::data_type::DataType;
use crate::id::{CONNECTION_ID_BYTES, ConnectionId};
use crate::stage_names::StageNames;
use crate::topic::{TopicKind, TopicName};
use crate::trace_context::{TRACE_PLACE_BYTES, TraceContext};

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
    /// Sends a message. Answered with [`PushResult`]. Only places in sampled traces are sent.
    Push { api_id: Arc<str>, stage: Arc<str>, audience: Audience, data_type: DataType, trace: Option<TraceContext> },
    /// Puts connections into a group, or takes them out. Answered with [`ChangeResult`].
    Change { api_id: Arc<str>, group: TopicName, connections: Vec<ConnectionId>, join: bool },
    /// Asks for the number of members, and up to `limit` ids behind `after`. Answered with [`MemberPage`].
    List { api_id: Arc<str>, name: TopicName, after: Option<ConnectionId>, limit: u32 },
    /// Asks for the groups of a connection. Answered with [`GroupNames`].
    Names { api_id: Arc<str>, connection: ConnectionId },
    /// Closes all connections of a user. Answered with [`MemberPage`], without ids.
    Close { api_id: Arc<str>, user: TopicName, code: u16, reason: Arc<str> },
    /// Carries another request, limited to `stages`: a named connection of any other stage is treated as gone. Only for
    /// a peer whose link has protocol 3.
    Within { stages: StageNames<Bytes>, request: Box<GroupRequest> },
}

/// The result of a push on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushResult {
    pub counts: PushCounts,
    /// The named connections that are gone.
    pub gone: Vec<ConnectionId>,
}

/// The result of a change of members on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeResult {
    pub gone: Vec<ConnectionId>,
    /// Connections that are in as many groups as they may be.
    pub full: Vec<ConnectionId>,
}

/// A page of the members of a group, or of the connections of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberPage {
    pub count: u64,
    pub ids: Vec<ConnectionId>,
}

/// Groups of a connection; `None` if it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNames(pub Option<Vec<TopicName>>);

/// An error: the bytes are no question or answer about groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a valid question or answer about groups")]
pub struct MalformedGroupRequest;

type Read<T> = Result<T, MalformedGroupRequest>;

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
                trace.into_iter().for_each(|trace| out.put_slice(&trace.to_bytes()));
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
                // The names of an API's stages are far shorter than this maximum.
                out.put_u16(u16::try_from(stages.bytes().len()).unwrap_or(u16::MAX));
                out.put_slice(stages.bytes());
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
        let length = usize::from(bytes.try_get_u16()?);
        let (names, request) = bytes.split_at_checked(length).ok_or(MalformedGroupRequest)?;
        let stages = StageNames::parse(Bytes::copy_from_slice(names)).ok_or(MalformedGroupRequest)?;
        Ok(GroupRequest::Within { stages, request: Box::new(GroupRequest::decode_plain(request)?) })
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
        end(rest, request)
    }
}

impl PushResult {
    /// Encodes the answer.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let PushCounts { delivered, gone, full, pending } = self.counts;
        [delivered, gone, full, pending].into_iter().for_each(|count| out.put_u64(count as u64));
        put_ids(&mut out, &self.gone);
        out.freeze()
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// [`MalformedGroupRequest`]: the bytes are not a valid `PushResult`.
    pub fn decode(mut bytes: &[u8]) -> Read<Self> {
        let rest = &mut bytes;
        let mut count = || usize::try_from(rest.try_get_u64()?).map_err(|_| MalformedGroupRequest);
        let counts = PushCounts { delivered: count()?, gone: count()?, full: count()?, pending: count()? };
        let gone = ids(rest)?;
        end(rest, PushResult { counts, gone })
    }
}

impl ChangeResult {
    /// Encodes the answer.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        put_ids(&mut out, &self.gone);
        put_ids(&mut out, &self.full);
        out.freeze()
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// [`MalformedGroupRequest`]: the bytes are not a valid `ChangeResult`.
    pub fn decode(mut bytes: &[u8]) -> Read<Self> {
        let rest = &mut bytes;
        let changed = ChangeResult { gone: ids(rest)?, full: ids(rest)? };
        end(rest, changed)
    }
}

impl MemberPage {
    /// Encodes the answer.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u64(self.count);
        put_ids(&mut out, &self.ids);
        out.freeze()
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// [`MalformedGroupRequest`]: the bytes are not a valid `MemberPage`.
    pub fn decode(mut bytes: &[u8]) -> Read<Self> {
        let rest = &mut bytes;
        let listed = MemberPage { count: rest.try_get_u64()?, ids: ids(rest)? };
        end(rest, listed)
    }
}

impl GroupNames {
    /// Encodes the answer.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(self.0.is_some().into());
        put_names(&mut out, self.0.as_deref().unwrap_or_default());
        out.freeze()
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// [`MalformedGroupRequest`]: the bytes are not a valid `GroupNames`.
    pub fn decode(mut bytes: &[u8]) -> Read<Self> {
        let rest = &mut bytes;
        let is_there = rest.try_get_u8()? != 0;
        let names = names(rest)?;
        end(rest, GroupNames(is_there.then_some(names)))
    }
}

fn end<T>(rest: &[u8], read: T) -> Read<T> {
    if rest.is_empty() { Ok(read) } else { Err(MalformedGroupRequest) }
}

/// Appends a text of at most 65 535 bytes after its length. Ids, names and reasons are all far shorter.
fn put_text(out: &mut BytesMut, text: &str) {
    let text = &text[..text.floor_char_boundary(u16::MAX.into())];
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

fn text<'a>(rest: &mut &'a [u8]) -> Read<&'a str> {
    let length = usize::from(rest.try_get_u16()?);
    let (text, behind) = rest.split_at_checked(length).ok_or(MalformedGroupRequest)?;
    *rest = behind;
    std::str::from_utf8(text).map_err(|_| MalformedGroupRequest)
}

fn put_name(out: &mut BytesMut, name: &TopicName) {
    out.put_u8(match name.kind() {
        TopicKind::Group => 0,
        TopicKind::User => 1,
    });
    put_text(out, name.as_str());
}

fn name(rest: &mut &[u8]) -> Read<TopicName> {
    let name = match rest.try_get_u8()? {
        0 => TopicName::group(text(rest)?),
        1 => TopicName::user(text(rest)?),
        _ => return Err(MalformedGroupRequest),
    };
    name.map_err(|_| MalformedGroupRequest)
}

fn put_names(out: &mut BytesMut, names: &[TopicName]) {
    // More names than that do not fit into a frame of the link.
    out.put_u32(u32::try_from(names.len()).unwrap_or(u32::MAX));
    names.iter().for_each(|name| put_name(out, name));
}

fn names(rest: &mut &[u8]) -> Read<Vec<TopicName>> {
    let count = rest.try_get_u32()?;
    (0..count).map(|_| name(rest)).collect()
}

fn put_ids<'a>(out: &mut BytesMut, ids: impl IntoIterator<Item = &'a ConnectionId>) {
    let at = out.len();
    out.put_u32(0);
    ids.into_iter().for_each(|id| out.put_slice(&id.to_bytes()));
    let count = (out.len() - at - size_of::<u32>()) / CONNECTION_ID_BYTES;
    out[at..at + size_of::<u32>()].copy_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

fn ids<T: FromIterator<ConnectionId>>(rest: &mut &[u8]) -> Read<T> {
    let count = usize::try_from(rest.try_get_u32()?).map_err(|_| MalformedGroupRequest)?;
    let length = count.checked_mul(CONNECTION_ID_BYTES).ok_or(MalformedGroupRequest)?;
    let (ids, behind) = rest.split_at_checked(length).ok_or(MalformedGroupRequest)?;
    *rest = behind;
    Ok(ids.as_chunks::<CONNECTION_ID_BYTES>().0.iter().map(|id| ConnectionId::from_bytes(*id)).collect())
}

fn trace(rest: &mut &[u8]) -> Read<TraceContext> {
    let mut place = [0; TRACE_PLACE_BYTES];
    rest.try_copy_to_slice(&mut place)?;
    TraceContext::from_bytes(place).ok_or(MalformedGroupRequest)
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
    use crate::id::NodeId;

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
    fn what_is_answered_is_heard() {
        let id = ConnectionId::random(NodeId::random());
        let counts = PushCounts { delivered: 1, gone: 2, full: 3, pending: 4 };
        let pushed = PushResult { counts, gone: vec![id] };
        assert_eq!(PushResult::decode(&pushed.encode()), Ok(pushed));
        let changed = ChangeResult { gone: vec![id], full: vec![id, id] };
        assert_eq!(ChangeResult::decode(&changed.encode()), Ok(changed));
        let listed = MemberPage { count: 7, ids: vec![id] };
        assert_eq!(MemberPage::decode(&listed.encode()), Ok(listed));
        for names in
            [GroupNames(None), GroupNames(Some(vec![TopicName::group("a").unwrap()])), GroupNames(Some(Vec::new()))]
        {
            assert_eq!(GroupNames::decode(&names.encode()), Ok(names));
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (GroupRequest::decode(&bytes), PushResult::decode(&bytes), ChangeResult::decode(&bytes));
            let _ = (MemberPage::decode(&bytes), GroupNames::decode(&bytes));
        }
    }
}
