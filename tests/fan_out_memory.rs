//! Memory that a message to many costs a node while no client reads it. A process of its own, because its memory is measured.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tidegate_connections::groups::{FanOut, Groups, PushCounts};
use tidegate_connections::session::{DataFrame, Outbox, Socket, SocketSettings};
use tidegate_core::clock::Timestamp;
use tidegate_core::data_type::DataType;
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::request_context::Connection;
use tidegate_core::topic::{Topic, TopicName};
use tidegate_testing::resident_bytes;
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
use tokio::time::Instant;

const MEMBERS: usize = 1000;
const DATA_BYTES: usize = 100 * 1024;

/// Bytes that the network accepts of a frame whose client does not read.
const NETWORK_BYTES: usize = 512;

/// Memory that a waiting frame may cost for each member: its place in a queue, and what the network has accepted.
const MEMBER_MAX_BYTES: usize = 2 * 1024;

/// A member of the room: both ends of its socket.
struct Member {
    connection: Connection,
    outbox: Arc<Outbox>,
    socket: Socket<DuplexStream>,
    client: DuplexStream,
}

impl Member {
    async fn begin(node: NodeId) -> Self {
        let outbox = Arc::new(Outbox::new(1024 * 1024, Timestamp(0)));
        let (near, client) = duplex(NETWORK_BYTES);
        let settings = SocketSettings { message_max_bytes: 128 * 1024, frame_max_bytes: 128 * 1024 };
        let socket = Socket::new(near, Bytes::new(), Arc::clone(&outbox), settings).await;
        Member { connection: Connection::sample(ConnectionId::random(node)), outbox, socket, client }
    }

    /// Writes what the network takes.
    async fn write(&mut self) {
        let closing = poll_fn(|cx| match self.socket.poll_send(cx) {
            Poll::Ready(closing) => Poll::Ready(Some(closing)),
            Poll::Pending => Poll::Ready(None),
        });
        assert_eq!(closing.await, None, "nothing ends it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_a_thousand_members_do_not_take_is_in_memory_once() {
    let (node, groups, name) = (NodeId::random(), Groups::default(), TopicName::group("room-1").expect("a name"));
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        let member = Member::begin(node).await;
        groups.join(&member.connection, &member.outbox, name.clone(), 10).expect("it joins");
        members.push(member);
    }
    let before = resident_bytes();
    let frame = DataFrame::text("x".repeat(DATA_BYTES));
    let fan_out = FanOut::queue(groups.members(&Topic { api_id: "chat".into(), name }), &frame, Timestamp(1));
    for member in &mut members {
        member.write().await;
    }
    let grown = resident_bytes().saturating_sub(before);
    println!("{grown} bytes for {DATA_BYTES} bytes that {MEMBERS} members do not take");
    assert!(grown < DATA_BYTES + MEMBERS * MEMBER_MAX_BYTES, "{grown}");
    let copies = resident_bytes();

    // The same with a frame of its own for each: so the measure would have shown it.
    let own: Vec<DataFrame> =
        members.iter().map(|_| DataFrame::new("y".repeat(DATA_BYTES).into(), DataType::Binary)).collect();
    assert!(resident_bytes() - copies > MEMBERS * DATA_BYTES / 2);
    drop(own);

    // It was all there: who reads gets the whole frame.
    let reading = async {
        for member in &mut members {
            let mut data = vec![0; 10 + DATA_BYTES];
            let read = member.client.read_exact(&mut data);
            tokio::pin!(read);
            poll_fn(|cx| {
                let _ = member.socket.poll_send(cx);
                read.as_mut().poll(cx)
            })
            .await
            .expect("the whole frame");
            assert_eq!(data[10..], *frame.bytes());
            member.write().await;
        }
    };
    reading.await;
    let counts = fan_out.settled(Instant::now() + Duration::from_secs(1)).await;
    assert_eq!(counts, PushCounts { delivered: MEMBERS, ..PushCounts::default() });
}
