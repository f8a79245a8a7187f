//! Mean Flow Policy Optimization (arXiv 2604.14698): one update of the critics, the policy, its divergence network and
//! the temperature, in this order. Each file beside this one is one loss.
//!
//! Shapes: B rows of a mini-batch, S observation, A action, K1 policy samples, K2 Gaussian samples, T sampling steps,
//! N probes. An [`Engine`] says how: packed networks and gradients written out (CPU), or candle (other devices).

mod actor;
mod candidates;
mod config;
mod critic;
mod divergence;
mod draws;
mod engine;
mod going_on;
pub(crate) mod network;
pub(crate) mod optimizer;
#[cfg(test)]
mod precision_tests;
mod support;
mod temperature;
mod trace;
mod velocity;

use candle_core::{Device, Tensor};
use mfpo_policy::bundle::CriticManifest;
use mfpo_policy::critic::Critic;
use mfpo_policy::device::DeviceError;
use mfpo_policy::fast::FastCritic;
use mfpo_policy::gradient::{CriticGradient, FlowGradient, FlowTangents, FlowWeights, Team};
use mfpo_policy::kernel::Precision;
use mfpo_policy::mean_flow::MeanFlow;
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::parameters::{NetworkError, Parameters};
use mfpo_policy::sampler::{ActionSampler, PolicyNetworks, SampleError};
use serde::Serialize;
use thiserror::Error;

pub use config::{LearnerConfig, LearnerConfigError};
pub use critic::project;
pub use draws::{Draws, RandomDraws, Times, truncated_normal};
pub use engine::Engine;
pub use optimizer::{Adam, ScalarAdam};
pub use trace::Trace;
pub use velocity::{ProposalSet, VelocityEstimate, VelocityProblem, estimate_velocity};

use crate::algorithm::{Algorithm, MeanFlowPolicy, TrainedPolicy, UpdateMetrics};
use crate::replay_buffer::{Batch, Transition};
use crate::resumption::ByHand;
use crate::state::{State, StateError};
use candidates::{PackedCritics, PackedPolicy};
use network::TrainedNetwork;
use support::ObservedReturns;
use temperature::Temperature;

/// Why a learner could not be made or an update not be done.
#[derive(Debug, Error)]
pub enum LearnerError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] LearnerConfigError),
    /// A mini-batch has other sizes than the configuration.
    #[error("{what} of the mini-batch holds {got} numbers; expected {expected}")]
    Batch {
        /// The part of the batch.
        what: &'static str,
        /// The number that was expected.
        expected: usize,
        /// The number that came.
        got: usize,
    },
    /// A loss, or another number that a network would learn from, is NaN or infinite.
    #[error("{what} is {value} at update {update}; the run stops before a network learns from it")]
    NotFinite {
        /// The loss or metric, or the intermediate result whose mean it is.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Number of the update.
        update: u64,
    },
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The operating system gave no threads.
    #[error("the threads of the update could not be started: {0}; set learner.threads = 1")]
    Threads(String),
    /// A gradient holds NaN or infinity, though its loss is finite.
    #[error("the gradient of '{0}' is not finite; the run stops before the network takes that step")]
    Gradient(String),
    /// A parameter got no gradient.
    #[error("parameter '{0}' got no gradient")]
    NoGradient(String),
    /// A network refused its input.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// An action could not be sampled.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A saved state does not fit.
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<candle_core::Error> for LearnerError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}

/// The first of `values` that is not finite, as an error of `update`.
pub(crate) fn check_finite(values: &[(&'static str, f64)], update: u64) -> Result<(), LearnerError> {
    match values.iter().find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some(&(what, value)) => Err(LearnerError::NotFinite { what, value, update }),
    }
}

/// What one update says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct UpdateInfo {
    /// Cross-entropy of critic 1, nats.
    pub critic_loss_1: f64,
    /// Cross-entropy of critic 2, nats.
    pub critic_loss_2: f64,
    /// Mean value of the first critic on the batch.
    pub q_mean: f64,
    /// Mean squared error of the average velocity.
    pub actor_loss: f64,
    /// Mean squared error of the average divergence.
    pub divergence_loss: f64,
    /// `alpha (H - target)`.
    pub temperature_loss: f64,
    /// alpha after the update.
    pub temperature: f64,
    /// Estimated entropy of the policy before the update, nats.
    pub entropy: f64,
    /// Mean effective sample size of the policy samples, 1 to K1.
    pub ess_policy: f64,
    /// Mean effective sample size of the Gaussian samples, 1 to K2.
    pub ess_clean: f64,
}

/// The mini-batch as tensors.
struct BatchTensors {
    observations: Tensor,
    actions: Tensor,
}

/// Passes through the networks and back, whose memory serves one update after another.
#[derive(Default)]
struct Passes {
    critics: [CriticGradient; 2],
    /// The weights of what `flow` goes through: the actor, then the divergence network.
    moving: FlowWeights,
    flow: FlowGradient,
    /// The actor's weights for `tangents`.
    still: FlowWeights,
    tangents: FlowTangents,
}

/// Everything that learns.
pub struct MfpoLearner {
    config: LearnerConfig,
    device: Device,
    engine: Engine,
    actor: TrainedNetwork<MeanFlow>,
    divergence: TrainedNetwork<MeanFlow>,
    critics: [TrainedNetwork<Critic>; 2],
    targets: [(Parameters, Critic); 2],
    temperature: Temperature,
    draws: RandomDraws,
    noise: NormalNoise,
    policy: Option<PackedPolicy>,
    /// Whether its weights are others now than those that were packed.
    policy_changed: bool,
    /// The critics that values were last taken from.
    evaluated: Option<PackedCritics>,
    packed_targets: [Option<FastCritic>; 2],
    passes: Passes,
    /// The threads of an update.
    team: Team,
    updates: u64,
    /// With the option `support_from_returns`.
    returns: Option<ObservedReturns>,
    /// Whether the support was chosen from returns.
    support_chosen: bool,
}

/// The initial parameters of every network.
pub struct InitialParameters {
    /// Average velocity.
    pub actor: Parameters,
    /// Average divergence.
    pub divergence: Parameters,
    /// The two critics.
    pub critics: [Parameters; 2],
    /// The two target critics; `None` copies the critics.
    pub targets: Option<[Parameters; 2]>,
    /// Logarithm of the temperature.
    pub log_temperature: f32,
}

impl MfpoLearner {
    /// Fresh networks. The same seed gives the same networks and the same draws.
    ///
    /// # Errors
    /// When the configuration is not valid or the device has no memory left.
    pub fn new(config: LearnerConfig, seed: u64, device: &Device) -> Result<Self, LearnerError> {
        config.validate()?;
        let (s, a, hidden) = (config.observation_size, config.action_size, &config.hidden_sizes);
        let network = |offset: u64| seed.wrapping_mul(8).wrapping_add(offset);
        let initial = InitialParameters {
            actor: MeanFlow::initialize(network(0), (s, a, a), hidden, device)?,
            divergence: MeanFlow::initialize(network(1), (s, a, 1), hidden, device)?,
            critics: [
                Critic::initialize(network(2), (s, a, config.atoms), hidden, device)?,
                Critic::initialize(network(3), (s, a, config.atoms), hidden, device)?,
            ],
            targets: None,
            log_temperature: config.initial_temperature.ln() as f32,
        };
        Self::with_parameters(config, initial, network(4), device)
    }

    /// Given networks, with fresh optimiser moments; sizes must fit the configuration.
    ///
    /// # Errors
    /// When the configuration is not valid or a shape does not fit.
    pub fn with_parameters(
        config: LearnerConfig,
        initial: InitialParameters,
        seed: u64,
        device: &Device,
    ) -> Result<Self, LearnerError> {
        Self::with_engine(config, initial, seed, (device, Engine::of(device)))
    }

    /// [`MfpoLearner::with_parameters`], computed as `engine` says: [`Engine::Candle`] on the CPU is what a GPU runs.
    ///
    /// # Errors
    /// As [`MfpoLearner::with_parameters`].
    pub fn with_engine(
        config: LearnerConfig,
        initial: InitialParameters,
        seed: u64,
        (device, engine): (&Device, Engine),
    ) -> Result<Self, LearnerError> {
        config.validate()?;
        if engine == Engine::Candle && config.precision == Precision::Fast {
            return Err(LearnerError::Config(LearnerConfigError {
                key: "learner.precision",
                expected: "exact where updates run on a GPU; fast is the CPU's",
                got: "fast".to_owned(),
            }));
        }
        let (a, support, rate) = (config.action_size, config.support(), config.learning_rate);
        let on = (device, engine);
        let load_flow = move |p: &Parameters| MeanFlow::load(p, a).map(|n| engine.flow(n));
        let load_critic = move |p: &Parameters| Critic::load(p, support).map(|n| engine.critic(n));
        let flow = |p: Parameters| TrainedNetwork::new(p, rate, on, load_flow);
        let critic = |p: Parameters| TrainedNetwork::new(p, rate, on, load_critic);
        let [first, second] = initial.critics;
        let critics = [critic(first)?, critic(second)?];
        let copies = match initial.targets {
            Some(targets) => targets,
            None => [
                critics[0].parameters().copied()?,
                critics[1].parameters().copied()?,
            ],
        };
        let target = |p: &Parameters| -> Result<(Parameters, Critic), LearnerError> {
            let p = p.to_device(device)?.copied()?;
            let network = load_critic(&p)?;
            Ok((p, network))
        };
        let team = Team::new(config.threads).map_err(|e| LearnerError::Threads(e.to_string()))?;
        Ok(Self {
            actor: flow(initial.actor)?,
            divergence: flow(initial.divergence)?,
            targets: [target(&copies[0])?, target(&copies[1])?],
            critics,
            temperature: Temperature::new(initial.log_temperature, config.temperature_min, rate as f32),
            draws: RandomDraws::new(seed)
                .with_team(team.clone())
                .with_grid(config.grid_time_share, config.sampling_steps),
            noise: NormalNoise::new(seed.wrapping_add(1)),
            policy: None,
            policy_changed: false,
            evaluated: None,
            packed_targets: [None, None],
            passes: Passes::default(),
            team,
            updates: 0,
            returns: config.support_from_returns.then(ObservedReturns::default),
            support_chosen: false,
            device: device.clone(),
            engine,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &LearnerConfig {
        &self.config
    }

    /// Updates done so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The temperature alpha.
    pub fn temperature(&self) -> f64 {
        f64::from(self.temperature.alpha())
    }

    /// One update from a mini-batch.
    ///
    /// # Errors
    /// When the batch has other sizes, or a loss is not finite.
    pub fn update(&mut self, batch: &Batch) -> Result<UpdateInfo, LearnerError> {
        // The draws are taken out for the call, because every stage borrows the learner as a whole.
        let mut draws = std::mem::replace(&mut self.draws, RandomDraws::new(0));
        let info = self.update_with(batch, &mut draws, &mut Trace::off());
        self.draws = draws;
        info
    }

    /// [`MfpoLearner::update`] with given random numbers, recording intermediate results where `trace` is on.
    ///
    /// # Errors
    /// As [`MfpoLearner::update`].
    pub fn update_with(
        &mut self,
        batch: &Batch,
        draws: &mut dyn Draws,
        trace: &mut Trace,
    ) -> Result<UpdateInfo, LearnerError> {
        let sizes = (self.config.observation_size, self.config.action_size);
        let parts = batch.parts(self.config.update_to_data, sizes)?;
        self.choose_support()?;
        let team = self.team.clone();
        team.install(|| self.update_in_team(&parts, draws, trace))
    }

    fn update_in_team(
        &mut self,
        parts: &[Batch],
        draws: &mut dyn Draws,
        trace: &mut Trace,
    ) -> Result<UpdateInfo, LearnerError> {
        let mut info = UpdateInfo::default();
        let Some((batch, before)) = parts.split_last() else {
            return Ok(info);
        };
        for part in before {
            let tensors = self.tensors(part)?;
            self.update_critics(part, &tensors, draws, &mut info, trace)?;
        }
        let tensors = self.tensors(batch)?;
        self.update_critics(batch, &tensors, draws, &mut info, trace)?;
        let first_actions = self.update_actor(batch, &tensors, draws, &mut info, trace)?;
        self.update_divergence(batch, &tensors, &first_actions, draws, &mut info, trace)?;
        self.update_temperature(&mut info, trace)?;
        self.updates += 1;
        Ok(info)
    }

    /// The threads of stages that work on tensors: one for candle, whose device has a queue of its own.
    fn tensor_team(&self) -> Team {
        match self.engine {
            Engine::Packed => self.team.clone(),
            Engine::Candle => Team::default(),
        }
    }

    fn tensors(&self, batch: &Batch) -> Result<BatchTensors, LearnerError> {
        let (b, s, a) = (batch.size, self.config.observation_size, self.config.action_size);
        Ok(BatchTensors {
            observations: Tensor::from_slice(&batch.observations, (b, s), &self.device)?,
            actions: Tensor::from_slice(&batch.actions, (b, a), &self.device)?,
        })
    }

    /// Asked before each step of an optimiser: what is at fault then is the only part that is damaged, and the one that is named.
    fn check_finite(&self, values: &[(&'static str, f64)]) -> Result<(), LearnerError> {
        check_finite(values, self.updates + 1)
    }

    /// One action in `[-1, 1]` for data collection: one sample, no selection.
    ///
    /// # Errors
    /// When the observation has another size.
    pub fn sample_action(&mut self, observation: &[f32]) -> Result<Vec<f32>, LearnerError> {
        let (expected, got) = (self.config.observation_size, observation.len());
        if expected != got {
            let what = "the observation";
            return Err(SampleError::Length { what, expected, got }.into());
        }
        let mut action = vec![0.0; self.config.action_size];
        self.noise.fill(&mut action);
        self.packed_policy()?.sample(observation, 1, &mut action)?;
        Ok(action)
    }

    /// Copies of the actor and of the target critics, for evaluation and for a bundle.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn policy_networks(&self) -> Result<PolicyNetworks, LearnerError> {
        let support = self.config.support();
        let target = |i: usize| -> Result<Critic, NetworkError> {
            Critic::load(&self.targets[i].0.copied()?, support)
        };
        Ok(PolicyNetworks {
            actor: MeanFlow::load(&self.actor.parameters().copied()?, self.config.action_size)?,
            critics: Some([target(0)?, target(1)?]),
            clipped_double_q: self.config.clipped_double_q,
            steps: self.config.sampling_steps,
            normalizer: None,
        })
    }

    /// A sampler of the current policy with best of N by the target critics; does not touch the training's draws.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn action_sampler(&self) -> Result<ActionSampler, LearnerError> {
        Ok(ActionSampler::new(&self.policy_networks()?, &self.device)?)
    }

    /// Parameters of the actor.
    pub fn actor_parameters(&self) -> &Parameters {
        self.actor.parameters()
    }

    /// Parameters of the divergence network.
    pub fn divergence_parameters(&self) -> &Parameters {
        self.divergence.parameters()
    }

    /// Parameters of the critics.
    pub fn critic_parameters(&self) -> [&Parameters; 2] {
        [self.critics[0].parameters(), self.critics[1].parameters()]
    }

    /// Parameters of the target critics.
    pub fn target_parameters(&self) -> [&Parameters; 2] {
        [&self.targets[0].0, &self.targets[1].0]
    }

    /// What a bundle says of the critics.
    pub fn critic_manifest(&self) -> CriticManifest {
        CriticManifest {
            support: self.config.support(),
            clipped_double_q: self.config.clipped_double_q,
        }
    }
}

impl Algorithm for MfpoLearner {
    fn rows_per_update(&self) -> usize {
        self.config.batch_size * self.config.update_to_data
    }

    fn observe(&mut self, environment: usize, transition: &Transition<'_>, ended: bool) {
        if let Some(returns) = &mut self.returns {
            returns.add(environment, transition.reward, ended, self.config.discount);
        }
    }

    fn update(&mut self, batch: &Batch) -> Result<UpdateMetrics, LearnerError> {
        let info = MfpoLearner::update(self, batch)?;
        let mut metrics = vec![
            ("critic_loss_1", info.critic_loss_1),
            ("critic_loss_2", info.critic_loss_2),
            ("q_mean", info.q_mean),
            ("actor_loss", info.actor_loss),
            ("divergence_loss", info.divergence_loss),
            ("temperature_loss", info.temperature_loss),
            ("temperature", info.temperature),
            ("entropy", info.entropy),
            ("ess_policy", info.ess_policy),
            ("ess_clean", info.ess_clean),
        ];
        if self.support_chosen {
            metrics.push(("value_min", self.config.value_min));
            metrics.push(("value_max", self.config.value_max));
        }
        Ok(UpdateMetrics(metrics))
    }

    fn sample_action(&mut self, observation: &[f32]) -> Result<Vec<f32>, LearnerError> {
        MfpoLearner::sample_action(self, observation)
    }

    fn policy(&self) -> Result<TrainedPolicy, LearnerError> {
        let [first, second] = self.target_parameters();
        Ok(TrainedPolicy::MeanFlow(Box::new(MeanFlowPolicy {
            actor: self.actor.parameters().copied_to_cpu()?,
            critics: [first.copied_to_cpu()?, second.copied_to_cpu()?],
            critic_manifest: self.critic_manifest(),
            action_size: self.config.action_size,
            sampling_steps: self.config.sampling_steps,
            normalizer: None,
        })))
    }

    fn parameters(&self) -> Vec<(&'static str, &Parameters)> {
        vec![
            ("actor", self.actor.parameters()),
            ("logp_mvel", self.divergence.parameters()),
            ("critic_1", self.critics[0].parameters()),
            ("critic_2", self.critics[1].parameters()),
            ("target_critic_1", &self.targets[0].0),
            ("target_critic_2", &self.targets[1].0),
        ]
    }

    fn state(&self) -> Result<State<'_>, LearnerError> {
        self.saved_state()
    }

    fn restore(&mut self, state: State<'_>) -> Result<(), LearnerError> {
        self.restore_state(state)
    }

    fn adopt(&mut self, by_hand: &ByHand) -> Result<(), LearnerError> {
        self.take_over(by_hand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_updates(threads: usize) -> (Vec<UpdateInfo>, Vec<f32>) {
        let config = LearnerConfig {
            batch_size: 150,
            hidden_sizes: vec![32; 2],
            threads,
            ..LearnerConfig::paper(7, 3)
        };
        let numbers = |n: usize, scale: f32| {
            (0..n)
                .map(|i| scale * (i as f32 * 0.37).sin())
                .collect::<Vec<f32>>()
        };
        let batch = Batch {
            size: 150,
            observation_size: 7,
            action_size: 3,
            observations: numbers(150 * 7, 1.5),
            actions: numbers(150 * 3, 0.9),
            rewards: numbers(150, 2.0),
            masks: vec![1.0; 150],
            next_observations: numbers(150 * 7, 1.4),
        };
        let mut learner = MfpoLearner::new(config, 5, &Device::Cpu).unwrap();
        let infos = (0..3).map(|_| learner.update(&batch).unwrap()).collect();
        let parameters = learner.actor_parameters().iter().flat_map(|(_, tensor)| {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            values
        });
        (infos, parameters.collect())
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let alone = after_updates(1);
        assert_eq!(alone, after_updates(2));
        assert_eq!(alone, after_updates(5));
    }
}
