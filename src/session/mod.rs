//! One live socket: what is to be written ([`Outbox`]), the framing around it ([`Socket`]), the times that matter
//! ([`Deadlines`]) and why it ends ([`Closing`]).
//!
//! A session knows no route and no backend. It is driven by one task, which owns the [`Socket`]; everybody else
//! holds the [`Outbox`]. An idle session holds one small read buffer, one timer and an empty outbox.

mod closing;
mod deadlines;
mod outbox;
mod socket;
mod wire;

pub use closing::Closing;
pub use deadlines::{Deadlines, Due, Observed, TokenDeadline};
pub use outbox::{Delivery, Frame, Outbox, PostRefused, Receipts};
pub use socket::{Incoming, Socket, SocketSettings};
