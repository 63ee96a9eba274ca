use std::net::SocketAddr;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::{spawn, within};

/// The binary that is shipped.
pub(crate) fn tidegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).env_remove("RUST_LOG").env_remove("TIDEGATE_CONFIG").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running one.
pub(crate) struct Process {
    child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

/// What a process has written so far.
#[derive(Clone)]
pub(crate) struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    changed: watch::Receiver<usize>,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the binary starts");
        let stdout = Lines::read(child.stdout.take().expect("piped"));
        let stderr = Lines::read(child.stderr.take().expect("piped"));
        Process { child, stdout, stderr }
    }

    /// Runs a command to its end.
    pub(crate) async fn run(arguments: &[&str]) -> Output {
        within("the end of the process", tidegate(arguments).output()).await.expect("the binary runs")
    }

    /// The addresses of both listeners, once it is ready.
    pub(crate) async fn addresses(&mut self) -> (SocketAddr, SocketAddr) {
        let ready = self.stderr.log("ready").await;
        let address = |name: &str| ready[name].as_str().and_then(|text| text.parse().ok()).expect("an address");
        (address("public"), address("internal"))
    }

    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().await;
        assert!(status.expect("kill runs").success());
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        within("the end of the process", self.child.wait()).await.expect("an exit status")
    }
}

impl Lines {
    fn read(stream: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (sender, changed) = watch::channel(0);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        spawn(async move {
            let mut reader = BufReader::new(stream).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                written.lock().unwrap().push(line);
                sender.send_modify(|count| *count += 1);
            }
        });
        Lines { lines, changed }
    }

    /// The first line for which `find` has something.
    pub(crate) async fn find<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let lines = Arc::clone(&self.lines);
        let waiting = async {
            loop {
                self.changed.borrow_and_update();
                if let Some(found) = lines.lock().unwrap().iter().find_map(|line| find(line)) {
                    return found;
                }
                if self.changed.changed().await.is_err() {
                    panic!("no {what} in {:#?}", lines.lock().unwrap());
                }
            }
        };
        within(what, waiting).await
    }

    /// The log line with this message.
    pub(crate) async fn log(&mut self, message: &str) -> Value {
        self.find(message, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["message"].as_str()?.starts_with(message).then_some(line)
        })
        .await
    }

    /// Everything that has come so far.
    #[allow(dead_code, reason = "not every test binary looks")]
    pub(crate) fn so_far(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Everything, once the process has closed its end.
    pub(crate) async fn all(&mut self) -> Vec<String> {
        within("the end of the output", async { while self.changed.changed().await.is_ok() {} }).await;
        self.lines.lock().unwrap().clone()
    }
}
