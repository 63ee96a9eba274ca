//! Wall time, which tests can replace. Waiting uses tokio's own clock, which tests can pause.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, UtcDateTime};

/// A clock that tells the time of day.
pub trait Clock: Send + Sync {
    /// Returns the present time.
    fn now(&self) -> Timestamp;

    /// Returns the present time in nanoseconds since 1970, to compare with times of other programs.
    fn now_nanos(&self) -> u64 {
        self.now().millis() * 1_000_000
    }
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX))
    }

    fn now_nanos(&self) -> u64 {
        u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn since_epoch() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A point in time: milliseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

const CLF: &[BorrowedFormatItem<'_>] =
    format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
const ISO_8601: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

impl Timestamp {
    /// Returns the milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0
    }

    /// Formats the time for access logs: `25/Sep/2026:00:23:03 +0000`.
    pub fn clf(self) -> String {
        thread_local! {
            /// The second that was formatted last: many events happen in the same one.
            static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
        }
        let second = self.0 / 1000;
        LAST.with_borrow_mut(|last| {
            if last.0 != second {
                *last = (second, self.format(CLF));
            }
            last.1.clone()
        })
    }

    /// Formats the time as AWS does: `2026-09-25T00:22:29.887Z`.
    pub fn iso_8601(self) -> String {
        self.format(ISO_8601)
    }

    fn format(self, description: &[BorrowedFormatItem<'_>]) -> String {
        let nanos = i128::from(self.0) * 1_000_000;
        let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_or(UtcDateTime::MAX, OffsetDateTime::to_utc);
        moment.format(&description).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_as_aws_writes_it() {
        let moment = Timestamp(1_790_295_749_887);
        assert_eq!(moment.clf(), "25/Sep/2026:00:22:29 +0000");
        assert_eq!(moment.iso_8601(), "2026-09-25T00:22:29.887Z");
        assert_eq!(Timestamp(0).clf(), "01/Jan/1970:00:00:00 +0000");
    }
}
