use std::sync::Arc;

use bytes::Bytes;

use super::delete_connection::close;
use super::get_connection::describe;
use super::post_to_connection::frame;
use super::{DataType, find_here};
use crate::cluster::link::{LocalConnections, Outcome, Target};
use crate::data_plane::DataPlane;
use crate::session::{PostRefused, Receipts};

/// What peers ask of this node. A call that was forwarded is never forwarded again: for a connection that is not here
/// it is gone.
impl LocalConnections for DataPlane {
    fn post(
        &self,
        to: Target<'_>,
        data: Bytes,
        binary: bool,
        receipts: &Arc<dyn Receipts>,
        id: u64,
    ) -> Result<(), Outcome> {
        let open = find_here(self, to.api_id, &to.connection).ok_or(Outcome::Gone)?;
        if data.len() > self.live().limits.message_bytes {
            return Err(Outcome::TooLarge);
        }
        let frame = frame(data, if binary { DataType::Binary } else { DataType::Text });
        open.outbox.post_for(frame, self.clock.now(), receipts, id).map_err(|refused| match refused {
            PostRefused::Gone => Outcome::Gone,
            PostRefused::Full => Outcome::Full,
        })
    }

    fn get(&self, to: Target<'_>) -> Result<Bytes, Outcome> {
        find_here(self, to.api_id, &to.connection).map(|open| describe(&open)).ok_or(Outcome::Gone)
    }

    fn delete(&self, to: Target<'_>, code: u16, reason: &str) -> Outcome {
        match find_here(self, to.api_id, &to.connection) {
            Some(open) if close(&open, code, reason) => Outcome::Done,
            Some(_) | None => Outcome::Gone,
        }
    }
}
