//! The networks packed for evaluation on a CPU, without gradients: the control loop's single observation and the
//! trainer's thousands of candidates run the same code.
//!
//! What is computed once: the embedding of the sampler's times (T is fixed, so that the condition becomes a bias of
//! layer 1 for each step) and the observation's share of layer 1 (one row for each observation, however many
//! candidates it has). Nothing is allocated once a sampler has made room.

mod read_back;
mod trunk;

use std::cell::RefCell;

use crate::critic::{Critic, ValueSupport};
use crate::gradient::Team;
use crate::kernel::{Output, Precision, TrunkScratch};
use crate::mean_flow::MeanFlow;
use crate::parameters::NetworkError;
use crate::weights::Weights;
use trunk::PackedTrunk;

pub use read_back::StepSource;
pub(crate) use trunk::{copy_into, read, values};

/// Buffers of one evaluation, reused from call to call.
#[derive(Debug, Clone, Default)]
pub struct Scratch(TrunkScratch);

impl Scratch {
    /// As large as critics that take turns need it: grown for one after the other it could become twice that.
    pub(crate) fn for_critics(critics: &[FastCritic]) -> Self {
        let mut scratch = TrunkScratch::default();
        let widths = critics
            .iter()
            .map(|critic| (critic.trunk.widest(), critic.trunk.packing));
        if let Some((widest, packing)) = widths.max_by_key(|(widest, _)| *widest) {
            scratch.reserve(widest, packing);
        }
        Self(scratch)
    }
}

/// Rows of points or actions with the share of the observation that each group of them belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Points or actions `[G K, A]`.
    pub x: &'a [f32],
    /// The observations' share of layer 1, `[G, H]`.
    pub share: &'a [f32],
    /// Rows for each observation, K.
    pub group: usize,
}

/// A [`MeanFlow`] network packed for the sampler's T points `(t_i, h) = (i / T, 1 / T)`.
#[derive(Debug, Clone)]
pub struct FastMeanFlow {
    trunk: PackedTrunk,
    /// Layer 1's bias at each step, in the order of sampling (`t = 1` first), `[T][H]`.
    step_bias: Vec<Vec<f32>>,
    /// The same for one step over the whole interval, `(t, h) = (1, 1)`, where it is wanted.
    one_step_bias: Option<Vec<f32>>,
}

impl FastMeanFlow {
    /// Packs `network` for `steps` sampling steps.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn new(network: &MeanFlow, steps: usize, precision: Precision) -> Result<Self, NetworkError> {
        let mut packed = Self {
            trunk: PackedTrunk::of(precision),
            step_bias: vec![Vec::new(); steps],
            one_step_bias: None,
        };
        packed.repack(network)?;
        Ok(packed)
    }

    /// Packs other weights of the same shapes into the memory that is there, for what it was made for.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn repack(&mut self, network: &MeanFlow) -> Result<(), NetworkError> {
        let (action, observation) = (network.action_size(), network.observation_size());
        self.trunk
            .pack(&network.trunk, (0, action), (action, observation))?;
        self.step_bias = StepSource::of(network)?.biases(self.steps())?;
        if self.one_step_bias.is_some() {
            self.prepare_one_step(network)?;
        }
        Ok(())
    }

    /// Number of sampling steps, T.
    pub fn steps(&self) -> usize {
        self.step_bias.len()
    }

    /// Width of the observation's share.
    pub fn share_width(&self) -> usize {
        self.trunk.first.width()
    }

    /// The observation's share of layer 1: `[G, S]` to `[G, H]`.
    pub fn share(&self, observations: &[f32], out: &mut [f32]) {
        self.trunk.share(observations, out);
    }

    /// `f(s, x, t_i, h)` of all rows at sampling step `step` (0 is `t = 1`); `out` is `[G K, O]`.
    pub fn evaluate(&self, rows: Rows<'_>, step: usize, scratch: &mut Scratch, out: &mut [f32]) {
        self.trunk
            .run(rows, &self.step_bias[step], scratch, Output::Heads(out));
    }

    /// Makes one step over the whole interval possible as well; `network` is the one that was packed.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn prepare_one_step(&mut self, network: &MeanFlow) -> Result<(), NetworkError> {
        self.one_step_bias = StepSource::of(network)?.biases(1)?.pop();
        Ok(())
    }
}

/// What [`FastCritic::evaluate_in_team`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// `Q(s, a)`.
    Values,
    /// The distribution's logits.
    Logits,
}

/// A [`Critic`] packed for evaluation.
#[derive(Debug, Clone)]
pub struct FastCritic {
    trunk: PackedTrunk,
    support: ValueSupport,
    /// Atoms relative to the middle one, in steps.
    offsets: Vec<f32>,
}

impl FastCritic {
    /// Packs `critic` for observations of size `observation`.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn new(critic: &Critic, observation: usize, precision: Precision) -> Result<Self, NetworkError> {
        let mut packed = Self {
            trunk: PackedTrunk::of(precision),
            support: critic.support,
            offsets: Vec::new(),
        };
        packed.pack(critic, observation)?;
        Ok(packed)
    }

    /// Packs another critic for observations of the same size into the memory that is there.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn repack(&mut self, critic: &Critic) -> Result<(), NetworkError> {
        self.pack(critic, self.trunk.observation_size())
    }

    fn pack(&mut self, critic: &Critic, observation: usize) -> Result<(), NetworkError> {
        let input = critic.trunk.mlp.input_size();
        self.trunk.pack(
            &critic.trunk,
            (observation, input - observation),
            (0, observation),
        )?;
        let middle = 0.5 * (critic.support.atoms - 1) as f32;
        self.support = critic.support;
        self.offsets.clear();
        self.offsets
            .extend((0..critic.support.atoms).map(|j| j as f32 - middle));
        Ok(())
    }

    /// Width of the observation's share.
    pub fn share_width(&self) -> usize {
        self.trunk.first.width()
    }

    /// The observation's share of layer 1: `[G, S]` to `[G, H]`.
    pub fn share(&self, observations: &[f32], out: &mut [f32]) {
        self.trunk.share(observations, out);
    }

    /// Number of observations, G, in `[G, S]`.
    pub fn groups(&self, observations: &[f32]) -> usize {
        observations.len() / self.trunk.observation_size()
    }

    /// Logits of all rows, `[G K, atoms]`.
    pub fn logits(&self, rows: Rows<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        self.trunk
            .run(rows, &self.trunk.first.bias, scratch, Output::Heads(out));
    }

    /// Logits `[G K, atoms]` or `Q(s, a)` `[G K]` of observations `[G, S]` and actions `[G K, A]` on all
    /// threads of `team`.
    pub fn evaluate_in_team(
        &self,
        team: &Team,
        (observations, actions): (&[f32], &[f32]),
        group: usize,
        wanted: Wanted,
    ) -> Vec<f32> {
        let (s, a) = (self.trunk.observation_size(), self.trunk.x_size());
        let width = match wanted {
            Wanted::Values => 1,
            Wanted::Logits => self.support.atoms,
        };
        let groups = job_groups(group);
        let mut out = vec![0.0; actions.len() / a * width];
        let jobs: Vec<_> = observations
            .chunks(groups * s)
            .zip(actions.chunks(groups * group * a))
            .zip(out.chunks_mut(groups * group * width))
            .collect();
        team.each(jobs, |((observations, x), out)| {
            OF_A_JOB.with_borrow_mut(|SamplerBuffers { share, scratch, .. }| {
                let size = observations.len() / s * self.share_width();
                grow(share, size);
                let share = &mut share[..size];
                self.share(observations, share);
                let rows = Rows { x, share, group };
                match wanted {
                    Wanted::Values => self.value(rows, scratch, out),
                    Wanted::Logits => self.logits(rows, scratch, out),
                }
            });
        });
        out
    }

    /// `Q(s, a)` of all rows, `[G K]`.
    pub fn value(&self, rows: Rows<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        let output = Output::Value {
            out,
            offsets: &self.offsets,
            support: (self.support.minimum as f32, self.support.step() as f32),
        };
        self.trunk.run(rows, &self.trunk.first.bias, scratch, output);
    }
}

/// `log N(x; 0, I)` of one row.
pub fn normal_log_prob(x: &[f32]) -> f32 {
    const HALF_LOG_2_PI: f32 = 0.918_938_5;
    x.iter().map(|v| -0.5 * v * v - HALF_LOG_2_PI).sum()
}

/// Samples actions of many observations on the CPU.
#[derive(Debug, Clone)]
pub struct FastSampler {
    networks: SamplerNetworks,
    buffers: SamplerBuffers,
}

#[derive(Debug, Clone)]
struct SamplerNetworks {
    actor: FastMeanFlow,
    divergence: Option<FastMeanFlow>,
}

/// Memory of one call.
#[derive(Debug, Clone, Default)]
struct SamplerBuffers {
    share: Vec<f32>,
    divergence_share: Vec<f32>,
    flow: Vec<f32>,
    scratch: Scratch,
}

thread_local! {
    /// Memory of a team's jobs, one after another on the same thread: none of them asks a team itself.
    static OF_A_JOB: RefCell<SamplerBuffers> = RefCell::default();
}

/// Rows that one job of a team takes: whole tiles of every instruction set.
const JOB_ROWS: usize = 192;

/// Observations that make up about [`JOB_ROWS`] rows.
fn job_groups(group: usize) -> usize {
    (JOB_ROWS / group.max(1)).max(1)
}

impl FastSampler {
    /// Packs the actor and, where log-probabilities are wanted, the divergence network.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn new(actor: &MeanFlow, divergence: Option<&MeanFlow>, steps: usize) -> Result<Self, NetworkError> {
        let networks = SamplerNetworks {
            actor: FastMeanFlow::new(actor, steps, Precision::Exact)?,
            divergence: divergence
                .map(|d| FastMeanFlow::new(d, steps, Precision::Exact))
                .transpose()?,
        };
        Ok(Self {
            networks,
            buffers: SamplerBuffers::default(),
        })
    }

    /// [`FastSampler::new`] with both networks packed at the same time, in `precision`.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn in_team(
        team: &Team,
        actor: &MeanFlow,
        divergence: &MeanFlow,
        steps: usize,
        precision: Precision,
    ) -> Result<Self, NetworkError> {
        let (actor, divergence) = team.both(
            || FastMeanFlow::new(actor, steps, precision),
            || FastMeanFlow::new(divergence, steps, precision),
        );
        let networks = SamplerNetworks {
            actor: actor?,
            divergence: Some(divergence?),
        };
        Ok(Self {
            networks,
            buffers: SamplerBuffers::default(),
        })
    }

    /// Packs other weights of the same shapes into the memory that is there, both networks at the same time.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn repack_in_team(
        &mut self,
        team: &Team,
        actor: &MeanFlow,
        divergence: &MeanFlow,
    ) -> Result<(), NetworkError> {
        let networks = &mut self.networks;
        let (of_actor, of_divergence) = (&mut networks.actor, &mut networks.divergence);
        let (first, second) = team.both(
            || of_actor.repack(actor),
            || of_divergence.as_mut().map_or(Ok(()), |d| d.repack(divergence)),
        );
        first.and(second)
    }

    /// Adds the actor's weights as they lie in memory.
    ///
    /// # Errors
    /// When they do not make the biases that are in use.
    pub(crate) fn actor_weights<'a>(
        &'a self,
        source: &'a StepSource,
        weights: &mut Weights<'a>,
    ) -> Result<(), NetworkError> {
        self.networks.actor.weights("actor", source, weights)
    }

    /// Makes room for `groups` observations of `group` candidates, so that later calls allocate nothing.
    pub fn reserve(&mut self, groups: usize, group: usize) {
        self.networks.reserve(&mut self.buffers, groups, group);
    }

    /// Makes [`FastSampler::one_step`] possible; `actor` is the network that was packed.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn prepare_one_step(&mut self, actor: &MeanFlow) -> Result<(), NetworkError> {
        self.networks.actor.prepare_one_step(actor)
    }

    /// Takes in observations `[G, S]` for the calls of [`FastSampler::one_step`] and [`FastSampler::all_steps`] that
    /// follow: their share of layer 1 is computed once.
    pub fn observe(&mut self, observations: &[f32]) {
        let groups = observations.len() / self.networks.actor.trunk.observation_size();
        let width = self.networks.actor.share_width();
        grow(&mut self.buffers.share, groups * width);
        self.networks
            .actor
            .share(observations, &mut self.buffers.share[..groups * width]);
    }

    /// From noise to actions in one step, `x <- clip(x - u(s, x, 1, 1))`, of the observations taken in last; `x` is
    /// `[G K, A]`. Where that was not prepared, or the policy has but one step, it is [`FastSampler::all_steps`].
    pub fn one_step(&mut self, group: usize, x: &mut [f32]) {
        let actor = &self.networks.actor;
        let Some(bias) = actor.one_step_bias.as_ref().filter(|_| actor.steps() > 1) else {
            return self.all_steps(group, x);
        };
        let buffers = &mut self.buffers;
        grow(&mut buffers.flow, x.len());
        let share = &buffers.share[..x.len() / (group * actor.trunk.x_size()) * actor.share_width()];
        let flow = &mut buffers.flow[..x.len()];
        actor.trunk.run(
            Rows { x, share, group },
            bias,
            &mut buffers.scratch,
            Output::Heads(flow),
        );
        x.iter_mut().zip(flow).for_each(|(x, u)| *x -= *u);
        clip(x);
    }

    /// [`FastSampler::sample`] without log-probabilities, of the observations taken in last.
    pub fn all_steps(&mut self, group: usize, x: &mut [f32]) {
        self.networks.all_steps(&mut self.buffers, group, x);
        clip(x);
    }

    /// Runs the flow from noise to actions: `x <- x - h u(s, x, t_i, h)` for `t_i = 1, ..., 1/T`, `h = 1/T`, then clips to
    /// `[-1, 1]`. `observations` is `[G, S]`; `x` holds the noise and becomes the actions, `[G K, A]`. With
    /// `log_probs` (`[G K]`) also `log p <- log p + h D(s, x, t_i, h)` from `log N(x_1; 0, I)`, not corrected for the clip.
    pub fn sample(
        &mut self,
        observations: &[f32],
        group: usize,
        x: &mut [f32],
        log_probs: Option<&mut [f32]>,
    ) {
        self.flow_without_clip(observations, group, x, log_probs);
        clip(x);
    }

    /// [`FastSampler::sample`] without the final clip.
    pub fn flow_without_clip(
        &mut self,
        observations: &[f32],
        group: usize,
        x: &mut [f32],
        log_probs: Option<&mut [f32]>,
    ) {
        self.networks
            .flow(&mut self.buffers, observations, group, (x, log_probs));
    }

    /// [`FastSampler::sample`] on all threads of `team`; the same bits, whatever their number.
    pub fn sample_in_team(
        &self,
        team: &Team,
        observations: &[f32],
        group: usize,
        x: &mut [f32],
        log_probs: Option<&mut [f32]>,
    ) {
        let (s, a) = (
            self.networks.actor.trunk.observation_size(),
            self.networks.actor.trunk.x_size(),
        );
        let groups = job_groups(group);
        let observations = observations.chunks(groups * s);
        let mut log_probs = log_probs.map(|l| l.chunks_mut(groups * group));
        let jobs: Vec<_> = observations
            .zip(x.chunks_mut(groups * group * a))
            .map(|(o, x)| (o, x, log_probs.as_mut().and_then(Iterator::next)))
            .collect();
        team.each(jobs, |(observations, x, log_probs)| {
            OF_A_JOB.with_borrow_mut(|buffers| {
                self.networks
                    .flow(buffers, observations, group, (&mut *x, log_probs));
            });
            clip(x);
        });
    }
}

fn clip(x: &mut [f32]) {
    for value in x {
        *value = value.clamp(-1.0, 1.0);
    }
}

fn grow(values: &mut Vec<f32>, size: usize) {
    if values.len() < size {
        values.resize(size, 0.0);
    }
}

impl SamplerNetworks {
    fn reserve(&self, buffers: &mut SamplerBuffers, groups: usize, group: usize) {
        let share = groups * self.actor.share_width();
        grow(&mut buffers.share, share);
        grow(
            &mut buffers.flow,
            groups * group * self.actor.trunk.x_size().max(1),
        );
        if let Some(divergence) = &self.divergence {
            grow(&mut buffers.divergence_share, groups * divergence.share_width());
        }
        buffers
            .scratch
            .0
            .reserve(self.actor.trunk.widest(), self.actor.trunk.packing);
    }

    /// The actor's steps, from the share that the buffers hold.
    fn all_steps(&self, buffers: &mut SamplerBuffers, group: usize, x: &mut [f32]) {
        let steps = self.actor.steps();
        let h = (1.0 / steps as f64) as f32;
        grow(&mut buffers.flow, x.len());
        let groups = x.len() / (group * self.actor.trunk.x_size());
        let share = &buffers.share[..groups * self.actor.share_width()];
        for step in 0..steps {
            let flow = &mut buffers.flow[..x.len()];
            self.actor
                .evaluate(Rows { x, share, group }, step, &mut buffers.scratch, flow);
            x.iter_mut().zip(flow).for_each(|(x, u)| *x -= h * *u);
        }
    }

    fn flow(
        &self,
        buffers: &mut SamplerBuffers,
        observations: &[f32],
        group: usize,
        (x, mut log_probs): (&mut [f32], Option<&mut [f32]>),
    ) {
        let (action, steps) = (self.actor.trunk.x_size(), self.actor.steps());
        let groups = observations.len() / self.actor.trunk.observation_size();
        self.reserve(buffers, groups, group);
        let SamplerBuffers {
            share,
            divergence_share,
            flow,
            scratch,
        } = buffers;
        let h = (1.0 / steps as f64) as f32;
        if let Some(log_probs) = log_probs.as_deref_mut() {
            for (slot, row) in log_probs.iter_mut().zip(x.chunks_exact(action)) {
                *slot = normal_log_prob(row);
            }
            if let Some(d) = &self.divergence {
                d.share(observations, &mut divergence_share[..groups * d.share_width()]);
            }
        }
        let share = &mut share[..groups * self.actor.share_width()];
        self.actor.share(observations, share);
        for step in 0..steps {
            if let (Some(d), Some(log_probs)) = (&self.divergence, log_probs.as_deref_mut()) {
                let share = &divergence_share[..groups * d.share_width()];
                let flow = &mut flow[..log_probs.len()];
                d.evaluate(Rows { x, share, group }, step, scratch, flow);
                log_probs.iter_mut().zip(flow).for_each(|(l, d)| *l += h * *d);
            }
            let flow = &mut flow[..x.len()];
            self.actor.evaluate(Rows { x, share, group }, step, scratch, flow);
            x.iter_mut().zip(flow).for_each(|(x, u)| *x -= h * *u);
        }
    }
}

#[cfg(test)]
#[path = "fast_tests.rs"]
mod tests;
