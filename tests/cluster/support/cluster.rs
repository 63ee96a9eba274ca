use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use tidegate::app::{ClusterStart, Gateway};
use tidegate::cluster::link::{PROTOCOL, PeerLink};
use tidegate::cluster::{ClusterMember, ClusterSettings, Membership, NodeTable, RefreshRequests};
use tidegate::config::{self, Config};
use tidegate::id::NodeId;
use tidegate::redis_client::NodeKey;
use tidegate::secret::Secret;
use tidegate::tls::PeerTlsSettings;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backend::TestBackend;
use super::http::request;
use super::{Http, LEASE, TestClient, eventually};

pub(crate) const SECRET: &str = "a secret of sixteen characters";

/// The secret of every key that signs calls on the internal listener.
pub(crate) const KEY_SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// Nodes, a backend that accepts everybody, and whatever else runs until the end of the test.
pub(crate) struct TestCluster {
    pub(crate) nodes: Vec<TestNode>,
    pub(crate) backend: TestBackend,
    pub(crate) tasks: TaskTracker,
}

pub(crate) struct TestNode {
    pub(crate) gateway: Gateway,
    pub(crate) membership: Arc<Membership>,
    /// What asks for the table to be read anew. Answered by nobody unless a test does.
    pub(crate) refreshes: Option<RefreshRequests>,
    backend: TestBackend,
    pub(crate) tasks: TaskTracker,
    clients: AtomicUsize,
}

impl TestCluster {
    /// Nodes that all know and reach each other.
    pub(crate) async fn start(count: usize) -> Self {
        let cluster = Self::start_apart(count).await;
        cluster.link().await;
        cluster
    }

    /// As [`TestCluster::start`], with links of TLS, each node's as given.
    pub(crate) async fn start_tls(tls: impl IntoIterator<Item = PeerTlsSettings>) -> Self {
        let mut cluster = Self::start_apart(0).await;
        for tls in tls {
            let node = cluster.start_node_with(SECRET, Some(tls)).await;
            cluster.nodes.push(node);
        }
        cluster
    }

    /// Tells all nodes of each other, and waits until all are linked.
    pub(crate) async fn link(&self) {
        for node in &self.nodes {
            node.knows(self.nodes.iter().map(TestNode::member));
        }
        for node in &self.nodes {
            let all = self.nodes.iter().map(TestNode::id).filter(|id| *id != node.id());
            eventually("all are linked", || all.clone().all(|id| node.is_linked(id))).await;
        }
    }

    /// Nodes that do not know of each other.
    pub(crate) async fn start_apart(count: usize) -> Self {
        let tasks = TaskTracker::new();
        let backend = TestBackend::start(&tasks).await;
        let mut cluster = TestCluster { nodes: Vec::new(), backend, tasks };
        for _ in 0..count {
            let node = cluster.start_node(SECRET).await;
            cluster.nodes.push(node);
        }
        cluster
    }

    pub(crate) async fn start_node(&self, secret: &str) -> TestNode {
        self.start_node_with(secret, None).await
    }

    pub(crate) async fn start_node_with(&self, secret: &str, tls: Option<PeerTlsSettings>) -> TestNode {
        self.start_node_as(secret, tls, LEASE).await
    }

    pub(crate) async fn start_node_as(&self, secret: &str, tls: Option<PeerTlsSettings>, lease: Duration) -> TestNode {
        let (membership, refreshes) = Membership::new();
        let membership = Arc::new(membership);
        let settings = ClusterSettings {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            secret: Some(Secret::from(secret.to_owned())),
            tls,
            lease_millis: u32::try_from(lease.as_millis()).unwrap(),
            ..ClusterSettings::default()
        };
        let start = ClusterStart { settings, membership: Arc::clone(&membership) };
        let gateway = Gateway::start_in_cluster(config(self.backend.address), start).await.unwrap();
        TestNode {
            gateway,
            membership,
            refreshes: Some(refreshes),
            backend: self.backend.clone(),
            tasks: self.tasks.clone(),
            clients: AtomicUsize::new(0),
        }
    }
}

impl TestNode {
    pub(crate) fn id(&self) -> NodeId {
        self.gateway.node()
    }

    /// How the index tells of it.
    pub(crate) fn member(&self) -> ClusterMember {
        self.member_at(self.gateway.peer_address().unwrap())
    }

    pub(crate) fn member_at(&self, address: SocketAddr) -> ClusterMember {
        ClusterMember {
            node: self.id(),
            advertise: address.to_string(),
            version: "0".to_owned(),
            protocol: PROTOCOL,
            record: 1,
            key: NodeKey::Live { epoch: 1 },
            lease_alive: true,
        }
    }

    /// From now on these are the members, and this node has known so for a long time.
    pub(crate) fn knows(&self, members: impl IntoIterator<Item = ClusterMember>) {
        self.membership.replace(self.table(members, Some(LEASE * 10)));
    }

    pub(crate) fn table(
        &self,
        members: impl IntoIterator<Item = ClusterMember>,
        attached: Option<Duration>,
    ) -> NodeTable {
        let others = members.into_iter().filter(|member| member.node != self.id());
        NodeTable {
            members: others.map(|member| (member.node, member)).collect(),
            attached_since: attached.map(|attached| Instant::now() - attached),
            ..NodeTable::default()
        }
    }

    /// Answers all refreshes with this table.
    pub(crate) fn refreshes_to(&mut self, table: NodeTable) {
        let (membership, mut refreshes) = (Arc::clone(&self.membership), self.refreshes.take().unwrap());
        self.tasks.spawn(async move {
            while let Some(done) = refreshes.recv().await {
                membership.replace(table.clone());
                let _ = done.send(());
            }
        });
    }

    /// Why it has no link to another node, if it has tried.
    pub(crate) fn link_error(&self, node: NodeId) -> Option<String> {
        let peer = self.gateway.peers().into_iter().find(|peer| peer.node == node)?;
        let PeerLink::NotLinked { error, .. } = peer.link else { return None };
        error
    }

    pub(crate) fn is_linked(&self, node: NodeId) -> bool {
        self.gateway.peers().iter().any(|peer| peer.node == node && matches!(peer.link, PeerLink::Linked { .. }))
    }

    pub(crate) async fn http(&self) -> Http {
        Http::connect(self.gateway.public_address(), &self.tasks).await
    }

    pub(crate) async fn metrics(&self) -> String {
        let mut http = Http::connect(self.gateway.internal_address(), &self.tasks).await;
        let reply = http.send(request(Method::GET, "/metrics", "")).await;
        String::from_utf8(reply.body.to_vec()).unwrap()
    }

    pub(crate) async fn connect(&self) -> TestClient {
        self.connect_to("prod").await
    }

    pub(crate) async fn connect_to(&self, stage: &str) -> TestClient {
        let name = format!("{}-{}", self.id(), self.clients.fetch_add(1, Ordering::Relaxed));
        let address = self.gateway.public_address();
        let socket = TestClient::connect(&format!("ws://{address}/_aws/execute-api/chat/{stage}?name={name}")).await;
        TestClient::new(self.backend.id_of(&name), socket)
    }

    pub(crate) async fn drain(self) {
        self.gateway.drain(CancellationToken::new()).await;
    }
}

fn config(backend: SocketAddr) -> Config {
    let text = format!(
        "
listeners:
  public: {{ address: '127.0.0.1:0', connectionsApi: NONE }}
  internal: {{ address: '127.0.0.1:0', connectionsApi: AWS_IAM }}
credentials:
  all: {{ accessKeyId: AKIDALL, secretAccessKey: {KEY_SECRET} }}
  test-stage:
    accessKeyId: AKIDTEST
    secretAccessKey: {KEY_SECRET}
    policyDocument:
      Statement: {{ Effect: Allow, Action: '*', Resource: 'arn:aws:execute-api:*:*:chat/test/*' }}
  both-stages:
    accessKeyId: AKIDBOTH
    secretAccessKey: {KEY_SECRET}
    policyDocument:
      Statement: {{ Effect: Allow, Action: '*', Resource: [ 'arn:aws:execute-api:*:*:chat/test/*', 'arn:aws:execute-api:*:*:chat/prod/POST/*' ] }}
drain: {{ graceMillis: 5000 }}
limits: {{ messageBytes: 1048576, sendBufferBytes: 1048576, slowClientTimeoutSeconds: 1 }}
apis:
  chat:
    name: Chat
    routeSelectionExpression: $request.body.action
    integrations: {{ backend: {{ integrationType: HTTP_PROXY, integrationUri: 'http://{backend}/' }} }}
    routes: {{ $connect: {{ target: integrations/backend }} }}
    stages: {{ prod: {{}}, test: {{}} }}
  other:
    name: Other
    routeSelectionExpression: $request.body.action
    integrations: {{ backend: {{ integrationType: HTTP_PROXY, integrationUri: 'http://{backend}/' }} }}
    routes: {{ $connect: {{ target: integrations/backend }} }}
    stages: {{ prod: {{}} }}
"
    );
    config::load(&text, &|_| None).unwrap()
}
