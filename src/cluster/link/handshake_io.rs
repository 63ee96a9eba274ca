use std::io;
use std::sync::Arc;
use std::time::Duration;

use rand::TryRng as _;
use rand::rngs::SysRng;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::frame_stream::{Wire, WireError};
use super::handshake::{Challenge, Hello, Introduction, NONCE_BYTES, Nonce, PROTOCOL, Refusal, Role, Transcript};
use super::links::Registered;
use super::strangers::Place;
use super::{Links, handshake};
use crate::id::NodeId;
use crate::secret::Secret;

/// The names by which a node introduces itself to every peer, and the secret that they share.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) introduction: Introduction,
    pub(super) protocol: (u16, u16),
    pub(super) secret: Secret,
}

/// The reason why a handshake failed.
#[derive(Debug, Error)]
pub(super) enum GreetError {
    #[error("refused")]
    Refused(#[source] Refusal),
    #[error("the TLS handshake failed; every node needs `cluster.tls`, and a certificate of the others' authorities")]
    Tls(#[source] io::Error),
    #[error("the connection failed during the handshake")]
    Wire(#[source] WireError),
    #[error("another node, {answered}, answers at the address")]
    OtherNode { answered: NodeId },
}

impl Identity {
    pub(super) fn new(node: NodeId, advertise: String, secret: Secret) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Identity { introduction: Introduction { node, advertise, version }, protocol: PROTOCOL, secret }
    }
}

/// The acceptor's side, for a stranger at `place` who says Hello within `silence`. The link is there before the dialler is
/// told so.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    links: &Arc<Links>,
    place: &Place,
    silence: Duration,
) -> Result<Registered, GreetError> {
    let result = accept_unless_refused(wire, links, place, silence).await;
    if let Err(GreetError::Refused(refusal)) = &result {
        // A hint for the operator of the other side, which may be gone.
        let _ = wire.send(&refusal.encode()).await;
    }
    result
}

async fn accept_unless_refused<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    links: &Arc<Links>,
    place: &Place,
    silence: Duration,
) -> Result<Registered, GreetError> {
    let identity = links.identity();
    let hello = timeout(silence, wire.receive()).await.map_err(|_| GreetError::Refused(Refusal::Timeout))?;
    let hello = hello.map_err(GreetError::Wire)?;
    let (Hello { from: peer, .. }, protocol) = Hello::decode(&hello, identity.protocol).map_err(GreetError::Refused)?;
    place.has_spoken();
    // The link that this peer has now is one that it knows of, or has lost, when it proves itself. A link that is there
    // later and was not there now is newer than this dial.
    let expected = links.expect(&peer.node).map_err(GreetError::Refused)?;
    let challenge = Challenge { protocol, nonce: nonce(), from: identity.introduction.clone() }.encode();
    wire.send(&challenge).await.map_err(GreetError::Wire)?;
    let transcript = Transcript { hello, challenge };
    let proof = wire.receive().await.map_err(GreetError::Wire)?;
    transcript.verify(Role::Dialler, &identity.secret, &proof).map_err(GreetError::Refused)?;
    let registered = links.accepted(peer, protocol, expected).map_err(GreetError::Refused)?;
    wire.send(&transcript.prove(Role::Acceptor, &identity.secret)).await.map_err(GreetError::Wire)?;
    wire.admit();
    Ok(registered)
}

/// Plays the dialler.
pub(super) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    links: &Arc<Links>,
    expected: NodeId,
) -> Result<Registered, GreetError> {
    let identity = links.identity();
    let hello = Hello { protocol: identity.protocol, nonce: nonce(), from: identity.introduction.clone() }.encode();
    wire.send(&hello).await.map_err(GreetError::Wire)?;
    let challenge = wire.receive().await.map_err(GreetError::Wire)?;
    let Challenge { protocol, from: peer, .. } =
        Challenge::decode(&challenge, identity.protocol).map_err(GreetError::Refused)?;
    if peer.node != expected {
        return Err(GreetError::OtherNode { answered: peer.node });
    }
    let commitment = links.commit(expected).map_err(GreetError::Refused)?;
    let transcript = Transcript { hello, challenge };
    wire.send(&transcript.prove(Role::Dialler, &identity.secret)).await.map_err(GreetError::Wire)?;
    let welcome = wire.receive().await.map_err(GreetError::Wire)?;
    transcript.verify(Role::Acceptor, &identity.secret, &welcome).map_err(GreetError::Refused)?;
    wire.admit();
    commitment.dialled(peer, protocol).map_err(GreetError::Refused)
}

fn nonce() -> Nonce {
    let mut nonce: handshake::Nonce = [0; NONCE_BYTES];
    SysRng.try_fill_bytes(&mut nonce).expect("the system has a random generator");
    nonce
}
