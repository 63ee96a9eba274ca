use super::Config;
use tidegate_connections::cluster::ClusterSettings;
use tidegate_core::error_chain::chain;
use tidegate_core::problem::Problem;
use tidegate_core::route_key::CONNECT;
use tidegate_http::tls::{PeerTls, ServerTls, TlsSettings, authority_warnings};
use tidegate_resources::{Api, AuthorizationType};
use tidegate_server::HostPattern;

/// Returns the problems at the edge: certificates, proxies, hosts.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let public = &config.listeners.public;
    if public.proxy_protocol && public.trusted_proxies.is_empty() {
        problems.push(Problem::at(
            ["listeners", "public", "proxyProtocol"],
            "it needs `trustedProxies`: only connections from them are accepted, and only their PROXY headers",
        ));
    }
    let public_tls = load("public", public.tls.as_ref(), &mut problems);
    load("internal", config.listeners.internal.tls.as_ref(), &mut problems);
    problems.extend(config.cluster.as_ref().and_then(cluster));
    for name in config.domain_names.keys() {
        if public_tls.as_ref().is_some_and(|tls| !covers(tls, name)) {
            problems.push(Problem::at(
                ["domainNames", name],
                "no certificate of `listeners.public.tls` is for this host; add one that names it",
            ));
        }
        if !is_allowed(&public.allowed_hosts, name) {
            problems.push(Problem::at(
                ["domainNames", name],
                "`listeners.public.allowedHosts` does not list it, so every request for it is refused; add it there",
            ));
        }
    }
    problems
}

/// Returns warnings about the edge, whatever the listeners' addresses are: a proxy may make a loopback listener public.
pub(super) fn warnings(config: &Config) -> Vec<Problem> {
    hosts(config).into_iter().chain(pages(config)).chain(certificates(config)).collect()
}

/// Warns if the configuration names no host of this gateway.
fn hosts(config: &Config) -> Option<Problem> {
    let is_named = config.callback_base_url.is_some()
        || !config.domain_names.is_empty()
        || !config.listeners.public.allowed_hosts.is_empty();
    (!is_named && !config.apis.is_empty()).then(|| {
        Problem::at(
            ["listeners", "public", "allowedHosts"],
            "requests for any Host are accepted, and callback URLs begin with the listener's own address; list the \
             names that clients use, or set `callbackBaseUrl`",
        )
    })
}

/// Warns of APIs that any web page may connect to. A page cannot sign, so APIs with `AWS_IAM` are left out.
fn pages(config: &Config) -> Option<Problem> {
    let is_signed =
        |api: &Api| api.routes.get(CONNECT).is_some_and(|route| route.authorization_type == AuthorizationType::AwsIam);
    let open = config.apis.iter().filter(|(_, api)| api.allow_origins.is_none() && !is_signed(api));
    let open: Vec<&str> = open.map(|(api_id, _)| api_id.as_str()).collect();
    let message = "any web page may connect on behalf of its visitors (with their cookies, from their network); \
                   list the pages in `allowOrigins`";
    match open[..] {
        [] => None,
        [api_id] => Some(Problem::at(["apis", api_id], message)),
        _ => Some(Problem::at(["apis"], format!("{message} (of {})", open.join(", ")))),
    }
}

/// Warns of certificates that expire soon, and of authorities that have expired and are still trusted.
fn certificates(config: &Config) -> impl Iterator<Item = Problem> {
    let listeners = [("public", &config.listeners.public.tls), ("internal", &config.listeners.internal.tls)];
    let listeners = listeners.into_iter().filter_map(|(name, settings)| {
        let tls = ServerTls::load(settings.as_ref()?).ok()?;
        Some((vec!["listeners", name, "tls"], tls.warnings()))
    });
    let cluster = config.cluster.as_ref().and_then(|cluster| cluster.tls.as_ref());
    let cluster = cluster.and_then(|settings| PeerTls::load(settings).ok());
    let cluster = cluster.map(|tls| (vec!["cluster", "tls"], tls.warnings()));
    let integrations = config.apis.iter().flat_map(|(api_id, api)| {
        api.integrations.iter().filter_map(move |(id, integration)| {
            let ca = integration.tls_config.as_ref()?.ca_file.as_ref()?;
            let path = vec!["apis", api_id.as_str(), "integrations", id.as_str(), "tlsConfig", "caFile"];
            Some((path, authority_warnings(ca)))
        })
    });
    let all = listeners.chain(cluster).chain(integrations);
    all.flat_map(|(path, warnings)| {
        let path: Vec<String> = path.into_iter().map(str::to_owned).collect();
        warnings.into_iter().map(move |message| Problem { path: path.clone(), message })
    })
}

/// Checks the TLS settings of the links between nodes.
fn cluster(settings: &ClusterSettings) -> Option<Problem> {
    let at = |message: String| Some(Problem::at(["cluster", "tls"], message));
    let tls = match PeerTls::load(settings.tls.as_ref()?) {
        Ok(tls) => tls,
        Err(error) => return at(chain(&error).to_string()),
    };
    let advertise = settings.advertise.clone().unwrap_or_else(|| settings.address.to_string());
    // An unspecified address that peers cannot reach has its own warning.
    if tls.covers(&advertise) || (settings.advertise.is_none() && settings.address.ip().is_unspecified()) {
        return None;
    }
    at(format!(
        "the certificate is not for `{advertise}`, the address that peers connect to; set `serverNameToVerify` to a \
         name that all nodes' certificates have, or change `cluster.advertise`"
    ))
}

fn load(listener: &str, settings: Option<&TlsSettings>, problems: &mut Vec<Problem>) -> Option<ServerTls> {
    let settings = settings?;
    if settings.client_auth.is_some() && settings.client_ca.is_none() {
        let path = ["listeners", listener, "tls", "clientAuth"];
        problems.push(Problem::at(path, "it needs `clientCa`: the authorities that issue the clients' certificates"));
    }
    match ServerTls::load(settings) {
        Ok(tls) => Some(tls),
        Err(error) => {
            problems.push(Problem::at(["listeners", listener, "tls"], chain(&error).to_string()));
            None
        }
    }
}

/// Returns true if a certificate is valid for `domain`. A domain with `*` needs a certificate with `*`.
fn covers(tls: &ServerTls, domain: &str) -> bool {
    tls.covers(&domain.replacen('*', "any", 1))
}

fn is_allowed(allowed: &[HostPattern], domain: &str) -> bool {
    let host = domain.replacen('*', "any", 1);
    // A pattern with a port may allow it on that port.
    let matches = |pattern: &HostPattern| {
        let text = String::from(pattern.clone());
        let port = text.rsplit_once(':').map_or_else(String::new, |(_, port)| format!(":{port}"));
        pattern.matches(&format!("{host}{port}"))
    };
    allowed.is_empty() || allowed.iter().any(matches)
}
