use std::collections::HashMap;
use std::future::ready;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;
use thiserror::Error;
use time::{Duration, OffsetDateTime, Time, UtcDateTime};

use super::settings::QuotaPeriod;
use crate::clock::Timestamp;

/// Counts what API keys use up.
///
/// Contract: [`QuotaStore::take`] counts one and says `true` as long as fewer than `limit` were counted under the key,
/// whoever counted them; otherwise it counts nothing and says `false`. Counting and comparing is one step, so that a
/// quota is never exceeded, however many ask at once. A count ends with its period.
///
/// While a store cannot be asked, quotas are not enforced: the gateway goes on, the rate of the plan still holds, and
/// what is used meanwhile is not counted.
pub trait QuotaStore: std::fmt::Debug + Send + Sync {
    /// Counts one.
    fn take<'a>(&'a self, key: &'a QuotaKey, limit: u64) -> BoxFuture<'a, Result<bool, QuotaUnavailable>>;
}

/// What is counted together. In Redis its name is `P:quota:{plan/key}:{period}`, and it expires at `ends`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaKey {
    /// The usage plan's id.
    pub plan: Box<str>,
    /// The API key's id, never its value.
    pub api_key: Box<str>,
    /// `2026-11-20` for a day, `2026-11-16w` for the week that begins then, `2026-11` for a month.
    pub period: String,
    /// When the period is over.
    pub ends: Timestamp,
}

/// The store cannot be asked.
#[derive(Debug, Error)]
#[error("the store of quotas cannot be reached")]
pub struct QuotaUnavailable;

impl QuotaKey {
    /// The key of the period that `now` is in.
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
        let ends = UtcDateTime::new(next.unwrap_or(first), Time::MIDNIGHT).unix_timestamp();
        let ends = Timestamp(u64::try_from(ends).unwrap_or(0).saturating_mul(1000));
        QuotaKey { plan: plan.into(), api_key: api_key.into(), period: name, ends }
    }
}

/// Ids of a usage plan and of an API key.
type PlanAndKey = (Box<str>, Box<str>);

/// Counts of this process alone, lost when it ends. There are as many as keys have quotas.
#[derive(Debug, Default)]
pub struct MemoryQuotaStore {
    counts: Mutex<HashMap<PlanAndKey, (String, u64)>>,
}

impl QuotaStore for MemoryQuotaStore {
    fn take<'a>(&'a self, key: &'a QuotaKey, limit: u64) -> BoxFuture<'a, Result<bool, QuotaUnavailable>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (period, count) = counts.entry((key.plan.clone(), key.api_key.clone())).or_default();
        if *period != key.period {
            (*period, *count) = (key.period.clone(), 0);
        }
        let taken = *count < limit;
        *count += u64::from(taken);
        Box::pin(ready(Ok(taken)))
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
        let today = QuotaKey::new("basic", "mobile", QuotaPeriod::Day, moment("2026-11-20T12:00:00Z"));
        let tomorrow = QuotaKey::new("basic", "mobile", QuotaPeriod::Day, moment("2026-11-21T12:00:00Z"));
        let other = QuotaKey { api_key: "web".into(), ..today.clone() };
        for (key, expected) in [(&today, true), (&today, true), (&today, false), (&other, true), (&tomorrow, true)] {
            assert_eq!(store.take(key, 2).await.expect("memory is always there"), expected, "{key:?}");
        }
    }
}
