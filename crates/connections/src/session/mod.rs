//! A live socket: the frames to be written ([`Outbox`]), the framing around them ([`Socket`]), the times that matter
//! ([`Deadlines`]) and the reason why it ends ([`Closing`]).
//!
//! A session knows no route and no backend. One task drives it and owns the [`Socket`]; all others hold the [`Outbox`].
//! An idle session holds one small read buffer, one timer and an empty outbox.

mod closing;
mod deadlines;
mod outbox;
mod socket;
mod socket_stream;

pub use closing::{Cause, Closing, REASON_MAX_BYTES};
pub use deadlines::{Deadlines, Due, Observed, TokenDeadline};
pub use outbox::{DataFrame, Delivery, Outbox, PostRefused, Receipts};
pub use socket::{Incoming, Socket, SocketSettings};
