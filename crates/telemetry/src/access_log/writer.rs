use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{AccessLog, Destination};
use crate::Metrics;
use crate::loss::Loss;
use tidegate_core::lock::lock;

/// Most bytes of lines that wait to be written, for each destination. More are lost.
const BUFFER_MAX_BYTES: usize = 1024 * 1024;

/// Number of bytes that are written immediately, without waiting for more lines.
const BUFFER_ENOUGH_BYTES: usize = 64 * 1024;

/// Time that lines wait for others, so that many are written at once.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// Longest time for writing the last lines when the process ends.
const LAST_WRITE: Duration = Duration::from_millis(300);

/// The access logs of all stages. Stages with the same destination share it.
#[derive(Debug)]
pub struct AccessLogs {
    sinks: Mutex<HashMap<Destination, Weak<Sink>>>,
    full: Counter,
    failed: Counter,
    tasks: TaskTracker,
    aborting: CancellationToken,
}

impl AccessLogs {
    /// Returns the access logs, of which none is open yet. The writers are spawned on `tasks` and end when `aborting`
    /// is cancelled.
    pub fn new(metrics: &Metrics, tasks: TaskTracker, aborting: CancellationToken) -> Self {
        AccessLogs {
            sinks: Mutex::default(),
            full: metrics.access_log_lines_lost("full"),
            failed: metrics.access_log_lines_lost("failed"),
            tasks,
            aborting,
        }
    }

    /// Opens the access logs of a deployment. A destination is closed with the last deployment that names it.
    pub fn open<'a>(&self, access_logs: impl Iterator<Item = &'a AccessLog>) {
        let mut sinks = self.lock();
        sinks.retain(|_, sink| sink.strong_count() > 0);
        for access_log in access_logs {
            access_log.sink.get_or_init(|| {
                if let Some(sink) = sinks.get(&access_log.destination).and_then(Weak::upgrade) {
                    return sink;
                }
                let sink = Arc::new(self.start(&access_log.destination));
                sinks.insert(access_log.destination.clone(), Arc::downgrade(&sink));
                sink
            });
        }
    }

    /// Reopens the files, because a tool such as logrotate has moved them away.
    pub fn reopen(&self) {
        for sink in self.lock().values().filter_map(Weak::upgrade) {
            sink.buffer.reopen.store(true, Ordering::Release);
            sink.buffer.wake.notify_one();
        }
    }

    fn start(&self, destination: &Destination) -> Sink {
        let name = match destination {
            Destination::Stdout => "stdout".to_owned(),
            Destination::Stderr => "stderr".to_owned(),
            Destination::File(path) => path.display().to_string(),
        };
        let buffer = Arc::new(Buffer {
            lines: Mutex::default(),
            wake: Notify::new(),
            reopen: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            full: self.full.clone(),
            loss: Loss::new("access log lines", &name),
        });
        let writer = Writer {
            buffer: Arc::clone(&buffer),
            output: Some(Output { destination: destination.clone(), file: None, line_is_open: false }),
            spare: Vec::new(),
            failed: self.failed.clone(),
        };
        self.tasks.spawn(writer.run(self.aborting.clone()));
        Sink { buffer }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Destination, Weak<Sink>>> {
        lock(&self.sinks)
    }
}

/// The handle on a destination. When it is dropped, the remaining lines are written and the writer ends.
#[derive(Debug)]
pub(super) struct Sink {
    buffer: Arc<Buffer>,
}

#[derive(Debug)]
struct Buffer {
    lines: Mutex<Vec<u8>>,
    wake: Notify,
    reopen: AtomicBool,
    closed: AtomicBool,
    full: Counter,
    loss: Loss,
}

impl Sink {
    /// Appends a line. Never waits for the destination.
    pub(super) fn append(&self, line: &str) {
        let wake = {
            let mut lines = self.buffer.lock();
            if lines.len() + line.len() > BUFFER_MAX_BYTES {
                drop(lines);
                return self.buffer.loss.lost(&self.buffer.full, 1, "the buffer is full: the destination is too slow");
            }
            let before = lines.len();
            lines.extend_from_slice(line.as_bytes());
            before == 0 || (before < BUFFER_ENOUGH_BYTES && lines.len() >= BUFFER_ENOUGH_BYTES)
        };
        if wake {
            self.buffer.wake.notify_one();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.buffer.closed.store(true, Ordering::Release);
        self.buffer.wake.notify_one();
    }
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        lock(&self.lines)
    }
}

struct Writer {
    buffer: Arc<Buffer>,
    /// The output. `None` while a thread writes to it.
    output: Option<Output>,
    /// The emptied buffer of the last write, for reuse.
    spare: Vec<u8>,
    failed: Counter,
}

impl Writer {
    async fn run(mut self, aborting: CancellationToken) {
        loop {
            let aborted = tokio::select! {
                biased;
                () = aborting.cancelled() => true,
                () = self.work() => false,
            };
            if aborted {
                // A thread that is still writing has the earlier lines. The later ones get one try.
                let _ = timeout(LAST_WRITE, self.write()).await;
                return;
            }
            if self.buffer.closed.load(Ordering::Acquire) {
                return self.write().await;
            }
        }
    }

    /// Waits for lines and up to [`WRITE_INTERVAL`] for more of them, then writes them.
    async fn work(&mut self) {
        self.buffer.wake.notified().await;
        let hurried = self.buffer.reopen.load(Ordering::Acquire) || self.buffer.closed.load(Ordering::Acquire);
        if !hurried {
            tokio::select! {
                () = sleep(WRITE_INTERVAL) => {}
                () = self.buffer.wake.notified() => {}
            }
        }
        self.write().await;
    }

    /// Writes the lines of the buffer, on a thread that may block. If the future is dropped, the thread goes on and its
    /// output is not used again.
    async fn write(&mut self) {
        let Some(mut output) = self.output.take() else { return };
        let reopen = self.buffer.reopen.swap(false, Ordering::AcqRel);
        // The two buffers take turns, so that neither has to grow from empty each time.
        let lines = std::mem::replace(&mut *self.buffer.lock(), std::mem::take(&mut self.spare));
        let written = spawn_blocking(move || {
            if reopen {
                output.file = None;
            }
            let written = output.write(&lines);
            (output, written, lines)
        });
        // A write that panics would leave no output, but no write panics.
        let Ok((output, written, mut lines)) = written.await else { return };
        self.output = Some(output);
        lines.clear();
        lines.shrink_to(2 * BUFFER_ENOUGH_BYTES);
        self.spare = lines;
        match written {
            Ok(()) => self.buffer.loss.arrived(),
            Err(Lost { lines, error }) => self.buffer.loss.lost(&self.failed, lines, &error.to_string()),
        }
    }
}

struct Output {
    destination: Destination,
    file: Option<File>,
    /// True if the last write ended inside a line.
    line_is_open: bool,
}

struct Lost {
    lines: usize,
    error: io::Error,
}

impl Output {
    fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut written = 0;
        let result = match &self.destination {
            Destination::Stdout => write_counted(&mut io::stdout().lock(), lines, &mut written),
            Destination::Stderr => write_counted(&mut io::stderr().lock(), lines, &mut written),
            Destination::File(path) => {
                let file = match self.file.take() {
                    Some(file) => Ok(file),
                    None => open(path),
                };
                file.and_then(|mut file| {
                    if self.line_is_open {
                        file.write_all(b"\n")?;
                        self.line_is_open = false;
                    }
                    write_counted(&mut file, lines, &mut written)?;
                    // After an error the file is reopened: it may be another one by then.
                    self.file = Some(file);
                    Ok(())
                })
            }
        };
        result.map_err(|error| {
            let rest = &lines[written..];
            self.line_is_open |= written > 0 && lines[written - 1] != b'\n';
            Lost { lines: rest.iter().filter(|byte| **byte == b'\n').count(), error }
        })
    }
}

fn open(path: &Path) -> io::Result<File> {
    // The file contains addresses of clients, so only its owner and group may read it.
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn write_counted(output: &mut impl io::Write, lines: &[u8], written: &mut usize) -> io::Result<()> {
    while *written < lines.len() {
        match output.write(&lines[*written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => *written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(path: &Path) -> Output {
        Output { destination: Destination::File(path.to_owned()), file: None, line_is_open: false }
    }

    #[test]
    fn a_full_disk_loses_lines_and_counts_them() {
        let Err(lost) = output(Path::new("/dev/full")).write(b"a\nb\nc\n") else { panic!("/dev/full took lines") };
        assert_eq!((lost.lines, lost.error.kind()), (3, io::ErrorKind::StorageFull));
        let Err(lost) = output(Path::new("/no/such/folder/log")).write(b"a\n") else {
            panic!("there is no such folder")
        };
        assert_eq!((lost.lines, lost.error.kind()), (1, io::ErrorKind::NotFound));
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_swallow_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut output = output(&path);
        output.line_is_open = true;
        assert!(output.write(b"a\n").is_ok());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "\na\n");
    }

    #[tokio::test]
    async fn a_full_buffer_loses_lines_and_nobody_waits() {
        let metrics = Metrics::new("memory");
        let tasks = TaskTracker::new();
        let aborting = CancellationToken::new();
        let logs = AccessLogs::new(&metrics, tasks.clone(), aborting.clone());
        let sink = logs.start(&Destination::File("/dev/null".into()));
        let line = format!("{}\n", "a".repeat(1023));
        // The writer has not run yet: nothing was awaited.
        (0..1030).for_each(|_| sink.append(&line));
        assert_eq!(logs.full.get(), 1030 - 1024);
        aborting.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
