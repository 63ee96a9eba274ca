//! The contract of a registry, with and without a replica.

use std::sync::Arc;

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tidegate_connections::registry::{Query, Registry};
use tidegate_connections::session::Closing;
use tidegate_core::request_context::Connection;
use tidegate_testing::{RedisServer, RegistryNode, connection, outbox};

/// The registry under test, and how to see that it is replicated.
enum Subject {
    Memory(Arc<Registry>),
    Mirrored(RedisServer, Box<RegistryNode>),
}

impl Subject {
    async fn all() -> [Subject; 2] {
        let server = RedisServer::start().await;
        let node = RegistryNode::start(&server).await;
        [Subject::Memory(Arc::new(Registry::new())), Subject::Mirrored(server, Box::new(node))]
    }

    fn registry(&self) -> &Arc<Registry> {
        match self {
            Subject::Memory(registry) => registry,
            Subject::Mirrored(_, node) => &node.registry,
        }
    }

    async fn begin(&self) -> Arc<Connection> {
        let connection = connection(self.registry(), Some("agent of a test"));
        assert!(self.registry().connect(&connection, None));
        self.registry().record(&connection.id).await.expect("a record");
        connection
    }

    async fn settled(&self) {
        if let Subject::Mirrored(server, node) = self {
            node.is_replicated(server).await;
        }
    }
}

#[tokio::test]
async fn a_connection_is_posted_to_only_while_it_is_open() {
    for subject in Subject::all().await {
        let registry = subject.registry();
        let connection = subject.begin().await;
        assert!(registry.get_open(&connection.id).is_none());
        subject.settled().await;
        assert!(registry.open(&connection.id, outbox()));
        assert!(registry.get_open(&connection.id).is_some());
        subject.settled().await;
        assert!(registry.end(&connection.id, Closing::lost()));
        assert!(registry.get_open(&connection.id).is_none());
        subject.settled().await;
        assert!(registry.settle(&connection.id));
        subject.settled().await;
        assert!(registry.is_empty());
    }
}

#[tokio::test]
async fn an_ended_connection_stays_with_its_first_reason_until_its_event_is_delivered() {
    for subject in Subject::all().await {
        let registry = subject.registry();
        let connection = subject.begin().await;
        assert!(registry.end(&connection.id, Closing::deleted(4001, "kicked")));
        assert!(!registry.end(&connection.id, Closing::drained()));
        assert_eq!(registry.retry(&connection.id), Some(2));
        subject.settled().await;
        let ended = registry.get_ended(&connection.id).expect("it ended");
        assert_eq!((ended.attempt, ended.closing), (2, Closing::deleted(4001, "kicked")));
        assert!(registry.settle(&connection.id));
        assert!(!registry.settle(&connection.id));
        subject.settled().await;
    }
}

#[tokio::test]
async fn a_refused_connection_leaves_nothing() {
    for subject in Subject::all().await {
        let connection = subject.begin().await;
        subject.registry().refuse(&connection.id);
        assert!(subject.registry().is_empty());
        assert_eq!(subject.registry().live(), 0);
        subject.settled().await;
    }
}

#[tokio::test]
async fn whatever_happens_in_whatever_order_pages_show_each_connection_once() {
    for subject in Subject::all().await {
        let registry = subject.registry();
        let mut random = StdRng::seed_from_u64(7);
        let mut connections = Vec::new();
        for _ in 0..600 {
            connections.push(subject.begin().await);
        }
        for _ in 0..3000 {
            let id = connections[random.random_range(0..connections.len())].id;
            match random.random_range(0..6) {
                0 => {
                    registry.open(&id, outbox());
                }
                1 => registry.refuse(&id),
                2 => {
                    registry.end(&id, Closing::by_client(Some((1000, "bye"))));
                }
                3 | 4 => {
                    registry.retry(&id);
                }
                _ => {
                    registry.settle(&id);
                }
            }
        }
        subject.settled().await;
        let mut shown = Vec::new();
        let mut cursor = None;
        loop {
            let page = registry.page(&Query::default(), cursor.as_ref(), 7);
            assert!(page.connections.len() <= 7);
            shown.extend(page.connections.into_iter().map(|connection| connection.connection_id));
            let Some(next) = page.cursor else { break };
            cursor = Some(tidegate_core::id::ConnectionId::parse(&next).expect("an id"));
        }
        let mut all: Vec<String> = registry.all().iter().map(ToString::to_string).collect();
        all.sort();
        shown.sort();
        assert_eq!(shown, all);
    }
}
