//! The backends in `examples/` and in `README.md` behind the real gateway, with the configuration that stands beside them.

use std::path::{Path, PathBuf};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use tidegate_testing::{LIMIT, Process, Tidegate, eventually, free_port};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Debian's own: it has boto3 from Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

/// A person of the chat.
struct Person {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Person {
    /// Connects and joins; returns the person and the welcome.
    async fn join(gateway: &Tidegate, name: &str) -> (Self, Value) {
        let (socket, _) = connect_async(format!("ws://{}/prod", gateway.public)).await.expect("a connection");
        let mut person = Person { socket };
        person.send(&json!({ "action": "join", "room": "lobby", "name": name })).await;
        let welcome = person.frame("welcome").await;
        (person, welcome)
    }

    async fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.expect("the socket takes it");
    }

    /// The next frame of a type.
    async fn frame(&mut self, kind: &str) -> Value {
        let search = async {
            while let Some(Ok(message)) = self.socket.next().await {
                let Message::Text(text) = message else { continue };
                let frame: Value = serde_json::from_str(&text).expect("frames are JSON");
                if frame["type"] == kind {
                    return frame;
                }
            }
            panic!("the connection ended without a frame of type {kind}")
        };
        timeout(LIMIT, search).await.unwrap_or_else(|_| panic!("no frame of type {kind}"))
    }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// The gateway as the examples configure it, with this backend.
async fn serve(backend_url: &str) -> Tidegate {
    let config = std::fs::read_to_string(examples().join("tidegate.yaml")).expect("the example is there");
    let config = config.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:8081", "127.0.0.1:0");
    let file = NamedTempFile::with_suffix(".yaml").expect("a file");
    std::fs::write(file.path(), config).expect("the file can be written");
    Tidegate::serve(file.path(), &[("CHAT_BACKEND", backend_url)]).await
}

/// Two people chat through a backend; one leaves and the other is told how.
async fn check(program: &str, script: &str, environment: &[(&str, &str)]) {
    let script = examples().join(script);
    let arguments = [script.to_str().expect("a path in UTF-8"), "--port", "0"];
    let mut backend = Process::start(program, &arguments, environment);
    let backend_url = backend.url().await;

    let gateway = serve(&backend_url).await;
    let (mut ada, welcome) = Person::join(&gateway, "Ada").await;
    let callback_url = welcome["callbackUrl"].as_str().expect("a text");
    assert!(callback_url.starts_with(&format!("http://{}/prod/@connections/", gateway.public)), "{callback_url}");
    let (mut bob, welcome) = Person::join(&gateway, "Bob").await;
    assert_eq!(welcome["members"].as_array().map(Vec::len), Some(2));
    assert_eq!(ada.frame("joined").await["name"], "Bob");

    ada.send(&json!({ "action": "sendMessage", "text": "hello Bob" })).await;
    let message = bob.frame("message").await;
    assert_eq!((&message["name"], &message["text"]), (&json!("Ada"), &json!("hello Bob")));
    bob.send(&json!({ "action": "sendMessage", "text": "hello Ada" })).await;
    assert_eq!(ada.frame("message").await["text"], "hello Bob", "senders see their own");
    assert_eq!(ada.frame("message").await["text"], "hello Ada");
    ada.send(&json!({ "action": "what" })).await;
    ada.frame("hint").await;

    let close = CloseFrame { code: 4000.into(), reason: "bye".into() };
    bob.socket.close(Some(close)).await.expect("a close");
    let left = ada.frame("left").await;
    assert_eq!((&left["name"], &left["code"], &left["reason"]), (&json!("Bob"), &json!(4000), &json!("bye")));
    assert_eq!(ada.frame("members").await["members"].as_array().map(Vec::len), Some(1));
}

/// The first block of the README in a language.
fn readme_block(language: &str) -> &'static str {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once(&format!("```{language}\n")).expect("a block in this language");
    rest.split_once("```").expect("the block ends").0
}

async fn until_somebody_listens(port: u16) {
    eventually("the backend listens", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
}

#[tokio::test]
async fn the_backend_of_the_readme_answers() {
    let folder = TempDir::new().expect("a directory");
    let port = free_port();
    let (script, config) = (folder.path().join("backend.py"), folder.path().join("my.yaml"));
    std::fs::write(&script, readme_block("python").replace("9000", &port.to_string())).expect("it can be written");
    let text = readme_block("yaml").replace("9000", &port.to_string()).replace("127.0.0.1:8080", "127.0.0.1:0");
    let internal = "  internal: { address: 127.0.0.1:0 }\napis:";
    std::fs::write(&config, text.replace("apis:", internal)).expect("it can be written");

    let _backend = Process::start(PYTHON, &[script.to_str().expect("a path in UTF-8")], &[]);
    until_somebody_listens(port).await;
    let gateway = Tidegate::serve(&config, &[]).await;
    let (mut socket, _) = connect_async(format!("ws://{}/prod", gateway.public)).await.expect("a connection");
    socket.send(Message::text("hello")).await.expect("the socket takes it");
    let answer = timeout(LIMIT, socket.next()).await.expect("an answer").expect("a frame").expect("a good one");
    assert_eq!(answer, Message::text("you said: hello"));
}

#[tokio::test]
async fn the_python_backend_serves_a_chat() {
    check(PYTHON, "python/chat_backend.py", &[]).await;
}

#[tokio::test]
async fn the_node_backend_serves_a_chat() {
    check("node", "node/chat_backend.mjs", &[]).await;
}

#[tokio::test]
async fn the_backend_that_remembers_nothing_serves_a_chat() {
    let script = examples().join("groups/chat_backend.py");
    let mut backend = Process::start(PYTHON, &[script.to_str().expect("a path in UTF-8"), "--port", "0"], &[]);
    let gateway = serve(&backend.url().await).await;
    let say =
        |action: &str, name: &str, text: &str| json!({ "action": action, "room": "lobby", "name": name, "text": text });
    let (mut ada, _) = Person::join(&gateway, "Ada").await;
    let (mut bob, welcome) = Person::join(&gateway, "Bob").await;
    assert!(welcome["callbackUrl"].as_str().is_some_and(|url| url.contains("/prod/@connections/")));
    assert_eq!(ada.frame("joined").await["name"], "Bob");
    ada.send(&say("sendMessage", "Ada", "hello Bob")).await;
    for person in [&mut ada, &mut bob] {
        let message = person.frame("message").await;
        assert_eq!((&message["name"], &message["text"]), (&json!("Ada"), &json!("hello Bob")));
    }
    bob.send(&say("leave", "Bob", "")).await;
    assert_eq!(ada.frame("left").await["name"], "Bob");
    bob.send(&json!({ "action": "what" })).await;
    bob.frame("hint").await;
    bob.send(&json!({ "action": "join", "room": "a b", "name": "Bob" })).await;
    bob.frame("error").await;
}

#[tokio::test]
async fn the_lambda_function_serves_a_chat() {
    // boto3 signs always; this listener does not look.
    let environment =
        [("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local"), ("PYTHONDONTWRITEBYTECODE", "1")];
    check(PYTHON, "lambda/serve.py", &environment).await;
}
