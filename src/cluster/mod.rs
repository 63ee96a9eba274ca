//! Several nodes that behave as one gateway: who is a member ([`Membership`]), how nodes talk to each other ([`link`]),
//! and where a call about another node's connection goes ([`Cluster`]).

mod handle;
pub mod link;
mod membership;
mod settings;

pub use handle::{Cluster, Owner, StartError};
pub use membership::{Member, Membership, NodeKey, RefreshRequests, Standing, Table};
pub use settings::{ClusterSettings, Secret};
