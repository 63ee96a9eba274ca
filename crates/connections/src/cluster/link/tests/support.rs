//! Nodes that are linked by streams in memory, a peer whose every byte is scripted, and connections that do what their
//! data say.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::cluster::Membership;
use crate::cluster::link::frame_stream::FrameStream;
use crate::cluster::link::handshake::{Challenge, Hello, Role, Transcript};
use crate::cluster::link::handshake_io::{self, HandshakeError, NodeIdentity};
use crate::cluster::link::{
    Action, Caller, Link, LinkFrame, Links, LocalConnections, PROTOCOL, PeerCall, PeerOutcome, Refusal, Target,
};
use tidegate_core::data_type::DataType;
use tidegate_core::id::{ConnectionId, NodeId};
use tidegate_core::secret::Secret;
use tidegate_core::trace_context::TraceContext;
use tidegate_http::transport::Connection;
use tidegate_telemetry::LinkMetrics;

pub(super) const SECRET: &str = "0123456789abcdef";
/// A trace that is not sampled.
pub(super) const UNTRACED: TraceContext = TraceContext { trace_id: 1, span_id: 1, sampled: false };
pub(super) const LEASE: Duration = Duration::from_secs(3);

pub(super) struct TestNode {
    pub(super) links: Arc<Links>,
    pub(super) connections: Arc<Scripted>,
    pub(super) tasks: TaskTracker,
}

impl TestNode {
    pub(super) fn new() -> Self {
        Self::with(NodeId::random(), SECRET, PROTOCOL)
    }

    pub(super) fn with(node: NodeId, secret: &str, protocol: (u16, u16)) -> Self {
        let (membership, _) = Membership::new();
        let secret = Secret::from(secret.to_owned());
        let identity = NodeIdentity { protocol, ..NodeIdentity::new(node, "127.0.0.1:1".to_owned(), secret) };
        let links = Links::with_identity(identity, LEASE, None, Arc::new(membership), LinkMetrics::default());
        TestNode { links, connections: Arc::default(), tasks: TaskTracker::new() }
    }

    pub(super) fn id(&self) -> NodeId {
        self.links.node()
    }

    /// Accepts a link on `io`.
    pub(super) fn accept(&self, io: impl Connection + Send + 'static) {
        self.accept_from("127.0.0.1", io);
    }

    /// Accepts a link on `io` from this address.
    pub(super) fn accept_from(&self, ip: &str, io: impl Connection + Send + 'static) {
        let connections: Arc<dyn LocalConnections> = self.connections.clone();
        let remote = (ip.parse::<IpAddr>().unwrap(), 1).into();
        self.tasks.spawn(Arc::clone(&self.links).accept(io, remote, connections));
    }

    /// Dials `expected` over `io`, and runs the link in a task.
    pub(super) async fn dial(
        &self,
        io: impl Connection + Send + 'static,
        expected: NodeId,
    ) -> Result<(), HandshakeError> {
        let mut stream = FrameStream::new(io);
        let registered = handshake_io::dial(&mut stream, &self.links, expected).await?;
        let (links, connections) = (Arc::clone(&self.links), Arc::clone(&self.connections));
        self.tasks.spawn(async move { links.run(stream, registered, &*connections).await });
        Ok(())
    }

    /// Links this node to `other`.
    pub(super) async fn link(&self, other: &TestNode) -> Arc<Link> {
        let (near, far) = duplex(64 * 1024);
        other.accept(far);
        self.dial(near, other.id()).await.unwrap();
        self.links.get(&other.id()).unwrap()
    }

    /// Links this node to a peer that the test plays, on a stream that holds `buffer` bytes.
    pub(super) async fn scripted_peer(&self, buffer: usize) -> (FrameStream<DuplexStream>, Arc<Link>) {
        let (near, far) = duplex(buffer);
        self.accept(far);
        let peer = TestNode::new();
        let mut stream = FrameStream::new(near);
        let registered = handshake_io::dial(&mut stream, &peer.links, self.id()).await.unwrap();
        std::mem::forget(registered);
        (stream, self.links.get(&peer.id()).unwrap())
    }

    pub(super) fn refusals(&self, refusal: Refusal) -> u64 {
        self.links.metrics.refusals(refusal.name())
    }
}

/// A call on a connection of `node`.
pub(super) fn post(node: NodeId, data: impl Into<Bytes>) -> PeerCall {
    let action = Action::Post { data: data.into(), data_type: DataType::Text };
    PeerCall { connection: ConnectionId::random(node), api_id: "chat".into(), trace: UNTRACED, stages: None, action }
}

pub(super) async fn send_frame(stream: &mut FrameStream<DuplexStream>, frame: &LinkFrame<'_>) {
    let mut out = BytesMut::new();
    let behind = frame.encode(&mut out);
    stream.io.write_all(&out).await.unwrap();
    stream.io.write_all(&behind).await.unwrap();
}

/// Records the frames that a dialler sends in a whole handshake, as an eavesdropper would.
pub(super) async fn record_handshake(acceptor: &TestNode, dialler: &TestNode) -> Vec<Bytes> {
    let (near, far) = duplex(64 * 1024);
    acceptor.accept(far);
    let mut stream = FrameStream::new(near);
    let introduction = dialler.links.identity().introduction.clone();
    let hello = Hello { protocol: PROTOCOL, nonce: [7; 32], from: introduction }.encode();
    stream.send(&hello).await.unwrap();
    let challenge = stream.receive().await.unwrap();
    Challenge::decode(&challenge, PROTOCOL).unwrap();
    let transcript = Transcript { hello: hello.clone(), challenge };
    let proof = transcript.prove(Role::Dialler, &Secret::from(SECRET.to_owned()));
    stream.send(&proof).await.unwrap();
    let welcome = stream.receive().await.unwrap();
    transcript.verify(Role::Acceptor, &Secret::from(SECRET.to_owned()), &welcome).unwrap();
    vec![hello, proof]
}

/// Connections that do what their data say: `hold` keeps the frame, `full` refuses it, `gone` says that the connection
/// is gone, anything else is written at once.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    pub(super) posts: Mutex<Vec<Bytes>>,
    held: Mutex<Vec<(Arc<dyn Caller>, u64)>>,
}

impl Scripted {
    pub(super) fn count(&self) -> usize {
        self.posts.lock().unwrap().len()
    }

    /// Settles the frames that were held: they are written or not.
    pub(super) fn release(&self, written: bool) {
        for (receipts, id) in std::mem::take(&mut *self.held.lock().unwrap()) {
            receipts.settle(id, written);
        }
    }
}

impl LocalConnections for Scripted {
    fn post(&self, _: Target<'_>, data: Bytes, _: DataType, caller: &Arc<dyn Caller>, id: u64) {
        self.posts.lock().unwrap().push(data.clone());
        match &data[..] {
            b"hold" => self.held.lock().unwrap().push((Arc::clone(caller), id)),
            b"full" => caller.answer(id, PeerOutcome::Full),
            b"gone" => caller.answer(id, PeerOutcome::Gone),
            _ => caller.settle(id, true),
        }
    }

    fn get(&self, to: Target<'_>, caller: &Arc<dyn Caller>, id: u64) {
        caller.answer_info(id, Bytes::from(format!("{} {}", to.connection, to.api_id)));
    }

    fn ask(&self, head: &[u8], data: Bytes, caller: &Arc<dyn Caller>, id: u64) {
        match &data[..] {
            b"full" => caller.answer(id, PeerOutcome::Unavailable),
            _ => caller.answer_info(id, [head, &data].concat().into()),
        }
    }

    fn delete(&self, _: Target<'_>, code: u16, _: &str) -> PeerOutcome {
        if code == 1000 { PeerOutcome::Done } else { PeerOutcome::Gone }
    }
}

/// A stream that counts its writes, each of which would be a system call on a socket.
pub(super) struct Counting {
    io: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl Counting {
    pub(super) fn new(io: DuplexStream) -> (Self, Arc<AtomicUsize>) {
        let writes = Arc::new(AtomicUsize::new(0));
        (Counting { io, writes: Arc::clone(&writes) }, writes)
    }
}

impl Connection for Counting {
    fn tcp(&self) -> Option<&TcpStream> {
        self.io.tcp()
    }
}

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Waits until `holds` returns true, for at most ten seconds of the runtime's own time.
pub(super) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
