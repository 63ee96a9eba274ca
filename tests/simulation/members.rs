use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidegate_connections::group_index::GroupIndex;
use tidegate_connections::groups::Groups;
use tidegate_connections::redis_client::{AttachedRedis, Keys};
use tidegate_connections::session::Outbox;
use tidegate_core::id::ConnectionId;
use tidegate_core::request_context::Connection;
use tidegate_core::topic::{Topic, TopicKind, TopicName};
use tokio::time::sleep;

use crate::world::World;

/// The API of all clients.
pub(crate) const API_ID: &str = "chat";

/// More than a client is ever in.
const MOST: usize = 100;

/// The memberships of one process's clients: the real groups, and the real group index that makes them known.
pub(crate) struct Members {
    world: World,
    place: usize,
    random: Mutex<StdRng>,
    groups: Arc<Groups>,
    pub(crate) group_index: Arc<GroupIndex>,
}

impl Members {
    pub(crate) fn new(world: &World, place: usize, seed: u64, redis: Arc<AttachedRedis>) -> Self {
        let groups = Arc::<Groups>::default();
        let group_index = Arc::new(GroupIndex::new(Arc::clone(&groups), redis));
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        Members { world: world.clone(), place, random, groups, group_index }
    }

    /// All that clients join or become.
    pub(crate) fn names() -> Vec<TopicName> {
        let groups = ["a", "b", "c"].map(|name| TopicName::group(name).unwrap());
        let users = ["ann", "bob", "eve"].map(|name| TopicName::user(name).unwrap());
        groups.into_iter().chain(users).collect()
    }

    /// A client leaves a group that it is in, or joins one, or becomes a user. What is returned resolves when its backend
    /// is told; the client does not wait for it.
    pub(crate) fn change(&self, connection: &Connection, outbox: &Arc<Outbox>) -> impl Future<Output = ()> + use<> {
        let (id, name, is_calm) = (connection.id, self.name(), self.world.lock().is_calm);
        let number = if is_calm { None } else { self.join_or_leave(connection, outbox, &name) };
        let (world, group_index) = (self.world.clone(), Arc::clone(&self.group_index));
        async move {
            let Some(number) = number else { return };
            group_index.recorded().await;
            let mut inner = world.lock();
            let now = inner.now;
            inner.judge.acknowledged(now, &id, &name, number);
        }
    }

    /// The number of the membership, if it is one now.
    fn join_or_leave(&self, connection: &Connection, outbox: &Arc<Outbox>, name: &TopicName) -> Option<u64> {
        let leave = |name: &TopicName| self.world.lock().judge.model.leave(&connection.id, name);
        let is_in = self.groups.names(connection, name.kind()).unwrap_or_default();
        let joined = if name.kind() == TopicKind::User {
            is_in.iter().filter(|user| *user != name).for_each(leave);
            self.groups.set_users(connection, outbox, std::slice::from_ref(name), MOST)
        } else if is_in.contains(name) {
            leave(name);
            self.groups.leave(connection, name);
            return None;
        } else {
            self.groups.join(connection, outbox, name.clone(), MOST)
        };
        joined.ok().map(|()| self.world.lock().judge.model.join(self.place, &connection.id, name))
    }

    fn name(&self) -> TopicName {
        let mut names = Self::names();
        names.swap_remove(self.random.lock().unwrap().random_range(0..names.len()))
    }

    /// The connection is over, as `connect.rs` has it.
    pub(crate) fn end(&self, connection: &Connection) {
        self.world.lock().judge.model.end(&connection.id);
        self.groups.end(connection);
    }

    /// Asks who may have members, as `peers.rs` has it, and lets the judge look at the answers, until nobody joins any more.
    pub(crate) async fn find(self: Arc<Self>) {
        while !self.world.lock().is_calm {
            let pause = self.random.lock().unwrap().random_range(100..300);
            sleep(Duration::from_millis(pause)).await;
            let names = [self.name(), self.name()];
            let began = self.world.lock().now;
            let found = self.group_index.find(&API_ID.into(), names.iter().collect()).await;
            let mut inner = self.world.lock();
            let (now, present) = (inner.now, inner.names.clone());
            inner.judge.found((self.place, began, now), &names, found.as_ref(), &present);
        }
    }

    /// Returns every membership, with the number of its process.
    pub(crate) fn all(&self) -> Vec<((ConnectionId, TopicName), usize)> {
        let members = |topic: &Arc<Topic>| {
            let ids = self.groups.members(topic).into_iter().map(|member| member.id);
            ids.map(|id| ((id, topic.name.clone()), self.place)).collect::<Vec<_>>()
        };
        self.groups.topics().iter().flat_map(members).collect()
    }

    /// The key of a group or a user.
    pub(crate) fn key(name: &TopicName) -> String {
        Keys::new("t").topic(&Topic { api_id: API_ID.into(), name: name.clone() })
    }
}
