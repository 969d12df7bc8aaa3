//! The three offline metrics of Amazon Personalize for user segments.

/// Quality of segments against what users did later.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PersonalizeMetrics {
    /// Items with a non-empty segment, as a share of all items of the catalogue.
    pub coverage: f64,
    /// Mean number of users, among the first 1 %, who did interact with the item. A count: it may exceed 1.
    pub hits_at_1_percent: f64,
    /// Mean share of the users who did interact, at most K of them, that are among the first 1 %.
    pub recall_at_1_percent: f64,
}

/// K: one percent of the users of the training data, rounded down, at least 1.
#[must_use]
pub fn one_percent(users: usize) -> usize {
    (users / 100).max(1)
}

/// Adds up segments item by item, then gives the metrics.
///
/// With P_i the first K users of the segment of item i, A_i the distinct users with a test interaction on i, and means
/// over the items Q with at least one:
/// ```text
/// hits_at_1_percent   = mean |P_i ∩ A_i|
/// recall_at_1_percent = mean |P_i ∩ A_i| / min(|A_i|, K)
/// coverage            = items with a non-empty segment / items of the catalogue
/// ```
/// Personalize's text leaves the denominator of recall open; this is the one of its sample notebook. An item without a
/// segment counts as 0. Personalize does not explain its coverage for segments; this one is not comparable with it.
#[derive(Clone, Copy, Debug)]
pub struct PersonalizeTally {
    k: usize,
    segments: usize,
    test_items: usize,
    hits: usize,
    recall: f64,
}

impl PersonalizeTally {
    /// Nothing yet; `users` is the number of distinct users in training.
    #[must_use]
    pub fn new(users: usize) -> Self {
        Self { k: one_percent(users), segments: 0, test_items: 0, hits: 0, recall: 0.0 }
    }

    /// Adds one item of the catalogue: its segment, best first, and the users who did interact, sorted and distinct.
    pub fn add(&mut self, segment: &[u32], actual: &[u32]) {
        debug_assert!(actual.is_sorted());
        self.segments += usize::from(!segment.is_empty());
        if actual.is_empty() {
            return;
        }
        let hits = segment.iter().take(self.k).filter(|user| actual.binary_search(user).is_ok()).count();
        self.test_items += 1;
        self.hits += hits;
        self.recall += ratio(hits, actual.len().min(self.k));
    }

    /// The users per segment that count.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// How many items had a test interaction.
    #[must_use]
    pub fn test_items(&self) -> usize {
        self.test_items
    }

    /// The metrics for a catalogue of this many items; zeros where there is nothing to average.
    #[must_use]
    pub fn metrics(&self, catalogue_items: usize) -> PersonalizeMetrics {
        PersonalizeMetrics {
            coverage: ratio(self.segments, catalogue_items),
            hits_at_1_percent: ratio(self.hits, self.test_items),
            recall_at_1_percent: if self.test_items == 0 { 0.0 } else { self.recall / ratio(self.test_items, 1) },
        }
    }
}

/// 0 for 0 / 0.
#[allow(clippy::cast_precision_loss)] // counts are far below 2^53
fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_percent_is_rounded_down_but_at_least_one() {
        assert_eq!([0, 99, 100, 199, 226_299].map(one_percent), [1, 1, 1, 1, 2262]);
    }

    #[test]
    fn metrics_by_hand() {
        let mut tally = PersonalizeTally::new(200); // K = 2
        tally.add(&[4, 7, 1], &[1, 4]); // 1 is third: one hit of two
        tally.add(&[9, 8], &[8, 9, 10]); // two hits, three users, K = 2: recall 1
        tally.add(&[], &[5]); // no segment: 0
        tally.add(&[3], &[]); // no test interaction: counts for coverage alone
        let metrics = tally.metrics(5);
        assert_eq!(metrics.coverage, 3.0 / 5.0);
        assert_eq!(metrics.hits_at_1_percent, 3.0 / 3.0);
        assert_eq!(metrics.recall_at_1_percent, (0.5 + 1.0) / 3.0);
        assert_eq!((tally.k(), tally.test_items()), (2, 3));
    }

    #[test]
    fn nothing_gives_zeros() {
        assert_eq!(PersonalizeTally::new(0).metrics(0), PersonalizeMetrics::default());
    }
}
