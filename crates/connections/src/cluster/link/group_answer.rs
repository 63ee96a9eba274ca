use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::MalformedGroupRequest;
use super::codec::{end, ids, names, put_ids, put_names};
use super::group_request::Read;
use crate::groups::PushCounts;
use tidegate_core::id::ConnectionId;
use tidegate_core::topic::TopicName;

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
        Ok(end(rest, PushResult { counts, gone })?)
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
        Ok(end(rest, changed)?)
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
        Ok(end(rest, listed)?)
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
        Ok(end(rest, GroupNames(is_there.then_some(names)))?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use tidegate_core::id::{CONNECTION_ID_BYTES, NodeId};

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

    #[test]
    fn every_answer_has_the_bytes_that_earlier_versions_read() {
        let (one, once) = ([9; CONNECTION_ID_BYTES], [0, 0, 0, 1]);
        let id = ConnectionId::from_bytes(one);
        let counts = PushCounts { delivered: 1, gone: 2, full: 3, pending: 4 };
        let number = |number: u8| [0, 0, 0, 0, 0, 0, 0, number];
        let numbers = [1, 2, 3, 4].map(number).concat();
        assert_eq!(PushResult { counts, gone: vec![id] }.encode(), [&numbers[..], &once, &one].concat());
        let changed = ChangeResult { gone: vec![id], full: Vec::new() };
        assert_eq!(changed.encode(), [&once[..], &one, &[0; 4]].concat());
        assert_eq!(MemberPage { count: 7, ids: vec![id] }.encode(), [&number(7)[..], &once, &one].concat());
        assert_eq!(GroupNames(None).encode(), [0; 5].as_slice());
        let names = GroupNames(Some(vec![TopicName::group("room").unwrap()]));
        assert_eq!(names.encode(), b"\x01\x00\x00\x00\x01\x00\x00\x04room".as_slice());
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (PushResult::decode(&bytes), ChangeResult::decode(&bytes));
            let _ = (MemberPage::decode(&bytes), GroupNames::decode(&bytes));
        }
    }
}
