use std::net::SocketAddr;

use tokio_util::task::TaskTracker;
use url::Url;

use super::Config;
use tidegate_access::authorizer::{Access, Mechanisms};
use tidegate_connections::registry::RegistryType;
use tidegate_core::problem::Problem;
use tidegate_gateway::deployment::{CompileContext, Deployments};
use tidegate_http::http_client::HttpClient;
use tidegate_server::ConnectionsApi;
use tidegate_telemetry::{ExportTarget, InvalidEndpoint};

/// Returns the problems of a configuration that is valid by the schema and the formats.
///
/// This is the only place where the checks of other modules are called.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = empty(config);
    problems.extend(listeners_that_collide(config));
    problems.extend(cluster(config));
    problems.extend(callback_base_url(config));
    problems.extend(api_ids(config));
    problems.extend(collector(config));
    // Compiling finds the problems of the APIs. No backend is called: the client is dropped with its pools.
    let mechanisms = Mechanisms::alone(HttpClient::new(TaskTracker::new()), TaskTracker::new());
    let access = Access::compile(&config.access(), &mechanisms, &mut problems);
    let context = CompileContext { limits: &config.limits, access: &access, mechanisms: &mechanisms };
    let compiled = Deployments::compile(&config.apis, &config.domain_names, context);
    problems.extend(compiled.err().unwrap_or_default());
    problems.extend(super::check_edge::problems(config));
    problems
}

/// Reports a configuration that is empty as a whole although each part is valid. A file that is being written looks
/// like this.
fn empty(config: &Config) -> Vec<Problem> {
    if config.apis.is_empty() {
        return vec![Problem::at(["apis"], "there is no API, so no client could connect; allowed: at least one")];
    }
    let mut problems = Vec::new();
    for (api_id, api) in &config.apis {
        if api.routes.is_empty() {
            let message = "there is no route, so no backend would get events of this API; allowed: at least one, \
                           such as `$default`, or `$connect` where clients only listen";
            problems.push(Problem::at(["apis", api_id, "routes"], message));
        }
        if api.stages.is_empty() {
            let message =
                "there is no stage, so no client could connect to this API; allowed: at least one, such as `prod: {}`";
            problems.push(Problem::at(["apis", api_id, "stages"], message));
        }
    }
    for (name, domain) in &config.domain_names {
        if domain.api_mappings.is_empty() {
            let message = "the list is empty, so this domain would lead to no API; allowed: at least one mapping";
            problems.push(Problem::at(["domainNames", name, "apiMappings"], message));
        }
    }
    problems
}

/// Returns warnings about settings that are allowed but that an operator may not have intended.
pub fn warnings(config: &Config) -> Vec<Problem> {
    let mut warnings = Vec::new();
    if let Some(cluster) = &config.cluster
        && cluster.advertise.is_none()
        && cluster.address.ip().is_unspecified()
    {
        warnings.push(Problem::at(
            ["cluster", "address"],
            "peers cannot connect to this address, which is announced to them; set `advertise`",
        ));
    }
    let public = &config.listeners.public;
    if public.connections_api == ConnectionsApi::None && !public.address.ip().to_canonical().is_loopback() {
        warnings.push(Problem::at(
            ["listeners", "public", "connectionsApi"],
            "`NONE` lets anyone who reaches this listener send to clients and close their connections; choose \
             `AWS_IAM` or `OFF`, or a loopback address",
        ));
    }
    warnings.extend(super::check_edge::warnings(config));
    warnings
}

fn listeners_that_collide(config: &Config) -> impl Iterator<Item = Problem> {
    const FREE: &str = "takes the same address and port; allowed: another port, or 0 for any free one";
    let (public, internal) = (config.listeners.public.address, config.listeners.internal.address);
    let peers = config.cluster.as_ref().map(|cluster| cluster.address);
    let taken = |by: SocketAddr| peers.is_some_and(|peers| collide(peers, by));
    let internal_problem = collide(public, internal)
        .then(|| Problem::at(["listeners", "internal", "address"], format!("the public listener {FREE}")));
    let peer_problem = if taken(public) { Some("public") } else { taken(internal).then_some("internal") };
    let peer_problem =
        peer_problem.map(|name| Problem::at(["cluster", "address"], format!("the {name} listener {FREE}")));
    internal_problem.into_iter().chain(peer_problem)
}

/// Checks that the settings of a cluster are set if, and only if, the registry uses Redis.
fn cluster(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    match config.registry.registry_type {
        RegistryType::Memory => {
            if config.cluster.is_some() {
                problems.push(Problem::at(
                    ["cluster"],
                    "a registry in memory has no cluster; allowed: only with `registry.type: redis`",
                ));
            }
        }
        RegistryType::Redis => {
            if config.registry.url.is_none() {
                problems.push(Problem::at(["registry"], "required key `url` is missing; it is the address of Redis"));
            }
            match &config.cluster {
                None => problems.push(Problem::at(
                    ["registry", "type"],
                    "`redis` needs the section `cluster`, with the `secret` that all nodes share",
                )),
                Some(cluster) if cluster.secret.is_none() => {
                    problems.push(Problem::at(["cluster"], "required key `secret` is missing"));
                }
                Some(_) => {}
            }
        }
    }
    problems
}

/// Returns true if two sockets cannot listen on `a` and `b` at the same time. An unspecified address takes the port on
/// all addresses of its family.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_address = a.ip() == b.ip();
    let covers = a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() != 0 && a.port() == b.port() && (same_address || covers)
}

fn callback_base_url(config: &Config) -> Option<Problem> {
    let text = config.callback_base_url.as_deref()?;
    (!is_base_url(text)).then(|| {
        Problem::at(
            ["callbackBaseUrl"],
            "not a base URL; allowed: an absolute `http` or `https` URL without query and fragment, such as \
             `https://ws.example.com`",
        )
    })
}

fn is_base_url(text: &str) -> bool {
    // `Url` corrects what browsers correct: missing slashes, spaces and line breaks. A base URL must not need that.
    let begins_well = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    let has_blanks = text.contains(|c: char| c.is_whitespace() || c.is_control());
    let parsed = Url::parse(text).ok().filter(|_| begins_well && !has_blanks);
    parsed.is_some_and(|url| url.has_host() && url.query().is_none() && url.fragment().is_none())
}

fn collector(config: &Config) -> Option<Problem> {
    let error = ExportTarget::parse(&config.tracing).err()?;
    let field = match error {
        InvalidEndpoint::Endpoint => "otlpEndpoint",
        InvalidEndpoint::Header(_) => "otlpHeaders",
    };
    Some(Problem::at(["tracing", field], error.to_string()))
}

fn api_ids(config: &Config) -> impl Iterator<Item = Problem> {
    let wrong = config.apis.keys().filter(|api_id| !is_api_id(api_id));
    wrong.map(|api_id| {
        Problem::at(["apis", api_id], "not an apiId; allowed: 1 to 64 ASCII letters, digits, `_` and `-`")
    })
}

fn is_api_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_collide_on_one_port_of_overlapping_addresses() {
        let check = |a: &str, b: &str, expected: bool| {
            let address = |text: &str| text.parse().expect("an address");
            assert_eq!(collide(address(a), address(b)), expected, "{a} {b}");
            assert_eq!(collide(address(b), address(a)), expected, "{b} {a}");
        };
        check("127.0.0.1:80", "127.0.0.1:80", true);
        check("0.0.0.0:80", "127.0.0.1:80", true);
        check("[::]:80", "[::1]:80", true);
        check("127.0.0.1:80", "127.0.0.1:81", false);
        check("127.0.0.1:80", "127.0.0.2:80", false);
        check("127.0.0.1:80", "[::1]:80", false);
        check("127.0.0.1:0", "127.0.0.1:0", false);
    }

    #[test]
    fn callback_base_urls_are_absolute_and_end_before_the_query() {
        let check = |text: &str, expected: bool| assert_eq!(is_base_url(text), expected, "{text}");
        check("https://ws.example.com", true);
        check("http://127.0.0.1:8080/", true);
        check("https://example.com/gateway", true);
        check("http://[::1]:8080", true);
        check("", false);
        check("ws.example.com", false);
        check("/gateway", false);
        check("ws://example.com", false);
        check("http:example.com", false);
        check("http://", false);
        check("https://example.com?x=1", false);
        check("https://example.com#x", false);
        check(" https://example.com", false);
        check("https://exam\nple.com", false);
    }

    #[test]
    fn api_ids_fit_into_a_host_and_a_path() {
        let check = |text: &str, expected: bool| assert_eq!(is_api_id(text), expected, "{text}");
        check("chat", true);
        check("Chat_2-b", true);
        check(&"a".repeat(64), true);
        check(&"a".repeat(65), false);
        check("", false);
        check("a.b", false);
        check("a/b", false);
        check("ä", false);
    }
}
