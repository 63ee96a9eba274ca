use tracing::{info, warn};

/// Raises the soft limit of open files to the hard one: each connection is a file, and the soft limit is often 1024.
pub(super) fn raise_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => info!(limit, "open files allowed"),
        Err(error) => warn!(%error, "could not raise the limit of open files; continuing with the present limit"),
    }
}
