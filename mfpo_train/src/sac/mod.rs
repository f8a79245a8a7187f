//! Soft Actor-Critic (Haarnoja et al. 2018, arXiv 1812.05905): twin critics, a tanh-squashed Gaussian policy, automatic
//! temperature. The usual peer of a new algorithm, in the same loop as MFPO. Each file beside this one is one loss.
//!
//! Shapes: B rows of a mini-batch, S observation, A action.

mod actor;
mod bias_relu;
mod config;
mod critic;
mod network;
mod policy;
pub mod policy_file;
mod temperature;

use candle_core::{Device, Tensor};
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::parameters::Parameters;
use rand_chacha::ChaCha8Rng;

pub use config::SacConfig;
pub use policy::GaussianPolicy;

use crate::algorithm::{Algorithm, TrainedPolicy, UpdateMetrics};
use crate::learner::network::TrainedNetwork;
use crate::learner::{Engine, LearnerError, ScalarAdam, Trace};
use crate::replay_buffer::Batch;
use crate::resumption::ByHand;
use crate::state::{Generator, State};
use network::ReluMlp;

/// Everything that learns.
pub struct SacLearner {
    config: SacConfig,
    device: Device,
    actor: TrainedNetwork<ReluMlp>,
    critics: [TrainedNetwork<ReluMlp>; 2],
    targets: [(Parameters, ReluMlp); 2],
    log_alpha: f32,
    alpha_adam: ScalarAdam,
    /// Noise of updates.
    draws: NormalNoise,
    /// Noise of data collection.
    noise: NormalNoise,
    /// The policy for single observations, made anew after each update.
    policy: Option<GaussianPolicy>,
    updates: u64,
}

/// What an update says of itself.
#[derive(Default)]
struct Metrics {
    critic_losses: [f64; 2],
    q_mean: f64,
    actor_loss: f64,
    temperature_loss: f64,
    temperature: f64,
    entropy: f64,
}

/// A mini-batch as tensors.
struct BatchTensors {
    observations: Tensor,
    actions: Tensor,
    rewards: Tensor,
    masks: Tensor,
    next_observations: Tensor,
}

impl BatchTensors {
    fn new(batch: &Batch, device: &Device) -> Result<Self, LearnerError> {
        let (b, s, a) = (batch.size, batch.observation_size, batch.action_size);
        Ok(Self {
            observations: Tensor::from_slice(&batch.observations, (b, s), device)?,
            actions: Tensor::from_slice(&batch.actions, (b, a), device)?,
            rewards: Tensor::from_slice(&batch.rewards, b, device)?,
            masks: Tensor::from_slice(&batch.masks, b, device)?,
            next_observations: Tensor::from_slice(&batch.next_observations, (b, s), device)?,
        })
    }
}

impl SacLearner {
    /// Fresh networks. The same seed gives the same networks and the same draws.
    ///
    /// # Errors
    /// When the configuration is not valid or the device has no memory left.
    pub fn new(config: SacConfig, seed: u64, device: &Device) -> Result<Self, LearnerError> {
        config.validate()?;
        let (s, a) = (config.observation_size, config.action_size);
        let network = |offset: u64, input: usize, output: usize| {
            let sizes = [&[input], &config.hidden_sizes[..], &[output]].concat();
            ReluMlp::initialize(seed.wrapping_mul(8).wrapping_add(offset), &sizes, device)
        };
        let actor = network(0, s, 2 * a)?;
        let critics = [network(1, s + a, 1)?, network(2, s + a, 1)?];
        Self::with_parameters(config, actor, critics, seed, device)
    }

    /// Given networks, with fresh optimiser moments; the target critics are copies of the critics.
    ///
    /// # Errors
    /// When the configuration is not valid or a parameter is missing.
    pub fn with_parameters(
        config: SacConfig,
        actor: Parameters,
        critics: [Parameters; 2],
        seed: u64,
        device: &Device,
    ) -> Result<Self, LearnerError> {
        config.validate()?;
        let rate = config.learning_rate;
        let trained =
            |p: Parameters| TrainedNetwork::new(p, rate, (device, Engine::of(device)), ReluMlp::load);
        let target = |p: &Parameters| -> Result<(Parameters, ReluMlp), LearnerError> {
            let p = p.to_device(device)?.copied()?;
            let network = ReluMlp::load(&p)?;
            Ok((p, network))
        };
        let targets = [target(&critics[0])?, target(&critics[1])?];
        let [first, second] = critics;
        Ok(Self {
            actor: trained(actor)?,
            critics: [trained(first)?, trained(second)?],
            targets,
            log_alpha: config.initial_temperature.ln() as f32,
            alpha_adam: ScalarAdam::default(),
            draws: NormalNoise::new(seed.wrapping_mul(8).wrapping_add(3)),
            noise: NormalNoise::new(seed.wrapping_mul(8).wrapping_add(4)),
            policy: None,
            updates: 0,
            device: device.clone(),
            config,
        })
    }

    /// The temperature alpha.
    pub fn temperature(&self) -> f64 {
        f64::from(self.log_alpha.exp())
    }

    /// One update with given noise: `noise` fills `[B, A]` for the next actions of each mini-batch, then for the policy's.
    ///
    /// # Errors
    /// When the batch has other sizes, or a loss is not finite.
    pub fn update_with(
        &mut self,
        batch: &Batch,
        noise: &mut dyn FnMut(&mut [f32]),
        trace: &mut Trace,
    ) -> Result<UpdateMetrics, LearnerError> {
        let parts = batch.parts(
            self.config.update_to_data,
            (self.config.observation_size, self.config.action_size),
        )?;
        let mut metrics = Metrics::default();
        let mut last = None;
        for part in parts {
            let tensors = BatchTensors::new(&part, &self.device)?;
            let draws = self.draw(part.size, noise)?;
            self.update_critics(&tensors, &draws, &mut metrics, trace)?;
            last = Some(tensors);
        }
        if let Some(tensors) = last {
            let draws = self.draw(tensors.rewards.dims1()?, noise)?;
            self.update_actor(&tensors, &draws, &mut metrics, trace)?;
            self.update_temperature(&mut metrics);
        }
        self.updates += 1;
        metrics.named().finite(self.updates)
    }

    fn draw(&self, rows: usize, noise: &mut dyn FnMut(&mut [f32])) -> Result<Tensor, LearnerError> {
        let mut values = vec![0.0; rows * self.config.action_size];
        noise(&mut values);
        Ok(Tensor::from_vec(
            values,
            (rows, self.config.action_size),
            &self.device,
        )?)
    }
}

impl Metrics {
    fn named(&self) -> UpdateMetrics {
        UpdateMetrics(vec![
            ("critic_loss_1", self.critic_losses[0]),
            ("critic_loss_2", self.critic_losses[1]),
            ("q_mean", self.q_mean),
            ("actor_loss", self.actor_loss),
            ("temperature_loss", self.temperature_loss),
            ("temperature", self.temperature),
            ("entropy", self.entropy),
        ])
    }
}

impl Algorithm for SacLearner {
    fn rows_per_update(&self) -> usize {
        self.config.batch_size * self.config.update_to_data
    }

    fn update(&mut self, batch: &Batch) -> Result<UpdateMetrics, LearnerError> {
        let mut draws = self.draws.clone();
        let metrics = self.update_with(batch, &mut |out| draws.fill(out), &mut Trace::off());
        self.draws = draws;
        metrics
    }

    fn sample_action(&mut self, observation: &[f32]) -> Result<Vec<f32>, LearnerError> {
        let policy = match self.policy.take() {
            Some(policy) => policy,
            None => GaussianPolicy::new(self.actor.parameters())?,
        };
        let mut noise = vec![0.0; self.config.action_size];
        self.noise.fill(&mut noise);
        Ok(self.policy.insert(policy).sample(observation, &noise)?)
    }

    fn policy(&self) -> Result<TrainedPolicy, LearnerError> {
        Ok(TrainedPolicy::Gaussian(GaussianPolicy::new(
            self.actor.parameters(),
        )?))
    }

    fn parameters(&self) -> Vec<(&'static str, &Parameters)> {
        vec![
            ("actor", self.actor.parameters()),
            ("critic_1", self.critics[0].parameters()),
            ("critic_2", self.critics[1].parameters()),
            ("target_critic_1", &self.targets[0].0),
            ("target_critic_2", &self.targets[1].0),
        ]
    }

    fn state(&self) -> Result<State<'_>, LearnerError> {
        let mut state = State::default();
        state.nest("actor", self.actor.state()?);
        state.nest("critic_1", self.critics[0].state()?);
        state.nest("critic_2", self.critics[1].state()?);
        state.put_parameters("target_critic_1", &self.targets[0].0)?;
        state.put_parameters("target_critic_2", &self.targets[1].0)?;
        state.nest("temperature", self.alpha_adam.state());
        state.put("log_alpha", vec![self.log_alpha]);
        state.put("draws", self.draws.generator().position());
        state.put("noise", self.noise.generator().position());
        state.put("counters", vec![self.updates]);
        Ok(state)
    }

    fn restore(&mut self, mut state: State<'_>) -> Result<(), LearnerError> {
        let mut parts = ["actor", "critic_1", "critic_2"].map(|name| state.take_part(name));
        let [actor, first, second] = &mut parts;
        let critics = [
            first.take_parameters("parameters", self.critics[0].parameters())?,
            second.take_parameters("parameters", self.critics[1].parameters())?,
        ];
        let actor = actor.take_parameters("parameters", self.actor.parameters())?;
        let mut learner = Self::with_parameters(self.config.clone(), actor, critics, 0, &self.device)?;
        for (target, name) in learner
            .targets
            .iter_mut()
            .zip(["target_critic_1", "target_critic_2"])
        {
            let parameters = state.take_parameters(name, &target.0)?.to_device(&self.device)?;
            let network = ReluMlp::load(&parameters)?;
            *target = (parameters, network);
        }
        let [actor, first, second] = parts;
        learner.actor.restore_moments(actor)?;
        learner.critics[0].restore_moments(first)?;
        learner.critics[1].restore_moments(second)?;
        learner.alpha_adam = ScalarAdam::restored(state.take_part("temperature"))?;
        learner.log_alpha = state.take_f32_of("log_alpha", 1)?[0];
        learner.draws = NormalNoise::from_generator(ChaCha8Rng::at(state.take_u64("draws")?));
        learner.noise = NormalNoise::from_generator(ChaCha8Rng::at(state.take_u64("noise")?));
        [learner.updates] = state.take_u64("counters")?;
        *self = learner;
        Ok(())
    }

    /// A temperature alone: SAC's critics have no atoms.
    fn adopt(&mut self, by_hand: &ByHand) -> Result<(), LearnerError> {
        if let Some(alpha) = by_hand.temperature {
            self.log_alpha = alpha.ln() as f32;
            self.alpha_adam = ScalarAdam::default();
        }
        Ok(())
    }
}
