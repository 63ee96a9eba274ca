//! Several nodes that behave as one gateway: the heartbeat with Redis ([`Heartbeat`]), the table of the cluster's nodes
//! ([`Membership`]), the connections between nodes ([`link`]), and the way of a call about another node's connection
//! ([`Cluster`]).
//!
//! A node registers in Redis, renews its lease, and looks at the other nodes: `survey.rs` sends the commands,
//! `node_state.rs`, `decide.rs` and `observe.rs` decide what the answers mean, and `times.rs` is the table of all
//! times. While Redis is away the node goes on serving its clients. Other nodes can tell it from a dead one, because
//! peers that reach Redis renew its lease for it ([`Peers`]). The heartbeat condemns a node that is dead, and the
//! [`Reaper`] takes over its connections.

mod decide;
mod directory;
mod heartbeat;
pub mod link;
mod membership;
mod node_index;
mod node_state;
mod observe;
mod peer_lease;
pub mod reaper;
mod recent_nodes;
mod routing;
pub mod scripts;
mod settings;
mod survey;
mod times;

pub use directory::{Directory, DirectoryError, NodeView};
pub use heartbeat::{Heartbeat, HeartbeatHandle, HeartbeatSettings};
pub use membership::{ClusterMember, Membership, NodeTable, RefreshRequests, Standing};
pub use peer_lease::{PeerLease, Peers, RelayedRenewal, renew_for, serve_renewals};
pub use reaper::{Reaper, ReaperSettings};
pub use routing::{Cluster, ClusterStartError, OtherNodes, Owner};
pub use settings::ClusterSettings;
pub use times::Times;
