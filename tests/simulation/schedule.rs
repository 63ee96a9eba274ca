use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tidegate_core::id::NodeId;

use crate::judge::Counts;
use crate::process::Process;
use crate::world::{LEASE, RedisState, World};

/// True time between two steps of the simulation.
const TICK: u64 = 100;

/// Time without faults at the end: reaping twice over, and every wait in between.
const SETTLE: u64 = 16 * LEASE.as_millis() as u64;

/// Clocks of processes differ by at most so much from true time; between two of them it is twice that.
const DRIFT: f64 = 0.04;

/// The faults of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Kill(usize),
    Start(usize),
    /// SIGSTOP, SIGCONT.
    Stop(usize),
    Wake(usize),
    /// Drains and ends, then is started again.
    Leave(usize),
    CutRedis(usize),
    JoinRedis(usize),
    CutPeers(usize, usize),
    JoinPeers(usize, usize),
    RedisDown,
    /// Up again as it was, after a break.
    RedisUp,
    RedisUpEmpty,
    RedisStall,
    RedisGoOn,
    Flush,
    /// Restarted with what it held so many ms ago.
    RollBack(u64),
    /// Redis's clock steps forward by so many ms.
    ClockStep(u64),
    LoseAnswer(usize),
    /// A write of members is carried out after its connection was given up.
    DelayWrite(usize),
    BackendDown,
    BackendUp,
    Connect(usize),
}

impl Fault {
    /// Returns the name of the fault without its numbers, for the report.
    pub(crate) fn kind(self) -> String {
        let text = format!("{self:?}");
        text.split('(').next().unwrap_or_default().to_owned()
    }
}

/// The result of a schedule.
pub(crate) struct Outcome {
    pub(crate) faults: Vec<Fault>,
    pub(crate) counts: Counts,
    pub(crate) violations: Vec<String>,
    pub(crate) trace: String,
}

/// Some processes that live through faults, each at its time in ms.
pub(crate) struct Schedule {
    pub(crate) places: usize,
    pub(crate) faults: Vec<(u64, Fault)>,
    pub(crate) seed: u64,
}

impl Schedule {
    /// Faults at random times, as the seed has it.
    pub(crate) fn random(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let places = random.random_range(2..4);
        let mut faults: Vec<(u64, Fault)> = Vec::new();
        for place in 0..places {
            for _ in 0..random.random_range(2..7) {
                faults.push((random.random_range(0..20_000), Fault::Connect(place)));
            }
        }
        let lease = LEASE.as_millis() as u64;
        for _ in 0..random.random_range(1..7) {
            let at = random.random_range(3_000..22_000);
            let lasts = random.random_range(lease / 10..4 * lease);
            let place = random.random_range(0..places);
            let other = (place + random.random_range(1..places)) % places;
            match random.random_range(0..15) {
                0 | 1 => faults.extend([(at, Fault::Kill(place)), (at + lasts, Fault::Start(place))]),
                2 => faults.push((at, Fault::Kill(place))),
                3 | 4 => faults.extend([(at, Fault::Stop(place)), (at + lasts, Fault::Wake(place))]),
                5 => faults.extend([(at, Fault::CutRedis(place)), (at + lasts, Fault::JoinRedis(place))]),
                6 => {
                    let (one, two) = (place.min(other), place.max(other));
                    faults.extend([(at, Fault::CutPeers(one, two)), (at + lasts, Fault::JoinPeers(one, two))]);
                }
                7 => {
                    // Alone: cut from everything.
                    faults.extend([(at, Fault::CutRedis(place)), (at + lasts, Fault::JoinRedis(place))]);
                    for other in (0..places).filter(|other| *other != place) {
                        let (one, two) = (place.min(other), place.max(other));
                        faults.extend([(at, Fault::CutPeers(one, two)), (at + lasts, Fault::JoinPeers(one, two))]);
                    }
                }
                8 => faults.extend([(at, Fault::RedisDown), (at + lasts, Fault::RedisUp)]),
                9 => faults.extend([(at, Fault::RedisDown), (at + lasts, Fault::RedisUpEmpty)]),
                10 => faults.extend([(at, Fault::RedisStall), (at + lasts / 4, Fault::RedisGoOn)]),
                11 => match random.random_range(0..3) {
                    0 => faults.push((at, Fault::Flush)),
                    1 => faults.push((at, Fault::RollBack(random.random_range(0..3_000)))),
                    _ => faults.push((at, Fault::ClockStep(lasts))),
                },
                12 => {
                    for number in 0..random.random_range(1..5) {
                        faults.push((at + 300 * number, Fault::LoseAnswer(place)));
                    }
                }
                13 => {
                    for number in 0..random.random_range(1..4) {
                        faults.push((at + 3_000 * number, Fault::DelayWrite(place)));
                    }
                }
                _ if random.random_bool(0.3) => faults.push((at, Fault::Leave(place))),
                _ => faults.extend([(at, Fault::BackendDown), (at + lasts, Fault::BackendUp)]),
            }
        }
        Schedule { places, faults, seed }
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> Outcome {
        self.faults.sort_by_key(|(at, _)| *at);
        let mut random = StdRng::seed_from_u64(self.seed.rotate_left(17));
        let world = World::new(self.places);
        let mut run = Run { world, processes: Vec::new(), random };
        for place in 0..self.places {
            run.processes.push(None);
            run.start(place);
        }
        random = StdRng::seed_from_u64(self.seed);
        let end = self.faults.iter().map(|(at, _)| *at).max().unwrap_or_default() + 2_000;
        let mut faults = self.faults.iter().peekable();
        let mut time = 0;
        while time < end {
            while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= time) {
                run.inject(*fault);
            }
            run.tick(&mut random);
            time += TICK;
        }
        run.heal();
        run.pass(SETTLE / 8, &mut random);
        run.world.lock().is_calm = true;
        run.pass(SETTLE * 3 / 8, &mut random);
        run.check_members();
        for process in run.processes.iter().flatten() {
            process.send_clients_away();
        }
        run.pass(SETTLE, &mut random);
        let now = run.world.lock().now;
        let all: Vec<String> = run.processes.iter().flatten().map(Process::describe).collect();
        run.world.say(format!("the end   [{}]", all.join(" | ")));
        run.check_leftovers();
        let mut inner = run.world.lock();
        inner.judge.settled(now);
        Outcome {
            faults: self.faults.iter().map(|(_, fault)| *fault).collect(),
            counts: inner.judge.counts.clone(),
            violations: std::mem::take(&mut inner.judge.violations),
            trace: inner.judge.trace(),
        }
    }
}

struct Run {
    world: World,
    processes: Vec<Option<Process>>,
    random: StdRng,
}

impl Run {
    fn start(&mut self, place: usize) {
        if self.processes[place].is_none() {
            let rate = 1.0 + self.random.random_range(-DRIFT..DRIFT);
            let process = Process::start(&self.world, place, self.random.random(), rate);
            self.processes[place] = Some(process);
        }
    }

    fn tick(&mut self, random: &mut StdRng) {
        self.world.lock().tick(TICK);
        let mut order: Vec<usize> = (0..self.processes.len()).collect();
        order.shuffle(random);
        for place in order {
            if let Some(process) = &self.processes[place] {
                process.run(Duration::from_millis(TICK));
            }
            if random.random_bool(0.7) {
                self.world.lock().serve_redis();
            }
        }
        self.world.lock().serve_redis();
    }

    fn pass(&mut self, time: u64, random: &mut StdRng) {
        for _ in 0..time / TICK {
            self.tick(random);
        }
    }

    fn inject(&mut self, fault: Fault) {
        if !matches!(fault, Fault::Connect(_)) {
            let all: Vec<String> = self.processes.iter().flatten().map(Process::describe).collect();
            self.world.say(format!("{fault:?}   [{}]", all.join(" | ")));
        }
        match fault {
            Fault::Connect(place) => {
                if let Some(process) = self.processes[place].as_ref().filter(|process| !process.is_stopped()) {
                    process.connect();
                }
            }
            Fault::Kill(place) => self.kill(place),
            Fault::Start(place) => self.start(place),
            Fault::Stop(place) => {
                if let Some(process) = self.processes[place].as_mut().filter(|process| !process.is_stopped()) {
                    process.stop();
                }
            }
            Fault::Wake(place) => {
                if let Some(process) = &mut self.processes[place] {
                    process.wake();
                }
            }
            Fault::Leave(place) => {
                if let Some(process) = &self.processes[place]
                    && !process.is_stopped()
                {
                    process.leave();
                    // Longer than anything takes that a drain waits for.
                    let mut random = StdRng::seed_from_u64(self.random.random());
                    self.pass(2_000, &mut random);
                    self.kill(place);
                    self.start(place);
                }
            }
            Fault::DelayWrite(place) => _ = self.world.lock().delay_write.insert(place),
            Fault::LoseAnswer(place) => _ = self.world.lock().lose_answer.insert(place),
            fault => self.change_world(fault),
        }
        self.note_destroyed();
    }

    fn change_world(&mut self, fault: Fault) {
        let mut inner = self.world.lock();
        match fault {
            Fault::CutRedis(place) => _ = inner.redis_cuts.insert(place),
            Fault::JoinRedis(place) => {
                inner.redis_cuts.remove(&place);
                inner.break_connections(place);
            }
            Fault::CutPeers(one, two) => _ = inner.peer_cuts.insert((one, two)),
            Fault::JoinPeers(one, two) => _ = inner.peer_cuts.remove(&(one, two)),
            Fault::RedisDown => {
                inner.redis = RedisState::Down;
                inner.break_all_connections();
            }
            // As after a break of the network: the server is the same.
            Fault::RedisUp => inner.redis_goes_on(),
            Fault::RedisUpEmpty => {
                inner.judge.forget();
                _ = inner.restart_redis(None);
            }
            Fault::RedisStall if inner.redis == RedisState::Up => inner.redis = RedisState::Stalled,
            Fault::RedisGoOn if inner.redis == RedisState::Stalled => inner.redis_goes_on(),
            Fault::Flush => {
                inner.judge.forget();
                inner.store.flush();
            }
            Fault::RollBack(ago) => {
                let (now, had) = (inner.now, inner.restart_redis(Some(ago)));
                inner.judge.forget();
                inner.judge.roll_back(now, had);
            }
            Fault::ClockStep(millis) => inner.clock_ahead += millis,
            Fault::BackendDown => inner.backend_is_down = true,
            Fault::BackendUp => inner.backend_is_down = false,
            _ => {}
        }
    }

    fn kill(&mut self, place: usize) {
        if self.processes[place].take().is_some() {
            let mut inner = self.world.lock();
            let now = inner.now;
            inner.places[place] = Default::default();
            inner.judge.model.kill(place);
            inner.break_connections(place);
            let of_place: Vec<_> = inner
                .judge
                .connections
                .iter()
                .filter(|(_, account)| account.place == place)
                .map(|(id, _)| *id)
                .collect();
            of_place.iter().for_each(|id| inner.judge.ended(now, id));
        }
    }

    /// Notes the events that have no copy any more, in Redis or in a process: they are lost, R3.
    fn note_destroyed(&mut self) {
        let mut inner = self.world.lock();
        let recorded = inner.recorded();
        let registries: Vec<_> =
            self.processes.iter().flatten().map(|process| process.flows.registry.clone()).collect();
        let has_copy = |id: &tidegate_core::id::ConnectionId| {
            let in_process =
                registries.iter().any(|registry| registry.get_ended(id).is_some() || registry.all().contains(id));
            in_process || recorded.contains(&id.to_string())
        };
        let now = inner.now;
        inner.judge.destroyed(now, has_copy);
    }

    fn heal(&mut self) {
        for place in 0..self.processes.len() {
            self.inject(Fault::Wake(place));
            self.inject(Fault::JoinRedis(place));
            self.inject(Fault::Start(place));
        }
        let mut inner = self.world.lock();
        inner.peer_cuts.clear();
        inner.backend_is_down = false;
        inner.lose_answer.clear();
        inner.delay_write.clear();
        inner.redis_goes_on();
        inner.say("everything is well from here on");
    }

    fn live(&self) -> Vec<NodeId> {
        self.processes.iter().flatten().map(|process| process.flows.registry.node()).collect()
    }

    /// I8: everybody is where he has joined and nowhere else, and Redis has the right numbers of each living node.
    fn check_members(&self) {
        let all = self.processes.iter().flatten().flat_map(|process| process.flows.members.all()).collect();
        let live = self.live();
        let mut inner = self.world.lock();
        inner.check_members(&all, &live);
    }

    /// I6: nothing but living nodes, and tombstones that expire.
    fn check_leftovers(&self) {
        self.check_members();
        let live: Vec<String> = self.live().iter().map(ToString::to_string).collect();
        let mut inner = self.world.lock();
        let now = inner.now;
        for (key, fields, expires) in inner.store.contents() {
            let is_live = live.iter().any(|node| key.contains(&format!("{{{node}}}")));
            let is_fine = match key.as_str() {
                "t:nodes" | "t:roster" => fields.iter().all(|field| live.contains(field)),
                key if is_live => !["}:c:", "}:r:", "}:t"].iter().any(|part| key.contains(part)),
                key => key.ends_with(":node") && expires,
            };
            if !is_fine {
                inner.judge.left_over(now, &format!("{key} {fields:?}"));
            }
        }
    }
}
