use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::builder::GatewayBuilder;
use super::member::{self, Member, Quotas};
use crate::config::Config;
use tidegate_access::authorizer::{Access, Mechanisms};
use tidegate_access::jwt::Issuers;
use tidegate_connections::cluster::link::{LocalConnections, PeerView};
use tidegate_connections::cluster::{self, Cluster, ClusterSettings, Membership};
use tidegate_connections::registry::{Registry, RegistryState};
use tidegate_connections::session::Closing;
use tidegate_core::clock::SystemClock;
use tidegate_core::id::NodeId;
use tidegate_core::lifecycle::Lifecycle;
use tidegate_core::limits::Throttle;
use tidegate_core::problem::Problem;
use tidegate_gateway::data_plane::{DataPlane, Live, NodeSettings, PeerCalls};
use tidegate_gateway::deployment::{CompileContext, Deployments};
use tidegate_http::http_client::HttpClient;
use tidegate_http::tls::{PeerTls, ServerTls, TlsError, TlsSettings};
use tidegate_integration::IntegrationClient;
use tidegate_operator_api::Readiness;
use tidegate_server::{AllowedHosts, BindError, ConnectionPolicy, Endpoint, Listener};
use tidegate_telemetry::{AccessLogs, ExportTarget, InvalidEndpoint, Metrics, Telemetry, Tracer, UNBUDGETED, logging};

/// Time between two batches of sessions that a drain closes.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Sessions in the smallest batch: a few connections are closed at once, many are spread over time.
const BATCH_MIN: usize = 100;

/// Time between two checks, at the end of a drain, if anything is left.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Time between two log lines about what a drain waits for.
const DRAIN_REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The part of the grace period that is reserved for aborting tasks.
const ABORT_TIME: Duration = Duration::from_millis(500);

/// The part of the grace period that is reserved for leaving the cluster.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// Most ids in one log line about events that were not delivered.
const IDS_PER_LINE: usize = 100;

/// Longest time that all lines about events that were not delivered wait, together, for room in the log.
const NAMING_TIME: Duration = Duration::from_millis(500);

/// Time between two checks if the log has room for another of these lines.
const NAMING_PAUSE: Duration = Duration::from_millis(2);

/// Longest time that a node dials its peers before it is ready. It goes on dialling those that have not answered by
/// then.
const ANNOUNCE_TIME: Duration = Duration::from_secs(2);

/// A running gateway.
pub struct Gateway {
    plane: Arc<DataPlane>,
    mechanisms: Mechanisms,
    readiness: Readiness,
    member: Option<Member>,
    config: Config,
    public_address: SocketAddr,
    internal_address: SocketAddr,
    peer_address: Option<SocketAddr>,
}

/// The reason why a gateway did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the configuration has {} problems", .0.len())]
    Config(Vec<Problem>),
    #[error("could not use the endpoint of the trace collector")]
    Collector(#[source] InvalidEndpoint),
    #[error("could not open a listener")]
    Bind(#[source] BindError),
    #[error("could not set up TLS of the {listener} listener")]
    Tls {
        listener: &'static str,
        #[source]
        source: TlsError,
    },
    #[error("this node cannot be a member of a cluster")]
    Cluster(#[source] cluster::ClusterStartError),
}

impl Gateway {
    /// Returns a builder of a gateway with this configuration.
    pub fn builder(config: Config) -> GatewayBuilder {
        GatewayBuilder::new(config)
    }

    /// Opens all listeners and serves, as [`GatewayBuilder::start`] promises it.
    pub(super) async fn start(builder: GatewayBuilder) -> Result<Self, StartError> {
        let GatewayBuilder { config, http_client, cluster } = builder;
        let lifecycle = Lifecycle::default();
        let http_client = http_client(lifecycle.tasks().clone());
        let metrics = Metrics::new("memory");
        let registry = Arc::new(member::registry(&config, &metrics));
        // With a table of members from the caller, this node has no task that connects to Redis.
        let quotas = Quotas::of(registry.replica().filter(|_| cluster.is_none()).map(|replica| replica.redis()));
        let mechanisms = Mechanisms {
            http_client: http_client.clone(),
            issuers: Issuers::new(http_client.clone(), lifecycle.tasks().clone()),
            quotas: quotas.store(),
        };
        let live = compile(&config, &mechanisms).map_err(StartError::Config)?;
        http_client.set_egress(config.egress.clone());
        let (public, internal) = open_listeners(&config, &lifecycle)?;
        let telemetry = telemetry(&config, metrics, &http_client, &lifecycle).map_err(StartError::Collector)?;
        let is_replicated = registry.replica().is_some();
        let cluster_settings = match &cluster {
            Some(given) => Some(given.settings.clone()),
            None => is_replicated.then(|| config.cluster.clone().unwrap_or_default()),
        };
        let peer_tls = load_peer_tls(cluster_settings.as_ref(), &lifecycle)?;
        let peers =
            cluster_settings.as_ref().map(|settings| Listener::bind(settings.address, Arc::default())).transpose();
        let peers = peers.map_err(StartError::Bind)?;
        let mut plane = DataPlane::new(
            live,
            Arc::clone(&registry),
            IntegrationClient::new(http_client),
            Arc::new(SystemClock),
            telemetry,
            lifecycle,
        );
        let (mut joining, mut refreshes) = (None, None);
        if let (Some(settings), Some(listener)) = (cluster_settings, &peers) {
            let advertise = settings.advertise.clone().unwrap_or_else(|| listener.address().to_string());
            let membership = match cluster {
                Some(given) => given.membership,
                None => {
                    let (membership, wanted) = Membership::new();
                    refreshes = Some(wanted);
                    Arc::new(membership)
                }
            };
            joining = Some((settings.lease(), advertise.clone()));
            let (node, metrics) = (plane.registry.node(), plane.telemetry.metrics.links().clone());
            let cluster = Cluster::new(&settings, node, advertise, peer_tls, membership, metrics);
            plane = plane.with_cluster(cluster.map_err(StartError::Cluster)?);
        }
        let plane = Arc::new(plane);
        let member = match (joining, refreshes) {
            (Some((lease, advertise)), Some(refreshes)) => {
                member::start(&config, &plane, lease, advertise, refreshes, &quotas)
            }
            _ => None,
        };
        let readiness = Readiness::default();
        let gateway = Gateway {
            plane,
            mechanisms,
            readiness: readiness.clone(),
            member,
            public_address: public.address(),
            internal_address: internal.address(),
            peer_address: peers.as_ref().map(Listener::address),
            config,
        };
        if let Some(listener) = peers {
            gateway.link(listener);
        }
        gateway.serve(public, internal, readiness);
        gateway.make_ready().await;
        Ok(gateway)
    }

    /// Serves clients on `public`, and backends and operators on `internal`.
    fn serve(&self, public: Listener, internal: Listener, readiness: Readiness) {
        let settings = &self.config.listeners;
        let lifecycle = &self.plane.lifecycle;
        let endpoint = Endpoint::Public {
            connections_api: settings.public.connections_api,
            trusted_proxies: settings.public.trusted_proxies.clone(),
            hosts: AllowedHosts::public(&settings.public.allowed_hosts),
        };
        self.listen(public, endpoint, lifecycle.draining().clone());
        // Until the very end, probes are answered and posts to connections that are still open are accepted.
        let endpoint = Endpoint::Internal {
            connections_api: settings.internal.connections_api,
            readiness,
            hosts: AllowedHosts::internal(internal.address(), &settings.internal.allowed_hosts),
        };
        self.listen(internal, endpoint, lifecycle.aborting().clone());
    }

    /// Marks the node as ready: at once, or in a cluster as soon as this node is registered and has dialled its peers.
    /// So a node that learns of a connection of this node knows this node already.
    async fn make_ready(&self) {
        let (public, internal, apis) = (self.public_address, self.internal_address, self.config.apis.len());
        let (plane, readiness) = (Arc::clone(&self.plane), self.readiness.clone());
        let announce = async move {
            if let Some(cluster) = &plane.cluster {
                cluster.links.announced(ANNOUNCE_TIME).await;
            }
            readiness.ready();
            info!(%public, %internal, node = %plane.registry.node(), apis, "ready");
        };
        let Some(replica) = self.plane.registry.replica().cloned() else { return announce.await };
        let peers = self.peer_address.map(tracing::field::display);
        info!(%public, %internal, peers, "listening; waiting for Redis");
        let draining = self.plane.lifecycle.draining().clone();
        self.plane.lifecycle.spawn(async move {
            let mut state = replica.state();
            let registered =
                async { state.wait_for(|state| !matches!(state, RegistryState::Starting { .. })).await.is_ok() };
            if draining.run_until_cancelled(registered).await == Some(true) {
                announce.await;
            }
        });
    }

    /// Waits until this node accepts connections.
    pub async fn ready(&self) {
        self.readiness.wait().await;
    }

    /// Returns this node's table of all nodes, if it is one of several.
    pub fn membership(&self) -> Option<&Arc<Membership>> {
        self.plane.cluster.as_ref().map(|cluster| &cluster.membership)
    }

    /// Returns the registry of this node's connections.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.plane.registry
    }

    /// Accepts peers' links on `listener`, and dials all known members.
    fn link(&self, listener: Listener) {
        let (plane, lifecycle) = (&self.plane, &self.plane.lifecycle);
        let Some(cluster) = &plane.cluster else { return };
        let links = &cluster.links;
        // Until the very end, peers can push to connections that are still open.
        let stop = lifecycle.aborting().clone();
        lifecycle.spawn(listener.serve_peers(Arc::clone(plane), Arc::clone(links), stop));
        let local: Arc<dyn LocalConnections> = Arc::new(PeerCalls(Arc::clone(plane)));
        lifecycle.spawn(Arc::clone(links).keep(local, lifecycle.clone()));
    }

    fn listen(&self, listener: Listener, endpoint: Endpoint, stop: CancellationToken) {
        self.plane.lifecycle.spawn(listener.serve(Arc::clone(&self.plane), Arc::new(endpoint), stop));
    }

    /// Returns the address to which clients connect.
    pub fn public_address(&self) -> SocketAddr {
        self.public_address
    }

    /// Returns the address of health checks, metrics and `@connections`.
    pub fn internal_address(&self) -> SocketAddr {
        self.internal_address
    }

    /// Returns the address at which peers reach this node, if it is one of several.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peer_address
    }

    /// Returns the id of this node.
    pub fn node(&self) -> NodeId {
        self.plane.registry.node()
    }

    /// Returns all other nodes that are known, and the state of the link to each.
    pub fn peers(&self) -> Vec<PeerView> {
        self.plane.cluster.as_ref().map_or_else(Vec::new, |cluster| cluster.links.peers())
    }

    /// Puts another configuration in force. Open connections stay, and their next message uses the new routes.
    ///
    /// # Errors
    /// Returns the problems if the APIs cannot be compiled; then nothing has changed.
    pub fn reload(&mut self, config: Config) -> Result<(), Vec<Problem>> {
        let live =
            compile(&config, &self.mechanisms).inspect_err(|_| self.plane.telemetry.metrics.reload("refused"))?;
        for (section, changed) in [
            ("listeners", config.listeners != self.config.listeners),
            ("registry", config.registry != self.config.registry),
            ("tracing", config.tracing != self.config.tracing),
            ("cluster", config.cluster != self.config.cluster),
        ] {
            if changed {
                warn!(section, "this section has changed and takes effect after a restart; the rest is in force");
            }
        }
        self.mechanisms.http_client.set_egress(config.egress.clone());
        self.plane.replace(live);
        self.plane.telemetry.metrics.reload("ok");
        self.config = config;
        Ok(())
    }

    /// Counts a configuration that could not be read.
    pub fn reload_refused(&self) {
        self.plane.telemetry.metrics.reload("refused");
    }

    /// Opens the files of access logs anew, because a tool has moved them away.
    pub fn reopen_logs(&self) {
        self.plane.telemetry.access_logs.reopen();
    }

    /// Drains the node within `drain.graceMillis`: readiness fails, the public listener closes, sessions are closed in
    /// paced batches, and their `$disconnect` events are sent. `hurry` cuts this short.
    pub async fn drain(self, hurry: CancellationToken) {
        let grace = Duration::from_millis(self.config.drain.grace_millis.into());
        let abort_at = Instant::now() + grace.saturating_sub(ABORT_TIME.min(grace / 4));
        let end = if self.member.is_some() { abort_at - LEAVE_TIME.min(grace / 4) } else { abort_at };
        info!(connections = self.plane.registry.live(), grace_millis = self.config.drain.grace_millis, "draining");
        self.readiness.draining();
        self.plane.lifecycle.draining().cancel();
        tokio::select! {
            () = self.close_sessions(grace / 2) => {}
            () = sleep_until(end) => warn!("the grace period is over; stopping now"),
            () = hurry.cancelled() => warn!("a second signal was received; stopping now"),
        }
        // To leave means to announce that this node's connections are gone. If some are left, the links just break.
        if let Some(cluster) = &self.plane.cluster
            && self.plane.registry.live() == 0
        {
            cluster.links.leave(ABORT_TIME.min(grace / 8)).await;
        }
        self.name_undelivered(NAMING_TIME.min(grace / 8)).await;
        if let Some(member) = &self.member
            && timeout_at(abort_at.max(Instant::now() + LEAVE_TIME.min(grace / 4)), member.leave()).await.is_err()
        {
            warn!("Redis did not answer in time; leaving without deregistering");
        }
        self.plane.lifecycle.aborting().cancel();
        self.mechanisms.http_client.close_idle();
        self.plane.lifecycle.tasks().close();
        if timeout(ABORT_TIME.min(grace / 4), self.plane.lifecycle.tasks().wait()).await.is_err() {
            warn!("some tasks did not end in time; exiting without them");
        }
        info!("stopped");
    }

    /// Closes all sessions over at most `window`, then waits until their `$disconnect` events are delivered.
    async fn close_sessions(&self, window: Duration) {
        let mut batches = interval(BATCH_INTERVAL);
        let open = self.plane.registry.all_open();
        let batch_count = (window.as_millis() / BATCH_INTERVAL.as_millis()).max(1);
        let batch_size = open.len().div_ceil(usize::try_from(batch_count).unwrap_or(usize::MAX)).max(BATCH_MIN);
        for batch in open.chunks(batch_size) {
            batches.tick().await;
            for outbox in batch {
                outbox.close(Closing::drained());
            }
        }
        let mut looks = interval(LOOK_INTERVAL);
        let mut report_at = Instant::now() + DRAIN_REPORT_INTERVAL;
        loop {
            looks.tick().await;
            if Instant::now() >= report_at {
                report_at += DRAIN_REPORT_INTERVAL;
                let (connections, all) = (self.plane.registry.live(), self.plane.registry.len());
                let disconnect_events = all.saturating_sub(connections);
                info!(
                    connections,
                    disconnect_events, "draining; waiting for clients to close and for backends to answer"
                );
            }
            // A `$connect` that was in progress may have been accepted meanwhile.
            for outbox in self.plane.registry.all_open() {
                outbox.close(Closing::drained());
            }
            if self.plane.registry.is_empty() {
                return;
            }
        }
    }

    /// Logs the ids of the connections whose `$disconnect` events were not delivered. Waits up to `within` for room in
    /// the log.
    async fn name_undelivered(&self, within: Duration) {
        let undelivered = self.plane.registry.all();
        let until = Instant::now() + within;
        for ids in undelivered.chunks(IDS_PER_LINE) {
            while logging::is_filling() && Instant::now() < until {
                sleep(NAMING_PAUSE).await;
            }
            let ids = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            error!(
                name: UNBUDGETED, count = undelivered.len(),
                connection_ids = ids,
                "could not deliver the $disconnect events of these connections before the end"
            );
        }
    }
}

fn telemetry(
    config: &Config,
    metrics: Metrics,
    http_client: &HttpClient,
    lifecycle: &Lifecycle,
) -> Result<Telemetry, InvalidEndpoint> {
    let (tasks, clock) = (lifecycle.tasks(), Arc::new(SystemClock));
    let tracer = match ExportTarget::parse(&config.tracing)? {
        Some(target) => {
            target.start(&config.tracing, http_client, &metrics, clock, tasks, lifecycle.aborting().clone())?
        }
        None => Tracer::off(clock),
    };
    let access_logs = AccessLogs::new(&metrics, tasks.clone(), lifecycle.aborting().clone());
    Ok(Telemetry { metrics, tracer, access_logs })
}

fn load_tls(listener: &'static str, settings: Option<&TlsSettings>) -> Result<Option<Arc<ServerTls>>, StartError> {
    let tls = settings.map(ServerTls::load).transpose();
    tls.map(|tls| tls.map(Arc::new)).map_err(|source| StartError::Tls { listener, source })
}

/// Opens the public and the internal listener.
fn open_listeners(config: &Config, lifecycle: &Lifecycle) -> Result<(Listener, Listener), StartError> {
    let settings = &config.listeners;
    let policy = ConnectionPolicy {
        tls: load_tls("public", settings.public.tls.as_ref())?,
        proxy_protocol: settings.public.proxy_protocol,
        trusted_proxies: settings.public.trusted_proxies.clone(),
        is_counted: true,
    };
    let public = listen(settings.public.address, policy, lifecycle)?;
    let tls = load_tls("internal", settings.internal.tls.as_ref())?;
    let internal = listen(settings.internal.address, ConnectionPolicy { tls, ..Default::default() }, lifecycle)?;
    Ok((public, internal))
}

/// Loads TLS of the links to other nodes, and follows its files.
fn load_peer_tls(
    settings: Option<&ClusterSettings>,
    lifecycle: &Lifecycle,
) -> Result<Option<Arc<PeerTls>>, StartError> {
    let Some(settings) = settings.and_then(|settings| settings.tls.as_ref()) else { return Ok(None) };
    let tls = PeerTls::load(settings).map_err(|source| StartError::Tls { listener: "cluster", source })?;
    let tls = Arc::new(tls);
    lifecycle.spawn(Arc::clone(&tls).watch(lifecycle.aborting().clone()));
    Ok(Some(tls))
}

/// Binds `address`, and follows the files of its TLS.
fn listen(address: SocketAddr, entrance: ConnectionPolicy, lifecycle: &Lifecycle) -> Result<Listener, StartError> {
    let tls = entrance.tls.clone();
    let listener = Listener::bind(address, Arc::new(entrance)).map_err(StartError::Bind)?;
    if let Some(tls) = tls {
        lifecycle.spawn(tls.watch(lifecycle.aborting().clone()));
    }
    Ok(listener)
}

fn compile(config: &Config, mechanisms: &Mechanisms) -> Result<Live, Vec<Problem>> {
    let mut problems = Vec::new();
    let access = Access::compile(&config.access(), mechanisms, &mut problems);
    let context = CompileContext { limits: &config.limits, access: &access, mechanisms };
    let deployments = match Deployments::compile(&config.apis, &config.domain_names, context) {
        Ok(deployments) if problems.is_empty() => deployments,
        Ok(_) => return Err(problems),
        Err(found) => return Err([problems, found].concat()),
    };
    mechanisms.retain_issuers(&config.apis);
    let settings = NodeSettings {
        limits: config.limits.clone(),
        keep_alive: config.keep_alive.clone(),
        disconnect: config.disconnect.clone(),
        explain: config.explain,
        throttle: Throttle::new(config.throttle.rate_limit, config.throttle.burst_limit),
        callback_base_url: config.callback_base_url.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
    };
    Ok(Live { number: 0, settings: Arc::new(settings), access: Arc::new(access), deployments: Arc::new(deployments) })
}
