//! One run: one scenario on one target.

mod accept;
mod fanout;
mod group;
mod idle;
mod join;
mod overload;
mod slow;
mod storm;
mod traffic;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use overload::{Moment, Phase, Rates};

use crate::client::{self, Client, Recipient, Sending, Socket};
use crate::payload::{Messages, Posts};
use crate::process::{cpu_ms_of, usage};
use crate::recorder::{Nanos, Operation, Recorder};
use crate::sampler::{Drift, Sample, drift, sample};
use crate::scenario::{Kind, Scenario};
use crate::target::{self, Programs, Target};

/// Handshakes in flight while clients connect, unless the scenario is about that.
const CONNECTING: usize = 64;

/// What a run found out. Figures by name; the names are those of the budgets.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    pub(crate) figures: BTreeMap<String, f64>,
    /// What was wrong, and how often. Figures of a run with errors count for nothing.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) notes: BTreeMap<String, u64>,
    pub(crate) samples: Vec<Sample>,
    /// Of an overload: what each phase was like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) phases: Vec<Phase>,
    /// Of an overload: its course over time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) course: Vec<Moment>,
}

/// What every part of a run uses.
struct Run<'a> {
    scenario: &'a Scenario,
    target: &'a Target,
    recorder: Arc<Recorder>,
    posts: Arc<Posts>,
    figures: BTreeMap<String, f64>,
    phases: Vec<Phase>,
    course: Vec<Moment>,
}

/// Plays a scenario on a target that is started for it and stopped afterwards.
pub(crate) async fn run(scenario: &Scenario, kind: &target::Kind, programs: &Programs) -> anyhow::Result<Outcome> {
    let target = kind.start(scenario, programs).await?;
    let recorder = Arc::new(Recorder::new());
    let mut run = Run {
        scenario,
        target: &target,
        recorder: Arc::clone(&recorder),
        posts: Arc::new(Posts::new(scenario.payload_bytes)),
        figures: BTreeMap::new(),
        phases: Vec::new(),
        course: Vec::new(),
    };
    let mut samples = Vec::new();
    let played = tokio::select! {
        played = timeout(scenario.deadline(), run.play()) => played,
        () = sample(target.pids.clone(), recorder, &mut samples) => unreachable!("sampling has no end"),
    };
    played.with_context(|| format!("given up after {:?}, the deadline of the scenario", scenario.deadline()))??;
    if let Some(Drift { rss_percent, p99_times }) = drift(&samples) {
        run.note("rss_drift_percent", rss_percent);
        run.note("p99_drift_times", p99_times);
    }
    let Run { recorder, figures, phases, course, .. } = run;
    let outcome = Outcome { figures, errors: recorder.errors(), notes: recorder.notes(), samples, phases, course };
    target.stop().await;
    Ok(outcome)
}

impl Run<'_> {
    async fn play(&mut self) -> anyhow::Result<()> {
        match self.scenario.kind {
            Kind::Idle => self.idle().await,
            Kind::Accept => self.accept().await,
            Kind::Traffic => self.traffic().await,
            Kind::Fanout => self.fanout().await,
            Kind::Group => self.group().await,
            Kind::Join => self.join().await,
            Kind::Storm => self.storm().await,
            Kind::Slow => self.slow().await,
            Kind::Overload => self.overload().await,
        }
    }

    /// Connects so many clients, `lanes` at a time. They are given back in the order of their indexes.
    async fn connect_all(&self, count: usize, lanes: usize) -> anyhow::Result<Vec<Socket>> {
        let lane_ends = Arc::new(Semaphore::new(lanes));
        let mut connecting = JoinSet::new();
        for index in 0..count {
            let permit = Arc::clone(&lane_ends).acquire_owned().await?;
            let (endpoints, recorder) = (Arc::clone(&self.target.endpoints), Arc::clone(&self.recorder));
            connecting.spawn(async move {
                let due = recorder.now();
                let socket = client::connect(&endpoints, index).await;
                drop(permit);
                if socket.is_ok() {
                    recorder.done(Operation::Connect, due, 0);
                }
                socket.map(|socket| (index, socket)).with_context(|| format!("client {index} could not connect"))
            });
        }
        let mut sockets: Vec<_> = (0..count).map(|_| None).collect();
        while let Some(connected) = connecting.join_next().await {
            let (index, socket) = connected??;
            sockets[index] = Some(socket);
        }
        Ok(sockets.into_iter().flatten().collect())
    }

    /// Closes clients, many at a time.
    async fn close_all(&self, sockets: Vec<Socket>) {
        let mut closing: JoinSet<()> = sockets.into_iter().map(client::close).collect();
        while closing.join_next().await.is_some() {}
    }

    /// The clients that can be posted to, with their ids if anybody posts.
    async fn recipients(&self, sockets: &mut [Socket], posts: bool) -> anyhow::Result<Vec<Arc<Recipient>>> {
        let mut recipients = Vec::with_capacity(sockets.len());
        for (index, socket) in sockets.iter_mut().enumerate() {
            let id = match posts {
                true => client::learn_id(&self.target.endpoints, socket, index).await?,
                false => String::new(),
            };
            recipients.push(Arc::new(Recipient { index, id, ..Recipient::default() }));
        }
        Ok(recipients)
    }

    /// Gives each client a task.
    fn play_clients(
        &self,
        sockets: Vec<Socket>,
        recipients: &[Arc<Recipient>],
        mut sending: impl FnMut() -> Sending,
        delivered: Option<&Arc<Semaphore>>,
        stop: &CancellationToken,
    ) -> JoinSet<()> {
        let clients = sockets.into_iter().zip(recipients).map(|(socket, recipient)| {
            let client = Client {
                socket,
                recorder: Arc::clone(&self.recorder),
                messages: Messages::new(recipient.index, self.scenario.routes, self.scenario.payload_bytes),
                posts: Arc::clone(&self.posts),
                recipient: Arc::clone(recipient),
                delivered: delivered.cloned(),
            };
            client.run(sending(), stop.clone())
        });
        clients.collect()
    }

    /// Lets the load warm up, measures what the scenario says, and notes what it cost.
    async fn measure_load(&mut self) {
        sleep(self.scenario.warmup()).await;
        let window = Window::begin(self);
        sleep(self.scenario.duration()).await;
        self.recorder.end();
        window.end(self);
    }

    /// Notes the latencies. To be called when the last operation has ended.
    fn note_latencies(&mut self) {
        let latencies = self.recorder.latencies();
        if latencies.count > 0 {
            self.note("p50_us", latencies.p50);
            self.note("p99_us", latencies.p99);
            self.note("p999_us", latencies.p999);
            self.note("max_us", latencies.max);
        }
        let (replies, posts) = self.recorder.latencies_apart();
        if replies.count > 0 && posts.count > 0 {
            self.note("reply_p50_us", replies.p50);
            self.note("reply_p99_us", replies.p99);
            self.note("post_p50_us", posts.p50);
            self.note("post_p99_us", posts.p99);
        }
    }

    /// Notes a figure, unless there is nothing to measure: a target elsewhere has neither CPU nor memory here.
    fn note(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.figures.insert(name.to_owned(), value);
        }
    }
}

/// What was used when a measurement began.
struct Window {
    cpu_ms: f64,
    backend_cpu_ms: f64,
    driver_cpu_ms: f64,
    began: Nanos,
    operations: u64,
}

/// Stops these tasks and waits for them; fails if one of them has panicked.
async fn end(stop: &CancellationToken, mut tasks: JoinSet<()>) -> anyhow::Result<()> {
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

impl Window {
    fn begin(run: &Run<'_>) -> Self {
        run.recorder.begin();
        Window {
            cpu_ms: cpu_ms_of(&run.target.pids),
            backend_cpu_ms: cpu_ms_of(&[run.target.backend_pid]),
            driver_cpu_ms: driver_cpu_ms(),
            began: run.recorder.now(),
            operations: run.recorder.operations(),
        }
    }

    fn end(&self, run: &mut Run<'_>) {
        let seconds = Duration::from_nanos(run.recorder.now() - self.began).as_secs_f64();
        let thousands = (run.recorder.operations() - self.operations) as f64 / 1000.0;
        run.note("operations_per_second", thousands * 1000.0 / seconds);
        run.note("payload_mib_per_second", run.recorder.bytes() as f64 / seconds / 1_048_576.0);
        let pids = &run.target.pids;
        if !pids.is_empty() {
            let cpu_ms = cpu_ms_of(pids) - self.cpu_ms;
            let peak_mib = usage(pids).rss_kib as f64 / 1024.0;
            run.note("cpu_ms_per_1000", cpu_ms / thousands);
            run.note("cpu_percent", cpu_ms / seconds / 10.0);
            run.note("rss_mib", peak_mib);
        }
        run.note("backend_cpu_percent", (cpu_ms_of(&[run.target.backend_pid]) - self.backend_cpu_ms) / seconds / 10.0);
        run.note("driver_cpu_percent", (driver_cpu_ms() - self.driver_cpu_ms) / seconds / 10.0);
    }
}

/// CPU of this process alone, whose children are the targets.
fn driver_cpu_ms() -> f64 {
    crate::process::cpu_ms(std::process::id().cast_signed()).unwrap_or(0.0)
}

/// Deals clients out to posters, so that each client has one.
fn deal<T: Clone>(items: &[T], hands: usize) -> Vec<Vec<T>> {
    let hands = hands.clamp(1, items.len().max(1));
    (0..hands).map(|hand| items.iter().skip(hand).step_by(hands).cloned().collect()).collect()
}

/// A channel for each of so many lanes.
fn lanes(count: usize) -> (Vec<mpsc::UnboundedSender<Nanos>>, Vec<mpsc::UnboundedReceiver<Nanos>>) {
    (0..count).map(|_| mpsc::unbounded_channel()).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_one_poster() {
        assert_eq!(deal(&[1, 2, 3, 4, 5], 2), [vec![1, 3, 5], vec![2, 4]]);
        assert_eq!(deal(&[1], 16), [[1]]);
    }
}
