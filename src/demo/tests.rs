//! The sample backend over real HTTP on loopback, with a receiver in place of the gateway's callback API.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::serve;

/// The backend, and a receiver that answers its posts with 200 or with what `answers` says for a connection.
struct TestChat {
    backend: SocketAddr,
    callback: SocketAddr,
    posts: mpsc::Receiver<(String, Value)>,
    /// Frames that came while another connection's were awaited.
    waiting: HashMap<String, Vec<Value>>,
    answers: Arc<Mutex<HashMap<String, Vec<StatusCode>>>>,
    /// Posts to the connection `slow` are not answered before this.
    release: CancellationToken,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl TestChat {
    async fn start() -> Self {
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (sender, posts) = mpsc::channel(10_000);
        let answers: Arc<Mutex<HashMap<String, Vec<StatusCode>>>> = Arc::default();
        let callback_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let callback = callback_listener.local_addr().unwrap();
        let release = CancellationToken::new();
        let receiver = receive(callback_listener, sender, answers.clone(), release.clone(), tasks.clone());
        tasks.spawn(shutdown.clone().run_until_cancelled_owned(receiver));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = listener.local_addr().unwrap();
        let gateways = vec![format!("ws://{callback}/prod"), "ws://127.0.0.1:9/second".to_owned()];
        tasks.spawn(serve(listener, gateways, shutdown.clone(), tasks.clone()));
        TestChat { backend, callback, posts, waiting: HashMap::new(), answers, release, shutdown, tasks }
    }

    async fn event(&self, id: &str, event_type: &str, route_key: &str, more: Value) -> (u16, String) {
        let mut event = json!({ "requestContext": {
            "routeKey": route_key, "eventType": event_type, "connectionId": id, "requestId": "r", "requestTimeEpoch": 5,
            "callbackUrl": format!("http://{}/prod/@connections/{id}", self.callback),
        }, "isBase64Encoded": false });
        for (key, value) in more.as_object().unwrap() {
            match key.as_str() {
                "body" => event[key] = value.to_string().into(),
                _ => event["requestContext"][key] = value.clone(),
            }
        }
        self.http("POST / HTTP/1.1\r\nContent-Type: application/json", "127.0.0.1", &event.to_string()).await
    }

    async fn join(&self, id: &str, room: &str, name: &str) {
        let body = json!({ "body": { "action": "join", "room": room, "name": name } });
        assert_eq!(self.event(id, "MESSAGE", "join", body).await, (200, r#"{"statusCode":200}"#.to_owned()));
    }

    async fn say(&self, id: &str, text: &str) {
        let body = json!({ "body": { "action": "sendMessage", "text": text } });
        assert_eq!(self.event(id, "MESSAGE", "sendMessage", body).await.0, 200);
    }

    /// One request on a connection of its own: status and body.
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

    /// The next frame of a type for a connection.
    async fn next(&mut self, id: &str, frame_type: &str) -> Value {
        loop {
            let frame = self.next_any(id).await;
            if frame["type"] == frame_type {
                return frame;
            }
        }
    }

    async fn next_any(&mut self, id: &str) -> Value {
        loop {
            if let Some(frames) = self.waiting.get_mut(id).filter(|frames| !frames.is_empty()) {
                return frames.remove(0);
            }
            let post = tokio::time::timeout(Duration::from_secs(10), self.posts.recv());
            let (to, frame) = post.await.expect("a post within 10 s").unwrap();
            self.waiting.entry(to).or_default().push(frame);
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await.expect("every task ends");
    }
}

/// Stands in for the gateway's callback API.
async fn receive(
    listener: TcpListener,
    sender: mpsc::Sender<(String, Value)>,
    answers: Arc<Mutex<HashMap<String, Vec<StatusCode>>>>,
    release: CancellationToken,
    tasks: TaskTracker,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (sender, answers, release) = (sender.clone(), answers.clone(), release.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (sender, answers, release) = (sender.clone(), answers.clone(), release.clone());
            async move {
                let id = request.uri().path().strip_prefix("/prod/@connections/").unwrap().to_owned();
                if id == "slow" {
                    release.cancelled().await;
                }
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let scripted = answers.lock().unwrap().get_mut(&id).and_then(Vec::pop);
                let status = scripted.unwrap_or(StatusCode::OK);
                if status == StatusCode::OK {
                    sender.send((id, serde_json::from_slice(&body).unwrap())).await.unwrap();
                }
                Ok::<_, Infallible>(Response::builder().status(status).body(Full::<Bytes>::default()).unwrap())
            }
        });
        tasks.spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

#[tokio::test]
async fn a_message_reaches_the_whole_room_and_nobody_else() {
    let mut chat = TestChat::start().await;
    assert_eq!(chat.event("a=", "CONNECT", "$connect", json!({})).await.0, 200);
    chat.join("a=", "lobby", "Ada").await;
    let welcome = chat.next_any("a=").await;
    assert_eq!(welcome["type"], "welcome");
    assert_eq!(welcome["callbackUrl"], format!("http://{}/prod/@connections/a=", chat.callback));
    chat.join("b", "lobby", "Bob").await;
    chat.join("c", "help", "Cy").await;
    assert_eq!(chat.next("a=", "joined").await["name"], "Bob");
    chat.say("b", "hi").await;
    let message = json!({ "type": "message", "room": "lobby", "from": "b", "name": "Bob", "text": "hi", "at": 5 });
    assert_eq!(chat.next("a=", "message").await, message);
    assert_eq!(chat.next("b", "message").await, message);
    chat.say("c", "alone").await;
    assert_eq!(chat.next("c", "message").await["text"], "alone");
    assert!(!chat.waiting["a="].iter().any(|frame| frame["type"] == "message"));
    chat.stop().await;
}

#[tokio::test]
async fn all_members_see_concurrent_messages_in_one_order() {
    let mut chat = TestChat::start().await;
    let ids = ["a", "b", "c", "d"];
    for id in ids {
        chat.join(id, "lobby", id).await;
    }
    let say_all = async |id: &str| {
        for index in 0..50 {
            chat.say(id, &format!("{id}{index}")).await;
        }
    };
    tokio::join!(say_all("a"), say_all("b"), say_all("c"), say_all("d"));
    let mut seen: Vec<Vec<Value>> = Vec::new();
    for id in ids {
        let mut texts = Vec::new();
        for _ in 0..200 {
            texts.push(chat.next(id, "message").await["text"].clone());
        }
        seen.push(texts);
    }
    assert!(seen.iter().all(|texts| *texts == seen[0]));
    chat.stop().await;
}

#[tokio::test]
async fn disconnect_tells_the_room_code_and_reason_once() {
    let mut chat = TestChat::start().await;
    chat.join("a", "lobby", "Ada").await;
    chat.join("b", "lobby", "Bob").await;
    let end = json!({ "disconnectStatusCode": 1001, "disconnectReason": "Going away" });
    for _ in 0..2 {
        assert_eq!(chat.event("b", "DISCONNECT", "$disconnect", end.clone()).await.0, 200);
    }
    let left = chat.next("a", "left").await;
    assert_eq!((&left["name"], &left["code"], &left["reason"]), (&json!("Bob"), &json!(1001), &json!("Going away")));
    assert_eq!(chat.next("a", "members").await["members"], json!([{ "connectionId": "a", "name": "Ada" }]));
    chat.say("a", "last").await;
    assert_eq!(chat.next_any("a").await["type"], "message", "no second `left`");
    chat.stop().await;
}

#[tokio::test]
async fn a_member_whose_connection_is_gone_leaves_the_room() {
    let mut chat = TestChat::start().await;
    chat.join("a", "lobby", "Ada").await;
    chat.join("b", "lobby", "Bob").await;
    chat.next("b", "welcome").await;
    chat.answers.lock().unwrap().insert("b".to_owned(), vec![StatusCode::GONE]);
    chat.say("a", "anybody?").await;
    let left = chat.next("a", "left").await;
    assert_eq!((&left["name"], &left["reason"]), (&json!("Bob"), &json!("connection is gone")));
    chat.stop().await;
}

#[tokio::test]
async fn a_member_that_reads_too_slowly_holds_up_nobody_and_leaves_the_room() {
    let mut chat = TestChat::start().await;
    chat.join("a", "lobby", "Ada").await;
    chat.join("slow", "lobby", "Sam").await;
    for index in 0..300 {
        chat.say("a", &index.to_string()).await;
    }
    let left = chat.next("a", "left").await;
    assert_eq!((&left["name"], &left["reason"]), (&json!("Sam"), &json!("reads too slowly")));
    chat.release.cancel();
    let error = chat.next("slow", "error").await;
    assert_eq!(error["message"], "you read too slowly and have left the room: join again");
    chat.stop().await;
}

#[tokio::test]
async fn a_frame_that_was_not_written_is_posted_again_in_its_place() {
    let mut chat = TestChat::start().await;
    let refusals = vec![StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
    chat.answers.lock().unwrap().insert("a".to_owned(), refusals);
    chat.join("a", "lobby", "Ada").await;
    chat.say("a", "hi").await;
    assert_eq!(chat.next_any("a").await["type"], "welcome");
    assert_eq!(chat.next_any("a").await["type"], "message");
    chat.stop().await;
}

#[tokio::test]
async fn the_sender_learns_what_is_wrong_with_a_message() {
    let mut chat = TestChat::start().await;
    chat.say("a", "hi").await;
    assert_eq!(chat.next_any("a").await, json!({ "type": "error", "message": "join a room first" }));
    chat.event("a", "MESSAGE", "join", json!({ "body": { "room": "lobby" } })).await;
    assert_eq!(chat.next_any("a").await["message"], "join needs the strings `room` and `name`");
    chat.event("a", "MESSAGE", "$default", json!({ "body": "what?" })).await;
    assert_eq!(chat.next_any("a").await["type"], "hint");
    chat.stop().await;
}

#[tokio::test]
async fn the_feed_shows_calls_and_posts() {
    let mut chat = TestChat::start().await;
    chat.join("a", "lobby", "Ada").await;
    chat.next("a", "welcome").await;
    let mut stream = TcpStream::connect(chat.backend).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    chat.say("a", "hi").await;
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while text.matches("\"kind\":\"post\"").count() < 2 {
        let count = stream.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert_eq!(text.matches("\"kind\":\"integration\"").count(), 2, "{text}");
    assert!(text.contains(r#""routeKey":"sendMessage","connectionId":"a","requestId":"r","event":{"#), "{text}");
    assert!(text.contains(r#""status":200"#), "{text}");
    chat.stop().await;
}

#[tokio::test]
async fn requests_that_are_no_events_are_refused() {
    let chat = TestChat::start().await;
    let post = "POST / HTTP/1.1\r\nContent-Type: application/json";
    assert_eq!(chat.http(post, "127.0.0.1", "{}").await.0, 400);
    assert_eq!(chat.http("POST / HTTP/1.1\r\nContent-Type: text/plain", "127.0.0.1", "{}").await.0, 415);
    assert_eq!(chat.http(post, "127.0.0.1", &" ".repeat(1024 * 1024 + 1)).await.0, 413);
    assert_eq!(chat.http("GET / HTTP/1.1", "rebound.example.com", "").await.0, 403);
    assert_eq!(chat.http("PUT / HTTP/1.1", "[::1]:9", "").await.0, 405);
    assert_eq!(chat.http("GET /other HTTP/1.1", "localhost:9", "").await.0, 404);
    let (status, config) = chat.http("GET /config.json HTTP/1.1", "localhost", "").await;
    let first = format!("ws://{}/prod", chat.callback);
    assert_eq!((status, config), (200, format!(r#"{{"websocketUrl":"{first}"}}"#)));
    for (query, expected) in [("?name=a&node=2", "ws://127.0.0.1:9/second"), ("?node=3", &first), ("?node=x", &first)] {
        let (_, config) = chat.http(&format!("GET /config.json{query} HTTP/1.1"), "localhost", "").await;
        assert_eq!(config, format!(r#"{{"websocketUrl":"{expected}"}}"#), "{query}");
    }
    assert!(chat.http("GET / HTTP/1.1", "localhost", "").await.1.contains("<!doctype html>"));
    chat.stop().await;
}
