use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use time::{Date, Duration, OffsetDateTime, Time, UtcDateTime};
use tokio::sync::oneshot;

use super::error::UsageExceeded;
use super::settings::QuotaPeriod;
use tidegate_core::clock::Timestamp;
use tidegate_core::lock::lock;

/// A store that counts the uses of API keys.
///
/// Contract: [`QuotaStore::take`] counts one use and accepts it if fewer than `limit` uses were counted under the key
/// on all nodes. Otherwise it counts nothing and refuses. Comparing and counting are one atomic step, so that
/// concurrent calls never exceed a quota. A count ends with its period. A store always answers, and soon: if it cannot
/// reach its backing store, it decides by the last count that it knows.
pub trait QuotaStore: Debug + Send + Sync {
    /// Counts one use under `key`.
    fn take(&self, key: &Arc<QuotaKey>, limit: u64) -> Counted;
}

/// The decision about one use: known at once, or when the store has answered.
#[derive(Debug)]
#[must_use = "what is counted may be refused"]
pub enum Counted {
    Now(Result<(), UsageExceeded>),
    Later(oneshot::Receiver<bool>),
}

impl Counted {
    pub(super) fn now(is_taken: bool) -> Self {
        Counted::Now(if is_taken { Ok(()) } else { Err(UsageExceeded::Quota) })
    }
}

impl Future for Counted {
    type Output = Result<(), UsageExceeded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Counted::Now(result) => Poll::Ready(*result),
            // A store that has stopped accepts every use.
            Counted::Later(answer) => Pin::new(answer)
                .poll(cx)
                .map(|is_taken| if is_taken.unwrap_or(true) { Ok(()) } else { Err(UsageExceeded::Quota) }),
        }
    }
}

/// The key of a count: a usage plan, an API key and a period.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QuotaKey {
    /// Id of the usage plan.
    pub plan: Box<str>,
    /// Id of the API key, never its value.
    pub api_key: Box<str>,
    /// Name of the period: `2026-11-20` for a day, `2026-11-16w` for the week that begins on that day, `2026-11` for a
    /// month.
    pub period: String,
    /// Start of the period.
    pub begins: Timestamp,
    /// End of the period, exclusive.
    pub ends: Timestamp,
}

impl QuotaKey {
    /// Builds the key of the period that contains `now`.
    pub(super) fn new(plan: &str, api_key: &str, period: QuotaPeriod, now: Timestamp) -> Self {
        let nanos = i128::from(now.millis()) * 1_000_000;
        let today =
            OffsetDateTime::from_unix_timestamp_nanos(nanos).map_or(UtcDateTime::MAX, OffsetDateTime::to_utc).date();
        let (first, next, name) = match period {
            QuotaPeriod::Day => (today, today.next_day(), today.to_string()),
            QuotaPeriod::Week => {
                let monday = today - Duration::days(today.weekday().number_days_from_monday().into());
                (monday, monday.checked_add(Duration::days(7)), format!("{monday}w"))
            }
            QuotaPeriod::Month => {
                let first = today.replace_day(1).unwrap_or(today);
                let next = first.checked_add(Duration::days(31)).and_then(|day| day.replace_day(1).ok());
                (first, next, format!("{:04}-{:02}", first.year(), u8::from(first.month())))
            }
        };
        let (begins, ends) = (midnight(first), midnight(next.unwrap_or(first)));
        QuotaKey { plan: plan.into(), api_key: api_key.into(), period: name, begins, ends }
    }

    /// Returns true if `now` is within the period.
    pub(super) fn holds(&self, now: Timestamp) -> bool {
        (self.begins..self.ends).contains(&now)
    }
}

fn midnight(day: Date) -> Timestamp {
    let seconds = UtcDateTime::new(day, Time::MIDNIGHT).unix_timestamp();
    Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

/// The counts of this process alone, lost when it ends. There is one for each key with a quota, and those of the
/// previous period remain until a new key is counted.
#[derive(Debug, Default)]
pub struct MemoryQuotaStore {
    counts: Mutex<HashMap<Arc<QuotaKey>, u64>>,
}

impl QuotaStore for MemoryQuotaStore {
    fn take(&self, key: &Arc<QuotaKey>, limit: u64) -> Counted {
        let mut counts = lock(&self.counts);
        if !counts.contains_key(key) {
            counts.retain(|old, _| old.ends > key.begins);
        }
        let count = counts.entry(Arc::clone(key)).or_default();
        let is_taken = *count < limit;
        *count += u64::from(is_taken);
        Counted::now(is_taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Timestamp {
        use time::format_description::well_known::Rfc3339;
        let seconds = OffsetDateTime::parse(text, &Rfc3339).expect("a moment").unix_timestamp();
        Timestamp(u64::try_from(seconds).expect("after 1970") * 1000)
    }

    #[test]
    fn periods_are_of_the_calendar_in_utc() {
        let check = |period: QuotaPeriod, now: &str, name: &str, ends: &str| {
            let key = QuotaKey::new("basic", "mobile", period, moment(now));
            assert_eq!((key.period.as_str(), key.ends), (name, moment(ends)), "{now}");
            assert!(key.holds(moment(now)) && !key.holds(key.ends), "{now}");
        };
        check(QuotaPeriod::Day, "2026-11-20T00:00:00Z", "2026-11-20", "2026-11-21T00:00:00Z");
        check(QuotaPeriod::Day, "2026-12-31T23:59:59Z", "2026-12-31", "2027-01-01T00:00:00Z");
        check(QuotaPeriod::Week, "2026-11-20T12:00:00Z", "2026-11-16w", "2026-11-23T00:00:00Z");
        check(QuotaPeriod::Week, "2026-11-16T00:00:00Z", "2026-11-16w", "2026-11-23T00:00:00Z");
        check(QuotaPeriod::Week, "2026-11-22T23:59:59Z", "2026-11-16w", "2026-11-23T00:00:00Z");
        check(QuotaPeriod::Month, "2026-11-30T23:59:59Z", "2026-11", "2026-12-01T00:00:00Z");
        check(QuotaPeriod::Month, "2026-12-31T23:59:59Z", "2026-12", "2027-01-01T00:00:00Z");
        check(QuotaPeriod::Month, "2028-02-29T00:00:00Z", "2028-02", "2028-03-01T00:00:00Z");
    }

    #[tokio::test]
    async fn a_quota_is_taken_to_its_last_and_begins_anew_with_its_period() {
        let store = MemoryQuotaStore::default();
        let key = |api_key, now| Arc::new(QuotaKey::new("basic", api_key, QuotaPeriod::Day, moment(now)));
        let (today, other) = (key("mobile", "2026-11-20T12:00:00Z"), key("web", "2026-11-20T12:00:00Z"));
        let tomorrow = key("mobile", "2026-11-21T12:00:00Z");
        for (key, expected) in [(&today, true), (&today, true), (&today, false), (&other, true), (&tomorrow, true)] {
            assert_eq!(store.take(key, 2).await.is_ok(), expected, "{key:?}");
        }
        assert_eq!(store.counts.lock().expect("no panic").len(), 1, "counts of former periods are forgotten");
    }
}
