use std::time::Duration;

/// All times of the cluster, from the lease `L`. Each is measured on this node's own clock, or is a TTL in Redis; clocks of
/// nodes are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    lease: Duration,
}

impl Times {
    /// Those of a cluster whose leases last for `lease`.
    pub fn new(lease: Duration) -> Self {
        Times { lease }
    }

    /// TTL of a lease, and of a claim.
    pub fn lease(self) -> Duration {
        self.lease
    }

    /// Between two beats.
    pub fn beat(self) -> Duration {
        self.lease / 3
    }

    /// Between two tries while Redis is away.
    pub fn retry(self) -> Duration {
        self.lease / 10
    }

    /// How long Redis or a peer may take to answer.
    pub fn operation(self) -> Duration {
        self.lease / 6
    }

    /// The gate is open, and a claim may be used, for so long after its proof was sent. The lease began later and its
    /// clock may be faster: 5/6·(1+ρ) < 1−ρ for clock rates that differ by up to ρ = 9 %.
    pub fn proven(self) -> Duration {
        self.lease * 5 / 6
    }

    /// How long clients are held behind a gate that is shut before they are closed.
    pub fn hold(self) -> Duration {
        self.lease / 3
    }

    /// How long a node must have been watched without a break before it may be condemned, or be taken for gone.
    pub fn watch(self) -> Duration {
        self.lease
    }

    /// How long what was seen of a node may be acted on, and how far Redis's clock may differ from ours between two beats.
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
            // Our clock is slow, and that of Redis is fast.
            assert!(times.proven().mul_f64(1.0 + drift) < times.lease().mul_f64(1.0 - drift));
        }
    }
}
