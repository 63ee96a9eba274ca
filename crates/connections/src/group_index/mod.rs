//! The group index: the keys in Redis that say which nodes have members of a group or a user, so that a message for a
//! group goes only to those. The index may be stale, so it is trusted only when it cannot hide a member:
//!
//! - A node whose part of the index is complete says so by a freshness lease, which lasts for a second by
//!   Redis's clock. A node without one is always asked, whatever the index says of it.
//! - A join waits until it is written in the index, or until the node's freshness lease has run out. So a member that a
//!   backend has been told of gets what is sent afterwards, from any node.
//! - When Redis does not answer, every node is asked.

mod index;
mod member_nodes;
pub mod scripts;
mod writing;

pub use index::GroupIndex;
pub use member_nodes::MemberNodes;
