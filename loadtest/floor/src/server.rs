//! The listener: upgrades and posts.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::Floor;
use crate::bare::Sinks;
use crate::connection::Post;

/// Connections that the kernel holds until they are accepted, as in tidegate.
const BACKLOG: i32 = 4096;

/// Reads a certificate chain and its key.
pub(crate) fn tls(certificate: &Path, private_key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(private_key)?)?;
    Ok(Arc::new(config).into())
}

/// Listens until the process ends.
pub(crate) async fn serve(floor: Arc<Floor>, address: SocketAddr, tls: Option<TlsAcceptor>) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (owner, floor, tls) = (floor.tasks.clone(), Arc::clone(&floor), tls.clone());
        owner.spawn(async move {
            match tls {
                None => serve_http(floor, stream).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve_http(floor, stream).await;
                    }
                }
            }
        });
    }
}

async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(floor: Arc<Floor>, stream: S) {
    let service = service_fn(move |request| {
        let floor = Arc::clone(&floor);
        async move {
            let response = match *request.method() {
                Method::GET => upgrade(floor, request).await,
                // Nobody has to join: all are in every group.
                Method::PUT => request
                    .into_body()
                    .collect()
                    .await
                    .map_or(Err(StatusCode::BAD_REQUEST), |_| Ok(empty(StatusCode::OK))),
                Method::POST => match &floor.bare {
                    Some(sinks) => post_to_all(sinks, request).await,
                    None => post(&floor, request).await,
                },
                _ => Err(StatusCode::METHOD_NOT_ALLOWED),
            };
            Ok::<_, Infallible>(response.unwrap_or_else(empty))
        }
    });
    // An HTTP connection that fails concerns its client alone.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn upgrade(floor: Arc<Floor>, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, StatusCode> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).ok_or(StatusCode::FORBIDDEN)?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| StatusCode::BAD_REQUEST)?;
    let id = floor.connect().await?;
    let on_upgrade = hyper::upgrade::on(&mut request);
    let tasks = floor.tasks.clone();
    tasks.spawn(floor.serve_connection(id, on_upgrade));
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// `POST /{stage}/@connections/{id}`: 200 once the frame is written.
async fn post(floor: &Floor, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, StatusCode> {
    let id = request.uri().path().rsplit('/').next().and_then(|id| id.parse().ok()).ok_or(StatusCode::BAD_REQUEST)?;
    let body = request.into_body().collect().await.map_err(|_| StatusCode::BAD_REQUEST)?.to_bytes();
    let text = Utf8Bytes::try_from(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let mailbox = floor.mailboxes.get(&id).map(|mailbox| mailbox.clone()).ok_or(StatusCode::GONE)?;
    let (written, is_written) = oneshot::channel();
    mailbox.send(Post { text, written }).await.map_err(|_| StatusCode::GONE)?;
    is_written.await.map_err(|_| StatusCode::GONE)?;
    Ok(empty(StatusCode::OK))
}

/// `POST /{stage}/@groups/{any}`: 200 once the frame is written to all.
async fn post_to_all(sinks: &Sinks, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, StatusCode> {
    let body = request.into_body().collect().await.map_err(|_| StatusCode::BAD_REQUEST)?.to_bytes();
    sinks.write_all(&Utf8Bytes::try_from(body).map_err(|_| StatusCode::BAD_REQUEST)?).await;
    Ok(empty(StatusCode::OK))
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
