//! The recipe: every setting of the model, its range and its default.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::interactions::Decay;

/// The hidden dimensions that Amazon Personalize allows for its recipe.
pub const HIDDEN_DIMENSION_RANGE: RangeInclusive<usize> = 32..=256;
const SECONDS_PER_DAY: f64 = 86_400.0;
const ITERATIONS_RANGE: RangeInclusive<usize> = 1..=100;
const REGULARIZATION_RANGE: RangeInclusive<f32> = 0.0..=10.0;
/// The regularization when none is set, and the weaker one does not foresee a held-out window better.
///
/// Two retail logs are best at it.
pub(crate) const REGULARIZATION: f32 = 0.005;
/// A log of 20 million events whose users have a strong taste is 2.4 times as good for new pairs at it.
///
/// There is no stronger one to choose: at 0.02 factors of small logs collapse to how active a user is, which looks like
/// foresight but is the propensity's to say. Of two logs of films one was a third better at it, the other a fifth worse.
pub(crate) const WEAKER_REGULARIZATION: f32 = 0.001;
const UNOBSERVED_WEIGHT_RANGE: RangeInclusive<f32> = 0.0..=1.0;
const HALF_LIFE_DAYS_RANGE: RangeInclusive<f64> = 0.01..=36_500.0;
const HORIZON_DAYS_RANGE: RangeInclusive<f64> = 0.00001..=36_500.0;

/// How users and items are turned into hidden variables whose product says how well they fit.
///
/// What the settings do is stated in [`fit`](crate::fit()) and in [`ItemAffinity::SETTINGS`]. The defaults were chosen
/// by the precision of segments of 1 % of the users on the last tenth of the events, in time, of two retail logs and
/// two logs of films. A half-life raises it, most for pairs that are new;
/// it lowers the metrics of [`evaluate_personalize`](crate::evaluate_personalize()), which hold out old events of users
/// who left long ago.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ItemAffinity {
    /// Hidden variables per user and per item.
    pub hidden_dimension: usize,
    /// Rounds of the fit.
    pub iterations: usize,
    /// How strongly factors are drawn to zero, per unit of evidence; none: as the held-out window asks for.
    pub regularization: Option<f32>,
    /// The weight of a pair without interaction, where one event has log 2.
    pub unobserved_weight: f32,
    /// Days after which an event counts half; none: events never age.
    pub half_life_days: Option<f64>,
    /// Days that a score looks ahead; none: as long as the newest tenth of the events took.
    pub horizon_days: Option<f64>,
    /// Where the random start comes from.
    pub seed: u64,
}

impl Default for ItemAffinity {
    fn default() -> Self {
        Self {
            hidden_dimension: 149,
            iterations: 8,
            regularization: None,
            unobserved_weight: 0.2,
            half_life_days: Some(365.0),
            horizon_days: None,
            seed: 1,
        }
    }
}

/// One row of the table of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name of the field.
    pub name: &'static str,
    /// The default as text.
    pub default: &'static str,
    /// The range as text.
    pub range: &'static str,
    /// What it does.
    pub purpose: &'static str,
}

impl ItemAffinity {
    /// All settings as they stand in the documentation.
    pub const SETTINGS: &[Setting] = &[
        Setting {
            name: "hidden_dimension",
            default: "149",
            range: "[32, 256]",
            purpose: "Hidden variables per user and per item.",
        },
        Setting { name: "iterations", default: "8", range: "[1, 100]", purpose: "Rounds of the fit." },
        Setting {
            name: "regularization",
            default: "none",
            range: "[0, 10] or none",
            purpose: "How strongly factors are drawn to zero, per unit of evidence; none: 0.005, or 0.001 if a held-out window asks for it.",
        },
        Setting {
            name: "unobserved_weight",
            default: "0.2",
            range: "[0, 1]",
            purpose: "The weight of a pair without interaction, where one event has log 2.",
        },
        Setting {
            name: "half_life_days",
            default: "365",
            range: "[0.01, 36500] or none",
            purpose: "Days after which an event counts half.",
        },
        Setting {
            name: "horizon_days",
            default: "none",
            range: "[0.00001, 36500] or none",
            purpose: "Days that a score looks ahead; none: the span of the newest tenth of the events.",
        },
        Setting {
            name: "seed",
            default: "1",
            range: "[0, 18446744073709551615]",
            purpose: "Where the random start comes from.",
        },
    ];

    /// Checks that every setting lies in its range.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] with the name, the value and the range of the first one that does not.
    pub fn validate(&self) -> Result<()> {
        inside("hidden_dimension", &self.hidden_dimension, &HIDDEN_DIMENSION_RANGE)?;
        inside("iterations", &self.iterations, &ITERATIONS_RANGE)?;
        self.regularization.map_or(Ok(()), |value| inside("regularization", &value, &REGULARIZATION_RANGE))?;
        inside("unobserved_weight", &self.unobserved_weight, &UNOBSERVED_WEIGHT_RANGE)?;
        self.half_life_days.map_or(Ok(()), |days| inside("half_life_days", &days, &HALF_LIFE_DAYS_RANGE))?;
        self.horizon_days.map_or(Ok(()), |days| inside("horizon_days", &days, &HORIZON_DAYS_RANGE))
    }

    /// The regularization that counts: 0.005 unless one is set.
    #[must_use]
    pub fn penalty_rate(&self) -> f32 {
        self.regularization.unwrap_or(REGULARIZATION)
    }

    /// The horizon in whole seconds, at least one; none if the data decide.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // at most a hundred years
    pub fn horizon_seconds(&self) -> Option<i64> {
        self.horizon_days.map(|days| ((days * SECONDS_PER_DAY).round() as i64).max(1))
    }

    /// How events age when seen from `as_of`, in epoch seconds; none if they do not.
    #[must_use]
    pub fn decay(&self, as_of: i64) -> Option<Decay> {
        self.half_life_days.map(|days| Decay { half_life_seconds: days * SECONDS_PER_DAY, as_of })
    }
}

/// NaN lies in no range.
fn inside<T: PartialOrd + std::fmt::Display>(name: &'static str, value: &T, range: &RangeInclusive<T>) -> Result<()> {
    if range.contains(value) { Ok(()) } else { Err(Error::out_of_range(name, value, interval(range))) }
}

fn interval<T: std::fmt::Display>(range: &RangeInclusive<T>) -> String {
    format!("[{}, {}]", range.start(), range.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_states_the_defaults_and_ranges_of_the_code() {
        let recipe = ItemAffinity::default();
        let actual = [
            ("hidden_dimension", recipe.hidden_dimension.to_string(), interval(&HIDDEN_DIMENSION_RANGE)),
            ("iterations", recipe.iterations.to_string(), interval(&ITERATIONS_RANGE)),
            (
                "regularization",
                recipe.regularization.map_or("none".into(), |value| value.to_string()),
                format!("{} or none", interval(&REGULARIZATION_RANGE)),
            ),
            ("unobserved_weight", recipe.unobserved_weight.to_string(), interval(&UNOBSERVED_WEIGHT_RANGE)),
            (
                "half_life_days",
                recipe.half_life_days.map_or("none".into(), |days| days.to_string()),
                format!("{} or none", interval(&HALF_LIFE_DAYS_RANGE)),
            ),
            (
                "horizon_days",
                recipe.horizon_days.map_or("none".into(), |days| days.to_string()),
                format!("{} or none", interval(&HORIZON_DAYS_RANGE)),
            ),
            ("seed", recipe.seed.to_string(), interval(&(u64::MIN..=u64::MAX))),
        ];
        // Naming every field makes a new setting without a row a compile error.
        let ItemAffinity {
            hidden_dimension: _,
            iterations: _,
            regularization: _,
            unobserved_weight: _,
            half_life_days: _,
            horizon_days: _,
            seed: _,
        } = recipe;
        let stated: Vec<_> = ItemAffinity::SETTINGS
            .iter()
            .map(|setting| (setting.name, setting.default.to_string(), setting.range.to_string()))
            .collect();
        assert_eq!(stated, actual);
    }

    #[test]
    fn settings_out_of_range_are_refused_with_the_range() {
        let refused = |change: fn(&mut ItemAffinity)| {
            let mut recipe = ItemAffinity::default();
            change(&mut recipe);
            recipe.validate().map_err(|error| error.to_string())
        };
        assert_eq!(ItemAffinity::default().validate(), Ok(()));
        let says = |text: &str| Err(text.to_string());
        assert_eq!(refused(|r| r.hidden_dimension = 31), says("hidden_dimension must be in [32, 256], got 31"));
        assert_eq!(refused(|r| r.hidden_dimension = 257), says("hidden_dimension must be in [32, 256], got 257"));
        assert_eq!(refused(|r| r.hidden_dimension = 256), Ok(()));
        assert_eq!(refused(|r| r.iterations = 0), says("iterations must be in [1, 100], got 0"));
        assert_eq!(refused(|r| r.regularization = Some(f32::NAN)), says("regularization must be in [0, 10], got NaN"));
        assert_eq!(refused(|r| r.unobserved_weight = -0.5), says("unobserved_weight must be in [0, 1], got -0.5"));
        assert_eq!(refused(|r| r.half_life_days = Some(0.0)), says("half_life_days must be in [0.01, 36500], got 0"));
        assert_eq!(refused(|r| r.horizon_days = Some(-1.0)), says("horizon_days must be in [0.00001, 36500], got -1"));
    }
}
