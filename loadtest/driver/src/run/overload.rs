//! More than the target can dispatch, in phases, and what the rest of its users notice.
//!
//! First 100 clients find out what the target can dispatch here and now. Then many clients send at a fixed multiple of
//! that, open loop, one phase after the other, while [`probe`] asks for health, posts, looks and closes from a thread
//! of its own.

mod offering;
mod probe;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{CONNECTING, Run, end};
use crate::client::{self, Sending};
use crate::payload::Messages;
use crate::process::usage_aside;
use crate::recorder::{Quantiles, Recorder};
use offering::{Counts, Offering, Pace};
use probe::Probe;

/// Clients that find out what the target can dispatch.
const SATURATING: usize = 100;

/// How often the course is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Latency is back when its p99 is at most so many times that of the first phase…
const BACK_TIMES: f64 = 2.0;

/// …or at most this, in microseconds: below it, others on the machine make the difference.
const BACK_US: f64 = 50_000.0;

/// The last phase ends when latency has been back for as long as another phase lasts, and at the latest after this.
const LAST_MAX: Duration = Duration::from_secs(30);

/// What one phase was like.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Phase {
    /// How many times what the target can dispatch was to be offered.
    pub(crate) load: f64,
    /// Since the run began.
    pub(crate) begins: f64,
    pub(crate) ends: f64,
    pub(crate) rates: Rates,
    /// By stream.
    pub(crate) latencies: BTreeMap<String, StreamLatency>,
}

/// Messages a second.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rates {
    /// Were due.
    pub(crate) offered: f64,
    /// Got their reply.
    pub(crate) answered: f64,
    /// Were refused with an error frame.
    pub(crate) shed: f64,
    /// Were not sent: what was sent before them was still in the client's socket, which took no more.
    pub(crate) held_back: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamLatency {
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// Half a second.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Moment {
    /// Since the run began.
    pub(crate) seconds: f64,
    pub(crate) rss_mib: f64,
    pub(crate) rates: Rates,
    /// By stream; a stream in which nothing ended is left out.
    pub(crate) p99_us: BTreeMap<String, f64>,
}

/// The latencies that are told apart. Each has a recorder of its own.
struct Streams {
    replies: Arc<Recorder>,
    /// By how much the driver was behind its own schedule: more than a little, and it is the driver that is measured.
    driver: Arc<Recorder>,
    probe: Probe,
}

impl Streams {
    fn all(&self) -> [(&'static str, &Recorder); 6] {
        let Probe { health, posts, looks, closes, .. } = &self.probe;
        [
            ("message", &self.replies),
            ("health", health),
            ("post", posts),
            ("get", looks),
            ("delete", closes),
            ("driver", &self.driver),
        ]
    }
}

impl Run<'_> {
    pub(super) async fn overload(&mut self) -> anyhow::Result<()> {
        let scenario = self.scenario;
        let capacity = self.capacity().await?;
        self.note("capacity_per_second", capacity);

        let sockets = self.connect_all(scenario.connections, CONNECTING).await?;
        sockets.iter().try_for_each(client::keep_little_unsent)?;
        let load_time = scenario.duration() * u32::try_from(scenario.loads.len())? + LAST_MAX;
        let probe = Probe::start(Arc::clone(&self.target.endpoints), load_time).await?;
        let mut streams = Streams { replies: Arc::default(), driver: Arc::default(), probe };
        let counts = Arc::new(Counts::default());
        let stop = CancellationToken::new();
        let (pace, paces) = watch::channel(Pace::default());
        let count = sockets.len() as f64;
        let offerings = sockets.into_iter().enumerate().map(|(index, socket)| {
            let offering = Offering {
                socket,
                replies: Arc::clone(&streams.replies),
                driver: Arc::clone(&streams.driver),
                counts: Arc::clone(&counts),
                messages: Messages::new(index, scenario.routes, scenario.payload_bytes),
                pace: paces.clone(),
                offset: index as f64 / count,
            };
            offering.run(stop.clone())
        });
        let offerings: JoinSet<()> = offerings.collect();

        for (_, recorder) in streams.all() {
            recorder.begin();
        }
        let mut look = Look::new(&streams, &counts);
        for (index, load) in scenario.loads.iter().enumerate() {
            let is_last = index + 1 == scenario.loads.len();
            self.phase(*load, capacity * load / count, is_last, &pace, &mut look).await;
        }
        pace.send_replace(Pace::default());
        end(&stop, offerings).await?;
        streams.probe.stop().await?;
        for (_, recorder) in streams.all() {
            self.recorder.take_in(recorder);
        }
        self.note_overload(capacity);
        Ok(())
    }

    /// Messages a second that the target dispatches when a client sends the next one as soon as one is answered: the
    /// warm-up's time without counting, then as long with.
    async fn capacity(&mut self) -> anyhow::Result<f64> {
        let mut sockets = self.connect_all(SATURATING.min(self.scenario.connections), CONNECTING).await?;
        let recipients = self.recipients(&mut sockets, false).await?;
        let stop = CancellationToken::new();
        let saturated = || Sending::Saturated { in_flight: self.scenario.in_flight };
        let clients = self.play_clients(sockets, &recipients, saturated, None, &stop);
        sleep(self.scenario.warmup()).await;
        self.recorder.begin();
        let began = Instant::now();
        sleep(self.scenario.warmup()).await;
        self.recorder.end();
        let capacity = self.recorder.operations() as f64 / began.elapsed().as_secs_f64();
        end(&stop, clients).await?;
        anyhow::ensure!(capacity > 0.0, "not one message was answered");
        Ok(capacity)
    }

    async fn phase(
        &mut self,
        load: f64,
        per_second: f64,
        is_last: bool,
        pace: &watch::Sender<Pace>,
        look: &mut Look<'_>,
    ) {
        let begins = Duration::from_nanos(self.recorder.now()).as_secs_f64();
        let began = (Instant::now(), look.counts.read());
        look.streams.all().iter().for_each(|(_, recorder)| _ = recorder.take_latencies());
        pace.send_replace(Pace { begins: look.streams.replies.now(), per_second });
        let ends = began.0 + if is_last { LAST_MAX } else { self.scenario.duration() };
        while Instant::now() < ends && !(is_last && self.is_back(began.0.elapsed(), begins)) {
            sleep_until(ends.min(Instant::now() + LOOK)).await;
            let seconds = Duration::from_nanos(self.recorder.now()).as_secs_f64();
            let rss_kib = usage_aside(&self.target.pids).await.rss_kib;
            self.course.push(look.moment(seconds, rss_kib));
        }
        let latencies = look.streams.all().map(|(name, recorder)| (name.to_owned(), recorder.take_latencies()));
        let latencies = latencies.into_iter().filter(|(_, quantiles)| quantiles.count > 0);
        self.phases.push(Phase {
            load,
            begins,
            ends: Duration::from_nanos(self.recorder.now()).as_secs_f64(),
            rates: look.counts.read().since(began.1, began.0.elapsed()),
            latencies: latencies.map(|(name, quantiles)| (name, StreamLatency::from(quantiles))).collect(),
        });
    }

    /// Whether latency has been back for as long as a phase lasts, in the last phase that began at `begins`.
    fn is_back(&self, elapsed: Duration, begins: f64) -> bool {
        let back = seconds_until_back(&self.course, begins, self.back_us());
        back.is_some_and(|seconds| elapsed.as_secs_f64() >= seconds + self.scenario.seconds)
    }

    /// What p99 has to come back to, in microseconds.
    fn back_us(&self) -> f64 {
        let first = self.phases.first().and_then(|phase| phase.latencies.get("message"));
        (first.map_or(0.0, |latency| latency.p99_us) * BACK_TIMES).max(BACK_US)
    }

    /// The figures that budgets are about: of the worst phase, and of coming back.
    fn note_overload(&mut self, capacity: f64) {
        let Some(last) = self.phases.last().cloned() else { return };
        let Some(worst) = self.phases.iter().max_by(|a, b| a.load.total_cmp(&b.load)).cloned() else { return };
        self.note("offered_times", worst.rates.offered / capacity);
        self.note("goodput_percent", worst.rates.answered / capacity * 100.0);
        self.note("shed_per_second", worst.rates.shed);
        self.note("held_back_per_second", worst.rates.held_back);
        for (stream, latency) in &worst.latencies {
            self.note(&format!("overload_{stream}_p50_us"), latency.p50_us);
            self.note(&format!("overload_{stream}_p99_us"), latency.p99_us);
        }
        let rss_mib = self.course.iter().map(|moment| moment.rss_mib).fold(0.0, f64::max);
        self.note("rss_mib", rss_mib);
        let seconds = seconds_until_back(&self.course, last.begins, self.back_us());
        if seconds.is_none() {
            self.recorder.note("latency was not back when the last phase ended");
        }
        self.note("recovery_seconds", seconds.unwrap_or(last.ends - last.begins));
    }
}

/// How long after `begins` the last moment ended in which latency was over the bound or anything was refused; none if
/// that was the last of all.
fn seconds_until_back(course: &[Moment], begins: f64, bound_us: f64) -> Option<f64> {
    let after: Vec<_> = course.iter().filter(|moment| moment.seconds > begins).collect();
    let is_back = |moment: &&Moment| {
        let p99_us = moment.p99_us.get("message").copied();
        p99_us.is_some_and(|p99_us| p99_us <= bound_us) && moment.rates.shed + moment.rates.held_back == 0.0
    };
    match after.iter().rposition(|moment| !is_back(moment)) {
        None => Some(0.0),
        Some(last_bad) if last_bad + 1 == after.len() => None,
        Some(last_bad) => Some(after[last_bad].seconds - begins),
    }
}

/// What was there when the course was last looked at.
struct Look<'a> {
    streams: &'a Streams,
    counts: &'a Counts,
    last: (Instant, offering::Counted),
}

impl<'a> Look<'a> {
    fn new(streams: &'a Streams, counts: &'a Counts) -> Self {
        Look { streams, counts, last: (Instant::now(), counts.read()) }
    }

    fn moment(&mut self, seconds: f64, rss_kib: u64) -> Moment {
        let now = (Instant::now(), self.counts.read());
        let rates = now.1.since(self.last.1, now.0 - self.last.0);
        self.last = now;
        let p99_us = self.streams.all().map(|(name, recorder)| (name.to_owned(), recorder.recent_latencies()));
        let p99_us = p99_us.into_iter().filter(|(_, recent)| recent.count > 0);
        let p99_us = p99_us.map(|(name, recent)| (name, recent.p99)).collect();
        Moment { seconds, rss_mib: rss_kib as f64 / 1024.0, rates, p99_us }
    }
}

impl From<Quantiles> for StreamLatency {
    fn from(quantiles: Quantiles) -> Self {
        let Quantiles { count, p50, p99, max, .. } = quantiles;
        StreamLatency { count, p50_us: p50, p99_us: p99, max_us: max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_back_after_the_last_moment_that_was_bad() {
        let moment = |seconds: f64, p99_us: f64, shed: f64| Moment {
            seconds,
            rss_mib: 0.0,
            rates: Rates { shed, ..Rates::default() },
            p99_us: [("message".to_owned(), p99_us)].into(),
        };
        let check = |course: &[Moment], expected| assert_eq!(seconds_until_back(course, 10.0, 100.0), expected);
        check(&[moment(9.0, 900.0, 9.0), moment(10.5, 90.0, 0.0)], Some(0.0));
        check(&[moment(10.5, 900.0, 0.0), moment(11.0, 90.0, 1.0), moment(11.5, 90.0, 0.0)], Some(1.0));
        check(&[moment(10.5, 90.0, 0.0), moment(11.0, 900.0, 0.0)], None);
    }
}
