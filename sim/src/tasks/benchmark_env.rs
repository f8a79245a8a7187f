//! The environment of any [`super::BenchmarkTask`].

use std::cmp::Ordering;
use std::collections::VecDeque;

use mfpo_policy::subject::{Subject, TaskSpec};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tracing::warn;

use super::benchmark::Benchmark;
use super::rollout::{FullState, Outcome, Rollout, copy_part};
use crate::error::check_vector;
use crate::physics::Physics;
use crate::{Camera, Env, EnvOptions, EnvSpec, Info, Randomization, SimError, Step};

/// A benchmark task as the trainer sees it: actions in `[-1, 1]` are scaled to the actuators' ranges.
pub struct BenchmarkEnv {
    benchmark: Benchmark,
    spec: EnvSpec,
    randomization: Randomization,
    /// Middle and half width of each action.
    action_scale: Vec<(f64, f64)>,
    rng: ChaCha8Rng,
    /// Control periods since the start; `None` before the first.
    steps: Option<usize>,
    over: bool,
    observation: Vec<f64>,
    action: Vec<f64>,
    /// Actions on their way, where an episode drew a delay.
    waiting: VecDeque<Vec<f64>>,
    effort: f64,
    /// Has it been told that the physics diverged?
    is_told: bool,
}

impl BenchmarkEnv {
    /// An environment of the task called `name`.
    ///
    /// # Errors
    /// A [`SimError`] for an option outside its range, no actuator, or one without limits.
    pub fn new(name: &str, mut benchmark: Benchmark, options: &EnvOptions) -> Result<Self, SimError> {
        let randomization = checked(&options.randomization, &benchmark)?;
        let action_scale = action_scale(name, benchmark.physics.actuator_ctrlrange())?;
        let max_episode_steps = options.max_episode_steps.unwrap_or(benchmark.episode_steps);
        if max_episode_steps == 0 {
            let (what, expected) = ("max_episode_steps", "1 or more");
            return Err(SimError::Option {
                what,
                expected,
                got: 0.0,
            });
        }
        benchmark.physics.reset();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        benchmark
            .task
            .initialize_episode(&mut benchmark.physics, &mut rng)?;
        let mut observation = Vec::new();
        benchmark.task.observe(&benchmark.physics, &mut observation);
        let spec = EnvSpec {
            name: name.to_owned(),
            observation_size: observation.len(),
            action_size: action_scale.len(),
            max_episode_steps,
            subject: Subject::Task(TaskSpec {
                name: name.to_owned(),
                options: options.task.clone().into_iter().collect(),
                observation_size: observation.len(),
                action_size: action_scale.len(),
                control_period_ns: (benchmark.control_period * 1e9).round() as u64,
            }),
            reward_range: with_effort(benchmark.reward_range, randomization.effort),
            success_threshold: None,
        };
        Ok(Self {
            action: vec![0.0; action_scale.len()],
            benchmark,
            spec,
            randomization,
            action_scale,
            rng,
            steps: None,
            over: false,
            observation,
            waiting: VecDeque::new(),
            effort: 1.0,
            is_told: false,
        })
    }

    /// Lowest and highest value of each action, in the actuators' own units.
    pub fn action_range(&self) -> Vec<(f64, f64)> {
        let ends = |(middle, half): &(f64, f64)| (middle - half, middle + half);
        self.action_scale.iter().map(ends).collect()
    }

    /// The random start of `seed`, with what `randomization` draws for this episode.
    fn start(&mut self, seed: u64, randomization: &Randomization) -> Result<(), SimError> {
        self.randomize(seed, randomization);
        self.rng = ChaCha8Rng::seed_from_u64(seed);
        let Benchmark { physics, task, .. } = &mut self.benchmark;
        physics.reset();
        task.initialize_episode(physics, &mut self.rng)?;
        self.steps = Some(0);
        self.over = false;
        Ok(())
    }

    /// Draws what differs between episodes, from a stream of its own, so that the start does not depend on it. Before the
    /// start, because new masses put the model back to its rest pose.
    fn randomize(&mut self, seed: u64, randomization: &Randomization) {
        self.waiting.clear();
        self.effort = 1.0;
        if *randomization == Randomization::none() {
            return;
        }
        let timestep = self.benchmark.physics.timestep();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        let draw = randomization.draw(&mut rng, timestep);
        if !randomization.keeps_parameters() {
            self.benchmark.physics.scale_parameters(draw.mass, draw.damping);
        }
        self.effort = draw.effort;
        let periods = whole_periods(f64::from(draw.delay) * timestep, &self.benchmark);
        let middle: Vec<f64> = self.action_scale.iter().map(|(middle, _)| *middle).collect();
        self.waiting.extend(std::iter::repeat_n(middle, periods));
    }

    fn observe(&mut self) {
        self.observation.clear();
        self.benchmark
            .task
            .observe(&self.benchmark.physics, &mut self.observation);
    }

    /// Refuses an observation or a reward that a task of one's own must not give: whoever learns from it would only be told
    /// of its own numbers.
    fn check_told(&self, reward: f64) -> Result<(), SimError> {
        check_vector("observation", &self.observation, self.spec.observation_size)?;
        check_vector("reward", &[reward], 1)
    }

    fn rounded(&self) -> Vec<f32> {
        self.observation.iter().map(|o| *o as f32).collect()
    }

    /// Stops where the task stops at warnings, as the DeepMind Control Suite does. Gymnasium goes on from the rest pose that MuJoCo
    /// puts a model into which diverged, and so does this; who looks at returns alone would never know.
    fn check_warnings(&mut self) -> Result<(), SimError> {
        let physics = &self.benchmark.physics;
        if self.benchmark.stops_at_warnings
            && let Some(warning) = physics.warning()
        {
            return Err(SimError::Warned {
                task: self.spec.name.clone(),
                warning,
                step: self.steps.unwrap_or(0),
            });
        }
        if self.is_told || !physics.has_diverged() {
            return Ok(());
        }
        self.is_told = true;
        warn!(
            "task '{}': the physics diverged by step {} of an episode, and MuJoCo put the model back to its rest pose; it goes on \
             from there, as Gymnasium does. A shorter physics step or smaller commands prevent it (told once an environment)",
            self.spec.name,
            self.steps.unwrap_or(0)
        );
        Ok(())
    }

    /// One control period with `self.action`.
    fn advance(&mut self) -> Result<Outcome, SimError> {
        let Benchmark { physics, task, .. } = &mut self.benchmark;
        task.step(physics, &self.action)?;
        let reward = task.reward(physics, &self.action);
        let terminated = task.terminated(physics);
        self.observe();
        let steps = self.steps.unwrap_or(0) + 1;
        self.steps = Some(steps);
        Ok(Outcome {
            reward,
            terminated,
            truncated: steps >= self.spec.max_episode_steps,
        })
    }
}

/// Middle and half width of each action. An actuator without limits has the range `(0, 0)`, in which every action would be
/// none.
fn action_scale(task: &str, ranges: &[[f64; 2]]) -> Result<Vec<(f64, f64)>, SimError> {
    let refused = |got: String| {
        let task = task.to_owned();
        Err(SimError::Actuators { task, got })
    };
    if ranges.is_empty() {
        return refused("no actuator".to_owned());
    }
    let rises = |[low, high]: &[f64; 2]| low.partial_cmp(high) == Some(Ordering::Less);
    if let Some(index) = ranges.iter().position(|range| !rises(range)) {
        let [low, high] = ranges[index];
        return refused(format!(
            "an actuator (number {index}, from 0) with the range {low} to {high}"
        ));
    }
    let scaled = |[low, high]: &[f64; 2]| (0.5 * (low + high), 0.5 * (high - low));
    Ok(ranges.iter().map(scaled).collect())
}

/// The range of a task's rewards where an episode scales commands up, by `1 + effort` at most: what they cost, which is part of
/// the lowest reward, grows with their squares.
fn with_effort((lowest, highest): (f64, f64), effort: f64) -> (f64, f64) {
    (lowest.min(lowest * (1.0 + effort).powi(2)), highest)
}

/// What was asked for, in a benchmark, whose own episodes have no delay.
fn checked(asked: &Randomization, benchmark: &Benchmark) -> Result<Randomization, SimError> {
    let delay = asked.action_delay_max.unwrap_or(0.0);
    let randomization = Randomization {
        action_delay_max: Some(delay),
        ..asked.clone()
    };
    randomization.validate()?;
    for (what, got) in [
        ("position_noise", randomization.position_noise),
        ("velocity_noise", randomization.velocity_noise),
    ] {
        if got != 0.0 {
            let expected = "0: a benchmark's observation has no units that the noise could have";
            return Err(SimError::Option { what, expected, got });
        }
    }
    // As an episode draws it: in physics steps first.
    let timestep = benchmark.physics.timestep();
    let longest = (delay / timestep).round() * timestep;
    if delay > 0.0 && whole_periods(longest, benchmark) == 0 {
        return Err(SimError::ShortDelay {
            got: delay,
            period: benchmark.control_period,
        });
    }
    Ok(randomization)
}

/// A delay in control periods, rounded: a benchmark takes one action a period.
fn whole_periods(delay: f64, benchmark: &Benchmark) -> usize {
    (delay / benchmark.control_period).round() as usize
}

impl Env for BenchmarkEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, SimError> {
        let randomization = self.randomization.clone();
        self.start(seed, &randomization)?;
        self.observe();
        self.check_told(0.0).inspect_err(|_| self.over = true)?;
        Ok(self.rounded())
    }

    fn step(&mut self, action: &[f32]) -> Result<Step, SimError> {
        let steps = self.steps.ok_or(SimError::NotReset)?;
        if self.over {
            return Err(SimError::EpisodeOver { steps });
        }
        check_vector("action", action, self.spec.action_size)?;
        for ((slot, a), (middle, half)) in self.action.iter_mut().zip(action).zip(&self.action_scale) {
            *slot = middle + self.effort * half * f64::from(a.clamp(-1.0, 1.0));
        }
        if !self.waiting.is_empty() {
            self.waiting.push_back(self.action.clone());
            self.action = self.waiting.pop_front().unwrap_or_default();
        }
        let outcome = self.advance()?;
        // Physics that diverged cannot go on: the next step needs a reset.
        self.check_warnings().inspect_err(|_| self.over = true)?;
        self.benchmark.physics.check().inspect_err(|_| self.over = true)?;
        self.check_told(outcome.reward)
            .inspect_err(|_| self.over = true)?;
        self.over = outcome.terminated || outcome.truncated;
        Ok(Step {
            observation: self.rounded(),
            reward: outcome.reward,
            terminated: outcome.terminated,
            truncated: outcome.truncated,
            info: Info::default(),
        })
    }
    fn physics(&mut self) -> &mut Physics {
        &mut self.benchmark.physics
    }

    fn camera(&self) -> Camera {
        self.benchmark.task.camera()
    }
}

impl Rollout for BenchmarkEnv {
    fn begin(&mut self, state: &FullState, seed: u64) -> Result<(), SimError> {
        self.start(seed, &Randomization::none())?;
        if *state == FullState::default() {
            // The environment's own episode, to the last bit.
            self.observe();
            return self.check_told(0.0);
        }
        let Benchmark { physics, task, .. } = &mut self.benchmark;
        for (name, values) in &state.model {
            task.set_model_value(physics, name, values)?;
        }
        copy_part("qpos", state.qpos.as_ref(), physics.qpos_mut())?;
        copy_part("qvel", state.qvel.as_ref(), physics.qvel_mut())?;
        copy_part("act", state.act.as_ref(), physics.act_mut())?;
        physics.qacc_warmstart_mut().fill(0.0);
        copy_part(
            "qacc_warmstart",
            state.qacc_warmstart.as_ref(),
            physics.qacc_warmstart_mut(),
        )?;
        if let Some(time) = state.time {
            physics.set_time(time);
        }
        task.state_was_set(physics);
        self.steps = Some(state.steps.unwrap_or(0) as usize);
        self.observe();
        self.check_told(0.0)
    }

    fn apply(&mut self, action: &[f64]) -> Result<Outcome, SimError> {
        check_vector("action", action, self.spec.action_size)?;
        self.action.copy_from_slice(action);
        let outcome = self.advance()?;
        self.check_warnings()?;
        self.benchmark.physics.check()?;
        self.check_told(outcome.reward)?;
        Ok(outcome)
    }

    fn observation(&self) -> &[f64] {
        &self.observation
    }

    fn qpos(&self) -> &[f64] {
        self.benchmark.physics.qpos()
    }

    fn qvel(&self) -> &[f64] {
        self.benchmark.physics.qvel()
    }

    fn contacts(&self) -> usize {
        self.benchmark.physics.ncon()
    }
}
