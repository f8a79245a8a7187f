//! How the stages of an update are computed, decided once when a learner is made.

use candle_core::Device;
use mfpo_policy::critic::Critic;
use mfpo_policy::mean_flow::MeanFlow;

/// How networks are evaluated and their gradients found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Packed networks, gradients written out, Adam in place: on the CPU only.
    Packed,
    /// candle's own operations and its tape: what every other device runs. Slow on the CPU, where it is tested.
    Candle,
}

impl Engine {
    /// The one for `device`.
    pub fn of(device: &Device) -> Self {
        if device.is_cpu() {
            Self::Packed
        } else {
            Self::Candle
        }
    }

    /// `network` as this engine evaluates it.
    pub(super) fn flow(self, network: MeanFlow) -> MeanFlow {
        match self {
            Self::Packed => network,
            Self::Candle => network.composed(),
        }
    }

    /// `network` as this engine evaluates it.
    pub(super) fn critic(self, network: Critic) -> Critic {
        match self {
            Self::Packed => network,
            Self::Candle => network.composed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::Algorithm;
    use crate::learner::{InitialParameters, LearnerConfig, MfpoLearner, UpdateInfo};
    use crate::replay_buffer::Batch;

    const SIZES: (usize, usize) = (5, 2);
    const BATCH: usize = 16;

    fn learner(engine: Engine) -> MfpoLearner {
        let config = LearnerConfig {
            batch_size: BATCH,
            hidden_sizes: vec![24; 2],
            threads: 2,
            ..LearnerConfig::paper(SIZES.0, SIZES.1)
        };
        learner_of(config, engine)
    }

    fn learner_of(config: LearnerConfig, engine: Engine) -> MfpoLearner {
        let fresh = MfpoLearner::new(config.clone(), 3, &Device::Cpu).unwrap();
        let [first, second] = fresh.critic_parameters();
        let initial = InitialParameters {
            actor: fresh.actor_parameters().copied().unwrap(),
            divergence: fresh.divergence_parameters().copied().unwrap(),
            critics: [first.copied().unwrap(), second.copied().unwrap()],
            targets: None,
            log_temperature: -1.0,
        };
        MfpoLearner::with_engine(config, initial, 7, (&Device::Cpu, engine)).unwrap()
    }

    fn batch() -> Batch {
        batch_of(BATCH, SIZES)
    }

    fn batch_of(size: usize, (observation_size, action_size): (usize, usize)) -> Batch {
        let numbers =
            |count: usize, scale: f32| (0..count).map(|i| scale * (i as f32 * 0.37).sin()).collect();
        Batch {
            size,
            observation_size,
            action_size,
            observations: numbers(size * observation_size, 1.5),
            actions: numbers(size * action_size, 0.9),
            rewards: numbers(size, 2.0),
            masks: vec![1.0; size],
            next_observations: numbers(size * observation_size, 1.4),
        }
    }

    fn numbers(info: UpdateInfo) -> [f64; 6] {
        [
            info.critic_loss_1,
            info.critic_loss_2,
            info.actor_loss,
            info.divergence_loss,
            info.entropy,
            info.q_mean,
        ]
    }

    #[test]
    fn both_engines_draw_the_same_numbers_and_come_to_the_same_updates() {
        let (mut packed, mut candle) = (learner(Engine::Packed), learner(Engine::Candle));
        for update in 0..3 {
            let (a, b) = (packed.update(&batch()).unwrap(), candle.update(&batch()).unwrap());
            for (a, b) in numbers(a).into_iter().zip(numbers(b)) {
                // A few bits in the first update; what they become later is up to the networks.
                let allowed = [1e-4, 1e-3, 1e-2][update] * a.abs().max(1e-2);
                assert!((a - b).abs() < allowed, "update {update}: {a} {b}");
            }
        }
        let observation = [0.1, -0.2, 0.3, -0.4, 0.5];
        let (a, b) = (
            packed.sample_action(&observation).unwrap(),
            candle.sample_action(&observation).unwrap(),
        );
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-2, "{a} {b}");
        }
    }

    /// The sizes of HalfCheetah and Humanoid with the networks, the batch and the candidates of the paper.
    #[test]
    fn both_engines_come_to_the_same_update_at_the_papers_sizes() {
        for sizes in [(17, 6), (348, 17)] {
            let config = LearnerConfig {
                threads: 2,
                ..LearnerConfig::paper(sizes.0, sizes.1)
            };
            assert_eq!(
                (config.batch_size, config.hidden_sizes.as_slice()),
                (256, [256; 3].as_slice())
            );
            let batch = batch_of(config.batch_size, sizes);
            let of = |engine| {
                let mut learner = learner_of(config.clone(), engine);
                let info = numbers(learner.update(&batch).unwrap());
                let observation: Vec<f32> = batch.observations[..sizes.0].to_vec();
                (info, learner.sample_action(&observation).unwrap())
            };
            let (packed, candle) = (of(Engine::Packed), of(Engine::Candle));
            for (a, b) in packed.0.into_iter().zip(candle.0) {
                assert!(
                    (a - b).abs() < 1e-4 * a.abs().max(1e-2),
                    "{sizes:?}: {packed:?} {candle:?}"
                );
            }
            for (a, b) in packed.1.iter().zip(&candle.1) {
                assert!((a - b).abs() < 1e-3, "{sizes:?}: {packed:?} {candle:?}");
            }
        }
    }

    #[test]
    fn state_of_the_candle_engine_is_taken_up_where_it_was_put_down() {
        let mut before = learner(Engine::Candle);
        before.update(&batch()).unwrap();
        let mut after = learner(Engine::Candle);
        Algorithm::restore(&mut after, Algorithm::state(&before).unwrap()).unwrap();
        assert_eq!(after.update(&batch()).unwrap(), before.update(&batch()).unwrap());
    }
}
