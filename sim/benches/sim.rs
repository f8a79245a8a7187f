//! `bench sim`: environment steps per second on one thread, every Gymnasium task and the DeepMind Control Suite.
//!
//! Our environment (actions scaled, observation, reward, ends, resets) beside the bare physics at the same frame skip and,
//! with `--peers`, Gymnasium's tasks beside Gymnasium itself. They take turns; what is printed is the best turn of each.
//!
//! The suite observes where bodies are after a step, and ends each with `mj_step1`. Behind Euler's method that is the first half
//! of the next `mj_step`; behind Runge-Kutta's it is work of its own, which the bare physics has not.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use mfpo_sim::{EnvOptions, Randomization, registry};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Times environment steps.
#[derive(Debug, Parser)]
#[command(name = "sim", version)]
struct Arguments {
    /// Turns of each side.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Seconds of a turn of ours, about.
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Only this task.
    #[arg(long, conflicts_with = "all")]
    task: Option<String>,
    /// Every task of the Control Suite, in place of one a domain.
    #[arg(long)]
    all: bool,
    /// Python that runs Gymnasium, as `cargo xtask bench sim --peers` installs it.
    #[arg(long, value_name = "PYTHON")]
    peers: Option<PathBuf>,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    println!(
        "environment steps a second, one thread, load {load}; best of {} turns",
        arguments.turns
    );
    println!(
        "{:<26} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "", "ours", "bare", "gymnasium", "/ bare", "/ gym"
    );
    let mut peer = arguments.peers.as_deref().map(Gymnasium::start).transpose()?;
    let mut results = serde_json::Map::new();
    for task in tasks(arguments) {
        results.insert(task.to_owned(), measure(task, arguments, peer.as_mut())?);
    }
    ensure!(
        !results.is_empty(),
        "no such task of Gymnasium or the Control Suite; `mfpo_train tasks` lists them"
    );
    tell_lowest(&results);
    if arguments.json {
        println!("{}", json!({ "bench": "sim", "threads": 1, "tasks": results }));
    }
    Ok(())
}

/// What is measured.
fn tasks(arguments: &Arguments) -> Vec<&'static str> {
    let mut benchmarks = registry::names();
    benchmarks.retain(|name| registry::robot(name).is_err());
    if let Some(only) = &arguments.task {
        benchmarks.retain(|name| name == only);
    } else if !arguments.all {
        let mut domains = BTreeSet::new();
        benchmarks.retain(|&name| is_of_gymnasium(name) || domains.insert(domain(name)));
    }
    benchmarks
}

fn is_of_gymnasium(task: &str) -> bool {
    task.ends_with("-v5")
}

/// The first part of a name of the Control Suite.
fn domain(task: &'static str) -> &'static str {
    task.split_once('-').map_or(task, |(domain, _)| domain)
}

fn tell_lowest(results: &serde_json::Map<String, Value>) {
    let shares = results
        .iter()
        .filter_map(|(task, result)| Some((task, result["over_bare"].as_f64()?)));
    if let Some((task, share)) = shares.min_by(|a, b| a.1.total_cmp(&b.1)) {
        println!("lowest share of the bare physics: {share:.2} ({task})");
    }
}

fn measure(task: &str, arguments: &Arguments, peer: Option<&mut Gymnasium>) -> anyhow::Result<Value> {
    let mut peer = peer.filter(|_| is_of_gymnasium(task));
    let probe = environment_steps(task, 200)?;
    let steps = ((arguments.seconds * probe) as usize).clamp(200, 1_000_000);
    let (mut ours, mut bare, mut theirs) = (0.0f64, 0.0f64, None);
    for _ in 0..arguments.turns {
        ours = ours.max(environment_steps(task, steps)?);
        bare = bare.max(bare_steps(task, steps)?);
        if let Some(peer) = peer.as_deref_mut() {
            theirs = Some(peer.steps(task, steps)?.max(theirs.unwrap_or(0.0)));
        }
    }
    let gymnasium = theirs.map_or_else(|| "-".to_owned(), |v| format!("{v:.0}"));
    let over = theirs.map_or_else(|| "-".to_owned(), |v| format!("{:.2}", ours / v));
    println!(
        "{task:<26} {ours:>10.0} {bare:>10.0} {gymnasium:>10} {:>8.2} {over:>8}",
        ours / bare
    );
    Ok(json!({
        "steps_per_s": ours, "bare_steps_per_s": bare, "gymnasium_steps_per_s": theirs, "over_bare": ours / bare,
        "over_gymnasium": theirs.map(|theirs| ours / theirs),
    }))
}

/// Random actions in `[-1, 1]`, `[steps][A]`.
fn actions(steps: usize, size: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    (0..steps * size).map(|_| rng.random_range(-1.0..=1.0)).collect()
}

/// Steps a second of our environment, resets included.
fn environment_steps(task: &str, steps: usize) -> anyhow::Result<f64> {
    let options = EnvOptions {
        randomization: Randomization::none(),
        ..EnvOptions::default()
    };
    let mut env = registry::make(task, &options)?;
    let actions = actions(steps, env.spec().action_size);
    env.reset(0)?;
    let start = Instant::now();
    for (seed, action) in actions.chunks_exact(env.spec().action_size).enumerate() {
        let step = env.step(action)?;
        if step.terminated || step.truncated {
            env.reset(seed as u64)?;
        }
    }
    Ok(steps as f64 / start.elapsed().as_secs_f64())
}

/// Steps a second of the physics alone, from the same starts under the same actions.
fn bare_steps(task: &str, steps: usize) -> anyhow::Result<f64> {
    let mut benchmark = registry::benchmark(task, &EnvOptions::default())?;
    let ranges = benchmark.physics.actuator_ctrlrange().to_vec();
    let frame_skip = (benchmark.control_period / benchmark.physics.timestep()).round() as usize;
    let actions: Vec<f64> = actions(steps, ranges.len())
        .iter()
        .zip(ranges.iter().cycle())
        .map(|(a, [low, high])| 0.5 * (low + high) + 0.5 * (high - low) * f64::from(*a))
        .collect();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    benchmark.physics.reset();
    benchmark
        .task
        .initialize_episode(&mut benchmark.physics, &mut rng)?;
    let mut since = 0;
    let start = Instant::now();
    for action in actions.chunks_exact(ranges.len()) {
        benchmark.physics.ctrl_mut().copy_from_slice(action);
        benchmark.physics.advance(frame_skip);
        since += 1;
        // The same kind of states: a body that has fallen costs other contacts than one that stands.
        if benchmark.task.terminated(&benchmark.physics) || since == benchmark.episode_steps {
            benchmark.physics.reset();
            benchmark
                .task
                .initialize_episode(&mut benchmark.physics, &mut rng)?;
            since = 0;
        }
    }
    Ok(steps as f64 / start.elapsed().as_secs_f64())
}

/// Gymnasium, in a process of its own.
struct Gymnasium {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Gymnasium {
    fn start(python: &Path) -> anyhow::Result<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers/sim.py");
        let mut child = Command::new(python)
            .env_remove("PYTHONPATH")
            .current_dir(std::env::temp_dir())
            .arg(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", python.display()))?;
        let input = child.stdin.take().context("the peer has no input")?;
        let output = BufReader::new(child.stdout.take().context("the peer has no output")?);
        let mut peer = Self { child, input, output };
        peer.line()?;
        Ok(peer)
    }

    /// Steps a second of `steps` steps.
    fn steps(&mut self, task: &str, steps: usize) -> anyhow::Result<f64> {
        writeln!(self.input, "{}", json!({ "task": task, "steps": steps })).context("the peer ended")?;
        let answer: Value = serde_json::from_str(&self.line()?)?;
        let seconds = answer["seconds"].as_f64().context("the peer gave no time")?;
        Ok(steps as f64 / seconds)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the peer ended; what it said is above");
        Ok(line)
    }
}

impl Drop for Gymnasium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
