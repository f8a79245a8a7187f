//! The numbers of the algorithm.

use mfpo_policy::critic::ValueSupport;
use mfpo_policy::kernel::Precision;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A number of the configuration is outside its range.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{key} is {got}; expected {expected}")]
pub struct LearnerConfigError {
    /// The key with its section.
    pub key: &'static str,
    /// What a valid value looks like.
    pub expected: &'static str,
    /// What came.
    pub got: String,
}

/// Sizes and rates of [`super::MfpoLearner`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnerConfig {
    /// Size of an observation, S.
    pub observation_size: usize,
    /// Size of an action, A.
    pub action_size: usize,
    /// Widths of the hidden layers of all networks.
    pub hidden_sizes: Vec<usize>,
    /// Rows of a mini-batch, B.
    pub batch_size: usize,
    /// Policy samples for each row, K1.
    pub policy_candidates: usize,
    /// Gaussian samples for each row, K2.
    pub gaussian_candidates: usize,
    /// Steps of the sampler, T.
    pub sampling_steps: usize,
    /// Random probes for the divergence, N.
    pub probes: usize,
    /// Discount of the return, gamma.
    pub discount: f64,
    /// Share of the new critic in the target critic at each update.
    pub tau: f64,
    /// Adam's learning rate, the same for all networks and the temperature.
    pub learning_rate: f64,
    /// First value of the temperature, alpha.
    pub initial_temperature: f64,
    /// Target entropy for each component of the action, nats.
    pub target_entropy_per_dim: f64,
    /// The learnt temperature does not fall below this; 0 in the paper.
    #[serde(default)]
    pub temperature_min: f64,
    /// Lowest value that a critic can express.
    pub value_min: f64,
    /// Highest value that a critic can express.
    pub value_max: f64,
    /// Atoms between them.
    pub atoms: usize,
    /// Targets and selection from the smaller critic (else the mean of both).
    pub clipped_double_q: bool,
    /// Threads of an update; 0 takes all cores. Their number does not change a single bit of the result.
    #[serde(default)]
    pub threads: usize,
    /// What the stages without gradient - the candidates and their values, the targets - are computed with.
    #[serde(default)]
    pub precision: Precision,
    /// Updates of the critics for each update of the policy, each from a mini-batch of its own; 1 in the paper.
    #[serde(default = "one")]
    pub update_to_data: usize,
    /// Share of the rows whose times are the sampler's own, `(i / T, 1 / T)`; 0 in the paper.
    #[serde(default)]
    pub grid_time_share: f64,
    /// Chooses `value_min` and `value_max` from the returns of the run, again when returns outgrow them.
    #[serde(default)]
    pub support_from_returns: bool,
    /// Leaves the policy sample that made `x_t` out of its own velocity estimate; false in the paper.
    #[serde(default)]
    pub leave_one_out: bool,
    /// Tests only: ascends the actor's loss instead of descending it, so that nothing can be learnt.
    #[serde(skip)]
    pub flip_actor_loss_sign: bool,
}

fn one() -> usize {
    1
}

impl LearnerConfig {
    /// The settings of the paper for a task of the given sizes.
    pub fn paper(observation_size: usize, action_size: usize) -> Self {
        Self {
            observation_size,
            action_size,
            hidden_sizes: vec![256; 3],
            batch_size: 256,
            policy_candidates: 16,
            gaussian_candidates: 32,
            sampling_steps: 2,
            probes: 2,
            discount: 0.99,
            tau: 0.005,
            learning_rate: 3e-4,
            initial_temperature: 0.01,
            target_entropy_per_dim: -0.5,
            temperature_min: 0.0,
            value_min: -1600.0,
            value_max: 1600.0,
            atoms: 101,
            clipped_double_q: true,
            threads: 0,
            precision: Precision::Exact,
            update_to_data: 1,
            grid_time_share: 0.0,
            support_from_returns: false,
            leave_one_out: false,
            flip_actor_loss_sign: false,
        }
    }

    /// The critics' atoms.
    pub fn support(&self) -> ValueSupport {
        ValueSupport {
            minimum: self.value_min,
            maximum: self.value_max,
            atoms: self.atoms,
        }
    }

    /// Target entropy of the whole action, nats.
    pub fn target_entropy(&self) -> f64 {
        self.target_entropy_per_dim * self.action_size as f64
    }

    /// Checks every number.
    ///
    /// # Errors
    /// The first number outside its range.
    pub fn validate(&self) -> Result<(), LearnerConfigError> {
        let counts = [
            ("learner.observation_size", self.observation_size, 1),
            ("learner.action_size", self.action_size, 1),
            (
                "learner.hidden_sizes",
                self.hidden_sizes.iter().copied().min().unwrap_or(0),
                1,
            ),
            ("learner.batch_size", self.batch_size, 1),
            ("learner.policy_candidates", self.policy_candidates, 1),
            ("learner.gaussian_candidates", self.gaussian_candidates, 1),
            ("learner.sampling_steps", self.sampling_steps, 1),
            ("learner.probes", self.probes, 1),
            ("learner.update_to_data", self.update_to_data, 1),
            ("learner.atoms", self.atoms, 2),
        ];
        for (key, got, least) in counts {
            if got < least {
                let expected = if least == 2 { "2 or more" } else { "1 or more" };
                return Err(LearnerConfigError {
                    key,
                    expected,
                    got: got.to_string(),
                });
            }
        }
        let rates = [
            (
                "learner.discount",
                self.discount,
                0.0..=1.0,
                "a number from 0 to 1",
            ),
            (
                "learner.grid_time_share",
                self.grid_time_share,
                0.0..=0.5,
                "a number from 0 to 0.5",
            ),
            ("learner.tau", self.tau, 0.0..=1.0, "a number from 0 to 1"),
            (
                "learner.learning_rate",
                self.learning_rate,
                1e-12..=1.0,
                "a positive number up to 1",
            ),
            (
                "learner.initial_temperature",
                self.initial_temperature,
                1e-12..=1e6,
                "a positive number",
            ),
            (
                "learner.temperature_min",
                self.temperature_min,
                0.0..=self.initial_temperature,
                "a number from 0 to initial_temperature",
            ),
            (
                "learner.target_entropy_per_dim",
                self.target_entropy_per_dim,
                -1e3..=1e3,
                "a finite number",
            ),
            (
                "learner.value_min",
                self.value_min,
                -1e9..=self.value_max.min(1e9),
                "a number up to value_max",
            ),
            (
                "learner.value_max",
                self.value_max,
                -1e9..=1e9,
                "a finite number above value_min",
            ),
        ];
        for (key, got, range, expected) in rates {
            if !range.contains(&got) {
                return Err(LearnerConfigError {
                    key,
                    expected,
                    got: got.to_string(),
                });
            }
        }
        if self.leave_one_out && self.policy_candidates < 2 {
            return Err(LearnerConfigError {
                key: "learner.policy_candidates",
                expected: "2 or more with leave_one_out",
                got: self.policy_candidates.to_string(),
            });
        }
        if self.value_min >= self.value_max {
            let (key, expected) = ("learner.value_max", "a number above value_min");
            return Err(LearnerConfigError {
                key,
                expected,
                got: self.value_max.to_string(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_numbers_are_refused_by_key() {
        LearnerConfig::paper(17, 6).validate().unwrap();
        let refused = |change: fn(&mut LearnerConfig)| {
            let mut config = LearnerConfig::paper(17, 6);
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(refused(|c| c.batch_size = 0).contains("learner.batch_size is 0; expected 1 or more"));
        assert!(refused(|c| c.discount = 1.5).contains("learner.discount is 1.5"));
        assert!(refused(|c| c.value_max = c.value_min).contains("learner.value_max"));
        assert!(refused(|c| c.temperature_min = 0.02).contains("from 0 to initial_temperature"));
        assert!(refused(|c| c.value_min = 2000.0).contains("learner.value_min"));
        assert!(refused(|c| c.hidden_sizes.clear()).contains("learner.hidden_sizes"));
        assert!(refused(|c| c.learning_rate = f64::NAN).contains("learner.learning_rate is NaN"));
    }
}
