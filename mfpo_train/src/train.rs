//! The loop. Random actions first; then one action and one update an environment step.
//!
//! Every step goes the one way of a transition: environment -> replay buffer -> learner. Now and then the policy is
//! sealed into a bundle, and what is measured is such a bundle, run by the sampler that the robot runs.
//! SAC's policy has no bundle; there the policy itself is measured.

mod contradictions;
mod folder;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use mfpo_policy::gradient::Team;
use mfpo_policy::signature::SigningKey;
use mfpo_sim::{Env, EnvOptions, Mode, Step, VectorEnv, registry};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::algorithm::{self, Algorithm, TrainedPolicy};
use crate::checkpoint::{self, Checkpoints, Header};
use crate::config::{EvaluationConfig, TrainConfig};
use crate::episode::Episodes;
use crate::evaluate::{self, Actor, Evaluation, Onlooker};
use crate::film::{FilmSize, Films};
use crate::footprint;
use crate::learner::LearnerError;
use crate::metrics::MetricsError;
use crate::progress::ProgressMode;
use crate::publish::{BundleSink, Label, Publisher, SealedBundle, run_id};
use crate::recorder::{self, Recorder};
use crate::replay_buffer::{Batch, ReplayBuffer, Transition};
use crate::run_info::RunInfo;
use crate::state::{Generator, Numbers, State};
use contradictions::Asked;

/// A run that is ahead of its time waits no longer than this at each step.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// Golden probes in a bundle.
const PROBES: usize = 4;
/// Array of a checkpoint: 1 where the policy was measured at its step, else 0.
const MEASURED: &str = "measured";

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
    let mut run = Run::start(options)?;
    match run.learn(&stop) {
        Ok(()) => run.finish(),
        Err(error) => Err(run.broken(error)),
    }
}

/// Has the run of a checkpoint nothing left to do? Its steps are done, and its last policy is measured.
pub fn is_done(header: &Header, state: &State<'_>, steps: u64) -> bool {
    let not_yet = Numbers::from(vec![0_u64]);
    // Programs before this one wrote no such array, and their last checkpoint after the measurement.
    let unmeasured = state
        .iter()
        .any(|(name, values)| name == MEASURED && *values == not_yet);
    header.step >= steps && !unmeasured
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
    signing_key: Option<SigningKey>,
    recorder: Recorder,
    folder: PathBuf,
    checkpoints: Checkpoints,
    /// The step of the last checkpoint.
    saved: Option<u64>,
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
    fn start(options: Options) -> anyhow::Result<Self> {
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
            Some(_) => folder::lock(&folder)?,
        };
        // Before the files: a checkpoint that does not fit leaves them as they are.
        let header = match checkpoint {
            None => None,
            Some((header, state)) => {
                rng = restore(state, learner.as_mut(), &mut replay, &mut episodes)?;
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
        let mut run = Self {
            learner,
            replay,
            batch: Batch::default(),
            publisher,
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
        match header {
            None => run.begin()?,
            Some(header) => run.go_on(&header)?,
        }
        Ok(run)
    }

    /// The first episodes and checkpoint, then the first bundle and measurement.
    fn begin(&mut self) -> anyhow::Result<()> {
        tracing::info!(
            "training {} with seed {} into {}",
            self.task,
            self.seed,
            self.folder.display()
        );
        contradictions::warn_where_nothing_is_learnt(&self.config.run);
        for index in 0..self.episodes.len() {
            self.episodes.start(index, self.rng.next_u64())?;
        }
        self.save();
        self.measure_untrained()
    }

    /// Where the checkpoint was written, whose state is taken up already.
    fn go_on(&mut self, header: &Header) -> anyhow::Result<()> {
        self.checkpoints.remove_unfinished();
        (self.step, self.saved, self.version) = (header.step, Some(header.step), header.version);
        if let Some(version) = header.version {
            self.recorder.published(version);
        }
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

    /// The bundle and the measurement before any update, and the checkpoint that knows of them.
    fn measure_untrained(&mut self) -> anyhow::Result<()> {
        self.publish()?;
        self.evaluate()?;
        self.save();
        Ok(())
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
            let every = self.config.run.checkpoint_every;
            if self.saved.is_none_or(|saved| self.step / every > saved / every) {
                self.save();
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

    /// Writes a checkpoint. A run whose disk is full goes on: its last checkpoint is whole.
    fn save(&mut self) {
        let saved = self.header().and_then(|header| {
            let state = self.state()?;
            Ok(self.checkpoints.save(header, &state)?)
        });
        if let Err(error) = saved {
            tracing::error!("{error:#}");
        }
        self.saved = Some(self.step);
    }

    fn header(&mut self) -> anyhow::Result<Header> {
        Ok(Header {
            format: checkpoint::FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            run: self.name.clone(),
            task: self.task.clone(),
            seed: self.seed,
            step: self.step,
            config: self.config.to_toml()?,
            version: self.version,
            record: self.recorder.record()?,
            digest: String::new(),
        })
    }

    fn state(&self) -> anyhow::Result<State<'_>> {
        let mut state = State::default();
        state.nest("learner", self.learner.state()?);
        state.nest("replay", self.replay.state());
        state.nest("episodes", self.episodes.state());
        state.put("generator", self.rng.position());
        let measured = self.evaluated.as_ref().is_some_and(|(at, _)| *at == self.step);
        state.put(MEASURED, vec![u64::from(measured)]);
        Ok(state)
    }

    /// Keeps what a number that is not finite has left, and says where it is.
    fn broken(&mut self, error: anyhow::Error) -> anyhow::Error {
        let learner = matches!(error.downcast_ref(), Some(LearnerError::NotFinite { .. }));
        let metric = matches!(error.downcast_ref(), Some(MetricsError::NotFinite { .. }));
        if !learner && !metric {
            return error;
        }
        let kept = self.header().and_then(|header| {
            let state = self.state()?;
            let tensor = state.first_not_finite().map(str::to_owned);
            Ok((tensor, self.checkpoints.save_broken(header, &state)?))
        });
        let (tensor, kept) = match kept {
            Ok((tensor, path)) => (tensor, format!("its state is in {}", path.display())),
            Err(reason) => (None, format!("its state could not be kept ({reason:#})")),
        };
        let tensor = tensor.map_or_else(
            || "all tensors are finite".to_owned(),
            |name| format!("the first tensor that is not finite is {name}"),
        );
        anyhow!(
            "{error:#}; {tensor}; {kept}; go on from step {} with other numbers, for example --resume {} --set \
             learner.learning_rate=1e-4",
            self.saved.unwrap_or(0),
            self.folder.display()
        )
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
            key: self.signing_key.as_ref(),
        };
        let bundle = SealedBundle::seal(&policy, &self.episodes.spec().subject, label)?;
        self.publisher.publish(&bundle)?;
        self.recorder.published(version);
        self.version = Some(version);
        self.sealed = Some((self.step, bundle));
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
        if let Some((_, bundle)) = &self.sealed
            && best.is_none_or(|best| evaluation.mean_return >= best)
        {
            self.publisher.keep_best(bundle)?;
        }
        self.evaluated = Some((step, evaluation.clone()));
        Ok(evaluation)
    }

    /// Seals and measures the last policy, draws the learning curve, and leaves a checkpoint to go on from.
    fn finish(mut self) -> anyhow::Result<Outcome> {
        // The measurement takes its time: a run that is killed meanwhile has lost no step.
        if self.saved != Some(self.step) {
            self.save();
        }
        let evaluation = self.evaluate()?;
        self.recorder.finish()?;
        self.save();
        Ok(Outcome {
            run: self.name,
            steps: self.step,
            updates: self.recorder.updates(),
            version: self.version.unwrap_or(0),
            bundle: self.version.map(|_| self.publisher.last()),
            evaluation,
            seconds: self.recorder.seconds(),
            interrupted: self.step < self.config.run.steps && !self.recorder.learnt(),
        })
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

/// Takes up the state of a checkpoint; the generator is what is returned.
fn restore(
    mut state: State<'static>,
    learner: &mut dyn Algorithm,
    replay: &mut ReplayBuffer,
    episodes: &mut Episodes,
) -> anyhow::Result<ChaCha12Rng> {
    learner
        .restore(state.take_part("learner"))
        .context("the networks of the checkpoint do not fit this configuration")?;
    replay.restore(state.take_part("replay"))?;
    episodes.restore(state.take_part("episodes"))?;
    Ok(ChaCha12Rng::at(state.take_u64("generator")?))
}
