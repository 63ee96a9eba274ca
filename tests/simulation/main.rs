//! A simulated cluster: real registries, replicas, heartbeats, writers and reapers, each process on a clock of its own,
//! with a Redis in memory that runs the real scripts and can lose what it holds, links that can be cut, and a backend
//! that remembers. What must always be true is checked at each step (`judge.rs`).
//!
//! `SEEDS=1000` runs as many random schedules, `SEED=7` one of them with its trace.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cases;
mod judge;
mod members;
mod model;
mod peers;
mod process;
mod schedule;
mod store;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use schedule::{Outcome, Schedule};

/// Random schedules of an ordinary run.
const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn whatever_happens_in_which_order_each_connection_ends_once() {
    if let Some(seed) = number("SEED") {
        let outcome = Schedule::random(seed).run();
        println!("{}\n{:?}", outcome.trace, outcome.counts);
        assert_eq!(outcome.violations, [""; 0], "seed {seed}");
        return;
    }
    let (next, outcomes) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || outcomes.lock().unwrap().iter().any(|(_, outcome)| is_bad(outcome)) {
                        return;
                    }
                    let outcome = Schedule::random(seed).run();
                    outcomes.lock().unwrap().push((seed, outcome));
                }
            });
        }
    });
    report(&outcomes.into_inner().unwrap());
}

fn is_bad(outcome: &Outcome) -> bool {
    !outcome.violations.is_empty()
}

fn report(outcomes: &[(u64, Outcome)]) {
    if let Some((seed, outcome)) = outcomes.iter().find(|(_, outcome)| is_bad(outcome)) {
        panic!("{}\n\nseed {seed}: {:#?}", outcome.trace, outcome.violations);
    }
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for fault in outcomes.iter().flat_map(|(_, outcome)| &outcome.faults) {
        *faults.entry(fault.kind()).or_default() += 1;
    }
    let sum =
        |count: fn(&judge::Counts) -> u64| -> u64 { outcomes.iter().map(|(_, outcome)| count(&outcome.counts)).sum() };
    println!("schedules                 {}", outcomes.len());
    println!("connections               {}", sum(|counts| counts.connections));
    println!("events                    {}", sum(|counts| counts.events));
    println!("calls with the same id    {}", sum(|counts| counts.repeated));
    println!("times a client was served {}", sum(|counts| counts.served));
    println!("pushes                    {}", sum(|counts| counts.pushes));
    println!("joins that were told      {}", sum(|counts| counts.joins));
    println!("questions for members     {}", sum(|counts| counts.finds));
    println!("every copy destroyed (R3) {}", sum(|counts| counts.lost));
    println!("served in a group (R1) or after a rollback (R2) {}", sum(|counts| counts.excused));
    println!("members missed after a rollback (R4) {}", sum(|counts| counts.missed));
    let longest = outcomes.iter().map(|(_, outcome)| outcome.counts.longest_delay).max().unwrap_or_default();
    println!("longest delay of a first attempt, with a lease of 3 s: {:.1} s", longest as f64 / 1000.0);
    for (kind, count) in faults {
        println!("  {kind:<13} {count}");
    }
}
