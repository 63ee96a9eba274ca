use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;

use crate::{Ledger, Mode, Process, RedisServer, TestProxy, Tidegate, address, eventually, http, run, tidegate_path};

/// The addresses of the nodes that run, for clients and backends. Shared by all of them.
#[derive(Clone, Default)]
pub struct Entrances(Arc<Mutex<Vec<Entrance>>>);

/// The addresses of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrance {
    pub public: SocketAddr,
    pub internal: SocketAddr,
}

impl Entrances {
    /// Returns any of them, as a load balancer would choose.
    pub fn any(&self) -> Option<Entrance> {
        let all = self.0.lock().unwrap();
        all.get(rand::random_range(0..all.len().max(1))).copied()
    }

    /// Adds a node.
    pub fn open(&self, entrance: Entrance) {
        self.0.lock().unwrap().push(entrance);
    }

    fn close(&self, entrance: Entrance) {
        self.0.lock().unwrap().retain(|other| *other != entrance);
    }
}

/// The plan of a cluster.
pub struct Plan {
    pub nodes: usize,
    pub lease: Duration,
    /// Arguments of `redis-server`.
    pub redis: &'static [&'static str],
    /// Credentials of the nodes for Redis: `user:password@`, or nothing.
    pub redis_login: &'static str,
    /// Each node reaches Redis, and is reached by its peers, through a proxy of its own.
    pub proxied: bool,
    /// The address that all nodes tell their peers; not set: where each is.
    pub advertise: Option<SocketAddr>,
    /// All nodes reach the backend through one proxy.
    pub backend_proxied: bool,
    /// Lines of YAML after the others.
    pub settings: &'static str,
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

/// Clusters of processes that run at once, on a machine with however many cores: a further test waits for its turn.
static TURNS: Semaphore = Semaphore::const_new(8);

/// Processes of one cluster, with their Redis and their backend.
pub struct Nodes {
    pub all: Vec<Node>,
    pub redis: RedisServer,
    pub ledger: Ledger,
    pub entrances: Entrances,
    pub tasks: TaskTracker,
    /// Before the backend, if it has one.
    pub backend_proxy: Option<Arc<TestProxy>>,
    _folder: TempDir,
    _turn: SemaphorePermit<'static>,
}

/// A place for a process: its configuration and proxies stay when it is started again.
pub struct Node {
    config: PathBuf,
    entrances: Entrances,
    /// Before its peer port and before Redis, if it has them.
    pub peer_proxy: Option<Arc<TestProxy>>,
    pub redis_proxy: Option<Arc<TestProxy>>,
    running: Option<Running>,
}

struct Running {
    process: Process,
    id: String,
    entrance: Entrance,
}

impl Nodes {
    /// Starts nodes, and waits until they are ready and linked.
    pub async fn start(plan: Plan) -> Self {
        let mut nodes = Self::place_all(plan).await;
        for node in &mut nodes.all {
            node.start().await;
        }
        nodes.linked().await;
        nodes
    }

    /// Makes nodes that do not run yet, with Redis and the backend, which do.
    pub async fn place_all(plan: Plan) -> Self {
        let turn = TURNS.acquire().await.expect("nobody closes it");
        let entrances = Entrances::default();
        let ledger = Ledger::start(entrances.clone()).await;
        let (folder, tasks) = (TempDir::new().unwrap(), TaskTracker::new());
        let redis = RedisServer::start_with(plan.redis).await;
        let backend_proxy = match plan.backend_proxied {
            true => Some(TestProxy::start(ledger.address, &tasks).await),
            false => None,
        };
        let all = Vec::new();
        let mut nodes = Nodes { all, redis, ledger, entrances, tasks, backend_proxy, _folder: folder, _turn: turn };
        for number in 0..plan.nodes {
            let node = nodes.place(&plan, number).await;
            nodes.all.push(node);
        }
        nodes
    }

    /// Makes a place for a node, which does not run yet.
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
    pub async fn linked(&self) {
        let running = || self.all.iter().filter_map(|node| node.running.as_ref());
        let links = running().count().saturating_sub(1);
        for node in running() {
            eventually("all nodes are linked", async || {
                metric(node.entrance.internal, "tidegate_links_open").await == Some(links as f64)
            })
            .await;
        }
    }
}

impl Nodes {
    /// Returns the number of records in Redis, as `tidegate connections --count` says it.
    pub async fn recorded(&self) -> u64 {
        let config = self.all[0].config.to_str().unwrap();
        let arguments = ["connections", "--count", "--config", config];
        let (succeeded, output) = run(tidegate_path(), &arguments, &[]).await;
        assert!(succeeded, "{output}");
        output.trim().parse().unwrap()
    }

    /// Waits until Redis holds a record of each connection of these clients, and no other.
    pub async fn all_recorded(&self, clients: usize) {
        eventually("Redis has all records", async || self.recorded().await == clients as u64).await;
    }

    /// Sets how each node's proxies before its peers, or before Redis, treat what goes through.
    pub fn set(&self, proxy: impl Fn(&Node) -> &Option<Arc<TestProxy>>, mode: Mode) {
        self.all.iter().filter_map(|node| proxy(node).as_ref()).for_each(|proxy| proxy.set(mode));
    }

    /// Stops all, one after the other.
    pub async fn stop(&mut self) {
        for node in self.all.iter_mut().filter(|node| node.running.is_some()) {
            node.stop().await;
        }
    }
}

impl Node {
    /// Starts it, and waits until it is ready.
    pub async fn start(&mut self) {
        self.launch().await;
        self.ready().await;
    }

    /// Starts it, and waits until it listens; it may have to wait for Redis.
    pub async fn launch(&mut self) {
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
    pub async fn ready(&mut self) {
        let running = self.running.as_mut().expect("it runs");
        let line: Value = serde_json::from_str(&running.process.line_with("\"ready\"").await).unwrap();
        running.id = line["node"].as_str().unwrap().to_owned();
        self.entrances.open(running.entrance);
    }

    /// Stops it, as an operator does; returns the lines of its log that nobody has read.
    pub async fn stop(&mut self) -> Vec<String> {
        self.signal("TERM");
        self.ended().await
    }

    /// Kills it, as a machine that loses its power.
    pub async fn kill(&mut self) {
        self.signal("KILL");
        self.ended().await;
    }

    async fn ended(&mut self) -> Vec<String> {
        let mut running = self.running.take().expect("it runs");
        let rest = running.process.end().await;
        self.entrances.close(running.entrance);
        rest
    }

    /// Hides it from new clients and backends: they find only the other nodes.
    pub fn hide(&self) {
        self.entrances.close(self.running().entrance);
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        self.running().process.signal(name);
    }

    /// Returns the path of its configuration.
    pub fn config(&self) -> String {
        self.config.to_str().unwrap().to_owned()
    }

    /// Returns the node id that it had when it got ready.
    pub fn id(&self) -> &str {
        &self.running().id
    }

    /// Returns where clients connect.
    pub fn public(&self) -> SocketAddr {
        self.running().entrance.public
    }

    /// Returns where operators and backends call.
    pub fn internal(&self) -> SocketAddr {
        self.running().entrance.internal
    }

    /// Waits for a line of its log.
    pub async fn line_with(&mut self, part: &str) -> String {
        self.running.as_mut().expect("it runs").process.line_with(part).await
    }

    /// Asks the internal listener.
    pub async fn get(&self, path: &str) -> (u16, String) {
        get(self.internal(), path).await
    }

    /// Waits until `/readyz` answers with this status and has this in its body.
    pub async fn readyz(&self, status: u16, part: &str) {
        eventually(&format!("readyz {status} {part}"), async || {
            let (is, body) = self.get("/readyz").await;
            is == status && body.contains(part)
        })
        .await;
    }

    /// Returns the first value of a metric whose line begins so.
    pub async fn metric(&self, name: &str) -> Option<f64> {
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
    let response = http(internal, "GET", path, &[], b"").await;
    (response.status, response.text().to_owned())
}
