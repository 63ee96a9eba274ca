use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::session::Outbox;
use tidegate_core::id::ConnectionId;

/// Most members that are kept side by side, in exactly the memory that they need; more are kept in a tree.
const FEW_MAX: usize = 16;

/// A connection that is a member of something, and the way to its socket.
#[derive(Clone, Debug)]
pub struct GroupMember {
    pub id: ConnectionId,
    pub outbox: Arc<Outbox>,
}

/// The members of one group or user, in the order of their ids.
#[derive(Debug)]
pub(super) enum Members {
    Few(Vec<GroupMember>),
    Many(BTreeMap<ConnectionId, Arc<Outbox>>),
}

impl Members {
    pub(super) fn one(member: GroupMember) -> Self {
        Members::Few(vec![member])
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Members::Few(few) => few.len(),
            Members::Many(many) => many.len(),
        }
    }

    /// Adds a member. Returns false if it was there before.
    pub(super) fn insert(&mut self, member: GroupMember) -> bool {
        match self {
            Members::Few(few) => match few.binary_search_by_key(&member.id, |member| member.id) {
                Ok(_) => false,
                Err(at) if few.len() < FEW_MAX => {
                    few.reserve_exact(1);
                    few.insert(at, member);
                    true
                }
                Err(_) => {
                    let all = std::mem::take(few).into_iter().chain([member]);
                    *self = Members::Many(all.map(|GroupMember { id, outbox }| (id, outbox)).collect());
                    true
                }
            },
            Members::Many(many) => many.insert(member.id, member.outbox).is_none(),
        }
    }

    /// Removes a member. Returns false if it was not there.
    pub(super) fn remove(&mut self, id: &ConnectionId) -> bool {
        let removed = match self {
            Members::Few(few) => match few.binary_search_by_key(id, |member| member.id) {
                Ok(at) => {
                    few.remove(at);
                    few.shrink_to_fit();
                    true
                }
                Err(_) => false,
            },
            Members::Many(many) => many.remove(id).is_some(),
        };
        if let Members::Many(many) = self
            && many.len() < FEW_MAX / 2
        {
            let few = std::mem::take(many).into_iter().map(|(id, outbox)| GroupMember { id, outbox });
            *self = Members::Few(few.collect());
        }
        removed
    }

    /// Returns all members.
    pub(super) fn all(&self) -> Vec<GroupMember> {
        match self {
            Members::Few(few) => few.clone(),
            Members::Many(many) => {
                many.iter().map(|(id, outbox)| GroupMember { id: *id, outbox: Arc::clone(outbox) }).collect()
            }
        }
    }

    /// Returns up to `limit` ids behind `after`, in their order.
    pub(super) fn page(&self, after: Option<&ConnectionId>, limit: usize) -> Vec<ConnectionId> {
        match self {
            Members::Few(few) => {
                let is_behind = |member: &&GroupMember| after.is_none_or(|after| member.id > *after);
                few.iter().filter(is_behind).map(|member| member.id).take(limit).collect()
            }
            Members::Many(many) => {
                let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
                many.range((from, Bound::Unbounded)).map(|(id, _)| *id).take(limit).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use tidegate_core::clock::Timestamp;
    use tidegate_core::id::CONNECTION_ID_BYTES;

    fn member(number: u8) -> GroupMember {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        bytes[CONNECTION_ID_BYTES - 1] = number;
        GroupMember { id: ConnectionId::from_bytes(bytes), outbox: Arc::new(Outbox::new(1024, Timestamp(0))) }
    }

    proptest! {
        #[test]
        fn few_or_many_they_are_a_sorted_set(changes in prop::collection::vec((any::<bool>(), 0..40_u8), 1..200)) {
            let (mut members, mut model) = (Members::Few(Vec::new()), BTreeSet::new());
            for (insert, number) in changes {
                let member = member(number);
                if insert {
                    prop_assert_eq!(members.insert(member.clone()), model.insert(member.id));
                } else {
                    prop_assert_eq!(members.remove(&member.id), model.remove(&member.id));
                }
                prop_assert_eq!(members.len(), model.len());
            }
            let ids: Vec<_> = model.into_iter().collect();
            prop_assert_eq!(members.page(None, usize::MAX), &ids[..]);
            prop_assert_eq!(members.all().iter().map(|member| member.id).collect::<Vec<_>>(), &ids[..]);
            if let Some((first, rest)) = ids.split_first() {
                prop_assert_eq!(members.page(Some(first), 3), &rest[..rest.len().min(3)]);
            }
        }
    }
}
