use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_connections::cluster::link::Links;
use tidegate_connections::cluster::{
    Heartbeat, HeartbeatHandle, HeartbeatSettings, Membership, Reaper, ReaperSettings, Times,
};
use tidegate_connections::redis_client::{AttachedRedis, BUCKETS, Keys, RedisCommand, RedisSettings, read};
use tidegate_connections::registry::claims::ClaimedEvents;
use tidegate_connections::registry::record::{self, Record};
use tidegate_connections::registry::{
    RedisReplica, Registry, RegistryState, ReplicaSettings, WhenUnavailable, watch_gate, writer,
};
use tidegate_connections::session::Outbox;
use tidegate_core::clock::Timestamp;
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::limits::LimitSettings;
use tidegate_core::request_context::Connection;
use tidegate_telemetry::Metrics;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{RedisServer, eventually};

/// The lease of a [`RegistryNode`]. A sixth of it is Redis's time to answer, which a busy machine must be able to keep.
pub const REGISTRY_LEASE: Duration = Duration::from_millis(3000);

/// A user agent, as long as they are.
pub const BROWSER: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                                  Chrome/142.0.0.0 Safari/537.36";

/// Options of a [`RegistryNode`].
pub struct RegistryNodeOptions {
    pub redis: RedisSettings,
    pub when_unavailable: WhenUnavailable,
    pub rebuild_per_second: u32,
    pub advertise: String,
    /// Most ended connections that wait, and so most records of dead nodes that it holds.
    pub disconnect_backlog: u32,
    /// Time for which it keeps unreadable records.
    pub unreadable_kept: Duration,
}

impl RegistryNodeOptions {
    /// Makes the usual ones.
    pub fn new(server: &RedisServer) -> Self {
        RegistryNodeOptions {
            redis: server.settings(),
            when_unavailable: WhenUnavailable::Accept,
            rebuild_per_second: 20_000,
            advertise: "127.0.0.1:1".to_owned(),
            disconnect_backlog: 1000,
            unreadable_kept: Duration::from_secs(3600),
        }
    }
}

/// A registry with all that follows it; without sockets.
pub struct RegistryNode {
    pub registry: Arc<Registry>,
    pub replica: Arc<RedisReplica>,
    pub membership: Arc<Membership>,
    pub metrics: Metrics,
    /// The events that it takes over of dead nodes; nobody sends them unless a test does.
    pub events: ClaimedEvents,
    heartbeat: HeartbeatHandle,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl RegistryNode {
    /// Starts one that heartbeats, registered or not.
    pub fn launch(options: RegistryNodeOptions) -> Self {
        let metrics = Metrics::new("memory");
        let redis = Arc::new(AttachedRedis::new(Keys::new("t"), metrics.registry()));
        let settings = ReplicaSettings::new(options.rebuild_per_second, options.when_unavailable);
        let replica = Arc::new(RedisReplica::new(Arc::clone(&redis), settings));
        let times = Times::new(REGISTRY_LEASE);
        let node = NodeId::random();
        let registry = Arc::new(Registry::replicated(node, times.hold(), Arc::clone(&replica)));
        let limits = LimitSettings { disconnect_backlog: options.disconnect_backlog, ..LimitSettings::default() };
        registry.set_limits(&limits);
        let (membership, refreshes) = Membership::new();
        let membership = Arc::new(membership);
        let secret = "0123456789abcdef".to_owned().into();
        let links = Links::new(
            node,
            options.advertise.clone(),
            secret,
            REGISTRY_LEASE,
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
        RegistryNode { registry, replica, membership, metrics, events, heartbeat: handle, stop, tasks }
    }

    /// Starts one, and waits until it is registered and in step with Redis.
    pub async fn start(server: &RedisServer) -> Self {
        let node = Self::launch(RegistryNodeOptions::new(server));
        node.is("attached").await;
        node
    }

    /// Returns its id.
    pub fn id(&self) -> NodeId {
        self.registry.node()
    }

    /// Waits until the registry is in a state of this name.
    #[track_caller]
    pub fn is(&self, name: &'static str) -> impl Future<Output = ()> {
        let registry = Arc::clone(&self.registry);
        eventually(name, async move || registry.state().name() == name)
    }

    /// Returns how it stands with Redis.
    pub fn state(&self) -> RegistryState {
        self.registry.state()
    }

    /// Leaves the cluster.
    pub async fn leave(&self) {
        self.heartbeat.leave().await;
    }

    /// Stops at once, as if the process had been killed.
    pub async fn kill(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Opens a connection, recorded if it has to be.
    pub async fn open(&self) -> Arc<Connection> {
        let connection = connection(&self.registry, Some(BROWSER));
        assert!(self.registry.connect(&connection, None));
        self.registry.record(&connection.id).await.expect("a record");
        assert!(self.registry.open(&connection.id, outbox()));
        connection
    }

    /// Returns all records of this node as Redis has them.
    pub async fn records(&self, server: &RedisServer) -> BTreeMap<ConnectionId, Record> {
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
    pub fn is_replicated<'a>(&'a self, server: &'a RedisServer) -> impl Future<Output = ()> + 'a {
        eventually("Redis holds what the registry holds", async move || {
            self.replica.flush().await && describe(&self.records(server).await) == self.described()
        })
    }

    /// Returns the registry's own view, as lines.
    pub fn described(&self) -> Vec<String> {
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

impl Drop for RegistryNode {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn describe(records: &BTreeMap<ConnectionId, Record>) -> Vec<String> {
    let mut lines: Vec<String> = records
        .values()
        .map(|record| {
            let view = tidegate_connections::registry::ConnectionView::new(record.connection.id.node(), record);
            let (code, attempt) = (view.disconnect_status_code, view.attempt);
            format!("{} {} {code:?} {attempt:?}", view.connection_id, view.state)
        })
        .collect();
    lines.sort();
    lines
}

/// Makes a connection of a registry's node, with what most clients have.
pub fn connection(registry: &Registry, user_agent: Option<&str>) -> Arc<Connection> {
    Arc::new(Connection {
        connected_at: Timestamp(1_790_295_749_887),
        host: "chat.example.com".into(),
        callback_secure: true,
        secure: true,
        source_ip: IpAddr::from([203, 0, 113, 7]),
        user_agent: user_agent.map(Into::into),
        port: 443,
        ..Connection::sample(ConnectionId::random(registry.node()))
    })
}

/// Makes the outbox of an open connection.
pub fn outbox() -> Arc<Outbox> {
    Arc::new(Outbox::new(1024, Timestamp(0)))
}
