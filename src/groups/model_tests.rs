//! Any interleaving of connects, joins, leaves, disconnects and node deaths ends with exactly the members that a simple
//! model has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Groups, JoinRefused};
use crate::clock::Timestamp;
use crate::id::{ConnectionId, NodeId};
use crate::request_context::Connection;
use crate::session::Outbox;
use crate::topic::{Topic, TopicKind, TopicName};

/// Groups that a connection may be in.
const MOST: usize = 3;
const NODES: usize = 3;
const CONNECTIONS: usize = 8;
const NAMES: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Step {
    Connect { node: usize, connection: usize },
    Join { connection: usize, name: usize },
    Leave { connection: usize, name: usize },
    SetUsers { connection: usize, name: usize },
    Disconnect { connection: usize },
    Die { node: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (node, connection, name) = (0..NODES, 0..CONNECTIONS, 0..NAMES);
    let step = prop_oneof![
        4 => (node.clone(), connection.clone()).prop_map(|(node, connection)| Step::Connect { node, connection }),
        8 => (connection.clone(), name.clone()).prop_map(|(connection, name)| Step::Join { connection, name }),
        4 => (connection.clone(), name.clone()).prop_map(|(connection, name)| Step::Leave { connection, name }),
        2 => (connection.clone(), name).prop_map(|(connection, name)| Step::SetUsers { connection, name }),
        2 => connection.prop_map(|connection| Step::Disconnect { connection }),
        1 => node.prop_map(|node| Step::Die { node }),
    ];
    prop::collection::vec(step, 1..120)
}

fn group(number: usize) -> TopicName {
    TopicName::group(&format!("g{number}")).unwrap()
}

/// None, one or two of a few.
fn users(number: usize) -> Vec<TopicName> {
    (0..number % 3).map(|offset| TopicName::user(&format!("u{}", (number + offset) % NAMES)).unwrap()).collect()
}

/// One life of a client's connection.
struct Life {
    node: usize,
    connection: Connection,
    outbox: Arc<Outbox>,
}

impl Life {
    fn begin(node: usize) -> Self {
        let connection = Connection {
            id: ConnectionId::random(NodeId::from_bits(node as u64)),
            api_id: "chat".into(),
            stage: "prod".into(),
            connected_at: Timestamp(0),
            host: "localhost".into(),
            secure: false,
            source_ip: IpAddr::from([127, 0, 0, 1]),
            user_agent: None,
            principal: arc_swap::ArcSwapOption::empty(),
            client_cert: None,
            topics: Default::default(),
        };
        Life { node, connection, outbox: Arc::new(Outbox::new(1024, Timestamp(0))) }
    }
}

/// Who is in what, said as simply as it can be.
#[derive(Default)]
struct Model(BTreeMap<TopicName, BTreeSet<ConnectionId>>);

impl Model {
    fn of(&self, id: &ConnectionId) -> BTreeSet<TopicName> {
        self.0.iter().filter(|(_, ids)| ids.contains(id)).map(|(name, _)| name.clone()).collect()
    }

    /// Whether there was room for it.
    fn join(&mut self, id: ConnectionId, name: TopicName) -> bool {
        let names = self.of(&id);
        let fits = names.contains(&name) || names.len() < MOST;
        if fits {
            self.0.entry(name).or_default().insert(id);
        }
        fits
    }

    fn leave_if(&mut self, id: &ConnectionId, leaves: impl Fn(&TopicName) -> bool) {
        self.0.iter_mut().filter(|(name, _)| leaves(name)).for_each(|(_, ids)| _ = ids.remove(id));
        self.0.retain(|_, ids| !ids.is_empty());
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_members_are_those_of_the_model(steps in steps()) {
        let mut nodes: [Groups; NODES] = Default::default();
        let mut lives: Vec<Option<Life>> = (0..CONNECTIONS).map(|_| None).collect();
        let mut over: Vec<Life> = Vec::new();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Connect { node, connection } => {
                    let slot = &mut lives[connection];
                    if slot.is_none() {
                        *slot = Some(Life::begin(node));
                    }
                }
                Step::Join { connection, name } => {
                    let Some(life) = &lives[connection] else { continue };
                    let joined = nodes[life.node].join(&life.connection, &life.outbox, group(name), MOST);
                    let expected = model.join(life.connection.id, group(name));
                    prop_assert_eq!(joined, if expected { Ok(()) } else { Err(JoinRefused::TooMany) });
                }
                Step::Leave { connection, name } => {
                    let Some(life) = &lives[connection] else { continue };
                    prop_assert!(nodes[life.node].leave(&life.connection, &group(name)));
                    model.leave_if(&life.connection.id, |it| *it == group(name));
                }
                Step::SetUsers { connection, name } => {
                    let Some(life) = &lives[connection] else { continue };
                    let users = users(name);
                    let set = nodes[life.node].set_users(&life.connection, &life.outbox, &users, MOST);
                    model.leave_if(&life.connection.id, |it| it.kind() == TopicKind::User && !users.contains(it));
                    let fits = users.into_iter().all(|user| model.join(life.connection.id, user));
                    prop_assert_eq!(set.is_ok(), fits);
                }
                Step::Disconnect { connection } => {
                    let Some(life) = lives[connection].take() else { continue };
                    nodes[life.node].end(&life.connection);
                    model.leave_if(&life.connection.id, |_| true);
                    over.push(life);
                }
                Step::Die { node } => {
                    nodes[node] = Groups::default();
                    for slot in &mut lives {
                        if let Some(life) = slot.take_if(|life| life.node == node) {
                            model.leave_if(&life.connection.id, |_| true);
                        }
                    }
                }
            }
        }
        // Whoever is over joins nothing any more, however late somebody asks for it.
        for life in &over {
            let late = nodes[life.node].join(&life.connection, &life.outbox, group(0), MOST);
            prop_assert_eq!(late, Err(JoinRefused::Gone));
        }
        let names = (0..NAMES).map(group).chain((0..NAMES).flat_map(users)).collect::<BTreeSet<_>>();
        for name in &names {
            let topic = Topic { api_id: "chat".into(), name: name.clone() };
            let found = nodes.iter().flat_map(|node| node.members(&topic)).map(|member| member.id);
            let expected = model.0.get(name).cloned().unwrap_or_default();
            prop_assert_eq!(found.collect::<BTreeSet<_>>(), expected);
        }
        for life in lives.iter().flatten() {
            let told = [TopicKind::Group, TopicKind::User]
                .map(|kind| nodes[life.node].names(&life.connection, kind).unwrap());
            prop_assert_eq!(told.concat().into_iter().collect::<BTreeSet<_>>(), model.of(&life.connection.id));
        }
        let memberships: usize = nodes.iter().map(|node| node.size().memberships).sum();
        let topics: usize = nodes.iter().map(|node| node.size().topics).sum();
        prop_assert_eq!(memberships, model.0.values().map(BTreeSet::len).sum::<usize>());
        prop_assert!(topics >= model.0.len() && topics <= memberships);
    }
}
