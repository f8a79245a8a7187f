//! The loop. Random actions first; then one action and one update an environment step.
//!
//! Every step goes the one way of a transition: environment -> replay buffer -> learner. Now and then the policy is
//! sealed into a bundle, and what is measured is such a bundle, run by the sampler that the robot runs.
//! SAC's policy has no bundle; there the policy itself is measured, and kept in files of its own.

mod contradictions;
mod folder;
pub(crate) mod sac_policies;
mod saving;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mfpo_policy::device::DeviceName;
use mfpo_policy::gradient::Team;
use mfpo_policy::guard::GuardManifest;
use mfpo_policy::signature::SigningKey;
use mfpo_sim::{Env, EnvOptions, Mode, Step, VectorEnv, registry};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::algorithm::{self, Algorithm, MeanFlowPolicy, TrainedPolicy};
use crate::checkpoint::{Checkpoints, Header};
use crate::config::{EvaluationConfig, TrainConfig};
use crate::episode::Episodes;
use crate::evaluate::{self, Actor, Evaluation, Onlooker};
use crate::film::{FilmSize, Films};
use crate::footprint;
use crate::guard::training;
use crate::progress::ProgressMode;
use crate::publish::{BundleSink, Label, Publisher, SealedBundle, run_id};
use crate::recorder::{self, Recorder};
use crate::replay_buffer::{Batch, ReplayBuffer, Transition};
use crate::run_info::RunInfo;
use crate::state::State;
use contradictions::Asked;
use sac_policies::SacPolicies;

pub use saving::is_done;

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
    /// The run folder; must not hold a run yet, unless it goes on from its checkpoint.
    pub folder: PathBuf,
    /// Where to go on from; the configuration may have changed since.
    pub checkpoint: Option<(Header, State<'static>)>,
    /// How progress is told.
    pub progress: ProgressMode,
    /// Who gets every bundle, beside the run folder.
    pub sink: Option<Box<dyn BundleSink>>,
    /// Signs every bundle.
    pub signing_key: Option<SigningKey>,
    /// Ends the run early once two evaluations in a row have this share of successes.
    pub until_success: Option<f64>,
    /// Films the first episode of each evaluation.
    pub films: Option<FilmSize>,
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
    /// The last bundle; none where the policy is not MFPO's.
    pub bundle: Option<PathBuf>,
    /// The file of the last policy: the bundle, or that of SAC.
    pub policy: Option<PathBuf>,
    /// What the last policy can do.
    pub evaluation: Evaluation,
    /// Duration.
    pub seconds: f64,
    /// The run was stopped before its end.
    pub interrupted: bool,
}

/// Trains, and leaves configuration, metrics, learning curve, bundles and checkpoints in the run folder.
pub fn train(options: Options) -> anyhow::Result<Outcome> {
    let stop = Arc::clone(&options.stop);
    let (mut run, checkpoint) = Run::start(options)?;
    match run.complete(checkpoint.as_ref(), &stop) {
        Ok(evaluation) => Ok(run.outcome(evaluation)),
        Err(error) => Err(run.broken(error)),
    }
}

/// All that the loop works on.
struct Run {
    name: String,
    task: String,
    seed: u64,
    config: TrainConfig,
    /// Environment steps so far.
    step: u64,
    episodes: Episodes,
    /// Only for measuring, with seeds of its own.
    evaluation_env: Box<dyn Env>,
    films: Option<Films>,
    learner: Box<dyn Algorithm>,
    replay: ReplayBuffer,
    /// Memory of the mini-batch.
    batch: Batch,
    publisher: Publisher,
    sac_policies: SacPolicies,
    signing_key: Option<SigningKey>,
    recorder: Recorder,
    folder: PathBuf,
    checkpoints: Checkpoints,
    /// The step of the last checkpoint.
    saved: Option<u64>,
    /// The step at which one was written or tried last.
    tried: Option<u64>,
    /// When that was, or this program took up the run.
    tried_at: Instant,
    /// Why that try left none.
    unsaved: Option<String>,
    /// The least duration of the whole run.
    least: Duration,
    rng: ChaCha12Rng,
    /// Version of the newest bundle.
    version: Option<u64>,
    /// The newest bundle and the step it was sealed at.
    sealed: Option<(u64, SealedBundle)>,
    /// The newest measurement and its step.
    evaluated: Option<(u64, Evaluation)>,
    /// Held as long as the run, so that no second program writes into its folder.
    _lock: File,
}

impl Run {
    /// Everything in its place; nothing has happened yet. Tells the checkpoint that the run goes on from.
    fn start(options: Options) -> anyhow::Result<(Self, Option<Header>)> {
        let Options {
            task,
            mut config,
            seed,
            folder,
            checkpoint,
            ..
        } = options;
        let mut evaluation_env = make(&task, Mode::Evaluate, &config)?;
        let spec = evaluation_env.spec();
        let (observation_size, action_size) = (spec.observation_size, spec.action_size);
        config.set_sizes(observation_size, action_size)?;
        footprint::check(&config)?;
        let envs = (0..config.run.environments).map(|_| make(&task, Mode::Train, &config));
        let envs = VectorEnv::new(
            envs.collect::<Result<_, _>>()?,
            Team::new(config.learner.threads)?,
        )?;
        let asked = Asked {
            topic: options.sink.is_some(),
            signature: options.signing_key.is_some(),
            success: options.until_success.is_some(),
        };
        contradictions::check(asked, envs.spec(), config.run.algorithm)?;
        // Each part draws from a stream of its own, so that a change of one does not shift the others.
        let mut seeds = ChaCha12Rng::seed_from_u64(seed);
        // Before the folder: a device that cannot be had leaves none.
        let mut learner = algorithm::make(&config, seeds.next_u64())?;
        let capacity = config.run.replay_capacity;
        let mut replay = ReplayBuffer::new(observation_size, action_size, capacity, seeds.next_u64());
        let mut rng = ChaCha12Rng::seed_from_u64(seeds.next_u64());
        let mut episodes = Episodes::new(envs);
        let lock = match &checkpoint {
            None => folder::begin(&folder)?,
            Some((header, _)) => folder::go_on(&folder, header)?,
        };
        // Before the files: a checkpoint that does not fit leaves them as they are.
        let header = match checkpoint {
            None => None,
            Some((header, state)) => {
                let saved = (&header, state);
                rng = saving::restore(saved, &config, learner.as_mut(), &mut replay, &mut episodes)?;
                Some(header)
            }
        };
        let name = header.as_ref().map(|header| header.run.clone());
        let name = name.unwrap_or_else(|| run_id(&task, seed));
        let info = match &header {
            None => RunInfo::new(&name, &task, config.run.algorithm, seed),
            Some(_) => RunInfo::read(&folder)?,
        };
        let publisher = Publisher::new(&folder, options.sink)?;
        let setup = recorder::Setup {
            title: format!("{task}, seed {seed}"),
            progress: options.progress,
            steps: config.run.steps,
            report_every: config.run.report_every,
            until_success: options.until_success,
            folder: folder.clone(),
            started: info.started as f64,
        };
        let recorder = match &header {
            None => Recorder::create(setup)?,
            Some(header) => Recorder::resume(setup, &header.record, header.step)?,
        };
        folder::store_configuration(&folder, &config)?;
        info.store(&folder)?;
        let films = options
            .films
            .and_then(|size| Films::of_run(&folder, size, evaluation_env.as_mut()));
        let run = Self {
            learner,
            replay,
            batch: Batch::default(),
            publisher,
            sac_policies: SacPolicies::new(&folder),
            signing_key: options.signing_key,
            checkpoints: Checkpoints::new(&folder),
            least: options.least,
            rng,
            episodes,
            step: 0,
            version: None,
            sealed: None,
            evaluated: None,
            saved: None,
            tried: None,
            tried_at: Instant::now(),
            unsaved: None,
            name,
            task,
            seed,
            config,
            evaluation_env,
            films,
            recorder,
            folder,
            _lock: lock,
        };
        Ok((run, header))
    }

    /// From its beginning, or from `checkpoint`, to its last measurement.
    fn complete(&mut self, checkpoint: Option<&Header>, stop: &AtomicBool) -> anyhow::Result<Evaluation> {
        contradictions::warn_where_nothing_is_learnt(&self.config.run);
        contradictions::warn_where_fast_is_slow(&self.config);
        match checkpoint {
            None => self.begin()?,
            Some(header) => self.go_on(header)?,
        }
        self.learn(stop)?;
        self.conclude()
    }

    /// The first episodes and checkpoint, then the first bundle and measurement.
    fn begin(&mut self) -> anyhow::Result<()> {
        tracing::info!(
            "training {} with seed {} into {}",
            self.task,
            self.seed,
            self.folder.display()
        );
        for index in 0..self.episodes.len() {
            self.episodes.start(index, self.rng.next_u64())?;
        }
        self.save()?;
        self.measure_untrained()
    }

    /// Where the checkpoint was written, whose state is taken up already.
    fn go_on(&mut self, header: &Header) -> anyhow::Result<()> {
        self.checkpoints.remove_unfinished();
        (self.step, self.version) = (header.step, self.newest_version(header)?);
        (self.saved, self.tried) = (Some(self.step), Some(self.step));
        // Where it was measured at this very step, that stands: a second line of the same step would be one too many.
        self.evaluated = self.recorder.measured().cloned();
        if let Some(version) = self.version {
            self.recorder.published(version);
        }
        contradictions::warn_where_signing_ends(&self.publisher.last(), self.signing_key.is_some());
        tracing::info!(
            "going on with {} at step {} in {}",
            self.name,
            self.step,
            self.folder.display()
        );
        if self.step == 0 && self.recorder.best_return().is_none() {
            // The run ended between its first checkpoint and its first measurement.
            self.measure_untrained()?;
        }
        Ok(())
    }

    /// The version that the next one rises above. A run that goes on bit by bit publishes again what it has published since its
    /// checkpoint. Any other leaves those bundles as they are: a robot may have run one, and takes no second of its version.
    fn newest_version(&self, header: &Header) -> anyhow::Result<Option<u64>> {
        let before = TrainConfig::parse(&header.config, &[])?;
        let is_same = before == self.config && self.config.run.device == DeviceName::Cpu;
        Ok(if is_same {
            header.version
        } else {
            header.version.max(self.publisher.highest_version())
        })
    }

    /// The bundle and the measurement before any update, and the checkpoint that knows of them.
    fn measure_untrained(&mut self) -> anyhow::Result<()> {
        self.publish()?;
        self.evaluate()?;
        self.save()
    }

    /// Steps and updates until the end, or until somebody wants the run to stop.
    fn learn(&mut self, stop: &AtomicBool) -> anyhow::Result<()> {
        while self.step < self.config.run.steps
            && !stop.load(Ordering::Relaxed)
            && !self.recorder.ends_early()
        {
            let random = self.step < self.config.run.random_steps;
            let actions = self.actions(random)?;
            for (index, next) in self.episodes.step(&actions)?.into_iter().enumerate() {
                self.step += 1;
                self.learn_from(index, &actions[index], next, random)?;
                self.tell(random)?;
            }
            if self.is_checkpoint_due() {
                self.save()?;
            }
            self.wait_for_its_time();
        }
        Ok(())
    }

    fn actions(&mut self, random: bool) -> anyhow::Result<Vec<Vec<f32>>> {
        let mut actions = Vec::with_capacity(self.episodes.len());
        for index in 0..self.episodes.len() {
            actions.push(if random {
                self.random_action()
            } else {
                self.learner.sample_action(self.episodes.observation(index))?
            });
        }
        Ok(actions)
    }

    /// One transition: into the buffer, then one update from it.
    fn learn_from(&mut self, index: usize, action: &[f32], next: Step, random: bool) -> anyhow::Result<()> {
        let transition = Transition {
            observation: self.episodes.observation(index),
            action,
            reward: next.reward,
            terminated: next.terminated,
            next_observation: &next.observation,
        };
        self.learner
            .observe(index, &transition, next.terminated || next.truncated);
        self.replay.insert(transition);
        if !random {
            self.replay
                .sample_into(self.learner.rows_per_update(), &mut self.batch);
            let info = self.learner.update(&self.batch)?;
            self.recorder.update(self.step, &info)?;
        }
        if let Some(finished) = self.episodes.advance(index, action, next) {
            self.recorder.episode(self.step, finished)?;
            self.episodes.start(index, self.rng.next_u64())?;
        }
        Ok(())
    }

    /// Whatever is due at this step.
    fn tell(&mut self, random: bool) -> anyhow::Result<()> {
        if !random && self.step.is_multiple_of(self.config.run.publish_every) {
            self.publish()?;
        }
        if !random && self.step.is_multiple_of(self.config.evaluation.every) {
            self.evaluate()?;
        }
        self.recorder.report(self.step)
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

    /// Seals the policy as it is now under the next version, if it is one that bundles hold.
    fn publish(&mut self) -> anyhow::Result<()> {
        let TrainedPolicy::MeanFlow(policy) = self.learner.policy()? else {
            return Ok(());
        };
        let version = self.version.map_or(0, |version| version + 1);
        let label = Label {
            run: &self.name,
            version,
            probe_observations: self.probe_observations(),
            guard: self.guard(&policy, version)?,
            key: self.signing_key.as_ref(),
        };
        let bundle = SealedBundle::seal(&policy, &self.episodes.spec().subject, label)?;
        self.publisher.publish(&bundle)?;
        self.recorder.published(version);
        self.version = Some(version);
        self.sealed = Some((self.step, bundle));
        Ok(())
    }

    /// The guard of this version of the policy, where the run makes one and has met enough. Nothing that is learnt depends on
    /// it.
    fn guard(&self, policy: &MeanFlowPolicy, version: u64) -> anyhow::Result<Option<GuardManifest>> {
        if !self.config.run.guard {
            return Ok(None);
        }
        let mut sampler = policy.sampler()?;
        training::calibrated(&mut sampler, &self.replay, self.episodes.len(), version)
    }

    /// A few observations from the last mini-batch; none before the first update.
    fn probe_observations(&self) -> Vec<Vec<f32>> {
        let rows = self
            .batch
            .observations
            .chunks_exact(self.config.learner.observation_size);
        rows.take(PROBES).map(<[f32]>::to_vec).collect()
    }

    /// Measures the policy as it is now, where there is a bundle through it, as whoever opens it gets it.
    fn evaluate(&mut self) -> anyhow::Result<Evaluation> {
        let step = self.step;
        if let Some((_, evaluation)) = self.evaluated.as_ref().filter(|(at, _)| *at == step) {
            return Ok(evaluation.clone());
        }
        let current = self.sealed.as_ref().is_some_and(|(at, _)| *at == step);
        if !current && self.recorder.updates() > 0 {
            self.publish()?;
        }
        let mut policy: Box<dyn Actor> = match &self.sealed {
            Some((_, bundle)) => Box::new(bundle.sampler()?),
            None => self.learner.policy()?.actor()?,
        };
        let EvaluationConfig {
            episodes,
            candidates,
            without_selection,
            ..
        } = self.config.evaluation;
        let plan = evaluate::Plan {
            episodes,
            candidates,
            seed: 0,
        };
        let measure = if without_selection {
            evaluate::evaluate_both_ways
        } else {
            evaluate::evaluate_before
        };
        let env = self.evaluation_env.as_mut();
        let mut film = self.films.as_ref().and_then(|films| films.start(step, env));
        let onlooker: &mut dyn Onlooker = match &mut film {
            Some(film) => film,
            None => &mut (),
        };
        let evaluation = measure(env, policy.as_mut(), plan, onlooker)?;
        if let Some(film) = film {
            film.finish();
        }
        let best = self.recorder.best_return();
        self.recorder.evaluation(step, &evaluation)?;
        self.keep_measured(best.is_none_or(|best| evaluation.mean_return >= best))?;
        self.evaluated = Some((step, evaluation.clone()));
        Ok(evaluation)
    }

    /// Keeps what was just measured: as the best policy, where it is that, and SAC's also as the last one.
    fn keep_measured(&mut self, is_best: bool) -> anyhow::Result<()> {
        match &self.sealed {
            Some((_, bundle)) if is_best => self.publisher.keep_best(bundle),
            Some(_) => {}
            None => {
                if let TrainedPolicy::Gaussian(policy) = self.learner.policy()? {
                    self.keep_sac(&policy, is_best)?;
                }
            }
        }
        Ok(())
    }

    /// Seals and measures the last policy, draws the learning curve, and leaves a checkpoint to go on from.
    fn conclude(&mut self) -> anyhow::Result<Evaluation> {
        // The measurement takes its time: a run that is killed meanwhile has lost no step.
        if self.tried != Some(self.step) {
            self.save()?;
        }
        let evaluation = self.evaluate()?;
        let recorded = self.recorder.finish(self.step);
        self.save()?;
        self.check_written(recorded)?;
        Ok(evaluation)
    }

    fn outcome(self, evaluation: Evaluation) -> Outcome {
        let bundle = self.version.map(|_| self.publisher.last());
        Outcome {
            steps: self.step,
            updates: self.recorder.updates(),
            version: self.version.unwrap_or(0),
            policy: bundle.clone().or_else(|| self.sac_policies.last()),
            bundle,
            evaluation,
            seconds: self.recorder.seconds(),
            interrupted: self.step < self.config.run.steps && !self.recorder.learnt(),
            run: self.name,
        }
    }
}

fn make(task: &str, mode: Mode, config: &TrainConfig) -> anyhow::Result<Box<dyn Env>> {
    let options = EnvOptions {
        mode,
        randomization: config.environment.clone(),
        task: config.task.clone(),
        ..EnvOptions::default()
    };
    Ok(registry::make(task, &options)?)
}
