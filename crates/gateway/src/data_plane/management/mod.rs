//! The calls of backends: `@connections` for one connection; `@groups`, `@users`, `@broadcast` and `@send` for many.
//!
//! [`handle`] is the flow of every call. `operation_kind.rs` has the table of all operations; `operation.rs` parses the
//! values of a call once it is authorized; the other files carry out one operation, or a pair, each. `authorize.rs`,
//! `headers.rs` and `request_body.rs` are steps of the flow, and `call.rs` records the call.
//!
//! A call for a connection of another node is forwarded to that node, once. A message to many goes to each node once,
//! and each node fans it out to its own connections (`delivery/fan_out.rs`).

mod authorize;
mod call;
pub(super) mod change_membership;
pub(super) mod delete_connection;
pub(super) mod delete_user;
pub(super) mod get_connection;
pub(super) mod get_connection_groups;
mod handle;
mod headers;
pub(super) mod list_members;
mod operation;
mod operation_kind;
mod post_to_audience;
mod post_to_connection;
mod request_body;
pub(super) mod send;

pub use call::{CallRecord, CallRight};
pub use change_membership::Change;
pub use delete_connection::CloseRequest;
pub use handle::{CallHead, CallerRule, handle};
pub use list_members::PageRequest;
pub use operation::Operation;
pub use operation_kind::{BodyKind, OPERATIONS, OperationKind};
pub use send::Batch;
