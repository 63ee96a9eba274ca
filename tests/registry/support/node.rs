use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate::clock::Timestamp;
use tidegate::cluster::link::Links;
use tidegate::cluster::{Heartbeat, HeartbeatHandle, HeartbeatSettings, Membership, Reaper, ReaperSettings, Times};
use tidegate::id::{ConnectionId, NodeId};
use tidegate::redis_client::{AttachedRedis, BUCKETS, Keys, RedisCommand, RedisSettings, read};
use tidegate::registry::claims::ClaimedEvents;
use tidegate::registry::record::{self, Record};
use tidegate::registry::{RedisReplica, Registry, RegistryState, WhenUnavailable, watch_gate, writer};
use tidegate::request_context::Connection;
use tidegate::session::Outbox;
use tidegate::telemetry::Metrics;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{LEASE, RedisServer, eventually};

pub(crate) const BROWSER: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                                  Chrome/142.0.0.0 Safari/537.36";

pub(crate) struct NodeOptions {
    pub(crate) redis: RedisSettings,
    pub(crate) when_unavailable: WhenUnavailable,
    pub(crate) rebuild_per_second: u32,
    pub(crate) advertise: String,
    /// Most records of dead nodes that it holds.
    pub(crate) held_max: usize,
    /// How long it keeps what it cannot read.
    pub(crate) unreadable_kept: Duration,
}

impl NodeOptions {
    pub(crate) fn new(server: &RedisServer) -> Self {
        NodeOptions {
            redis: server.settings(),
            when_unavailable: WhenUnavailable::Accept,
            rebuild_per_second: 20_000,
            advertise: "127.0.0.1:1".to_owned(),
            held_max: 1000,
            unreadable_kept: Duration::from_secs(3600),
        }
    }
}

/// A registry with all that follows it; without sockets.
pub(crate) struct Node {
    pub(crate) registry: Arc<Registry>,
    pub(crate) replica: Arc<RedisReplica>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) metrics: Metrics,
    /// What it takes over of dead nodes; sent by nobody unless a test does.
    pub(crate) events: ClaimedEvents,
    heartbeat: HeartbeatHandle,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    /// A node that heartbeats, registered or not.
    pub(crate) fn launch(options: NodeOptions) -> Self {
        let metrics = Metrics::new("memory");
        let redis = Arc::new(AttachedRedis::new(Keys::new("t"), metrics.registry()));
        let replica = RedisReplica::new(Arc::clone(&redis), options.rebuild_per_second, options.when_unavailable);
        let replica = Arc::new(replica);
        let times = Times::new(LEASE);
        let node = NodeId::random();
        let registry = Arc::new(Registry::replicated(node, times.hold(), Arc::clone(&replica)));
        let (membership, refreshes) = Membership::new();
        let membership = Arc::new(membership);
        let secret = "0123456789abcdef".to_owned().into();
        let links = Links::new(
            node,
            options.advertise.clone(),
            secret,
            LEASE,
            None,
            Arc::clone(&membership),
            metrics.links().clone(),
        );
        let settings = HeartbeatSettings {
            redis: Arc::new(options.redis),
            peers: links,
            times,
            advertise: options.advertise,
            seed: rand::random(),
        };
        let member = (Arc::clone(&membership), refreshes);
        let (heartbeat, handle) = Heartbeat::new(settings, Arc::clone(&registry), Arc::clone(&replica), member);
        let settings = ReaperSettings {
            held_max: options.held_max,
            unreadable_kept: options.unreadable_kept,
            unreadable_look: Duration::from_millis(200),
            ..ReaperSettings::new(times)
        };
        let gauge = metrics.reaping();
        let reaper = Reaper::new(settings, Arc::clone(&registry), redis, Arc::clone(&membership), gauge);
        let events = registry.claims().events().expect("nobody has them yet");
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(writer::run(Arc::clone(&registry), Arc::clone(&replica), stop.clone()));
        tasks.spawn(heartbeat.run(stop.clone()));
        tasks.spawn(reaper.run(stop.clone()));
        tasks.spawn(watch_gate(Arc::clone(&registry), stop.clone()));
        Node { registry, replica, membership, metrics, events, heartbeat: handle, stop, tasks }
    }

    /// A node that is registered and in step with Redis.
    pub(crate) async fn start(server: &RedisServer) -> Self {
        let node = Self::launch(NodeOptions::new(server));
        node.is("attached").await;
        node
    }

    pub(crate) fn id(&self) -> NodeId {
        self.registry.node()
    }

    /// Waits until the registry is in a state of this name.
    #[track_caller]
    pub(crate) fn is(&self, name: &'static str) -> impl Future<Output = ()> {
        let registry = Arc::clone(&self.registry);
        eventually(name, move || std::future::ready(registry.state().name() == name))
    }

    pub(crate) fn state(&self) -> RegistryState {
        self.registry.state()
    }

    pub(crate) async fn leave(&self) {
        self.heartbeat.leave().await;
    }

    /// Stops at once, as if the process had been killed.
    pub(crate) async fn kill(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// An open connection, recorded if it has to be.
    pub(crate) async fn open(&self) -> Arc<Connection> {
        let connection = connection(&self.registry, Some(BROWSER));
        assert!(self.registry.connect(&connection, None));
        self.registry.record(&connection.id).await.expect("a record");
        assert!(self.registry.open(&connection.id, outbox()));
        connection
    }

    /// All records of this node as Redis has them.
    pub(crate) async fn records(&self, server: &RedisServer) -> BTreeMap<ConnectionId, Record> {
        let keys = self.replica.keys();
        let redis = server.connection().await;
        let texts: BTreeMap<u32, String> =
            read(redis.run_one(RedisCommand::new("HGETALL", keys.strings(self.id()))).await.expect("texts"))
                .expect("texts");
        let calls: Vec<RedisCommand> =
            (0..BUCKETS).map(|bucket| RedisCommand::new("HGETALL", keys.bucket(self.id(), bucket))).collect();
        let mut records = BTreeMap::new();
        for (bucket, answer) in redis.run(&calls).await.expect("buckets").into_iter().enumerate() {
            let bucket_records: BTreeMap<String, Vec<u8>> = read(answer).expect("a bucket");
            for (id, bytes) in bucket_records {
                let id = ConnectionId::parse(&id).expect("an id");
                assert_eq!(Keys::bucket_of(&id), bucket);
                let text = |number: u32| texts.get(&number).map(|text| text.as_str().into());
                records.insert(id, record::decode(id, &bytes, 512, text).expect("a record"));
            }
        }
        records
    }

    /// Waits until Redis holds exactly what the registry holds.
    #[track_caller]
    pub(crate) fn is_replicated<'a>(&'a self, server: &'a RedisServer) -> impl Future<Output = ()> + 'a {
        eventually("Redis holds what the registry holds", move || async move {
            self.replica.flush().await && describe(&self.records(server).await) == self.described()
        })
    }

    /// The registry's own view, as lines.
    pub(crate) fn described(&self) -> Vec<String> {
        let page = self.registry.page(&Default::default(), None, usize::MAX);
        let mut lines: Vec<String> = page
            .connections
            .iter()
            .map(|c| format!("{} {} {:?} {:?}", c.connection_id, c.state, c.disconnect_status_code, c.attempt))
            .collect();
        lines.sort();
        lines
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn describe(records: &BTreeMap<ConnectionId, Record>) -> Vec<String> {
    let mut lines: Vec<String> = records
        .values()
        .map(|record| {
            let view = tidegate::registry::ConnectionView::new(record.connection.id.node(), record);
            let (code, attempt) = (view.disconnect_status_code, view.attempt);
            format!("{} {} {code:?} {attempt:?}", view.connection_id, view.state)
        })
        .collect();
    lines.sort();
    lines
}

pub(crate) fn connection(registry: &Registry, user_agent: Option<&str>) -> Arc<Connection> {
    Arc::new(Connection {
        id: ConnectionId::random(registry.node()),
        api_id: "chat".into(),
        stage: "prod".into(),
        connected_at: Timestamp(1_790_295_749_887),
        configuration: 0,
        host: "chat.example.com".into(),
        callback_secure: true,
        secure: true,
        source_ip: IpAddr::from([203, 0, 113, 7]),
        user_agent: user_agent.map(Into::into),
        principal: Default::default(),
        client_cert: None,
        port: 443,
        forwarded_for: None,
        topics: Default::default(),
    })
}

pub(crate) fn outbox() -> Arc<Outbox> {
    Arc::new(Outbox::new(1024, Timestamp(0)))
}

/// How long something takes, at most.
pub(crate) const SOON: Duration = Duration::from_secs(10);
