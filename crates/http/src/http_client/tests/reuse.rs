//! Tests of the pool: connections are kept, counted, queued for, and closed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use rand::RngExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::support::{Server, TestClient, answer, call, echo, eventually, read_request};
use crate::http_client::pool::WAITERS_MAX;
use crate::http_client::{CallError, Counts};

#[tokio::test]
async fn calls_one_after_another_use_one_connection() {
    let server = Server::start(echo);
    let test = TestClient::new();
    let backend = test.backend(&server, 8);
    for number in 0..20 {
        assert_eq!(test.text(&backend, &format!("/{number}")).await, format!("/{number}"));
    }
    assert_eq!(server.accepted(), 1);
    assert_eq!(backend.counts(), Counts { open: 1, idle: 1, waiting: 0 });
}

#[tokio::test]
async fn backends_of_one_address_are_one_with_the_larger_maximum() {
    let server = Server::start(echo);
    let test = TestClient::new();
    let first = test.backend(&server, 1);
    assert!(Arc::ptr_eq(&first, &test.backend(&server, 3)));
    let http2 = test.client.backend(&server.uri("http"), true, 1).expect("an address");
    assert!(!Arc::ptr_eq(&first, &http2));
    for uri in ["ftp://example.com/", "/path", "http://user:secret@example.com/"] {
        assert!(test.client.backend(&uri.parse().expect("a URI"), false, 1).is_err(), "{uri}");
    }
}

#[tokio::test]
async fn there_are_never_more_connections_than_the_maximum() {
    let server = Server::start(echo);
    let test = TestClient::new();
    let backend = test.backend(&server, 3);
    let calls = join_all((0..100).map(|number| test.text(&backend, if number % 2 == 0 { "/even" } else { "/odd" })));
    assert_eq!(calls.await.len(), 100);
    assert!(server.open_max() <= 3, "{}", server.open_max());
}

#[tokio::test]
async fn callers_that_wait_are_served_in_their_order() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let release = Arc::new(Semaphore::new(0));
    let server = {
        let (order, release) = (Arc::clone(&order), Arc::clone(&release));
        Server::start(move |mut stream| {
            let (order, release) = (Arc::clone(&order), Arc::clone(&release));
            async move {
                while let Some(path) = read_request(&mut stream).await {
                    order.lock().expect("no panic").push(path);
                    release.acquire().await.expect("open").forget();
                    answer(&mut stream, "").await;
                }
            }
        })
    };
    let test = TestClient::new();
    let backend = test.backend(&server, 1);
    let tasks = TaskTracker::new();
    for number in 0..10_usize {
        let (client, backend_of_call) = (test.client.clone(), Arc::clone(&backend));
        tasks.spawn(async move {
            client.send(&backend_of_call, || call(&format!("/{number}"))).await.expect("an answer");
        });
        eventually("the call's turn to wait", || {
            order.lock().expect("no panic").len() == 1 && backend.counts().waiting == number
        })
        .await;
    }
    release.add_permits(10);
    tasks.close();
    tasks.wait().await;
    let expected: Vec<_> = (0..10).map(|number| format!("/{number}")).collect();
    assert_eq!(*order.lock().expect("no panic"), expected);
}

#[tokio::test]
async fn cancelled_calls_leak_nothing() {
    // Each request takes a little time, so that cancellations hit calls that wait, connect, send and read.
    let server = Server::start(|mut stream| async move {
        while let Some(path) = read_request(&mut stream).await {
            tokio::time::sleep(Duration::from_millis(2)).await;
            answer(&mut stream, &path).await;
        }
    });
    let test = TestClient::new();
    let backend = test.backend(&server, 4);
    for _ in 0..5 {
        let calls = (0..100).map(|_| {
            let limit = Duration::from_micros(rand::rng().random_range(0..40_000));
            let (test, backend) = (&test, &backend);
            async move {
                let _ = timeout(limit, test.get(backend, "/cancelled")).await;
                assert!(backend.counts().open <= 4);
            }
        });
        join_all(calls).await;
        eventually("the queue is empty", || backend.counts().waiting == 0).await;
    }
    let answers = join_all((0..100).map(|_| test.text(&backend, "/whole"))).await;
    assert!(answers.iter().all(|body| body == "/whole"));
    eventually("all connections are idle", || backend.counts().open == backend.counts().idle).await;
    assert!(backend.counts().open <= 4);
}

#[tokio::test]
async fn a_new_connection_whose_caller_gave_up_becomes_idle() {
    let server = Server::start(echo);
    let test = TestClient::new();
    let backend = test.backend(&server, 4);
    {
        let mut given_up = std::pin::pin!(test.get(&backend, "/"));
        assert!(futures_util::poll!(&mut given_up).is_pending());
    }
    eventually("the connection is idle", || backend.counts() == Counts { open: 1, idle: 1, waiting: 0 }).await;
    assert_eq!(test.text(&backend, "/again").await, "/again");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_is_not_used_again() {
    let close = Arc::new(Notify::new());
    let server = {
        let close = Arc::clone(&close);
        Server::start(move |mut stream| {
            let close = Arc::clone(&close);
            async move {
                read_request(&mut stream).await;
                answer(&mut stream, "once").await;
                close.notified().await;
            }
        })
    };
    let test = TestClient::new();
    let backend = test.backend(&server, 4);
    for round in 1..=3 {
        assert_eq!(test.text(&backend, "/").await, "once");
        assert_eq!(server.accepted(), round);
        close.notify_one();
        eventually("the connection is gone", || backend.counts().open == 0).await;
    }
}

#[tokio::test]
async fn idle_connections_end_when_traffic_stops() {
    let server = Server::start(|mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=2\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let test = TestClient::new();
    let backend = test.backend(&server, 4);
    join_all((0..4).map(|_| test.get(&backend, "/"))).await;
    assert!(backend.counts().idle > 0);
    eventually("all connections are gone", || backend.counts().open == 0).await;
    test.tasks.close();
    timeout(Duration::from_secs(2), test.tasks.wait()).await.expect("the keeper ends too");
}

#[tokio::test]
async fn close_idle_ends_every_task_while_calls_still_work() {
    let server = Server::start(echo);
    let test = TestClient::new();
    let backend = test.backend(&server, 4);
    test.text(&backend, "/").await;
    test.tasks.close();
    test.client.close_idle();
    timeout(Duration::from_secs(2), test.tasks.wait()).await.expect("no task is left");
    assert_eq!(test.text(&backend, "/late").await, "/late");
    timeout(Duration::from_secs(2), test.tasks.wait()).await.expect("no task is left");
    assert_eq!(backend.counts(), Counts { open: 0, idle: 0, waiting: 0 });
}

#[tokio::test]
async fn a_queue_that_is_full_refuses_the_next_call() {
    let server = Server::start(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    });
    let test = TestClient::new();
    let backend = test.backend(&server, 1);
    let mut calls: Vec<_> = (0..=WAITERS_MAX).map(|_| Box::pin(test.get(&backend, "/"))).collect();
    assert!(futures_util::poll!(&mut calls[0]).is_pending());
    eventually("the first call has the connection", || backend.counts().waiting == 0).await;
    for call in &mut calls[1..] {
        assert!(futures_util::poll!(call).is_pending());
    }
    assert_eq!(backend.counts().waiting, WAITERS_MAX);
    assert!(backend.is_saturated() && test.client.is_saturated());
    let refused = test.get(&backend, "/").await.expect_err("the queue is full");
    assert!(matches!(refused, CallError::Overloaded), "{refused:?}");
    drop(calls);
    assert_eq!(backend.counts().waiting, 0);
    assert!(!backend.is_saturated() && !test.client.is_saturated());
}

#[tokio::test]
async fn a_request_that_was_not_written_is_sent_again() {
    let spoken = Arc::new(AtomicUsize::new(0));
    let server = {
        let spoken = Arc::clone(&spoken);
        Server::start(move |mut stream| {
            let first = spoken.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if first {
                    // Answers before there is a request, and closes.
                    let _ = stream.write_all(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n").await;
                } else {
                    echo(stream).await;
                }
            }
        })
    };
    let test = TestClient::new();
    let backend = test.backend(&server, 1);
    let mut answer = std::pin::pin!(test.text(&backend, "/again"));
    assert!(futures_util::poll!(&mut answer).is_pending());
    // The call has its connection, but its task has not run yet; meanwhile the connection ends.
    eventually("the connection is gone", || server.accepted() == 1 && backend.counts().open == 0).await;
    assert_eq!(backend.counts().waiting, 0);
    assert_eq!(answer.await, "/again");
    assert_eq!(server.accepted(), 2);
}

#[test]
fn a_request_of_which_nothing_was_written_is_sent_again() {
    use std::io::{Read as _, Write as _};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let uri = format!("http://{}/", listener.local_addr().expect("an address")).parse().expect("a URI");
    let (close, is_to_close) = std::sync::mpsc::channel();
    let (closed, is_closed) = std::sync::mpsc::channel();
    let answer = |body: &str| {
        let (mut stream, _peer) = listener.accept().expect("accepts");
        let mut request = Vec::new();
        while !request.ends_with(b"hello") {
            let mut bytes = [0; 1024];
            let length = stream.read(&mut bytes).expect("a request");
            request.extend_from_slice(&bytes[..length]);
        }
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).expect("written");
        stream
    };
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let stream = answer("first");
            is_to_close.recv().expect("the test goes on");
            // A reset: the next write fails before a byte is sent.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket");
            drop(stream);
            closed.send(()).expect("the test waits");
            answer("second");
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let test = TestClient::new();
            let backend = test.client.backend(&uri, false, 1).expect("an address");
            assert_eq!(test.text(&backend, "/").await, "first");
            eventually("the connection is idle", || backend.counts().idle == 1).await;
            close.send(()).expect("the server waits");
            // The thread is blocked, so that the runtime learns of the reset by its own write.
            is_closed.recv().expect("the server goes on");
            assert_eq!(test.text(&backend, "/").await, "second");
        });
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_of_many_threads_are_all_answered() {
    let server = Server::start(echo);
    let test = TestClient::new();
    let backend = test.backend(&server, 7);
    let tasks = TaskTracker::new();
    for caller in 0..64 {
        let (client, backend) = (test.client.clone(), Arc::clone(&backend));
        tasks.spawn(async move {
            for number in 0..50 {
                if (caller + number) % 7 == 0 {
                    let limit = Duration::from_micros(rand::rng().random_range(0..2000));
                    let _ = timeout(limit, client.send(&backend, || call("/cancelled"))).await;
                }
                let path = format!("/{caller}/{number}");
                let answer = client.send(&backend, || call(&path)).await.expect("an answer");
                assert_eq!(answer.body, path.as_bytes());
                assert!(backend.counts().open <= 7);
            }
        });
    }
    tasks.close();
    timeout(Duration::from_secs(30), tasks.wait()).await.expect("no call hangs");
    eventually("all connections are idle", || backend.counts().open == backend.counts().idle).await;
    assert_eq!(backend.counts().waiting, 0);
}

#[test]
fn a_runtime_ends_with_calls_in_every_state() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (test, backend) = runtime.block_on(async {
        let server = Server::start(|stream| async move {
            let _open = stream;
            std::future::pending::<()>().await;
        });
        let test = TestClient::new();
        let backend = test.backend(&server, 20);
        for _ in 0..1000 {
            let (client, backend) = (test.client.clone(), Arc::clone(&backend));
            TaskTracker::new().spawn(async move { client.send(&backend, || call("/")).await });
        }
        eventually("calls wait", || backend.counts().waiting > 900).await;
        (test, backend)
    });
    drop(runtime);
    assert_eq!((backend.counts().open, backend.counts().waiting), (0, 0));
    drop(test);
}

#[test]
fn the_future_of_a_call_is_small() {
    let test = TestClient::new();
    let backend = test.client.backend(&"http://127.0.0.1:1/".parse().expect("a URI"), false, 1).expect("an address");
    let size = size_of_val(&test.client.send(&backend, || call("/")));
    assert!(size <= 2048, "{size}");
}
