//! The handshake by which two nodes prove to each other that they know the secret, before they exchange anything else.
//! This code does no I/O: callers pass nonces and get bytes.
//!
//! ```text
//! dialler                                     acceptor
//! Hello     'H' magic lowest highest nonce node advertise version
//!                                             Challenge 'C' protocol nonce node advertise version
//! Proof     'P' HMAC(secret, dialler …)
//!                                             Welcome   'W' HMAC(secret, acceptor …)
//!                                          or Refused   'R' reason
//! ```
//!
//! Each HMAC covers the role of the side that computes it and every byte of Hello and Challenge, so both nonces, both
//! node ids and all versions: nothing can be replayed, reflected or downgraded. The dialler proves itself first, so a
//! stranger on the port learns nothing that depends on the secret. Hello begins alike in every version of the protocol.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut, TryGetError};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use thiserror::Error;

use super::codec::{MalformedField, end, put_short_text, short_text};
use tidegate_core::id::{NODE_ID_BYTES, NodeId};
use tidegate_core::secret::Secret;

/// The lowest and the highest protocol that this program speaks.
pub const PROTOCOL: (u16, u16) = (1, 3);

/// Largest frame before the handshake is done, in bytes.
pub(super) const HANDSHAKE_FRAME_MAX_BYTES: usize = 1024;

pub(super) const NONCE_BYTES: usize = 32;
const PROOF_BYTES: usize = 32;
const MAGIC: &[u8; 8] = b"tidegate";

const HELLO: u8 = b'H';
const CHALLENGE: u8 = b'C';
const PROOF: u8 = b'P';
const WELCOME: u8 = b'W';
const REFUSED: u8 = b'R';

pub(super) type Nonce = [u8; NONCE_BYTES];

/// The names by which a node introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    pub node: NodeId,
    /// Host and port at which its peers reach it.
    pub advertise: String,
    /// Version of its program.
    pub version: String,
}

/// The side of the handshake that computes a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Dialler,
    Acceptor,
}

/// The reason why there is no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    #[error("the other side does not speak the link protocol")]
    Malformed,
    #[error("no common version of the link protocol")]
    Protocol,
    #[error("the other side does not know the secret of this cluster")]
    Secret,
    #[error("the other side has the id of this node")]
    OwnId,
    #[error("the two nodes have a link already")]
    Linked,
    #[error("the node is dead or has left")]
    Departed,
    #[error("this node leaves the cluster")]
    Leaving,
    #[error("the handshake took too long")]
    Timeout,
    #[error("too many handshakes at once")]
    Busy,
}

/// The first frame of a dialler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) protocol: (u16, u16),
    pub(super) nonce: Nonce,
    pub(super) from: Introduction,
}

/// The acceptor's answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) protocol: u16,
    pub(super) nonce: Nonce,
    pub(super) from: Introduction,
}

/// Hello and Challenge, byte for byte as they were sent: both sides prove that they have seen the same.
pub(super) struct Transcript {
    pub(super) hello: Bytes,
    pub(super) challenge: Bytes,
}

impl Hello {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(HELLO);
        out.put_slice(MAGIC);
        out.put_u16(self.protocol.0);
        out.put_u16(self.protocol.1);
        out.put_slice(&self.nonce);
        self.from.encode(&mut out);
        out.freeze()
    }

    /// Reads a Hello, and chooses the highest protocol that both sides speak.
    pub(super) fn decode(frame: &[u8], own: (u16, u16)) -> Result<(Self, u16), Refusal> {
        let mut rest = frame;
        let mut magic = [0; MAGIC.len()];
        if rest.try_get_u8()? != HELLO {
            return Err(Refusal::Malformed);
        }
        rest.try_copy_to_slice(&mut magic)?;
        if magic != *MAGIC {
            return Err(Refusal::Malformed);
        }
        let protocol = (rest.try_get_u16()?, rest.try_get_u16()?);
        // The following fields may look different in a version that this node does not speak.
        let common = common_protocol(own, protocol).ok_or(Refusal::Protocol)?;
        let mut nonce = [0; NONCE_BYTES];
        rest.try_copy_to_slice(&mut nonce)?;
        Ok((Hello { protocol, nonce, from: Introduction::decode(rest)? }, common))
    }
}

impl Challenge {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(CHALLENGE);
        out.put_u16(self.protocol);
        out.put_slice(&self.nonce);
        self.from.encode(&mut out);
        out.freeze()
    }

    pub(super) fn decode(frame: &[u8], own: (u16, u16)) -> Result<Self, Refusal> {
        let mut rest = frame;
        match rest.try_get_u8()? {
            CHALLENGE => {}
            REFUSED => return Err(refusal(rest)),
            _ => return Err(Refusal::Malformed),
        }
        let protocol = rest.try_get_u16()?;
        if !(own.0..=own.1).contains(&protocol) {
            return Err(Refusal::Protocol);
        }
        let mut nonce = [0; NONCE_BYTES];
        rest.try_copy_to_slice(&mut nonce)?;
        Ok(Challenge { protocol, nonce, from: Introduction::decode(rest)? })
    }
}

impl Introduction {
    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&self.node.to_bytes());
        put_short_text(out, &self.advertise);
        put_short_text(out, &self.version);
    }

    fn decode(mut rest: &[u8]) -> Result<Self, Refusal> {
        let mut node = [0; NODE_ID_BYTES];
        rest.try_copy_to_slice(&mut node)?;
        let (advertise, version) = (short_text(&mut rest)?.to_owned(), short_text(&mut rest)?.to_owned());
        Ok(end(rest, Introduction { node: NodeId::from_bytes(node), advertise, version })?)
    }
}

impl Transcript {
    /// Returns the frame by which `role` proves that it knows the secret.
    pub(super) fn prove(&self, role: Role, secret: &Secret) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(role.frame());
        out.put_slice(&self.code(role, secret).finalize().into_bytes());
        out.freeze()
    }

    /// Checks that `frame` is the one by which `role` proves itself. Takes the same time however much of it is right.
    pub(super) fn verify(&self, role: Role, secret: &Secret, frame: &[u8]) -> Result<(), Refusal> {
        let mut rest = frame;
        let kind = rest.try_get_u8()?;
        if kind == REFUSED && role == Role::Acceptor {
            return Err(refusal(rest));
        }
        if kind != role.frame() || rest.len() != PROOF_BYTES {
            return Err(Refusal::Malformed);
        }
        self.code(role, secret).verify_slice(rest).map_err(|_| Refusal::Secret)
    }

    fn code(&self, role: Role, secret: &Secret) -> Hmac<Sha256> {
        let mut code =
            Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
        code.update(match role {
            Role::Dialler => b"tidegate/link/dialler",
            Role::Acceptor => b"tidegate/link/acceptor",
        });
        for part in [&self.hello, &self.challenge] {
            code.update(&(part.len() as u64).to_be_bytes());
            code.update(part);
        }
        code
    }
}

impl Role {
    fn frame(self) -> u8 {
        match self {
            Role::Dialler => PROOF,
            Role::Acceptor => WELCOME,
        }
    }
}

impl Refusal {
    /// Returns the frame that tells the dialler the reason.
    pub(super) fn encode(self) -> Bytes {
        Bytes::copy_from_slice(&[REFUSED, self.code()])
    }

    fn code(self) -> u8 {
        match self {
            Refusal::Malformed => 0,
            Refusal::Protocol => 1,
            Refusal::Secret => 2,
            Refusal::OwnId => 3,
            Refusal::Linked => 4,
            Refusal::Departed => 5,
            Refusal::Leaving => 6,
            Refusal::Timeout => 7,
            Refusal::Busy => 8,
        }
    }

    /// Returns its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::Protocol => "protocol",
            Refusal::Secret => "secret",
            Refusal::OwnId => "ownId",
            Refusal::Linked => "linked",
            Refusal::Departed => "departed",
            Refusal::Leaving => "leaving",
            Refusal::Timeout => "timeout",
            Refusal::Busy => "busy",
        }
    }
}

/// Reads the reason that the acceptor gives for its refusal. It is not authenticated: only a hint.
fn refusal(rest: &[u8]) -> Refusal {
    let all = [
        Refusal::Protocol,
        Refusal::Secret,
        Refusal::OwnId,
        Refusal::Linked,
        Refusal::Departed,
        Refusal::Leaving,
        Refusal::Timeout,
        Refusal::Busy,
    ];
    all.into_iter().find(|refusal| rest == [refusal.code()]).unwrap_or(Refusal::Malformed)
}

/// Returns the highest protocol in both ranges.
pub(super) fn common_protocol(own: (u16, u16), other: (u16, u16)) -> Option<u16> {
    let highest = own.1.min(other.1);
    (highest >= own.0.max(other.0)).then_some(highest)
}

impl From<MalformedField> for Refusal {
    fn from(_: MalformedField) -> Self {
        Refusal::Malformed
    }
}

impl From<TryGetError> for Refusal {
    fn from(_: TryGetError) -> Self {
        Refusal::Malformed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn introduction() -> Introduction {
        Introduction { node: NodeId::random(), advertise: "10.0.0.7:8082".to_owned(), version: "0.1.0".to_owned() }
    }

    fn hello(protocol: (u16, u16)) -> Hello {
        Hello { protocol, nonce: [1; NONCE_BYTES], from: introduction() }
    }

    fn challenge() -> Challenge {
        Challenge { protocol: 1, nonce: [2; NONCE_BYTES], from: introduction() }
    }

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[test]
    fn what_is_said_is_heard() {
        let (hello, challenge) = (hello((1, 3)), challenge());
        assert_eq!(Hello::decode(&hello.encode(), PROTOCOL), Ok((hello, PROTOCOL.1)));
        assert_eq!(Challenge::decode(&challenge.encode(), PROTOCOL), Ok(challenge));
    }

    #[test]
    fn the_highest_common_protocol_is_spoken() {
        let check = |own, other, expected| {
            assert_eq!(common_protocol(own, other), expected, "{own:?} {other:?}");
            assert_eq!(common_protocol(other, own), expected, "{other:?} {own:?}");
        };
        check((1, 1), (1, 1), Some(1));
        check((1, 2), (1, 1), Some(1));
        check((1, 3), (2, 5), Some(3));
        check((2, 2), (1, 1), None);
        check((3, 4), (5, 9), None);
        check((2, 1), (1, 2), None); // an empty range
    }

    #[test]
    fn an_older_or_newer_protocol_is_refused_whatever_follows() {
        for protocol in [(0, 0), (4, 9)] {
            let hello = hello(protocol).encode();
            assert_eq!(Hello::decode(&hello, PROTOCOL), Err(Refusal::Protocol));
            assert_eq!(Hello::decode(&hello[..13], PROTOCOL), Err(Refusal::Protocol));
            let challenge = Challenge { protocol: protocol.1, ..challenge() };
            assert_eq!(Challenge::decode(&challenge.encode(), PROTOCOL), Err(Refusal::Protocol));
        }
    }

    #[test]
    fn a_proof_holds_for_its_role_its_secret_and_its_transcript_alone() {
        let right = secret("0123456789abcdef");
        let transcript = Transcript { hello: hello((1, 1)).encode(), challenge: challenge().encode() };
        for (role, other) in [(Role::Dialler, Role::Acceptor), (Role::Acceptor, Role::Dialler)] {
            let proof = transcript.prove(role, &right);
            assert_eq!(transcript.verify(role, &right, &proof), Ok(()));
            assert_eq!(transcript.verify(role, &secret("0123456789abcdeF"), &proof), Err(Refusal::Secret));
            assert_eq!(transcript.verify(other, &right, &proof), Err(Refusal::Malformed));
            // The same code in the other role's frame: reflected.
            let mut reflected = proof.to_vec();
            reflected[0] = other.frame();
            assert_eq!(transcript.verify(other, &right, &reflected), Err(Refusal::Secret));
            for length in 0..proof.len() {
                assert!(transcript.verify(role, &right, &proof[..length]).is_err());
            }
        }
        // Replayed at another handshake, or with anything in it changed.
        let proof = transcript.prove(Role::Dialler, &right);
        for position in 0..transcript.hello.len() + transcript.challenge.len() {
            let (mut hello, mut challenge) = (transcript.hello.to_vec(), transcript.challenge.to_vec());
            match position.checked_sub(hello.len()) {
                None => hello[position] ^= 1,
                Some(position) => challenge[position] ^= 1,
            }
            let changed = Transcript { hello: hello.into(), challenge: challenge.into() };
            assert_eq!(changed.verify(Role::Dialler, &right, &proof), Err(Refusal::Secret));
        }
    }

    #[test]
    fn words_that_are_cut_short_or_too_long_are_refused() {
        let (hello, challenge) = (hello((1, 1)).encode(), challenge().encode());
        for length in 0..hello.len() {
            assert_eq!(Hello::decode(&hello[..length], PROTOCOL), Err(Refusal::Malformed), "{length}");
        }
        for length in 0..challenge.len() {
            assert_eq!(Challenge::decode(&challenge[..length], PROTOCOL), Err(Refusal::Malformed), "{length}");
        }
        assert_eq!(Hello::decode(&[&hello[..], &[0]].concat(), PROTOCOL), Err(Refusal::Malformed));
        assert_eq!(Hello::decode(b"GET / HTTP/1.1\r\n\r\n", PROTOCOL), Err(Refusal::Malformed));
        assert_eq!(Challenge::decode(&Refusal::Linked.encode(), PROTOCOL), Err(Refusal::Linked));
    }

    #[test]
    fn the_longest_words_fit_into_a_frame() {
        let from = Introduction { advertise: "a".repeat(300), version: "v".repeat(300), ..introduction() };
        let hello = Hello { from, ..hello((1, 1)) };
        assert!(hello.encode().len() <= HANDSHAKE_FRAME_MAX_BYTES);
        assert!(Hello::decode(&hello.encode(), PROTOCOL).is_ok());
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Hello::decode(&bytes, PROTOCOL);
            let _ = Challenge::decode(&bytes, PROTOCOL);
        }
    }
}
