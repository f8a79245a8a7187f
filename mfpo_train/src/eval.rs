//! `eval`: measures a policy on the task that it was trained for, or on another that it fits, and films it.

mod given;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use mfpo_policy::bundle::{self, MOST_BYTES, VerifiedBundle};
use mfpo_policy::sampler::ActionSampler;
use mfpo_policy::subject::{Subject, TaskSpec};
use mfpo_sim::{Env, EnvOptions, registry};
use serde::Serialize;

use crate::cli::print;
use crate::conditions::{ConditionArgs, Conditions};
use crate::evaluate::{Evaluation, Onlooker, Plan, evaluate_before};
use crate::film::{FilmSize, Recording};
use given::Given;

/// What to measure, and how to tell it.
#[derive(clap::Args)]
pub struct EvalArgs {
    /// A bundle; the policy of a SAC run (best.sac.safetensors); or the folder of a run (or its checkpoint): the policy of the last
    /// checkpoint then
    path: PathBuf,
    /// Task to measure it on [default: the policy's own, with the options that it was trained with]
    #[arg(long)]
    task: Option<String>,
    /// Episodes
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    episodes: u64,
    /// Candidates an action, of which the target critics choose the best, up to 64; 1 for one sample without selection. SAC acts
    /// by its mean, without any
    #[arg(long, default_value_t = 1)]
    candidates: usize,
    /// Another seed, other starts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    conditions: ConditionArgs,
    /// Film the episodes, one after another, in real time [default: beside the bundle, or last.mp4 in the run folder]
    #[arg(long, value_name = "FILE.mp4", num_args = 0..=1)]
    video: Option<Option<PathBuf>>,
    /// Size of the film, pixels
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value_t, requires = "video")]
    video_size: FilmSize,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Measures a policy.
///
/// # Errors
/// When the bundle or the checkpoint is refused, does not fit the task, or an episode or the film cannot be made.
pub fn run(args: &EvalArgs) -> anyhow::Result<()> {
    let most = ActionSampler::MOST_CANDIDATES;
    ensure!(
        (1..=most).contains(&args.candidates),
        "--candidates is {}; expected 1 to {most}, as many as a sampler has room for",
        args.candidates
    );
    let mut given = Given::open(args)?;
    let mut env = task_of(&given.subject, &given.task, &given.conditions)?;
    ensure!(
        args.candidates == 1 || given.policy.selects(),
        "{} holds nothing that chooses among candidates, as MFPO's critics do; use --candidates 1",
        args.path.display()
    );
    let plan = Plan {
        episodes: args.episodes,
        candidates: args.candidates,
        seed: args.seed,
    };
    let video = args.video.as_ref();
    let video = video.map(|path| path.clone().unwrap_or_else(|| film_of(&args.path)));
    let mut film = video
        .as_ref()
        .map(|path| Recording::start(path, args.video_size, env.as_mut()))
        .transpose()?;
    let onlooker: &mut dyn Onlooker = match &mut film {
        Some(film) => film,
        None => &mut (),
    };
    let told = evaluate_before(env.as_mut(), given.policy.as_mut(), plan, onlooker)?;
    // Before anything is told: whoever reads that may have seen enough. What was measured is told even without a film.
    let filmed = film.map_or(Ok(()), Recording::finish);
    if args.json {
        let told = Told {
            evaluation: &told,
            conditions: &given.conditions,
        };
        print(&(serde_json::to_string(&told)? + "\n"))?;
    } else {
        print(&in_words(&given, env.as_ref(), &told))?;
    }
    filmed?;
    match video {
        Some(path) if args.json => tracing::info!("film {}", path.display()),
        Some(path) => print(&format!("film    {}\n", path.display()))?,
        None => {}
    }
    Ok(())
}

/// The film that was given no name: beside the bundle, or in the folder of the run.
fn film_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join("last.mp4")
    } else {
        path.with_extension("mp4")
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    evaluation: &'a Evaluation,
    #[serde(flatten)]
    conditions: &'a Conditions,
}

fn in_words(given: &Given, env: &dyn Env, told: &Evaluation) -> String {
    let success = told.success;
    let success = success.map_or_else(String::new, |share| format!("success {:.0} %\n", 100.0 * share));
    format!(
        "{}, {}: {} episodes, {} candidate(s)\nunder   {}\nreturn  {:.2} +- {:.2}\n{success}length  {:.0} steps\n",
        env.spec().name,
        given.title,
        told.episodes,
        told.candidates,
        given.conditions,
        told.mean_return,
        told.std_return,
        told.mean_length
    )
}

/// Opens the bundle in a file.
///
/// # Errors
/// When the file cannot be read, or the bundle is refused; both name the file.
pub fn open_bundle(file: &Path) -> anyhow::Result<VerifiedBundle> {
    let bytes = read_bundle(file)?;
    bundle::open(&bytes).with_context(|| format!("{} is refused", file.display()))
}

/// The bytes of a bundle, unopened.
///
/// # Errors
/// When the file cannot be read, or is larger than a bundle may be, before it is read; it is named, and where it is a folder,
/// so is the bundle that a run leaves there.
pub(crate) fn read_bundle(file: &Path) -> anyhow::Result<Vec<u8>> {
    ensure!(
        !file.is_dir(),
        "{} is a folder; expected a bundle, such as {}",
        file.display(),
        file.join("last.safetensors").display()
    );
    let cannot_read = || format!("cannot read {}", file.display());
    let opened = File::open(file).with_context(cannot_read)?;
    let (got, most) = (
        opened.metadata().with_context(cannot_read)?.len(),
        MOST_BYTES as u64,
    );
    ensure!(
        got <= most,
        "{} is {got} bytes large; expected a policy bundle, of at most {most} bytes: give another file",
        file.display()
    );
    let mut bytes = Vec::new();
    // A device or a pipe states no size; with one byte too many it is refused like any other.
    opened
        .take(most + 1)
        .read_to_end(&mut bytes)
        .with_context(cannot_read)?;
    Ok(bytes)
}

/// The task called `name` that a policy for `subject` is measured on; its own has the options that it was trained with.
///
/// # Errors
/// When there is no such task, it knows no such conditions, or the policy does not fit it.
pub fn task_of(subject: &Subject, name: &str, conditions: &Conditions) -> anyhow::Result<Box<dyn Env>> {
    let mut options = EnvOptions {
        randomization: conditions.environment.clone(),
        ..EnvOptions::evaluate()
    };
    if let Subject::Task(task) = subject
        && task.name == name
    {
        options.task = task.options.clone().into_iter().collect();
    }
    let env = registry::make(name, &options)?;
    check_fits(subject, &env.spec().subject, name)?;
    Ok(env)
}

/// A policy is measured where its observations and actions mean what they meant in training.
fn check_fits(policy: &Subject, here: &Subject, task: &str) -> anyhow::Result<()> {
    match (policy, here) {
        (Subject::Robot(got), Subject::Robot(expected)) => ensure!(
            expected.hash() == got.hash(),
            "the policy is for the robot '{}' with spec {}; the task '{task}' expects '{}' with spec {}",
            got.robot,
            got.hash(),
            expected.robot,
            expected.hash(),
        ),
        (Subject::Task(got), Subject::Task(expected)) => check_task(got, expected)?,
        (Subject::Robot(got), Subject::Task(_)) => bail!(
            "the policy is for the robot '{}'; the task '{task}' has no robot and expects a policy for itself",
            got.robot
        ),
        (Subject::Task(got), Subject::Robot(expected)) => bail!(
            "the policy is for the task '{}'; the task '{task}' expects one for the robot '{}'",
            got.name,
            expected.robot
        ),
    }
    Ok(())
}

fn check_task(got: &TaskSpec, expected: &TaskSpec) -> anyhow::Result<()> {
    let numbers = |task: &TaskSpec| {
        [
            ("observation size", task.observation_size.to_string()),
            ("action size", task.action_size.to_string()),
            (
                "control period",
                format!("{} ms", task.control_period_ns as f64 * 1e-6),
            ),
        ]
    };
    for ((what, got_value), (_, expected_value)) in numbers(got).into_iter().zip(numbers(expected)) {
        ensure!(
            got_value == expected_value,
            "the policy is for the task '{}': its {what} is {got_value}; the task '{}' expects {expected_value}",
            got.name,
            expected.name,
        );
    }
    if got.name != expected.name {
        tracing::warn!(
            "the policy was trained on '{}' and is measured on '{}', which has the same sizes",
            got.name,
            expected.name
        );
    }
    Ok(())
}
