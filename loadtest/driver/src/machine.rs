//! What this machine can give, so that its limits are never taken for the target's.

use std::net::{IpAddr, Ipv4Addr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// Sockets that one source address gives to connections to one port, with room for the rest of the machine.
const PORTS_PER_ADDRESS: usize = 20_000;

/// Open files beside the connections: libraries, pipes, the backend's connections.
const OTHER_FILES: u64 = 600;

/// Memory of the driver and the target for one connection, in KiB: more than either needs.
const CONNECTION_KIB: u64 = 128;

/// What a report says of the machine.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) cpu: String,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) open_files: u64,
    /// Others' load when the run began; measurements want it near zero.
    pub(crate) load_average: String,
}

/// Looks at the machine, and takes all the open files that are allowed.
pub(crate) fn look() -> Machine {
    let limit = getrlimit(Resource::Nofile);
    // Failing leaves the limit as it is, and that is what is reported and checked.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cpu: field(&read("/proc/cpuinfo"), "model name"),
        memory_mib: memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        open_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        load_average: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
    }
}

impl Machine {
    /// Why this machine cannot hold so many connections, if it cannot.
    pub(crate) fn refuses(&self, connections: usize) -> Option<String> {
        let files = connections as u64 + OTHER_FILES;
        if files > self.open_files {
            return Some(format!(
                "{connections} connections need {files} open files and this machine allows {}: it would be the \
                 machine's limit that is measured. Raise it (`ulimit -Hn`), or give --connections",
                self.open_files
            ));
        }
        let available = available_kib();
        let needed = connections as u64 * CONNECTION_KIB;
        (needed > available).then(|| {
            format!(
                "{connections} connections may need {} MiB and this machine has {} MiB free: it would be the \
                 machine's limit that is measured",
                needed / 1024,
                available / 1024
            )
        })
    }
}

fn available_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(u64::MAX)
}

/// The address that client `index` connects from: 127.0.0.1 and up, so that ports never run out.
pub(crate) fn source_address(index: usize) -> IpAddr {
    let host = 1 + (index / PORTS_PER_ADDRESS) % 250;
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, host as u8))
}
