//! The keeper: the one timer task of a backend. It runs while the pool has idle connections, or waits for the window to
//! open.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::backend::Backend;

/// Least time between two rounds of a keeper, so that connections that expire one after another are closed together.
const ROUND_MIN: Duration = Duration::from_millis(20);

/// The state of a backend's keeper.
#[derive(Default)]
pub(super) enum Keeper {
    #[default]
    None,
    /// The keeper is about to look at the pool.
    Looks,
    SleepsUntil(Instant),
}

impl Keeper {
    /// Notes that the keeper has looked at the pool and sleeps until `next`, or ends if there is nothing to wait for.
    pub(super) fn sleeps_until(&mut self, next: Option<Instant>) {
        *self = next.map_or(Keeper::None, Keeper::SleepsUntil);
    }

    /// Returns true if a keeper must be started to look at the pool at `next`. Wakes a keeper that would sleep longer.
    pub(super) fn starts(&mut self, next: Option<Instant>, wake: &Notify) -> bool {
        match (&self, next) {
            (_, None) | (Keeper::Looks, Some(_)) => false,
            (Keeper::None, Some(_)) => {
                *self = Keeper::Looks;
                true
            }
            (Keeper::SleepsUntil(until), Some(next)) => {
                if next < *until {
                    *self = Keeper::Looks;
                    wake.notify_one();
                }
                false
            }
        }
    }
}

/// Runs the keeper of a backend until there is nothing to wait for.
pub(super) async fn keep(backend: Arc<Backend>) {
    while let Some(next) = backend.tend() {
        let next = next.max(Instant::now() + ROUND_MIN);
        tokio::select! {
            () = sleep_until(next) => {}
            () = backend.keeper_wake().notified() => {}
        }
    }
}
