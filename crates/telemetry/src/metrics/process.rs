use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Ticks of `/proc/*/stat` in a second. Linux reports 100 to programs, whatever its own clock rate is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Full names of the metrics of [`Process`]. Every Prometheus client library has the same ones.
pub(super) const NAMES: [&str; 6] = [
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_threads",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

/// The metrics of the process itself, read from `/proc` on demand. Values that cannot be read are left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if let Some(stat) = Stat::read() {
            let counter = ConstCounter::new(stat.cpu_seconds);
            let help = "Processor time that the process has used";
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, counter.metric_type())?)?;
            gauge(&mut encoder, "process_threads", "Threads of the process", stat.threads)?;
            if let Some(boot) = boot_time() {
                let start = boot + stat.started_after_boot;
                gauge(&mut encoder, "process_start_time_seconds", "When the process started, since 1970", start)?;
            }
        }
        if let Some(bytes) = resident_bytes() {
            gauge(&mut encoder, "process_resident_memory_bytes", "Memory of the process that is resident", bytes)?;
        }
        if let Some(count) = open_files() {
            gauge(&mut encoder, "process_open_fds", "Files and sockets that are open", count)?;
        }
        if let Ok((soft, _hard)) = rlimit::Resource::NOFILE.get() {
            gauge(&mut encoder, "process_max_fds", "Files and sockets that may be open", soft as f64)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> Result<(), std::fmt::Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

struct Stat {
    cpu_seconds: f64,
    threads: f64,
    started_after_boot: f64,
}

impl Stat {
    fn read() -> Option<Stat> {
        Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Parses the text. The program's name is in brackets and may contain any character, so fields are counted from the
    /// last bracket.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Stat {
            cpu_seconds: (field(14)? + field(15)?) / TICKS_PER_SECOND,
            threads: field(20)?,
            started_after_boot: field(22)? / TICKS_PER_SECOND,
        })
    }
}

fn boot_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident_bytes() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kibibytes.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? * 1024.0)
}

/// Returns the number of open files. New kernels report it as the size of the folder; on old ones the entries are
/// counted, which takes a while if there are many.
fn open_files() -> Option<f64> {
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    let count = if size > 0 { size } else { fs::read_dir("/proc/self/fd").ok()?.count() as u64 };
    Some(count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_name_may_hold_brackets_and_blanks() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 12345 1000 200 18446744073709551615";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.cpu_seconds, stat.threads, stat.started_after_boot), (3.0, 9.0, 123.45));
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(Stat::read().is_some_and(|stat| stat.threads >= 1.0));
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1e6));
        assert!(open_files().is_some_and(|count| count >= 3.0));
        assert!(boot_time().is_some_and(|time| time > 1e9));
    }
}
