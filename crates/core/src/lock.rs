//! Locking that ignores poison. The data behind this program's mutexes is valid after each statement, so a task that
//! panics while it holds a lock leaves nothing half done.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, even if a task has panicked while it held the lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
