use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that gets its rate at each use, so that a new configuration takes effect at once. It has no lock: the
/// owner must prevent concurrent use.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Number of tokens that were missing from a full bucket at `at`.
    missing: f64,
    at: Instant,
}

impl Bucket {
    /// Returns a full bucket.
    pub fn new(now: Instant) -> Self {
        Bucket { missing: 0.0, at: now }
    }

    /// Takes a token from a bucket of `burst` tokens that gets `rate` tokens a second. Returns false if there is none.
    /// A rate of 0 is no bound.
    pub fn admit(&mut self, rate: u32, burst: u32, now: Instant) -> bool {
        if rate == 0 {
            return true;
        }
        let missing = self.missing_at(rate, now);
        // The tiny margin allows for the rounding of the clock.
        if missing + 1.0 > f64::from(burst.max(1)) + 1e-6 {
            return false;
        }
        *self = Bucket { missing: missing + 1.0, at: now };
        true
    }

    /// Returns true if the bucket is full, so that forgetting it changes nothing.
    pub fn is_full(&self, rate: u32, now: Instant) -> bool {
        rate == 0 || self.missing_at(rate, now) <= 0.0
    }

    fn missing_at(&self, rate: u32, now: Instant) -> f64 {
        let refilled = now.saturating_duration_since(self.at).max(Duration::ZERO).as_secs_f64() * f64::from(rate);
        (self.missing - refilled).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_burst_and_then_its_rate_exactly() {
        let mut bucket = Bucket::new(Instant::now());
        let mut take = |most: u32| (0..most).take_while(|_| bucket.admit(10, 25, Instant::now())).count();
        assert_eq!(take(100), 25);
        tokio::time::advance(Duration::from_millis(99)).await;
        assert_eq!(take(100), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(take(100), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(take(100), 10);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(take(100), 25);
        let mut in_a_minute = 0;
        for _ in 0..600 {
            tokio::time::advance(Duration::from_millis(100)).await;
            in_a_minute += take(100);
        }
        assert_eq!(in_a_minute, 600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_bucket_can_be_forgotten_and_a_rate_of_zero_is_no_bound() {
        let mut bucket = Bucket::new(Instant::now());
        assert!((0..1000).all(|_| bucket.admit(0, 1, Instant::now())));
        assert!(bucket.is_full(1, Instant::now()));
        assert!(bucket.admit(1, 1, Instant::now()));
        assert!(!bucket.is_full(1, Instant::now()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(bucket.is_full(1, Instant::now()));
    }
}
