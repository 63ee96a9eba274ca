use std::sync::Arc;

/// Longest reason of a close frame, in bytes: a control frame has at most 125, and the code takes two (RFC 6455,
/// section 5.5).
pub const REASON_MAX_BYTES: usize = 123;

/// The end of a connection: what its client receives, and what its `$disconnect` event says.
///
/// The codes are those of RFC 6455 (section 7.4); the texts are AWS's where AWS has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Code of the close frame and `disconnectStatusCode`.
    pub code: u16,
    /// Reason of the close frame and `disconnectReason`; at most [`REASON_MAX_BYTES`].
    pub reason: Arc<str>,
    pub cause: Cause,
}

/// The cause of a connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client closed it.
    Client,
    /// The backend closed it, by `DELETE @connections`.
    Backend,
    /// Nothing was sent for `limits.idleTimeoutSeconds`.
    Idle,
    /// It was as old as `limits.connectionDurationSeconds` allows.
    Duration,
    /// The client took nothing for `limits.slowClientTimeoutSeconds`.
    Slow,
    /// The client sent more than `limits.frameBytes` or `limits.messageBytes` allow.
    TooBig,
    /// The client broke the rules of WebSocket.
    Protocol,
    /// The client's token expired.
    TokenExpired,
    /// The client did not answer pings.
    Dead,
    /// The socket was closed without a close frame.
    Lost,
    /// This node drains.
    Drain,
    /// Other nodes condemned this node.
    Fenced,
    /// This node's serving lease ran out.
    Isolated,
    /// The gateway failed.
    Internal,
}

impl Cause {
    /// Returns the cause as a label of the metric `tidegate_disconnects_total`.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Client => "client",
            Cause::Backend => "backend",
            Cause::Idle => "idle",
            Cause::Duration => "duration",
            Cause::Slow => "slow",
            Cause::TooBig => "tooBig",
            Cause::Protocol => "protocol",
            Cause::TokenExpired => "tokenExpired",
            Cause::Dead => "dead",
            Cause::Lost => "lost",
            Cause::Drain => "drain",
            Cause::Fenced => "fenced",
            Cause::Isolated => "isolated",
            Cause::Internal => "internal",
        }
    }
}

impl Closing {
    fn new(code: u16, reason: &str, cause: Cause) -> Self {
        Closing { code, reason: reason.into(), cause }
    }

    /// Returns the end by the client itself. `frame` is the content of its close frame; `None` if that had no code.
    pub fn by_client(frame: Option<(u16, &str)>) -> Self {
        match frame {
            Some((code, reason)) => Closing::new(code, reason, Cause::Client),
            None => Closing::new(1005, "Client-side close frame status not set", Cause::Client),
        }
    }

    /// Returns the end of a connection whose client is gone from the network, or dropped the socket without a close
    /// frame.
    pub fn lost() -> Self {
        Closing::new(1006, "Connection closed abnormally", Cause::Lost)
    }

    /// Returns the end of a client that does not answer pings.
    pub fn dead() -> Self {
        Closing { cause: Cause::Dead, ..Closing::lost() }
    }

    /// Returns the end after a failure of the gateway; nothing is known about the client.
    pub fn failed() -> Self {
        Closing { cause: Cause::Internal, ..Closing::lost() }
    }

    /// Returns the end by `DELETE @connections`.
    pub fn deleted(code: u16, reason: &str) -> Self {
        Closing::new(code, reason, Cause::Backend)
    }

    /// Returns the end after `limits.idleTimeoutSeconds` without data.
    pub fn idle() -> Self {
        Closing::new(1001, "Going away", Cause::Idle)
    }

    /// Returns the end at the age of `limits.connectionDurationSeconds`.
    pub fn expired() -> Self {
        Closing::new(1001, "Going away", Cause::Duration)
    }

    /// Returns the end by the drain of this node.
    pub fn drained() -> Self {
        Closing::new(1001, "Going away", Cause::Drain)
    }

    /// Returns the end because this node is fenced: other nodes condemned it, and its connections belong to them.
    pub fn fenced() -> Self {
        Closing::new(1001, "Going away", Cause::Fenced)
    }

    /// Returns the end because this node is isolated: its serving lease ran out, and no peer could vouch for it.
    pub fn isolated() -> Self {
        Closing::new(1001, "Going away", Cause::Isolated)
    }

    /// Returns true if only the close frame may still be written, because other nodes may have sent the `$disconnect`
    /// already.
    pub fn is_cut(&self) -> bool {
        matches!(self.cause, Cause::Fenced | Cause::Isolated)
    }

    /// Returns the end because the client's token has expired, and the client sent no fresh one.
    pub fn token_expired(code: u16) -> Self {
        Closing::new(code, "Token expired", Cause::TokenExpired)
    }

    /// Returns the end of a client that accepted no bytes for `limits.slowClientTimeoutSeconds`.
    pub fn slow() -> Self {
        Closing::new(1008, "Slow consumer", Cause::Slow)
    }

    /// Returns the end by a frame or a message over its limit.
    pub fn too_big() -> Self {
        Closing::new(1009, "Message too big", Cause::TooBig)
    }

    /// Returns the end by a text that is not UTF-8.
    pub fn not_utf8() -> Self {
        Closing::new(1007, "Invalid UTF-8", Cause::Protocol)
    }

    /// Returns the end by a breach of RFC 6455.
    pub fn protocol() -> Self {
        Closing::new(1002, "Protocol error", Cause::Protocol)
    }

    /// Returns true if the code may be in a close frame; 1005 and 1006 never are.
    pub(super) fn has_code(&self) -> bool {
        !matches!(self.code, 1005 | 1006)
    }

    /// Returns true if the client can still receive a close frame: its socket exists and accepts bytes.
    pub(super) fn can_be_notified(&self) -> bool {
        self.code != 1006 && self.cause != Cause::Slow
    }
}
