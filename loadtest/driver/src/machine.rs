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
    /// The same when it ended, the run's own load included.
    pub(crate) load_average_end: String,
    /// When it began, in UTC.
    pub(crate) date: String,
    /// Of the repository; `+` if files were changed since.
    pub(crate) commit: String,
    pub(crate) rustc: String,
}

/// Takes all the open files that are allowed.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Failing leaves the limit as it is, and that is what is reported and checked.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Looks at the machine, and takes all the open files that are allowed.
pub(crate) fn look() -> Machine {
    raise_open_files();
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
        load_average: load_average(),
        load_average_end: String::new(),
        date: said("date", &["-u", "+%Y-%m-%d %H:%M"]),
        commit: said("git", &["describe", "--always", "--dirty=+", "--exclude=*"]),
        rustc: said("rustc", &["--version"]),
    }
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// What a program says in one line; nothing if it is not there.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).stderr(std::process::Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

impl Machine {
    /// To be called when the run has ended.
    pub(crate) fn note_end(&mut self) {
        self.load_average_end = load_average();
    }

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
