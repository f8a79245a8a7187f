//! The loop. Random actions first; then one action and one update an environment step.
//!
//! Every step goes the one way of a transition: environment -> replay buffer -> learner. Now and then the policy is
//! sealed into a bundle, and what is measured is such a bundle, run by the sampler that the robot runs.
//! Where no robot can run the policy (a benchmark task, SAC) nothing is sealed, and the policy itself is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use mfpo_sim::{Env, EnvOptions, Mode, registry};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::algorithm::{self, Algorithm, AlgorithmKind, TrainedPolicy};
use crate::config::{EvaluationConfig, TrainConfig};
use crate::evaluate::{self, Actor, Evaluation};
use crate::progress::ProgressMode;
use crate::publish::{BundleSink, Label, Publisher, SealedBundle, run_id};
use crate::recorder::{self, Recorder};
use crate::replay_buffer::{Batch, ReplayBuffer, Transition};

/// A run that is ahead of its time waits no longer than this at each step.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// Golden probes in a bundle.
const PROBES: usize = 4;

/// What to train.
pub struct Options {
    /// Name of the task.
    pub task: String,
    /// Numbers.
    pub config: TrainConfig,
    /// Everything random follows from it.
    pub seed: u64,
    /// The run folder; must not hold a run yet.
    pub folder: PathBuf,
    /// How progress is told.
    pub progress: ProgressMode,
    /// Who gets every bundle, beside the run folder.
    pub sink: Option<Box<dyn BundleSink>>,
    /// Ends the run early once two evaluations in a row have this share of successes.
    pub until_success: Option<f64>,
    /// The updates are spread over at least this long, so that a robot can follow.
    pub least: Duration,
    /// Raised to end the run early; the last bundle is sealed then, too.
    pub stop: Arc<AtomicBool>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Unique name of the run.
    pub run: String,
    /// Environment steps.
    pub steps: u64,
    /// Updates.
    pub updates: u64,
    /// Version of the last bundle.
    pub version: u64,
    /// The last bundle; none where the task has no robot or the policy is not MFPO's.
    pub bundle: Option<PathBuf>,
    /// What the last policy can do.
    pub evaluation: Evaluation,
    /// Duration.
    pub seconds: f64,
    /// The run was stopped before its end.
    pub interrupted: bool,
}

/// Trains, and leaves configuration, metrics, learning curve and bundles in the run folder.
pub fn train(options: Options) -> anyhow::Result<Outcome> {
    let stop = Arc::clone(&options.stop);
    let mut run = Run::start(options)?;
    let mut observation = run.env.reset(run.rng.next_u64())?;
    let mut step = 0;
    run.publish(step)?;
    run.evaluate(step)?;
    while step < run.config.run.steps && !stop.load(Ordering::Relaxed) && !run.recorder.learnt() {
        step += 1;
        let random = step <= run.config.run.random_steps;
        let action = if random {
            run.random_action()
        } else {
            run.learner.sample_action(&observation)?
        };
        let next = run.env.step(&action)?;
        let transition = Transition {
            observation: &observation,
            action: &action,
            reward: next.reward,
            terminated: next.terminated,
            next_observation: &next.observation,
        };
        let ended = next.terminated || next.truncated;
        run.learner.observe(&transition, ended);
        run.replay.insert(transition);
        if !random {
            run.replay
                .sample_into(run.learner.rows_per_update(), &mut run.batch);
            let info = run.learner.update(&run.batch)?;
            run.recorder.update(step, &info)?;
        }
        run.recorder.reward(step, next.reward, ended)?;
        observation = if ended {
            run.env.reset(run.rng.next_u64())?
        } else {
            next.observation
        };
        if !random && step % run.config.run.publish_every == 0 {
            run.publish(step)?;
        }
        if !random && step % run.config.evaluation.every == 0 {
            run.evaluate(step)?;
        }
        run.recorder.report(step)?;
        run.wait_for_its_time();
    }
    run.finish(step)
}

/// All that the loop works on.
struct Run {
    name: String,
    config: TrainConfig,
    env: Box<dyn Env>,
    /// Only for measuring, with seeds of its own.
    evaluation_env: Box<dyn Env>,
    learner: Box<dyn Algorithm>,
    replay: ReplayBuffer,
    /// Memory of the mini-batch.
    batch: Batch,
    publisher: Publisher,
    recorder: Recorder,
    /// The least duration of the whole run.
    least: Duration,
    rng: ChaCha12Rng,
    /// The newest bundle and the step it was sealed at.
    sealed: Option<(u64, SealedBundle)>,
    /// The newest measurement and its step.
    evaluated: Option<(u64, Evaluation)>,
}

impl Run {
    fn start(options: Options) -> anyhow::Result<Self> {
        let Options {
            task,
            mut config,
            seed,
            folder,
            ..
        } = options;
        let env = make(&task, Mode::Train, &config)?;
        let evaluation_env = make(&task, Mode::Evaluate, &config)?;
        let (observation_size, action_size) = (env.spec().observation_size, env.spec().action_size);
        config.set_sizes(observation_size, action_size)?;
        ensure!(
            options.sink.is_none() || config.run.algorithm == AlgorithmKind::Mfpo,
            "--topic publishes bundles, and a bundle holds a MeanFlow policy; use --algorithm mfpo, or leave --topic out"
        );
        create_run_folder(&folder, &config)?;
        tracing::info!("training {task} with seed {seed} into {}", folder.display());
        // Each part draws from a stream of its own, so that a change of one does not shift the others.
        let mut seeds = ChaCha12Rng::seed_from_u64(seed);
        let recorder = Recorder::create(recorder::Setup {
            title: format!("{task}, seed {seed}"),
            progress: options.progress,
            steps: config.run.steps,
            report_every: config.run.report_every,
            until_success: options.until_success,
            folder: folder.clone(),
        })?;
        Ok(Self {
            name: run_id(&task, seed),
            learner: algorithm::make(&config, seeds.next_u64())?,
            replay: ReplayBuffer::new(
                observation_size,
                action_size,
                config.run.replay_capacity,
                seeds.next_u64(),
            ),
            batch: Batch::default(),
            publisher: Publisher::new(&folder, options.sink)?,
            least: options.least,
            rng: ChaCha12Rng::seed_from_u64(seeds.next_u64()),
            sealed: None,
            evaluated: None,
            config,
            env,
            evaluation_env,
            recorder,
        })
    }

    /// Sleeps while the run is faster than its least duration allows; briefly, so that a request to stop is seen.
    fn wait_for_its_time(&self) {
        let all = self.config.run.steps.saturating_sub(self.config.run.random_steps);
        let due = self.least.as_secs_f64() * self.recorder.updates() as f64 / all.max(1) as f64;
        let ahead = due - self.recorder.seconds();
        if ahead > 0.0 {
            std::thread::sleep(Duration::from_secs_f64(ahead).min(LONGEST_WAIT));
        }
    }

    fn random_action(&mut self) -> Vec<f32> {
        (0..self.config.learner.action_size)
            .map(|_| self.rng.random_range(-1.0..=1.0))
            .collect()
    }

    /// Seals the policy as it is now under the next version, if a robot could run it.
    fn publish(&mut self, step: u64) -> anyhow::Result<()> {
        if self.env.spec().robot.is_none() {
            return Ok(());
        }
        let TrainedPolicy::MeanFlow(policy) = self.learner.policy()? else {
            return Ok(());
        };
        let version = self.sealed.as_ref().map_or(0, |(_, bundle)| bundle.version + 1);
        let label = Label {
            run: &self.name,
            version,
            probe_observations: self.probe_observations(),
        };
        let bundle = SealedBundle::seal(&policy, self.env.spec(), label)?;
        self.publisher.publish(&bundle)?;
        self.recorder.published(version);
        self.sealed = Some((step, bundle));
        Ok(())
    }

    /// A few observations from the last mini-batch; none before the first update.
    fn probe_observations(&self) -> Vec<Vec<f32>> {
        let rows = self
            .batch
            .observations
            .chunks_exact(self.config.learner.observation_size);
        rows.take(PROBES).map(<[f32]>::to_vec).collect()
    }

    /// Measures the policy as it is now, where there is a bundle through it, as the robot gets it.
    fn evaluate(&mut self, step: u64) -> anyhow::Result<Evaluation> {
        if let Some((_, evaluation)) = self.evaluated.as_ref().filter(|(at, _)| *at == step) {
            return Ok(evaluation.clone());
        }
        let current = self.sealed.as_ref().is_some_and(|(at, _)| *at == step);
        if !current && self.recorder.updates() > 0 {
            self.publish(step)?;
        }
        let mut policy: Box<dyn Actor> = match &self.sealed {
            Some((_, bundle)) => Box::new(bundle.sampler()?),
            None => self.learner.policy()?.actor()?,
        };
        let EvaluationConfig {
            episodes, candidates, ..
        } = self.config.evaluation;
        let plan = evaluate::Plan {
            episodes,
            candidates,
            seed: 0,
        };
        let evaluation = evaluate::evaluate(self.evaluation_env.as_mut(), policy.as_mut(), plan)?;
        self.recorder.evaluation(step, &evaluation)?;
        self.evaluated = Some((step, evaluation.clone()));
        Ok(evaluation)
    }

    /// Seals and measures the last policy, and draws the learning curve.
    fn finish(mut self, steps: u64) -> anyhow::Result<Outcome> {
        let evaluation = self.evaluate(steps)?;
        self.recorder.finish()?;
        Ok(Outcome {
            run: self.name,
            steps,
            updates: self.recorder.updates(),
            version: self.sealed.as_ref().map_or(0, |(_, bundle)| bundle.version),
            bundle: self.sealed.map(|_| self.publisher.last()),
            evaluation,
            seconds: self.recorder.seconds(),
            interrupted: steps < self.config.run.steps && !self.recorder.learnt(),
        })
    }
}

fn make(task: &str, mode: Mode, config: &TrainConfig) -> anyhow::Result<Box<dyn Env>> {
    let options = EnvOptions {
        mode,
        randomization: config.environment.clone(),
        ..EnvOptions::default()
    };
    Ok(registry::make(task, &options)?)
}

/// Makes the run folder and stores the resolved configuration there.
fn create_run_folder(folder: &Path, config: &TrainConfig) -> anyhow::Result<()> {
    let taken = folder.join("metrics.jsonl");
    ensure!(
        !taken.exists(),
        "{} holds a run already; give another --out",
        folder.display()
    );
    fs::create_dir_all(folder).with_context(|| format!("cannot make the run folder {}", folder.display()))?;
    let path = folder.join("config.toml");
    fs::write(&path, config.to_toml()?).with_context(|| format!("cannot write {}", path.display()))
}
