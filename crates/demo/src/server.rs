use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::{Actions, Answer};
use super::chat::Chat;
use super::crowd::{self, Crowd, Gateway};
use super::event::ProxyEvent;
use super::feed::{Feed, Record, now_epoch_millis, shorten_all};
use tidegate_core::error_chain::chain;
use tidegate_core::lock::lock;

/// Largest event that is read, in bytes; a larger one is 413.
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// Longest time for reading an event.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Most HTTP connections at once; further ones wait in the listener's backlog.
const HTTP_CONNECTIONS_MAX: usize = 1024;

/// Time without a request after which an HTTP connection is closed; longer than a caller is likely to keep it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Time that a request in progress still gets at shutdown; then its HTTP connection is closed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a failed accept, which is most often caused by a lack of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

const PAGE: &str = include_str!("page.html");

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The reason why the sample chat cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The URL has no host and port, or is not `ws`.
    #[error("`{0}` is not a URL such as ws://127.0.0.1:8080/prod")]
    WebsocketUrl(String),
}

/// Serves the sample chat on a loopback listener until `shutdown`; its connections are tasks of `tasks`.
///
/// `gateways` are the URLs to which the page connects, of one gateway or of several nodes of one, such as
/// `ws://127.0.0.1:8080/prod`.
///
/// Cancel `shutdown` only when the gateway has drained: until then `$disconnect` events still come.
pub async fn serve(
    listener: TcpListener,
    gateways: Vec<String>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
) -> Result<(), DemoError> {
    let gateway = |url: &String| Gateway::parse(url).ok_or_else(|| DemoError::WebsocketUrl(url.clone()));
    let server = Arc::new(Server {
        chat: Mutex::new(Chat::new(now_epoch_millis())),
        feed: Feed::new(),
        crowd: Crowd::new(gateways.iter().map(gateway).collect::<Result<_, _>>()?),
        websocket_urls: gateways,
        shutdown: shutdown.clone(),
    });
    let permits = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let accept_all = async {
        loop {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, _)) => drop(tasks.spawn(server.clone().connection(stream, permit))),
                Err(error) => {
                    tracing::warn!(%error, "the sample chat could not accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(accept_all).await.unwrap_or(Ok(()))
}

struct Server {
    chat: Mutex<Chat>,
    feed: Feed,
    crowd: Crowd,
    websocket_urls: Vec<String>,
    shutdown: CancellationToken,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, _permit: OwnedSemaphorePermit) {
        let shutdown = self.shutdown.clone();
        let service = service_fn(move |request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.respond(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(SHUTDOWN_TIMEOUT, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "an HTTP connection to the sample chat broke off");
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        // A page of another site can make a browser send requests here under a host name of its own. It must not read
        // the chat.
        if !names_loopback(request.headers()) {
            return text(StatusCode::FORBIDDEN, "the sample chat answers on a loopback name only");
        }
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/") => self.invoke(request).await,
            (&Method::GET, "/") => self.page(),
            (&Method::GET, "/config.json") => {
                json(&json!({ "websocketUrl": self.websocket_url(request.uri().query().unwrap_or_default()) }))
            }
            (&Method::POST, "/crowd") => self.hear(request.headers()).await,
            (&Method::GET, "/events") => self.events(request.headers()),
            (_, "/" | "/config.json" | "/crowd" | "/events") => {
                text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
            }
            _ => text(StatusCode::NOT_FOUND, "not found"),
        }
    }

    /// Returns the URL to which the page connects: with `node=2` in its query string that of the second gateway,
    /// otherwise that of the first.
    fn websocket_url(&self, query: &str) -> Option<&String> {
        let number = query.split('&').find_map(|field| field.strip_prefix("node=")?.parse::<usize>().ok());
        self.websocket_urls.get(number.unwrap_or(1).saturating_sub(1)).or(self.websocket_urls.first())
    }

    /// Handles an event, as the integration of every route.
    async fn invoke(&self, request: Request<Incoming>) -> Response<Body> {
        let (at, started) = (now_epoch_millis(), Instant::now());
        // A page of another site can post plain text here without asking, but not JSON.
        if !is_json(request.headers()) {
            return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "events are application/json");
        }
        let body = Limited::new(request.into_body(), BODY_MAX_BYTES).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return text(StatusCode::PAYLOAD_TOO_LARGE, "the event is too large or broke off"),
            Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the event took too long"),
        };
        let event: ProxyEvent = match serde_json::from_slice(&body) {
            Ok(event) => event,
            Err(error) => return text(StatusCode::BAD_REQUEST, &format!("not a Lambda proxy event: {error}")),
        };
        if event.is_of_crowd() {
            // The feed does not show a thousand members that come and go.
            let join = vec![crowd::GROUP.to_owned()];
            return json(&json!(Answer::from(Actions { join, ..Actions::default() })));
        }
        let actions = lock(&self.chat).handle(&event);
        let answer = json!(Answer::from(actions));
        let mut shown = [serde_json::from_slice(&body).unwrap_or_default(), answer.clone()];
        shown.iter_mut().for_each(shorten_all);
        let [shown_event, shown_answer] = &shown;
        let context = &event.request_context;
        self.feed.publish(&Record {
            at,
            duration_micros: started.elapsed().as_micros().try_into().unwrap_or(u64::MAX),
            route_key: &context.route_key,
            connection_id: &context.connection_id,
            request_id: &context.request_id,
            event: shown_event,
            answer: shown_answer,
        });
        json(&answer)
    }

    /// Gathers a crowd that receives one push.
    async fn hear(&self, headers: &HeaderMap) -> Response<Body> {
        if !is_json(headers) {
            return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json");
        }
        match self.shutdown.clone().run_until_cancelled(Box::pin(self.crowd.hear())).await {
            Some(Ok(shown)) => json(&shown),
            Some(Err(error)) => {
                tracing::warn!(error = %chain(&error), "a crowd failed");
                let mut response = json(&json!({ "message": error.to_string() }));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            }
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the demo ends"),
        }
    }

    fn page(&self) -> Response<Body> {
        // `connect-src` names the gateways, because `'self'` is only the page's own port.
        let policy = format!(
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; \
             connect-src 'self' {}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            self.websocket_urls.join(" ")
        );
        let mut response = respond("text/html; charset=utf-8", full(Bytes::from_static(PAGE.as_bytes())));
        if let Ok(policy) = HeaderValue::try_from(policy) {
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }

    fn events(&self, headers: &HeaderMap) -> Response<Body> {
        let last_event_id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
        let Some(events) = self.feed.subscribe(last_event_id, self.shutdown.clone()) else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many subscribers");
        };
        let frames = futures_util::StreamExt::map(events, |event| event.map(Frame::data));
        respond("text/event-stream", StreamBody::new(frames).boxed_unsync())
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    media_type.to_ascii_lowercase().starts_with(b"application/json")
}

/// Returns true if the request was addressed to this machine by a name that only this machine has.
fn names_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let Ok(uri) = host.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn json(value: &Value) -> Response<Body> {
    respond("application/json", full(value.to_string().into()))
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = respond("text/plain; charset=utf-8", full(format!("{message}\n").into()));
    *response.status_mut() = status;
    response
}

fn respond(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}
