//! Time limits of an HTTP connection for everything that it waits for.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use tidegate_core::limits::LimitSettings;

/// Longest time that a connection may be idle. SDKs and load balancers have shorter times, so that they close first and
/// no call meets a closing connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);

/// Longest time that a connection may be idle if its last request came from a stranger. Each such connection is an open
/// file.
const STRANGER_KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The kind of caller, which decides how long its connection is kept after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepAlive {
    /// The caller signed its request, reached a route, or is a trusted proxy that stands for many clients.
    Known,
    /// Anybody could have sent the request, and it was refused.
    Stranger,
}

/// The event that a connection waits for. Equal values are one wait: the numbers tell it from the next one of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The first head, since the beginning of the connection.
    FirstRequest,
    /// The gateway's answer, which has its own deadlines.
    Answer,
    /// The other end reads what was written to it.
    Taken { writes: usize },
    /// The first byte of the next head.
    NextRequest { answered: usize, keep_alive: KeepAlive },
    /// The rest of a head that has begun.
    Head { answered: usize },
}

impl Wait {
    /// Returns the longest time for this wait, if it is bounded here.
    pub(super) fn limit(self, limits: &LimitSettings) -> Option<Duration> {
        match self {
            Wait::FirstRequest | Wait::Head { .. } => Some(limits.handshake_timeout()),
            Wait::Answer => None,
            Wait::Taken { .. } => Some(limits.slow_client_timeout()),
            Wait::NextRequest { keep_alive: KeepAlive::Known, .. } => Some(KEEP_ALIVE_TIMEOUT),
            Wait::NextRequest { keep_alive: KeepAlive::Stranger, .. } => Some(STRANGER_KEEP_ALIVE_TIMEOUT),
        }
    }
}

/// The timer of one connection, which begins anew with each wait.
pub(super) struct Pace<'a> {
    timer: Pin<&'a mut Sleep>,
    wait: Wait,
    is_bounded: bool,
}

impl<'a> Pace<'a> {
    /// Begins with the wait for the first request. `timer` must already have its deadline.
    pub(super) fn new(timer: Pin<&'a mut Sleep>) -> Self {
        Pace { timer, wait: Wait::FirstRequest, is_bounded: true }
    }

    /// Polls for a wait that has taken too long. `wait` is what the connection waits for now, and `limit` returns the
    /// longest time for it.
    pub(super) fn poll(
        &mut self,
        wait: Wait,
        limit: impl FnOnce(Wait) -> Option<Duration>,
        cx: &mut Context<'_>,
    ) -> Poll<Wait> {
        if wait != self.wait {
            let limit = limit(wait);
            if let Some(limit) = limit {
                self.timer.as_mut().reset(Instant::now() + limit);
            }
            (self.wait, self.is_bounded) = (wait, limit.is_some());
        }
        if !self.is_bounded {
            return Poll::Pending;
        }
        self.timer.as_mut().poll(cx).map(|()| self.wait)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::time::{advance, sleep};

    use super::*;

    const KNOWN: KeepAlive = KeepAlive::Known;

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_limit_from_its_beginning() {
        let limits = LimitSettings { slow_client_timeout_seconds: 3, ..LimitSettings::default() };
        let mut timer = pin!(sleep(limits.handshake_timeout()));
        let mut pace = Pace::new(timer.as_mut());
        let mut elapsed = async |wait: Wait, seconds: u64| {
            let limits = &limits;
            let mut look = async || poll_fn(|cx| Poll::Ready(pace.poll(wait, |wait| wait.limit(limits), cx))).await;
            let first = look().await;
            advance(Duration::from_secs(seconds)).await;
            (first.is_ready(), look().await == Poll::Ready(wait))
        };
        assert_eq!(elapsed(Wait::FirstRequest, 9).await, (false, false));
        assert_eq!(elapsed(Wait::Answer, 1000).await, (false, false));
        assert_eq!(elapsed(Wait::Taken { writes: 1 }, 2).await, (false, false));
        assert_eq!(elapsed(Wait::Taken { writes: 2 }, 2).await, (false, false));
        assert_eq!(elapsed(Wait::NextRequest { answered: 1, keep_alive: KNOWN }, 74).await, (false, false));
        assert_eq!(elapsed(Wait::Head { answered: 1 }, 9).await, (false, false));
        let stranger = Wait::NextRequest { answered: 2, keep_alive: KeepAlive::Stranger };
        assert_eq!(elapsed(stranger, 4).await, (false, false));
        assert_eq!(elapsed(stranger, 2).await, (false, true));
        assert_eq!(elapsed(Wait::Taken { writes: 3 }, 3).await, (false, true));
        assert_eq!(elapsed(Wait::NextRequest { answered: 3, keep_alive: KNOWN }, 75).await, (false, true));
    }
}
