//! Processes that the driver starts, and what they use, read from `/proc`.

use std::collections::HashMap;
use std::future::Future;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

/// How long a process may take to say where it listens.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a process may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Set, what targets write to stderr is shown.
const VERBOSE: &str = "TIDEGATE_LOADTEST_VERBOSE";

/// A process with all its descendants. Dropped, it is killed.
pub(crate) struct Process {
    name: String,
    child: Child,
    pid: i32,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    stderr: Option<Lines<BufReader<ChildStderr>>>,
}

/// What a process and its descendants have used.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    /// User and system time since they began.
    pub(crate) cpu_ms: f64,
    pub(crate) rss_kib: u64,
    /// As RSS, but pages shared with other processes count in part.
    pub(crate) pss_kib: u64,
}

impl Process {
    /// Starts a program. What it writes to stdout and stderr is read by the driver.
    pub(crate) fn start(name: &str, mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("could not start {program}"))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("it ended at once")?;
        let stdout = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let stderr = child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
        Ok(Process { name: name.to_owned(), child, pid, stdout, stderr })
    }

    /// The first line on stdout.
    pub(crate) async fn first_line(&mut self) -> anyhow::Result<String> {
        let stdout = self.stdout.as_mut().context("stdout is read")?;
        let line = timeout(START_TIMEOUT, stdout.next_line()).await;
        match line {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(_) => {
                let said = self.rest_of_stderr().await;
                anyhow::bail!("{} ended before it was ready: {said}", self.name)
            }
            Err(_) => anyhow::bail!("{} was not ready within {START_TIMEOUT:?}", self.name),
        }
    }

    /// The first line on stderr for which `find` has an answer. What comes later is read and thrown away.
    pub(crate) async fn line_on_stderr<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let name = &self.name;
        let stderr = self.stderr.as_mut().context("stderr is read")?;
        let mut said = String::new();
        let search = async {
            while let Some(line) = stderr.next_line().await? {
                if let Some(found) = find(&line) {
                    return Ok(found);
                }
                said.push_str(&line);
                said.push('\n');
            }
            anyhow::bail!("{name} ended before it was ready: {said}")
        };
        timeout(START_TIMEOUT, search).await.with_context(|| format!("{name} was not ready in time"))?
    }

    async fn rest_of_stderr(&mut self) -> String {
        let mut said = Vec::new();
        if let Some(stderr) = &mut self.stderr {
            while let Ok(Ok(Some(line))) = timeout(Duration::from_secs(1), stderr.next_line()).await {
                said.push(line);
            }
        }
        said.join("\n")
    }

    /// Keeps both pipes empty, so that the process never waits for them.
    pub(crate) fn drain_output(&mut self) -> impl Future<Output = ()> + use<> {
        let (stdout, stderr, name) = (self.stdout.take(), self.stderr.take(), self.name.clone());
        let is_verbose = std::env::var_os(VERBOSE).is_some();
        async move {
            tokio::join!(
                async {
                    let mut lines = stdout;
                    while let Some(Ok(Some(_))) = next_line(lines.as_mut()).await {}
                },
                async {
                    let mut lines = stderr;
                    while let Some(Ok(Some(line))) = next_line(lines.as_mut()).await {
                        if is_verbose {
                            eprintln!("{name}: {line}");
                        }
                    }
                }
            );
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Asks the process to end; it is killed if it does not.
    pub(crate) async fn stop(mut self) {
        let family = with_descendants(&[self.pid]);
        if self.child.id().is_some() {
            terminate(&[self.pid]);
        }
        if timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
        // A wrapper may end without what it has started.
        terminate(&family[1..]);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process with workers of its own would leave them behind when it is killed.
        if self.child.id().is_some() {
            terminate(&with_descendants(&[self.pid]));
        }
    }
}

/// Sends SIGTERM to those that still run.
fn terminate(pids: &[i32]) {
    for pid in pids.iter().copied().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

async fn next_line<R: AsyncRead + Unpin>(
    lines: Option<&mut Lines<BufReader<R>>>,
) -> Option<std::io::Result<Option<String>>> {
    Some(lines?.next_line().await)
}

/// As [`usage`], without holding up the thread of the load: looking for descendants reads the files of all processes of
/// the machine.
pub(crate) async fn usage_aside(pids: &[i32]) -> Usage {
    let pids = pids.to_vec();
    // It fails only if it panics or the runtime ends, and then nobody looks any more.
    tokio::task::spawn_blocking(move || usage(&pids)).await.unwrap_or_default()
}

/// What these processes and all their descendants use.
pub(crate) fn usage(pids: &[i32]) -> Usage {
    let mut total = Usage::default();
    for pid in with_descendants(pids) {
        total.cpu_ms += cpu_ms(pid).unwrap_or(0.0);
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let field = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
        };
        total.rss_kib += field("Rss:");
        total.pss_kib += field("Pss:");
    }
    total
}

/// RSS of these processes without their descendants: cheap enough to be looked at many times a second, and a little
/// behind.
pub(crate) fn rss_kib_of(pids: &[i32]) -> u64 {
    let pages = |pid: &i32| {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        statm.split(' ').nth(1)?.parse::<u64>().ok()
    };
    let pages: u64 = pids.iter().filter_map(pages).sum();
    pages * rustix::param::page_size() as u64 / 1024
}

/// CPU alone: cheap enough to frame a measurement.
pub(crate) fn cpu_ms_of(pids: &[i32]) -> f64 {
    with_descendants(pids).into_iter().filter_map(cpu_ms).sum()
}

/// `utime` and `stime` of `/proc/PID/stat`.
pub(crate) fn cpu_ms(pid: i32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program is in brackets and may hold anything; `utime` is field 14 and the state field 3.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) * 1000.0 / rustix::param::clock_ticks_per_second() as f64)
}

pub(crate) fn with_descendants(pids: &[i32]) -> Vec<i32> {
    let mut children = HashMap::<i32, Vec<i32>>::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut all = pids.to_vec();
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        all.extend(children.get(pid).into_iter().flatten());
        next += 1;
    }
    all
}
