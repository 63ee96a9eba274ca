use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;

use super::labels::LossLabels;
use crate::telemetry::log_lines::LOST;

/// The name of the metric of [`LogLines`], as it is read.
pub(super) const NAME: &str = "tidegate_log_lines_lost_total";

/// Lines of the process's own log that were not written. They are counted for the process, whatever runs in it.
#[derive(Debug)]
pub(super) struct LogLines;

impl Collector for LogLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let [first, ..] = LOST.by_cause();
        let kind = ConstCounter::new(first.1).metric_type();
        let help = "Lines that are not in the process's log, by what lost them";
        let mut family = encoder.encode_descriptor("tidegate_log_lines_lost", help, None, kind)?;
        for (cause, count) in LOST.by_cause() {
            ConstCounter::new(count).encode(family.encode_family(&LossLabels { cause })?)?;
        }
        Ok(())
    }
}
