//! `bench inference`: one action for one observation, at HalfCheetah's size and the paper's networks, T = 2.
//!
//! The fused kernel against candle on the same weights and noise, warm (calls in a row) and cold (one call every
//! 10 ms, as a controller at 100 Hz makes it, with the machine idle and while a trainer uses all cores), one candidate and the
//! best of ten by two critics. With `--peers` ONNX Runtime, JAX and PyTorch take turns with the warm kernel. With `--device cuda` candle on an NVIDIA GPU takes the place of the kernel; a call ends when
//! the action is in the host's memory.

#[path = "inference/peers.rs"]
mod peers;
#[path = "inference/trainer.rs"]
mod trainer;

use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use clap::Parser;
use mfpo_policy::critic::{Critic, ValueSupport};
use mfpo_policy::device::{self, DeviceName};
use mfpo_policy::mean_flow::MeanFlow;
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::parameters::Parameters;
use mfpo_policy::sampler::{self, ActionSampler, PolicyNetworks};
use peers::Peers;
use serde_json::{Value, json};

const OBSERVATION: usize = 17;
const ACTION: usize = 6;
const STEPS: usize = 2;
/// Turns of each side where peers are measured, too.
const TURNS: usize = 10;

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
    /// Where the networks run: cpu, cuda or cuda:N.
    #[arg(long, default_value_t)]
    device: DeviceName,
    /// Python that runs the peers, as `cargo xtask bench inference --peers` installs it.
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

/// On the CPU.
fn actor_parameters() -> Result<Parameters, Failure> {
    Ok(MeanFlow::initialize(
        0,
        (OBSERVATION, ACTION, ACTION),
        &[256; 3],
        &Device::Cpu,
    )?)
}

fn networks(device: &Device) -> Result<PolicyNetworks, Failure> {
    let hidden = [256; 3];
    let support = ValueSupport {
        minimum: -1600.0,
        maximum: 1600.0,
        atoms: 101,
    };
    let critic = |seed| -> Result<Critic, Failure> {
        let p = Critic::initialize(seed, (OBSERVATION, ACTION, support.atoms), &hidden, device)?;
        Ok(Critic::load(&p, support)?)
    };
    let actor = actor_parameters()?.to_device(device)?;
    Ok(PolicyNetworks {
        actor: MeanFlow::load(&actor, ACTION)?,
        critics: Some([critic(1)?, critic(2)?]),
        clipped_double_q: true,
        steps: STEPS,
        normalizer: None,
    })
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let device = arguments.device.open()?;
    let kernel = device::describe(&device);
    let ours = if device.is_cpu() {
        "fused"
    } else {
        "sampler on the GPU"
    };
    println!(
        "one action, 3x256 networks, observation {OBSERVATION}, action {ACTION}, T = {STEPS}, 1 thread, {kernel}"
    );
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>8} {:>8}  us",
        "", "samples", "p50", "p99", "p99.9", "max"
    );
    let networks = networks(&device)?;
    let mut fast = ActionSampler::new(&networks, &device)?;
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
    let python = arguments.peers.as_deref();
    let mut peers = python
        .map(|python| Peers::start(python, &networks, (&observation, &draws[..ACTION])))
        .transpose()?;
    let warm = in_turns(arguments.samples, &mut one, peers.as_mut())?;
    let mut results = vec![
        row(&format!("{ours}, 1 candidate"), warm),
        measure(
            &format!("{ours}, 1 candidate, cold"),
            arguments.cold_samples,
            Duration::from_millis(10),
            &mut one,
        ),
    ];
    let mut ten = || drop(black_box(fast.sample_into(&observation, &draws, 10, &mut action)));
    results.push(measure(
        &format!("{ours}, best of 10"),
        arguments.samples / 10,
        Duration::ZERO,
        &mut ten,
    ));
    results.push(measure(
        &format!("{ours}, best of 10, cold"),
        arguments.cold_samples,
        Duration::from_millis(10),
        &mut ten,
    ));
    let rows = Tensor::from_slice(&observation, (1, OBSERVATION), &device)?;
    let start = Tensor::from_slice(&draws[..ACTION], (1, ACTION), &device)?;
    let mut candle = || {
        drop(black_box(sampler::sample(&networks.actor, &rows, &start, STEPS)));
        drop(black_box(device.synchronize()));
    };
    results.push(measure(
        "candle, 1 candidate",
        arguments.samples / 10,
        Duration::ZERO,
        &mut candle,
    ));
    results.extend(beside_a_trainer(
        &mut fast,
        (&observation, &draws),
        arguments.cold_samples,
    ));
    let ratio = |i: usize| results[i]["p50_us"].as_f64().unwrap_or(0.0);
    println!("candle / {ours}, p50: {:.1}", ratio(4) / ratio(0));
    let peers = peers.map(Peers::told).unwrap_or_default();
    for (name, told) in &peers {
        match told["p50_us"].as_f64() {
            Some(p50) => println!("{name}, p50: {p50:.1} us, {:.1} times ours", p50 / ratio(0)),
            None => println!("{name}: not measured: {}", told["missing"]),
        }
    }
    if arguments.json {
        let (p50, p99) = (results[0]["p50_us"].clone(), results[0]["p99_us"].clone());
        let best = results[2]["p50_us"].clone();
        let peer_p50 = |name: &str| peers.get(name).map_or(Value::Null, |told| told["p50_us"].clone());
        let object = json!({
            "bench": "inference", "device": arguments.device, "kernel": kernel, "inference_p50_us": p50, "inference_p99_us": p99,
            "best_of_10_p50_us": best, "candle_over_fused_p50": ratio(4) / ratio(0), "results": results, "p50_us": p50,
            "p99_us": p99, "onnxruntime_p50_us": peer_p50("onnxruntime"), "jax_p50_us": peer_p50("jax"),
            "torch_p50_us": peer_p50("torch"), "peers": peers,
        });
        println!("{object}");
    }
    Ok(())
}

/// One call every 10 ms while a trainer works on all cores; nothing where there is none.
fn beside_a_trainer(
    fast: &mut ActionSampler,
    (observation, draws): (&[f32], &[f32]),
    samples: usize,
) -> Vec<Value> {
    let _trainer = match trainer::Trainer::start() {
        Ok(trainer) => trainer,
        Err(reason) => {
            println!("no figures beside a trainer: {reason}");
            return Vec::new();
        }
    };
    let (pause, mut action) = (Duration::from_millis(10), [0.0f32; ACTION]);
    let cases = [
        ("fused, 1 candidate, trainer beside", 1),
        ("fused, best of 10, trainer beside", 10),
    ];
    let one = |(name, count): (&str, usize)| {
        let draws = &draws[..count * ACTION];
        let mut call = || {
            drop(black_box(fast.sample_into(
                observation,
                draws,
                count,
                &mut action,
            )))
        };
        measure(name, samples, pause, &mut call)
    };
    cases.map(one).into()
}

/// Times of ours, us; where there are peers, they take turns with it.
fn in_turns(
    samples: usize,
    call: &mut dyn FnMut(),
    mut peers: Option<&mut Peers>,
) -> Result<Vec<f64>, Failure> {
    let turns = if peers.is_some() { TURNS } else { 1 };
    let mut ours = Vec::with_capacity(samples);
    for _ in 0..turns {
        ours.extend(time(samples / turns, Duration::ZERO, call));
        if let Some(peers) = peers.as_deref_mut() {
            peers.take_turn(samples / turns / 10)?;
        }
    }
    Ok(ours)
}

fn measure(name: &str, samples: usize, pause: Duration, call: &mut dyn FnMut()) -> Value {
    row(name, time(samples, pause, call))
}

/// us a call.
fn time(samples: usize, pause: Duration, call: &mut dyn FnMut()) -> Vec<f64> {
    if pause.is_zero() {
        // Whoever ran before had the processor's caches.
        (0..50).for_each(|_| call());
    }
    let one = |_| {
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..samples.max(10)).map(one).collect()
}

fn row(name: &str, mut times: Vec<f64>) -> Value {
    let samples = times.len();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((samples as f64 * share) as usize).min(samples - 1)];
    let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(at);
    println!("{name:<34} {samples:>8} {p50:>8.1} {p99:>8.1} {p999:>8.1} {max:>8.1}");
    json!({ "case": name, "samples": samples, "p50_us": p50, "p99_us": p99, "p999_us": p999, "max_us": max })
}
