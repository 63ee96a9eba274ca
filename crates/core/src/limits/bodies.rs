use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes of bodies from callers that are not verified yet, of all calls together.
pub const UNVERIFIED_BODIES_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Most bytes of bodies that are being read from verified or trusted callers, of all calls together.
pub const VERIFIED_BODIES_MAX_BYTES: usize = 128 * 1024 * 1024;

/// The bytes of all bodies that are being read. Strangers cannot use the share of verified callers.
#[derive(Debug)]
pub struct Bodies {
    pub unverified: BodyBytes,
    pub verified: BodyBytes,
}

/// The number of bytes of bodies that are held now, and its bound.
#[derive(Debug)]
pub struct BodyBytes {
    held: AtomicUsize,
    max: usize,
}

/// The bytes of one body, which are given back when this is dropped.
#[derive(Debug)]
pub struct HeldBody<'a> {
    of: &'a BodyBytes,
    bytes: usize,
    /// Most bytes that this body may have.
    max: usize,
}

impl Default for Bodies {
    fn default() -> Self {
        Bodies {
            unverified: BodyBytes::new(UNVERIFIED_BODIES_MAX_BYTES),
            verified: BodyBytes::new(VERIFIED_BODIES_MAX_BYTES),
        }
    }
}

impl BodyBytes {
    fn new(max: usize) -> Self {
        BodyBytes { held: AtomicUsize::new(0), max }
    }

    /// Begins a body of at most `max` bytes, of which none has arrived yet.
    pub fn begin(&self, max: usize) -> HeldBody<'_> {
        HeldBody { of: self, bytes: 0, max }
    }
}

impl HeldBody<'_> {
    /// Counts `bytes` that have arrived. Returns false if all bodies together have as many bytes as they may. A body
    /// that is alone is always accepted.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let held = self.of.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if held > self.of.max.max(self.max) {
            self.of.held.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for HeldBody<'_> {
    fn drop(&mut self) {
        self.of.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bodies_share_their_bytes_and_give_them_back() {
        let bytes = BodyBytes::new(10);
        let (mut first, mut second) = (bytes.begin(8), bytes.begin(8));
        assert!(first.grow(4) && second.grow(4) && first.grow(2));
        assert!(!second.grow(1));
        drop(first);
        assert!(second.grow(4) && second.grow(2) && !second.grow(1));
    }

    #[test]
    fn a_body_that_is_alone_may_be_as_large_as_its_own_bound() {
        let bytes = BodyBytes::new(10);
        let mut large = bytes.begin(20);
        assert!(large.grow(20) && !large.grow(1));
        assert!(!bytes.begin(8).grow(1));
        drop(large);
        assert!(bytes.begin(8).grow(8));
    }
}
