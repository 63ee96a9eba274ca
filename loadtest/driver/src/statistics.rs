//! Several rounds of one figure.

use serde::{Deserialize, Serialize};

/// A figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) rounds: usize,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// None if there is no round.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Summary { rounds: values.len(), median, min, max })
    }

    /// The distance between the worst and the best round, in percent of the median.
    pub(crate) fn spread_percent(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.max - self.min) / self.median.abs() * 100.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_between_the_middle_rounds() {
        let check = |values: &[f64], median, spread| {
            let summary = Summary::of(values.iter().copied()).unwrap();
            assert_eq!((summary.median, summary.spread_percent()), (median, spread));
        };
        check(&[3.0], 3.0, 0.0);
        check(&[4.0, 1.0, 2.0], 2.0, 150.0);
        check(&[3.0, 1.0], 2.0, 100.0);
        assert!(Summary::of([]).is_none());
    }
}
