use bytes::Bytes;
use futures_util::future::join_all;
use tidegate_testing::{TestCluster, TestNode};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn calls_from_any_node_reach_a_connection_on_any_other() {
    let cluster = TestCluster::start(3).await;
    for owner in &cluster.nodes {
        for caller in &cluster.nodes {
            let mut client = owner.connect().await;
            let (http, local) = (caller.http(), owner.http());
            let posted = http.post(client.id(), "hi").await;
            assert_eq!((posted.status, &posted.body[..]), (200, &b""[..]));
            assert_eq!(client.next_text().await, "hi");

            let (got, expected) = (http.get(client.id()).await, local.get(client.id()).await);
            assert_eq!((got.status, &got.body), (200, &expected.body));
            assert!(got.body.starts_with(b"{"), "{got:?}");

            assert_eq!(http.delete(client.id()).await.status, 204);
            assert_eq!(client.next_close().await, (1000, "Connection Closed Normally".to_owned()));
            for method in ["POST", "GET", "DELETE"] {
                let gone = http.call(method, client.id(), "x").await;
                assert_eq!(gone.error(), (410, "GoneException", false));
            }
        }
    }
}

#[tokio::test]
async fn options_reach_the_owner() {
    let cluster = TestCluster::start(2).await;
    let [owner, caller] = &cluster.nodes[..] else { panic!() };
    let (mut client, http) = (owner.connect().await, caller.http());
    let path = format!("/_aws/execute-api/chat/prod/@connections/{}", client.id());
    let binary = [("x-tidegate-data-type", "binary")];
    assert_eq!(http.send("POST", &path, &binary, vec![0xff, 0]).await.status, 200);
    assert_eq!(client.next_message().await, Message::Binary(Bytes::from_static(&[0xff, 0])));

    assert_eq!(http.post(client.id(), vec![b'a', 0xff]).await.status, 200);
    assert_eq!(client.next_text().await, "a\u{fffd}");
    // Another stage of its API reaches it, another API does not.
    let other_stage = path.replace("/prod/", "/test/");
    assert_eq!(http.send("POST", &other_stage, &[], "b").await.status, 200);
    assert_eq!(client.next_text().await, "b");
    for method in ["POST", "GET", "DELETE"] {
        let other_api = path.replace("/chat/", "/other/");
        assert_eq!(http.send(method, &other_api, &[], "x").await.status, 410);
    }
    let close = format!("{path}?code=4001&reason=kicked%20out");
    assert_eq!(http.send("DELETE", &close, &[], "").await.status, 204);
    assert_eq!(client.next_close().await, (4001, "kicked out".to_owned()));
}

#[tokio::test]
async fn mistakes_are_answered_as_on_one_node() {
    let cluster = TestCluster::start(2).await;
    let [owner, caller] = &cluster.nodes[..] else { panic!() };
    let (client, http) = (owner.connect().await, caller.http());
    assert_eq!(http.post("no-id", "x").await.error(), (400, "BadRequestException", false));
    assert_eq!(http.post(client.id(), vec![b'x'; 1_048_577]).await.status, 413);
    // The rest of such a body is not read, so the HTTP connection is over.
    let http = caller.http();
    let bad_code = format!("{}?code=1", client.id());
    assert_eq!(http.delete(&bad_code).await.error(), (400, "BadRequestException", false));
    let mut never_was = client.id().to_owned();
    never_was.replace_range(10..14, "AAAA");
    assert_eq!(http.post(&never_was, "x").await.error(), (410, "GoneException", false));
    assert_eq!(http.get(client.id()).await.status, 200, "none of it hurt");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_full_and_then_gone() {
    let cluster = TestCluster::start(2).await;
    let [owner, caller] = &cluster.nodes[..] else { panic!() };
    let (slow, mut other) = (owner.connect().await, owner.connect().await);
    // Until all buffers of the kernel are full, one post waits, and the others find the send buffer full.
    let posts = (0..3).map(async |_| {
        let (http, mut errors) = (caller.http(), Vec::<(u16, String)>::new());
        while errors.last().is_none_or(|(status, _)| *status != 410) {
            let reply = http.post(slow.id(), vec![b'x'; 1_000_000]).await;
            errors.push((reply.status, reply.error().1.to_owned()));
        }
        errors
    });
    let meanwhile = async {
        for number in 0..20 {
            assert_eq!(caller.http().post(other.id(), number.to_string()).await.status, 200);
            assert_eq!(other.next_text().await, number.to_string());
        }
    };
    let (replies, ()) = tokio::join!(join_all(posts), meanwhile);
    let errors: Vec<_> = replies.into_iter().flatten().collect();
    assert!(errors.contains(&(429, "LimitExceededException".to_owned())), "{errors:?}");
    assert!(errors.iter().all(|(status, _)| [200, 410, 429].contains(status)), "{errors:?}");
}

/// `count` posts to each of `connections` clients, each client's over one HTTP connection.
async fn posts_in_order(owner: &TestNode, caller: &TestNode, connections: usize, count: usize) {
    let one = async || {
        let (mut client, http) = (owner.connect().await, caller.http());
        for number in 0..count {
            assert_eq!(http.post(client.id(), number.to_string()).await.status, 200);
        }
        for number in 0..count {
            assert_eq!(client.next_text().await, number.to_string());
        }
    };
    join_all((0..connections).map(|_| one())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_posts_over_one_link_arrive_in_order() {
    let cluster = TestCluster::start(2).await;
    posts_in_order(&cluster.nodes[0], &cluster.nodes[1], 100, 100).await;
    let metrics = cluster.nodes[1].metrics().await;
    let expected = r#"tidegate_pushes_total{api_id="chat",stage="prod",outcome="ok",path="peer"} 10000"#;
    assert!(metrics.contains(expected), "{metrics}");
    assert!(metrics.contains("tidegate_links_open 1"), "{metrics}");
    assert!(
        !cluster.nodes[0].metrics().await.contains("tidegate_pushes_total{"),
        "the owner does not count them again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_is_kept_per_connection_under_500_posts_at_once_from_all_nodes() {
    let cluster = TestCluster::start(3).await;
    let [a, b, c] = &cluster.nodes[..] else { panic!() };
    tokio::join!(
        posts_in_order(a, b, 100, 10),
        posts_in_order(b, a, 100, 10),
        posts_in_order(a, c, 100, 10),
        posts_in_order(c, b, 100, 10),
        posts_in_order(b, b, 100, 10),
    );
}
