//! Several nodes that behave as one gateway: who is a member ([`Membership`]), and how this node is told apart.

mod membership;
mod settings;

pub use membership::{Member, Membership, NodeKey, RefreshRequests, Standing, Table};
pub use settings::ClusterSettings;
