use std::sync::Arc;

/// Why a connection ends: what its client is told, and what its `$disconnect` event says.
///
/// The codes are RFC 6455's (section 7.4); the texts are AWS's where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Code of the close frame and `disconnectStatusCode`.
    pub code: u16,
    /// Reason of the close frame and `disconnectReason`; at most 123 bytes.
    pub reason: Arc<str>,
    /// What ended it, as the metric `tidegate_disconnects_total` says.
    pub cause: &'static str,
}

impl Closing {
    fn new(code: u16, reason: &str, cause: &'static str) -> Self {
        Closing { code, reason: reason.into(), cause }
    }

    /// The client closed; without a code if its close frame had none.
    pub fn by_client(frame: Option<(u16, &str)>) -> Self {
        match frame {
            Some((code, reason)) => Closing::new(code, reason, "client"),
            None => Closing::new(1005, "Client-side close frame status not set", "client"),
        }
    }

    /// The client's side of the network is gone, or it dropped the socket without a word.
    pub fn lost() -> Self {
        Closing::new(1006, "Connection closed abnormally", "lost")
    }

    /// The client does not answer pings.
    pub fn dead() -> Self {
        Closing { cause: "dead", ..Closing::lost() }
    }

    /// The gateway failed; nothing is known of the client.
    pub fn failed() -> Self {
        Closing { cause: "internal", ..Closing::lost() }
    }

    /// `DELETE @connections`.
    pub fn deleted(code: u16, reason: &str) -> Self {
        Closing::new(code, reason, "backend")
    }

    /// No data for `limits.idleTimeoutSeconds`.
    pub fn idle() -> Self {
        Closing::new(1001, "Going away", "idle")
    }

    /// Older than `limits.connectionDurationSeconds`.
    pub fn expired() -> Self {
        Closing::new(1001, "Going away", "duration")
    }

    /// This node goes down.
    pub fn drained() -> Self {
        Closing::new(1001, "Going away", "drain")
    }

    /// This node was condemned by others; its connections are theirs.
    pub fn fenced() -> Self {
        Closing::new(1001, "Going away", "fenced")
    }

    /// This node hears of nobody that it may serve.
    pub fn isolated() -> Self {
        Closing::new(1001, "Going away", "isolated")
    }

    /// Whether nothing may be written any more but the close frame: others may have told the backend already.
    pub fn is_cut(&self) -> bool {
        matches!(self.cause, "fenced" | "isolated")
    }

    /// The client's token has expired, and it brought no other.
    pub fn token_expired(code: u16) -> Self {
        Closing::new(code, "Token expired", "tokenExpired")
    }

    /// The client took nothing for `limits.slowClientTimeoutSeconds`.
    pub fn slow() -> Self {
        Closing::new(1008, "Slow consumer", "slow")
    }

    /// A frame or message over its limit.
    pub fn too_big() -> Self {
        Closing::new(1009, "Message too big", "tooBig")
    }

    /// Text that is not UTF-8.
    pub fn not_utf8() -> Self {
        Closing::new(1007, "Invalid UTF-8", "protocol")
    }

    /// A breach of RFC 6455.
    pub fn protocol() -> Self {
        Closing::new(1002, "Protocol error", "protocol")
    }

    /// Whether the code may stand in a close frame; 1005 and 1006 never do.
    pub(super) fn has_code(&self) -> bool {
        !matches!(self.code, 1005 | 1006)
    }

    /// Whether the client can still be told: its socket is there and takes something.
    pub(super) fn can_be_told(&self) -> bool {
        self.code != 1006 && self.cause != "slow"
    }
}
