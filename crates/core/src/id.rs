//! Identifiers that the gateway generates: of nodes, connections and events.
//!
//! Differs from AWS: a connection id has 20 characters (14 bytes) and begins with the id of the node that holds the
//! connection, so that a push reaches its node without a lookup.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use rand::rngs::SysRng;
use rand::{Rng as _, TryRng as _};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Length of a node id, in bytes.
pub const NODE_ID_BYTES: usize = 6;
const NODE_ID_CHARS: usize = 8;
/// Length of a connection id before it is text, in bytes.
pub const CONNECTION_ID_BYTES: usize = 14;
const CONNECTION_ID_CHARS: usize = 20;
const EVENT_ID_BYTES: usize = 11;
const EVENT_ID_CHARS: usize = 16;

/// The id of one start of the process: 48 random bits. As text it is 8 base64url characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId([u8; NODE_ID_BYTES]);

/// The id of a connection: the id of its node and 64 random bits. As text it is 20 base64url characters, the last one
/// `=`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId([u8; CONNECTION_ID_BYTES]);

/// The id of an event, message or request: 11 bytes. As text it is 16 base64url characters, the last one `=`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventId([u8; EVENT_ID_CHARS]);

/// The error for a text that is not a connection id of this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a connection id: 20 base64url characters ending in `=`")]
pub struct InvalidConnectionId;

/// The error for a text that is not a node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a node id: 8 base64url characters")]
pub struct InvalidNodeId;

impl NodeId {
    /// Draws a new id from the system's generator.
    pub fn random() -> Self {
        NodeId(system_random())
    }

    /// Parses an id. Each id has one spelling.
    ///
    /// # Errors
    /// Returns [`InvalidNodeId`] if the text has another length, or a character outside base64url.
    pub fn parse(text: &str) -> Result<Self, InvalidNodeId> {
        let mut bytes = [0; NODE_ID_BYTES];
        match URL_SAFE.decode_slice(text, &mut bytes) {
            Ok(NODE_ID_BYTES) if text.len() == NODE_ID_CHARS => Ok(NodeId(bytes)),
            Ok(_) | Err(_) => Err(InvalidNodeId),
        }
    }

    /// Returns the id as the lower 48 bits of a number.
    pub fn to_bits(self) -> u64 {
        self.0.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }

    /// Returns the id with the 48 lower bits of `bits`.
    pub fn from_bits(bits: u64) -> Self {
        let mut bytes = [0; NODE_ID_BYTES];
        bytes.copy_from_slice(&bits.to_be_bytes()[8 - NODE_ID_BYTES..]);
        NodeId(bytes)
    }
    /// Returns the id with these bytes.
    pub fn from_bytes(bytes: [u8; NODE_ID_BYTES]) -> Self {
        NodeId(bytes)
    }

    /// Returns the bytes of the id, as they are sent to peers.
    pub fn to_bytes(self) -> [u8; NODE_ID_BYTES] {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE.encode(self.0))
    }
}

impl ConnectionId {
    /// Draws a new id for a connection of `node`, from the system's generator.
    pub fn random(node: NodeId) -> Self {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        bytes[..NODE_ID_BYTES].copy_from_slice(&node.0);
        bytes[NODE_ID_BYTES..].copy_from_slice(&system_random::<{ CONNECTION_ID_BYTES - NODE_ID_BYTES }>());
        ConnectionId(bytes)
    }

    /// Parses an id. Each id has one spelling.
    ///
    /// # Errors
    /// Returns [`InvalidConnectionId`] if the text has another length, a character outside base64url, or unused bits
    /// that are not zero.
    pub fn parse(text: &str) -> Result<Self, InvalidConnectionId> {
        if text.len() != CONNECTION_ID_CHARS {
            return Err(InvalidConnectionId);
        }
        let mut bytes = [0; CONNECTION_ID_BYTES];
        // The engine requires exact padding and refuses trailing bits, so one connection has one spelling.
        match URL_SAFE.decode_slice(text, &mut bytes) {
            Ok(CONNECTION_ID_BYTES) => Ok(ConnectionId(bytes)),
            Ok(_) | Err(_) => Err(InvalidConnectionId),
        }
    }

    /// Returns the id with these bytes.
    pub fn from_bytes(bytes: [u8; CONNECTION_ID_BYTES]) -> Self {
        ConnectionId(bytes)
    }

    /// Returns the bytes of the id, as they are sent to peers.
    pub fn to_bytes(self) -> [u8; CONNECTION_ID_BYTES] {
        self.0
    }

    /// Returns the node that holds the connection.
    pub fn node(&self) -> NodeId {
        let mut bytes = [0; NODE_ID_BYTES];
        bytes.copy_from_slice(&self.0[..NODE_ID_BYTES]);
        NodeId(bytes)
    }

    /// Returns the bucket of the connection's record, from 0 to 15: the upper half of the first random byte.
    pub fn bucket(&self) -> u8 {
        self.0[NODE_ID_BYTES] >> 4
    }

    /// Returns the id of the connection's `$disconnect` event. The id is computed from the connection id, so every node
    /// that sends the event uses the same one.
    pub fn disconnect_event(&self) -> EventId {
        let mut hash = Sha256::new();
        hash.update(b"tidegate/disconnect/1");
        hash.update(self.0);
        let digest = hash.finalize();
        let mut bytes = [0; EVENT_ID_BYTES];
        bytes.copy_from_slice(&digest[..EVENT_ID_BYTES]);
        EventId::encode(bytes)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; CONNECTION_ID_CHARS];
        encode(&self.0, &mut text);
        f.write_str(ascii(&text))
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl EventId {
    /// Draws a new id.
    pub fn random() -> Self {
        let mut bytes = [0; EVENT_ID_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        EventId::encode(bytes)
    }

    /// Returns the text of the id.
    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }

    fn encode(bytes: [u8; EVENT_ID_BYTES]) -> Self {
        let mut text = [0; EVENT_ID_CHARS];
        encode(&bytes, &mut text);
        EventId(text)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Encodes `bytes` into `text`, which must be exactly as long as the padded encoding.
fn encode(bytes: &[u8], text: &mut [u8]) {
    URL_SAFE.encode_slice(bytes, text).expect("the text has the length of the encoding");
}

fn ascii(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("base64 is ASCII")
}

fn system_random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).expect("the system has a random generator");
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_connection_id_is_20_characters_and_names_its_node() {
        let node = NodeId::random();
        let id = ConnectionId::random(node);
        let text = id.to_string();
        assert_eq!(text.len(), 20);
        assert!(text.ends_with('='));
        assert!(text.starts_with(&node.to_string()));
        assert_eq!(ConnectionId::parse(&text), Ok(id));
        assert_eq!(id.node(), node);
    }

    #[test]
    fn a_node_id_survives_its_text_and_its_bits() {
        let node = NodeId::random();
        assert_eq!(NodeId::parse(&node.to_string()), Ok(node));
        assert_eq!(NodeId::from_bits(node.to_bits()), node);
        for text in ["", "AAAAAAA", "AAAAAAA=", "AAAAAAAAA", "AAAAAA==", "AAAAAAA+", "äAAAAAA"] {
            assert_eq!(NodeId::parse(text), Err(InvalidNodeId), "{text}");
        }
    }

    #[test]
    fn the_bucket_is_four_bits_behind_the_node_id() {
        assert_eq!(ConnectionId::parse("AAAAAAAAAAAAAAAAAAA=").unwrap().bucket(), 0);
        assert_eq!(ConnectionId::parse("AAAAAAAA8AAAAAAAAAA=").unwrap().bucket(), 15);
    }

    #[test]
    fn only_the_one_spelling_of_an_id_is_read() {
        let check = |text: &str, readable: bool| assert_eq!(ConnectionId::parse(text).is_ok(), readable, "{text:?}");
        check("AAAAAAAAAAAAAAAAAAA=", true);
        check("AAAAAAAAAAAAAAAAAAB=", false); // unused bits
        check("AAAAAAAAAAAAAAAAAAA", false);
        check("AAAAAAAAAAAAAAAAAAAA", false); // 15 bytes
        check("AAAAAAAAAAAAAAAAAA==", false); // 13 bytes
        check("AAAAAAAAAAAAAAAAAA+=", false); // the other alphabet
        check("AAAA AAAAAAAAAAAAAA=", false);
        check("", false);
        check("äAAAAAAAAAAAAAAAAA=", false);
    }

    #[test]
    fn the_event_id_of_a_disconnect_is_computed_from_the_connection_id() {
        let id = ConnectionId::parse("AAAAAAAAAAAAAAAAAAA=").unwrap();
        // printf 'tidegate/disconnect/1' | cat - <(head -c 14 /dev/zero) | sha256sum, first 11 bytes
        assert_eq!(id.disconnect_event(), id.disconnect_event());
        assert_eq!(id.disconnect_event().as_str(), "o85zt-exiIJdVNg=");
        assert_ne!(id.disconnect_event().as_str(), EventId::random().as_str());
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(text in "[A-Za-z0-9_=-]{18,22}") {
            if let Ok(id) = ConnectionId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let _ = ConnectionId::parse(&text);
        }
    }
}
