use std::sync::{Arc, OnceLock};

use super::access_log::{AccessLog, InvalidFormat};
use super::metrics::{Metrics, RouteMeters, StageLabels};
use tidegate_resources::LoggingLevel;

/// The telemetry settings of one stage, compiled with it.
#[derive(Debug)]
pub struct StageTelemetry {
    pub access_log: Option<AccessLog>,
    /// Telemetry of events without a route: connects without a `$connect` route, messages that match no route, calls of
    /// `@connections`.
    pub default: RouteTelemetry,
}

/// The telemetry settings of one route of a stage.
#[derive(Debug)]
pub struct RouteTelemetry {
    pub logging_level: LoggingLevel,
    /// True if payloads may be logged.
    pub data_trace: bool,
    detailed_metrics: bool,
    route_key: Arc<str>,
    /// Metrics of the route, looked up with the first event.
    meters: OnceLock<RouteMeters>,
}

impl StageTelemetry {
    /// Compiles the settings of a stage.
    ///
    /// # Errors
    /// Returns [`InvalidFormat`] if the format of the access log cannot be used.
    pub fn compile(stage: &tidegate_resources::Stage) -> Result<Self, InvalidFormat> {
        let access_log = stage.access_log_settings.as_ref().map(AccessLog::compile).transpose()?;
        Ok(StageTelemetry { access_log, default: RouteTelemetry::new(stage, "-") })
    }

    /// Returns the telemetry of a stage that has only metrics.
    pub fn silent() -> Self {
        StageTelemetry { access_log: None, default: RouteTelemetry::new(&tidegate_resources::Stage::default(), "-") }
    }
}

impl RouteTelemetry {
    /// Returns the telemetry of the route `route_key` with the settings of `stage`.
    pub fn new(stage: &tidegate_resources::Stage, route_key: &str) -> Self {
        let (of_stage, of_route) = (stage.default_route_settings.as_ref(), stage.route_settings.get(route_key));
        let logging_level = of_route.and_then(|settings| settings.logging_level);
        let data_trace = of_route.and_then(|settings| settings.data_trace_enabled);
        let detailed = |settings: Option<&tidegate_resources::RouteSettings>| {
            settings.and_then(|settings| settings.detailed_metrics_enabled).unwrap_or_default()
        };
        RouteTelemetry {
            logging_level: logging_level.or_else(|| of_stage?.logging_level).unwrap_or_default(),
            data_trace: data_trace.or_else(|| of_stage?.data_trace_enabled).unwrap_or_default(),
            detailed_metrics: detailed(of_stage) || detailed(of_route),
            route_key: route_key.into(),
            meters: OnceLock::new(),
        }
    }

    /// Returns the metrics of events on this route.
    pub fn meters(&self, metrics: &Metrics, labels: &StageLabels) -> &RouteMeters {
        self.meters.get_or_init(|| metrics.meters(labels, &self.route_key, self.detailed_metrics))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_resources::{RouteSettings, Stage};

    #[test]
    fn a_routes_settings_come_before_its_stages_and_a_stages_metrics_before_its_routes() {
        let settings = |level, data_trace, detailed| RouteSettings {
            logging_level: level,
            data_trace_enabled: data_trace,
            detailed_metrics_enabled: detailed,
            ..RouteSettings::default()
        };
        let stage = Stage {
            default_route_settings: Some(settings(Some(LoggingLevel::Error), Some(true), Some(true))),
            route_settings: [("a".to_owned(), settings(Some(LoggingLevel::Info), Some(false), Some(false)))].into(),
            ..Stage::default()
        };
        let check = |key: &str, expected: (LoggingLevel, bool, bool)| {
            let route = RouteTelemetry::new(&stage, key);
            assert_eq!((route.logging_level, route.data_trace, route.detailed_metrics), expected, "{key}");
        };
        check("a", (LoggingLevel::Info, false, true));
        check("b", (LoggingLevel::Error, true, true));
        assert_eq!(RouteTelemetry::new(&Stage::default(), "a").logging_level, LoggingLevel::Off);
    }
}
