use std::fmt;

/// The state of the Redis replica, and with it what other nodes know of this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryState {
    /// There is no Redis replica.
    Memory,
    /// This node is not registered yet and accepts no connections.
    Starting { why: String },
    /// Redis has all records of this node.
    Attached,
    /// Redis answers, and the records are being reconciled.
    Rebuilding,
    /// Redis renews the lease but refuses records.
    Degraded { why: String },
    /// Redis does not answer.
    Detached { why: String },
    /// This node has left the cluster.
    Left,
}

impl RegistryState {
    /// All names, of which one is 1 in the metric `tidegate_registry_state`.
    pub const NAMES: [&'static str; 7] =
        ["memory", "starting", "attached", "rebuilding", "degraded", "detached", "left"];

    /// Returns the name of the state, without its reason.
    pub fn name(&self) -> &'static str {
        match self {
            RegistryState::Memory => "memory",
            RegistryState::Starting { .. } => "starting",
            RegistryState::Attached => "attached",
            RegistryState::Rebuilding => "rebuilding",
            RegistryState::Degraded { .. } => "degraded",
            RegistryState::Detached { .. } => "detached",
            RegistryState::Left => "left",
        }
    }

    /// Returns what is wrong, in a state in which connections are served all the same.
    pub fn degraded(&self) -> Option<&str> {
        match self {
            RegistryState::Memory | RegistryState::Attached | RegistryState::Left => None,
            RegistryState::Starting { why } | RegistryState::Degraded { why } | RegistryState::Detached { why } => {
                Some(why)
            }
            RegistryState::Rebuilding => Some("records are being written back to Redis"),
        }
    }
}

impl fmt::Display for RegistryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.degraded().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}
