use std::io;
use std::sync::Arc;
use std::time::Duration;

use rand::TryRng as _;
use rand::rngs::SysRng;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::frame_stream::{FrameStream, FrameStreamError};
use super::handshake::{Challenge, Hello, Introduction, NONCE_BYTES, Nonce, PROTOCOL, Refusal, Role, Transcript};
use super::links::RegisteredLink;
use super::strangers::StrangerSlot;
use super::{Links, handshake};
use tidegate_core::id::NodeId;
use tidegate_core::secret::Secret;

/// The names by which a node introduces itself to every peer, and the secret that they share.
#[derive(Clone, Debug)]
pub(super) struct NodeIdentity {
    pub(super) introduction: Introduction,
    pub(super) protocol: (u16, u16),
    pub(super) secret: Secret,
}

/// The reason why a handshake failed.
#[derive(Debug, Error)]
pub(super) enum HandshakeError {
    #[error("refused")]
    Refused(#[source] Refusal),
    #[error("the TLS handshake failed; every node needs `cluster.tls`, and a certificate of the others' authorities")]
    Tls(#[source] io::Error),
    #[error("the connection failed during the handshake")]
    Stream(#[source] FrameStreamError),
    #[error("another node, {answered}, answers at the address")]
    OtherNode { answered: NodeId },
}

impl NodeIdentity {
    pub(super) fn new(node: NodeId, advertise: String, secret: Secret) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        NodeIdentity { introduction: Introduction { node, advertise, version }, protocol: PROTOCOL, secret }
    }
}

/// Carries out the acceptor's side of the handshake with the stranger at `place`, which must send Hello within
/// `silence`. The link is registered before the dialler gets its Welcome.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut FrameStream<S>,
    links: &Arc<Links>,
    place: &StrangerSlot,
    silence: Duration,
) -> Result<RegisteredLink, HandshakeError> {
    let result = accept_unless_refused(stream, links, place, silence).await;
    if let Err(HandshakeError::Refused(refusal)) = &result {
        // A hint for the operator of the other side, which may be gone.
        let _ = stream.send(&refusal.encode()).await;
    }
    result
}

async fn accept_unless_refused<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut FrameStream<S>,
    links: &Arc<Links>,
    place: &StrangerSlot,
    silence: Duration,
) -> Result<RegisteredLink, HandshakeError> {
    let identity = links.identity();
    let hello = timeout(silence, stream.receive()).await.map_err(|_| HandshakeError::Refused(Refusal::Timeout))?;
    let hello = hello.map_err(HandshakeError::Stream)?;
    let (Hello { from: peer, .. }, protocol) =
        Hello::decode(&hello, identity.protocol).map_err(HandshakeError::Refused)?;
    place.has_spoken();
    // The link that this peer has now is one that it knows of, or has lost, when it proves itself. A link that is there
    // later and was not there now is newer than this dial.
    let expected = links.expect(&peer.node).map_err(HandshakeError::Refused)?;
    let challenge = Challenge { protocol, nonce: nonce(), from: identity.introduction.clone() }.encode();
    stream.send(&challenge).await.map_err(HandshakeError::Stream)?;
    let transcript = Transcript { hello, challenge };
    let proof = stream.receive().await.map_err(HandshakeError::Stream)?;
    transcript.verify(Role::Dialler, &identity.secret, &proof).map_err(HandshakeError::Refused)?;
    let registered = links.accepted(peer, protocol, expected).map_err(HandshakeError::Refused)?;
    stream.send(&transcript.prove(Role::Acceptor, &identity.secret)).await.map_err(HandshakeError::Stream)?;
    stream.admit();
    Ok(registered)
}

/// Plays the dialler.
pub(super) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut FrameStream<S>,
    links: &Arc<Links>,
    expected: NodeId,
) -> Result<RegisteredLink, HandshakeError> {
    let identity = links.identity();
    let hello = Hello { protocol: identity.protocol, nonce: nonce(), from: identity.introduction.clone() }.encode();
    stream.send(&hello).await.map_err(HandshakeError::Stream)?;
    let challenge = stream.receive().await.map_err(HandshakeError::Stream)?;
    let Challenge { protocol, from: peer, .. } =
        Challenge::decode(&challenge, identity.protocol).map_err(HandshakeError::Refused)?;
    if peer.node != expected {
        return Err(HandshakeError::OtherNode { answered: peer.node });
    }
    let commitment = links.commit(expected).map_err(HandshakeError::Refused)?;
    let transcript = Transcript { hello, challenge };
    stream.send(&transcript.prove(Role::Dialler, &identity.secret)).await.map_err(HandshakeError::Stream)?;
    let welcome = stream.receive().await.map_err(HandshakeError::Stream)?;
    transcript.verify(Role::Acceptor, &identity.secret, &welcome).map_err(HandshakeError::Refused)?;
    stream.admit();
    commitment.dialled(peer, protocol).map_err(HandshakeError::Refused)
}

fn nonce() -> Nonce {
    let mut nonce: handshake::Nonce = [0; NONCE_BYTES];
    SysRng.try_fill_bytes(&mut nonce).expect("the system has a random generator");
    nonce
}
