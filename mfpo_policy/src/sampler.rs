//! Noise to action, on any device: [`sample`] and [`sample_with_log_prob`] in candle for the trainer's GPU and as the
//! reference, and [`ActionSampler`], what the control loop calls.

use candle_core::{Device, Tensor};
use thiserror::Error;

use crate::critic::Critic;
use crate::guard::{GuardManifest, Signals, difference, spread};
use crate::mean_flow::{FlowPoint, MeanFlow};
use crate::parameters::NetworkError;
use crate::weights::Weights;

mod backend;

use backend::Backend;

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
    /// The sampler takes one step, or all of the policy's.
    #[error("{} steps and {} candidates were asked for; expected 1 step and 1 candidate, or {steps} steps", got.steps, got.candidates)]
    NoSuchDepth {
        /// The policy's steps, T.
        steps: usize,
        /// What was asked for.
        got: Depth,
    },
    /// The network produced a number that is not finite.
    #[error("component {index} of the action is {value}; the observation or the weights are damaged")]
    NotFinite {
        /// Component of the action.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A critic produced a number that is not finite, so that no candidate can be told to be the best.
    #[error(
        "a critic's value of candidate {candidate} is {value}; the observation or the weights are damaged"
    )]
    NotFiniteValue {
        /// Index of the candidate.
        candidate: usize,
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
    #[serde(deserialize_with = "crate::bounds::observation")]
    pub mean: Vec<f32>,
    /// `[S]`, positive.
    #[serde(deserialize_with = "crate::bounds::observation")]
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

/// How far the sampler went for one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Sampling steps: 1, or the policy's T.
    pub steps: usize,
    /// Actions sampled, of which the critics chose the best.
    pub candidates: usize,
    /// Stage by stage, or all at once? The last bit of an action may depend on how its candidates were grouped.
    pub in_stages: bool,
}

impl Depth {
    /// The first answer: one step, one candidate.
    pub const FIRST: Self = Self {
        steps: 1,
        candidates: 1,
        in_stages: true,
    };
}

/// What [`ActionSampler::sample_within`] gave besides the action.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// How far it went; [`ActionSampler::sample_at`] gives the same action again.
    pub depth: Depth,
    /// The critics' value of the action, where they compared several.
    pub value: Option<f32>,
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
    /// The first candidate's answer in one step, `[A]`, and whether it is that of the last call.
    one_step: Vec<f32>,
    has_one_step: bool,
    sizes: (usize, usize, usize),
}

/// Candidates that one stage of [`ActionSampler::sample_within`] adds: a whole tile of the widest kernel.
const BATCH: usize = 8;

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
            one_step: vec![0.0; action],
            has_one_step: false,
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
        self.backend.weights(&mut weights)?;
        weights.digest()
    }

    /// Samples `candidates` actions from `noise` (`[candidates, A]`, standard normal) and writes the one with the
    /// highest value - or the only one - to `action` (`[A]`, in `[-1, 1]`). Returns its value,
    /// `None` for one candidate.
    ///
    /// # Errors
    /// When a length does not fit, critics are missing, or a component or a value is not finite (`action` is then untouched).
    pub fn sample_into(
        &mut self,
        observation: &[f32],
        noise: &[f32],
        candidates: usize,
        action: &mut [f32],
    ) -> Result<Option<f32>, SampleError> {
        let depth = Depth {
            steps: self.steps(),
            candidates,
            in_stages: false,
        };
        self.sample_at(observation, noise, depth, action)
    }

    /// [`ActionSampler::sample_into`] to a given depth; a single step of several is possible with one candidate in stages
    /// only. The same depth gives the same bits.
    ///
    /// # Errors
    /// As of [`ActionSampler::sample_into`], and when the policy has no such depth.
    pub fn sample_at(
        &mut self,
        observation: &[f32],
        noise: &[f32],
        depth: Depth,
        action: &mut [f32],
    ) -> Result<Option<f32>, SampleError> {
        let steps = self.steps();
        if depth.in_stages {
            let mut reached = |next: Depth| next.steps <= depth.steps && next.candidates <= depth.candidates;
            let sampled = self.sample_within(observation, noise, depth.candidates, action, &mut reached)?;
            return if sampled.depth == depth {
                Ok(sampled.value)
            } else {
                Err(SampleError::NoSuchDepth { steps, got: depth })
            };
        }
        if depth.steps != steps {
            return Err(SampleError::NoSuchDepth { steps, got: depth });
        }
        self.take_in(observation, noise, depth.candidates, action)?;
        self.sample_candidates(0, depth.candidates)?;
        let best = self.best_of(0, (0, depth.candidates))?;
        self.give(best, action)?;
        Ok((depth.candidates > 1).then(|| self.values[0][best]))
    }

    /// Samples as far as `goes_on` allows: first one step, then all T, then more candidates, up to `most`. Before each
    /// stage but the first it is asked with the depth which that stage would reach. `noise` is `[most, A]`.
    ///
    /// # Errors
    /// As of [`ActionSampler::sample_into`].
    pub fn sample_within(
        &mut self,
        observation: &[f32],
        noise: &[f32],
        most: usize,
        action: &mut [f32],
        goes_on: &mut dyn FnMut(Depth) -> bool,
    ) -> Result<Sampled, SampleError> {
        self.take_in(observation, noise, most, action)?;
        let mut depth = Depth::FIRST;
        self.backend
            .one_step(&self.observation, &mut self.actions[..self.sizes.1])?;
        self.one_step.copy_from_slice(&self.actions[..self.sizes.1]);
        self.has_one_step = true;
        self.give(0, action)?;
        let all = Depth {
            steps: self.steps(),
            ..depth
        };
        if all != depth {
            if !goes_on(all) {
                return Ok(Sampled { depth, value: None });
            }
            self.actions[..self.sizes.1].copy_from_slice(&noise[..self.sizes.1]);
            self.sample_candidates(0, 1)?;
            self.give(0, action)?;
            depth = all;
        }
        let (mut best, mut value) = (0, None);
        while depth.candidates < most {
            let from = depth.candidates;
            let next = Depth {
                candidates: most.min(from + BATCH),
                ..depth
            };
            if !goes_on(next) {
                break;
            }
            self.sample_candidates(from, next.candidates)?;
            // The first candidate has not met the critics yet.
            let unvalued = if from == 1 { 0 } else { from };
            best = self.best_of(best, (unvalued, next.candidates))?;
            value = Some(self.values[0][best]);
            depth = next;
        }
        self.give(best, action)?;
        Ok(Sampled { depth, value })
    }

    /// What each critic says of `action` where `observation` is seen; `None` without critics.
    ///
    /// # Errors
    /// When a length does not fit, or a value is not finite.
    pub fn values_of(
        &mut self,
        observation: &[f32],
        action: &[f32],
    ) -> Result<Option<[f32; 2]>, SampleError> {
        if !self.has_critics() {
            return Ok(None);
        }
        // In the place of the noise, which actions are made in.
        self.take_in(observation, action, 1, action)?;
        let [first, second] = &mut self.values;
        self.backend.values(
            &self.observation,
            &self.actions[..self.sizes.1],
            (&mut first[..1], &mut second[..1]),
        )?;
        let values = [first[0], second[0]];
        match values.into_iter().find(|value| !value.is_finite()) {
            Some(value) => Err(SampleError::NotFiniteValue { candidate: 0, value }),
            None => Ok(Some(values)),
        }
    }

    /// The signals that `guard` has a threshold for (see [`crate::guard`]), of the first candidates of the last call, as many as
    /// the guard compares; that call sampled them to `depth` from `noise`, `[K, A]`. `None` where it sampled fewer, or not in
    /// all steps. What that call did not compute on its way is computed here; no action depends on it.
    ///
    /// # Errors
    /// When `noise` holds no action's, or a tensor operation fails.
    pub fn signals(
        &mut self,
        noise: &[f32],
        depth: Depth,
        guard: &GuardManifest,
    ) -> Result<Option<Signals>, SampleError> {
        let count = guard.candidates;
        let is_enough = (2..=depth.candidates).contains(&count) && depth.steps == self.steps();
        let size = self.sizes.1;
        let (Some(actions), Some(values)) = (self.actions.get(..count * size), self.values[0].get(..count))
        else {
            return Ok(None);
        };
        if !is_enough {
            return Ok(None);
        }
        let spread = guard.spread_max.map(|_| spread(actions, size));
        let value = guard.value_min.map(|_| {
            let best = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            f64::from(best)
        });
        let disagreement = match guard.disagreement_max {
            Some(_) => Some(self.disagreement(noise)?),
            None => None,
        };
        Ok(Some(Signals {
            disagreement,
            spread,
            value,
        }))
    }

    /// How far the first candidate, sampled in all steps from `noise`, is from its answer in one step.
    fn disagreement(&mut self, noise: &[f32]) -> Result<f64, SampleError> {
        let size = self.sizes.1;
        if !self.has_one_step {
            let first = noise.get(..size).ok_or(SampleError::Length {
                what: "the noise",
                expected: size,
                got: noise.len(),
            })?;
            self.one_step.copy_from_slice(first);
            self.backend.one_step(&self.observation, &mut self.one_step)?;
            self.has_one_step = true;
        }
        Ok(difference(&self.actions[..size], &self.one_step))
    }

    /// Takes in what an action is sampled from.
    fn take_in(
        &mut self,
        observation: &[f32],
        noise: &[f32],
        candidates: usize,
        action: &[f32],
    ) -> Result<(), SampleError> {
        self.check(observation, noise, candidates, action)?;
        self.observation.copy_from_slice(observation);
        if let Some(normalizer) = &self.normalizer {
            normalizer.apply(&mut self.observation);
        }
        self.actions[..noise.len()].copy_from_slice(noise);
        self.has_one_step = false;
        self.backend.observe(&self.observation);
        Ok(())
    }

    /// Candidates `from..to`, from noise to actions.
    fn sample_candidates(&mut self, from: usize, to: usize) -> Result<(), SampleError> {
        let size = self.sizes.1;
        let actions = &mut self.actions[from * size..to * size];
        self.backend
            .all_steps(&self.observation, to - from, actions, self.sizes.2)
    }

    /// Index of the best of the candidates `from..to` and of `best`, the best of those before; afterwards `values[0]` holds
    /// the values that were compared.
    fn best_of(&mut self, mut best: usize, (from, to): (usize, usize)) -> Result<usize, SampleError> {
        if to == 1 {
            return Ok(0);
        }
        let size = self.sizes.1;
        let [first, second] = &mut self.values;
        self.backend.values(
            &self.observation,
            &self.actions[from * size..to * size],
            (&mut first[from..to], &mut second[from..to]),
        )?;
        for i in from..to {
            let (a, b) = (first[i], second[i]);
            // `min` would drop a NaN, and the other critic alone would decide.
            if let Some(value) = [a, b].into_iter().find(|value| !value.is_finite()) {
                return Err(SampleError::NotFiniteValue { candidate: i, value });
            }
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

    /// Hands out a candidate, where it is finite.
    fn give(&self, candidate: usize, action: &mut [f32]) -> Result<(), SampleError> {
        let size = self.sizes.1;
        let chosen = &self.actions[candidate * size..(candidate + 1) * size];
        if let Some((index, &value)) = chosen.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(SampleError::NotFinite { index, value });
        }
        action.copy_from_slice(chosen);
        Ok(())
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

#[cfg(test)]
#[path = "sampler/tests.rs"]
mod tests;
