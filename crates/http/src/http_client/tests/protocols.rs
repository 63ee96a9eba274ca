//! Tests of HTTP/2 and TLS.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::support::{Server, TestClient, eventually};
use crate::http_client::{CallError, HttpClient};

/// Answers each request with its version, host and path.
async fn describe(request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let host = request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    let text = format!("{:?} {authority}{host} {}", request.version(), request.uri().path());
    Ok(Response::new(Full::new(text.into())))
}

async fn serve_http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, goes_away: Arc<Notify>) {
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(4)
        .serve_connection(TokioIo::new(stream), service_fn(describe));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = goes_away.notified() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn serve_http1(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let _ =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(describe)).await;
}

/// Starts a server with a self-signed certificate for 127.0.0.1 that offers `alpn`.
fn start_tls(alpn: &'static [u8]) -> (Server, CertificateDer<'static>) {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let certificate = certified.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a key");
    config.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                serve_http2(stream, Arc::default()).await;
            } else {
                serve_http1(stream).await;
            }
        }
    });
    (server, certificate)
}

fn trusting(root: CertificateDer<'static>) -> TestClient {
    let tasks = TaskTracker::new();
    TestClient { client: HttpClient::with_roots(tasks.clone(), [root]).expect("a root"), tasks }
}

#[tokio::test]
async fn http2_with_prior_knowledge_shares_one_connection_and_survives_its_end() {
    let goes_away = Arc::new(Notify::new());
    let server = {
        let goes_away = Arc::clone(&goes_away);
        Server::start(move |stream| serve_http2(stream, Arc::clone(&goes_away)))
    };
    let test = TestClient::new();
    let backend = test.client.backend(&server.uri("http"), true, 1).expect("an address");
    let expected = format!("HTTP/2.0 {} /path", server.address);
    for round in 1..=3 {
        let bodies = join_all((0..100).map(|_| test.text(&backend, "/path"))).await;
        assert!(bodies.iter().all(|body| *body == expected), "{bodies:?}");
        assert_eq!(server.accepted(), round);
        assert_eq!((backend.counts().open, backend.counts().idle), (1, 1));
        goes_away.notify_one();
        // No wait: the request may be handed to the connection that goes away.
        if round == 2 {
            eventually("the connection is gone", || backend.counts().open == 0).await;
        } else {
            assert_eq!(test.text(&backend, "/path").await, expected);
            eventually("the old connection is gone", || backend.counts().open <= 1).await;
            if server.accepted() == round {
                // The call was quicker than the shutdown.
                eventually("the connection is gone", || backend.counts().open == 0).await;
            } else {
                return;
            }
        }
    }
}

#[tokio::test]
async fn http2_ends_when_idle_connections_are_closed() {
    let server = Server::start(|stream| serve_http2(stream, Arc::default()));
    let test = TestClient::new();
    let backend = test.client.backend(&server.uri("http"), true, 1).expect("an address");
    test.text(&backend, "/").await;
    test.client.close_idle();
    test.tasks.close();
    tokio::time::timeout(Duration::from_secs(2), test.tasks.wait()).await.expect("no task is left");
    assert_eq!(backend.counts().open, 0);
}

#[tokio::test]
async fn alpn_chooses_the_protocol() {
    for (offered, http2, version, connections) in
        [(&b"h2"[..], true, "HTTP/2.0", 1), (b"http/1.1", true, "HTTP/1.1", 4), (b"http/1.1", false, "HTTP/1.1", 4)]
    {
        let (server, certificate) = start_tls(offered);
        let test = trusting(certificate);
        let backend = test.client.backend(&server.uri("https"), http2, 4).expect("an address");
        let expected = format!("{version} {} /tls", server.address);
        let bodies = join_all((0..50).map(|_| test.text(&backend, "/tls"))).await;
        assert!(bodies.iter().all(|body| *body == expected), "{bodies:?}");
        assert!(server.accepted() <= connections, "{}", server.accepted());
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_makes_a_backend_unreachable() {
    let (server, certificate) = start_tls(b"http/1.1");
    let (_other, othercertificate) = start_tls(b"http/1.1");
    let trusted_name = {
        let uri = server.uri("https").to_string().replace("127.0.0.1", "localhost");
        uri.parse::<http::Uri>().expect("a URI")
    };
    for (test, uri) in [
        (TestClient::new(), server.uri("https")),
        (trusting(othercertificate), server.uri("https")),
        (trusting(certificate), trusted_name),
    ] {
        let backend = test.client.backend(&uri, false, 4).expect("an address");
        let error = test.get(&backend, "/").await.expect_err("not trusted");
        assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
        assert!(!error.may_have_been_received());
        eventually("the connection is gone", || backend.counts().open == 0).await;
    }
}
