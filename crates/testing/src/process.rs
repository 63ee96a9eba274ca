//! Programs that a test runs beside itself: the real `tidegate`, backends, a browser.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::within;

/// Lines of both outputs that wait for a reader. Further ones are in [`Lines`] and in the test's output alone.
const LINES_MAX: usize = 4096;

/// Variables that would change what `tidegate` does.
const CLEARED: [&str; 2] = ["RUST_LOG", "TIDEGATE_CONFIG"];

/// Begins the line that the shell prints behind a program's output: the program's exit status follows.
const STATUS_MARK: char = '\u{1f}';

/// Runs its arguments as a program in this shell's process group, and kills the group when stdin ends. The first line is
/// the program's process id, the last one its status behind [`STATUS_MARK`]. The shell gives up its own outputs, so that
/// they end when the program ends.
const GUARD: &str = r#"exec 3<&0
{
    sh -c 'echo $$; exec "$@"' program "$@" </dev/null 2>&4 3<&- 4>&-
    printf '\037%s\n' $?
} 4>&2 2>/dev/null &
exec >/dev/null 2>&1
cat <&3
kill -s KILL 0"#;

/// A running program. It and all that it starts are killed when this is dropped, and as well when the test's own process
/// ends in whatever way: a shell waits for the end of a pipe whose other end this process holds.
pub struct Process {
    name: String,
    id: u32,
    guard: Child,
    lifeline: Option<ChildStdin>,
    pub stdout: Lines,
    pub stderr: Lines,
    lines: mpsc::Receiver<String>,
    status: watch::Receiver<Option<i32>>,
}

/// Lines that a program has written to one of its outputs so far.
#[derive(Clone)]
pub struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

impl Process {
    /// Starts a program. Its lines appear in the test's output.
    pub fn start(program: impl AsRef<OsStr>, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let program = program.as_ref();
        let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "guard"]).arg(program).args(arguments);
        CLEARED.iter().for_each(|name| _ = command.env_remove(name));
        command.envs(environment.iter().copied()).process_group(0);
        let mut guard =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh starts");
        let lifeline = guard.stdin.take();
        let mut output = BufReader::new(guard.stdout.take().expect("stdout is a pipe"));
        let mut id = String::new();
        output.read_line(&mut id).expect("a line");
        let ((sender, lines), (ended, status)) = (mpsc::channel(LINES_MAX), watch::channel(None));
        let stdout = Lines::read(&name, output, sender.clone(), Some(ended));
        let stderr = BufReader::new(guard.stderr.take().expect("stderr is a pipe"));
        let stderr = Lines::read(&name, stderr, sender, None);
        let id = id.trim().parse().expect("a process id");
        Process { name, id, guard, lifeline, stdout, stderr, lines, status }
    }

    /// Starts the `tidegate` of this build with these arguments.
    pub fn tidegate(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start(tidegate_path(), arguments, environment)
    }

    /// Sends the program, and nothing that it started, a signal such as `TERM`, `KILL`, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id.to_string()]).status();
        assert!(status.expect("kill runs").success(), "{} with id {} does not run", self.name, self.id);
    }

    /// Returns the next line of either output that contains `part`.
    pub async fn line_with(&mut self, part: &str) -> String {
        self.lines_until(part).await.pop().expect("the line that was waited for")
    }

    /// Returns all lines up to the next one that contains `part`.
    pub async fn lines_until(&mut self, part: &str) -> Vec<String> {
        let what = format!("a line of {} with {part:?}", self.name);
        let search = async {
            let mut lines = Vec::new();
            while let Some(line) = self.lines.recv().await {
                lines.push(line);
                if lines.last().is_some_and(|line| line.contains(part)) {
                    return lines;
                }
            }
            panic!("{} ended without a line with {part:?}", self.name)
        };
        within(&what, search).await
    }

    /// Returns the next URL that the program prints.
    pub async fn url(&mut self) -> String {
        let line = self.line_with("http://").await;
        line[line.find("http://").expect("found above")..].to_owned()
    }

    /// Returns the addresses of the public and the internal listener of a `tidegate` that logs JSON, once it is ready.
    pub async fn addresses(&mut self) -> (SocketAddr, SocketAddr) {
        let ready = self.stderr.log("ready").await;
        (address(&ready, "public"), address(&ready, "internal"))
    }

    /// Waits until the program has closed its outputs, which is its end; returns the lines that nobody has read.
    pub async fn end(&mut self) -> Vec<String> {
        let what = format!("the end of {}", self.name);
        let drain = async {
            let mut rest = Vec::new();
            while let Some(line) = self.lines.recv().await {
                rest.push(line);
            }
            rest
        };
        within(&what, drain).await
    }

    /// Waits until the program has ended; returns its exit status, 128 and the signal's number if a signal ended it.
    pub async fn exit(&mut self) -> i32 {
        let what = format!("the end of {}", self.name);
        let status = within(&what, self.status.wait_for(Option::is_some)).await.expect("the shell says the status");
        status.expect("waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.guard.wait();
    }
}

impl Lines {
    /// Reads a stream to its end, in a thread that inherits the capture of the test's output.
    fn read(
        name: &str,
        mut stream: BufReader<impl Read + Send + 'static>,
        sender: mpsc::Sender<String>,
        status: Option<watch::Sender<Option<i32>>>,
    ) -> Self {
        let (counter, count) = watch::channel(0);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (written, name) = (Arc::clone(&lines), name.to_owned());
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while matches!(stream.read_until(b'\n', &mut bytes), Ok(1..)) {
                let text = String::from_utf8_lossy(&bytes);
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let (line, ended) = match (&status, text.split_once(STATUS_MARK)) {
                    (Some(_), Some((line, ended))) => (line, ended.parse().ok()),
                    _ => (text, None),
                };
                if ended.is_none() || !line.is_empty() {
                    println!("{name}: {line}");
                    written.lock().unwrap().push(line.to_owned());
                    counter.send_modify(|count| *count += 1);
                    let _ = sender.try_send(line.to_owned());
                }
                if let (Some(status), Some(_)) = (&status, ended) {
                    status.send_replace(ended);
                }
                bytes.clear();
            }
        });
        Lines { lines, count }
    }

    /// Waits for the first line for which `find` returns something.
    pub async fn find<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let lines = Arc::clone(&self.lines);
        let waiting = async {
            loop {
                let is_over = self.count.has_changed().is_err();
                self.count.borrow_and_update();
                if let Some(found) = lines.lock().unwrap().iter().find_map(|line| find(line)) {
                    return found;
                }
                assert!(!is_over, "no {what} in {:#?}", lines.lock().unwrap());
                let _ = self.count.changed().await;
            }
        };
        within(what, waiting).await
    }

    /// Waits for the first line of a log in JSON whose message begins with `message`.
    pub async fn log(&mut self, message: &str) -> Value {
        self.find(message, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["message"].as_str()?.starts_with(message).then_some(line)
        })
        .await
    }

    /// Returns all lines that have come so far.
    pub fn so_far(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Returns all lines, once the program has closed this output.
    pub async fn all(&mut self) -> Vec<String> {
        within("the end of the output", async { while self.count.changed().await.is_ok() {} }).await;
        self.so_far()
    }
}

/// `tidegate serve` on free ports.
pub struct Tidegate {
    pub public: SocketAddr,
    pub internal: SocketAddr,
    pub process: Process,
}

impl Tidegate {
    /// Starts with a configuration whose listeners have port 0, and waits until the gateway is ready.
    pub async fn serve(config: &Path, environment: &[(&str, &str)]) -> Self {
        let mut process = Self::launch(config, environment);
        let ready: Value = serde_json::from_str(&process.line_with("\"ready\"").await).expect("the log is JSON");
        Tidegate { public: address(&ready, "public"), internal: address(&ready, "internal"), process }
    }

    /// Starts, and waits for nothing.
    pub fn launch(config: &Path, environment: &[(&str, &str)]) -> Process {
        let config = config.to_str().expect("a path in UTF-8");
        Process::tidegate(&["serve", "--log-format", "json", "--config", config], environment)
    }
}

/// Returns the address that a line of a log has under `key`.
pub fn address(line: &Value, key: &str) -> SocketAddr {
    line[key].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {key} in {line}"))
}

/// Returns the `tidegate` of this build: Cargo says where it is, and a test that is started without Cargo is beside it.
pub fn tidegate_path() -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().expect("a test knows its own program");
        test.ancestors().nth(2).expect("tests are in target/*/deps").join("tidegate")
    };
    std::env::var_os("CARGO_BIN_EXE_tidegate").map_or_else(beside, PathBuf::from)
}

/// Returns the folder of the package `tidegate`.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Makes a command of the `tidegate` of this build, for tests that need its pipes. [`Process`] suits all others.
pub fn tidegate(arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(tidegate_path());
    CLEARED.iter().for_each(|name| _ = command.env_remove(name));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs the `tidegate` of this build to its end.
pub async fn run_tidegate(arguments: &[&str]) -> Output {
    within("the end of tidegate", tidegate(arguments).output()).await.expect("tidegate starts")
}

/// Longest time that a program may take which is run to its end: it may install something.
const RUN_LIMIT: Duration = Duration::from_secs(180);

/// Runs a program to its end; returns whether it succeeded, and what it printed.
pub async fn run(program: impl AsRef<OsStr>, arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
    run_with(program, arguments, environment, b"").await
}

/// Runs a program to its end, as [`run`] does, and gives it `input`.
pub async fn run_with(
    program: impl AsRef<OsStr>,
    arguments: &[&str],
    environment: &[(&str, &str)],
    input: &[u8],
) -> (bool, String) {
    let program = program.as_ref().to_string_lossy();
    let mut stdin = tempfile::tempfile().expect("a file");
    stdin.write_all(input).expect("written");
    std::io::Seek::rewind(&mut stdin).expect("a file");
    let mut command = tokio::process::Command::new(&*program);
    command.args(arguments).envs(environment.iter().copied()).stdin(stdin).kill_on_drop(true);
    let output = timeout(RUN_LIMIT, command.output()).await.unwrap_or_else(|_| panic!("{program} does not end"));
    let output = output.unwrap_or_else(|error| panic!("{program} does not start: {error}; `make test` installs it"));
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

/// Returns whether a program can be started at all.
pub fn exists(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}
