//! What `eval` is given, and the policy in it: a bundle, the file of a SAC policy, or the last checkpoint of a run, which holds every
//! learner's policy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use candle_core::Device;
use mfpo_policy::device::DeviceName;
use mfpo_policy::subject::Subject;
use mfpo_sim::{EnvOptions, registry};

use super::{EvalArgs, open_bundle};
use crate::algorithm;
use crate::checkpoint::{self, CheckpointError, Checkpoints};
use crate::conditions::Conditions;
use crate::config::TrainConfig;
use crate::evaluate::Actor;
use crate::learner::LearnerError;
use crate::sac::policy_file;
use crate::state::State;
use crate::train::sac_policies;

/// The part of a checkpoint that the policy is in.
const LEARNER: &str = "learner";

/// A policy, and how it is to be measured.
pub(super) struct Given {
    /// The policy, on the CPU.
    pub(super) policy: Box<dyn Actor>,
    /// What it was trained for.
    pub(super) subject: Subject,
    /// The task that it is measured on.
    pub(super) task: String,
    /// Under which conditions.
    pub(super) conditions: Conditions,
    /// Which policy of which run, in words.
    pub(super) title: String,
}

impl Given {
    /// The policy that the arguments name.
    ///
    /// # Errors
    /// When there is none, or it is refused.
    pub(super) fn open(args: &EvalArgs) -> anyhow::Result<Self> {
        let path = &args.path;
        if path.is_dir() {
            Self::of_checkpoint(&last_checkpoint(path)?, args)
        } else if checkpoint::is_checkpoint(path) {
            Self::of_checkpoint(path, args)
        } else if policy_file::is_policy(path) {
            Self::of_sac_policy(args)
        } else {
            Self::of_bundle(args)
        }
    }

    fn of_bundle(args: &EvalArgs) -> anyhow::Result<Self> {
        let bundle = open_bundle(&args.path)?;
        let manifest = bundle.manifest();
        let task = args.task.as_deref().unwrap_or(manifest.subject.name());
        Ok(Self {
            policy: Box::new(bundle.sampler(&Device::Cpu)?),
            subject: manifest.subject.clone(),
            task: task.to_owned(),
            conditions: args.conditions.resolve(&args.path, manifest, task)?,
            title: format!("{} version {}", manifest.run, manifest.version),
        })
    }

    fn of_checkpoint(file: &Path, args: &EvalArgs) -> anyhow::Result<Self> {
        let loaded = checkpoint::load_part(file, LEARNER);
        let (header, state) = loaded.map_err(|error| with_last_policy(error, file))?;
        let what = format!("the checkpoint {}", file.display());
        let config = config_of(&header.config, &what, &header.program)?;
        let learnt = Learnt {
            what: &what,
            run: &header.run,
            task: &header.task,
            step: header.step,
            config,
        };
        Self::of_run(learnt, args, |config| {
            let taken = policy(config, state);
            taken.with_context(|| format!("the networks of {what} cannot be taken"))
        })
    }

    fn of_sac_policy(args: &EvalArgs) -> anyhow::Result<Self> {
        let (header, policy) = policy_file::read(&args.path)?;
        let what = format!("the SAC policy {}", args.path.display());
        let config = config_of(&header.config, &what, &header.program)?;
        let learnt = Learnt {
            what: &what,
            run: &header.run,
            task: &header.task,
            step: header.step,
            config,
        };
        Self::of_run(learnt, args, |config| {
            let (first, last) = (header.sizes.first(), header.sizes.last());
            let (s, a) = (config.sac.observation_size, config.sac.action_size);
            ensure!(
                (first, last) == (Some(&s), Some(&(2 * a))),
                "{what} has the sizes {:?}; expected {s} of an observation and twice {a} of an action",
                header.sizes
            );
            Ok(Box::new(policy))
        })
    }

    /// What a run has learnt on its task, with its own options and sizes; `policy` makes the policy.
    fn of_run(
        mut learnt: Learnt<'_>,
        args: &EvalArgs,
        policy: impl FnOnce(TrainConfig) -> anyhow::Result<Box<dyn Actor>>,
    ) -> anyhow::Result<Self> {
        let subject = subject(learnt.task, &mut learnt.config)
            .with_context(|| format!("{} does not fit its task", learnt.what))?;
        let task = args.task.as_deref().unwrap_or(learnt.task);
        let own = (learnt.task, &learnt.config.environment);
        let algorithm = format!("{:?}", learnt.config.run.algorithm).to_uppercase();
        Ok(Self {
            conditions: args.conditions.resolve_in_run(own, task)?,
            subject,
            task: task.to_owned(),
            title: format!("{} at step {} ({algorithm})", learnt.run, learnt.step),
            policy: policy(learnt.config)?,
        })
    }
}

/// Of a run that has learnt something.
struct Learnt<'a> {
    /// The file that says so, in words.
    what: &'a str,
    run: &'a str,
    task: &'a str,
    step: u64,
    config: TrainConfig,
}

/// The configuration of the run, as the file `what` by the version `program` holds it.
fn config_of(text: &str, what: &str, program: &str) -> anyhow::Result<TrainConfig> {
    TrainConfig::parse(text, &[]).with_context(|| {
        format!(
            "cannot read the configuration in {what}, written by mfpo_train {program}; expected one of mfpo_train {}: use the \
             version that wrote it",
            env!("CARGO_PKG_VERSION")
        )
    })
}

/// What the run has learnt to act on: its task with its own options, whose sizes the configuration must have.
fn subject(task: &str, config: &mut TrainConfig) -> anyhow::Result<Subject> {
    let options = EnvOptions {
        task: config.task.clone(),
        ..EnvOptions::evaluate()
    };
    let env = registry::make(task, &options)?;
    let spec = env.spec();
    config.set_sizes(spec.observation_size, spec.action_size)?;
    Ok(spec.subject.clone())
}

/// The policy that a learner has come to, with its normaliser, where the run itself measured it: on the CPU.
fn policy(mut config: TrainConfig, state: State<'static>) -> Result<Box<dyn Actor>, LearnerError> {
    config.run.device = DeviceName::Cpu;
    let mut learner = algorithm::make(&config, 0)?;
    learner.restore(state)?;
    Ok(learner.policy()?.actor()?)
}

/// The last checkpoint in the folder of a run.
fn last_checkpoint(folder: &Path) -> anyhow::Result<PathBuf> {
    let file = Checkpoints::new(folder).last();
    ensure!(
        file.is_file(),
        "{} holds no checkpoint; expected the folder of a run, with {}: give {}",
        folder.display(),
        file.display(),
        meant_by(folder)
    );
    Ok(file)
}

/// What somebody may mean by a folder without a checkpoint of its own.
fn meant_by(folder: &Path) -> String {
    // The policy of a run whose checkpoint is gone; in the folder `checkpoints` the checkpoint itself.
    let meant = last_policy(folder).or_else(|| first_run_in(folder));
    meant.map_or_else(
        || "another folder, or a bundle".to_owned(),
        |path| path.display().to_string(),
    )
}

/// The first by name of several runs, such as those of `train --seeds`.
fn first_run_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let folders = entries.map(|entry| entry.path());
    let runs = folders.filter(|folder| Checkpoints::new(folder).last().is_file());
    runs.min()
}

/// A checkpoint that is refused may have the last policy of the run beside it.
fn with_last_policy(error: CheckpointError, file: &Path) -> anyhow::Error {
    let run = file.ancestors().nth(2);
    let run = run.filter(|run| Checkpoints::new(run).last() == file);
    match run.and_then(last_policy) {
        Some(policy) => anyhow!("{error}; or measure the run's last policy, {}", policy.display()),
        None => error.into(),
    }
}

/// The last bundle in a folder, or the last policy of SAC.
fn last_policy(folder: &Path) -> Option<PathBuf> {
    let files = ["last.safetensors", sac_policies::LAST].map(|name| folder.join(name));
    files.into_iter().find(|file| file.is_file())
}
