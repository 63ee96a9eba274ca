//! [`Window`]: the number of HTTP/1.1 connections that may be new at once. It has no I/O and no clock.
//!
//! A connection is new until its first answer (with TLS: until the handshake). TCP alone does not show whether the
//! backend has accepted it: it may sit in a listen backlog of 5. If the backlog is full, the SYN is dropped and sent
//! again a second later.
//!
//! The window starts at [`SIZE_MIN`] in each burst. A first answer on a connection that stays open widens it by one, so
//! it doubles with each round of answers. If nothing has moved for [`STALL`] and no connection is being opened, the
//! backend is slow but accepts, and the window doubles. A slow TCP connect sets the window back to its start size,
//! where it stays until that connect is over.

use std::time::Duration;

use tokio::time::Instant;

/// Most connections to one backend that are being opened at the same time.
pub(super) const CONNECTING_MAX: usize = 8;

/// Smallest size of the window. It is below the shortest listen backlog in use, Python's 5.
pub(super) const SIZE_MIN: usize = 4;

/// The time without progress after which a backend counts as slow rather than as unable to accept.
pub(super) const STALL: Duration = Duration::from_millis(100);

pub(super) struct Window {
    size: usize,
    connecting: usize,

    /// Number of connections being opened whose TCP connect takes longer than expected.
    slow: usize,

    /// Number of open connections that the backend is not known to have accepted.
    unproven: usize,
    last_progress: Instant,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Window { size: SIZE_MIN, connecting: 0, slow: 0, unproven: 0, last_progress: now }
    }

    /// Returns the number of connections that are being opened.
    pub(super) fn connecting(&self) -> usize {
        self.connecting
    }

    /// Returns true if one more connection may be opened.
    pub(super) fn has_room(&self) -> bool {
        self.connecting < CONNECTING_MAX && !self.is_full()
    }

    /// Returns true if the size of the window, and not only [`CONNECTING_MAX`], keeps a connection from being opened.
    pub(super) fn is_full(&self) -> bool {
        self.connecting + self.unproven >= self.size
    }

    /// Notes that a caller waits while no other does: a burst begins.
    pub(super) fn burst_begins(&mut self, now: Instant) {
        self.last_progress = now;
        if self.connecting + self.unproven == 0 {
            self.size = SIZE_MIN;
        }
    }

    pub(super) fn attempt_begins(&mut self) {
        self.connecting += 1;
    }

    /// Notes that a TCP connect takes longer than expected. It is called at most once for each attempt.
    pub(super) fn attempt_is_slow(&mut self) {
        self.slow += 1;
        self.size = SIZE_MIN;
    }

    /// Notes that an attempt has ended, with or without a connection.
    pub(super) fn attempt_ends(&mut self, was_slow: bool, now: Instant) {
        self.connecting -= 1;
        self.slow -= usize::from(was_slow);
        self.last_progress = now;
    }

    /// Notes that a connection is open which the backend is not known to have accepted.
    pub(super) fn unproven_opens(&mut self) {
        self.unproven += 1;
    }

    /// Notes that an unproven connection is dropped.
    pub(super) fn unproven_ends(&mut self) {
        self.unproven -= 1;
    }

    /// Notes that an unproven connection has its first answer. `stays_open` is false if the backend closes it
    /// afterwards.
    pub(super) fn proved(&mut self, stays_open: bool, size_max: usize, now: Instant) {
        self.unproven -= 1;
        self.last_progress = now;
        if stays_open && self.slow == 0 {
            self.grow_to(self.size + 1, size_max);
        }
    }

    /// Returns the time at which the backend counts as slow, if nothing moves until then.
    pub(super) fn stalls_at(&self) -> Instant {
        self.last_progress + STALL
    }

    /// Widens the window after a stall. It is called while callers wait and the window is full.
    pub(super) fn tend(&mut self, size_max: usize, now: Instant) {
        if now < self.stalls_at() {
            return;
        }
        self.last_progress = now;
        if self.connecting == 0 {
            self.grow_to(self.size * 2, size_max);
        }
    }

    fn grow_to(&mut self, size: usize, size_max: usize) {
        self.size = size.min(size_max.max(SIZE_MIN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens connections until there is no room. Returns their number.
    fn open_all(window: &mut Window, now: Instant) -> usize {
        let mut opened = 0;
        while window.has_room() {
            window.attempt_begins();
            window.attempt_ends(false, now);
            window.unproven_opens();
            opened += 1;
        }
        opened
    }

    #[test]
    fn answers_on_lasting_connections_double_the_window_each_round() {
        let now = Instant::now();
        let mut window = Window::new(now);
        for expected in [4, 8, 16, 20, 20] {
            assert_eq!(open_all(&mut window, now), expected);
            for _ in 0..expected {
                window.proved(true, 20, now);
            }
        }
        window.burst_begins(now);
        assert_eq!(open_all(&mut window, now), SIZE_MIN);
    }

    #[test]
    fn answers_that_end_their_connection_leave_the_window() {
        let now = Instant::now();
        let mut window = Window::new(now);
        assert_eq!(open_all(&mut window, now), 4);
        for _ in 0..100 {
            window.proved(false, 256, now);
            assert_eq!(open_all(&mut window, now), 1);
        }
    }

    #[test]
    fn a_stall_doubles_the_window_unless_something_is_being_opened() {
        let now = Instant::now();
        let mut window = Window::new(now);
        open_all(&mut window, now);
        window.tend(256, now + STALL / 2);
        assert!(!window.has_room());
        window.tend(256, now + STALL);
        assert_eq!(open_all(&mut window, now + STALL), 4);

        window.tend(256, now + 2 * STALL);
        window.attempt_begins();
        window.tend(256, now + 3 * STALL);
        assert_eq!(open_all(&mut window, now + 3 * STALL), 7);
    }

    #[test]
    fn a_slow_attempt_takes_the_window_back() {
        let now = Instant::now();
        let mut window = Window::new(now);
        open_all(&mut window, now);
        window.tend(256, now + STALL);
        window.attempt_begins();
        window.attempt_is_slow();
        // Three are left of five, and the window does not grow.
        window.proved(true, 256, now);
        window.proved(true, 256, now);
        assert_eq!(open_all(&mut window, now), 1);
        window.attempt_ends(true, now);
        // Two are left of three, and the window is five.
        window.proved(true, 256, now);
        assert_eq!(open_all(&mut window, now), 3);
    }

    #[test]
    fn few_connections_are_opened_at_once_however_wide_the_window() {
        let now = Instant::now();
        let mut window = Window::new(now);
        window.grow_to(100, 100);
        for _ in 0..CONNECTING_MAX {
            assert!(window.has_room());
            window.attempt_begins();
        }
        assert!(!window.has_room());
    }
}
