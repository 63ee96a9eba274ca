//! Rate bounds: token buckets with AWS's rate and burst.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::apigatewayv2::RouteSettings;

/// A token bucket of this node. Exact, lock-free, and about 100 bytes whatever its traffic.
#[derive(Debug)]
pub struct Throttle {
    limiter: DefaultDirectRateLimiter,
}

impl Throttle {
    /// The bucket that the settings ask for, or `None` if they set no rate.
    pub fn new(settings: RouteSettings) -> Option<Self> {
        let rate = settings.throttling_rate_limit.filter(|rate| rate.is_finite() && *rate > 0.0)?;
        let burst = settings.throttling_burst_limit.unwrap_or_else(|| one_second_of(rate));
        let quota = Quota::with_period(Duration::from_secs_f64(1.0 / rate))?;
        let limiter = RateLimiter::direct(quota.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN)));
        Some(Throttle { limiter })
    }

    /// Takes one token; `false` if there is none.
    pub fn admit(&self) -> bool {
        self.limiter.check().is_ok()
    }
}

/// The rate as a whole number of tokens, at least one.
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
        let settings = RouteSettings {
            throttling_rate_limit: Some(0.001),
            throttling_burst_limit: Some(3),
            ..RouteSettings::default()
        };
        let throttle = Throttle::new(settings).unwrap();
        let admitted = (0..10).filter(|_| throttle.admit()).count();
        assert_eq!(admitted, 3);
    }

    #[test]
    fn without_a_rate_there_is_no_bucket() {
        assert!(Throttle::new(RouteSettings::default()).is_none());
    }
}
