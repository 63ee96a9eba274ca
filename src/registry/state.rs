use std::fmt;

/// What this node's registry is worth to others at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryState {
    /// There is no mirror.
    Memory,
    /// This node is not registered yet and takes no connections.
    Starting { why: String },
    /// Redis holds what this node holds.
    Attached,
    /// Redis is there and the mirror is being made equal.
    Rebuilding,
    /// Redis renews the lease and does not take records.
    Degraded { why: String },
    /// Redis is away.
    Detached { why: String },
    /// This node has left.
    Left,
}

impl RegistryState {
    /// All names, of which one is 1 in the metric `tidegate_registry_state`.
    pub const NAMES: [&'static str; 7] =
        ["memory", "starting", "attached", "rebuilding", "degraded", "detached", "left"];

    /// The name of the state, without its reason.
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

    /// What is not as it should be, while connections are served.
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
