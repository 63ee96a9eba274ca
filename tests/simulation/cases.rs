//! Schedules by name: each was once a counter-example.

use crate::schedule::{Fault, Outcome, Schedule};

/// Runs the same faults with several seeds: they decide in which order things happen within them.
fn check(places: usize, faults: &[(u64, Fault)]) {
    for seed in 0..6 {
        let Outcome { violations, trace, .. } = Schedule { places, faults: faults.to_vec(), seed }.run();
        assert!(violations.is_empty(), "{trace}\n\nseed {seed}: {violations:#?}");
    }
}

fn clients(places: usize) -> Vec<(u64, Fault)> {
    (0..places).flat_map(|place| (0..4).map(move |number| (3_000 + 500 * number, Fault::Connect(place)))).collect()
}

fn with(places: usize, faults: &[(u64, Fault)]) -> Vec<(u64, Fault)> {
    [&clients(places)[..], faults].concat()
}

#[test]
fn case_01_and_05_a_node_dies_while_clients_connect() {
    for at in (3_000..5_400).step_by(300) {
        check(2, &with(2, &[(at, Fault::Kill(0))]));
    }
}

#[test]
fn case_02_a_node_wakes_between_its_condemnation_and_its_next_beat() {
    for wakes in (8_500..11_500).step_by(500) {
        check(2, &with(2, &[(6_000, Fault::Stop(0)), (wakes, Fault::Wake(0))]));
    }
}

#[test]
fn case_03_a_node_wakes_after_its_burial_and_the_tombstone_is_gone() {
    check(2, &with(2, &[(6_000, Fault::Stop(0)), (20_000, Fault::Flush), (20_100, Fault::Wake(0))]));
}

#[test]
fn case_04_an_event_is_taken_and_its_node_stops_before_the_delete() {
    let faults = [(6_000, Fault::LoseAnswer(0)), (6_300, Fault::LoseAnswer(0)), (6_400, Fault::Kill(0))];
    check(2, &with(2, &faults));
}

#[test]
fn case_06_a_cut_separates_nodes_when_redis_comes_back() {
    let faults = [
        (6_000, Fault::RedisDown),
        (8_000, Fault::CutPeers(0, 1)),
        (8_000, Fault::CutRedis(0)),
        (8_000, Fault::RedisUp),
        (20_000, Fault::JoinRedis(0)),
        (20_000, Fault::JoinPeers(0, 1)),
    ];
    check(2, &with(2, &faults));
}

#[test]
fn case_07_a_node_is_cut_from_redis_and_all_peers() {
    let faults = [
        (6_000, Fault::CutPeers(0, 1)),
        (6_000, Fault::CutPeers(0, 2)),
        (6_000, Fault::CutRedis(0)),
        (18_000, Fault::JoinRedis(0)),
        (19_000, Fault::JoinPeers(0, 1)),
        (20_000, Fault::JoinPeers(0, 2)),
    ];
    check(3, &with(3, &faults));
}

#[test]
fn a_node_is_cut_off_before_it_has_heard_of_the_new_id_of_a_peer() {
    for at in (11_600..12_800).step_by(200) {
        let faults = [
            (5_000, Fault::CutRedis(1)),
            (5_000, Fault::CutPeers(0, 1)),
            (11_000, Fault::JoinRedis(1)),
            (11_000, Fault::JoinPeers(0, 1)),
            (at, Fault::CutRedis(0)),
            (at, Fault::CutPeers(0, 1)),
            (22_000, Fault::JoinRedis(0)),
            (22_000, Fault::JoinPeers(0, 1)),
        ];
        check(2, &with(2, &faults));
    }
}

#[test]
fn case_08_a_decision_is_late_and_redis_was_emptied() {
    for stalls in [8_600, 8_900, 9_200, 9_500] {
        let faults = [
            (6_000, Fault::CutRedis(0)),
            (6_000, Fault::CutPeers(0, 1)),
            (stalls, Fault::RedisStall),
            (stalls + 100, Fault::JoinRedis(0)),
            (stalls + 200, Fault::JoinPeers(0, 1)),
            (stalls + 400, Fault::Flush),
            (stalls + 500, Fault::RedisGoOn),
        ];
        check(2, &with(2, &faults));
    }
}

#[test]
fn case_09_and_10_redis_loses_what_a_reaper_holds() {
    for fault in [Fault::Flush, Fault::RollBack(2_000), Fault::RollBack(500)] {
        for at in [9_500, 10_500, 12_000] {
            let faults =
                [(5_000, Fault::BackendDown), (6_000, Fault::Kill(0)), (at, fault), (16_000, Fault::BackendUp)];
            check(3, &with(3, &faults));
        }
    }
    let lapsed = [
        (5_000, Fault::BackendDown),
        (6_000, Fault::Kill(0)),
        (10_000, Fault::CutRedis(1)),
        (14_000, Fault::RollBack(3_000)),
        (15_000, Fault::JoinRedis(1)),
        (16_000, Fault::BackendUp),
    ];
    check(2, &with(2, &lapsed));
}

#[test]
fn case_11_a_record_is_rolled_back_while_its_node_stands_still() {
    let faults =
        [(5_200, Fault::Stop(0)), (5_300, Fault::RollBack(2_000)), (13_000, Fault::Flush), (13_000, Fault::Wake(0))];
    check(2, &with(2, &faults));
    check(2, &with(2, &[(5_200, Fault::Stop(0)), (5_300, Fault::RollBack(2_000)), (13_000, Fault::Wake(0))]));
}

#[test]
fn case_12_a_node_is_condemned_from_the_index_alone() {
    for at in [5_900, 6_100, 6_400] {
        check(2, &with(2, &[(6_000, Fault::Stop(0)), (at, Fault::Flush), (12_000, Fault::Wake(0))]));
    }
}

#[test]
fn case_13_two_reapers_bury() {
    check(3, &with(3, &[(6_000, Fault::Kill(0)), (11_000, Fault::Stop(1)), (16_000, Fault::Wake(1))]));
}

#[test]
fn case_14_all_are_killed_and_start_again() {
    check(
        2,
        &with(
            2,
            &[(6_000, Fault::Kill(0)), (6_000, Fault::Kill(1)), (9_000, Fault::Start(0)), (9_500, Fault::Start(1))],
        ),
    );
}

#[test]
fn case_15_a_write_comes_before_its_node_noticed_that_redis_is_empty() {
    for at in (5_000..6_000).step_by(200) {
        check(2, &with(2, &[(at, Fault::Flush), (at, Fault::Connect(0)), (at + 200, Fault::Connect(1))]));
    }
}

#[test]
fn a_record_that_is_waited_for_is_lost_with_its_connection_and_found_by_the_comparison() {
    for at in (5_000..6_000).step_by(100) {
        let faults = [(at, Fault::Connect(0)), (at, Fault::RollBack(500)), (at + 100, Fault::Connect(0))];
        check(2, &with(2, &faults));
    }
}

#[test]
fn case_16_a_node_that_was_condemned_wakes_while_redis_refuses() {
    let faults =
        [(6_000, Fault::Stop(0)), (13_000, Fault::RedisDown), (13_500, Fault::Wake(0)), (20_000, Fault::RedisUp)];
    check(2, &with(2, &faults));
}

#[test]
fn case_17_a_peer_that_just_started_is_asked_for_a_node_it_never_heard_of() {
    check(2, &with(2, &[(6_000, Fault::Kill(1)), (6_100, Fault::Flush), (6_200, Fault::Start(1))]));
}

#[test]
fn case_18_clocks_step_and_redis_stalls_with_a_condemnation_queued() {
    check(2, &with(2, &[(6_000, Fault::ClockStep(3_000)), (9_000, Fault::ClockStep(3_000))]));
    for at in (8_000..10_000).step_by(400) {
        let faults = [
            (5_500, Fault::Stop(0)),
            (at, Fault::RedisStall),
            (at + 300, Fault::Wake(0)),
            (at + 1_500, Fault::RedisGoOn),
        ];
        check(2, &with(2, &faults));
    }
}
