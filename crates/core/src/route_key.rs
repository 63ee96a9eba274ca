//! Route keys of WebSocket APIs.

use std::fmt;
use std::sync::Arc;

/// The key of `$connect`.
pub const CONNECT: &str = "$connect";
/// The key of `$disconnect`.
pub const DISCONNECT: &str = "$disconnect";
/// The key of `$default`.
pub const DEFAULT: &str = "$default";

/// The key of a route: one of the three that API Gateway defines, or the value that messages select.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteKey {
    Connect,
    Disconnect,
    Default,
    Custom(Arc<str>),
}

impl RouteKey {
    /// Returns the route key that a configuration writes as `text`. Returns `None` for a key that begins with `$` and is
    /// none of the three: those are reserved.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            CONNECT => Some(RouteKey::Connect),
            DISCONNECT => Some(RouteKey::Disconnect),
            DEFAULT => Some(RouteKey::Default),
            custom if custom.starts_with('$') => None,
            custom => Some(RouteKey::Custom(custom.into())),
        }
    }

    /// Returns the key as a configuration, an event and a log write it.
    pub fn as_str(&self) -> &str {
        match self {
            RouteKey::Connect => CONNECT,
            RouteKey::Disconnect => DISCONNECT,
            RouteKey::Default => DEFAULT,
            RouteKey::Custom(key) => key,
        }
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
