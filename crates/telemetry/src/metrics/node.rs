use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::labels::{
    BackendLabels, ListenerLabels, LossLabels, OperationLabels, ResultLabels, StageLabels, StateLabels, VersionLabels,
};
use super::register::{Counters, Gauges, Histograms, Register};

/// Metrics of the registry. Clones share their values.
#[derive(Clone, Debug)]
pub struct RegistryMetrics {
    state: Gauges<StateLabels>,
    duration: Histograms<OperationLabels>,
}

impl RegistryMetrics {
    fn declare(register: &mut Register<'_>) -> Self {
        RegistryMetrics {
            state: register.gauge("registry_state", "1 for the state that the registry is in"),
            duration: register
                .durations("registry_duration_seconds", "Time that commands to the registry's Redis took"),
        }
    }

    /// Sets the state of the registry. The gauge of `state` is 1, and those of other states are removed.
    pub fn set(&self, state: &'static str) {
        self.state.clear();
        self.state.get_or_create(&StateLabels { state }).set(1);
    }

    /// Records the time that a command to the registry's Redis took, even if it failed.
    pub fn took(&self, operation: &'static str, duration: Duration) {
        self.duration.get_or_create(&OperationLabels { operation }).observe(duration.as_secs_f64());
    }
}

/// The metrics of dead nodes' connections that are not taken over yet, or cannot be.
#[derive(Clone, Debug)]
pub struct ReapingMetrics {
    left: Gauge,
    unreadable: Gauge,
    unreadable_lost: Counter,
}

impl ReapingMetrics {
    fn declare(register: &mut Register<'_>) -> Self {
        ReapingMetrics {
            left: register
                .single("reaping_connections", "Connections of dead nodes whose $disconnect is not delivered"),
            unreadable: register.single(
                "unreadable_records",
                "Records of dead nodes that no node could read so far; they wait a day for a newer version",
            ),
            unreadable_lost: register.single_counter(
                "unreadable_records_lost",
                "Records of dead nodes that no node could read within a day: their $disconnect events are lost",
            ),
        }
    }

    /// Sets the number of connections that are not taken over yet.
    pub fn set(&self, connections: usize) {
        self.left.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// Sets the number of records that no node could read so far.
    pub fn set_unreadable(&self, records: usize) {
        self.unreadable.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// Counts records that were removed because no node could read them.
    pub fn lost_unreadable(&self, records: usize) {
        self.unreadable_lost.inc_by(records as u64);
    }
}

/// The gauge of listeners that do not accept connections. Clones share their values.
#[derive(Clone, Debug)]
pub struct AcceptGauge(Gauges<ListenerLabels>);

impl AcceptGauge {
    /// Sets the state of a listener. `is_paused` is true if it does not accept connections because no file descriptor
    /// is free.
    pub fn set(&self, listener: &'static str, is_paused: bool) {
        self.0.get_or_create(&ListenerLabels { listener }).set(is_paused.into());
    }
}

/// The metrics of this node: registry, TLS, queues, groups, pools of backends, reloads and losses of telemetry.
#[derive(Debug)]
pub(super) struct NodeMetrics {
    pub(super) registry: RegistryMetrics,
    pub(super) lease_remaining: Gauge<f64, std::sync::atomic::AtomicU64>,
    pub(super) reaped: Counters<StageLabels>,
    pub(super) reaping: ReapingMetrics,
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
            lease_remaining: register
                .single("node_lease_remaining_seconds", "Time until this node's serving lease runs out"),
            reaped: register.counter("reaped_connections", "Connections of dead nodes that this node took over"),
            reaping: ReapingMetrics::declare(register),
            tls_handshakes: register.counter("tls_handshakes", "TLS handshakes with clients, by outcome"),
            accept_paused: AcceptGauge(
                register.gauge("accept_paused", "1 for a listener that accepts no connections because no file is free"),
            ),
            groups: register.single("groups", "Groups and users that have a member on this node"),
            group_memberships: register
                .single("group_memberships", "Memberships of this node's connections in groups and users"),
            send_buffer_bytes: register.single("send_buffer_bytes", "Bytes that wait to be written to clients"),
            send_buffer_largest_bytes: register
                .single("send_buffer_largest_bytes", "Bytes that wait in the fullest send buffer of a connection"),
            backend_connections: register.gauge("backend_connections", "Sockets to a backend"),
            backend_connections_idle: register.gauge("backend_connections_idle", "Sockets to a backend without a call"),
            backend_calls_waiting: register.gauge("backend_calls_waiting", "Calls that wait for a socket to a backend"),
            reloads: register.counter("reloads", "Reloads of the configuration, by outcome"),
            access_log_lines_lost: register
                .counter("access_log_lines_lost", "Access log lines that were lost, by cause"),
            trace_spans_exported: register.single_counter("trace_spans_exported", "Spans that the collector accepted"),
            trace_spans_lost: register.counter("trace_spans_lost", "Spans that were lost, by cause"),
        }
    }
}
