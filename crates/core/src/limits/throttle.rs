//! Rate bounds: token buckets with AWS's rate and burst.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Add;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The bucket of all APIs together, per node, as an AWS account has one per region. Each connect, each message and each
/// `@connections` call takes a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ThrottleSettings {
    /// Tokens a second; unlimited when absent. AWS: 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 1e9))]
    pub rate_limit: Option<f64>,

    /// Size of the bucket; one second's worth of the rate when absent. AWS: 5000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst_limit: Option<u32>,
}

/// The level at which a request is throttled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThrottleLevel {
    /// The connection's own messages.
    Connection,
    /// The network address of the client.
    Address,
    /// The TLS handshakes of an address.
    Handshakes,
    /// The route.
    Route,
    /// The stage's routes without settings of their own.
    Stage,
    /// All APIs of this node.
    Account,
    /// The usage plan of the API key.
    UsagePlan,
}

impl ThrottleLevel {
    /// Returns the level as a label of `tidegate_throttled_total`.
    pub fn name(self) -> &'static str {
        match self {
            ThrottleLevel::Connection => "connection",
            ThrottleLevel::Address => "address",
            ThrottleLevel::Handshakes => "handshakes",
            ThrottleLevel::Route => "route",
            ThrottleLevel::Stage => "stage",
            ThrottleLevel::Account => "account",
            ThrottleLevel::UsagePlan => "usagePlan",
        }
    }
}

impl fmt::Display for ThrottleLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A token bucket of this node: exact, lock-free, and about 100 bytes large whatever its traffic.
#[derive(Debug)]
pub struct Throttle {
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Moment>>,
}

impl Throttle {
    /// Creates a bucket that gains `rate` tokens a second and holds `burst`, or one second's worth where `burst` is
    /// `None`. Returns `None` without a rate.
    pub fn new(rate: Option<f64>, burst: Option<u32>) -> Option<Self> {
        let rate = rate.filter(|rate| rate.is_finite() && *rate > 0.0)?;
        let burst = burst.unwrap_or_else(|| one_second_of(rate));
        let quota = Quota::with_period(Duration::from_secs_f64(1.0 / rate))?;
        let quota = quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN));
        Some(Throttle { limiter: RateLimiter::direct_with_clock(quota, TokioClock) })
    }

    /// Takes a token. Returns false if there is none.
    pub fn admit(&self) -> bool {
        self.limiter.check().is_ok()
    }
}

/// The runtime's clock, which tests can pause.
#[derive(Clone, Copy, Debug)]
struct TokioClock;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(Instant);

impl Clock for TokioClock {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(Instant::now())
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Moment(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

impl Add<Nanos> for Moment {
    type Output = Self;

    fn add(self, duration: Nanos) -> Self {
        Moment(self.0 + Duration::from(duration))
    }
}

/// Returns the number of tokens in one second, rounded up to a whole number, at least one.
fn one_second_of(rate: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of u32")]
    let tokens = rate.ceil().clamp(1.0, f64::from(u32::MAX)) as u32;
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_burst_and_no_more() {
        let throttle = Throttle::new(Some(0.001), Some(3)).unwrap();
        let admitted = (0..10).filter(|_| throttle.admit()).count();
        assert_eq!(admitted, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_refills_at_its_rate_exactly() {
        let throttle = Throttle::new(Some(10.0), Some(25)).unwrap();
        let take = || (0..100).take_while(|_| throttle.admit()).count();
        assert_eq!(take(), 25);
        tokio::time::advance(Duration::from_millis(99)).await;
        assert_eq!(take(), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(take(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(take(), 10);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(take(), 25);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_bucket_takes_nothing_from_another() {
        let bucket = || Throttle::new(Some(1.0), Some(3)).unwrap();
        let (busy, quiet) = (bucket(), bucket());
        for _ in 0..1000 {
            busy.admit();
        }
        assert_eq!((0..10).filter(|_| quiet.admit()).count(), 3);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((0..10).filter(|_| busy.admit()).count(), 2);
    }

    #[test]
    fn without_a_rate_there_is_no_bucket() {
        assert!(Throttle::new(None, Some(3)).is_none());
    }
}
