//! What the sampler computes with: the packed kernels on the CPU, candle on other devices.

use candle_core::{Device, Tensor};

use super::{ActionSampler, PolicyNetworks, SampleError, sample};
use crate::critic::Critic;
use crate::fast::{FastCritic, FastSampler, Rows, Scratch, StepSource, values};
use crate::kernel::Precision;
use crate::mean_flow::MeanFlow;
use crate::parameters::NetworkError;
use crate::weights::Weights;

/// What it is.
#[derive(Debug)]
pub(super) enum Backend {
    Fast {
        sampler: Box<FastSampler>,
        /// Weights that the sampler was computed from, but does not compute with.
        source: Box<StepSource>,
        critics: Option<Box<[FastCritic; 2]>>,
        /// The observation's share of each critic's layer 1, and whether it is that of the observation taken in last.
        shares: [Vec<f32>; 2],
        is_shared: bool,
        scratch: Scratch,
    },
    Candle {
        actor: Box<MeanFlow>,
        critics: Option<Box<[Critic; 2]>>,
        device: Device,
    },
}

impl Backend {
    /// Packs the networks for the CPU's kernels.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub(super) fn fast(networks: &PolicyNetworks) -> Result<Self, NetworkError> {
        let most = ActionSampler::MOST_CANDIDATES;
        let observation = networks.actor.observation_size();
        let mut sampler = FastSampler::new(&networks.actor, None, networks.steps)?;
        sampler.prepare_one_step(&networks.actor)?;
        sampler.reserve(1, most);
        let critics = match &networks.critics {
            None => None,
            Some([a, b]) => Some([
                FastCritic::new(a, observation, Precision::Exact)?,
                FastCritic::new(b, observation, Precision::Exact)?,
            ]),
        };
        let share = |i: usize| {
            let width = critics.as_ref().map_or(0, |c| c[i].share_width());
            vec![0.0; width]
        };
        let mut backend = Self::Fast {
            sampler: Box::new(sampler),
            source: Box::new(StepSource::of(&networks.actor)?),
            shares: [share(0), share(1)],
            is_shared: false,
            scratch: critics
                .as_ref()
                .map_or_else(Scratch::default, |critics| Scratch::for_critics(critics)),
            critics: critics.map(Box::new),
        };
        // One evaluation at the largest size makes every buffer as large as it will ever be.
        if networks.critics.is_some() {
            let actions = vec![0.0; most * networks.actor.action_size()];
            let (mut first, mut second) = (vec![0.0; most], vec![0.0; most]);
            let observation = vec![0.0; observation];
            backend
                .values(&observation, &actions, (&mut first, &mut second))
                .map_err(|error| match error {
                    SampleError::Network(error) => error,
                    other => candle_core::Error::Msg(other.to_string()).into(),
                })?;
        }
        Ok(backend)
    }

    /// Adds the weights as they lie in memory.
    ///
    /// # Errors
    /// When that memory is damaged.
    pub(super) fn weights<'a>(&'a self, weights: &mut Weights<'a>) -> Result<(), NetworkError> {
        const CRITICS: [&str; 2] = ["critic_1", "critic_2"];
        match self {
            Self::Fast {
                sampler,
                source,
                critics,
                ..
            } => {
                sampler.actor_weights(source, weights)?;
                for (critic, name) in critics.iter().flat_map(|c| c.iter()).zip(CRITICS) {
                    critic.weights(name, weights);
                }
            }
            Self::Candle { actor, critics, .. } => {
                weights.mean_flow("actor", actor);
                for (critic, name) in critics.iter().flat_map(|c| c.iter()).zip(CRITICS) {
                    weights.critic(name, critic);
                }
            }
        }
        Ok(())
    }

    /// Takes in the observation of the calls that follow, which are given it as well.
    pub(super) fn observe(&mut self, observation: &[f32]) {
        if let Self::Fast {
            sampler, is_shared, ..
        } = self
        {
            sampler.observe(observation);
            *is_shared = false;
        }
    }

    /// One candidate `[A]` from noise to an action in one step.
    pub(super) fn one_step(&mut self, observation: &[f32], x: &mut [f32]) -> Result<(), SampleError> {
        match self {
            Self::Fast { sampler, .. } => {
                sampler.one_step(1, x);
                Ok(())
            }
            Self::Candle { .. } => self.all_steps(observation, 1, x, 1),
        }
    }

    /// Candidates `[K, A]` from noise to actions in all steps.
    pub(super) fn all_steps(
        &mut self,
        observation: &[f32],
        candidates: usize,
        x: &mut [f32],
        steps: usize,
    ) -> Result<(), SampleError> {
        match self {
            Self::Fast { sampler, .. } => sampler.all_steps(candidates, x),
            Self::Candle { actor, device, .. } => {
                let rows = Tensor::from_slice(observation, (1, observation.len()), device)?;
                let rows = rows.broadcast_as((candidates, observation.len()))?.contiguous()?;
                let noise = Tensor::from_slice(x, (candidates, x.len() / candidates), device)?;
                x.copy_from_slice(&values(&sample(actor, &rows, &noise, steps)?)?);
            }
        }
        Ok(())
    }

    /// Each critic's values of actions `[K, A]`.
    pub(super) fn values(
        &mut self,
        observation: &[f32],
        actions: &[f32],
        out: (&mut [f32], &mut [f32]),
    ) -> Result<(), SampleError> {
        let candidates = out.0.len();
        match self {
            Self::Fast {
                critics: Some(critics),
                shares,
                is_shared,
                scratch,
                ..
            } => {
                if !std::mem::replace(is_shared, true) {
                    for (critic, share) in critics.iter().zip(shares.iter_mut()) {
                        critic.share(observation, share);
                    }
                }
                for ((critic, share), out) in critics.iter().zip(shares).zip([out.0, out.1]) {
                    let rows = Rows {
                        x: actions,
                        share,
                        group: candidates,
                    };
                    critic.value(rows, scratch, out);
                }
                Ok(())
            }
            Self::Candle {
                critics: Some(critics),
                device,
                ..
            } => {
                let rows = Tensor::from_slice(observation, (1, observation.len()), device)?;
                let rows = rows.broadcast_as((candidates, observation.len()))?.contiguous()?;
                let actions = Tensor::from_slice(actions, (candidates, actions.len() / candidates), device)?;
                for (critic, out) in critics.iter().zip([out.0, out.1]) {
                    out.copy_from_slice(&values(&critic.value(&rows, &actions)?)?);
                }
                Ok(())
            }
            _ => Err(SampleError::NoCritics { candidates }),
        }
    }
}
