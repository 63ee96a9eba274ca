//! Bursts against backends that accept few connections, or never answer.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::support::{Server, TestClient, answer, echo, read_request};

/// Serves one HTTP/1.0 request with an answer that takes `work`, and closes the connection.
async fn serve_once(mut stream: TcpStream, work: Duration) {
    if read_request(&mut stream).await.is_some() {
        tokio::time::sleep(work).await;
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    }
}

#[tokio::test]
async fn a_burst_loses_nothing_at_a_single_threaded_server_with_a_backlog_of_five() {
    for work in [Duration::ZERO, Duration::from_millis(5)] {
        let server = Server::start_single_threaded(move |stream| serve_once(stream, work));
        let test = TestClient::new();
        let backend = test.backend(&server, 256);
        let start = Instant::now();
        let bodies = join_all((0..200).map(|_| test.text(&backend, "/"))).await;
        assert!(bodies.iter().all(|body| body == "ok"));
        // One dropped SYN costs a second: there should be none.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_burst_loses_nothing_at_a_slow_single_threaded_server() {
    // Slower than the time after which a backend counts as slow: the window widens and overruns the backlog.
    let server = Server::start_single_threaded(|stream| serve_once(stream, Duration::from_millis(120)));
    let test = TestClient::new();
    let backend = test.backend(&server, 256);
    let start = Instant::now();
    let bodies = join_all((0..40).map(|_| test.text(&backend, "/"))).await;
    assert!(bodies.iter().all(|body| body == "ok"));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_burst_loses_nothing_at_a_server_that_is_slow_to_accept() {
    let server = Server::start_slow_to_accept(Duration::from_millis(20), echo);
    let test = TestClient::new();
    let backend = test.backend(&server, 256);
    let bodies = join_all((0..200).map(|_| test.text(&backend, "/accepted"))).await;
    assert!(bodies.iter().all(|body| body == "/accepted"));
}

#[tokio::test]
async fn requests_that_hang_do_not_keep_others_from_new_connections() {
    let server = Server::start(|mut stream| async move {
        while let Some(path) = read_request(&mut stream).await {
            if path == "/hang" {
                std::future::pending::<()>().await;
            }
            answer(&mut stream, &path).await;
        }
    });
    let test = TestClient::new();
    let backend = test.backend(&server, 256);
    let hanging = join_all((0..30).map(|_| test.get(&backend, "/hang")));
    let others = async {
        // Behind the others in the queue.
        tokio::task::yield_now().await;
        let start = Instant::now();
        join_all((0..50).map(|_| test.text(&backend, "/quick"))).await;
        start.elapsed()
    };
    tokio::select! {
        _ = hanging => panic!("no call that hangs is answered"),
        elapsed = others => assert!(elapsed < Duration::from_secs(3), "{elapsed:?}"),
    }
}

#[tokio::test]
async fn a_burst_at_a_good_server_opens_connections_quickly() {
    let server = Server::start(|mut stream| async move {
        while let Some(path) = read_request(&mut stream).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer(&mut stream, &path).await;
        }
    });
    let test = TestClient::new();
    let backend = test.backend(&server, 128);
    let calls = join_all((0..1000).map(|_| test.text(&backend, "/")));
    timeout(Duration::from_secs(5), calls).await.expect("1000 calls of 50 ms on 128 connections");
    assert!(server.accepted() > 64, "{}", server.accepted());
}
