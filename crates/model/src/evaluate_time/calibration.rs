//! Probabilities against what happened.

use crate::hash::uniform;

/// Pairs that are looked at, about: enough for ten bins of a rare event.
const PAIRS: f64 = 4_000_000.0;
const BINS: usize = 10;

/// How well probabilities agree with what happened, over pairs of a candidate and an asked item.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Calibration {
    /// Tenths of the pairs by predicted probability, lowest first.
    pub bins: Vec<CalibrationBin>,
    /// Mean predicted probability.
    pub mean_predicted: f64,
    /// The share of pairs that interacted.
    pub mean_observed: f64,
    /// The mean over the bins of how far prediction and observation lie apart.
    pub expected_calibration_error: f64,
}

/// One tenth of the pairs.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CalibrationBin {
    /// Pairs in the sample.
    pub pairs: usize,
    /// Mean predicted probability.
    pub predicted: f64,
    /// The share that interacted.
    pub observed: f64,
}

/// A sample of pairs with their probability and whether they interacted.
pub(super) struct CalibrationSample {
    share: f64,
    pairs: Vec<(f32, bool)>,
}

impl CalibrationSample {
    /// A sample of so many pairs in all.
    pub(super) fn new(pairs: u64) -> Self {
        #[allow(clippy::cast_precision_loss)]
        let share = (PAIRS / pairs.max(1) as f64).min(1.0);
        Self { share, pairs: Vec::new() }
    }

    /// Takes some users of an item; `truth`: places of those who interacted, ascending.
    pub(super) fn add(&mut self, item: u32, probabilities: &[f32], truth: &[u32]) {
        let mut truth = truth.iter().peekable();
        for (user, probability) in (0u32..).zip(probabilities) {
            let happened = truth.next_if_eq(&&user).is_some();
            if self.share >= 1.0 || uniform(2, item, user) < self.share {
                self.pairs.push((*probability, happened));
            }
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.pairs.extend(other.pairs);
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn finish(mut self) -> Calibration {
        self.pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let n = self.pairs.len();
        let bound = |bin: usize| n * bin / BINS;
        let bins: Vec<CalibrationBin> = (0..BINS)
            .map(|bin| &self.pairs[bound(bin)..bound(bin + 1)])
            .filter(|pairs| !pairs.is_empty())
            .map(|pairs| CalibrationBin {
                pairs: pairs.len(),
                predicted: pairs.iter().map(|pair| f64::from(pair.0)).sum::<f64>() / pairs.len() as f64,
                observed: pairs.iter().filter(|pair| pair.1).count() as f64 / pairs.len() as f64,
            })
            .collect();
        let mean = |of: &dyn Fn(&CalibrationBin) -> f64| {
            bins.iter().map(|bin| of(bin) * bin.pairs as f64).sum::<f64>() / n.max(1) as f64
        };
        Calibration {
            mean_predicted: mean(&|bin| bin.predicted),
            mean_observed: mean(&|bin| bin.observed),
            expected_calibration_error: mean(&|bin| (bin.predicted - bin.observed).abs()),
            bins,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_by_hand() {
        let mut sample = CalibrationSample::new(20);
        let probabilities: Vec<f32> = (0..20u8).map(|n| f32::from(n / 2) / 10.0).collect();
        // In each bin of two, the first happens if the bin is odd.
        let truth: Vec<u32> = (0..20).filter(|n| n % 2 == 0 && n / 2 % 2 == 1).collect();
        sample.add(0, &probabilities, &truth);
        let found = sample.finish();
        assert_eq!(found.bins.len(), 10);
        assert_eq!(found.bins[3].observed, 0.5);
        assert!((found.bins[3].predicted - 0.3).abs() < 1e-7);
        assert!((found.mean_predicted - 0.45).abs() < 1e-7 && found.mean_observed == 0.25);
        // |0 − 0|, |.1 − .5|, |.2 − 0|, |.3 − .5|, |.4 − 0|, |.5 − .5|, |.6 − 0|, |.7 − .5|, |.8 − 0|, |.9 − .5|
        assert!((found.expected_calibration_error - 0.32).abs() < 1e-6, "{found:?}");
        assert_eq!(CalibrationSample::new(0).finish(), Calibration::default());
    }
}
