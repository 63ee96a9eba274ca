//! Size and time bounds: the settings that an operator may change, and AWS's fixed numbers with their source.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most routes, and most integrations, of one API.
///
/// Source: AWS, "Quotas for configuring and running a WebSocket API in API Gateway".
pub const ROUTES_MAX: usize = 300;

/// Most stage variables of one stage.
///
/// Source: AWS, "Quotas for configuring and running a WebSocket API in API Gateway".
pub const STAGE_VARIABLES_MAX: usize = 100;

/// Longest request target a client may use, in bytes.
///
/// Source: AWS, "Quotas for configuring and running a WebSocket API in API Gateway".
pub const URL_MAX_BYTES: usize = 4096;

/// Largest head (request line and headers) of a request to any listener, in bytes. A larger one is 431.
pub const HEAD_MAX_BYTES: usize = 32 * 1024;

/// Largest answer of a backend that is read, in bytes: a reply of 128 KiB in JSON's longest spelling fits. A larger
/// one is a failed call.
pub const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// Bounds of what clients and backends may do. `0` switches a bound off where the field says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Largest message from a client, and largest body of one `@connections` post, in bytes. A larger message closes
    /// its connection with 1009, a larger post is 413.
    #[schemars(range(min = 1, max = 67_108_864))]
    pub message_bytes: usize,

    /// Largest single frame from a client, in bytes; a larger one closes its connection with 1009. AWS: 32768.
    #[schemars(range(min = 1, max = 67_108_864))]
    pub frame_bytes: usize,

    /// A connection without data in either direction for this long is closed with 1001. 0 = never. AWS: 600.
    #[schemars(range(max = 31_536_000))]
    pub idle_timeout_seconds: u32,

    /// A connection this old is closed with 1001. 0 = unlimited. AWS: 7200.
    #[schemars(range(max = 31_536_000))]
    pub connection_duration_seconds: u32,

    /// For TLS, each head of a request, and a body that stands still; a slower client is cut off.
    #[schemars(range(min = 1, max = 3600))]
    pub handshake_timeout_seconds: u32,

    /// Frames of one connection that are not yet written, in bytes. A post that does not fit is 429.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub send_buffer_bytes: usize,

    /// A socket that takes nothing for this long while there is something to send is closed; a WebSocket with 1008.
    #[schemars(range(min = 1, max = 3600))]
    pub slow_client_timeout_seconds: u32,

    /// Messages of one connection that are at the backend at once; then its socket is not read. 1 = strictly in order.
    #[schemars(range(min = 1, max = 1024))]
    pub concurrent_dispatches: u16,

    /// Largest `timeoutInMillis` that an integration may ask for. AWS: 29000.
    #[schemars(range(min = 50, max = 900_000))]
    pub integration_timeout_millis: u32,

    /// Connections of this node; more are refused with 503 and `Retry-After`. 0 = unlimited.
    pub connections: u32,

    /// Groups that one connection may be in, with the users that are on it; joining one more is 400.
    #[schemars(range(min = 1, max = 65_536))]
    pub groups_per_connection: u32,

    /// Groups, users, connections and exceptions that one message of `@send` may name, and connections that may join or
    /// leave in one call; more are 413.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub targets: u32,

    /// Largest body of `@send` and of a call in which many join or leave, in bytes; a larger one is 413.
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub bulk_bytes: usize,

    /// What the clients of one address may do together.
    pub per_address: AddressLimitSettings,

    /// What one connection may do.
    pub per_connection: ConnectionLimitSettings,
}

/// What the clients of one address may do together, on this node; an IPv6 client is counted by its /64. Every bound is
/// off by default: behind a proxy that `trustedProxies` does not name, all clients are one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AddressLimitSettings {
    /// Open connections; a request on one more is 429. 0 = unlimited.
    pub connections: u32,

    /// Connections on which nothing was asked yet, TLS handshakes included; one more is closed at once. 0 = unlimited.
    pub handshakes_in_flight: u32,

    /// Upgrade requests a second, and at once; one more is 429. 0 = unlimited.
    pub connects_per_second: u32,

    /// Messages a second, and at once; one more is answered with an error frame. 0 = unlimited.
    pub messages_per_second: u32,
}

/// What one connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConnectionLimitSettings {
    /// Messages a second; one more is answered with an error frame. 0 = unlimited.
    pub messages_per_second: u32,

    /// Messages at once, before the rate counts.
    #[schemars(range(min = 1))]
    pub message_burst: u32,
}

impl Default for ConnectionLimitSettings {
    fn default() -> Self {
        ConnectionLimitSettings { messages_per_second: 0, message_burst: 100 }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        LimitSettings {
            message_bytes: 128 * 1024,
            frame_bytes: 128 * 1024,
            idle_timeout_seconds: 0,
            connection_duration_seconds: 0,
            handshake_timeout_seconds: 10,
            send_buffer_bytes: 1024 * 1024,
            slow_client_timeout_seconds: 10,
            concurrent_dispatches: 16,
            integration_timeout_millis: 29_000,
            connections: 0,
            groups_per_connection: 1000,
            targets: 10_000,
            bulk_bytes: 1024 * 1024,
            per_address: AddressLimitSettings::default(),
            per_connection: ConnectionLimitSettings::default(),
        }
    }
}

impl LimitSettings {
    /// How long a connection may be idle, if that is bounded.
    pub fn idle_timeout(&self) -> Option<Duration> {
        positive_seconds(self.idle_timeout_seconds)
    }

    /// How old a connection may get, if that is bounded.
    pub fn connection_duration(&self) -> Option<Duration> {
        positive_seconds(self.connection_duration_seconds)
    }

    /// How long TLS and the head of a request may take.
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_secs(self.handshake_timeout_seconds.into())
    }

    /// How long a socket may take nothing.
    pub fn slow_client_timeout(&self) -> Duration {
        Duration::from_secs(self.slow_client_timeout_seconds.into())
    }
}

/// How the gateway notices that a peer is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KeepAliveSettings {
    /// Time between the pings that the gateway sends. 0 = off, as AWS.
    #[schemars(range(max = 86_400))]
    pub ping_interval_seconds: u32,

    /// A peer that sends nothing for this long after a ping is dead: 1006. It does not run while the gateway itself
    /// has stopped reading.
    #[schemars(range(min = 1, max = 86_400))]
    pub pong_timeout_seconds: u32,
}

impl Default for KeepAliveSettings {
    fn default() -> Self {
        KeepAliveSettings { ping_interval_seconds: 30, pong_timeout_seconds: 10 }
    }
}

impl KeepAliveSettings {
    /// Time between pings, unless they are off.
    pub fn ping_interval(&self) -> Option<Duration> {
        positive_seconds(self.ping_interval_seconds)
    }

    /// How long a peer may be silent after a ping.
    pub fn pong_timeout(&self) -> Duration {
        Duration::from_secs(self.pong_timeout_seconds.into())
    }
}

fn positive_seconds(seconds: u32) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}
