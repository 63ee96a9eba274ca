use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::LinkMetrics;

/// Buckets of call durations in seconds: 100 µs to 30 s.
const DURATION_BUCKETS: [f64; 18] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0];

/// All metrics of the process. Labels come from the configuration alone, never from clients, so their number is bounded.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections_open: Family<StageLabels, Gauge<i64, AtomicI64>>,
    connects: Family<ConnectLabels, Counter>,
    disconnects: Family<DisconnectLabels, Counter>,
    messages: Family<RouteLabels, Counter>,
    pushes: Family<PushLabels, Counter>,
    integration_duration: Family<StageLabels, Histogram, fn() -> Histogram>,
    integration_errors: Family<ErrorLabels, Counter>,
    throttled: Family<ThrottleLabels, Counter>,
    disconnect_events_pending: Family<StageLabels, Gauge<i64, AtomicI64>>,
    disconnect_events_lost: Family<StageLabels, Counter>,
    registry_state: RegistryStateGauge,
    links: LinkMetrics,
}

/// Says which state the registry is in: 1 for that one, and no other is there.
#[derive(Clone, Debug, Default)]
pub struct RegistryStateGauge(Family<StateLabels, Gauge<i64, AtomicI64>>);

impl RegistryStateGauge {
    /// The registry is in this state now.
    pub fn set(&self, state: &'static str) {
        self.0.clear();
        self.0.get_or_create(&StateLabels { state }).set(1);
    }
}

/// The API and the stage that something happened in.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StageLabels {
    pub api_id: Arc<str>,
    pub stage: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConnectLabels {
    api_id: Arc<str>,
    stage: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DisconnectLabels {
    api_id: Arc<str>,
    stage: Arc<str>,
    cause: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    api_id: Arc<str>,
    stage: Arc<str>,
    route_key: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PushLabels {
    api_id: Arc<str>,
    stage: Arc<str>,
    outcome: &'static str,
    path: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    api_id: Arc<str>,
    stage: Arc<str>,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ThrottleLabels {
    api_id: Arc<str>,
    stage: Arc<str>,
    level: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

impl Metrics {
    /// All at zero. `registry_state` is the state of the registry that this process starts with.
    pub fn new(registry_state: &'static str) -> Self {
        let duration: fn() -> Histogram = || Histogram::new(DURATION_BUCKETS);
        let mut metrics = Metrics {
            registry: Registry::with_prefix("tidegate"),
            connections_open: Family::default(),
            connects: Family::default(),
            disconnects: Family::default(),
            messages: Family::default(),
            pushes: Family::default(),
            integration_duration: Family::new_with_constructor(duration),
            integration_errors: Family::default(),
            throttled: Family::default(),
            disconnect_events_pending: Family::default(),
            disconnect_events_lost: Family::default(),
            registry_state: RegistryStateGauge::default(),
            links: LinkMetrics::default(),
        };
        metrics.registry_state.set(registry_state);
        let registry = &mut metrics.registry;
        registry.register("connections_open", "Connections that are served now", metrics.connections_open.clone());
        registry.register("connects", "Clients that asked to connect, by what became of it", metrics.connects.clone());
        registry.register("disconnects", "Connections that ended, by what ended them", metrics.disconnects.clone());
        registry.register("messages", "Messages from clients, by the route that they took", metrics.messages.clone());
        registry.register("pushes", "Posts to connections, by outcome and path", metrics.pushes.clone());
        registry.register(
            "integration_duration_seconds",
            "Time that backends took to answer",
            metrics.integration_duration.clone(),
        );
        registry.register(
            "integration_errors",
            "Failed calls of backends, by kind",
            metrics.integration_errors.clone(),
        );
        registry.register("throttled", "What was turned away, by whose bucket was empty", metrics.throttled.clone());
        registry.register(
            "disconnect_events_pending",
            "$disconnect events that the backend has not taken yet",
            metrics.disconnect_events_pending.clone(),
        );
        registry.register(
            "disconnect_events_lost",
            "$disconnect events that were given up",
            metrics.disconnect_events_lost.clone(),
        );
        registry.register(
            "registry_state",
            "1 for the state that the registry is in",
            metrics.registry_state.0.clone(),
        );
        metrics.links.register(registry);
        metrics
    }

    /// The Prometheus text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// What tells the state of the registry.
    pub fn registry_state(&self) -> RegistryStateGauge {
        self.registry_state.clone()
    }

    /// Metrics of the links to other nodes.
    pub fn links(&self) -> &LinkMetrics {
        &self.links
    }

    /// A connection was opened.
    pub fn opened(&self, stage: &StageLabels) {
        self.connections_open.get_or_create(stage).inc();
    }

    /// An open connection ended.
    pub fn closed(&self, stage: &StageLabels, cause: &'static str) {
        self.connections_open.get_or_create(stage).dec();
        let StageLabels { api_id, stage } = stage.clone();
        self.disconnects.get_or_create(&DisconnectLabels { api_id, stage, cause }).inc();
    }

    /// A client asked to connect.
    pub fn connect(&self, stage: &StageLabels, outcome: &'static str) {
        let StageLabels { api_id, stage } = stage.clone();
        self.connects.get_or_create(&ConnectLabels { api_id, stage, outcome }).inc();
    }

    /// A client sent a message; `route_key` is a configured one, or `-` if there was no route.
    pub fn message(&self, stage: &StageLabels, route_key: Option<&Arc<str>>) {
        let StageLabels { api_id, stage } = stage.clone();
        let route_key = route_key.map_or_else(|| "-".into(), Arc::clone);
        self.messages.get_or_create(&RouteLabels { api_id, stage, route_key }).inc();
    }

    /// A backend posted to a connection.
    pub fn push(&self, stage: &StageLabels, outcome: &'static str, path: &'static str) {
        let StageLabels { api_id, stage } = stage.clone();
        self.pushes.get_or_create(&PushLabels { api_id, stage, outcome, path }).inc();
    }

    /// A backend was called.
    pub fn integration(&self, stage: &StageLabels, seconds: f64, error: Option<&'static str>) {
        self.integration_duration.get_or_create(stage).observe(seconds);
        if let Some(kind) = error {
            let StageLabels { api_id, stage } = stage.clone();
            self.integration_errors.get_or_create(&ErrorLabels { api_id, stage, kind }).inc();
        }
    }

    /// A bucket was empty.
    pub fn throttled(&self, stage: &StageLabels, level: &'static str) {
        let StageLabels { api_id, stage } = stage.clone();
        self.throttled.get_or_create(&ThrottleLabels { api_id, stage, level }).inc();
    }

    /// A connection ended and its `$disconnect` waits for the backend.
    pub fn disconnect_pending(&self, stage: &StageLabels) {
        self.disconnect_events_pending.get_or_create(stage).inc();
    }

    /// A `$disconnect` waits no longer; `lost` if it was given up.
    pub fn disconnect_settled(&self, stage: &StageLabels, lost: bool) {
        self.disconnect_events_pending.get_or_create(stage).dec();
        if lost {
            self.disconnect_events_lost.get_or_create(stage).inc();
        }
    }
}
