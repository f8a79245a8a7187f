//! `bench update`: one MFPO update at the paper's settings and HalfCheetah's or Humanoid's sizes.
//!
//! One thread, a batch of random transitions, fresh networks; every update is timed on its own.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use candle_core::Device;
use clap::Parser;
use mfpo_train::learner::{LearnerConfig, MfpoLearner};
use mfpo_train::replay_buffer::Batch;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

// As in the trainer's program: the allocator keeps the pages of the last update for the next one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times one MFPO update.
#[derive(Debug, Parser)]
#[command(name = "update", version)]
struct Arguments {
    /// Timed updates of each case.
    #[arg(long, default_value_t = 60)]
    samples: usize,
    /// Updates before the first timed one.
    #[arg(long, default_value_t = 5)]
    warm_up: usize,
    /// Threads of an update; 0 takes all cores.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// End with one line of JSON.
    #[arg(long)]
    json: bool,
    /// `cargo bench` says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One case: a name and the sizes of observation and action.
const CASES: [(&str, usize, usize); 2] = [("halfcheetah", 17, 6), ("humanoid", 348, 17)];

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
    let kernel = mfpo_policy::kernel::InstructionSet::detect().name();
    println!(
        "one MFPO update, paper settings (3x256, B 256, K1 16, K2 32, T 2, 101 atoms), {} threads, {kernel}",
        arguments.threads
    );
    println!(
        "{:<14} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}  ms",
        "", "samples", "min", "p50", "p90", "p99", "max"
    );
    let results = CASES
        .iter()
        .map(|(name, observation, action)| case(arguments, name, *observation, *action))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if arguments.json {
        let headline = &results[0];
        let mut object = json!({ "bench": "update", "kernel": kernel, "results": results });
        object["update_p50_ms"] = headline["p50_ms"].clone();
        object["update_min_ms"] = headline["min_ms"].clone();
        println!("{object}");
    }
    Ok(())
}

fn case(arguments: &Arguments, name: &str, observation: usize, action: usize) -> anyhow::Result<Value> {
    // HalfCheetah is trained with the mean of both critics.
    let clipped_double_q = name != "halfcheetah";
    let config = LearnerConfig {
        clipped_double_q,
        threads: arguments.threads,
        ..LearnerConfig::paper(observation, action)
    };
    let batch = random_batch(config.batch_size, observation, action);
    let mut learner = MfpoLearner::new(config, 0, &Device::Cpu)?;
    let mut times = Vec::with_capacity(arguments.samples);
    for i in 0..arguments.warm_up + arguments.samples {
        let start = Instant::now();
        learner.update(&batch)?;
        if i >= arguments.warm_up {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        times
            .get(((times.len() as f64 * share) as usize).min(times.len() - 1))
            .copied()
    };
    let [min, p50, p90, p99, max] = [0.0, 0.5, 0.9, 0.99, 1.0].map(at);
    let row = [min, p50, p90, p99, max].map(|v| v.map_or_else(String::new, |v| format!("{v:9.2}")));
    println!("{name:<14} {:>8} {}", times.len(), row.join(" "));
    let value = |v: Option<f64>| v.context("no sample: --samples must be 1 or more");
    Ok(json!({
        "case": name, "samples": times.len(), "min_ms": value(min)?, "p50_ms": value(p50)?, "p90_ms": value(p90)?,
        "p99_ms": value(p99)?, "max_ms": value(max)?,
    }))
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
