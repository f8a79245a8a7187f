//! The numbers of Soft Actor-Critic.

use serde::{Deserialize, Serialize};

use crate::learner::LearnerConfigError;

/// Sizes and rates of [`super::SacLearner`]; the defaults are the usual ones (Haarnoja et al. 2018b, table 1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SacConfig {
    /// Size of an observation, S.
    pub observation_size: usize,
    /// Size of an action, A.
    pub action_size: usize,
    /// Widths of the hidden layers of all networks.
    pub hidden_sizes: Vec<usize>,
    /// Rows of a mini-batch, B.
    pub batch_size: usize,
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
    /// Updates of the critics for each update of the policy, each from a mini-batch of its own.
    pub update_to_data: usize,
}

impl Default for SacConfig {
    fn default() -> Self {
        Self {
            observation_size: 0,
            action_size: 0,
            hidden_sizes: vec![256; 2],
            batch_size: 256,
            discount: 0.99,
            tau: 0.005,
            learning_rate: 3e-4,
            initial_temperature: 1.0,
            target_entropy_per_dim: -1.0,
            update_to_data: 1,
        }
    }
}

impl SacConfig {
    /// Target entropy of the whole action, nats.
    pub fn target_entropy(&self) -> f64 {
        self.target_entropy_per_dim * self.action_size as f64
    }

    /// Checks every number.
    ///
    /// # Errors
    /// The first number outside its range.
    pub fn validate(&self) -> Result<(), LearnerConfigError> {
        let narrowest = self.hidden_sizes.iter().copied().min().unwrap_or(0);
        let counts = [
            ("sac.observation_size", self.observation_size),
            ("sac.action_size", self.action_size),
            ("sac.hidden_sizes", narrowest),
            ("sac.batch_size", self.batch_size),
            ("sac.update_to_data", self.update_to_data),
        ];
        let counts = counts.map(|(key, got)| (key, got as f64, 1.0..=1e9, "1 or more"));
        let unit = "a number from 0 to 1";
        let rates = [
            ("sac.discount", self.discount, 0.0..=1.0, unit),
            ("sac.tau", self.tau, 0.0..=1.0, unit),
            (
                "sac.learning_rate",
                self.learning_rate,
                1e-12..=1.0,
                "a positive number up to 1",
            ),
            (
                "sac.initial_temperature",
                self.initial_temperature,
                1e-12..=1e6,
                "a positive number",
            ),
            (
                "sac.target_entropy_per_dim",
                self.target_entropy_per_dim,
                -1e3..=1e3,
                "a finite number",
            ),
        ];
        match counts
            .into_iter()
            .chain(rates)
            .find(|(_, got, range, _)| !range.contains(got))
        {
            None => Ok(()),
            Some((key, got, _, expected)) => Err(LearnerConfigError {
                key,
                expected,
                got: got.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_numbers_are_refused_by_key() {
        let refused = |change: fn(&mut SacConfig)| {
            let mut config = SacConfig {
                observation_size: 4,
                action_size: 1,
                ..SacConfig::default()
            };
            config.validate().unwrap();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(refused(|c| c.batch_size = 0).contains("sac.batch_size is 0; expected 1 or more"));
        assert!(refused(|c| c.hidden_sizes.clear()).contains("sac.hidden_sizes"));
        assert!(refused(|c| c.tau = -0.1).contains("sac.tau is -0.1"));
        assert!(refused(|c| c.learning_rate = f64::NAN).contains("sac.learning_rate is NaN"));
    }
}
