//! `bench update`: one MFPO update at the paper's settings and HalfCheetah's or Humanoid's sizes, on one core and on all.
//!
//! A batch of random transitions, fresh networks; every update is timed on its own, in exact and in fast precision, which
//! take turns; with `--peers` also an equivalent JAX program (benches/peers/update_jax.py), once it has computed the reference's
//! update. With `--device cuda` both on an NVIDIA GPU, in exact precision: a timed update then ends when the GPU has nothing
//! left to do.

#[path = "update/peer.rs"]
mod peer;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use candle_core::Device;
use clap::Parser;
use mfpo_policy::device::{self, DeviceName};
use mfpo_policy::kernel::Precision;
use mfpo_train::learner::{LearnerConfig, MfpoLearner};
use mfpo_train::replay_buffer::Batch;
use peer::{Installed, Peer};
use rand::{RngExt, SeedableRng};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

// As in the trainer's program: the allocator keeps the pages of the last update for the next one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times one MFPO update.
#[derive(Debug, Parser)]
#[command(name = "update", version)]
struct Arguments {
    /// Timed updates of each case.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Updates in a row before the peer's turn.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    turn: u32,
    /// Where updates are computed: cpu, cuda or cuda:N.
    #[arg(long, default_value_t)]
    device: DeviceName,
    /// Threads; without it one thread and as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Python that runs the peer, as `cargo xtask bench update --peers` installs it; with --cuda one for NVIDIA GPUs.
    #[arg(long, value_name = "PYTHON")]
    peers: Option<PathBuf>,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One case: a name, the sizes of observation and action, clipped double Q (HalfCheetah is trained with the mean).
const CASES: [(&str, usize, usize, bool); 2] = [("halfcheetah", 17, 6, false), ("humanoid", 348, 17, true)];

fn main() -> ExitCode {
    // SAFETY: the first statement of `main`; no other thread exists that could read the environment.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench update: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let device = arguments.device.open()?;
    let kernel = device::describe_updates(&device);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    println!(
        "one MFPO update, paper settings (3x256, B 256, K1 16, K2 32, T 2, 101 atoms), {kernel}, load {load}; ms"
    );
    if !mfpo_policy::kernel::InstructionSet::detect().multiplies_halves_faster() {
        println!(
            "this processor multiplies bfloat16 no faster than 32-bit floats: the fast precision is slower than the exact one"
        );
    }
    if let Some(installed) = installed(arguments) {
        println!("{}", installed.check()?);
    }
    println!(
        "{:<12} {:>9} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "precision", "threads", "min", "p50", "p90", "p99", "cpu p50", "peer p50", "ratio"
    );
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match arguments.threads {
        Some(threads) => vec![threads],
        None if cores > 1 && device.is_cpu() => vec![1, cores],
        None => vec![1],
    };
    let mut results = Vec::new();
    for case in CASES {
        for threads in &threads {
            results.push(measure(arguments, &device, case, *threads)?);
        }
    }
    if arguments.json {
        println!("{}", object(&kernel, arguments.device, &results, threads.len())?);
    }
    Ok(())
}

/// The peer, where it is asked for.
fn installed(arguments: &Arguments) -> Option<Installed<'_>> {
    let (peers, device) = (arguments.peers.as_deref(), arguments.device);
    peers.map(|python| Installed { python, device })
}

/// Everything, and at the top HalfCheetah's figures on most threads.
fn object(kernel: &str, device: DeviceName, results: &[Value], of_a_case: usize) -> anyhow::Result<Value> {
    let headline = results.get(of_a_case - 1).context("no case was measured")?;
    let mut object = json!({ "bench": "update", "device": device, "kernel": kernel, "results": results });
    for (key, value) in headline.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object["update_p50_ms"] = headline["ours_wall_ms"].clone();
    Ok(object)
}

/// Wall and CPU times of updates, ms.
#[derive(Default)]
struct Times {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Times {
    fn at(values: &[f64], share: f64) -> Option<f64> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied()
    }

    fn median(values: &[f64]) -> Option<f64> {
        Self::at(values, 0.5)
    }
}

/// One of our learners and the times of its updates.
struct Ours {
    precision: Precision,
    learner: MfpoLearner,
    times: Times,
}

impl Ours {
    fn new(
        precision: Precision,
        config: LearnerConfig,
        device: &Device,
        batch: &Batch,
    ) -> anyhow::Result<Self> {
        let config = LearnerConfig { precision, ..config };
        let mut learner = MfpoLearner::new(config, 0, device)?;
        for _ in 0..5 {
            learner.update(batch)?;
        }
        device.synchronize()?;
        let times = Times::default();
        Ok(Self {
            precision,
            learner,
            times,
        })
    }

    fn updates(&mut self, count: u32, device: &Device, batch: &Batch) -> anyhow::Result<()> {
        for _ in 0..count {
            let (start, cpu) = (Instant::now(), cpu_ms());
            self.learner.update(batch)?;
            device.synchronize()?;
            self.times.wall.push(start.elapsed().as_secs_f64() * 1e3);
            self.times.cpu.push(cpu_ms() - cpu);
        }
        Ok(())
    }
}

fn measure(
    arguments: &Arguments,
    device: &Device,
    (name, observation, action, clipped_double_q): (&str, usize, usize, bool),
    threads: usize,
) -> anyhow::Result<Value> {
    let config = LearnerConfig {
        clipped_double_q,
        threads,
        ..LearnerConfig::paper(observation, action)
    };
    let batch = random_batch(config.batch_size, observation, action);
    let mut ours = vec![Ours::new(Precision::Exact, config.clone(), device, &batch)?];
    if device.is_cpu() {
        ours.push(Ours::new(Precision::Fast, config, device, &batch)?);
    }
    let sizes = (observation, action, clipped_double_q);
    let mut peer = installed(arguments)
        .map(|installed| Peer::start(installed, device, sizes, threads))
        .transpose()?;
    let mut theirs = Times::default();
    for done in (0..arguments.samples).step_by(arguments.turn as usize) {
        let turn = arguments.turn.min(arguments.samples - done);
        for ours in &mut ours {
            ours.updates(turn, device, &batch)?;
        }
        if let Some(peer) = &mut peer {
            peer.updates(arguments.turn, &mut theirs)?;
        }
    }
    let peer_wall = Times::median(&theirs.wall);
    let ratio = |times: &Times| {
        let ours = Times::median(&times.wall);
        ours.zip(peer_wall).map(|(ours, theirs)| ours / theirs)
    };
    for ours in &ours {
        let [min, p50, p90, p99] = [0.0, 0.5, 0.9, 0.99].map(|share| Times::at(&ours.times.wall, share));
        let cpu = Times::median(&ours.times.cpu);
        let cell = |value: Option<f64>| value.map_or_else(|| "       -".to_owned(), |v| format!("{v:8.2}"));
        let row = [min, p50, p90, p99, cpu, peer_wall, ratio(&ours.times)].map(cell);
        let precision = format!("{:?}", ours.precision).to_lowercase();
        println!("{name:<12} {precision:>9} {threads:>7} {}", row.join(" "));
    }
    let quick = ours.get(1).map(|ours| &ours.times);
    let ours = &ours[0].times;
    Ok(json!({
        "task": name, "threads": threads, "samples": ours.wall.len(),
        "ours_wall_ms": Times::median(&ours.wall), "ours_cpu_ms": Times::median(&ours.cpu),
        "ours_min_ms": Times::at(&ours.wall, 0.0), "ours_p90_ms": Times::at(&ours.wall, 0.9),
        "ours_p99_ms": Times::at(&ours.wall, 0.99),
        "fast_wall_ms": quick.and_then(|times| Times::median(&times.wall)),
        "fast_cpu_ms": quick.and_then(|times| Times::median(&times.cpu)),
        "peer_wall_ms": peer_wall, "peer_cpu_ms": Times::median(&theirs.cpu), "peer_min_ms": Times::at(&theirs.wall, 0.0),
        "ratio": ratio(ours), "fast_ratio": quick.and_then(ratio), "peer": peer.as_ref().map(Peer::name),
    }))
}

/// CPU time of this process, ms.
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 * 1e-6
}

fn random_batch(size: usize, observation_size: usize, action_size: usize) -> Batch {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let mut numbers =
        |n: usize, low: f32, high: f32| (0..n).map(|_| rng.random_range(low..high)).collect::<Vec<f32>>();
    Batch {
        size,
        observation_size,
        action_size,
        observations: numbers(size * observation_size, -2.0, 2.0),
        actions: numbers(size * action_size, -1.0, 1.0),
        rewards: numbers(size, 0.0, 5.0),
        masks: vec![1.0; size],
        next_observations: numbers(size * observation_size, -2.0, 2.0),
    }
}
