//! The command line of the trainer: parse, configure, run, exit code.

use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::algorithm::AlgorithmKind;
use crate::checkpoint::{Checkpoints, Header};
use crate::config::TrainConfig;
use crate::eval::{EvalArgs, open_bundle};
use crate::film::FilmSize;
use crate::guard::GuardArgs;
use crate::keys::{self, KeygenArgs, SignArgs, VerifyArgs};
use crate::overlay::{self, Along};
use crate::plot::check_format;
use crate::progress::{LogWriter, ProgressMode};
use crate::publish::{Announce, BundleSink, check_folder, run_id};
use crate::run_info::RunInfo;
use crate::state::State;
use crate::{eval, guard, idle, inspect, rollout, seeds, train};
use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};
use mfpo_policy::device::DeviceName;
use mfpo_policy::kernel::InstructionSet;
use mfpo_sim::registry;
use tracing_subscriber::EnvFilter;

/// Trains MeanFlow policies online with MFPO, measures them, and looks into their bundles.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a policy; leaves configuration, metrics, learning curve and bundles in a run folder. Ctrl-C stops it with a
    /// checkpoint, and exit code 130
    Train(TrainArgs),
    /// Measure a bundle, or the last policy of a run, in simulation, and film it
    Eval(EvalArgs),
    /// Measure how well the policy's own signals tell that its sensors or motors fail
    Guard(GuardArgs),
    /// Print what a bundle says about itself
    Inspect {
        /// The bundle, a safetensors file
        file: PathBuf,
    },
    /// Make a key to sign bundles with
    Keygen(KeygenArgs),
    /// Sign a bundle, so that a node which trusts the key takes it
    Sign(SignArgs),
    /// Check a bundle and its signature
    Verify(VerifyArgs),
    /// Draw the evaluations of several runs into one picture; runs that differ in their seed only are one curve
    Plot(PlotArgs),
    /// Drive a task from files, to compare it with another implementation: one JSON object a step, the reset first
    Rollout(RolloutArgs),
    /// List the tasks
    Tasks,
}

#[derive(Args)]
struct PlotArgs {
    /// Run folders, or folders that hold some, also in folders of their own
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The picture: png, jpg or bmp
    #[arg(long, value_name = "FILE.png", default_value = "plot.png")]
    out: PathBuf,
    /// What lies along it
    #[arg(long, value_parser = ["steps", "seconds"], default_value = "steps")]
    x: String,
}

#[derive(Args)]
struct RolloutArgs {
    /// The task; `tasks` lists them
    task: String,
    /// JSON object with qpos, qvel and, where the task has them, act, time, qacc_warmstart, steps (the episode's so far)
    /// and model (values by name); what is left out is drawn at random
    #[arg(long, value_name = "FILE.json")]
    state: Option<PathBuf>,
    /// One action a line as a JSON array, in the actuators' own units; - reads standard input, and each line is answered
    /// before the next is read
    #[arg(long, value_name = "FILE.jsonl")]
    actions: PathBuf,
    /// Draws what the state leaves out
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// An option of the task, for example frame_skip=4; may be repeated
    #[arg(long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
}

#[derive(Args)]
struct TrainArgs {
    /// Task to learn; `tasks` lists them [default: swing_arm]
    #[arg(long)]
    task: Option<String>,
    /// Go on with the run in this folder from its last checkpoint, as if it had never stopped; --steps and --set change it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["algorithm", "config", "seed", "out"])]
    resume: Option<PathBuf>,
    /// Who learns: mfpo, or sac, its usual peer [default: the configuration's]
    #[arg(long, value_parser = ["mfpo", "sac"])]
    algorithm: Option<String>,
    /// Where updates are computed: cpu, or cuda or cuda:N, an NVIDIA GPU [default: the configuration's, cpu]
    #[arg(long)]
    device: Option<DeviceName>,
    /// TOML file laid over the task's built-in configuration, or the name of a built-in one
    #[arg(long)]
    config: Option<String>,
    /// Change one number, for example learner.discount=0.98; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Everything random follows from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Several seeds, each a run of its own in <out>/s<seed>: 0..4 are 0 to 4, 0,3,7 are these. Repeated, it goes on
    #[arg(long, value_name = "SEEDS", value_parser = seeds::parse, conflicts_with_all = ["seed", "resume", "topic", "json_progress"])]
    seeds: Option<std::vec::Vec<u64>>,
    /// With --seeds: runs at the same time, which share the cores [default: one a core]
    #[arg(long, value_name = "N", requires = "seeds", value_parser = clap::value_parser!(u64).range(1..))]
    jobs: Option<u64>,
    /// Environment steps of the run, also as 1e6 [default: the configuration's]
    #[arg(long, value_parser = whole)]
    steps: Option<u64>,
    /// End once two evaluations in a row have this share of successes, 0 to 1; tasks of robots alone have any
    /// [default: all steps]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    until_success: Option<f64>,
    /// Take at least this long, so that a robot can follow on a machine that learns faster
    #[arg(long, value_name = "S", default_value_t = 0)]
    min_seconds: u64,
    /// Run folder [default: runs/<run>; with --seeds runs/<task>-<algorithm>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Environment steps between two bundles [default: the configuration's]
    #[arg(long, value_name = "STEPS", value_parser = whole)]
    publish_every: Option<u64>,
    /// Sign every bundle with this private key (see keygen)
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Publish every bundle on the ROS 2 topic policy/bundle, where running nodes take it at once
    #[arg(long, overrides_with = "no_topic")]
    topic: bool,
    /// With --topic: how bundles get to the nodes
    #[arg(long, value_enum, value_name = "HOW", default_value_t, requires = "topic")]
    announce: Announce,
    /// Publish to the run folder only (the default)
    #[arg(long)]
    no_topic: bool,
    /// Film the first episode of every evaluation into <run>/films; the learning is the same, and takes longer
    #[arg(long)]
    video: bool,
    /// Size of the films, pixels
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value_t, requires = "video")]
    video_size: FilmSize,
    /// Lower the priority of this process, 0 to 19
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=19))]
    nice: Option<i32>,
    /// No progress bar
    #[arg(long, conflicts_with = "json_progress")]
    quiet: bool,
    /// One JSON object a report on standard output instead of the bar
    #[arg(long)]
    json_progress: bool,
}

/// What a shell adds to a signal, where it tells how a program ended.
const SIGNALLED: u8 = 128;
/// Exit code where whoever reads standard output has seen enough (`| head`): what a shell tells of other programs then,
/// which SIGPIPE ends.
const UNREAD: u8 = SIGNALLED + 13;

/// A whole number, also as 1e6.
fn whole(text: &str) -> Result<u64, String> {
    let exact = text.parse::<u64>().ok();
    let with_exponent = || {
        let number = text.parse::<f64>().ok();
        let number = number.filter(|number| number.fract() == 0.0 && (0.0..1e15).contains(number));
        number.map(|number| number as u64)
    };
    let number = exact.or_else(with_exponent);
    number.ok_or_else(|| "expected a whole number, such as 20000 or 2e4".to_owned())
}

/// A share of successes.
fn share(text: &str) -> Result<f64, String> {
    let value = text
        .parse::<f64>()
        .ok()
        .filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// Runs the command line of this process to its end; the exit code is 0 only on success. A program with tasks of its own
/// calls [`mfpo_sim::registry::register`] first; what it does before this call is done twice with `train --topic`, which
/// begins anew (`mfpo_ros::transport`).
pub fn main() -> ExitCode {
    one_thread_unless_told_otherwise();
    // What follows --ros-args is read by ROS itself.
    let cli = Cli::parse_from(std::env::args_os().take_while(|argument| argument != "--ros-args"));
    init_log();
    if let Err(error) = InstructionSet::check_asked() {
        eprintln!("mfpo_train: {error}");
        return ExitCode::FAILURE;
    }
    let done = |()| ExitCode::SUCCESS;
    let result = match cli.command {
        Command::Train(args) => run_train(args),
        Command::Eval(args) => eval::run(&args).map(done),
        Command::Guard(args) => guard::run(&args).map(done),
        Command::Inspect { file } => run_inspect(&file).map(done),
        Command::Keygen(args) => keys::keygen(&args).map(done),
        Command::Sign(args) => keys::sign(&args).map(done),
        Command::Verify(args) => keys::verify(&args).map(done),
        Command::Plot(args) => run_plot(&args).map(done),
        Command::Rollout(args) => run_rollout(args).map(done),
        Command::Tasks => list_tasks().map(done),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_unread(&error) => ExitCode::from(UNREAD),
        Err(error) => {
            // Not eprintln, which panics where nobody reads it.
            let _ = writeln!(std::io::stderr(), "mfpo_train: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Is it that nobody reads standard output any more? This program writes into no other pipe.
fn is_unread(error: &anyhow::Error) -> bool {
    let causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes
        .map(std::io::Error::kind)
        .any(|kind| kind == ErrorKind::BrokenPipe)
}

/// Two spinning threads on a busy machine made updates twice as slow, so that one is the default.
fn one_thread_unless_told_otherwise() {
    for name in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
        if std::env::var_os(name).is_none() {
            // SAFETY: the first statement of `main`. No thread of ours runs yet; LTTng, which ROS 2 brings, has started two
            // before, and was seen to read the environment on this thread alone.
            unsafe { std::env::set_var(name, "1") };
        }
    }
}

fn init_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(|| LogWriter)
        .init();
}

fn run_train(args: TrainArgs) -> anyhow::Result<ExitCode> {
    #[cfg(feature = "ros")]
    if args.topic {
        mfpo_ros::transport::settle();
    }
    if let Some(nice) = args.nice {
        rustix::process::setpriority_process(None, nice)
            .context("cannot lower the priority of this process")?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let signal = stop_on_signals(&stop)?;
    if let Some(seeds) = &args.seeds {
        let plan = several_seeds(&args, seeds)?;
        warn_of_idle(&plan.overrides, &plan.config);
        let is_stopped = seeds::train(&plan, &stop)?;
        return Ok(exit_code(is_stopped, &signal));
    }
    let start = match &args.resume {
        None => fresh_start(&args)?,
        Some(folder) => resumed_start(folder, &args)?,
    };
    warn_of_idle(&overrides(&args), &start.config);
    let outcome = train::train(train::Options {
        sink: sink(args.topic.then_some(args.announce))?,
        signing_key: args.sign_key.as_deref().map(keys::read_key).transpose()?,
        progress: progress_mode(&args),
        until_success: args.until_success,
        films: args.video.then_some(args.video_size),
        least: Duration::from_secs(args.min_seconds),
        task: start.task,
        seed: start.seed,
        folder: start.folder,
        config: start.config,
        checkpoint: start.checkpoint,
        stop,
    })?;
    tracing::info!(
        "{}: {} steps, {} updates in {:.1} s; version {} has return {:.1}{}; {}",
        if outcome.interrupted { "stopped" } else { "done" },
        outcome.steps,
        outcome.updates,
        outcome.seconds,
        outcome.version,
        outcome.evaluation.mean_return,
        outcome
            .evaluation
            .success
            .map_or_else(String::new, |share| format!(", success {:.0} %", 100.0 * share)),
        outcome
            .policy
            .as_ref()
            .map_or_else(|| "no policy".to_owned(), |path| path.display().to_string()),
    );
    Ok(exit_code(outcome.interrupted, &signal))
}

/// A run that was stopped has left its checkpoint, but no script must take it for one that is done: its exit code is what a
/// shell tells of a program that the signal has ended, or whose output nobody reads any more.
fn exit_code(is_stopped: bool, signal: &AtomicUsize) -> ExitCode {
    match u8::try_from(signal.load(Ordering::Relaxed)) {
        _ if !is_stopped => ExitCode::SUCCESS,
        Ok(0) | Err(_) => ExitCode::from(UNREAD),
        Ok(signal) => ExitCode::from(SIGNALLED + signal),
    }
}

fn warn_of_idle(overrides: &[String], config: &TrainConfig) {
    for idle in idle::settings(overrides, config) {
        tracing::warn!("{idle}");
    }
}

/// The runs of `--seeds`: the same arguments for each.
fn several_seeds(args: &TrainArgs, seeds: &[u64]) -> anyhow::Result<seeds::Plan> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.map_or(cores, |jobs| jobs as usize).min(seeds.len());
    let mut overrides = overrides(args);
    let task = task(args).to_owned();
    let mut config = TrainConfig::load(&task, args.config.as_deref(), &overrides)?;
    // All cores: the runs share them.
    if config.learner.threads == 0 {
        config.learner.threads = (cores / jobs).max(1);
        overrides.push(format!("learner.threads={}", config.learner.threads));
    }
    // A run that goes on has its own configuration: the length of this command must be told to it, whoever names it - an
    // option, a file or nobody. Else seeds of a first, short try would pass for done.
    overrides.push(format!("run.steps={}", config.run.steps));
    let mut go_on: Vec<String> = overrides.iter().map(|set| format!("--set={set}")).collect();
    go_on.push(format!("--task={task}"));
    go_on.push(format!("--min-seconds={}", args.min_seconds));
    go_on.extend(args.until_success.map(|share| format!("--until-success={share}")));
    if args.video {
        go_on.extend(["--video".to_owned(), format!("--video-size={}", args.video_size)]);
    }
    let key = args.sign_key.as_ref();
    go_on.extend(key.map(|key| format!("--sign-key={}", key.display())));
    go_on.extend(args.nice.map(|nice| format!("--nice={nice}")));
    let mut start = go_on.clone();
    start.extend(args.config.as_ref().map(|config| format!("--config={config}")));
    let folder = args.out.clone();
    Ok(seeds::Plan {
        seeds: seeds.to_vec(),
        folder: folder.unwrap_or_else(|| folder_of_seeds(&task, config.run.algorithm)),
        task,
        config,
        jobs,
        start,
        go_on,
        overrides,
        quiet: args.quiet,
    })
}

fn task(args: &TrainArgs) -> &str {
    args.task.as_deref().unwrap_or("swing_arm")
}

/// The same for the same command, which goes on with what is there.
fn folder_of_seeds(task: &str, algorithm: AlgorithmKind) -> PathBuf {
    let algorithm = format!("{algorithm:?}").to_lowercase();
    PathBuf::from("runs").join(format!("{task}-{algorithm}"))
}

/// What is trained, from where.
struct Start {
    task: String,
    seed: u64,
    folder: PathBuf,
    config: TrainConfig,
    checkpoint: Option<(Header, State<'static>)>,
}

fn fresh_start(args: &TrainArgs) -> anyhow::Result<Start> {
    let task = task(args).to_owned();
    let folder = args.out.clone();
    Ok(Start {
        config: TrainConfig::load(&task, args.config.as_deref(), &overrides(args))?,
        folder: folder.unwrap_or_else(|| PathBuf::from("runs").join(run_id(&task, args.seed))),
        seed: args.seed,
        task,
        checkpoint: None,
    })
}

/// Refuses a run that ended before its first checkpoint, or whose checkpoint is gone, and says how it is started again.
fn refuse_without_checkpoint(folder: &Path) -> anyhow::Result<()> {
    let mut left = ["config.toml", "metrics.jsonl"].iter();
    let is_run = left.any(|name| folder.join(name).exists());
    if !is_run || Checkpoints::new(folder).last().exists() {
        return Ok(());
    }
    let again = match RunInfo::read(folder) {
        Ok(info) => format!(
            ", and with --topic, --video and --sign-key where it had them: train --task {} --seed {} --config {} --out {}",
            info.task,
            info.seed,
            folder.join("config.toml").display(),
            folder.display()
        ),
        Err(_) => " with the command that began it".to_owned(),
    };
    bail!(
        "the run in {} has no checkpoint yet, so that there is nothing to go on from; start it again{again}",
        folder.display()
    )
}

fn resumed_start(folder: &Path, args: &TrainArgs) -> anyhow::Result<Start> {
    refuse_without_checkpoint(folder)?;
    let (header, state) = Checkpoints::new(folder).load()?;
    if let Some(task) = &args.task {
        ensure!(
            *task == header.task,
            "the checkpoint in {} is of the task '{}', not of '{task}'; leave --task out",
            folder.display(),
            header.task
        );
    }
    let config = TrainConfig::parse(&header.config, &overrides(args))?;
    ensure!(
        !train::is_done(&header, &state, config.run.steps),
        "the run in {} is done: {} of {} steps; give more with --steps",
        folder.display(),
        header.step,
        config.run.steps
    );
    Ok(Start {
        task: header.task.clone(),
        seed: header.seed,
        folder: folder.to_owned(),
        config,
        checkpoint: Some((header, state)),
    })
}

/// `--set`, then the options that have a name of their own.
fn overrides(args: &TrainArgs) -> Vec<String> {
    let algorithm = args
        .algorithm
        .as_ref()
        .map(|name| format!("run.algorithm={name}"));
    let device = args.device.map(|device| format!("run.device={device}"));
    let steps = args.steps.map(|steps| format!("run.steps={steps}"));
    let publish_every = args
        .publish_every
        .map(|steps| format!("run.publish_every={steps}"));
    args.overrides
        .iter()
        .cloned()
        .chain(algorithm)
        .chain(device)
        .chain(steps)
        .chain(publish_every)
        .collect()
}

fn progress_mode(args: &TrainArgs) -> ProgressMode {
    match (args.quiet, args.json_progress) {
        (true, _) => ProgressMode::Quiet,
        (_, true) => ProgressMode::Json,
        _ => ProgressMode::Bar,
    }
}

/// The first SIGINT or SIGTERM ends the run in good order, the second at once. Which of them came is what is returned; 0 is
/// none.
fn stop_on_signals(stop: &Arc<AtomicBool>) -> anyhow::Result<Arc<AtomicUsize>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let which = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        let code = i32::from(SIGNALLED) + signal;
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(stop))?;
        // Before the flag that is looked at.
        signal_hook::flag::register_usize(signal, Arc::clone(&which), signal as usize)?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(which)
}

#[cfg(feature = "ros")]
fn sink(announce: Option<Announce>) -> anyhow::Result<Option<Box<dyn BundleSink>>> {
    match announce {
        None => Ok(None),
        Some(announce) => Ok(Some(Box::new(crate::ros::BundleTopic::open(announce)?))),
    }
}

#[cfg(not(feature = "ros"))]
fn sink(announce: Option<Announce>) -> anyhow::Result<Option<Box<dyn BundleSink>>> {
    ensure!(
        announce.is_none(),
        "this mfpo_train was built without ROS 2; build it with the feature `ros` to use --topic"
    );
    Ok(None)
}

fn run_inspect(file: &Path) -> anyhow::Result<()> {
    let bundle = open_bundle(file)?;
    print(&inspect::describe(&bundle))
}

fn run_rollout(args: RolloutArgs) -> anyhow::Result<()> {
    let plan = rollout::Plan {
        task: args.task,
        options: args.options,
        state: args.state,
        actions: args.actions,
        seed: args.seed,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    rollout::run(&plan, &mut out)?;
    out.flush().context("cannot write to standard output")
}

fn run_plot(args: &PlotArgs) -> anyhow::Result<()> {
    check_format(&args.out)?;
    check_folder(&args.out)?;
    let runs = overlay::find_runs(&args.runs)?;
    let along = if args.x == "seconds" {
        Along::Seconds
    } else {
        Along::Steps
    };
    overlay::draw(&runs, along, &args.out)?;
    let summary = overlay::summary(&runs);
    print(&format!(
        "{summary}{} runs in {}\n",
        runs.len(),
        args.out.display()
    ))
}

fn list_tasks() -> anyhow::Result<()> {
    print(&(registry::names().join("\n") + "\n"))
}

/// Writes to standard output. `println!` panics where nobody reads it; this is an error that ends the program quietly.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_whole_numbers_however_they_are_written() {
        assert_eq!((whole("1e4"), whole("20000")), (Ok(10_000), Ok(20_000)));
        assert_eq!(whole("2.5e3"), Ok(2_500));
        for bad in ["1.5", "-1", "1e40", "inf", "NaN", "many", ""] {
            let text = whole(bad).unwrap_err();
            assert!(text.contains("expected a whole number"), "{bad}: {text}");
        }
    }

    #[test]
    fn seeds_that_go_on_are_told_the_length_that_the_command_asks_for() {
        let usual = TrainConfig::load("swing_arm", None, &[]).unwrap().run.steps;
        for (more, steps) in [(None, usual), (Some("--steps=7"), 7)] {
            let mut args = vec!["mfpo_train", "train", "--seeds=0..1"];
            args.extend(more);
            let Command::Train(args) = Cli::parse_from(args).command else {
                panic!("it is a training");
            };
            let plan = several_seeds(&args, &[0, 1]).unwrap();
            let told = plan.go_on.iter().rfind(|arg| arg.starts_with("--set=run.steps="));
            assert_eq!(told, Some(&format!("--set=run.steps={steps}")));
        }
    }
}
