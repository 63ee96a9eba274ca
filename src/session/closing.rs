use std::sync::Arc;

/// The end of a connection: what its client receives, and what its `$disconnect` event says.
///
/// The codes are those of RFC 6455 (section 7.4); the texts are AWS's where AWS has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Code of the close frame and `disconnectStatusCode`.
    pub code: u16,
    /// Reason of the close frame and `disconnectReason`; at most 123 bytes.
    pub reason: Arc<str>,
    /// Cause of the end, as in the metric `tidegate_disconnects_total`.
    pub cause: &'static str,
}

impl Closing {
    fn new(code: u16, reason: &str, cause: &'static str) -> Self {
        Closing { code, reason: reason.into(), cause }
    }

    /// Returns the end by the client itself. `frame` is the content of its close frame; `None` if that had no code.
    pub fn by_client(frame: Option<(u16, &str)>) -> Self {
        match frame {
            Some((code, reason)) => Closing::new(code, reason, "client"),
            None => Closing::new(1005, "Client-side close frame status not set", "client"),
        }
    }

    /// Returns the end of a connection whose client is gone from the network, or dropped the socket without a close
    /// frame.
    pub fn lost() -> Self {
        Closing::new(1006, "Connection closed abnormally", "lost")
    }

    /// Returns the end of a client that does not answer pings.
    pub fn dead() -> Self {
        Closing { cause: "dead", ..Closing::lost() }
    }

    /// Returns the end after a failure of the gateway; nothing is known about the client.
    pub fn failed() -> Self {
        Closing { cause: "internal", ..Closing::lost() }
    }

    /// Returns the end by `DELETE @connections`.
    pub fn deleted(code: u16, reason: &str) -> Self {
        Closing::new(code, reason, "backend")
    }

    /// Returns the end after `limits.idleTimeoutSeconds` without data.
    pub fn idle() -> Self {
        Closing::new(1001, "Going away", "idle")
    }

    /// Returns the end at the age of `limits.connectionDurationSeconds`.
    pub fn expired() -> Self {
        Closing::new(1001, "Going away", "duration")
    }

    /// Returns the end by the drain of this node.
    pub fn drained() -> Self {
        Closing::new(1001, "Going away", "drain")
    }

    /// Returns the end because this node is fenced: other nodes condemned it, and its connections belong to them.
    pub fn fenced() -> Self {
        Closing::new(1001, "Going away", "fenced")
    }

    /// Returns the end because this node is isolated: its serving lease ran out, and no peer could vouch for it.
    pub fn isolated() -> Self {
        Closing::new(1001, "Going away", "isolated")
    }

    /// Returns true if only the close frame may still be written, because other nodes may have sent the `$disconnect`
    /// already.
    pub fn is_cut(&self) -> bool {
        matches!(self.cause, "fenced" | "isolated")
    }

    /// Returns the end because the client's token has expired, and the client sent no fresh one.
    pub fn token_expired(code: u16) -> Self {
        Closing::new(code, "Token expired", "tokenExpired")
    }

    /// Returns the end of a client that accepted no bytes for `limits.slowClientTimeoutSeconds`.
    pub fn slow() -> Self {
        Closing::new(1008, "Slow consumer", "slow")
    }

    /// Returns the end by a frame or a message over its limit.
    pub fn too_big() -> Self {
        Closing::new(1009, "Message too big", "tooBig")
    }

    /// Returns the end by a text that is not UTF-8.
    pub fn not_utf8() -> Self {
        Closing::new(1007, "Invalid UTF-8", "protocol")
    }

    /// Returns the end by a breach of RFC 6455.
    pub fn protocol() -> Self {
        Closing::new(1002, "Protocol error", "protocol")
    }

    /// Returns true if the code may be in a close frame; 1005 and 1006 never are.
    pub(super) fn has_code(&self) -> bool {
        !matches!(self.code, 1005 | 1006)
    }

    /// Returns true if the client can still receive a close frame: its socket exists and accepts bytes.
    pub(super) fn can_be_notified(&self) -> bool {
        self.code != 1006 && self.cause != "slow"
    }
}
