use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tokio::time::Instant;

use super::model::{Life, Model};
use super::{CLIENTS, MOST, NAMES, NODES};
use crate::groups::{FanOut, Groups, JoinRefused};
use crate::session::DataFrame;
use tidegate_core::clock::Timestamp;
use tidegate_core::topic::{Topic, TopicKind, TopicName};

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Connect {
        node: usize,
        client: usize,
    },
    Join {
        client: usize,
        name: usize,
    },
    /// A join whose connection was looked up, and that is carried out when [`Step::Apply`] comes.
    Decide {
        client: usize,
        name: usize,
    },
    Apply,
    Leave {
        client: usize,
        name: usize,
    },
    SetUsers {
        client: usize,
        name: usize,
    },
    /// A push to the members of two groups, which may be the same.
    Push {
        names: [usize; 2],
    },
    /// A client's socket accepts everything that waits for it.
    Write {
        client: usize,
    },
    /// A client's socket is lost, but its node does not know yet.
    Lose {
        client: usize,
    },
    Disconnect {
        client: usize,
    },
    Die {
        node: usize,
    },
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (client, name, of_name) = (0..CLIENTS, 0..NAMES, (0..CLIENTS, 0..NAMES));
    let step = prop_oneof![
        4 => (0..NODES, client.clone()).prop_map(|(node, client)| Step::Connect { node, client }),
        8 => of_name.clone().prop_map(|(client, name)| Step::Join { client, name }),
        4 => of_name.clone().prop_map(|(client, name)| Step::Decide { client, name }),
        4 => Just(Step::Apply),
        4 => of_name.clone().prop_map(|(client, name)| Step::Leave { client, name }),
        2 => of_name.prop_map(|(client, name)| Step::SetUsers { client, name }),
        6 => [name.clone(), name].prop_map(|names| Step::Push { names }),
        3 => client.clone().prop_map(|client| Step::Write { client }),
        1 => client.clone().prop_map(|client| Step::Lose { client }),
        2 => client.prop_map(|client| Step::Disconnect { client }),
        1 => (0..NODES).prop_map(|node| Step::Die { node }),
    ];
    // Half of the cases begin with a crowd in one group.
    let crowd = prop_oneof![Just(0), Just(CLIENTS)].prop_map(|clients| {
        let enter = |client| [Step::Connect { node: 0, client }, Step::Join { client, name: 0 }];
        (0..clients).flat_map(enter).collect::<Vec<_>>()
    });
    (crowd, prop::collection::vec(step, 1..200)).prop_map(|(crowd, steps)| [crowd, steps].concat())
}

pub(super) fn group(number: usize) -> TopicName {
    TopicName::group(&format!("g{number}")).unwrap()
}

fn topic(name: &TopicName) -> Topic {
    Topic { api_id: "chat".into(), name: name.clone() }
}

/// Returns none, one or two of a few users.
fn users(number: usize) -> Vec<TopicName> {
    (0..number % 3).map(|offset| TopicName::user(&format!("u{}", (number + offset) % NAMES)).unwrap()).collect()
}

/// The stores of all nodes, and the model beside them.
#[derive(Default)]
pub(super) struct World {
    nodes: [Groups; NODES],
    lives: Vec<Life>,
    /// The life that each client has, as a place in `lives`.
    now: Vec<Option<usize>>,
    decided: Vec<(usize, TopicName)>,
    /// Fan-outs by push and node.
    fan_outs: BTreeMap<(usize, usize), FanOut>,
    pushes: usize,
    model: Model,
}

impl World {
    pub(super) fn new() -> Self {
        World { now: vec![None; CLIENTS], ..World::default() }
    }

    pub(super) fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Connect { node, client } => {
                if self.now[client].is_none() {
                    self.now[client] = Some(self.lives.len());
                    self.lives.push(Life::begin(node));
                }
            }
            Step::Join { client, name } => self.now[client].map_or(Ok(()), |at| self.join(at, group(name)))?,
            Step::Decide { client, name } => self.decided.extend(self.now[client].map(|at| (at, group(name)))),
            Step::Apply => self.decided.pop().map_or(Ok(()), |(at, name)| self.join(at, name))?,
            Step::Leave { client, name } => {
                let Some(life) = self.now[client].map(|at| &self.lives[at]) else { return Ok(()) };
                prop_assert!(self.nodes[life.node].leave(&life.connection, &group(name)));
                self.model.leave_if(&life.connection.id, |it| *it == group(name));
            }
            Step::SetUsers { client, name } => {
                let Some(life) = self.now[client].map(|at| &self.lives[at]) else { return Ok(()) };
                let users = users(name);
                let set = self.nodes[life.node].set_users(&life.connection, &life.outbox, &users, MOST);
                self.model.leave_if(&life.connection.id, |it| it.kind() == TopicKind::User && !users.contains(it));
                let fits = users.into_iter().all(|user| self.model.join(life.connection.id, user));
                prop_assert_eq!(set.is_ok(), fits);
            }
            Step::Push { names } => {
                let (number, names) = (self.pushes, names.map(group));
                self.pushes += 1;
                self.model.push(number, &names, &mut self.lives);
                for (at, node) in self.nodes.iter().enumerate() {
                    let members = names.iter().flat_map(|name| node.members(&topic(name)));
                    let members: BTreeMap<_, _> = members.map(|member| (member.id, member)).collect();
                    let fan_out =
                        FanOut::queue(members.into_values(), &DataFrame::text(number.to_string()), Timestamp(1));
                    self.fan_outs.insert((number, at), fan_out);
                }
            }
            Step::Write { client } => self.now[client].into_iter().for_each(|at| self.write(at)),
            Step::Lose { client } => self.now[client].into_iter().for_each(|at| self.lose(at)),
            Step::Disconnect { client } => {
                let Some(at) = self.now[client].take() else { return Ok(()) };
                self.lose(at);
                self.end(at);
            }
            Step::Die { node } => {
                // The memory of the node is gone, so pushes that wait for its answer get none.
                for slot in &mut self.now {
                    if let Some(at) = slot.take_if(|at| self.lives[*at].node == node) {
                        self.model.leave_if(&self.lives[at].connection.id, |_| true);
                    }
                }
                self.nodes[node] = Groups::default();
                self.decided.retain(|(at, _)| self.lives[*at].node != node);
                self.fan_outs.retain(|(_, of), _| *of != node);
                self.model.counts.retain(|(_, of), _| *of != node);
            }
        }
        Ok(())
    }

    /// Joins a group. A life that is over joins nothing, however long ago the join was decided.
    fn join(&mut self, at: usize, name: TopicName) -> Result<(), TestCaseError> {
        let life = &self.lives[at];
        let joined = self.nodes[life.node].join(&life.connection, &life.outbox, name.clone(), MOST);
        let expected = match self.now.contains(&Some(at)) {
            true if self.model.join(life.connection.id, name) => Ok(()),
            true => Err(JoinRefused::TooMany),
            false => Err(JoinRefused::Gone),
        };
        prop_assert_eq!(joined, expected);
        Ok(())
    }

    fn write(&mut self, at: usize) {
        let life = &mut self.lives[at];
        life.written.extend(life.outbox.write_all());
        self.model.write(life);
    }

    fn lose(&mut self, at: usize) {
        let life = &mut self.lives[at];
        life.outbox.end();
        self.model.lose(life);
    }

    fn end(&mut self, at: usize) {
        let life = &self.lives[at];
        self.nodes[life.node].end(&life.connection);
        self.model.leave_if(&life.connection.id, |_| true);
    }

    /// Compares all members in the stores with those of the model.
    pub(super) fn check_members(&self) -> Result<(), TestCaseError> {
        for name in (0..NAMES).map(group).chain((0..NAMES).flat_map(users)).collect::<BTreeSet<_>>() {
            let found = self.nodes.iter().flat_map(|node| node.members(&topic(&name))).map(|member| member.id);
            let expected = self.model.members.get(&name).cloned().unwrap_or_default();
            prop_assert_eq!(found.collect::<BTreeSet<_>>(), expected);
        }
        for life in self.now.iter().flatten().map(|at| &self.lives[*at]) {
            let listed = [TopicKind::Group, TopicKind::User]
                .map(|kind| self.nodes[life.node].names(&life.connection, kind).unwrap());
            prop_assert_eq!(listed.concat().into_iter().collect::<BTreeSet<_>>(), self.model.of(&life.connection.id));
        }
        let memberships: usize = self.nodes.iter().map(|node| node.size().memberships).sum();
        let topics: usize = self.nodes.iter().map(|node| node.size().topics).sum();
        prop_assert_eq!(memberships, self.model.members.values().map(BTreeSet::len).sum::<usize>());
        prop_assert!(topics >= self.model.members.len() && topics <= memberships);
        Ok(())
    }

    /// Compares the frames that were written, and the counts of each push, with the model.
    pub(super) async fn check_pushes(mut self) -> Result<(), TestCaseError> {
        (0..self.lives.len())
            .filter(|at| self.now.contains(&Some(*at)))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|at| self.write(at));
        for life in &self.lives {
            let expected: Vec<_> = life.received.iter().map(|number| DataFrame::text(number.to_string())).collect();
            prop_assert_eq!(&life.written, &expected);
        }
        for (place, fan_out) in self.fan_outs {
            let expected = self.model.counts.get(&place).copied().unwrap_or_default();
            prop_assert_eq!(fan_out.settled(Instant::now()).await, expected);
        }
        Ok(())
    }
}
