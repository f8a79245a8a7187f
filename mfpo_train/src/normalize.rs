//! Observation normalisation: `(o - mean) / deviation` with statistics of every observation seen so far.
//!
//! The replay buffer keeps observations as they were; a mini-batch is normalised when it is learnt from, an action's
//! observation when it is acted on, and a policy leaves with the numbers of its moment. All three go through
//! [`Normalizer::apply`], which is what the robot runs.

use mfpo_policy::parameters::Parameters;
use mfpo_policy::sampler::Normalizer;
use serde::{Deserialize, Serialize};

use crate::algorithm::{Algorithm, TrainedPolicy, UpdateMetrics};
use crate::learner::LearnerError;
use crate::replay_buffer::{Batch, Transition};
use crate::resumption::ByHand;
use crate::state::State;

/// A component that hardly varies is divided by this instead of by its deviation, so that noise is not blown up.
const LEAST_DEVIATION: f64 = 1e-2;

/// Running mean and variance of each component (Welford 1962).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObservationStatistics {
    count: u64,
    mean: Vec<f64>,
    /// Sum of squared differences from the mean.
    squares: Vec<f64>,
}

impl ObservationStatistics {
    /// No observation yet.
    pub fn new(size: usize) -> Self {
        Self {
            count: 0,
            mean: vec![0.0; size],
            squares: vec![0.0; size],
        }
    }

    /// Takes one observation, `[S]`.
    pub fn add(&mut self, observation: &[f32]) {
        self.count += 1;
        let statistics = self.mean.iter_mut().zip(&mut self.squares);
        for ((mean, squares), value) in statistics.zip(observation) {
            let before = f64::from(*value) - *mean;
            *mean += before / self.count as f64;
            *squares += before * (f64::from(*value) - *mean);
        }
    }

    /// The statistics as a policy carries them; before two observations they change nothing.
    pub fn normalizer(&self) -> Normalizer {
        let deviation = |squares: &f64| match self.count {
            0 | 1 => 1.0,
            n => (squares / n as f64).sqrt().max(LEAST_DEVIATION) as f32,
        };
        Normalizer {
            mean: self.mean.iter().map(|mean| *mean as f32).collect(),
            deviation: self.squares.iter().map(deviation).collect(),
        }
    }
}

/// An algorithm that sees normalised observations only.
pub struct Normalized {
    inner: Box<dyn Algorithm>,
    statistics: ObservationStatistics,
    /// Memory of the normalised mini-batch.
    batch: Batch,
}

impl Normalized {
    /// Wraps `inner`, which learns from observations of `size` components.
    pub fn new(inner: Box<dyn Algorithm>, size: usize) -> Self {
        Self {
            inner,
            statistics: ObservationStatistics::new(size),
            batch: Batch::default(),
        }
    }
}

impl Algorithm for Normalized {
    fn rows_per_update(&self) -> usize {
        self.inner.rows_per_update()
    }

    fn observe(&mut self, environment: usize, transition: &Transition<'_>, ended: bool) {
        self.statistics.add(transition.observation);
        self.inner.observe(environment, transition, ended);
    }

    fn update(&mut self, batch: &Batch) -> Result<UpdateMetrics, LearnerError> {
        self.batch.clone_from(batch);
        let normalizer = self.statistics.normalizer();
        let size = batch.observation_size.max(1);
        for rows in [&mut self.batch.observations, &mut self.batch.next_observations] {
            rows.chunks_exact_mut(size).for_each(|row| normalizer.apply(row));
        }
        self.inner.update(&self.batch)
    }

    fn sample_action(&mut self, observation: &[f32]) -> Result<Vec<f32>, LearnerError> {
        let mut observation = observation.to_vec();
        self.statistics.normalizer().apply(&mut observation);
        self.inner.sample_action(&observation)
    }

    fn policy(&self) -> Result<TrainedPolicy, LearnerError> {
        Ok(self.inner.policy()?.with_normalizer(self.statistics.normalizer()))
    }

    fn parameters(&self) -> Vec<(&'static str, &Parameters)> {
        self.inner.parameters()
    }

    fn state(&self) -> Result<State<'_>, LearnerError> {
        let mut state = self.inner.state()?;
        state.put("statistics/count", vec![self.statistics.count]);
        state.put("statistics/mean", &self.statistics.mean[..]);
        state.put("statistics/squares", &self.statistics.squares[..]);
        Ok(state)
    }

    fn restore(&mut self, mut state: State<'_>) -> Result<(), LearnerError> {
        let size = self.statistics.mean.len();
        let [count] = state.take_u64("statistics/count")?;
        self.statistics = ObservationStatistics {
            count,
            mean: state.take_f64_of("statistics/mean", size)?,
            squares: state.take_f64_of("statistics/squares", size)?,
        };
        self.inner.restore(state)
    }

    fn adopt(&mut self, by_hand: &ByHand) -> Result<(), LearnerError> {
        self.inner.adopt(by_hand)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps the observations that it is shown.
    struct Witness(Arc<Mutex<Vec<f32>>>);

    impl Algorithm for Witness {
        fn rows_per_update(&self) -> usize {
            1
        }

        fn update(&mut self, batch: &Batch) -> Result<UpdateMetrics, LearnerError> {
            let mut seen = self.0.lock().unwrap();
            seen.extend(&batch.observations);
            seen.extend(&batch.next_observations);
            Ok(UpdateMetrics::default())
        }

        fn sample_action(&mut self, observation: &[f32]) -> Result<Vec<f32>, LearnerError> {
            self.0.lock().unwrap().extend(observation);
            Ok(vec![0.0])
        }

        fn policy(&self) -> Result<TrainedPolicy, LearnerError> {
            unreachable!("not asked for here")
        }

        fn parameters(&self) -> Vec<(&'static str, &Parameters)> {
            Vec::new()
        }

        fn state(&self) -> Result<State<'_>, LearnerError> {
            unreachable!("not asked for here")
        }

        fn restore(&mut self, _: State<'_>) -> Result<(), LearnerError> {
            unreachable!("not asked for here")
        }

        fn adopt(&mut self, _: &ByHand) -> Result<(), LearnerError> {
            unreachable!("not asked for here")
        }
    }

    #[test]
    fn statistics_are_those_of_all_observations() {
        let mut statistics = ObservationStatistics::new(2);
        for i in 0..1_000 {
            statistics.add(&[(i % 2) as f32 * 4.0 + 1e4, 7.0]);
        }
        let normalizer = statistics.normalizer();
        assert_eq!(normalizer.mean, [10_002.0, 7.0]);
        // Two values 4 apart deviate by 2; a constant gets the least deviation.
        assert_eq!(normalizer.deviation, [2.0, LEAST_DEVIATION as f32]);
    }

    #[test]
    fn learning_and_acting_see_the_same_normalised_observation() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut normalized = Normalized::new(Box::new(Witness(seen.clone())), 1);
        for value in [2.0, 6.0] {
            let transition = Transition {
                observation: &[value],
                action: &[0.0],
                reward: 0.0,
                terminated: false,
                next_observation: &[value],
            };
            normalized.observe(0, &transition, false);
        }
        let batch = Batch {
            size: 1,
            observation_size: 1,
            action_size: 1,
            observations: vec![8.0],
            actions: vec![0.0],
            rewards: vec![0.0],
            masks: vec![1.0],
            next_observations: vec![4.0],
        };
        normalized.update(&batch).unwrap();
        normalized.sample_action(&[8.0]).unwrap();
        assert_eq!(*seen.lock().unwrap(), [2.0, 0.0, 2.0]);
    }
}
