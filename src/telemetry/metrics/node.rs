use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::labels::{
    BackendLabels, ListenerLabels, LossLabels, OperationLabels, ResultLabels, StageLabels, StateLabels, VersionLabels,
};
use super::register::{Counters, Gauges, Histograms, Register};

/// Metrics of the registry. Clones count together.
#[derive(Clone, Debug)]
pub struct RegistryMetrics {
    state: Gauges<StateLabels>,
    duration: Histograms<OperationLabels>,
}

impl RegistryMetrics {
    fn declare(register: &mut Register<'_>) -> Self {
        RegistryMetrics {
            state: register.gauge("registry_state", "1 for the state that the registry is in"),
            duration: register.durations("registry_duration_seconds", "Time that the registry's store took"),
        }
    }

    /// The registry is in this state now: 1 for that one, and no other is there.
    pub fn set(&self, state: &'static str) {
        self.state.clear();
        self.state.get_or_create(&StateLabels { state }).set(1);
    }

    /// The registry's store did something, or failed to.
    pub fn took(&self, operation: &'static str, duration: Duration) {
        self.duration.get_or_create(&OperationLabels { operation }).observe(duration.as_secs_f64());
    }
}

/// How much of dead nodes is not taken over yet.
#[derive(Clone, Debug, Default)]
pub struct ReapingGauge(Gauge);

impl ReapingGauge {
    /// So many connections are left.
    pub fn set(&self, connections: usize) {
        self.0.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }
}

/// Whether listeners accept. Clones count together.
#[derive(Clone, Debug)]
pub struct AcceptGauge(Gauges<ListenerLabels>);

impl AcceptGauge {
    /// The listener has stopped accepting for want of files, or accepts.
    pub fn set(&self, listener: &'static str, is_paused: bool) {
        self.0.get_or_create(&ListenerLabels { listener }).set(is_paused.into());
    }
}

/// This node: what waits in it, what it shares with others, and what telemetry itself loses.
#[derive(Debug)]
pub(super) struct NodeMetrics {
    pub(super) registry: RegistryMetrics,
    pub(super) lease_remaining: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub(super) reaped: Counters<StageLabels>,
    pub(super) reaping: ReapingGauge,
    pub(super) tls_handshakes: Counters<ResultLabels>,
    pub(super) accept_paused: AcceptGauge,
    pub(super) send_buffer_bytes: Gauge,
    pub(super) send_buffer_largest_bytes: Gauge,
    pub(super) groups: Gauge,
    pub(super) group_memberships: Gauge,
    pub(super) backend_connections: Gauges<BackendLabels>,
    pub(super) backend_connections_idle: Gauges<BackendLabels>,
    pub(super) backend_calls_waiting: Gauges<BackendLabels>,
    pub(super) reloads: Counters<ResultLabels>,
    pub(super) access_log_lines_lost: Counters<LossLabels>,
    pub(super) trace_spans_exported: Counter,
    pub(super) trace_spans_lost: Counters<LossLabels>,
}

impl NodeMetrics {
    pub(super) fn declare(register: &mut Register<'_>) -> Self {
        let build: Gauges<VersionLabels> = register.gauge("build_info", "1 for the version that runs");
        build.get_or_create(&VersionLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        NodeMetrics {
            registry: RegistryMetrics::declare(register),
            lease_remaining: register.single("node_lease_remaining_seconds", "Time until this node's lease ends"),
            reaped: register.counter("reaped_connections", "Connections of lost nodes that this node took over"),
            reaping: ReapingGauge(
                register.single("reaping_connections", "Connections of lost nodes whose backends do not know it yet"),
            ),
            tls_handshakes: register.counter("tls_handshakes", "TLS handshakes with clients, by outcome"),
            accept_paused: AcceptGauge(
                register.gauge("accept_paused", "1 for a listener that accepts no connections for want of files"),
            ),
            groups: register.single("groups", "Groups and users that have a member on this node"),
            group_memberships: register
                .single("group_memberships", "Connections of this node in groups, and users on them, added up"),
            send_buffer_bytes: register.single("send_buffer_bytes", "Bytes that wait to be written to clients"),
            send_buffer_largest_bytes: register
                .single("send_buffer_largest_bytes", "Bytes that wait in the fullest send buffer of a connection"),
            backend_connections: register.gauge("backend_connections", "Sockets to a backend"),
            backend_connections_idle: register.gauge("backend_connections_idle", "Sockets to a backend without a call"),
            backend_calls_waiting: register.gauge("backend_calls_waiting", "Calls that wait for a socket to a backend"),
            reloads: register.counter("reloads", "Reloads of the configuration, by outcome"),
            access_log_lines_lost: register
                .counter("access_log_lines_lost", "Lines that are in no access log, by what lost them"),
            trace_spans_exported: register.single_counter("trace_spans_exported", "Spans that the collector took"),
            trace_spans_lost: register.counter("trace_spans_lost", "Spans that no collector has, by what lost them"),
        }
    }
}
