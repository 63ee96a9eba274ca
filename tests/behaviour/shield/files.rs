//! Few files: strangers get those that are left, and the gateway keeps what it needs to serve.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use tidegate_testing::{
    LAST, Process, Settings, TestBackend, TestClient, eventually, raw, spawn, tidegate_path, within,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Files that the gateway may open. Of these it keeps 64 from strangers.
const FILES: usize = 200;
const OF_STRANGERS: usize = FILES - 64;

struct Gateway {
    public: SocketAddr,
    internal: SocketAddr,
    process: Process,
    _folder: tempfile::TempDir,
}

/// Starts the binary with few files.
async fn start(backend: &TestBackend) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate.yaml");
    std::fs::write(&path, Settings::aws_proxy(backend).text()).unwrap();
    let mut process = launch(&path);
    let ready: Value = serde_json::from_str(&process.line_with("\"ready\"").await).unwrap();
    let address = |key| tidegate_testing::address(&ready, key);
    Gateway { public: address("public"), internal: address("internal"), process, _folder: folder }
}

fn launch(config: &Path) -> Process {
    let (few, tidegate) = (format!("ulimit -n {FILES} && exec \"$0\" \"$@\""), tidegate_path());
    let arguments = ["-c", &few, tidegate.to_str().unwrap(), "serve", "--log-format", "json", "--config"];
    Process::start("sh", &[&arguments[..], &[config.to_str().unwrap()]].concat(), &[])
}

/// Returns the answer to a request on a connection of its own; empty if there is none.
async fn get(address: SocketAddr, path: &str) -> String {
    raw(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await
}

/// Returns true if the gateway reports that it has stopped accepting on a listener.
async fn is_paused(gateway: &Gateway, listener: &str) -> bool {
    let page = get(gateway.internal, "/metrics").await;
    page.lines().any(|line| line == format!("tidegate_accept_paused{{listener=\"{listener}\"}} 1"))
}

/// Warnings and notices about accepting, from now to the end of the process.
async fn said(gateway: &mut Gateway) -> Vec<Value> {
    gateway.process.signal("TERM");
    let lines = gateway.process.end().await;
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"].as_str().is_some_and(|target| target.ends_with("::accepting"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_ask_once_and_stay_cannot_take_the_last_files() {
    let backend = TestBackend::start().await.echoing();
    let gateway = start(&backend).await;
    let mut client = TestClient::enter(gateway.public).await;
    let id = backend.last("CONNECT").await.context()["connectionId"].as_str().unwrap().to_owned();
    let mut strangers = Vec::new();
    for _ in 0..240 {
        let mut stream = TcpStream::connect(gateway.public).await.unwrap();
        stream.write_all(b"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        strangers.push(stream);
    }
    eventually("no more is accepted", async || is_paused(&gateway, "public").await).await;
    assert!(get(gateway.internal, "/healthz").await.starts_with("HTTP/1.1 200"));
    // The backend closes behind this one, so that the next message needs a socket.
    client.echo(LAST).await;
    client.echo("on a socket of its own").await;
    let mut post = TcpStream::connect(gateway.internal).await.unwrap();
    let call = format!("POST /prod/@connections/{id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi");
    post.write_all(call.as_bytes()).await.unwrap();
    assert_eq!(client.next_text().await, "hi");
    // None of the strangers goes by itself, and yet the next client is let in.
    TestClient::enter(gateway.public).await.echo("let in").await;
    eventually("all are accepted", async || !is_paused(&gateway, "public").await).await;
    for mut stranger in strangers {
        let mut answer = String::new();
        let _ = within("an answer and the end", stranger.read_to_string(&mut answer)).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_beyond_the_files_wait_until_one_is_free_and_the_log_says_so_once() {
    let backend = TestBackend::start().await.echoing();
    let mut gateway = start(&backend).await;
    let mut clients: Vec<TestClient<TcpStream>> = Vec::new();
    for _ in 0..OF_STRANGERS {
        clients.push(TestClient::enter(gateway.public).await);
    }
    let public = gateway.public;
    let waiting = spawn(async move {
        let mut client = TestClient::enter(public).await;
        client.echo("at last").await;
        client
    });
    eventually("no more is accepted", async || is_paused(&gateway, "public").await).await;
    assert!(get(gateway.internal, "/healthz").await.starts_with("HTTP/1.1 200"));
    clients[0].echo(LAST).await;
    clients[1].echo("on a socket of its own").await;
    assert!(!waiting.is_finished());
    clients.truncate(OF_STRANGERS / 2);
    clients.push(within("the one that waits", waiting).await.unwrap());
    eventually("all are accepted", async || !is_paused(&gateway, "public").await).await;
    drop(clients);
    let said = said(&mut gateway).await;
    let levels: Vec<&Value> = said.iter().map(|line| &line["level"]).collect();
    assert_eq!(levels, ["WARN", "INFO"], "{said:#?}");
    assert!(said.iter().all(|line| line["listener"] == "public"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_at_all_is_said_once_however_often_it_fails() {
    let backend = TestBackend::start().await.echoing();
    let mut gateway = start(&backend).await;
    let mut callers = Vec::new();
    for _ in 0..FILES + 50 {
        callers.push(TcpStream::connect(gateway.internal).await.unwrap());
    }
    let first: Value = serde_json::from_str(&gateway.process.line_with("could not accept").await).unwrap();
    assert_eq!((&first["level"], &first["listener"]), (&"WARN".into(), &"internal".into()));
    // Those that were accepted are cut off in time, as they ask nothing: the others get their files.
    let mut last = callers.pop().unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("an answer", last.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(callers);
    let over: Value = serde_json::from_str(&gateway.process.line_with("accepts connections again").await).unwrap();
    assert_eq!((&over["level"], &over["listener"]), (&"INFO".into(), &"internal".into()));
    assert!(over["count"].as_u64().is_some_and(|count| count > 20), "it failed often: {over}");
    assert_eq!(said(&mut gateway).await, Vec::<Value>::new());
}
