//! The guard: does the policy know what it sees? Candidates differ in their noise alone; where they disagree more than
//! they did in training, it is taken not to. `mfpo_train guard` calibrates it and measures what it is worth, a bundle may
//! carry it, and the control node uses it where somebody asks for it.
//!
//! The spread of K candidates with A components, `sqrt(1/A sum_i 1/K sum_k (a_ki - mean_i)^2)`, is between 0 and 1.

use serde::{Deserialize, Serialize};

use crate::bundle::BundleError;
use crate::sampler::ActionSampler;

/// More ticks in a row than this would never come true in time.
const MOST_IN_A_ROW: u32 = 10_000;

/// The guard of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardManifest {
    /// The largest spread at which the policy is taken to know what it sees.
    pub spread_max: f64,
    /// Candidates that the spread is measured over.
    pub candidates: usize,
    /// Ticks in a row beyond it after which the policy must not act.
    pub in_a_row: u32,
}

impl GuardManifest {
    /// Can a sampler, with critics or without, be held to it?
    pub(crate) fn check(&self, has_critics: bool) -> Result<(), BundleError> {
        let most = ActionSampler::MOST_CANDIDATES;
        let is_spread = self.spread_max.is_finite() && self.spread_max > 0.0;
        let is_counted =
            (2..=most).contains(&self.candidates) && (1..=MOST_IN_A_ROW).contains(&self.in_a_row);
        if is_spread && is_counted && has_critics {
            return Ok(());
        }
        Err(BundleError::Mismatch {
            what: "the guard",
            expected: format!(
                "a finite spread_max above 0, candidates from 2 to {most}, in_a_row from 1 to {MOST_IN_A_ROW}, in a bundle \
                 with critics"
            ),
            got: format!(
                "{self:?}, {} critics",
                if has_critics { "with" } else { "without" }
            ),
        })
    }
}

/// The spread of candidates `[K, A]`.
pub fn spread(candidates: &[f32], action_size: usize) -> f64 {
    let size = action_size.max(1);
    let count = (candidates.len() / size).max(1) as f64;
    let mut sum = 0.0;
    for component in 0..size {
        let column = || {
            let values = candidates.iter().skip(component).step_by(size);
            values.map(|value| f64::from(*value))
        };
        let mean = column().sum::<f64>() / count;
        sum += column().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    }
    (sum / size as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_the_deviation_of_the_candidates() {
        assert_eq!(spread(&[1.0, 0.0, -1.0, 0.0], 2), (0.5f64).sqrt());
        assert_eq!(spread(&[0.3, 0.3, 0.3], 1), 0.0);
        assert_eq!(spread(&[1.0, -1.0], 1), 1.0);
    }
}
