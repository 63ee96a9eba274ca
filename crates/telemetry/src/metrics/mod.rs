//! Metrics: each is declared once, with its name, in the file of its subject.
//!
//! Labels come from the configuration alone, never from clients, so the number of series is bounded. The metrics of a
//! route are looked up once for each deployment ([`RouteMeters`]); afterwards an event costs a few atomic additions.

mod connections;
mod events;
mod exposition;
mod labels;
mod links;
mod log;
mod node;
mod process;
mod register;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::Reason;
use crate::{AuthorizerOutcome, ConnectOutcome, PushOutcome, PushPath};
use connections::{ConnectionMetrics, code_label};
use events::EventMetrics;
use labels::{
    BackendLabels, CauseLabels, CodeLabels, KindLabels, LevelLabels, LossLabels, OutcomeLabels, PushLabels,
    ReasonLabels, ResultLabels, RouteLabels,
};
use node::NodeMetrics;
use register::Register;
use tidegate_core::limits::ThrottleLevel;

pub use events::{InFlight, RouteMeters};
pub use exposition::{OPEN_METRICS, PROMETHEUS_TEXT, wants_open_metrics};
pub use labels::StageLabels;
pub use links::LinkMetrics;
pub use node::{AcceptGauge, ReapingMetrics, RegistryMetrics};

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    names: Vec<String>,
    connections: ConnectionMetrics,
    events: EventMetrics,
    node: NodeMetrics,
    links: LinkMetrics,
}

/// The gauges of buffers, groups, pools and queues of this node. They are computed only when the metrics are read.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Bytes that wait in all send buffers.
    pub send_buffer_bytes: usize,
    /// Bytes that wait in the fullest send buffer.
    pub send_buffer_largest_bytes: usize,
    /// Groups and users that have a member.
    pub groups: usize,
    /// Memberships of all groups and users.
    pub group_memberships: usize,
    pub backends: Vec<BackendGauges>,
    /// `$disconnect` events that are not delivered yet, of each stage.
    pub pending: Vec<(StageLabels, usize)>,
    /// Ended connections of this node that wait for their `$disconnect`, as a share of `limits.disconnectBacklog`.
    pub disconnect_backlog: f64,
}

/// The pool of one backend.
#[derive(Clone, Debug)]
pub struct BackendGauges {
    /// Address of the backend, as the configuration writes it.
    pub backend: String,
    pub open: usize,
    pub idle: usize,
    pub waiting: usize,
}

impl Metrics {
    /// Returns all metrics at zero. `registry_state` is the state of the registry at the start of this process.
    pub fn new(registry_state: &'static str) -> Self {
        let mut registry = Registry::default();
        let mut names: Vec<String> = process::NAMES.map(str::to_owned).to_vec();
        names.push(log::NAME.to_owned());
        registry.register_collector(Box::new(process::Process));
        registry.register_collector(Box::new(log::LogLines));
        let mut register = Register { registry: registry.sub_registry_with_prefix("tidegate"), names: &mut names };
        let connections = ConnectionMetrics::declare(&mut register);
        let events = EventMetrics::declare(&mut register);
        let node = NodeMetrics::declare(&mut register);
        node.registry.set(registry_state);
        let links = LinkMetrics::declare(&mut register);
        Metrics { registry, names, connections, events, node, links }
    }

    /// Returns all metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Returns all metrics in the Prometheus text format.
    pub fn encode_prometheus(&self) -> String {
        exposition::prometheus_text(&self.encode())
    }

    /// Returns the full name of every metric, even if it has no value yet.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Looks up the metrics of events on one route. Keep the result.
    pub fn meters(&self, labels: &StageLabels, route_key: &Arc<str>, detailed: bool) -> RouteMeters {
        self.events.meters(labels, route_key, detailed)
    }

    /// Counts a connection that was opened.
    pub fn opened(&self, stage: &StageLabels) {
        self.connections.open.get_or_create(stage).inc();
    }

    /// Counts an open connection that ended.
    pub fn closed(&self, stage: &StageLabels, cause: &'static str, code: u16) {
        self.connections.open.get_or_create(stage).dec();
        self.connections.disconnects.get_or_create(&CauseLabels::new(stage, cause)).inc();
        self.connections.disconnect_codes.get_or_create(&CodeLabels::new(stage, code_label(code))).inc();
    }

    /// Counts a request of a client to connect.
    pub fn connect(&self, stage: &StageLabels, outcome: ConnectOutcome) {
        self.connections.connects.get_or_create(&OutcomeLabels::new(stage, outcome.name())).inc();
    }

    /// Counts a message from a client on this route.
    pub fn message(&self, meters: &RouteMeters, bytes: usize) {
        meters.messages(&self.events).inc();
        meters.aws_message_count.inc();
        meters.bytes_in.inc_by(bytes as u64);
    }

    /// Counts a message from a client that matched no route.
    pub fn message_without_route(&self, stage: &StageLabels) {
        self.events.messages.get_or_create(&RouteLabels::new(stage, "-".into())).inc();
    }

    /// Counts the reply of a route to a client.
    pub fn reply(&self, meters: &RouteMeters, bytes: usize) {
        meters.aws_message_count.inc();
        meters.bytes_out.inc_by(bytes as u64);
    }

    /// Counts a post of a backend to a connection, by its outcome and its path.
    pub fn push(&self, stage: &StageLabels, outcome: PushOutcome, path: PushPath) {
        self.events.pushes.get_or_create(&PushLabels::new(stage, outcome.name(), path.name())).inc();
    }

    /// Counts a message to many connections of this node. `counts` are the connections to which it was delivered, that
    /// were gone, that had a full buffer, and that are still pending.
    pub fn fanned_out(&self, meters: &RouteMeters, counts: [usize; 4], bytes: usize) {
        for (outcome, count) in ["ok", "gone", "full", "pending"].into_iter().zip(counts) {
            if count > 0 {
                let labels = OutcomeLabels::new(&meters.labels, outcome);
                self.events.fan_out_deliveries.get_or_create(&labels).inc_by(count as u64);
            }
        }
        let [delivered, ..] = counts;
        meters.aws_message_count.inc_by(delivered as u64);
        meters.bytes_out.inc_by((delivered * bytes) as u64);
    }

    /// Records the time until the outcome of a message to many was known.
    pub fn fan_out_took(&self, stage: &StageLabels, took: Duration) {
        self.events.fan_out_duration.get_or_create(stage).observe(took.as_secs_f64());
    }

    /// Counts the call of a backend on behalf of this route. `status` is that of the answer, and `error` the kind of a
    /// failure.
    pub fn integration(&self, meters: &RouteMeters, took: Duration, status: Option<u16>, error: Option<&'static str>) {
        let seconds = took.as_secs_f64();
        meters.integration_duration.observe(seconds);
        meters.aws_integration_latency.observe(seconds);
        match status {
            Some(400..=499) => _ = meters.aws_integration_error[0].inc(),
            Some(500..=599) => _ = meters.aws_integration_error[1].inc(),
            _ => {}
        }
        if let Some(kind) = error {
            meters.aws_execution_error.inc();
            self.events.integration_errors.get_or_create(&KindLabels::new(&meters.labels, kind)).inc();
        }
    }

    /// Counts a connect that reached its integration.
    pub fn connect_reached_integration(&self, meters: &RouteMeters) {
        meters.aws_connect_count.inc();
    }

    /// Counts a request of a client that the gateway itself refused.
    pub fn client_error(&self, meters: &RouteMeters) {
        meters.aws_client_error.inc();
    }

    /// Counts a request that found a bucket empty.
    pub fn throttled(&self, stage: &StageLabels, level: ThrottleLevel) {
        self.events.throttled.get_or_create(&LevelLabels::new(stage, level.name())).inc();
    }

    /// Counts an event that was not handled as requested.
    pub fn reason(&self, stage: &StageLabels, event_type: &'static str, reason: Reason) {
        let labels = ReasonLabels::new(stage, event_type, reason.code());
        self.events.reasons.get_or_create(&labels).inc();
    }

    /// Counts a decision or a failure of an authorizer. `took` is `None` if the answer was cached.
    pub fn authorizer(&self, stage: &StageLabels, outcome: AuthorizerOutcome, took: Option<Duration>) {
        self.events.authorizer_results.get_or_create(&OutcomeLabels::new(stage, outcome.name())).inc();
        if let Some(took) = took {
            self.events.authorizer_duration.get_or_create(stage).observe(took.as_secs_f64());
        }
    }

    /// Counts a `$disconnect` that was given up.
    pub fn disconnect_lost(&self, stage: &StageLabels) {
        self.connections.disconnect_events_lost.get_or_create(stage).inc();
    }

    /// Returns the metrics of the registry.
    pub fn registry(&self) -> RegistryMetrics {
        self.node.registry.clone()
    }

    /// Returns the metrics of the links to other nodes.
    pub fn links(&self) -> &LinkMetrics {
        &self.links
    }

    /// Sets the time until this node's serving lease runs out.
    pub fn lease_remaining(&self, remaining: Duration) {
        self.node.lease_remaining.set(remaining.as_secs_f64());
    }

    /// Returns the metrics of dead nodes' connections, as far as this node knows.
    pub fn reaping(&self) -> ReapingMetrics {
        self.node.reaping.clone()
    }

    /// Counts a connection of a dead node that was taken over.
    pub fn reaped(&self, stage: &StageLabels) {
        self.node.reaped.get_or_create(stage).inc();
    }

    /// Returns the gauge of listeners that do not accept connections.
    pub fn accept_gauge(&self) -> AcceptGauge {
        self.node.accept_paused.clone()
    }

    /// Counts a TLS handshake with a client that ended.
    pub fn tls_handshake(&self, outcome: &'static str) {
        self.node.tls_handshakes.get_or_create(&ResultLabels { outcome }).inc();
    }

    /// Counts a reload of the configuration.
    pub fn reload(&self, outcome: &'static str) {
        self.node.reloads.get_or_create(&ResultLabels { outcome }).inc();
    }

    /// Sets the gauges of [`Gauges`]. It is called before the metrics are read.
    pub fn fill(&self, fill: Gauges) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.node.send_buffer_bytes.set(gauge(fill.send_buffer_bytes));
        self.node.send_buffer_largest_bytes.set(gauge(fill.send_buffer_largest_bytes));
        let pending = &self.connections.disconnect_events_pending;
        pending.clear();
        for (stage, count) in fill.pending {
            pending.get_or_create(&stage).set(gauge(count));
        }
        self.connections.disconnect_backlog.set(fill.disconnect_backlog);
        self.node.groups.set(gauge(fill.groups));
        self.node.group_memberships.set(gauge(fill.group_memberships));
        // A reload may have removed a backend. The values are added up, because HTTP/1.1 and HTTP/2 to one address have
        // a pool each.
        for family in
            [&self.node.backend_connections, &self.node.backend_connections_idle, &self.node.backend_calls_waiting]
        {
            family.clear();
        }
        for BackendGauges { backend, open, idle, waiting } in fill.backends {
            let labels = BackendLabels { backend };
            self.node.backend_connections.get_or_create(&labels).inc_by(gauge(open));
            self.node.backend_connections_idle.get_or_create(&labels).inc_by(gauge(idle));
            self.node.backend_calls_waiting.get_or_create(&labels).inc_by(gauge(waiting));
        }
    }

    /// Returns the counter of access log lines that are lost for this cause.
    pub(super) fn access_log_lines_lost(&self, cause: &'static str) -> Counter {
        self.node.access_log_lines_lost.get_or_create_owned(&LossLabels { cause })
    }

    /// Returns the counter of spans that the collector accepted.
    pub(super) fn trace_spans_exported(&self) -> Counter {
        self.node.trace_spans_exported.clone()
    }

    /// Returns the counter of spans that are lost for this cause.
    pub(super) fn trace_spans_lost(&self, cause: &'static str) -> Counter {
        self.node.trace_spans_lost.get_or_create_owned(&LossLabels { cause })
    }
}
