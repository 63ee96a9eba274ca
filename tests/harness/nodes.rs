use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::{LIMIT, Ledger, Mode, RedisServer, TestProxy, eventually};
use crate::process::{Process, Tidegate, address, run};

/// Where the nodes that run are, for clients and backends. Shared by all of them.
#[derive(Clone, Default)]
pub(crate) struct Entrances(Arc<Mutex<Vec<Entrance>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entrance {
    pub(crate) public: SocketAddr,
    pub(crate) internal: SocketAddr,
}

impl Entrances {
    /// Any of them, as a load balancer would choose.
    pub(crate) fn any(&self) -> Option<Entrance> {
        let all = self.0.lock().unwrap();
        all.get(rand::random_range(0..all.len().max(1))).copied()
    }

    pub(crate) fn open(&self, entrance: Entrance) {
        self.0.lock().unwrap().push(entrance);
    }

    fn close(&self, entrance: Entrance) {
        self.0.lock().unwrap().retain(|other| *other != entrance);
    }
}

/// What a cluster is started with.
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) lease: Duration,
    /// Arguments of `redis-server`.
    pub(crate) redis: &'static [&'static str],
    /// How the nodes log in to Redis: `user:password@`, or nothing.
    pub(crate) redis_login: &'static str,
    /// Each node reaches Redis, and is reached by its peers, through a proxy of its own.
    pub(crate) proxied: bool,
    /// What all nodes tell their peers; not set: where each is.
    pub(crate) advertise: Option<SocketAddr>,
    /// All nodes reach the backend through one proxy.
    pub(crate) backend_proxied: bool,
    /// Lines of YAML after the others.
    pub(crate) settings: &'static str,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            nodes: 3,
            lease: Duration::from_secs(3),
            redis: &[],
            redis_login: "",
            proxied: false,
            backend_proxied: false,
            advertise: None,
            settings: "",
        }
    }
}

/// Processes of one cluster, with their Redis and their backend.
pub(crate) struct Nodes {
    pub(crate) all: Vec<Node>,
    pub(crate) redis: RedisServer,
    pub(crate) ledger: Ledger,
    pub(crate) entrances: Entrances,
    pub(crate) tasks: TaskTracker,
    /// Before the backend, if it has one.
    pub(crate) backend_proxy: Option<Arc<TestProxy>>,
    _folder: TempDir,
}

/// One place for a process: its configuration and proxies stay when it is started again.
pub(crate) struct Node {
    config: PathBuf,
    entrances: Entrances,
    /// Before its peer port and before Redis, if it has them.
    pub(crate) peer_proxy: Option<Arc<TestProxy>>,
    pub(crate) redis_proxy: Option<Arc<TestProxy>>,
    running: Option<Running>,
}

struct Running {
    process: Process,
    id: String,
    entrance: Entrance,
}

impl Nodes {
    /// Nodes that are ready and linked.
    pub(crate) async fn start(plan: Plan) -> Self {
        let mut nodes = Self::place_all(plan).await;
        for node in &mut nodes.all {
            node.start().await;
        }
        nodes.linked().await;
        nodes
    }

    /// Nodes that do not run yet, with Redis and the backend, which do.
    pub(crate) async fn place_all(plan: Plan) -> Self {
        let entrances = Entrances::default();
        let ledger = Ledger::start(entrances.clone()).await;
        let (folder, tasks) = (TempDir::new().unwrap(), TaskTracker::new());
        let redis = RedisServer::start_with(plan.redis).await;
        let backend_proxy = match plan.backend_proxied {
            true => Some(TestProxy::start(ledger.address, &tasks).await),
            false => None,
        };
        let all = Vec::new();
        let mut nodes = Nodes { all, redis, ledger, entrances, tasks, backend_proxy, _folder: folder };
        for number in 0..plan.nodes {
            let node = nodes.place(&plan, number).await;
            nodes.all.push(node);
        }
        nodes
    }

    /// A place for a node, which does not run yet.
    async fn place(&self, plan: &Plan, number: usize) -> Node {
        let mut node = Node {
            config: self._folder.path().join(format!("{number}.yaml")),
            entrances: self.entrances.clone(),
            peer_proxy: None,
            redis_proxy: None,
            running: None,
        };
        let mut redis = SocketAddr::from(([127, 0, 0, 1], self.redis.port()));
        let mut advertise = plan.advertise.map(|address| format!(", advertise: '{address}'")).unwrap_or_default();
        if plan.proxied {
            let peer_proxy = node.peer_proxy.insert(TestProxy::open(&self.tasks).await);
            advertise = format!(", advertise: '{}'", peer_proxy.address);
            redis = node.redis_proxy.insert(TestProxy::start(redis, &self.tasks).await).address;
        }
        let backend = self.backend_proxy.as_ref().map_or(self.ledger.address, |proxy| proxy.address);
        let (lease, settings, login) = (plan.lease.as_millis(), plan.settings, plan.redis_login);
        let text = format!(
            "listeners:\n  public: {{ address: '127.0.0.1:0', connectionsApi: NONE }}\n  \
             internal: {{ address: '127.0.0.1:0' }}\n\
             registry: {{ type: redis, url: 'redis://{login}{redis}/0', keyPrefix: t }}\n\
             cluster: {{ address: '127.0.0.1:0', secret: a secret of sixteen, leaseMillis: {lease}{advertise} }}\n\
             apis:\n  chat:\n    routeSelectionExpression: $request.body.action\n    integrations:\n      \
             backend: {{ integrationType: AWS_PROXY, integrationUri: 'http://{backend}/', timeoutInMillis: 5000 }}\n    \
             routes:\n      $connect: {{ target: integrations/backend }}\n      \
             $disconnect: {{ target: integrations/backend }}\n      $default: {{ target: integrations/backend }}\n    \
             stages: {{ prod: {{}} }}\n{settings}\n"
        );
        std::fs::write(&node.config, text).unwrap();
        node
    }

    /// Waits until each node that runs is linked with each other.
    pub(crate) async fn linked(&self) {
        let running = || self.all.iter().filter_map(|node| node.running.as_ref());
        let links = running().count().saturating_sub(1);
        for node in running() {
            eventually("all nodes are linked", || async {
                metric(node.entrance.internal, "tidegate_links_open").await == Some(links as f64)
            })
            .await;
        }
    }
}

impl Nodes {
    /// What `tidegate connections --count` says: records in Redis.
    pub(crate) async fn recorded(&self) -> u64 {
        let config = self.all[0].config.to_str().unwrap();
        let arguments = ["connections", "--count", "--config", config];
        let (succeeded, output) = run(env!("CARGO_BIN_EXE_tidegate"), &arguments, &[]).await;
        assert!(succeeded, "{output}");
        output.trim().parse().unwrap()
    }

    /// Waits until Redis holds a record of each connection of these clients, and no other.
    pub(crate) async fn all_recorded(&self, clients: usize) {
        eventually("Redis has all records", || async { self.recorded().await == clients as u64 }).await;
    }

    /// Sets how each node's proxies before its peers, or before Redis, treat what goes through.
    pub(crate) fn set(&self, proxy: impl Fn(&Node) -> &Option<Arc<TestProxy>>, mode: Mode) {
        self.all.iter().filter_map(|node| proxy(node).as_ref()).for_each(|proxy| proxy.set(mode));
    }

    /// Tells all to stop, one after the other.
    pub(crate) async fn stop(&mut self) {
        for node in self.all.iter_mut().filter(|node| node.running.is_some()) {
            node.stop().await;
        }
    }
}

impl Node {
    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(&mut self) {
        self.launch().await;
        self.ready().await;
    }

    /// Starts it, and waits until it listens; it may have to wait for Redis.
    pub(crate) async fn launch(&mut self) {
        assert!(self.running.is_none(), "it runs");
        let mut process = Tidegate::launch(&self.config, &[]);
        let line: Value = serde_json::from_str(&process.line_with("waiting for Redis").await).unwrap();
        if let Some(proxy) = &self.peer_proxy {
            proxy.lead_to(address(&line, "peers"));
        }
        let entrance = Entrance { public: address(&line, "public"), internal: address(&line, "internal") };
        self.running = Some(Running { process, id: String::new(), entrance });
    }

    /// Waits until a node that was launched takes clients.
    pub(crate) async fn ready(&mut self) {
        let running = self.running.as_mut().expect("it runs");
        let line: Value = serde_json::from_str(&running.process.line_with("\"ready\"").await).unwrap();
        running.id = line["node"].as_str().unwrap().to_owned();
        self.entrances.open(running.entrance);
    }

    /// Told to stop, as by an operator. When it has: what it logged that nobody has read.
    pub(crate) async fn stop(&mut self) -> Vec<String> {
        self.signal("TERM");
        self.ended().await
    }

    /// As a machine that loses its power.
    pub(crate) async fn kill(&mut self) {
        self.signal("KILL");
        self.ended().await;
    }

    async fn ended(&mut self) -> Vec<String> {
        let mut running = self.running.take().expect("it runs");
        let rest = running.process.end().await;
        self.entrances.close(running.entrance);
        rest
    }

    /// New clients and backends find only the other nodes.
    pub(crate) fn hide(&self) {
        self.entrances.close(self.running().entrance);
    }

    pub(crate) fn signal(&self, name: &str) {
        self.running().process.signal(name);
    }

    /// The path of its configuration.
    pub(crate) fn config(&self) -> String {
        self.config.to_str().unwrap().to_owned()
    }

    /// The node id that it had when it got ready.
    pub(crate) fn id(&self) -> &str {
        &self.running().id
    }

    pub(crate) fn public(&self) -> SocketAddr {
        self.running().entrance.public
    }

    pub(crate) fn internal(&self) -> SocketAddr {
        self.running().entrance.internal
    }

    /// Waits for a line of its log.
    pub(crate) async fn line_with(&mut self, part: &str) -> String {
        self.running.as_mut().expect("it runs").process.line_with(part).await
    }

    /// Asks the internal listener.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        get(self.internal(), path).await
    }

    /// Waits until `/readyz` answers with this status and has this in its body.
    pub(crate) async fn readyz(&self, status: u16, part: &str) {
        eventually(&format!("readyz {status} {part}"), || async {
            let (is, body) = self.get("/readyz").await;
            is == status && body.contains(part)
        })
        .await;
    }

    /// The first value of a metric whose line begins so.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        metric(self.internal(), name).await
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }
}

async fn metric(internal: SocketAddr, name: &str) -> Option<f64> {
    let (_, text) = get(internal, "/metrics").await;
    text.lines().find(|line| line.starts_with(name))?.rsplit(' ').next()?.parse().ok()
}

async fn get(internal: SocketAddr, path: &str) -> (u16, String) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
    let uri = format!("http://{internal}{path}").parse().unwrap();
    let exchange = async {
        let response = client.get(uri).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    tokio::time::timeout(LIMIT, exchange).await.expect("an answer")
}
