//! The keeper: the one timer task of a backend. It lives while the pool has idle connections or is held back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::backend::Backend;

/// Least time between two rounds of a keeper, so that connections that expire one after another go together.
const ROUND_MIN: Duration = Duration::from_millis(20);

/// Whether a backend has a keeper, and when it wakes.
#[derive(Default)]
pub(super) enum Keeper {
    #[default]
    None,
    /// About to look at the pool.
    Looks,
    SleepsUntil(Instant),
}

impl Keeper {
    /// The keeper has looked at the pool, and ends if there is nothing to wait for.
    pub(super) fn sleeps_until(&mut self, next: Option<Instant>) {
        *self = next.map_or(Keeper::None, Keeper::SleepsUntil);
    }

    /// Whether a keeper must be started to be there at `next`. Wakes one that would sleep beyond that.
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

/// Tends the pool of a backend until there is nothing to wait for.
pub(super) async fn keep(backend: Arc<Backend>) {
    while let Some(next) = backend.tend() {
        let next = next.max(Instant::now() + ROUND_MIN);
        tokio::select! {
            () = sleep_until(next) => {}
            () = backend.keeper_wake().notified() => {}
        }
    }
}
