//! Several nodes that behave as one gateway: this node's regular word with Redis ([`Beat`]), who is a member
//! ([`Membership`]), how nodes talk to each other ([`link`]), and where a call about another node's connection goes
//! ([`Cluster`]).
//!
//! A node registers in Redis, renews a lease, and looks at the others: `survey.rs` asks, `decide.rs` and `observe.rs` say
//! what the answers mean; `times.rs` is the table of all times. While Redis is away the node serves its clients on; it is told apart from a dead one by what
//! others can know: peers renew its lease for it ([`Peers`]). A node that is dead is condemned by the beat, and the
//! [`Reaper`] takes over its connections.

mod beat;
mod decide;
mod directory;
mod handle;
mod index;
pub mod link;
mod membership;
mod observe;
mod peers;
mod reaper;
mod settings;
mod survey;
mod times;

pub use beat::{Beat, BeatHandle, BeatSettings};
pub use directory::{Directory, DirectoryError, NodeView};
pub use handle::{Cluster, Others, Owner, StartError};
pub use membership::{Member, Membership, NodeKey, RefreshRequests, Standing, Table};
pub use peers::{Peers, Relayed, Wanted, renew_for, serve_renewals};
pub use reaper::{Reaper, ReaperSettings};
pub use settings::ClusterSettings;
pub use times::Times;
