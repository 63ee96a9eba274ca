//! The backend of the measurements: a process of its own that answers at once, so that its CPU can be told apart.
//!
//! It knows both forms of a call by its path: `/raw` carries the message's own bytes and answers with the reply;
//! `/event` carries an `AWS_PROXY` event and answers `{"statusCode":200,"body":…}`. The reply is the message itself, or
//! for `{"action":"whoami"}` the id of the connection. [`grip`] is what Pushpin calls.

mod grip;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

const BACKLOG: i32 = 4096;

/// The part of an `AWS_PROXY` event that is looked at. The body stays the JSON text that it is.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// Serves until the process ends; each answer takes at least `delay`.
pub(crate) async fn serve(address: SocketAddr, delay: Duration) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    println!("{}", listener.local_addr()?);
    crate::machine::raise_open_files();
    let tasks = TaskTracker::new();
    loop {
        let (stream, _peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tasks.spawn(async move {
            let service = service_fn(|request| async {
                if !delay.is_zero() {
                    sleep(delay).await;
                }
                Ok::<_, Infallible>(answer(request).await)
            });
            // A connection that fails concerns the gateway, which will show it.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return response(StatusCode::BAD_REQUEST, Bytes::new()) };
    let body = body.to_bytes();
    let is_message = head.headers.get("x-tidegate-event-type").is_none_or(|event| event == "MESSAGE");
    let is_whoami = head.headers.get("x-tidegate-route-key").is_some_and(|route_key| route_key == "whoami");
    match head.uri.path() {
        "/raw" if !is_message => response(StatusCode::OK, Bytes::new()),
        "/raw" if is_whoami => response(StatusCode::OK, connection_id(&head.headers)),
        "/raw" => response(StatusCode::OK, body),
        "/event" if !is_message => response(StatusCode::OK, Bytes::from_static(b"{\"statusCode\":200}")),
        "/event" => {
            let reply = if is_whoami {
                serde_json::to_string(&String::from_utf8_lossy(&connection_id(&head.headers))).ok()
            } else {
                let event = serde_json::from_slice::<Event<'_>>(&body).ok();
                event.and_then(|event| event.body).map(|body| body.get().to_owned())
            };
            match reply {
                Some(reply) => response(StatusCode::OK, format!("{{\"statusCode\":200,\"body\":{reply}}}").into()),
                None => response(StatusCode::BAD_REQUEST, Bytes::new()),
            }
        }
        path => match path.strip_prefix(grip::PATH) {
            Some(channel) => grip::answer(channel, &body),
            None => response(StatusCode::NOT_FOUND, Bytes::new()),
        },
    }
}

fn connection_id(headers: &HeaderMap) -> Bytes {
    headers.get("x-tidegate-connection-id").map_or(Bytes::new(), |id| Bytes::copy_from_slice(id.as_bytes()))
}

fn response(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}
