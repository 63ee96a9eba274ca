use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tidegate::app::Gateway;
use tidegate_connections::cluster::link::{PROTOCOL, PeerLink};
use tidegate_connections::cluster::{ClusterMember, ClusterSettings, Membership, NodeTable, RefreshRequests};
use tidegate_connections::redis_client::NodeKey;
use tidegate_core::id::NodeId;
use tidegate_core::secret::Secret;
use tidegate_http::tls::PeerTlsSettings;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::settings::load;
use crate::{HttpClient, HttpResponse, TestBackend, TestClient, connect, eventually, http};

/// The lease of the nodes of a [`TestCluster`].
pub const LEASE: Duration = Duration::from_millis(1500);

/// The secret of the cluster.
pub const SECRET: &str = "a secret of sixteen characters";

/// The secret of all keys that signs calls on the internal listener.
pub const KEY_SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// Nodes of one cluster in this process, linked over loopback, whose tables of members the test fills by hand; and a
/// backend that lets everybody in.
pub struct TestCluster {
    pub nodes: Vec<TestNode>,
    pub backend: Arc<TestBackend>,
    pub tasks: TaskTracker,
}

/// A node of a [`TestCluster`].
pub struct TestNode {
    pub gateway: Gateway,
    pub membership: Arc<Membership>,
    /// The questions for a newer table of members. Answered by nobody unless a test does.
    pub refreshes: Option<RefreshRequests>,
    backend: Arc<TestBackend>,
    pub tasks: TaskTracker,
    clients: AtomicUsize,
}

impl TestCluster {
    /// Starts nodes that all know and reach each other.
    pub async fn start(count: usize) -> Self {
        let cluster = Self::start_apart(count).await;
        cluster.link().await;
        cluster
    }

    /// Starts nodes whose links are of TLS, and that do not know of each other.
    pub async fn start_tls(tls: impl IntoIterator<Item = PeerTlsSettings>) -> Self {
        let mut cluster = Self::start_apart(0).await;
        for tls in tls {
            let node = cluster.start_node_with(SECRET, Some(tls)).await;
            cluster.nodes.push(node);
        }
        cluster
    }

    /// Tells all nodes of each other, and waits until all are linked.
    pub async fn link(&self) {
        for node in &self.nodes {
            node.knows(self.nodes.iter().map(TestNode::member));
        }
        for node in &self.nodes {
            let all = self.nodes.iter().map(TestNode::id).filter(|id| *id != node.id());
            eventually("all are linked", async || all.clone().all(|id| node.is_linked(id))).await;
        }
    }

    /// Starts nodes that do not know of each other.
    pub async fn start_apart(count: usize) -> Self {
        let tasks = TaskTracker::new();
        let backend = Arc::new(TestBackend::start().await);
        let mut cluster = TestCluster { nodes: Vec::new(), backend, tasks };
        for _ in 0..count {
            let node = cluster.start_node(SECRET).await;
            cluster.nodes.push(node);
        }
        cluster
    }

    /// Starts one more node, which is not among [`TestCluster::nodes`].
    pub async fn start_node(&self, secret: &str) -> TestNode {
        self.start_node_with(secret, None).await
    }

    /// Starts one more node, with links of TLS.
    pub async fn start_node_with(&self, secret: &str, tls: Option<PeerTlsSettings>) -> TestNode {
        self.start_node_as(secret, tls, LEASE).await
    }

    /// Starts one more node, with another lease.
    pub async fn start_node_as(&self, secret: &str, tls: Option<PeerTlsSettings>, lease: Duration) -> TestNode {
        let (membership, refreshes) = Membership::new();
        let membership = Arc::new(membership);
        let settings = ClusterSettings {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            secret: Some(Secret::from(secret.to_owned())),
            tls,
            lease_millis: u32::try_from(lease.as_millis()).unwrap(),
            ..ClusterSettings::default()
        };
        let gateway = Gateway::builder(load(&text(&self.backend.url()))).cluster(settings, Arc::clone(&membership));
        let gateway = gateway.start().await.unwrap();
        TestNode {
            gateway,
            membership,
            refreshes: Some(refreshes),
            backend: Arc::clone(&self.backend),
            tasks: self.tasks.clone(),
            clients: AtomicUsize::new(0),
        }
    }
}

impl TestNode {
    /// Returns its id.
    pub fn id(&self) -> NodeId {
        self.gateway.node()
    }

    /// Returns its entry in tables of members.
    pub fn member(&self) -> ClusterMember {
        self.member_at(self.gateway.peer_address().unwrap())
    }

    /// Returns its entry, with another address.
    pub fn member_at(&self, address: SocketAddr) -> ClusterMember {
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

    /// Sets the members that this node has known for a long time.
    pub fn knows(&self, members: impl IntoIterator<Item = ClusterMember>) {
        self.membership.replace(self.table(members, Some(LEASE * 10)));
    }

    /// Makes a table of members, which this node has known for `attached`.
    pub fn table(&self, members: impl IntoIterator<Item = ClusterMember>, attached: Option<Duration>) -> NodeTable {
        let others = members.into_iter().filter(|member| member.node != self.id());
        NodeTable {
            members: others.map(|member| (member.node, member)).collect(),
            attached_since: attached.map(|attached| Instant::now() - attached),
            ..NodeTable::default()
        }
    }

    /// Answers all refreshes with this table.
    pub fn refreshes_to(&mut self, table: NodeTable) {
        let (membership, mut refreshes) = (Arc::clone(&self.membership), self.refreshes.take().unwrap());
        self.tasks.spawn(async move {
            while let Some(done) = refreshes.recv().await {
                membership.replace(table.clone());
                let _ = done.send(());
            }
        });
    }

    /// Returns why it has no link to another node, if it has tried.
    pub fn link_error(&self, node: NodeId) -> Option<String> {
        let peer = self.gateway.peers().into_iter().find(|peer| peer.node == node)?;
        let PeerLink::NotLinked { error, .. } = peer.link else { return None };
        error
    }

    /// Returns whether it has a link to another node.
    pub fn is_linked(&self, node: NodeId) -> bool {
        self.gateway.peers().iter().any(|peer| peer.node == node && matches!(peer.link, PeerLink::Linked { .. }))
    }

    /// Makes a caller of its public listener, as a backend that keeps its connection.
    pub fn http(&self) -> Caller {
        Caller { client: HttpClient::default(), node: self.gateway.public_address() }
    }

    /// Returns the page of metrics.
    pub async fn metrics(&self) -> String {
        http(self.gateway.internal_address(), "GET", "/metrics", &[], b"").await.text().to_owned()
    }

    /// Connects a client to the stage `prod`.
    pub async fn connect(&self) -> TestClient {
        self.connect_to("prod").await
    }

    /// Connects a client to a stage. It knows its id.
    pub async fn connect_to(&self, stage: &str) -> TestClient {
        let name = format!("{}-{}", self.id(), self.clients.fetch_add(1, Ordering::Relaxed));
        let address = self.gateway.public_address();
        let client = connect(&format!("ws://{address}/_aws/execute-api/chat/{stage}?name={name}"), &[]).await;
        client.known_as(self.backend.connection_of(&name).expect("the backend was asked"))
    }

    /// Goes down, and says goodbye to its peers.
    pub async fn drain(self) {
        self.gateway.drain(CancellationToken::new()).await;
    }
}

/// Calls of `@connections` to one node, for the stage `prod` of the API `chat`.
pub struct Caller {
    client: HttpClient,
    node: SocketAddr,
}

impl Caller {
    /// Calls any target.
    pub async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> HttpResponse {
        self.client.call(self.node, method, target, headers, body).await
    }

    /// Calls for a connection.
    pub async fn call(&self, method: &str, id: &str, body: impl Into<Bytes>) -> HttpResponse {
        self.send(method, &format!("/_aws/execute-api/chat/prod/@connections/{id}"), &[], body).await
    }

    /// Posts to a connection.
    pub async fn post(&self, id: &str, body: impl Into<Bytes>) -> HttpResponse {
        self.call("POST", id, body).await
    }

    /// Asks for a connection.
    pub async fn get(&self, id: &str) -> HttpResponse {
        self.call("GET", id, "").await
    }

    /// Closes a connection.
    pub async fn delete(&self, id: &str) -> HttpResponse {
        self.call("DELETE", id, "").await
    }
}

fn text(backend: &str) -> String {
    format!(
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
    integrations: {{ backend: {{ integrationType: HTTP_PROXY, integrationUri: '{backend}/' }} }}
    routes: {{ $connect: {{ target: integrations/backend }} }}
    stages: {{ prod: {{}}, test: {{}} }}
  other:
    name: Other
    routeSelectionExpression: $request.body.action
    integrations: {{ backend: {{ integrationType: HTTP_PROXY, integrationUri: '{backend}/' }} }}
    routes: {{ $connect: {{ target: integrations/backend }} }}
    stages: {{ prod: {{}} }}
"
    )
}
