//! Links between nodes: one long-lived TCP connection for each pair, over which calls of `@connections` reach the node
//! that holds the connection.
//!
//! - [`Links`] keeps them: it dials every member of the table, accepts, refuses, and says goodbye.
//! - [`Link`] is one link. Callers use it with [`Link::call`].
//! - [`GroupRequest`] is the request of a frame of kind 32: each node answers for its own connections.
//! - [`LocalConnections`] is the trait by which this node answers the calls of its peers.
//!
//! A link begins with a handshake (`handshake.rs`), in which both sides prove that they know `cluster.secret`. Then
//! both send frames: four bytes of length, one byte of kind, and the fields of the kind. Numbers are big-endian; a text
//! follows one byte of length (`codec.rs`). A target is connection id (14), api id (text) and one byte of flags. With flag 1, trace
//! id (16) and span id (8) follow. With flag 2, since protocol 3, two bytes of length and the names of the stages to
//! which the connection must belong (texts) follow.
//!
//! | kind | frame | fields |
//! | --- | --- | --- |
//! | 1, 2 | POST of text, of binary data | call id (8), target, the data |
//! | 3 | GET | call id, target |
//! | 4 | DELETE | call id, target, code (2), reason (text) |
//! | 5 | answers | for each: call id (8), outcome (1) |
//! | 6 | description, answering a GET | call id (8), the JSON |
//! | 7, 8 | ping, pong | |
//! | 9 | goodbye | |
//! | 10 | renewal, since protocol 2; answered by a description | call id (8), epoch (8), lease in ms (4) |
//! | 32 | request about many connections, answered by a frame of kind 6 | call id (8), length (4) and bytes of the request, the data |
//!
//! Invariants:
//!
//! - Calls reach the owner in the order in which they were made, and are acted on in that order.
//! - Each call gets one answer, or one of three errors: not sent, unknown, or gone.
//! - Everything that waits for a link goes out in one write, and large bodies are not copied.
//! - Everything is bounded: frames, calls in flight, bytes queued, handshakes at once.
//!
//! With `cluster.tls` a link is TLS from its first byte, and both sides show certificates. Without it nothing is
//! encrypted or authenticated after the handshake: the network between nodes has to be private.

mod call;
mod codec;
mod driver;
mod frame;
mod frame_stream;
mod group_answer;
mod group_request;
mod handle;
mod handshake;
mod handshake_io;
mod keep;
mod links;
mod peer_outcome;
mod renewal;
mod strangers;
#[cfg(test)]
mod tests;

pub use call::{Action, Caller, LocalConnections, PeerAnswer, PeerCall, PeerCallError, PeerRequest};
pub use driver::LinkEnd;
pub use frame::{FRAME_MAX_BYTES, LinkFrame, MalformedFrame, Target, encode_answers};
pub use group_answer::{ChangeResult, GroupNames, MemberPage, PushResult};
pub use group_request::{GroupRequest, MalformedGroupRequest};
pub use handle::{Link, LinkLoad, PendingCall};
pub use handshake::{Introduction, PROTOCOL, Refusal};
pub use links::{Links, PeerLink, PeerView};
pub use peer_outcome::{PeerOutcome, PeerOutcomes};
pub use renewal::{RenewalRequest, RenewalRequests};
