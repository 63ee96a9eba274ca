//! The sample backend over real HTTP on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::serve;

const POST_JSON: &str = "POST / HTTP/1.1\r\nContent-Type: application/json";

struct TestChat {
    backend: SocketAddr,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl TestChat {
    async fn start() -> Self {
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = listener.local_addr().unwrap();
        let gateways = ["first", "second"].map(|stage| format!("ws://127.0.0.1:9/{stage}")).to_vec();
        tasks.spawn(serve(listener, gateways, shutdown.clone(), tasks.clone()));
        TestChat { backend, shutdown, tasks }
    }

    /// Sends a client's message. Returns the requests to the gateway.
    async fn message(&self, id: &str, route_key: &str, body: Value) -> Value {
        let event = json!({ "requestContext": {
            "routeKey": route_key, "eventType": "MESSAGE", "connectionId": id, "requestId": "r", "requestTimeEpoch": 5,
            "callbackUrl": "http://gateway/url",
        }, "isBase64Encoded": false, "body": body.to_string() });
        let (status, answer) = self.http(POST_JSON, "127.0.0.1", &event.to_string()).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((status, &answer["statusCode"]), (200, &json!(200)));
        answer["tidegate"].clone()
    }

    async fn join(&self, id: &str, room: &str, name: &str) -> Value {
        self.message(id, "join", json!({ "action": "join", "room": room, "name": name })).await
    }

    /// Sends a request on a connection of its own. Returns the status and the body.
    async fn http(&self, head: &str, host: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.backend).await.unwrap();
        let length = body.len();
        let request = format!("{head}\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// Returns the first records that a new subscriber reads, as soon as there are enough.
    async fn feed(&self, count: usize) -> String {
        let mut stream = TcpStream::connect(self.backend).await.unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while text.matches("\"durationMicros\":").count() < count {
            let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await;
            let read = read.expect("a record within 10 s").unwrap();
            assert_ne!(read, 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        text
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await.expect("every task ends");
    }
}

#[tokio::test]
async fn a_room_is_a_group_and_a_message_is_one_push_to_it() {
    let chat = TestChat::start().await;
    let joined = chat.join("a=", "lobby", "Ada").await;
    assert_eq!((&joined["join"], &joined["user"], &joined["leave"]), (&json!(["lobby"]), &json!("Ada"), &Value::Null));
    chat.join("b", "lobby", "Bob").await;
    let said = chat.message("b", "sendMessage", json!({ "action": "sendMessage", "text": "hi" })).await;
    let data = r#"{"type":"message","room":"lobby","from":"b","name":"Bob","text":"hi","at":5}"#;
    assert_eq!(said, json!({ "send": [{ "group": "lobby", "data": data }] }));
    chat.stop().await;
}

#[tokio::test]
async fn who_is_of_the_crowd_is_put_into_its_group_and_shown_to_nobody() {
    let chat = TestChat::start().await;
    let event = |event_type: &str, more: Value| {
        let mut event = json!({ "requestContext": {
            "routeKey": "$connect", "eventType": event_type, "connectionId": "a", "callbackUrl": "http://gateway/url"
        }});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event.to_string()
    };
    let of_crowd = event("CONNECT", json!({ "queryStringParameters": { "crowd": "demo:crowd" } }));
    let (_, answer) = chat.http(POST_JSON, "127.0.0.1", &of_crowd).await;
    assert_eq!(answer, r#"{"statusCode":200,"tidegate":{"join":["demo:crowd"]}}"#);
    let of_somebody = event("CONNECT", json!({ "queryStringParameters": { "crowd": "lobby" } }));
    let (_, answer) = chat.http(POST_JSON, "127.0.0.1", &of_somebody).await;
    assert_eq!(answer, r#"{"statusCode":200,"tidegate":{}}"#);
    assert_eq!(chat.feed(1).await.matches("routeKey").count(), 2, "the field of a record, and of its event");
    chat.stop().await;
}

#[tokio::test]
async fn the_feed_shows_each_event_with_its_answer() {
    let chat = TestChat::start().await;
    chat.join("a", "lobby", "Ada").await;
    let (feed, _) = tokio::join!(chat.feed(2), chat.join("a", "help", "Ada"));
    assert!(feed.contains(r#""routeKey":"join","connectionId":"a","requestId":"r","event":{"#), "{feed}");
    assert!(feed.contains(r#""tidegate":{"leave":["lobby"],"join":["help"],"user":"Ada","send":["#), "{feed}");
    chat.stop().await;
}

#[tokio::test]
async fn requests_that_are_no_events_are_refused() {
    let chat = TestChat::start().await;
    assert_eq!(chat.http(POST_JSON, "127.0.0.1", "{}").await.0, 400);
    assert_eq!(chat.http("POST / HTTP/1.1\r\nContent-Type: text/plain", "127.0.0.1", "{}").await.0, 415);
    assert_eq!(chat.http(POST_JSON, "127.0.0.1", &" ".repeat(1024 * 1024 + 1)).await.0, 413);
    assert_eq!(chat.http("GET / HTTP/1.1", "rebound.example.com", "").await.0, 403);
    assert_eq!(chat.http("PUT / HTTP/1.1", "[::1]:9", "").await.0, 405);
    assert_eq!(chat.http("GET /other HTTP/1.1", "localhost:9", "").await.0, 404);
    let first = "ws://127.0.0.1:9/first";
    let cases = [("", first), ("?name=a&node=2", "ws://127.0.0.1:9/second"), ("?node=3", first), ("?node=x", first)];
    for (query, expected) in cases {
        let (status, config) = chat.http(&format!("GET /config.json{query} HTTP/1.1"), "localhost", "").await;
        assert_eq!((status, config), (200, format!(r#"{{"websocketUrl":"{expected}"}}"#)), "{query}");
    }
    assert!(chat.http("GET / HTTP/1.1", "localhost", "").await.1.contains("<!doctype html>"));
    chat.stop().await;
}
