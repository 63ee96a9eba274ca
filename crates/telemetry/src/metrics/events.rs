use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::{
    DirectionLabels, KindLabels, LevelLabels, OutcomeLabels, PushLabels, ReasonLabels, RouteClassLabels, RouteLabels,
    StageLabels,
};
use super::register::{Counters, Gauges, Histograms, Register};

/// The metrics of events on connections: messages, posts, calls of backends and of authorizers.
#[derive(Debug)]
pub(super) struct EventMetrics {
    pub(super) messages: Counters<RouteLabels>,
    pub(super) message_bytes: Counters<DirectionLabels>,
    pub(super) dispatches_in_flight: Gauges<StageLabels>,
    pub(super) pushes: Counters<PushLabels>,
    pub(super) fan_out_deliveries: Counters<OutcomeLabels>,
    pub(super) fan_out_duration: Histograms<StageLabels>,
    pub(super) throttled: Counters<LevelLabels>,
    pub(super) reasons: Counters<ReasonLabels>,
    pub(super) integration_duration: Histograms<StageLabels>,
    pub(super) integration_errors: Counters<KindLabels>,
    pub(super) authorizer_results: Counters<OutcomeLabels>,
    pub(super) authorizer_duration: Histograms<StageLabels>,
    aws_connect_count: Counters<RouteLabels>,
    aws_message_count: Counters<RouteLabels>,
    aws_integration_error: Counters<RouteClassLabels>,
    aws_client_error: Counters<RouteLabels>,
    aws_execution_error: Counters<RouteLabels>,
    aws_integration_latency: Histograms<RouteLabels>,
}

impl EventMetrics {
    pub(super) fn declare(register: &mut Register<'_>) -> Self {
        EventMetrics {
            messages: register.counter("messages", "Messages from clients, by the route that they took"),
            message_bytes: register.counter("message_bytes", "Bytes of messages, in from clients and out to them"),
            dispatches_in_flight: register.gauge("dispatches_in_flight", "Messages whose backend has not answered yet"),
            pushes: register.counter("pushes", "Posts to connections, by outcome and path"),
            fan_out_deliveries: register.counter(
                "fan_out_deliveries",
                "Deliveries of messages to a group, a user or many to connections of this node, by outcome",
            ),
            fan_out_duration: register.durations(
                "fan_out_duration_seconds",
                "Time until the outcome of a message to a group, a user or many was known on all nodes",
            ),
            throttled: register.counter("throttled", "Requests that were throttled, by the level of the empty bucket"),
            reasons: register.counter("reasons", "Events that were not handled as requested, by reason"),
            integration_duration: register
                .durations("integration_duration_seconds", "Time that backends took to answer"),
            integration_errors: register.counter("integration_errors", "Failed calls of backends, by kind"),
            authorizer_results: register.counter("authorizer_results", "Decisions of authorizers, by outcome"),
            authorizer_duration: register.durations("authorizer_duration_seconds", "Time that authorizers took"),
            aws_connect_count: register
                .counter("aws_connect_count", "AWS ConnectCount: connects that reached the $connect integration"),
            aws_message_count: register.counter("aws_message_count", "AWS MessageCount: messages from or to clients"),
            aws_integration_error: register
                .counter("aws_integration_error", "AWS IntegrationError: 4xx and 5xx from the integration"),
            aws_client_error: register
                .counter("aws_client_error", "AWS ClientError: 4xx made by the gateway before the integration"),
            aws_execution_error: register
                .counter("aws_execution_error", "AWS ExecutionError: failures of calling the integration"),
            aws_integration_latency: register
                .durations("aws_integration_latency_seconds", "AWS IntegrationLatency, in seconds"),
        }
    }

    /// Looks up the metrics of events on one route, once for the life of a deployment.
    pub(super) fn meters(&self, labels: &StageLabels, route_key: &Arc<str>, detailed: bool) -> RouteMeters {
        let aws = RouteLabels::new(labels, if detailed { Arc::clone(route_key) } else { "".into() });
        let class = |class| {
            let labels = RouteClassLabels::new(labels, Arc::clone(&aws.route_key), class);
            self.aws_integration_error.get_or_create_owned(&labels)
        };
        let bytes = |direction| self.message_bytes.get_or_create_owned(&DirectionLabels::new(labels, direction));
        RouteMeters {
            labels: labels.clone(),
            messages: OnceLock::new(),
            route_key: Arc::clone(route_key),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            in_flight: self.dispatches_in_flight.get_or_create_owned(labels),
            integration_duration: self.integration_duration.get_or_create_owned(labels),
            aws_connect_count: self.aws_connect_count.get_or_create_owned(&aws),
            aws_message_count: self.aws_message_count.get_or_create_owned(&aws),
            aws_client_error: self.aws_client_error.get_or_create_owned(&aws),
            aws_execution_error: self.aws_execution_error.get_or_create_owned(&aws),
            aws_integration_error: [class("4xx"), class("5xx")],
            aws_integration_latency: self.aws_integration_latency.get_or_create_owned(&aws),
        }
    }
}

/// The metrics of events on one route, looked up once: an event then costs a few atomic additions.
#[derive(Debug)]
pub struct RouteMeters {
    pub(super) labels: StageLabels,
    route_key: Arc<str>,
    messages: OnceLock<Counter>,
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    in_flight: Gauge,
    pub(super) integration_duration: Histogram,
    pub(super) aws_connect_count: Counter,
    pub(super) aws_message_count: Counter,
    pub(super) aws_client_error: Counter,
    pub(super) aws_execution_error: Counter,
    pub(super) aws_integration_error: [Counter; 2],
    pub(super) aws_integration_latency: Histogram,
}

impl RouteMeters {
    pub(super) fn messages(&self, metrics: &EventMetrics) -> &Counter {
        self.messages.get_or_init(|| {
            metrics.messages.get_or_create_owned(&RouteLabels::new(&self.labels, Arc::clone(&self.route_key)))
        })
    }

    /// Counts a message as in flight until the returned value is dropped.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }
}

/// A message whose backend has not answered yet.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
