//! A test of the groups against a simple model. Any interleaving of connects, joins, leaves, pushes, disconnects and
//! node deaths ends with exactly the members of the model, and each push reaches the connections that were members when
//! it was made, once and in order.

mod model;
mod world;

use std::sync::Barrier;

use model::Life;
use proptest::prelude::*;
use world::{World, group, steps};

use super::{Groups, JoinRefused, Size};

/// Most groups of a connection.
const MOST: usize = 3;
const NODES: usize = 2;
/// Enough that a node keeps large groups in another way than small ones.
const CLIENTS: usize = 32;
const NAMES: usize = 4;

proptest! {
    #[test]
    fn whatever_happens_the_members_are_those_of_the_model_and_they_hear_what_is_pushed(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.take(step)?;
            world.check_members()?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(world.check_pushes())?;
    }
}

#[test]
fn a_join_at_the_very_moment_that_its_connection_ends_leaves_nothing_behind() {
    let groups = Groups::default();
    let (mut joined, mut refused) = (0, 0);
    for _ in 0..2000 {
        let (life, start) = (Life::begin(0), Barrier::new(2));
        let result = std::thread::scope(|scope| {
            let joining = scope.spawn(|| {
                start.wait();
                (0..MOST).map(|name| groups.join(&life.connection, &life.outbox, group(name), MOST)).collect::<Vec<_>>()
            });
            start.wait();
            groups.end(&life.connection);
            joining.join().expect("it does not panic")
        });
        joined += result.iter().filter(|result| result.is_ok()).count();
        refused += result.iter().filter(|result| **result == Err(JoinRefused::Gone)).count();
        assert_eq!(groups.size(), Size::default());
    }
    assert_eq!(joined + refused, 2000 * MOST);
}
