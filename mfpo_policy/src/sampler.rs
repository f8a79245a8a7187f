//! Noise to action, on any device: [`sample`] and [`sample_with_log_prob`] in candle for the trainer's GPU and as the
//! reference, and [`ActionSampler`], what the control loop calls.

use candle_core::{Device, Tensor};
use thiserror::Error;

use crate::critic::Critic;
use crate::fast::{FastCritic, FastSampler, Rows, Scratch, StepSource, values};
use crate::kernel::Precision;
use crate::mean_flow::{FlowPoint, MeanFlow};
use crate::parameters::NetworkError;
use crate::weights::Weights;

/// Observations `[R, S]` and noise `[R, A]` to unclipped points at `t = 0` and, with a divergence network, their
/// log-probabilities `[R]`: `x <- x - h u`, `log p <- log p + h D`, both at the x before the step.
///
/// # Errors
/// When a shape does not fit.
pub fn flow(
    actor: &MeanFlow,
    divergence: Option<&MeanFlow>,
    (observation, noise): (&Tensor, &Tensor),
    steps: usize,
) -> Result<(Tensor, Option<Tensor>), NetworkError> {
    let rows = noise.dims2()?.0;
    let h = 1.0 / steps as f64;
    let interval = Tensor::full(h as f32, (rows, 1), noise.device())?;
    let mut x = noise.clone();
    let mut log_prob = divergence.map(|_| normal_log_prob(noise)).transpose()?;
    for i in (1..=steps).rev() {
        let t = Tensor::full((i as f64 * h) as f32, (rows, 1), noise.device())?;
        let at = FlowPoint {
            observation,
            x: &x,
            t: &t,
            h: &interval,
        };
        if let (Some(d), Some(l)) = (divergence, &log_prob) {
            log_prob = Some((l + (d.forward(at)?.squeeze(1)? * h)?)?);
        }
        x = (&x - (actor.forward(at)? * h)?)?;
    }
    Ok((x, log_prob))
}

/// Actions `[R, A]` in `[-1, 1]` of observations `[R, S]` from noise `[R, A]`.
///
/// # Errors
/// When a shape does not fit.
pub fn sample(
    actor: &MeanFlow,
    observation: &Tensor,
    noise: &Tensor,
    steps: usize,
) -> Result<Tensor, NetworkError> {
    let (x, _) = flow(actor, None, (observation, noise), steps)?;
    Ok(x.clamp(-1f32, 1f32)?)
}

/// [`sample`] with log-probabilities `[R]` (of the unclipped action).
///
/// # Errors
/// When a shape does not fit.
pub fn sample_with_log_prob(
    (actor, divergence): (&MeanFlow, &MeanFlow),
    observation: &Tensor,
    noise: &Tensor,
    steps: usize,
) -> Result<(Tensor, Tensor), NetworkError> {
    let (x, log_prob) = flow(actor, Some(divergence), (observation, noise), steps)?;
    let log_prob = log_prob.map_or_else(|| normal_log_prob(noise), Ok)?;
    Ok((x.clamp(-1f32, 1f32)?, log_prob))
}

/// `log N(x; 0, I)` of each row, `[R]`.
///
/// # Errors
/// When x is not `[R, A]`.
pub fn normal_log_prob(x: &Tensor) -> Result<Tensor, NetworkError> {
    let constant = 0.5 * (2.0 * std::f64::consts::PI).ln() * x.dims2()?.1 as f64;
    Ok(((x.sqr()?.sum(1)? * -0.5)? - constant)?)
}

/// Why an action could not be sampled.
#[derive(Debug, Error)]
pub enum SampleError {
    /// A slice has another length.
    #[error("{what} holds {got} numbers; expected {expected}")]
    Length {
        /// The slice.
        what: &'static str,
        /// The length that was expected.
        expected: usize,
        /// The length that came.
        got: usize,
    },
    /// Candidates can only be compared with critics.
    #[error("{candidates} candidates were asked for, but this policy carries no critics; ask for 1")]
    NoCritics {
        /// The number that was asked for.
        candidates: usize,
    },
    /// More candidates than the sampler has room for.
    #[error("{got} candidates were asked for; this sampler was made for at most {most}")]
    TooManyCandidates {
        /// The number that was asked for.
        got: usize,
        /// The most it can take.
        most: usize,
    },
    /// The network produced a number that is not finite.
    #[error("component {index} of the action is {value}; the observation or the weights are damaged")]
    NotFinite {
        /// Component of the action.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl From<candle_core::Error> for SampleError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}

/// Mean and standard deviation that an observation is normalised with: `(o - mean) / deviation`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalizer {
    /// `[S]`.
    pub mean: Vec<f32>,
    /// `[S]`, positive.
    pub deviation: Vec<f32>,
}

impl Normalizer {
    /// Normalises one observation in place: the one function that training and the robot share.
    pub fn apply(&self, observation: &mut [f32]) {
        let scale = self.mean.iter().zip(&self.deviation);
        for (value, (mean, deviation)) in observation.iter_mut().zip(scale) {
            *value = (*value - mean) / deviation;
        }
    }
}

/// The networks of a policy, as they are loaded from a bundle.
#[derive(Debug, Clone)]
pub struct PolicyNetworks {
    /// The average velocity.
    pub actor: MeanFlow,
    /// Target critics, for best of N.
    pub critics: Option<[Critic; 2]>,
    /// Whether best of N takes the smaller critic (else the mean).
    pub clipped_double_q: bool,
    /// T.
    pub steps: usize,
    /// Applied to observations first.
    pub normalizer: Option<Normalizer>,
}

/// Samples one action for one observation. On CPU it runs the fused kernel and allocates nothing after construction;
/// on other devices it runs candle.
#[derive(Debug)]
pub struct ActionSampler {
    backend: Backend,
    normalizer: Option<Normalizer>,
    clipped_double_q: bool,
    observation: Vec<f32>,
    actions: Vec<f32>,
    values: [Vec<f32>; 2],
    sizes: (usize, usize, usize),
}

#[derive(Debug)]
enum Backend {
    Fast {
        sampler: Box<FastSampler>,
        /// Weights that the sampler was computed from, but does not compute with.
        source: Box<StepSource>,
        critics: Option<Box<[FastCritic; 2]>>,
        share: Vec<f32>,
        scratch: Scratch,
    },
    Candle {
        actor: Box<MeanFlow>,
        critics: Option<Box<[Critic; 2]>>,
        device: Device,
    },
}

impl ActionSampler {
    /// Candidates that a sampler has room for.
    pub const MOST_CANDIDATES: usize = 64;

    /// Packs the networks (CPU) or keeps them (other devices, where they must already be).
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn new(networks: &PolicyNetworks, device: &Device) -> Result<Self, NetworkError> {
        let (observation, action) = (networks.actor.observation_size(), networks.actor.action_size());
        let most = Self::MOST_CANDIDATES;
        let backend = if device.is_cpu() {
            Backend::fast(networks)?
        } else {
            Backend::Candle {
                actor: Box::new(networks.actor.clone()),
                critics: networks.critics.clone().map(Box::new),
                device: device.clone(),
            }
        };
        Ok(Self {
            backend,
            normalizer: networks.normalizer.clone(),
            clipped_double_q: networks.clipped_double_q,
            observation: vec![0.0; observation],
            actions: vec![0.0; most * action],
            values: [vec![0.0; most], vec![0.0; most]],
            sizes: (observation, action, networks.steps),
        })
    }

    /// Size of an observation.
    pub fn observation_size(&self) -> usize {
        self.sizes.0
    }

    /// Size of an action.
    pub fn action_size(&self) -> usize {
        self.sizes.1
    }

    /// Sampling steps, T.
    pub fn steps(&self) -> usize {
        self.sizes.2
    }

    /// Whether best of N is possible.
    pub fn has_critics(&self) -> bool {
        match &self.backend {
            Backend::Fast { critics, .. } => critics.is_some(),
            Backend::Candle { critics, .. } => critics.is_some(),
        }
    }

    /// SHA-256 of all weights, read back from the memory that actions are computed with; for the
    /// same weights that of the bundle's tensors, [`crate::bundle::VerifiedBundle::weights_digest`].
    ///
    /// # Errors
    /// When that memory is damaged, or a device cannot be read.
    pub fn weights_digest(&self) -> Result<String, NetworkError> {
        let mut weights = Weights::default();
        match &self.backend {
            Backend::Fast {
                sampler,
                source,
                critics,
                ..
            } => {
                sampler.actor_weights(source, &mut weights)?;
                let critics = critics.iter().flat_map(|critics| critics.iter());
                for (critic, name) in critics.zip(["critic_1", "critic_2"]) {
                    critic.weights(name, &mut weights);
                }
            }
            Backend::Candle { actor, critics, .. } => {
                weights.mean_flow("actor", actor);
                let critics = critics.iter().flat_map(|critics| critics.iter());
                for (critic, name) in critics.zip(["critic_1", "critic_2"]) {
                    weights.critic(name, critic);
                }
            }
        }
        weights.digest()
    }

    /// Samples `candidates` actions from `noise` (`[candidates, A]`, standard normal) and writes the one with the
    /// highest value - or the only one - to `action` (`[A]`, in `[-1, 1]`). Returns its value, `None` for one candidate.
    ///
    /// # Errors
    /// When a length does not fit, critics are missing, or a component is not finite (`action` is then untouched).
    pub fn sample_into(
        &mut self,
        observation: &[f32],
        noise: &[f32],
        candidates: usize,
        action: &mut [f32],
    ) -> Result<Option<f32>, SampleError> {
        let (observation_size, action_size, _) = self.sizes;
        self.check(observation, noise, candidates, action)?;
        self.observation.copy_from_slice(observation);
        if let Some(normalizer) = &self.normalizer {
            normalizer.apply(&mut self.observation);
        }
        debug_assert_eq!(observation_size, self.observation.len());
        let actions = &mut self.actions[..candidates * action_size];
        actions.copy_from_slice(noise);
        self.backend
            .sample(&self.observation, candidates, actions, self.sizes.2)?;
        let best = self.best(candidates)?;
        let chosen = &self.actions[best * action_size..(best + 1) * action_size];
        if let Some((index, &value)) = chosen.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(SampleError::NotFinite { index, value });
        }
        action.copy_from_slice(chosen);
        Ok((candidates > 1).then(|| self.values[0][best]))
    }

    /// Index of the best candidate; afterwards `values[0]` holds the values that were compared.
    fn best(&mut self, candidates: usize) -> Result<usize, SampleError> {
        if candidates == 1 {
            return Ok(0);
        }
        let actions = &self.actions[..candidates * self.sizes.1];
        let [first, second] = &mut self.values;
        self.backend.values(
            &self.observation,
            actions,
            (&mut first[..candidates], &mut second[..candidates]),
        )?;
        let mut best = 0;
        for i in 0..candidates {
            let (a, b) = (first[i], second[i]);
            first[i] = if self.clipped_double_q {
                a.min(b)
            } else {
                0.5 * (a + b)
            };
            if first[i] > first[best] {
                best = i;
            }
        }
        Ok(best)
    }

    fn check(
        &self,
        observation: &[f32],
        noise: &[f32],
        candidates: usize,
        action: &[f32],
    ) -> Result<(), SampleError> {
        let lengths = [
            ("the observation", self.sizes.0, observation.len()),
            ("the noise", candidates * self.sizes.1, noise.len()),
            ("the action", self.sizes.1, action.len()),
        ];
        for (what, expected, got) in lengths {
            if expected != got {
                return Err(SampleError::Length { what, expected, got });
            }
        }
        match candidates {
            0 | 1 if candidates == 1 => Ok(()),
            n if n == 0 || n > Self::MOST_CANDIDATES => Err(SampleError::TooManyCandidates {
                got: n,
                most: Self::MOST_CANDIDATES,
            }),
            n if !self.has_critics() => Err(SampleError::NoCritics { candidates: n }),
            _ => Ok(()),
        }
    }
}

impl Backend {
    fn fast(networks: &PolicyNetworks) -> Result<Self, NetworkError> {
        let most = ActionSampler::MOST_CANDIDATES;
        let observation = networks.actor.observation_size();
        let mut sampler = FastSampler::new(&networks.actor, None, networks.steps)?;
        sampler.reserve(1, most);
        let critics = match &networks.critics {
            None => None,
            Some([a, b]) => Some([
                FastCritic::new(a, observation, Precision::Exact)?,
                FastCritic::new(b, observation, Precision::Exact)?,
            ]),
        };
        let width = critics
            .iter()
            .flatten()
            .map(FastCritic::share_width)
            .max()
            .unwrap_or(0);
        let mut backend = Self::Fast {
            sampler: Box::new(sampler),
            source: Box::new(StepSource::of(&networks.actor)?),
            critics: critics.map(Box::new),
            share: vec![0.0; width],
            scratch: Scratch::default(),
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

    fn sample(
        &mut self,
        observation: &[f32],
        candidates: usize,
        x: &mut [f32],
        steps: usize,
    ) -> Result<(), SampleError> {
        match self {
            Self::Fast { sampler, .. } => sampler.sample(observation, candidates, x, None),
            Self::Candle { actor, device, .. } => {
                let rows = Tensor::from_slice(observation, (1, observation.len()), device)?;
                let rows = rows.broadcast_as((candidates, observation.len()))?.contiguous()?;
                let noise = Tensor::from_slice(x, (candidates, x.len() / candidates), device)?;
                x.copy_from_slice(&values(&sample(actor, &rows, &noise, steps)?)?);
            }
        }
        Ok(())
    }

    fn values(
        &mut self,
        observation: &[f32],
        actions: &[f32],
        out: (&mut [f32], &mut [f32]),
    ) -> Result<(), SampleError> {
        let candidates = out.0.len();
        match self {
            Self::Fast {
                critics: Some(critics),
                share,
                scratch,
                ..
            } => {
                for (critic, out) in critics.iter().zip([out.0, out.1]) {
                    let share = &mut share[..critic.share_width()];
                    critic.share(observation, share);
                    critic.value(
                        Rows {
                            x: actions,
                            share,
                            group: candidates,
                        },
                        scratch,
                        out,
                    );
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
