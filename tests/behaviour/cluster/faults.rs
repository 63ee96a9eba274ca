use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tidegate_testing::{Authority, LEASE, Mode, TestCluster, TestProxy, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const UNREACHABLE: (u16, &str, bool) = (503, "ServiceUnavailableException", true);
const UNKNOWN: (u16, &str, bool) = (424, "DeliveryUnknownException", false);
const SILENT: &str = "tidegate_link_ends_total{end=\"silent\"}";
const GONE: (u16, &str, bool) = (410, "GoneException", false);

/// Two nodes; the second dials the first through a proxy, and a third one is linked to both.
async fn start_with_proxy() -> (TestCluster, Arc<TestProxy>) {
    with_proxy(TestCluster::start_apart(3).await).await
}

async fn with_proxy(cluster: TestCluster) -> (TestCluster, Arc<TestProxy>) {
    let proxy = TestProxy::start(cluster.nodes[0].gateway.peer_address().unwrap(), &cluster.tasks).await;
    link_through(cluster, proxy).await
}

async fn link_through(cluster: TestCluster, proxy: Arc<TestProxy>) -> (TestCluster, Arc<TestProxy>) {
    let [owner, caller, third] = &cluster.nodes[..] else { panic!() };
    caller.knows([owner.member_at(proxy.address), third.member()]);
    third.knows([owner.member(), caller.member()]);
    // The owner waits to be dialled.
    let ids = [owner.id(), caller.id(), third.id()];
    eventually("linked", async || {
        cluster.nodes.iter().all(|node| ids.iter().all(|id| *id == node.id() || node.is_linked(*id)))
    })
    .await;
    (cluster, proxy)
}

#[tokio::test]
async fn a_node_behind_a_cut_is_unreachable_never_gone_and_comes_back() {
    let (cluster, proxy) = start_with_proxy().await;
    let [owner, caller, third] = &cluster.nodes[..] else { panic!() };
    let (mut client, http) = (owner.connect().await, caller.http());
    for round in 0..3 {
        proxy.set(Mode::Cut);
        eventually("cut", async || !caller.is_linked(owner.id())).await;
        assert_eq!(http.post(client.id(), "lost").await.error(), UNREACHABLE);
        assert_eq!(http.get(client.id()).await.error(), UNREACHABLE);
        assert_eq!(http.delete(client.id()).await.error(), UNREACHABLE);
        assert_eq!(third.http().post(client.id(), format!("third {round}")).await.status, 200);
        proxy.set(Mode::Pass);
        eventually("linked again", async || caller.is_linked(owner.id())).await;
        assert_eq!(http.post(client.id(), format!("back {round}")).await.status, 200);
        assert_eq!(client.next_text().await, format!("third {round}"));
        assert_eq!(client.next_text().await, format!("back {round}"), "nothing that was answered 503 arrives");
    }
}

#[tokio::test]
async fn a_post_whose_answer_is_lost_with_the_link_is_unknown() {
    let (cluster, proxy) = start_with_proxy().await;
    let [owner, caller, _] = &cluster.nodes[..] else { panic!() };
    let (mut client, http) = (owner.connect().await, caller.http());
    let (getting, id) = (caller.http(), client.id().to_owned());
    proxy.set(Mode::HoldAnswers);
    let cut = async {
        assert_eq!(client.next_text().await, "hi");
        proxy.set(Mode::Cut);
    };
    let (reply, read, ()) = tokio::join!(http.post(&id, "hi"), getting.get(&id), cut);
    assert_eq!(reply.error(), UNKNOWN);
    assert_eq!(read.error(), UNREACHABLE, "to ask again harms nobody");
}

#[tokio::test]
async fn a_peer_that_hangs_is_noticed_and_disturbs_nobody_else() {
    let (cluster, proxy) = start_with_proxy().await;
    let [owner, caller, third] = &cluster.nodes[..] else { panic!() };
    let (mut client, mut other) = (owner.connect().await, third.connect().await);
    let (http, undisturbed) = (caller.http(), caller.http());
    proxy.set(Mode::Hang);
    let started = Instant::now();
    let others = async {
        for number in 0..50 {
            assert_eq!(undisturbed.post(other.id(), number.to_string()).await.status, 200);
            assert_eq!(other.next_text().await, number.to_string());
        }
    };
    let (reply, ()) = tokio::join!(http.post(client.id(), "left"), others);
    assert_eq!(reply.error(), UNKNOWN);
    assert!(started.elapsed() < LEASE * 2, "{:?}", started.elapsed());
    assert_eq!(http.post(client.id(), "not sent").await.error(), UNREACHABLE);
    proxy.set(Mode::Pass);
    eventually("linked again", async || caller.is_linked(owner.id()) && owner.is_linked(caller.id())).await;
    let mut answered = http.post(client.id(), "again").await;
    while answered.status == 503 {
        answered = http.post(client.id(), "again").await;
    }
    assert_eq!(answered.status, 200);
    // What was unknown may have arrived, before what was sent later.
    let first = client.next_text().await;
    assert!(first == "again" || (first == "left" && client.next_text().await == "again"), "{first}");
}

#[tokio::test]
async fn a_link_over_a_slow_network_is_not_cut_by_a_large_post() {
    a_large_post_over_a_slow_network(TestCluster::start_apart(3).await).await;
}

#[tokio::test]
async fn a_link_of_tls_over_a_slow_network_is_not_cut_by_a_large_post() {
    a_large_post_over_a_slow_network(start_tls().await).await;
}

async fn a_large_post_over_a_slow_network(cluster: TestCluster) {
    let proxy = TestProxy::start_narrow(cluster.nodes[0].gateway.peer_address().unwrap(), &cluster.tasks).await;
    let (cluster, proxy) = link_through(cluster, proxy).await;
    let [owner, caller, _] = &cluster.nodes[..] else { panic!() };
    let (mut client, http) = (owner.connect().await, caller.http());
    proxy.set(Mode::Slow);
    // It is on its way for longer than a peer may be silent, and the question whether that is there lies behind it.
    let large = "x".repeat(1_000_000);
    assert_eq!(http.post(client.id(), large.clone()).await.status, 200);
    assert!(client.next_text().await == large);
    assert_eq!(http.post(client.id(), "next").await.status, 200);
    assert_eq!(client.next_text().await, "next");
    assert!(!caller.metrics().await.contains(SILENT));
    // A peer that hangs is noticed all the same, though a kernel takes what is sent to it.
    proxy.set(Mode::Hang);
    eventually("the link is over", async || !caller.is_linked(owner.id())).await;
    assert!(caller.metrics().await.contains(SILENT));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_cut_under_load_lie_to_nobody() {
    let (cluster, proxy) = start_with_proxy().await;
    cut_under_load(&cluster, &proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_tls_cut_under_load_lie_to_nobody() {
    let (cluster, proxy) = with_proxy(start_tls().await).await;
    cut_under_load(&cluster, &proxy).await;
}

async fn start_tls() -> TestCluster {
    let authority = Authority::new("nodes");
    TestCluster::start_tls((0..3).map(|number| authority.issue_to_node(&number.to_string(), "127.0.0.1"))).await
}

async fn cut_under_load(cluster: &TestCluster, proxy: &TestProxy) {
    const POSTERS: usize = 20;
    const POSTS: usize = 150;
    const POSTS_BETWEEN_CUTS: usize = 50;
    let [owner, caller, _] = &cluster.nodes[..] else { panic!() };
    let answered = AtomicUsize::new(0);
    let posting = async || {
        let (mut client, http) = (owner.connect().await, caller.http());
        let (mut certain, mut possible) = (Vec::new(), Vec::new());
        for number in 0..POSTS {
            match http.post(client.id(), number.to_string()).await.error() {
                (200, ..) => certain.push(number),
                UNKNOWN => possible.push(number),
                UNREACHABLE => eventually("linked again", async || caller.is_linked(owner.id())).await,
                other => panic!("{other:?}"),
            }
            answered.fetch_add(1, Ordering::SeqCst);
        }
        // Behind everything else, from where no link is needed.
        assert_eq!(owner.http().post(client.id(), "end").await.status, 200);
        let mut seen = Vec::new();
        loop {
            match client.next_text().await.as_str() {
                "end" => break,
                number => seen.push(number.parse::<usize>().unwrap()),
            }
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        assert!(certain.iter().all(|number| seen.contains(number)), "a 200 that did not arrive");
        assert!(seen.iter().all(|number| certain.contains(number) || possible.contains(number)), "a 503 that arrived");
        certain.len()
    };
    let cutting = async {
        for _ in 0..5 {
            let next = (answered.load(Ordering::SeqCst) + POSTS_BETWEEN_CUTS).min(POSTERS * POSTS);
            eventually("posts are answered", async || answered.load(Ordering::SeqCst) >= next).await;
            proxy.set(Mode::Cut);
            eventually("the cut is noticed", async || !caller.is_linked(owner.id())).await;
            proxy.set(Mode::Pass);
            eventually("linked again", async || caller.is_linked(owner.id())).await;
        }
    };
    let (certain, ()) = tokio::join!(join_all((0..POSTERS).map(|_| posting())), cutting);
    assert!(certain.iter().all(|certain| *certain > 0), "{certain:?}");
}

#[tokio::test]
async fn a_node_that_said_goodbye_is_gone_whatever_the_table_says() {
    let mut cluster = TestCluster::start(3).await;
    let leaving = cluster.nodes.remove(0);
    let mut client = leaving.connect().await;
    let (id, node) = (client.id().to_owned(), leaving.id());
    tokio::join!(leaving.drain(), async { assert_eq!(client.next_close().await.0, 1001) });
    for node_left in &cluster.nodes {
        eventually("heard", async || !node_left.is_linked(node)).await;
        let http = node_left.http();
        assert_eq!(http.post(&id, "x").await.error(), GONE);
        assert_eq!(http.get(&id).await.error(), GONE);
        assert_eq!(http.delete(&id).await.error(), GONE);
    }
    let mut client = cluster.nodes[0].connect().await;
    assert_eq!(cluster.nodes[1].http().post(client.id(), "hi").await.status, 200);
    assert_eq!(client.next_text().await, "hi");
}

#[tokio::test]
async fn strangers_on_the_port_are_turned_away_and_hurt_nobody() {
    let cluster = TestCluster::start(2).await;
    let [owner, caller] = &cluster.nodes[..] else { panic!() };
    let (mut client, http) = (owner.connect().await, caller.http());
    let port = owner.gateway.peer_address().unwrap();
    let mut half_open = TcpStream::connect(port).await.unwrap();
    for bytes in [&[0xff; 64][..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0\0\0\x01H", b"\x16\x03\x01\x02\0\x01\0"] {
        let mut stranger = TcpStream::connect(port).await.unwrap();
        stranger.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // Whether it ends by FIN or RST.
        let _ = timeout(LEASE * 2, stranger.read_to_end(&mut answer)).await.expect("cut off");
        assert!(answer.len() < 16);
    }
    let mut answer = Vec::new();
    let _ = timeout(LEASE * 2, half_open.read_to_end(&mut answer)).await.expect("cut off");
    // A node of another cluster.
    let other = cluster.start_node("another secret, as long").await;
    other.knows([owner.member()]);
    eventually("refused", async || {
        other.gateway.peers().iter().any(|peer| format!("{:?}", peer.link).contains("does not know the secret"))
    })
    .await;
    let metrics = owner.metrics().await;
    assert!(metrics.contains(r#"tidegate_link_refusals_total{reason="malformed"}"#), "{metrics}");
    assert!(metrics.contains(r#"tidegate_link_refusals_total{reason="timeout"}"#), "{metrics}");
    assert!(metrics.contains(r#"tidegate_link_refusals_total{reason="secret"}"#), "{metrics}");
    assert_eq!(http.post(client.id(), "hi").await.status, 200);
    assert_eq!(client.next_text().await, "hi");
}
