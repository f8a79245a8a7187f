//! Policy samples and their values, without gradients: three quarters of an update's time.

use candle_core::{Device, Tensor};
use mfpo_policy::critic::Critic;
use mfpo_policy::fast::{FastCritic, FastSampler, Wanted};
use mfpo_policy::gradient::Team;
use mfpo_policy::kernel::Precision;
use mfpo_policy::mean_flow::MeanFlow;
use mfpo_policy::sampler;

use super::{Engine, LearnerError, MfpoLearner};

/// The policy, frozen.
pub(super) enum PackedPolicy {
    Fast(Box<FastSampler>),
    Candle {
        actor: Box<MeanFlow>,
        divergence: Box<MeanFlow>,
        steps: usize,
        device: Device,
    },
}

impl PackedPolicy {
    pub(super) fn new(
        team: &Team,
        actor: MeanFlow,
        divergence: MeanFlow,
        steps: usize,
        (device, engine, precision): (&Device, Engine, Precision),
    ) -> Result<Self, LearnerError> {
        if engine == Engine::Packed {
            let sampler = FastSampler::in_team(team, &actor, &divergence, steps, precision)?;
            return Ok(Self::Fast(Box::new(sampler)));
        }
        let (actor, divergence) = (Box::new(actor), Box::new(divergence));
        Ok(Self::Candle {
            actor,
            divergence,
            steps,
            device: device.clone(),
        })
    }

    /// The same with other weights, in the memory that is there.
    pub(super) fn renewed(
        self,
        team: &Team,
        actor: MeanFlow,
        divergence: MeanFlow,
    ) -> Result<Self, LearnerError> {
        match self {
            Self::Fast(mut sampler) => {
                sampler.repack_in_team(team, &actor, &divergence)?;
                Ok(Self::Fast(sampler))
            }
            Self::Candle { steps, device, .. } => Ok(Self::Candle {
                actor: Box::new(actor),
                divergence: Box::new(divergence),
                steps,
                device,
            }),
        }
    }

    /// Noise `[G K, A]` in `x` becomes actions for observations `[G, S]`.
    pub(super) fn sample(
        &mut self,
        observations: &[f32],
        group: usize,
        x: &mut [f32],
    ) -> Result<(), LearnerError> {
        match self {
            Self::Fast(sampler) => sampler.sample(observations, group, x, None),
            Self::Candle {
                actor, steps, device, ..
            } => {
                let (s, a) = (actor.observation_size(), actor.action_size());
                let observations = repeat(observations, s, group, device)?;
                let noise = Tensor::from_slice(x, (x.len() / a, a), device)?;
                let actions = sampler::sample(actor, &observations, &noise, *steps)?;
                x.copy_from_slice(&actions.flatten_all()?.to_vec1::<f32>()?);
            }
        }
        Ok(())
    }

    /// As [`PackedPolicy::sample`], with log-probabilities `[G K]`; their number says how many rows there are.
    pub(super) fn sample_with_log_prob(
        &mut self,
        team: &Team,
        observations: &[f32],
        group: usize,
        (x, log_probs): (&mut [f32], &mut [f32]),
    ) -> Result<(), LearnerError> {
        match self {
            Self::Fast(sampler) => sampler.sample_in_team(team, observations, group, x, Some(log_probs)),
            Self::Candle {
                actor,
                divergence,
                steps,
                device,
            } => {
                let (s, a) = (actor.observation_size(), actor.action_size());
                let observations = repeat(observations, s, group, device)?;
                let noise = Tensor::from_slice(x, (x.len() / a, a), device)?;
                let networks = (&**actor, &**divergence);
                let (actions, l) = sampler::sample_with_log_prob(networks, &observations, &noise, *steps)?;
                x.copy_from_slice(&actions.flatten_all()?.to_vec1::<f32>()?);
                log_probs.copy_from_slice(&l.to_vec1::<f32>()?);
            }
        }
        Ok(())
    }
}

/// Two critics, frozen.
pub(super) enum PackedCritics {
    Fast {
        critics: Box<[FastCritic; 2]>,
        clipped: bool,
    },
    Candle {
        critics: Box<[Critic; 2]>,
        clipped: bool,
        observation_size: usize,
        device: Device,
    },
}

impl PackedCritics {
    pub(super) fn new(
        team: &Team,
        critics: [Critic; 2],
        observation_size: usize,
        clipped: bool,
        (device, engine, precision): (&Device, Engine, Precision),
    ) -> Result<Self, LearnerError> {
        if engine == Engine::Packed {
            let [a, b] = &critics;
            let (a, b) = team.both(
                || FastCritic::new(a, observation_size, precision),
                || FastCritic::new(b, observation_size, precision),
            );
            let critics = [a?, b?];
            return Ok(Self::Fast {
                critics: Box::new(critics),
                clipped,
            });
        }
        let (critics, device) = (Box::new(critics), device.clone());
        Ok(Self::Candle {
            critics,
            clipped,
            observation_size,
            device,
        })
    }

    /// The same with other critics, in the memory that is there.
    pub(super) fn renewed(self, team: &Team, critics: [Critic; 2]) -> Result<Self, LearnerError> {
        match self {
            Self::Fast {
                critics: mut packed,
                clipped,
            } => {
                let [a, b] = &mut *packed;
                let (first, second) = team.both(|| a.repack(&critics[0]), || b.repack(&critics[1]));
                first.and(second)?;
                Ok(Self::Fast {
                    critics: packed,
                    clipped,
                })
            }
            Self::Candle {
                clipped,
                observation_size,
                device,
                ..
            } => Ok(Self::Candle {
                critics: Box::new(critics),
                clipped,
                observation_size,
                device,
            }),
        }
    }

    /// `min(Q1, Q2)` or their mean, `[G K]`, of observations `[G, S]` and actions `[G K, A]`.
    pub(super) fn values(
        &self,
        team: &Team,
        observations: &[f32],
        actions: &[f32],
        group: usize,
    ) -> Result<Vec<f32>, LearnerError> {
        match self {
            Self::Fast { critics, clipped } => {
                let rows = |critic: &FastCritic| {
                    critic.evaluate_in_team(team, (observations, actions), group, Wanted::Values)
                };
                let (first, second) = (rows(&critics[0]), rows(&critics[1]));
                let join = |(a, b): (&f32, &f32)| if *clipped { a.min(*b) } else { 0.5 * (a + b) };
                Ok(first.iter().zip(&second).map(join).collect())
            }
            Self::Candle {
                critics,
                clipped,
                observation_size,
                device,
            } => {
                let observations = repeat(observations, *observation_size, group, device)?;
                let rows = observations.dims2()?.0;
                let actions = Tensor::from_slice(actions, (rows, actions.len() / rows), device)?;
                let [first, second] = &**critics;
                let (first, second) = (
                    first.value(&observations, &actions)?,
                    second.value(&observations, &actions)?,
                );
                // Joined on the device: one copy to the host, and one wait for it.
                let joined = match clipped {
                    true => first.minimum(&second)?,
                    false => ((first + second)? * 0.5)?,
                };
                Ok(joined.to_vec1()?)
            }
        }
    }
}

impl MfpoLearner {
    /// The policy packed for sampling, packed again after each change of its weights.
    pub(super) fn packed_policy(&mut self) -> Result<&mut PackedPolicy, LearnerError> {
        let policy = match self.policy.take() {
            Some(policy) if !self.policy_changed => policy,
            before => {
                let (actor, divergence) = (self.actor.detached()?, self.divergence.detached()?);
                match before {
                    Some(before) => before.renewed(&self.team, actor, divergence)?,
                    None => PackedPolicy::new(
                        &self.team,
                        actor,
                        divergence,
                        self.config.sampling_steps,
                        (&self.device, self.engine, self.config.precision.for_many_rows()),
                    )?,
                }
            }
        };
        self.policy_changed = false;
        Ok(self.policy.insert(policy))
    }

    /// The critics as they are now, packed.
    pub(super) fn packed_critics(&mut self) -> Result<&PackedCritics, LearnerError> {
        let critics = [self.critics[0].detached()?, self.critics[1].detached()?];
        let packed = match self.evaluated.take() {
            Some(before) => before.renewed(&self.team, critics)?,
            None => PackedCritics::new(
                &self.team,
                critics,
                self.config.observation_size,
                self.config.clipped_double_q,
                (&self.device, self.engine, self.config.precision.for_many_rows()),
            )?,
        };
        Ok(self.evaluated.insert(packed))
    }
}

/// Observations `[G, S]` with each row `group` times, `[G K, S]`.
fn repeat(observations: &[f32], size: usize, group: usize, device: &Device) -> Result<Tensor, LearnerError> {
    let groups = observations.len() / size;
    let rows = Tensor::from_slice(observations, (groups, 1, size), device)?;
    Ok(rows
        .broadcast_as((groups, group, size))?
        .contiguous()?
        .reshape((groups * group, size))?)
}
