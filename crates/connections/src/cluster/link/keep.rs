use std::collections::HashMap;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::call::LocalConnections;
use super::driver::{LinkEnd, drive};
use super::frame_stream::{FrameStream, FrameStreamError};
use super::handshake::Refusal;
use super::handshake_io::{self, HandshakeError};
use super::links::{Links, RegisteredLink};
use crate::cluster::ClusterMember;
use crate::redis_client::NodeKey;
use tidegate_core::error_chain::chain;
use tidegate_core::id::NodeId;
use tidegate_core::lifecycle::Lifecycle;
use tidegate_http::transport::Connection;
use tidegate_telemetry::RepeatedWarning;

/// Longest time for a TCP connection and its handshake, where the lease allows it.
const HANDSHAKE_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// Longest time that a stranger may take to begin with TLS, and to send its complete Hello.
const SILENCE_MAX: Duration = Duration::from_millis(1500);

/// Pause before the first and before any further attempt to dial a peer, ±50 %.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Number of failed attempts after which a warning is logged.
const ATTEMPTS_BEFORE_WARNING: u32 = 5;

impl Links {
    /// Keeps a link to every member of the table, until this node leaves or the process aborts.
    pub async fn keep(self: Arc<Self>, local: Arc<dyn LocalConnections>, lifecycle: Lifecycle) {
        let mut tables = self.membership.watch();
        let mut kept: HashMap<NodeId, CancellationToken> = HashMap::new();
        loop {
            let table = Arc::clone(&tables.borrow_and_update());
            kept.retain(|node, gone| {
                let is_member = table.members.get(node).is_some_and(|member| !is_dead(member));
                if !is_member {
                    gone.cancel();
                }
                is_member
            });
            for member in table.members.values() {
                if is_dead(member) {
                    self.stop(&member.node);
                } else if member.node != self.node() && !kept.contains_key(&member.node) {
                    let gone = CancellationToken::new();
                    kept.insert(member.node, gone.clone());
                    let keep_one = keep_one(Arc::clone(&self), member.clone(), Arc::clone(&local), gone);
                    let aborting = lifecycle.aborting().clone();
                    lifecycle.spawn(aborting.run_until_cancelled_owned(keep_one));
                }
            }
            tokio::select! {
                biased;
                () = lifecycle.aborting().cancelled() => return,
                () = self.leaving.cancelled() => break,
                // The table lives as long as self.
                changed = tables.changed() => if changed.is_err() { break },
            }
        }
        kept.values().for_each(CancellationToken::cancel);
    }

    /// Serves a connection that was opened to this node: a peer's link until it is over, or a stranger until it is
    /// refused.
    pub async fn accept<S>(self: Arc<Self>, io: S, remote: SocketAddr, local: Arc<dyn LocalConnections>)
    where
        S: Connection,
    {
        match self.tls.clone() {
            None => self.serve(ready(Ok(io)), remote, &*local).await,
            Some(tls) => {
                let silence = self.silence();
                self.serve(Box::pin(async move { tls.accept(io, silence).await }), remote, &*local).await;
            }
        }
    }

    async fn serve<S>(
        self: &Arc<Self>,
        opening: impl Future<Output = io::Result<S>>,
        remote: SocketAddr,
        local: &dyn LocalConnections,
    ) where
        S: Connection,
    {
        let place = self.strangers.admit(remote.ip());
        let too_late = |_| HandshakeError::Refused(Refusal::Timeout);
        let handshake = async {
            let mut stream = FrameStream::new(opening.await.map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => HandshakeError::Refused(Refusal::Timeout),
                _ => HandshakeError::Tls(error),
            })?);
            let registered = handshake_io::accept(&mut stream, self, &place, self.silence()).await?;
            Ok((stream, registered))
        };
        let outcome = tokio::select! {
            biased;
            outcome = timeout(self.handshake_timeout(), handshake) => outcome.unwrap_or_else(|late| Err(too_late(late))),
            () = place.lost() => Err(HandshakeError::Refused(Refusal::Busy)),
        };
        drop(place);
        match outcome {
            Ok((stream, registered)) => self.run(stream, registered, local).await,
            Err(error) => self.turned_away(&error, remote),
        }
    }

    fn turned_away(&self, error: &HandshakeError, remote: SocketAddr) {
        let reason = match error {
            HandshakeError::Refused(refusal) => refusal.name(),
            HandshakeError::Stream(FrameStreamError::TooLarge) => Refusal::Malformed.name(),
            HandshakeError::Tls(error) if error.kind() == io::ErrorKind::UnexpectedEof => "closed",
            HandshakeError::Tls(_) | HandshakeError::Stream(FrameStreamError::Tls) => "tls",
            HandshakeError::Stream(FrameStreamError::Closed | FrameStreamError::Io(_))
            | HandshakeError::OtherNode { .. } => "closed",
        };
        // Three cases are normal: two nodes dial each other at once, a probe checks that the port is open, or a peer
        // dials the node that had this address before.
        let is_normal =
            reason == "closed" || matches!(error, HandshakeError::Refused(Refusal::Linked | Refusal::Leaving));
        if self.metrics.refused(reason) && !is_normal {
            warn!(
                %remote, reason, error = %chain(error),
                "refused a link; further refusals for this reason are only counted for a minute"
            );
        } else {
            debug!(%remote, reason, error = %chain(error), "refused a link");
        }
    }

    pub(super) async fn run<S>(
        &self,
        stream: FrameStream<S>,
        mut registered: RegisteredLink,
        local: &dyn LocalConnections,
    ) where
        S: Connection,
    {
        let link = Arc::clone(registered.link());
        let (node, advertise, dialled) = (link.peer.node, &*link.peer.advertise, link.dialled);
        info!(peer = %node, advertise, dialled, protocol = link.protocol, "linked to a peer");
        let end = drive(stream, &mut registered, local, self.lease() / 3).await;
        self.metrics.ended(end.name());
        match end {
            LinkEnd::Goodbye | LinkEnd::Left | LinkEnd::Stopped => {
                info!(peer = %node, advertise, end = end.name(), "the link to a peer is closed");
            }
            LinkEnd::Lost | LinkEnd::Silent | LinkEnd::Protocol => {
                warn!(peer = %node, advertise, end = end.name(), "the link to a peer is lost: pushes to it are answered 503");
            }
        }
    }

    fn handshake_timeout(&self) -> Duration {
        self.lease().min(HANDSHAKE_TIMEOUT_MAX)
    }

    fn silence(&self) -> Duration {
        self.handshake_timeout().min(SILENCE_MAX)
    }
}

fn is_dead(member: &ClusterMember) -> bool {
    matches!(member.key, NodeKey::Dead { .. })
}

/// Keeps the link to one peer: dials whenever there is none, whichever node dialled the last one.
async fn keep_one(links: Arc<Links>, member: ClusterMember, local: Arc<dyn LocalConnections>, gone: CancellationToken) {
    let mut attempts = Attempts::default();
    while !gone.is_cancelled() && !links.has_departed(&member.node) {
        let dialled = async {
            links.unlinked(&member.node).await;
            sleep(attempts.pause()).await;
            // The peer may have dialled meanwhile.
            if links.get(&member.node).is_some() { None } else { Some(dial(&links, &member).await) }
        };
        match gone.run_until_cancelled(dialled).await.flatten() {
            Some(Ok(dialled)) => {
                let started = Instant::now();
                // A link outlives the peer's place in the table: it ends by goodbye, or is stopped.
                match dialled {
                    Dialled::Plain(stream, registered) => links.run(stream, registered, &*local).await,
                    Dialled::Tls(stream, registered) => links.run(*stream, registered, &*local).await,
                }
                if started.elapsed() >= links.lease() {
                    attempts = Attempts::default();
                }
            }
            Some(Err(error)) => attempts.failed(&links, &member, &error),
            None => attempts = Attempts::default(),
        }
    }
    links.forget(&member.node);
}

/// A link that is up, and what it runs on.
enum Dialled {
    Plain(FrameStream<TcpStream>, RegisteredLink),
    Tls(Box<FrameStream<TlsStream<TcpStream>>>, RegisteredLink),
}

async fn dial(links: &Arc<Links>, member: &ClusterMember) -> Result<Dialled, DialError> {
    let dial = async {
        let stream = TcpStream::connect(&*member.advertise).await.map_err(DialError::Connect)?;
        stream.set_nodelay(true).map_err(DialError::Connect)?;
        let Some(tls) = &links.tls else {
            let (stream, registered) = dial_handshake(stream, links, member).await?;
            return Ok(Dialled::Plain(stream, registered));
        };
        let stream = Box::pin(tls.connect(&member.advertise, stream)).await;
        let stream = stream.map_err(|error| DialError::Handshake(HandshakeError::Tls(error)))?;
        let (stream, registered) = dial_handshake(stream, links, member).await?;
        Ok(Dialled::Tls(Box::new(stream), registered))
    };
    timeout(links.handshake_timeout(), dial).await.unwrap_or(Err(DialError::Timeout))
}

async fn dial_handshake<S>(
    stream: S,
    links: &Arc<Links>,
    member: &ClusterMember,
) -> Result<(FrameStream<S>, RegisteredLink), DialError>
where
    S: Connection,
{
    let mut stream = FrameStream::new(stream);
    let registered = handshake_io::dial(&mut stream, links, member.node).await.map_err(DialError::Handshake)?;
    Ok((stream, registered))
}

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("could not connect")]
    Connect(#[source] io::Error),
    #[error("the handshake failed")]
    Handshake(#[source] HandshakeError),
    #[error("no answer in time")]
    Timeout,
}

/// The attempts to dial one peer since it was last linked.
#[derive(Debug, Default)]
struct Attempts {
    failed: u32,
    warning: RepeatedWarning,
    /// Time since which another node has answered at the peer's address.
    other_node_since: Option<Instant>,
}

impl Attempts {
    fn pause(&self) -> Duration {
        let pause = PAUSE_MIN.saturating_mul(1_u32.checked_shl(self.failed).unwrap_or(u32::MAX)).min(PAUSE_MAX);
        // The first attempt is due now, but not for all nodes at the same moment.
        if self.failed == 0 { PAUSE_MIN.mul_f64(rand::random()) } else { pause.mul_f64(0.5 + rand::random::<f64>()) }
    }

    fn failed(&mut self, links: &Links, member: &ClusterMember, error: &DialError) {
        let (peer, advertise) = (member.node, &*member.advertise);
        if matches!(error, DialError::Handshake(HandshakeError::Refused(Refusal::Linked))) {
            // The peer's own dial has won.
            debug!(%peer, advertise, "the peer has dialled itself");
            return;
        }
        self.failed = self.failed.saturating_add(1);
        let text = chain(error).to_string();
        debug!(%peer, advertise, attempt = self.failed, error = text, "could not link to a peer");
        links.dial_failed(peer, text.clone());
        if let DialError::Handshake(HandshakeError::OtherNode { answered }) = error {
            // After a restart the node's old id stays known until its lease has run out. If both ids stay alive, two
            // nodes have the same address.
            let since = *self.other_node_since.get_or_insert_with(Instant::now);
            let table = links.membership.table();
            let is_alive = table.members.get(&peer).is_some_and(|member| member.lease_alive);
            if is_alive
                && since.elapsed() > links.lease() * 2
                && let Some(repeated) = self.warning.due("another node answers")
            {
                warn!(
                    %peer, advertise, %answered, repeated,
                    "two nodes have the same address in cluster.advertise: the node `answered` answers there, and \
                     pushes to `peer` are answered 503; give each node an address of its own"
                );
            }
            return;
        }
        self.other_node_since = None;
        let is_lasting = matches!(
            error,
            DialError::Handshake(
                HandshakeError::Refused(Refusal::Secret | Refusal::Protocol | Refusal::Malformed)
                    | HandshakeError::Tls(_)
                    | HandshakeError::Stream(FrameStreamError::Tls)
            )
        );
        if (is_lasting || self.failed >= ATTEMPTS_BEFORE_WARNING)
            && let Some(repeated) = self.warning.due(&text)
        {
            warn!(
                %peer, advertise, error = text, repeated,
                "cannot link to a peer: pushes to it are answered 503; retrying"
            );
        }
    }
}
