//! What the training loop asks of a learner: an update from a mini-batch, an action, the policy as it is now.
//!
//! Two implement it, [`MfpoLearner`] and [`SacLearner`]; [`crate::normalize::Normalized`] wraps either.

use candle_core::Device;
use mfpo_policy::bundle::CriticManifest;
use mfpo_policy::critic::Critic;
use mfpo_policy::mean_flow::MeanFlow;
use mfpo_policy::parameters::{NetworkError, Parameters};
use mfpo_policy::sampler::{ActionSampler, Normalizer, PolicyNetworks};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::TrainConfig;
use crate::evaluate::Actor;
use crate::learner::{LearnerError, MfpoLearner, check_finite};
use crate::normalize::Normalized;
use crate::replay_buffer::{Batch, Transition};
use crate::resumption::ByHand;
use crate::sac::{GaussianPolicy, SacLearner};
use crate::state::State;

/// Which algorithm learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlgorithmKind {
    /// Mean Flow Policy Optimization, section `[learner]`.
    #[default]
    Mfpo,
    /// Soft Actor-Critic, section `[sac]`.
    Sac,
}

/// A learner.
pub trait Algorithm: Send {
    /// Transitions that one update takes: the mini-batch, once for each update of the critics.
    fn rows_per_update(&self) -> usize;

    /// A transition that has just happened in the run's environment of this index, before it goes into the replay
    /// buffer; `ended` if it was its episode's last.
    fn observe(&mut self, environment: usize, transition: &Transition<'_>, ended: bool) {
        let _ = (environment, transition, ended);
    }

    /// One update; its metrics hold `temperature` and `entropy`, and are finite.
    ///
    /// # Errors
    /// When the batch has other sizes, or a loss is not finite.
    fn update(&mut self, batch: &Batch) -> Result<UpdateMetrics, LearnerError>;

    /// One action in `[-1, 1]` for data collection.
    ///
    /// # Errors
    /// When the observation has another size.
    fn sample_action(&mut self, observation: &[f32]) -> Result<Vec<f32>, LearnerError>;

    /// A copy of the policy as it is now, on the CPU; nothing of the training's randomness is used.
    ///
    /// # Errors
    /// When the device has no memory left.
    fn policy(&self) -> Result<TrainedPolicy, LearnerError>;

    /// The parameters of every network with the network's name.
    fn parameters(&self) -> Vec<(&'static str, &Parameters)>;

    /// All that an update or an action depends on: parameters, moments, generators, counters.
    ///
    /// # Errors
    /// When it cannot be read from the device.
    fn state(&self) -> Result<State<'_>, LearnerError>;

    /// Takes up a [`Algorithm::state`]: what follows is, bit by bit on the CPU, what would have followed there.
    ///
    /// # Errors
    /// When the state is of another algorithm or of other sizes; the learner must not be used then.
    fn restore(&mut self, state: State<'_>) -> Result<(), LearnerError>;

    /// Takes over numbers that a restored state holds otherwise.
    ///
    /// # Errors
    /// When they contradict the others.
    fn adopt(&mut self, by_hand: &ByHand) -> Result<(), LearnerError>;
}

/// Numbers of one update by name, in the order in which they are written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpdateMetrics(pub Vec<(&'static str, f64)>);

impl UpdateMetrics {
    /// One number.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    /// The metrics, or the first of them that is not finite as an error.
    ///
    /// # Errors
    /// [`LearnerError::NotFinite`].
    pub fn finite(self, update: u64) -> Result<Self, LearnerError> {
        check_finite(&self.0, update)?;
        Ok(self)
    }
}

impl Serialize for UpdateMetrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A policy, detached from its learner.
pub enum TrainedPolicy {
    /// MFPO's, which a bundle carries to the robot.
    MeanFlow(Box<MeanFlowPolicy>),
    /// SAC's; no robot runs it, and no bundle holds it: its file is its own.
    Gaussian(GaussianPolicy),
}

impl TrainedPolicy {
    /// What evaluates it.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn actor(&self) -> Result<Box<dyn Actor>, NetworkError> {
        Ok(match self {
            Self::MeanFlow(policy) => Box::new(policy.sampler()?),
            Self::Gaussian(policy) => Box::new(policy.clone()),
        })
    }

    /// The same policy for observations that are normalised first.
    #[must_use]
    pub fn with_normalizer(mut self, normalizer: Normalizer) -> Self {
        match &mut self {
            Self::MeanFlow(policy) => policy.normalizer = Some(normalizer),
            Self::Gaussian(policy) => policy.normalizer = Some(normalizer),
        }
        self
    }
}

/// What a bundle holds.
#[derive(Debug, Clone)]
pub struct MeanFlowPolicy {
    /// Average velocity.
    pub actor: Parameters,
    /// The two target critics, for best of N.
    pub critics: [Parameters; 2],
    /// What the bundle says of them.
    pub critic_manifest: CriticManifest,
    /// Components of an action, A.
    pub action_size: usize,
    /// T.
    pub sampling_steps: usize,
    /// Applied to observations first.
    pub normalizer: Option<Normalizer>,
}

impl MeanFlowPolicy {
    /// The networks.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn networks(&self) -> Result<PolicyNetworks, NetworkError> {
        let support = self.critic_manifest.support;
        let [first, second] = &self.critics;
        Ok(PolicyNetworks {
            actor: MeanFlow::load(&self.actor, self.action_size)?,
            critics: Some([Critic::load(first, support)?, Critic::load(second, support)?]),
            clipped_double_q: self.critic_manifest.clipped_double_q,
            steps: self.sampling_steps,
            normalizer: self.normalizer.clone(),
        })
    }

    /// The sampler that a robot would run.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn sampler(&self) -> Result<ActionSampler, NetworkError> {
        ActionSampler::new(&self.networks()?, &Device::Cpu)
    }
}

/// The learner that `config` asks for.
///
/// # Errors
/// When the configuration is not valid or its device cannot be had.
pub fn make(config: &TrainConfig, seed: u64) -> Result<Box<dyn Algorithm>, LearnerError> {
    let device = config.run.device.open()?;
    if !device.is_cpu() {
        tracing::info!(
            "updates on {} ({}); only on the CPU does a resumed run repeat every bit",
            config.run.device,
            mfpo_policy::device::describe(&device)
        );
    }
    let learner: Box<dyn Algorithm> = match config.run.algorithm {
        AlgorithmKind::Mfpo => Box::new(MfpoLearner::new(config.learner.clone(), seed, &device)?),
        AlgorithmKind::Sac => Box::new(SacLearner::new(config.sac.clone(), seed, &device)?),
    };
    Ok(if config.run.normalize_observations {
        Box::new(Normalized::new(learner, config.learner.observation_size))
    } else {
        learner
    })
}
