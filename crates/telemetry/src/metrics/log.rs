use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;

use super::labels::LossLabels;
use crate::log_lines::LOST;

/// The full name of the metric of [`LogLines`].
pub(super) const NAME: &str = "tidegate_log_lines_lost_total";

/// The metric of lines that were not written to the process's own log. It is counted for the whole process.
#[derive(Debug)]
pub(super) struct LogLines;

impl Collector for LogLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let [first, ..] = LOST.by_cause();
        let kind = ConstCounter::new(first.1).metric_type();
        let help = "Lines that were not written to the process's log, by cause";
        let mut family = encoder.encode_descriptor("tidegate_log_lines_lost", help, None, kind)?;
        for (cause, count) in LOST.by_cause() {
            ConstCounter::new(count).encode(family.encode_family(&LossLabels { cause })?)?;
        }
        Ok(())
    }
}
