//! The process's own log: whoever fills it, and whoever does not read it, the node goes on, and operators learn what is
//! missing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{PipeReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tidegate_telemetry::logging::{self, LastLines, LogFormat};
use tidegate_testing::{
    Process, RawClient, Reply, Settings, TestBackend, TestClient, Tidegate, eventually, handshake, http, tidegate,
    within,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Duration, Instant};

/// Lines of one kind that are written in a second.
const BUDGET: usize = 50;

/// A connection that nobody has.
const NOBODY: &str = "AAAAAAAAAAAAAAAAAAA=";

/// Longest time in which a node shuts down, in the tests' configuration.
const GRACE: Duration = Duration::from_secs(15);

/// A public listener that takes signed calls alone, and one stage that logs every event.
fn settings(backend: &TestBackend) -> Settings {
    backend.answer_with(|_| Reply::body("pong"));
    Settings::aws_proxy(backend)
        .public("connectionsApi: AWS_IAM, allowedHosts: [ 127.0.0.1 ]")
        .section(format!("drain: {{ graceMillis: {} }}", GRACE.as_millis()))
}

fn write(folder: &TempDir, settings: &Settings) -> PathBuf {
    let file = folder.path().join("tidegate.yaml");
    std::fs::write(&file, settings.text()).unwrap();
    file
}

fn command(folder: &TempDir, settings: &Settings) -> Command {
    tidegate(&["serve", "--log-format", "json", "--config", write(folder, settings).to_str().unwrap()])
}

fn serve(folder: &TempDir, settings: &Settings) -> Process {
    Tidegate::launch(&write(folder, settings), &[])
}

/// Sends a request `count` times, one after the other; each has to get this status.
async fn repeat(address: SocketAddr, request: Vec<u8>, count: usize, status: u16) {
    let mut client = RawClient::connect(address).await;
    for _ in 0..count {
        client.send(&request).await;
        let response = client.response().await;
        assert_eq!(response.status, status, "{}", String::from_utf8_lossy(&request));
        if response.header("connection") == Some("close") {
            client = RawClient::connect(address).await;
        }
    }
}

fn call(method: &str, host: &str, headers: &str) -> Vec<u8> {
    format!("{method} /prod/@connections/{NOBODY} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: 0\r\n\r\n")
        .into_bytes()
}

/// Makes the refused calls that strangers can make on the public listener, `count` of each: unsigned calls, calls that look
/// signed, other hosts, stages that there are not, handshakes that are none.
async fn knock(public: SocketAddr, count: usize) {
    let host = public.to_string();
    let signature = format!(
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261120/us-east-1/execute-api/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature={}\r\nX-Amz-Date: 20261120T125021Z\r\n",
        "0".repeat(64)
    );
    let foreign = [("Host", "evil.test")];
    tokio::join!(
        repeat(public, call("POST", &host, ""), count, 403),
        repeat(public, call("POST", &host, &signature), count, 403),
        repeat(public, handshake(public, "/prod", &foreign), count, 403),
        repeat(public, handshake(public, "/nowhere", &[]), count, 403),
        repeat(public, handshake(public, "/prod", &[("Sec-WebSocket-Key", "none")]), count, 400),
    );
}

/// A node whose stdout and stderr are pipes that nobody reads any more.
struct Unread {
    child: Child,
    /// The other end stays open.
    _stderr: BufReader<ChildStderr>,
    public: SocketAddr,
    internal: SocketAddr,
}

impl Unread {
    async fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let ready: Value = within("a line that says ready", async {
            loop {
                let mut line = String::new();
                assert!(stderr.read_line(&mut line).await.unwrap() > 0, "it ended");
                if let Ok(line) = serde_json::from_str::<Value>(&line)
                    && line["message"] == "ready"
                {
                    return line;
                }
            }
        })
        .await;
        let address = |name: &str| ready[name].as_str().unwrap().parse().unwrap();
        Unread { public: address("public"), internal: address("internal"), child, _stderr: stderr }
    }

    /// The metric with this name and labels.
    async fn metric(&self, begins: &str) -> u64 {
        let page = http(self.internal, "GET", "/metrics", &[], b"").await;
        let line = page.text().lines().find_map(|line| line.strip_prefix(begins)).unwrap_or_else(|| panic!("{begins}"));
        line.trim().parse().unwrap()
    }

    /// It answers, its client chats, and it ends in time when it is told to.
    async fn works_and_ends(mut self, client: &mut TestClient) {
        assert_eq!(http(self.internal, "GET", "/healthz", &[], b"").await.status, 200);
        client.send(r#"{"action":"ask"}"#).await;
        assert_eq!(client.next_text().await, "pong");
        let told = Instant::now();
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        assert_eq!(client.next_close().await.0, 1001);
        assert_eq!(within("the end of the process", self.child.wait()).await.unwrap().code(), Some(0));
        assert!(told.elapsed() < GRACE, "{:?}", told.elapsed());
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_no_request_no_client_and_not_the_end() {
    let (folder, backend) = (tempfile::tempdir().unwrap(), TestBackend::start().await);
    let settings = settings(&backend).stage("defaultRouteSettings: { loggingLevel: INFO, dataTraceEnabled: true }");
    let mut command = command(&folder, &settings);
    // Whatever level an operator chooses.
    command.env("RUST_LOG", "trace");
    let node = Unread::start(command).await;
    let mut client = TestClient::connect(node.public, "/prod", &[]).await.unwrap();
    knock(node.public, 300).await;
    // Each has its line: more than the pipe and the queue hold.
    repeat(node.internal, call("DELETE", "localhost", ""), 6000, 410).await;
    assert!(node.metric("tidegate_log_lines_lost_total{cause=\"full\"}").await > 0);
    assert!(node.metric("tidegate_log_lines_lost_total{cause=\"budget\"}").await > 0);
    knock(node.public, 10).await;
    node.works_and_ends(&mut client).await;
}

#[tokio::test]
async fn an_access_log_that_nobody_reads_stops_no_request_no_client_and_not_the_end() {
    for destination in ["stdout", "stderr"] {
        let (folder, backend) = (tempfile::tempdir().unwrap(), TestBackend::start().await);
        let format = format!("$context.requestId {}", "x".repeat(2000));
        let stage = format!("accessLogSettings: {{ destination: {destination}, format: '{format}' }}");
        let node = Unread::start(command(&folder, &settings(&backend).stage(&stage))).await;
        let mut client = TestClient::connect(node.public, "/prod", &[]).await.unwrap();
        repeat(node.internal, call("GET", "localhost", ""), 2000, 410).await;
        assert!(node.metric("tidegate_access_log_lines_lost_total{cause=\"full\"}").await > 0, "{destination}");
        repeat(node.internal, call("DELETE", "localhost", ""), 500, 410).await;
        node.works_and_ends(&mut client).await;
    }
}

/// The lines of one kind in a log: those that were written, and the number that was left out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    written: usize,
    left_out: usize,
}

/// All kinds of a log, by target and message.
fn kinds(lines: &[String]) -> BTreeMap<(String, String), Count> {
    let mut kinds: BTreeMap<_, Count> = BTreeMap::new();
    for line in lines {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        match line["left_out"].as_u64() {
            Some(count) => {
                assert!(text("message").starts_with(&format!("{count} log lines of this kind were left out in")));
                kinds.entry((text("kind_target"), text("kind"))).or_default().left_out += count as usize;
            }
            None => kinds.entry((text("target"), text("message"))).or_default().written += 1,
        }
    }
    kinds
}

fn count(lines: &[String], target: &str, message: &str) -> Count {
    kinds(lines).remove(&(target.to_owned(), message.to_owned())).unwrap_or_default()
}

#[tokio::test]
async fn of_a_flood_of_refused_calls_some_have_a_line_and_the_rest_are_counted() {
    const CALLS: usize = 2000;
    let (folder, backend) = (tempfile::tempdir().unwrap(), TestBackend::start().await);
    let mut process = serve(&folder, &settings(&backend));
    let (public, internal) = process.addresses().await;
    let began = Instant::now();
    let refused = call("POST", &public.to_string(), "");
    let foreign = handshake(public, "/prod", &[("Host", "evil.test")]);
    tokio::join!(repeat(public, refused, CALLS, 403), repeat(public, foreign, CALLS, 403));
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let messages = ["@connections call", "Host refused"];
    let all_counted = |lines: &[String]| {
        messages.iter().all(|message| {
            let Count { written, left_out } = count(lines, "audit", message);
            assert!(written + left_out <= CALLS, "{message}: {written} and {left_out}");
            written + left_out == CALLS
        })
    };
    eventually("each line is there or counted", async || all_counted(&process.stderr.so_far())).await;
    let lines = process.stderr.so_far();
    for (kind, Count { written, .. }) in kinds(&lines) {
        assert!(written <= seconds * BUDGET, "{written} lines of {kind:?} in {seconds} s");
    }
    let left_out: usize = kinds(&lines).values().map(|count| count.left_out).sum();
    assert!(left_out > 0, "a machine that refuses {} calls in {seconds} s", 2 * CALLS);
    let page = http(internal, "GET", "/metrics", &[], b"").await;
    let metric =
        page.text().lines().find_map(|line| line.strip_prefix("tidegate_log_lines_lost_total{cause=\"budget\"} "));
    assert_eq!(metric.unwrap().parse::<usize>().unwrap(), left_out);
    process.signal("TERM");
    assert_eq!(process.exit().await, 0);
    let lines = process.stderr.all().await;
    assert!(lines.last().unwrap().contains("\"stopped\""), "the last line is written too");
}

#[tokio::test]
async fn calls_that_were_let_in_have_their_audit_line_whatever_is_refused_meanwhile() {
    const DELETES: usize = 400;
    let (folder, backend) = (tempfile::tempdir().unwrap(), TestBackend::start().await);
    let mut process = serve(&folder, &settings(&backend));
    let (public, internal) = process.addresses().await;
    tokio::join!(repeat(internal, call("DELETE", "localhost", ""), DELETES, 410), knock(public, 400));
    eventually("all deletes", async || {
        let lines = process.stderr.so_far();
        let deleted = lines.iter().filter(|line| line.contains("\"DELETE\"") && line.contains("\"audit\"")).count();
        assert!(deleted <= DELETES);
        deleted == DELETES
    })
    .await;
}

#[tokio::test]
async fn an_execution_log_has_every_event_that_went_well_and_some_of_those_that_failed() {
    const EVENTS: usize = 300;
    let (folder, backend) = (tempfile::tempdir().unwrap(), TestBackend::start().await);
    let settings = settings(&backend).stage("defaultRouteSettings: { loggingLevel: INFO }");
    let mut process = serve(&folder, &settings);
    let (public, internal) = process.addresses().await;
    let mut client = TestClient::connect(public, "/prod", &[]).await.unwrap();
    for _ in 0..EVENTS {
        client.send(r#"{"action":"ask"}"#).await;
        client.next_text().await;
    }
    repeat(internal, call("POST", "localhost", ""), EVENTS, 410).await;
    eventually("all events", async || {
        let lines = process.stderr.so_far();
        let [done, failed] = ["an event is done", "an event failed"];
        let [done, failed] = [done, failed].map(|message| count(&lines, "tidegate::execution", message));
        // One more: the connect.
        done == Count { written: EVENTS + 1, left_out: 0 } && failed.written + failed.left_out == EVENTS
    })
    .await;
}

/// The writing end of a pipe that is full, and the reading end, which nobody reads.
fn full_pipe() -> (Stdio, PipeReader) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // As much as a pipe holds on Linux.
    writer.write_all(&[b'\n'; 65_536]).unwrap();
    (writer.into(), reader)
}

#[tokio::test]
async fn an_error_at_start_that_nobody_reads_does_not_hold_up_the_end() {
    let (stderr, _reader) = full_pipe();
    let mut child = tidegate(&["serve", "--config", "/nowhere/tidegate.yaml"]).stderr(stderr).spawn().unwrap();
    assert_eq!(within("the end of the process", child.wait()).await.unwrap().code(), Some(1));
}

/// Set for the process that panics.
const PANICS: &str = "TIDEGATE_TEST_PANICS";

#[test]
fn a_panic_is_a_line_of_the_log() {
    if std::env::var_os(PANICS).is_some() {
        logging::start(Some(LogFormat::Json)).unwrap();
        let _last_lines = LastLines;
        assert!(
            std::thread::Builder::new()
                .name("unlucky".to_owned())
                .spawn(|| panic!("on purpose"))
                .unwrap()
                .join()
                .is_err()
        );
        return;
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again
        .args(["--exact", "observe::log::a_panic_is_a_line_of_the_log", "--nocapture"])
        .env(PANICS, "1")
        .env("RUST_LOG", "off");
    let output = again.output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    let line: Value = text.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_else(|| panic!("{text}"));
    assert_eq!((&line["level"], &line["thread"]), (&"ERROR".into(), &"unlucky".into()));
    assert_eq!(line["message"], "a thread panicked: on purpose");
    assert!(line["location"].as_str().unwrap().contains("log.rs"), "{line}");
}

#[tokio::test]
async fn a_demo_whose_output_nobody_takes_serves_and_ends() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = tidegate(&["demo", "--port", &port.to_string()]);
    let ((stdout, _out), (stderr, _err)) = (full_pipe(), full_pipe());
    let mut child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
    let public = SocketAddr::from(([127, 0, 0, 1], port));
    let mut client = None;
    eventually("a client is let in", async || {
        client = TestClient::connect(public, "/prod", &[]).await.ok();
        client.is_some()
    })
    .await;
    let id = child.id().unwrap().to_string();
    // Signals are heard from the moment that it listens.
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    assert_eq!(client.unwrap().next_close().await.0, 1001);
    assert_eq!(within("the end of the process", child.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_key_of_an_answer_that_aws_does_not_know_is_said_once_and_the_answer_is_taken() {
    let (folder, backend) = (tempfile::tempdir().unwrap(), TestBackend::start().await);
    let settings = settings(&backend);
    let odd = "x".repeat(100);
    let answer = serde_json::json!({ "statusCode": 200, "body": "pong", "cookies": [], &odd: 1 });
    backend.answer_with(move |_| Reply::json(&answer));
    let mut process = serve(&folder, &settings);
    let (public, internal) = process.addresses().await;
    let mut client = TestClient::connect(public, "/prod", &[]).await.unwrap();
    for _ in 0..20 {
        client.send(r#"{"action":"ask"}"#).await;
        assert_eq!(client.next_text().await, "pong");
    }
    let line = process.stderr.log("the answer of a backend has a key that AWS does not know").await;
    for (name, value) in [
        ("level", "WARN"),
        ("api_id", "chat"),
        ("stage", "prod"),
        ("route_key", "$connect"),
        ("integration_id", "backend"),
        ("key", "cookies"),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    assert_eq!(http(internal, "GET", "/healthz", &[], b"").await.status, 200);
    let lines = process.stderr.so_far();
    let said: BTreeSet<_> = lines.iter().filter(|line| line.contains("that AWS does not know")).collect();
    assert_eq!(said.len(), 1, "{said:#?}");
}
