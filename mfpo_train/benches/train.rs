//! `bench train`: what a whole training step costs beyond its update, and what memory the replay buffer takes.
//!
//! Short runs of the trainer itself (environment, replay buffer, update, metrics; HalfCheetah-v5, the paper's settings) and
//! updates alone take turns in one process. Evaluations and checkpoints are as rare as in a long run: none falls into a turn.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use candle_core::Device;
use clap::Parser;
use mfpo_train::config::TrainConfig;
use mfpo_train::learner::MfpoLearner;
use mfpo_train::progress::ProgressMode;
use mfpo_train::replay_buffer::{Batch, ReplayBuffer, Transition};
use mfpo_train::train;
use serde_json::{Value, json};

// As in the trainer's program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Random steps before a run's first update.
const RANDOM_STEPS: u64 = 300;
/// Transitions of the replay buffer whose memory is measured.
const TRANSITIONS: usize = 1_000_000;

/// Times whole training steps.
#[derive(Debug, Parser)]
#[command(name = "train", version)]
struct Arguments {
    /// Task to train.
    #[arg(long, default_value = "HalfCheetah-v5")]
    task: String,
    /// Turns of each side.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Updates of a turn.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(20..))]
    updates: u64,
    /// Change one number of the configuration, for example learner.precision=fast; may be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // SAFETY: the first statement of `main`; no other thread exists that could read the environment.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench train: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{}: training steps and updates alone, median of {} turns of {} updates, load {}",
        arguments.task,
        arguments.turns,
        arguments.updates,
        load.split(' ').next().unwrap_or("unknown")
    );
    // First, so that no memory that a run has given back is taken up again.
    let (resident, raw) = replay_memory();
    let replay = resident / raw;
    println!(
        "replay buffer, {TRANSITIONS} transitions of HalfCheetah: {:.1} MB resident, {:.1} MB raw: {replay:.3}",
        resident / 1e6,
        raw / 1e6
    );
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let config = configuration(arguments)?;
    let (mut steps, mut updates) = (Vec::new(), Vec::new());
    for turn in 0..arguments.turns {
        let run = folder.path().join(turn.to_string());
        let sizes = train_once(arguments, config.clone(), &run)?;
        steps.push(steps_per_second(&run)?);
        updates.push(updates_per_second(&config, sizes, arguments.updates)?);
    }
    let ratios: Vec<f64> = updates
        .iter()
        .zip(&steps)
        .map(|(update, step)| update / step)
        .collect();
    let (steps, updates, ratio) = (median(steps), median(updates), median(ratios));
    println!("{steps:8.2} steps/s   {updates:8.2} updates/s alone   a step takes {ratio:.3} of an update");
    if arguments.json {
        let object = json!({
            "bench": "train", "task": arguments.task, "steps_per_s": steps, "updates_per_s": updates,
            "step_over_update": ratio, "replay_over_raw": replay, "replay_mb": resident / 1e6,
        });
        println!("{object}");
    }
    Ok(())
}

/// The task's own configuration for a short run.
fn configuration(arguments: &Arguments) -> anyhow::Result<TrainConfig> {
    let mut overrides = vec![
        format!("run.steps={}", RANDOM_STEPS + arguments.updates),
        format!("run.random_steps={RANDOM_STEPS}"),
        "run.report_every=10".to_owned(),
        // The first and the last policy are measured all the same, outside the turn.
        "evaluation.episodes=1".to_owned(),
        "evaluation.candidates=1".to_owned(),
    ];
    overrides.extend(arguments.overrides.iter().cloned());
    Ok(TrainConfig::load(&arguments.task, None, &overrides)?)
}

/// A run of the trainer; gives the sizes of observation and action.
fn train_once(arguments: &Arguments, config: TrainConfig, folder: &Path) -> anyhow::Result<(usize, usize)> {
    train::train(train::Options {
        task: arguments.task.clone(),
        config,
        seed: 0,
        folder: folder.to_owned(),
        checkpoint: None,
        progress: ProgressMode::Quiet,
        sink: None,
        signing_key: None,
        films: None,
        until_success: None,
        least: Duration::ZERO,
        stop: Arc::new(AtomicBool::new(false)),
    })?;
    let path = folder.join("config.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let resolved = TrainConfig::parse(&text, &[])?;
    Ok((resolved.learner.observation_size, resolved.learner.action_size))
}

/// From the times of the run's own reports, the first update's left out.
fn steps_per_second(folder: &Path) -> anyhow::Result<f64> {
    let path: PathBuf = folder.join("metrics.jsonl");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().map(serde_json::from_str::<Value>);
    let lines = lines.collect::<Result<Vec<_>, _>>()?;
    let mut reports = lines.iter().filter(|line| line["kind"] == "update");
    let time = |line: &Value| Some((line["step"].as_f64()?, line["seconds"].as_f64()?));
    let (first, last) = (reports.next().and_then(time), reports.next_back().and_then(time));
    let ((s0, t0), (s1, t1)) = first
        .zip(last)
        .context("the run reported fewer than two updates")?;
    ensure!(t1 > t0, "the run's clock stood still");
    Ok((s1 - s0) / (t1 - t0))
}

fn updates_per_second(config: &TrainConfig, (s, a): (usize, usize), count: u64) -> anyhow::Result<f64> {
    let mut learner_config = config.learner.clone();
    (learner_config.observation_size, learner_config.action_size) = (s, a);
    let batch = random_batch(learner_config.batch_size, s, a);
    let mut learner = MfpoLearner::new(learner_config, 0, &Device::Cpu)?;
    for _ in 0..10 {
        learner.update(&batch)?;
    }
    let start = Instant::now();
    for _ in 0..count - 10 {
        learner.update(&batch)?;
    }
    Ok((count - 10) as f64 / start.elapsed().as_secs_f64())
}

fn random_batch(size: usize, s: usize, a: usize) -> Batch {
    let mut buffer = ReplayBuffer::new(s, a, 1000, 0);
    (0..1000).for_each(|i| insert(&mut buffer, i, (s, a)));
    buffer.sample(size)
}

/// A transition with numbers of its own.
fn insert(buffer: &mut ReplayBuffer, index: usize, (s, a): (usize, usize)) {
    let number = |j: usize| ((index * 31 + j * 17) % 1009) as f32 / 504.5 - 1.0;
    let observation: Vec<f32> = (0..s).map(number).collect();
    let next_observation: Vec<f32> = (1..=s).map(number).collect();
    let action: Vec<f32> = (0..a).map(number).collect();
    buffer.insert(Transition {
        observation: &observation,
        action: &action,
        reward: f64::from(number(7)),
        terminated: false,
        next_observation: &next_observation,
    });
}

/// Resident bytes that a full buffer adds, and its numbers' own bytes.
fn replay_memory() -> (f64, f64) {
    let before = resident_bytes();
    let mut buffer = ReplayBuffer::new(17, 6, TRANSITIONS, 0);
    (0..TRANSITIONS).for_each(|i| insert(&mut buffer, i, (17, 6)));
    let added = resident_bytes() - before;
    let raw = buffer.len() * (17 + 6 + 1 + 1 + 17) * size_of::<f32>();
    (added, raw as f64)
}

fn resident_bytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    1024.0 * kilobytes.unwrap_or(f64::NAN)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
