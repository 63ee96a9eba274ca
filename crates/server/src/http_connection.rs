use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::entrance::Peer;
use super::listener::Endpoint;
use super::pace::{Pace, Wait};
use super::router::route;
use super::watched::{Watch, Watched};
use tidegate_core::limits::Slot;
use tidegate_core::limits::quota::HEAD_MAX_BYTES;
use tidegate_core::lock::lock;
use tidegate_gateway::data_plane::DataPlane;
use tidegate_gateway::data_plane::response::Body;
use tidegate_gateway::data_plane::websocket::Admitted;
use tidegate_http::transport::Connection;

/// Longest time for closing a connection after its last answer.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Most headers of a request.
const HEADERS_MAX: usize = 128;

/// The slot in which an upgrade leaves its session until the 101 is written. If the slot is dropped with a session in
/// it, the client never got its 101, and the session ends.
#[derive(Clone, Default)]
pub(super) struct Session(Arc<Mutex<Option<Admitted>>>);

impl Session {
    pub(super) fn put(&self, admitted: Admitted) {
        *lock(&self.0) = Some(admitted);
    }

    fn take(&self) -> Option<Admitted> {
        lock(&self.0).take()
    }
}

/// A session, its stream, and the bytes that were already read from it.
type Upgraded<S> = (Admitted, S, bytes::Bytes);

/// The reason why a connection takes no more requests.
enum Served {
    ToItsEnd(hyper::Result<()>),
    TooLong(Wait),
}

/// Answers the requests of one connection, one after the other. Returns its session if the connection is upgraded, and
/// otherwise closes it.
pub(super) async fn serve_http<S>(
    plane: &Arc<DataPlane>,
    endpoint: Arc<Endpoint>,
    stream: S,
    peer: Peer,
    handshake: Option<Slot>,
) -> Option<Upgraded<S>>
where
    S: Connection + Send + 'static,
{
    let session = Session::default();
    let watch = Watch::default();
    // A client over its limit keeps its place among the handshakes until its connection ends.
    let (kept, given_back) = if peer.is_over { (handshake, None) } else { (None, handshake) };
    let service = service(Arc::clone(plane), endpoint, peer, session.clone(), watch.clone(), given_back);
    // The timer of the HTTP library is off: it has one time for all callers, and none for a caller that does not read
    // its answer.
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Watched::new(stream, watch.clone())), service);
    match answer_requests(plane, &watch, &mut connection).await {
        Served::ToItsEnd(Ok(())) => {}
        Served::ToItsEnd(Err(error)) => {
            debug!(%error, "an HTTP connection failed");
            return None;
        }
        // No request is in progress, so the connection closes as if the other end had asked for it.
        Served::TooLong(Wait::NextRequest { .. }) => {}
        Served::TooLong(wait) => {
            debug!(?wait, "closed an HTTP connection: the other end took too long");
            return None;
        }
    }
    drop(kept);
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner().into_inner();
    let Some(admitted) = session.take() else {
        // TLS has its own closing message, and clients take its absence for an attack.
        let _ = timeout(GOODBYE_TIMEOUT, stream.shutdown()).await;
        return None;
    };
    Some((admitted, stream, parts.read_buf))
}

type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Returns the service that answers the requests of one connection. The first request gives back `handshake`, the place
/// among the handshakes of the client's address.
fn service(
    plane: Arc<DataPlane>,
    endpoint: Arc<Endpoint>,
    peer: Peer,
    session: Session,
    watch: Watch,
    handshake: Option<Slot>,
) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = ResponseFuture> {
    let handshake = Cell::new(handshake);
    service_fn(move |request: Request<Incoming>| {
        handshake.take();
        let is_whole = watch.ask();
        let (plane, endpoint, session) = (Arc::clone(&plane), Arc::clone(&endpoint), session.clone());
        let (peer, watch) = (peer.clone(), watch.clone());
        let response: ResponseFuture = Box::pin(async move {
            let (response, keep_alive) = route(&plane, &endpoint, &peer, is_whole, &session, request).await;
            watch.answer(keep_alive);
            Ok(response)
        });
        response
    })
}

/// Answers the requests of `connection` until it ends, is upgraded, or takes too long. If the process aborts, only the
/// request in progress is still answered.
async fn answer_requests<S, R>(
    plane: &DataPlane,
    watch: &Watch,
    connection: &mut http1::Connection<TokioIo<Watched<S>>, R>,
) -> Served
where
    S: Connection + 'static,
    R: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = ResponseFuture> + Unpin,
{
    let timer = pin!(sleep(plane.live().settings.limits.handshake_timeout()));
    let mut pace = Pace::new(timer);
    let mut aborting = pin!(plane.lifecycle.aborting().cancelled());
    let mut is_aborting = false;
    let served = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(Served::ToItsEnd(result));
            }
            if !is_aborting && aborting.as_mut().poll(cx).is_ready() {
                is_aborting = true;
                Pin::new(&mut *connection).graceful_shutdown();
                continue;
            }
            let limit = |wait: Wait| wait.limit(&plane.live().settings.limits);
            return pace.poll(watch.wait(), limit, cx).map(Served::TooLong);
        }
    });
    served.await
}
