//! Releases operations at a fixed rate, from a thread of its own: tokio's timers are a millisecond coarse.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::recorder::{Nanos, Recorder};

/// Pauses shorter than this are not slept; the operation is released early by at most as much.
const SLEEP_MIN: Duration = Duration::from_micros(5);

/// Sends each lane in turn the time at which its next operation is due, when it is. Ends when all lanes are gone.
///
/// A late release moves nothing: the schedule is fixed when it begins, and latencies are measured from it.
pub(crate) fn start(recorder: Arc<Recorder>, per_second: u32, lanes: Vec<mpsc::UnboundedSender<Nanos>>) {
    if lanes.is_empty() || per_second == 0 {
        return;
    }
    // The thread ends with its lanes, so nobody has to join it.
    std::thread::spawn(move || {
        // Without this the kernel wakes sleepers up to 50 µs late. Failing costs accuracy only.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let begins = recorder.now();
        let period = 1e9 / f64::from(per_second);
        let mut gone = 0;
        for number in 0_u64.. {
            let due = begins + (number as f64 * period) as Nanos;
            let pause = recorder.instant(due).saturating_duration_since(Instant::now());
            if pause > SLEEP_MIN {
                std::thread::sleep(pause);
            }
            let lane = number as usize % lanes.len();
            gone = if lanes[lane].send(due).is_err() { gone + 1 } else { 0 };
            if gone >= lanes.len() {
                return;
            }
        }
    });
}
