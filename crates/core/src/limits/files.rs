use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Share of all files that is reserved: one in this many.
const RESERVE_SHARE: usize = 8;

/// Least and greatest size of the reserve. If the process may open very few files, the reserve is half of them.
const RESERVE_MIN: usize = 64;
const RESERVE_MAX: usize = 4096;

/// The files that all clients together may use. The rest is a reserve: for the internal listener, calls to backends,
/// Redis, the links to other nodes, and what the process itself opens.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    free: Arc<Semaphore>,
    max: usize,
}

/// A file of a client, which is free again when this is dropped.
#[derive(Debug)]
pub struct ClientFile {
    _permit: OwnedSemaphorePermit,
}

impl ClientFiles {
    /// Returns the files that clients may use of those that this process may open.
    pub fn of_process() -> Self {
        // If the limit cannot be read, none can be kept.
        let limit = rlimit::Resource::NOFILE.get().map_or(u64::MAX, |(soft, _hard)| soft);
        Self::of(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    fn of(limit: usize) -> Self {
        let max = (limit - reserve(limit)).min(Semaphore::MAX_PERMITS);
        ClientFiles { free: Arc::new(Semaphore::new(max)), max }
    }

    /// Takes a file, if one is free.
    pub fn try_take(&self) -> Option<ClientFile> {
        Arc::clone(&self.free).try_acquire_owned().ok().map(|permit| ClientFile { _permit: permit })
    }

    /// Takes a file as soon as one is free.
    pub async fn take(&self) -> ClientFile {
        match Arc::clone(&self.free).acquire_owned().await {
            Ok(permit) => ClientFile { _permit: permit },
            // The semaphore is never closed.
            Err(_closed) => std::future::pending().await,
        }
    }

    /// Returns the number of files that all clients together may use.
    pub fn max(&self) -> usize {
        self.max
    }
}

/// Returns the size of the reserve for a process that may open `limit` files.
fn reserve(limit: usize) -> usize {
    (limit / RESERVE_SHARE).clamp(RESERVE_MIN, RESERVE_MAX).min(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_an_eighth_within_its_bounds() {
        for (limit, expected) in
            [(0, 0), (100, 50), (200, 64), (1024, 128), (20_000, 2500), (1_048_576, 4096), (usize::MAX, 4096)]
        {
            assert_eq!(reserve(limit), expected, "{limit}");
        }
        assert_eq!(ClientFiles::of(1024).max(), 896);
        assert_eq!(ClientFiles::of(usize::MAX).max(), Semaphore::MAX_PERMITS);
    }

    #[tokio::test]
    async fn a_file_is_free_again_when_it_is_dropped() {
        let files = ClientFiles::of(4);
        let held = (files.take().await, files.try_take());
        assert!(held.1.is_some() && files.try_take().is_none());
        drop(held.0);
        assert!(files.try_take().is_some());
    }
}
