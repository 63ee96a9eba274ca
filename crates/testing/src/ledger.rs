use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::{Entrances, HttpClient, eventually, spawn};

/// Pushes under way at once; a further one waits.
const PUSHES_MAX: usize = 64;

/// Deadline of a push; longer than the gateway may take for an answer.
const PUSH_TIMEOUT: Duration = Duration::from_secs(15);

/// Number of times that a push that was answered 503 is tried again, as SDKs do.
const PUSH_ATTEMPTS: u32 = 3;

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Connect,
    Message,
    Disconnect,
}

/// A call of the gateway, as it came.
#[derive(Clone, Debug)]
pub struct Entry {
    pub event_type: EventType,
    pub connection_id: String,
    /// `requestContext.requestId`: the event's id.
    pub event_id: String,
    /// `x-tidegate-attempt`, from 1.
    pub attempt: u32,
    /// The client's own name: `?name=` of its connect.
    pub name: Option<String>,
    pub body: Option<String>,
    /// Code and reason of a disconnect.
    pub closing: Option<(u16, String)>,
    pub begun: Instant,
    /// The status that it was given, and when. None while it is under way, and for good if its answer was lost.
    pub answered: Option<(u16, Instant)>,
}

/// The answer to one call.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// This status, after a while.
    Status(u16, Duration),
    /// None: the HTTP connection is broken off after a while.
    Lost(Duration),
}

impl Answer {
    /// Takes the call at once.
    pub const OK: Answer = Answer::Status(200, Duration::ZERO);
}

/// A post to a connection.
#[derive(Clone, Debug)]
pub struct Push {
    pub connection_id: String,
    /// No other push has the same.
    pub text: String,
    pub begun: Instant,
    pub ended: Instant,
    /// The last answer; none if there was none.
    pub status: Option<u16>,
}

/// A backend that writes down every call and every push. What it has written is judged in `audit.rs`.
///
/// It takes `AWS_PROXY` events on any path, and answers 200 unless it was told otherwise. A message
/// `{"action":"say","to":NAME,"text":…}` it posts to the latest connection of that name, through any node.
#[derive(Clone)]
pub struct Ledger {
    pub address: SocketAddr,
    pub(crate) book: Arc<Mutex<Book>>,
    answers: Arc<Mutex<Answers>>,
    entrances: Entrances,
    client: HttpClient,
    permits: Arc<Semaphore>,
}

type Answers = Arc<dyn Fn(&Entry) -> Answer + Send + Sync>;

#[derive(Default)]
pub(crate) struct Book {
    pub(crate) calls: Vec<Entry>,
    pub(crate) pushes: Vec<Push>,
    /// The latest connection of each name.
    names: HashMap<String, String>,
    texts: u64,
    pushing: u64,
}

impl Ledger {
    /// Starts one that pushes through these entrances.
    pub async fn start(entrances: Entrances) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers: Answers = Arc::new(|_| Answer::OK);
        let ledger = Ledger {
            address: listener.local_addr().unwrap(),
            book: Arc::default(),
            answers: Arc::new(Mutex::new(answers)),
            entrances,
            client: HttpClient::default(),
            permits: Arc::new(Semaphore::new(PUSHES_MAX)),
        };
        let serving = ledger.clone();
        spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let ledger = serving.clone();
                let service = service_fn(move |request| ledger.clone().take(request));
                let connection = hyper::server::conn::http1::Builder::new();
                spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        ledger
    }

    /// Answers calls so from now on.
    pub fn answer(&self, answers: impl Fn(&Entry) -> Answer + Send + Sync + 'static) {
        *self.answers.lock().unwrap() = Arc::new(answers);
    }

    /// Returns all calls so far.
    pub fn calls(&self) -> Vec<Entry> {
        self.book.lock().unwrap().calls.clone()
    }

    /// Returns all pushes so far.
    pub fn pushes(&self) -> Vec<Push> {
        self.book.lock().unwrap().pushes.clone()
    }

    /// Returns the latest connection of a name.
    pub fn connection_of(&self, name: &str) -> Option<String> {
        self.book.lock().unwrap().names.get(name).cloned()
    }

    /// Returns the number of calls of one type so far.
    pub fn count(&self, event_type: EventType) -> usize {
        self.book.lock().unwrap().calls.iter().filter(|call| call.event_type == event_type).count()
    }

    /// Waits until so many more messages have come: clients chat on through what happens meanwhile.
    pub async fn more_messages(&self, count: usize) {
        let before = self.count(EventType::Message);
        eventually("clients chat", async || self.count(EventType::Message) >= before + count).await;
    }

    async fn take(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let begun = Instant::now();
        let attempt = request.headers().get("x-tidegate-attempt").and_then(|value| value.to_str().ok()?.parse().ok());
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        let call = Entry::read(&serde_json::from_slice(&body)?, attempt.unwrap_or(0), begun);
        let answers = self.answers.lock().unwrap().clone();
        let answer = answers(&call);
        let number = self.book.lock().unwrap().enter(&call);
        let (Answer::Status(_, pause) | Answer::Lost(pause)) = answer;
        if !pause.is_zero() {
            sleep(pause).await;
        }
        let Answer::Status(status, _) = answer else { return Err(std::io::Error::other("the answer is lost")) };
        if call.event_type == EventType::Message && status == 200 {
            self.say(call.body.as_deref());
        }
        self.book.lock().unwrap().calls[number].answered = Some((status, Instant::now()));
        let mut answer = json!({ "statusCode": status });
        if let (EventType::Connect, Some((user, _))) =
            (call.event_type, call.name.as_deref().and_then(|name| name.split_once('.')))
        {
            // `ann.phone` and `ann.laptop` are one user.
            answer["tidegate"] = json!({ "user": user });
        }
        Ok(Response::new(Full::from(answer.to_string())))
    }

    /// Posts what a client says to another, beside the answer.
    fn say(&self, body: Option<&str>) {
        let Ok(said) = serde_json::from_str::<Value>(body.unwrap_or_default()) else { return };
        let (Some("say"), Some(to), Some(text)) = (said["action"].as_str(), said["to"].as_str(), said["text"].as_str())
        else {
            return;
        };
        let Some(connection_id) = self.connection_of(to) else { return };
        self.book.lock().unwrap().pushing += 1;
        let (ledger, text) = (self.clone(), text.to_owned());
        spawn(async move {
            ledger.push(&connection_id, &text).await;
            ledger.book.lock().unwrap().pushing -= 1;
        });
    }

    /// Posts a text, which gets a number of its own, to a connection through any node.
    pub async fn push(&self, connection_id: &str, text: &str) -> Push {
        let number = {
            let mut book = self.book.lock().unwrap();
            book.texts += 1;
            book.texts
        };
        let text = format!("{number} {text}");
        let _permit = self.permits.acquire().await.unwrap();
        let begun = Instant::now();
        let mut status = None;
        for attempt in 1..=PUSH_ATTEMPTS {
            let Some(entrance) = self.entrances.any() else { break };
            status = self.call(entrance.internal, Method::POST, connection_id, &text).await;
            if status != Some(503) || attempt == PUSH_ATTEMPTS {
                break;
            }
            sleep(Duration::from_millis(200)).await;
        }
        let push = Push { connection_id: connection_id.to_owned(), text, begun, ended: Instant::now(), status };
        self.book.lock().unwrap().pushes.push(push.clone());
        push
    }

    /// Calls `@connections` of one node; the status, if there was an answer.
    pub async fn call(&self, node: SocketAddr, method: Method, connection_id: &str, body: &str) -> Option<u16> {
        let uri = format!("http://{node}/prod/@connections/{}", connection_id.replace('=', "%3D"));
        let request = Request::builder().method(method).uri(uri).body(Full::from(body.to_owned())).unwrap();
        Some(timeout(PUSH_TIMEOUT, self.client.send(request)).await.ok()?.ok()?.status)
    }

    /// Waits until nothing that clients said is on its way any more.
    pub async fn pushed_all(&self) {
        eventually("all pushes have an answer", async || self.book.lock().unwrap().pushing == 0).await;
    }
}

impl Book {
    /// Writes a call down; returns its place.
    fn enter(&mut self, call: &Entry) -> usize {
        if let (EventType::Connect, Some(name)) = (call.event_type, &call.name) {
            self.names.insert(name.clone(), call.connection_id.clone());
        }
        self.calls.push(call.clone());
        self.calls.len() - 1
    }
}

impl Entry {
    fn read(event: &Value, attempt: u32, begun: Instant) -> Self {
        let context = &event["requestContext"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let event_type = match context["eventType"].as_str() {
            Some("CONNECT") => EventType::Connect,
            Some("MESSAGE") => EventType::Message,
            Some("DISCONNECT") => EventType::Disconnect,
            other => panic!("an event of type {other:?}"),
        };
        let code = context["disconnectStatusCode"].as_u64().and_then(|code| u16::try_from(code).ok());
        let reason = text(&context["disconnectReason"]).unwrap_or_default();
        Entry {
            event_type,
            connection_id: text(&context["connectionId"]).expect("a connection id"),
            event_id: text(&context["requestId"]).expect("an event id"),
            attempt,
            name: text(&event["queryStringParameters"]["name"]),
            body: text(&event["body"]),
            closing: code.map(|code| (code, reason)),
            begun,
            answered: None,
        }
    }
}
