//! Who owns the tasks of this process, and how they learn that it ends.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Every task of the process is spawned here, so that shutdown can wait for all of them.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    tasks: TaskTracker,
    draining: CancellationToken,
    aborting: CancellationToken,
}

impl Lifecycle {
    /// Runs a task that ends by itself, at the latest when [`Lifecycle::aborting`] says so.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Where other rooms spawn what they own.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Finish what you have, take nothing new.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Stop now.
    pub fn aborting(&self) -> &CancellationToken {
        &self.aborting
    }
}
