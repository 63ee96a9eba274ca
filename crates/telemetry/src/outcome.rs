use tidegate_core::limits::ThrottleLevel;

/// The outcome of an event, with the label values of its metrics.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    Connect {
        outcome: ConnectOutcome,
        throttled: Option<ThrottleLevel>,
    },
    Message {
        throttled: Option<ThrottleLevel>,
    },
    MessageWithoutRoute,
    Disconnect,
    Push {
        outcome: PushOutcome,
        path: PushPath,
    },
    /// A call of `@connections` that is not a push.
    Call,
}

/// The outcome of a client's request to connect, as in `tidegate_connects_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOutcome {
    Accepted,
    BadRequest,
    Throttled,
    Denied(AuthorizerOutcome),
    Full,
    Backlog,
    Unavailable,
    Refused,
    Failed,
}

/// The outcome of a push to one connection, as in `tidegate_pushes_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    Ok,
    Gone,
    Full,
    Unreachable,
    Unknown,
    TooLarge,
    Throttled,
    Denied(AuthorizerOutcome),
    Invalid,
}

/// The way by which a push reached its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushPath {
    /// This node holds the connection.
    Local,
    /// Another node holds it.
    Peer,
}

/// The decision about a client or a caller, as in `tidegate_authorizer_results_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizerOutcome {
    Allowed,
    Unauthorized,
    Forbidden,
    Throttled,
    Failed,
}

impl ConnectOutcome {
    /// Returns the outcome as a label.
    pub fn name(self) -> &'static str {
        match self {
            ConnectOutcome::Accepted => "accepted",
            ConnectOutcome::BadRequest => "badRequest",
            ConnectOutcome::Throttled => "throttled",
            ConnectOutcome::Denied(denied) => denied.name(),
            ConnectOutcome::Full => "full",
            ConnectOutcome::Backlog => "backlog",
            ConnectOutcome::Unavailable => "unavailable",
            ConnectOutcome::Refused => "refused",
            ConnectOutcome::Failed => "failed",
        }
    }
}

impl PushOutcome {
    /// Returns the outcome as a label.
    pub fn name(self) -> &'static str {
        match self {
            PushOutcome::Ok => "ok",
            PushOutcome::Gone => "gone",
            PushOutcome::Full => "full",
            PushOutcome::Unreachable => "unreachable",
            PushOutcome::Unknown => "unknown",
            PushOutcome::TooLarge => "tooLarge",
            PushOutcome::Throttled => "throttled",
            PushOutcome::Denied(denied) => denied.name(),
            PushOutcome::Invalid => "invalid",
        }
    }
}

impl PushPath {
    /// Returns the way as a label.
    pub fn name(self) -> &'static str {
        match self {
            PushPath::Local => "local",
            PushPath::Peer => "peer",
        }
    }
}

impl AuthorizerOutcome {
    /// Returns the decision as a label.
    pub fn name(self) -> &'static str {
        match self {
            AuthorizerOutcome::Allowed => "allowed",
            AuthorizerOutcome::Unauthorized => "unauthorized",
            AuthorizerOutcome::Forbidden => "forbidden",
            AuthorizerOutcome::Throttled => "throttled",
            AuthorizerOutcome::Failed => "authorizerFailed",
        }
    }
}
