use std::time::Duration;

/// All times of the cluster, which follow from the lease `L`. Each is measured on this node's own clock, or is a TTL in
/// Redis; the clocks of two nodes are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    lease: Duration,
}

impl Times {
    /// Returns the times of a cluster whose leases last for `lease`.
    pub fn new(lease: Duration) -> Self {
        Times { lease }
    }

    /// Returns the TTL of a lease, and of a claim.
    pub fn lease(self) -> Duration {
        self.lease
    }

    /// Returns the time between two heartbeats.
    pub fn heartbeat(self) -> Duration {
        self.lease / 3
    }

    /// Returns the time between two tries while Redis is away.
    pub fn retry(self) -> Duration {
        self.lease / 10
    }

    /// Returns the longest time that Redis or a peer may take to answer.
    pub fn operation(self) -> Duration {
        self.lease / 6
    }

    /// Returns the length of a serving lease, and of the use of a claim, counted from the moment at which the proof was
    /// asked for. The lease in Redis began later, and Redis's clock may be faster: 5/6·(1+ρ) < 1−ρ for clock rates that
    /// differ by up to ρ = 9 %.
    pub fn proven(self) -> Duration {
        self.lease * 5 / 6
    }

    /// Returns the longest time for which clients are held after the serving lease has run out; then they are closed.
    pub fn hold(self) -> Duration {
        self.lease / 3
    }

    /// Returns the time for which a node must have been watched without a break before it may be condemned, or counts
    /// as gone for good.
    pub fn watch(self) -> Duration {
        self.lease
    }

    /// Returns the time for which a look at a node may be acted on. Redis's clock may also differ from this node's by
    /// as much between two heartbeats; if it differs by more, it has jumped.
    pub fn slack(self) -> Duration {
        self.lease / 6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_shuts_before_its_lease_is_over_although_clocks_differ() {
        for millis in [500, 3000, 5000, 600_000] {
            let times = Times::new(Duration::from_millis(millis));
            let drift = 0.09;
            // The worst case: this node's clock is slow, and that of Redis is fast.
            assert!(times.proven().mul_f64(1.0 + drift) < times.lease().mul_f64(1.0 - drift));
        }
    }
}
