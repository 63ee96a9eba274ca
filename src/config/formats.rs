use std::net::SocketAddr;

use serde_json::Value;

use super::problem::Problem;
use super::secrets::is_secret;
use super::source::{Source, child};
use tidegate_connections::redis_client::RedisUrl;
use tidegate_server::{HostPattern, TrustedProxy};

/// The format of a setting's text that the schema cannot describe: its place, its parser, and what is allowed.
struct Format {
    /// Keys from the top; `*` stands for every item of a list.
    path: &'static [&'static str],
    parses: fn(&str) -> bool,
    allowed: &'static str,
}

impl Format {
    const fn new(path: &'static [&'static str], parses: fn(&str) -> bool, allowed: &'static str) -> Self {
        Format { path, parses, allowed }
    }
}

/// All such settings. A setting whose type parses its text belongs here, so that its mistakes are reported with their
/// place and together with all others.
const FORMATS: &[Format] = &[
    Format::new(&["listeners", "public", "address"], is_socket_address, SOCKET_ADDRESS),
    Format::new(&["listeners", "public", "trustedProxies", "*"], is_network, NETWORK),
    Format::new(&["listeners", "public", "allowedHosts", "*"], is_host_pattern, HOST_PATTERN),
    Format::new(&["listeners", "internal", "address"], is_socket_address, SOCKET_ADDRESS),
    Format::new(&["listeners", "internal", "allowedHosts", "*"], is_host_pattern, HOST_PATTERN),
    Format::new(&["egress", "allow", "*"], is_network, NETWORK),
    Format::new(&["registry", "url"], is_redis_url, REDIS_URL),
    Format::new(&["registry", "url", "*"], is_redis_url, REDIS_URL),
    Format::new(&["cluster", "address"], is_socket_address, SOCKET_ADDRESS),
    Format::new(&["cluster", "advertise"], is_host_and_port, HOST_AND_PORT),
];

const SOCKET_ADDRESS: &str = "an IP address and a port, such as `127.0.0.1:8080` or `[::]:8080`";
const REDIS_URL: &str = "a URL such as `redis://127.0.0.1:6379/0`, or `rediss://` for TLS";
const HOST_AND_PORT: &str = "a host and a port, such as `10.0.0.7:8082` or `node-0.peers:8082`";
const NETWORK: &str = "a network such as `10.0.0.0/8`, or an IP address";

const HOST_PATTERN: &str = "a host name such as `chat.example.com`, `chat.example.com:8443` or `*.example.com`";

/// Reports the texts in `source` that do not parse.
pub(super) fn check(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    for format in FORMATS {
        check_below(source, &source.value, "", format.path, format, &mut problems);
    }
    problems
}

fn check_below(
    source: &Source,
    value: &Value,
    pointer: &str,
    path: &[&str],
    format: &Format,
    problems: &mut Vec<Problem>,
) {
    match (path, value) {
        ([], Value::String(text)) if !(format.parses)(text) && !source.is_rejected(pointer) => {
            let subject = match source.is_interpolated(pointer) {
                true => "the text (after filling in its placeholders)".to_owned(),
                false if is_secret(pointer) => "the text".to_owned(),
                false => format!("`{text}`"),
            };
            problems.push(source.problem(pointer, format!("{subject} does not parse; allowed: {}", format.allowed)));
        }
        (["*", rest @ ..], Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                check_below(source, item, &child(pointer, &index.to_string()), rest, format, problems);
            }
        }
        ([key, rest @ ..], Value::Object(entries)) => {
            if let Some(entry) = entries.get(*key) {
                check_below(source, entry, &child(pointer, key), rest, format, problems);
            }
        }
        // Anything else is missing, parses, or has the wrong type, which the schema reports.
        _ => {}
    }
}

fn is_socket_address(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok()
}

fn is_host_pattern(text: &str) -> bool {
    HostPattern::try_from(text.to_owned()).is_ok()
}

fn is_redis_url(text: &str) -> bool {
    RedisUrl::from(text.to_owned()).is_valid()
}

fn is_host_and_port(text: &str) -> bool {
    let authority = text.parse::<http::uri::Authority>();
    !text.contains('@') && authority.is_ok_and(|authority| authority.port_u16().is_some_and(|port| port > 0))
}

fn is_network(text: &str) -> bool {
    TrustedProxy::try_from(text.to_owned()).is_ok()
}
