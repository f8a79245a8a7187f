//! `bench inference`: one action for one observation, at HalfCheetah's size and the paper's networks, T = 2.
//!
//! The fused kernel against candle on the same weights and noise, warm (calls in a row) and cold (one call every
//! 10 ms, as a controller at 100 Hz makes it), one candidate and the best of ten by two critics.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use clap::Parser;
use mfpo_policy::critic::{Critic, ValueSupport};
use mfpo_policy::kernel::InstructionSet;
use mfpo_policy::mean_flow::MeanFlow;
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::sampler::{self, ActionSampler, PolicyNetworks};
use serde_json::{Value, json};

const OBSERVATION: usize = 17;
const ACTION: usize = 6;
const STEPS: usize = 2;

/// Times the sampling of one action.
#[derive(Debug, Parser)]
#[command(name = "inference", version)]
struct Arguments {
    /// Timed calls of each case (warm).
    #[arg(long, default_value_t = 20_000)]
    samples: usize,
    /// Timed calls of each case (cold, 10 ms apart).
    #[arg(long, default_value_t = 300)]
    cold_samples: usize,
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
            eprintln!("bench inference: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn networks() -> Result<PolicyNetworks, Failure> {
    let (hidden, device) = ([256; 3], Device::Cpu);
    let support = ValueSupport {
        minimum: -1600.0,
        maximum: 1600.0,
        atoms: 101,
    };
    let critic = |seed| -> Result<Critic, Failure> {
        let p = Critic::initialize(seed, (OBSERVATION, ACTION, support.atoms), &hidden, &device)?;
        Ok(Critic::load(&p, support)?)
    };
    let actor = MeanFlow::initialize(0, (OBSERVATION, ACTION, ACTION), &hidden, &device)?;
    Ok(PolicyNetworks {
        actor: MeanFlow::load(&actor, ACTION)?,
        critics: Some([critic(1)?, critic(2)?]),
        clipped_double_q: true,
        steps: STEPS,
        normalizer: None,
    })
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let kernel = InstructionSet::detect().name();
    println!(
        "one action, 3x256 networks, observation {OBSERVATION}, action {ACTION}, T = {STEPS}, 1 thread, {kernel}"
    );
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>8} {:>8}  us",
        "", "samples", "p50", "p99", "p99.9", "max"
    );
    let networks = networks()?;
    let mut fast = ActionSampler::new(&networks, &Device::Cpu)?;
    let mut noise = NormalNoise::new(0);
    let (mut observation, mut draws, mut action) =
        ([0.0f32; OBSERVATION], [0.0f32; 10 * ACTION], [0.0f32; ACTION]);
    noise.fill(&mut observation);
    noise.fill(&mut draws);
    let mut one = || {
        drop(black_box(fast.sample_into(
            &observation,
            &draws[..ACTION],
            1,
            &mut action,
        )))
    };
    let mut results = vec![
        measure("fused, 1 candidate", arguments.samples, Duration::ZERO, &mut one),
        measure(
            "fused, 1 candidate, cold",
            arguments.cold_samples,
            Duration::from_millis(10),
            &mut one,
        ),
    ];
    let mut ten = || drop(black_box(fast.sample_into(&observation, &draws, 10, &mut action)));
    results.push(measure(
        "fused, best of 10",
        arguments.samples / 10,
        Duration::ZERO,
        &mut ten,
    ));
    results.push(measure(
        "fused, best of 10, cold",
        arguments.cold_samples,
        Duration::from_millis(10),
        &mut ten,
    ));
    let rows = Tensor::from_slice(&observation, (1, OBSERVATION), &Device::Cpu)?;
    let start = Tensor::from_slice(&draws[..ACTION], (1, ACTION), &Device::Cpu)?;
    let mut candle = || drop(black_box(sampler::sample(&networks.actor, &rows, &start, STEPS)));
    results.push(measure(
        "candle, 1 candidate",
        arguments.samples / 10,
        Duration::ZERO,
        &mut candle,
    ));
    let ratio = |i: usize| results[i]["p50_us"].as_f64().unwrap_or(0.0);
    println!("candle / fused, p50: {:.1}", ratio(4) / ratio(0));
    if arguments.json {
        let (p50, p99) = (results[0]["p50_us"].clone(), results[0]["p99_us"].clone());
        let best = results[2]["p50_us"].clone();
        let object = json!({
            "bench": "inference", "kernel": kernel, "inference_p50_us": p50, "inference_p99_us": p99,
            "best_of_10_p50_us": best, "candle_over_fused_p50": ratio(4) / ratio(0), "results": results,
        });
        println!("{object}");
    }
    Ok(())
}

fn measure(name: &str, samples: usize, pause: Duration, call: &mut dyn FnMut()) -> Value {
    let samples = samples.max(10);
    let mut times = Vec::with_capacity(samples);
    call();
    for _ in 0..samples {
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((samples as f64 * share) as usize).min(samples - 1)];
    let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(at);
    println!("{name:<34} {samples:>8} {p50:>8.1} {p99:>8.1} {p999:>8.1} {max:>8.1}");
    json!({ "case": name, "samples": samples, "p50_us": p50, "p99_us": p99, "p999_us": p999, "max_us": max })
}
