//! `cluster.tls`: links between nodes that are encrypted, and whose both ends show a certificate.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tidegate::config;
use tidegate_http::tls::PeerTlsSettings;
use tidegate_testing::{Authority, SECRET, TestCluster, TestNode, eventually};

/// A push each way, one of them larger than what TLS sends in one record or keeps in memory.
async fn push_both_ways(nodes: &[TestNode]) {
    for (owner, caller) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let (mut client, http) = (owner.connect().await, caller.http());
        for text in ["hi", &"x".repeat(600_000), "bye"] {
            assert_eq!(http.post(client.id(), text.to_owned()).await.status, 200);
            assert!(client.next_text().await == text);
        }
        assert_eq!(http.get(client.id()).await.status, 200);
    }
}

async fn says(node: &TestNode, other: &TestNode, what: &str) {
    let said = || node.link_error(other.id()).is_some_and(|error| error.contains(what));
    eventually(what, async || said() || node.is_linked(other.id())).await;
    assert!(said(), "{:?}", node.link_error(other.id()));
}

#[tokio::test]
async fn nodes_with_certificates_of_one_authority_push_both_ways() {
    let authority = Authority::new("nodes");
    let cluster = TestCluster::start_tls(["a", "b"].map(|node| authority.issue_to_node(node, "127.0.0.1"))).await;
    cluster.link().await;
    push_both_ways(&cluster.nodes).await;
}

#[tokio::test]
async fn nodes_may_share_a_certificate_of_another_name() {
    let authority = Authority::new("nodes");
    let shared = authority.issue_to_node("shared", "nodes.test");
    let shared = PeerTlsSettings { server_name_to_verify: Some("nodes.test".to_owned()), ..shared };
    let cluster = TestCluster::start_tls([shared.clone(), shared]).await;
    cluster.link().await;
    push_both_ways(&cluster.nodes).await;
}

#[tokio::test]
async fn a_node_with_a_certificate_of_another_authority_gets_no_link_and_hears_why() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let ours = ["a", "b"].map(|node| authority.issue_to_node(node, "127.0.0.1"));
    let strange = other.issue_to_node("c", "127.0.0.1");
    let cluster = TestCluster::start_tls(ours.into_iter().chain([strange.clone()])).await;
    let [node, friend, stranger] = &cluster.nodes[..] else { panic!() };
    for known in &cluster.nodes {
        known.knows(cluster.nodes.iter().map(TestNode::member));
    }
    says(stranger, node, "UnknownIssuer").await;
    says(node, stranger, "UnknownIssuer").await;
    eventually("friends are linked", async || node.is_linked(friend.id()) && friend.is_linked(node.id())).await;
    // One that trusts us but whom we do not.
    let half = PeerTlsSettings { ca: authority.issue_to_node("d", "127.0.0.1").ca, ..strange };
    let half = cluster.start_node_with(SECRET, Some(half)).await;
    half.knows([node.member()]);
    says(&half, node, "UnknownCA").await;
    let metrics = node.metrics().await;
    assert!(metrics.contains(r#"tidegate_link_refusals_total{reason="tls"}"#), "{metrics}");
    assert!(!node.is_linked(stranger.id()) && !node.is_linked(half.id()));
    push_both_ways(&cluster.nodes[..2]).await;
}

#[tokio::test]
async fn a_node_with_the_certificate_of_another_host_is_not_linked_to() {
    let authority = Authority::new("nodes");
    let tls = [("a", "127.0.0.1"), ("b", "elsewhere.test")].map(|(node, host)| authority.issue_to_node(node, host));
    let cluster = TestCluster::start_tls(tls).await;
    let [node, elsewhere] = &cluster.nodes[..] else { panic!() };
    node.knows([elsewhere.member()]);
    says(node, elsewhere, "not valid for name").await;
}

#[tokio::test]
async fn a_node_without_tls_gets_no_link_and_both_say_why() {
    let authority = Authority::new("nodes");
    let cluster = TestCluster::start_tls(["a", "b"].map(|node| authority.issue_to_node(node, "127.0.0.1"))).await;
    cluster.link().await;
    let plain = cluster.start_node(SECRET).await;
    let node = &cluster.nodes[0];
    node.knows(cluster.nodes.iter().chain([&plain]).map(TestNode::member));
    says(node, &plain, "every node needs `cluster.tls`").await;
    plain.knows([node.member()]);
    says(&plain, node, "the other side speaks TLS").await;
    for (refusing, refused) in [(node, &plain), (&plain, node)] {
        assert!(!refusing.is_linked(refused.id()));
        let metrics = refusing.metrics().await;
        assert!(metrics.contains(r#"tidegate_link_refusals_total{reason="tls"}"#), "{metrics}");
    }
    push_both_ways(&cluster.nodes).await;
}

#[tokio::test]
async fn certificates_change_under_open_links() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let tls = ["a", "b"].map(|node| old.issue_to_node(node, "127.0.0.1"));
    let cluster = TestCluster::start_tls(tls.clone()).await;
    cluster.link().await;
    let members: Vec<_> = cluster.nodes.iter().map(TestNode::member).collect();
    let newcomer = cluster.start_node_with(SECRET, Some(new.issue_to_node("c", "127.0.0.1"))).await;
    let another = cluster.start_node_with(SECRET, Some(new.issue_to_node("d", "127.0.0.1"))).await;
    new.renew(&tls[0], "127.0.0.1", &[]);
    let (node, friend) = (&cluster.nodes[0], &cluster.nodes[1]);
    // It dials one with what the files say now, and is dialled by another.
    node.knows(members.into_iter().chain([newcomer.member()]));
    another.knows([node.member()]);
    eventually("it has linked with its new certificate", async || {
        node.is_linked(newcomer.id()) && another.is_linked(node.id())
    })
    .await;
    assert!(node.is_linked(friend.id()), "the open link stays");
    push_both_ways(&cluster.nodes).await;
}

#[tokio::test]
async fn nodes_with_self_signed_certificates_trust_those_that_stand_in_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut bundle = String::new();
    let settings = ["a", "b", "c"].map(|node| {
        // As `openssl req -x509` makes them: an authority, though of nobody else.
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, node);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let (file, key_file) = (path(&format!("{node}.pem")), path(&format!("{node}.key")));
        std::fs::write(&file, &certificate).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        if node != "c" {
            bundle.push_str(&certificate);
        }
        PeerTlsSettings { certificate: file, private_key: key_file, ca: path("ca.pem"), server_name_to_verify: None }
    });
    std::fs::write(path("ca.pem"), bundle).unwrap();
    let cluster = TestCluster::start_tls(settings).await;
    let [node, friend, stranger] = &cluster.nodes[..] else { panic!() };
    for known in &cluster.nodes {
        known.knows(cluster.nodes.iter().map(TestNode::member));
    }
    eventually("friends are linked", async || node.is_linked(friend.id()) && friend.is_linked(node.id())).await;
    says(node, stranger, "invalid peer certificate").await;
    assert!(!node.is_linked(stranger.id()) && !stranger.is_linked(node.id()));
    push_both_ways(&cluster.nodes[..2]).await;
}

/// An API, as every configuration has one.
const API: &str = "apis:\n  chat:\n    routeSelectionExpression: $request.body.action\n    integrations: { backend: { \
                   integrationType: AWS_PROXY, integrationUri: 'http://127.0.0.1:9/' } }\n    routes: { $default: { \
                   target: integrations/backend } }\n    stages: { prod: {} }\n";

#[test]
fn mistakes_in_the_files_of_a_node_have_their_place() {
    let authority = Authority::new("nodes");
    let tls = authority.issue_to_node("a", "127.0.0.1");
    let check = |tls: &PeerTlsSettings, more: &str, expected: &str| {
        let PeerTlsSettings { certificate, private_key, ca, .. } = tls;
        let (certificate, private_key, ca) = (certificate.display(), private_key.display(), ca.display());
        let text = format!(
            "registry: {{ type: redis, url: 'redis://127.0.0.1' }}\ncluster:\n  secret: {SECRET}\n  tls: {{ certificate: \
             {certificate}, privateKey: {private_key}, ca: {ca} }}\n{more}{API}"
        );
        let problems = config::load(&text, &|_| None).err().unwrap_or_default();
        let told: String = problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
        assert!(told.contains(expected) && told.is_empty() == expected.is_empty(), "{told}");
    };
    check(&tls, "", "");
    check(&tls, "  advertise: '127.0.0.1:7000'\n", "");
    check(&tls, "  advertise: 'node-0.peers:7000'\n", "cluster.tls: the certificate is not for `node-0.peers:7000`");
    let missing = PeerTlsSettings { ca: "/not/there.pem".into(), ..tls.clone() };
    check(&missing, "", "cluster.tls: could not read `/not/there.pem`");
    authority.renew(&tls, "127.0.0.1", &[ExtendedKeyUsagePurpose::ServerAuth]);
    check(&tls, "", "does not name clientAuth");
    authority.renew(&tls, "127.0.0.1", &[ExtendedKeyUsagePurpose::ClientAuth]);
    check(&tls, "", "does not name serverAuth");
    authority.renew(&tls, "127.0.0.1", &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]);
    check(&tls, "", "");
}
