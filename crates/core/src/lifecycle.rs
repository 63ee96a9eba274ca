//! The owner of all tasks of this process, which signals them to drain and to stop.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tracker of every task of the process, so that shutdown can wait for all of them.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    tasks: TaskTracker,
    draining: CancellationToken,
    aborting: CancellationToken,
}

impl Lifecycle {
    /// Runs a task that ends by itself, at the latest when [`Lifecycle::aborting`] is cancelled.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Returns the tracker on which other rooms spawn their tasks.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Returns the token that is cancelled when the node drains: tasks finish what they have and take nothing new.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Returns the token that is cancelled when tasks must stop now.
    pub fn aborting(&self) -> &CancellationToken {
        &self.aborting
    }
}
