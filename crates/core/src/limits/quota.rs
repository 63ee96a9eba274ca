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

/// Largest head (request line and headers) of a request to any listener, in bytes. A larger one gets 431.
pub const HEAD_MAX_BYTES: usize = 32 * 1024;

/// Largest answer of a backend that is read, in bytes: a reply of 128 KiB in JSON's longest spelling fits. A larger
/// answer fails the call.
pub const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// Longest Host of a request, in bytes: the Host is kept for the life of a connection. A longer one gets 400.
pub const HOST_MAX_BYTES: usize = 255;

/// Default of `limits.disconnectBacklog` for a node whose connections are not bounded.
const DISCONNECT_BACKLOG: u32 = 100_000;

/// Default of `limits.disconnectBacklog` for each of the connections that a node may have.
const DISCONNECT_BACKLOG_PER_CONNECTION: u32 = 10;

/// Cuts a client's header to the part that is kept for the life of its connection: at most `max_bytes` bytes, without
/// half a character at the end.
pub fn cut_header(value: &str, max_bytes: usize) -> &str {
    &value[..value.floor_char_boundary(max_bytes)]
}

/// Cuts a client's `X-Forwarded-For` to at most `max_bytes` bytes, at the end of an address. Returns `None` if there is
/// only one address, which the connection has anyway.
pub fn cut_forwarded_for(value: &str, max_bytes: usize) -> Option<&str> {
    const SEPARATOR: &str = ", ";
    let fits = |end: &usize| *end <= max_bytes;
    let ends = value.match_indices(SEPARATOR).map(|(index, _)| index).skip(1).chain([value.len()]);
    let end = ends.take_while(fits).last()?;
    value.contains(SEPARATOR).then(|| &value[..end])
}

/// Bounds of what clients and backends may do. `0` switches a bound off where the field says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Largest message from a client, and largest body of one `@connections` post, in bytes. A larger message closes
    /// its connection with 1009, a larger post gets 413.
    #[schemars(range(min = 1, max = 67_108_864))]
    pub message_bytes: usize,

    /// Largest single frame from a client, in bytes; a larger one closes its connection with 1009. AWS: 32768.
    #[schemars(range(min = 1, max = 67_108_864))]
    pub frame_bytes: usize,

    /// A connection without data in either direction for this time is closed with 1001. A message in transit counts as
    /// data while its bytes move. 0 = never. AWS: 600.
    #[schemars(range(max = 31_536_000))]
    pub idle_timeout_seconds: u32,

    /// A connection that has reached this age is closed with 1001. 0 = unlimited. AWS: 7200.
    #[schemars(range(max = 31_536_000))]
    pub connection_duration_seconds: u32,

    /// Longest time for a TLS handshake, for each head of a request, and for a pause within a body; a slower client is
    /// disconnected.
    #[schemars(range(min = 1, max = 3600))]
    pub handshake_timeout_seconds: u32,

    /// Largest total of the frames of one connection that are not yet written, in bytes. A post that does not fit gets
    /// 429.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub send_buffer_bytes: usize,

    /// A client that reads nothing for this time while data is waiting for it is disconnected, a WebSocket with
    /// 1008. It reads nothing if its socket takes no byte and its TCP acknowledges none.
    #[schemars(range(min = 1, max = 3600))]
    pub slow_client_timeout_seconds: u32,

    /// Most messages of one connection that are dispatched to the backend at the same time; at this number its socket
    /// is not read. 1 = strictly in order.
    #[schemars(range(min = 1, max = 1024))]
    pub concurrent_dispatches: u16,

    /// Largest `timeoutInMillis` that an integration may have. AWS: 29000.
    #[schemars(range(min = 50, max = 900_000))]
    pub integration_timeout_millis: u32,

    /// Most connections of this node; more are refused with 503 and `Retry-After`. 0 = unlimited.
    pub connections: u32,

    /// Most ended connections of this node whose `$disconnect` is not delivered yet; at this number new clients are
    /// refused with 503 and `Retry-After`. 0 = ten times `connections`, or 100000 if that is 0.
    pub disconnect_backlog: u32,

    /// Length to which a client's header (`User-Agent`) is cut when it is kept for the life of its connection, in
    /// bytes. `$connect` carries the whole header.
    #[schemars(range(min = 1, max = 32_768))]
    pub client_header_bytes: usize,

    /// Most groups and users of one connection together; joining one more gets 400.
    #[schemars(range(min = 1, max = 65_536))]
    pub groups_per_connection: u32,

    /// Most groups, users, connections and exceptions that one message of `@send` may name, and most connections that
    /// may join or leave in one call; more get 413.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub targets: u32,

    /// Largest body of `@send` and of a call in which many connections join or leave, in bytes; a larger one gets 413.
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub bulk_bytes: usize,

    /// The bounds of all clients of one address together.
    pub per_address: AddressLimitSettings,

    /// The bounds of one connection.
    pub per_connection: ConnectionLimitSettings,
}

/// The bounds of all clients of one address together, on this node; an IPv6 client is counted by its /64. Every bound
/// is off by default, because behind a proxy that `trustedProxies` does not name all clients have one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AddressLimitSettings {
    /// Most open connections; a request on one more gets 429. 0 = unlimited.
    pub connections: u32,

    /// Most connections without a request yet, TLS handshakes included; one more is closed at once. 0 = unlimited.
    pub handshakes_in_flight: u32,

    /// Most upgrade requests a second, and in one burst; one more gets 429. 0 = unlimited.
    pub connects_per_second: u32,

    /// Most messages a second, and in one burst; one more is answered with an error frame. 0 = unlimited.
    pub messages_per_second: u32,
}

/// The bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConnectionLimitSettings {
    /// Most messages a second; one more is answered with an error frame. 0 = unlimited.
    pub messages_per_second: u32,

    /// Most messages in one burst, before the rate applies.
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
            disconnect_backlog: 0,
            client_header_bytes: 512,
            groups_per_connection: 1000,
            targets: 10_000,
            bulk_bytes: 1024 * 1024,
            per_address: AddressLimitSettings::default(),
            per_connection: ConnectionLimitSettings::default(),
        }
    }
}

impl LimitSettings {
    /// Returns the longest time that a connection may be idle, if that is bounded.
    pub fn idle_timeout(&self) -> Option<Duration> {
        positive_seconds(self.idle_timeout_seconds)
    }

    /// Returns the longest life of a connection, if that is bounded.
    pub fn connection_duration(&self) -> Option<Duration> {
        positive_seconds(self.connection_duration_seconds)
    }

    /// Returns the number of ended connections that may wait for their `$disconnect` while new clients are accepted.
    pub fn disconnect_backlog(&self) -> usize {
        let backlog = match (self.disconnect_backlog, self.connections) {
            (0, 0) => DISCONNECT_BACKLOG,
            (0, connections) => connections.saturating_mul(DISCONNECT_BACKLOG_PER_CONNECTION),
            (backlog, _) => backlog,
        };
        usize::try_from(backlog).unwrap_or(usize::MAX)
    }

    /// Returns the longest time for TLS and the head of a request.
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_secs(self.handshake_timeout_seconds.into())
    }

    /// Returns the longest time that a client may read nothing.
    pub fn slow_client_timeout(&self) -> Duration {
        Duration::from_secs(self.slow_client_timeout_seconds.into())
    }
}

/// The pings by which the gateway notices that a client is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KeepAliveSettings {
    /// Time between the pings that the gateway sends. 0 = off, as AWS.
    #[schemars(range(max = 86_400))]
    pub ping_interval_seconds: u32,

    /// A client that sends nothing for this time after a ping is dead, and its connection ends with 1006. The time does
    /// not run while the client's TCP still takes what was written before the ping, nor while the gateway itself has
    /// stopped reading.
    #[schemars(range(min = 1, max = 86_400))]
    pub pong_timeout_seconds: u32,
}

impl Default for KeepAliveSettings {
    fn default() -> Self {
        KeepAliveSettings { ping_interval_seconds: 30, pong_timeout_seconds: 10 }
    }
}

impl KeepAliveSettings {
    /// Returns the time between pings, unless they are off.
    pub fn ping_interval(&self) -> Option<Duration> {
        positive_seconds(self.ping_interval_seconds)
    }

    /// Returns the longest time that a client may be silent after a ping.
    pub fn pong_timeout(&self) -> Duration {
        Duration::from_secs(self.pong_timeout_seconds.into())
    }
}

fn positive_seconds(seconds: u32) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_cut_between_two_characters() {
        let check =
            |value: &str, max: usize, expected: &str| assert_eq!(cut_header(value, max), expected, "{value} {max}");
        check("Mozilla/5.0", 512, "Mozilla/5.0");
        check("Mozilla/5.0", 7, "Mozilla");
        check("aé", 3, "aé");
        check("aé", 2, "a");
        check("é", 1, "");
        check("", 1, "");
    }

    #[test]
    fn the_backlog_of_ended_connections_is_bounded_whatever_is_set() {
        let check = |disconnect_backlog: u32, connections: u32, expected: usize| {
            let limits = LimitSettings { disconnect_backlog, connections, ..LimitSettings::default() };
            assert_eq!(limits.disconnect_backlog(), expected, "{disconnect_backlog} {connections}");
        };
        check(0, 0, 100_000);
        check(0, 100, 1000);
        check(0, u32::MAX, u32::MAX as usize);
        check(7, 0, 7);
        check(7, 100, 7);
    }

    #[test]
    fn of_a_long_way_whole_addresses_from_the_source_on_are_kept() {
        let check = |forwarded_for: &str, max_bytes: usize, expected: Option<&str>| {
            assert_eq!(cut_forwarded_for(forwarded_for, max_bytes), expected, "{forwarded_for} {max_bytes}");
        };
        check("203.0.113.7", 512, None);
        check("203.0.113.7, 10.0.0.1, 10.0.0.2", 512, Some("203.0.113.7, 10.0.0.1, 10.0.0.2"));
        check("203.0.113.7, 10.0.0.1, 10.0.0.2", 30, Some("203.0.113.7, 10.0.0.1"));
        check("203.0.113.7, 10.0.0.1, 10.0.0.2", 21, Some("203.0.113.7, 10.0.0.1"));
        check("203.0.113.7, 10.0.0.1, 10.0.0.2", 20, None);
        check("203.0.113.7, 10.0.0.1", 5, None);
    }
}
