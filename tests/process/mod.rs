//! Programs that a test runs beside itself: the real `tidegate`, backends, a browser.
//!
//! A program and all that it starts are killed when its [`Process`] is dropped, and as well when the test's own process
//! ends in whatever way: a shell waits for the end of a pipe whose other end this process holds.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a program may take to say something; far more than any needs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Lines that wait for a reader. Further ones are in the test's output alone.
const LINES_MAX: usize = 4096;

/// Runs its arguments as a program in this shell's process group, and kills the group when stdin ends. The shell gives
/// up its own stdout, so that the end of the output is the end of the program. The first line is the program's process id.
const GUARD: &str = r#"exec 3<&0
sh -c 'echo $$; exec "$@"' program "$@" </dev/null 3<&- 2>&1 &
exec >/dev/null 2>&1
cat <&3
kill -s KILL 0"#;

/// A running program.
pub(crate) struct Process {
    name: String,
    id: u32,
    guard: Child,
    lifeline: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts a program; what it prints appears in the test's output.
    pub(crate) fn start(program: impl AsRef<OsStr>, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let program = program.as_ref();
        let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
        let mut guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let lifeline = guard.stdin.take();
        let mut output = BufReader::new(guard.stdout.take().expect("stdout is a pipe"));
        let mut id = String::new();
        output.read_line(&mut id).expect("a line");
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let prefix = name.clone();
        // Ends with the program: the thread inherits the capture of the test's output.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                println!("{prefix}: {line}");
                let _ = sender.try_send(line);
            }
        });
        Process { name, id: id.trim().parse().expect("a process id"), guard, lifeline, lines }
    }

    /// Sends the program, and nothing that it started, a signal such as `TERM`, `KILL`, `STOP` or `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id.to_string()]).status();
        assert!(status.expect("kill runs").success(), "{} with id {} does not run", self.name, self.id);
    }

    /// The next line that has `part` in it.
    pub(crate) async fn line_with(&mut self, part: &str) -> String {
        self.lines_until(part).await.pop().expect("the line that was waited for")
    }

    /// All lines up to the next that has `part` in it.
    pub(crate) async fn lines_until(&mut self, part: &str) -> Vec<String> {
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
        timeout(LIMIT, search).await.unwrap_or_else(|_| panic!("{} printed no line with {part:?}", self.name))
    }

    /// The next URL that the program prints.
    pub(crate) async fn url(&mut self) -> String {
        let line = self.line_with("http://").await;
        line[line.find("http://").expect("found above")..].to_owned()
    }

    /// Waits until the program has closed its output, which is its end; the lines that nobody has read.
    pub(crate) async fn end(&mut self) -> Vec<String> {
        let drain = async {
            let mut rest = Vec::new();
            while let Some(line) = self.lines.recv().await {
                rest.push(line);
            }
            rest
        };
        timeout(LIMIT * 2, drain).await.unwrap_or_else(|_| panic!("{} does not end", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        let _ = self.guard.wait();
    }
}

/// `tidegate serve` on free ports.
pub(crate) struct Tidegate {
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
    pub(crate) process: Process,
}

impl Tidegate {
    /// Starts with a configuration whose listeners have port 0, and waits until the gateway is ready.
    pub(crate) async fn serve(config: &Path, environment: &[(&str, &str)]) -> Self {
        let mut process = Self::launch(config, environment);
        let ready: Value = serde_json::from_str(&process.line_with("\"ready\"").await).expect("the log is JSON");
        Tidegate { public: address(&ready, "public"), internal: address(&ready, "internal"), process }
    }

    /// Starts, and waits for nothing.
    pub(crate) fn launch(config: &Path, environment: &[(&str, &str)]) -> Process {
        let config = config.to_str().expect("a path in UTF-8");
        let arguments = ["serve", "--log-format", "json", "--config", config];
        Process::start(env!("CARGO_BIN_EXE_tidegate"), &arguments, environment)
    }
}

/// An address in a line of the log.
pub(crate) fn address(line: &Value, key: &str) -> SocketAddr {
    line[key].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {key} in {line}"))
}

/// Runs a program to its end: whether it succeeded, and what it printed.
pub(crate) async fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (bool, String) {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(LIMIT * 2, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{program} does not end"));
    let output = output.unwrap_or_else(|error| panic!("{program} does not start: {error}; `make test` installs it"));
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

/// Whether a program can be started at all.
pub(crate) fn exists(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}
