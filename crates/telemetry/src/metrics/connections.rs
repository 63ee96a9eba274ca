use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;

use super::labels::{CauseLabels, CodeLabels, OutcomeLabels, StageLabels};
use super::register::{Counters, Gauges, Register};

/// The metrics of the life of connections.
#[derive(Debug)]
pub(super) struct ConnectionMetrics {
    pub(super) open: Gauges<StageLabels>,
    pub(super) connects: Counters<OutcomeLabels>,
    pub(super) disconnects: Counters<CauseLabels>,
    pub(super) disconnect_codes: Counters<CodeLabels>,
    pub(super) disconnect_events_pending: Gauges<StageLabels>,
    pub(super) disconnect_events_lost: Counters<StageLabels>,
    pub(super) disconnect_backlog: Gauge<f64, AtomicU64>,
}

impl ConnectionMetrics {
    pub(super) fn declare(register: &mut Register<'_>) -> Self {
        ConnectionMetrics {
            open: register.gauge("connections_open", "Connections that are served now"),
            connects: register.counter("connects", "Requests of clients to connect, by outcome"),
            disconnects: register.counter("disconnects", "Connections that ended, by cause"),
            disconnect_codes: register.counter("disconnect_codes", "Connections that ended, by close code"),
            disconnect_events_pending: register
                .gauge("disconnect_events_pending", "$disconnect events that are not delivered yet"),
            disconnect_events_lost: register.counter("disconnect_events_lost", "$disconnect events that were given up"),
            disconnect_backlog: register.single(
                "disconnect_backlog_ratio",
                "Ended connections that wait for their $disconnect, as a share of limits.disconnectBacklog",
            ),
        }
    }
}

/// Returns the label of a close code. Clients choose codes, so only codes with a meaning have a label of their own.
pub(super) fn code_label(code: u16) -> &'static str {
    match code {
        1000 => "1000",
        1001 => "1001",
        1002 => "1002",
        1003 => "1003",
        1005 => "1005",
        1006 => "1006",
        1007 => "1007",
        1008 => "1008",
        1009 => "1009",
        1011 => "1011",
        3000..=3999 => "3xxx",
        4000..=4999 => "4xxx",
        _ => "other",
    }
}
