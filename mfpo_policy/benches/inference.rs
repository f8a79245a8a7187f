//! `bench inference`: one action for one observation, at HalfCheetah's size and the paper's networks, T = 2.
//!
//! The fused kernel against candle on the same weights and noise, warm (calls in a row) and cold (one call every
//! 10 ms, as a controller at 100 Hz makes it, with the machine idle and while a trainer uses all cores), one candidate and the
//! best of ten by two critics. With `--device cuda` candle on an NVIDIA GPU takes the place of the kernel; a call ends when
//! the action is in the host's memory.

#[path = "inference/trainer.rs"]
mod trainer;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use clap::Parser;
use mfpo_policy::critic::{Critic, ValueSupport};
use mfpo_policy::device::{self, DeviceName};
use mfpo_policy::mean_flow::MeanFlow;
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::parameters::Parameters;
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
    let mut results = vec![
        measure(
            &format!("{ours}, 1 candidate"),
            arguments.samples,
            Duration::ZERO,
            &mut one,
        ),
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
    let peers = match &arguments.peers {
        Some(python) => peers(
            python,
            &networks,
            (&observation, &draws[..ACTION]),
            arguments.samples,
        )?,
        None => BTreeMap::new(),
    };
    for (name, told) in &peers {
        match told["p50_us"].as_f64() {
            Some(p50) => println!(
                "{:<34} {:>8} {p50:>8.1} {:>8.1}   {:.1} times ours",
                format!("{name} {}", told["version"].as_str().unwrap_or_default()),
                arguments.samples / 10,
                told["p99_us"].as_f64().unwrap_or_default(),
                p50 / ratio(0)
            ),
            None => println!(
                "{name:<34} not installed: {}",
                told["missing"].as_str().unwrap_or_default()
            ),
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

/// The peers on the same weights, observation and noise; what each says of itself, by name.
fn peers(
    python: &Path,
    networks: &PolicyNetworks,
    (observation, noise): (&[f32], &[f32]),
    samples: usize,
) -> Result<BTreeMap<String, Value>, Failure> {
    let mut action = [0.0f32; ACTION];
    ActionSampler::new(networks, networks.actor.trunk.head.bias.device())?.sample_into(
        observation,
        noise,
        1,
        &mut action,
    )?;
    let device = Device::Cpu;
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in actor_parameters()?.iter() {
        tensors.insert(name.clone(), tensor.clone());
    }
    let given: [(&str, &[f32]); 4] = [
        ("observation", observation),
        ("noise", noise),
        ("action", &action),
        ("steps", &[STEPS as f32]),
    ];
    for (name, values) in given {
        tensors.insert(
            name.to_owned(),
            Tensor::from_slice(values, values.len(), &device)?,
        );
    }
    let file = std::env::temp_dir().join(format!("mfpo-inference-{}.safetensors", std::process::id()));
    candle_core::safetensors::save(&tensors.into_iter().collect(), &file)?;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/peers/inference.py");
    let told = Command::new(python)
        .env_remove("PYTHONPATH")
        .arg(program)
        .arg(&file)
        .arg((samples / 10).to_string())
        .stderr(std::process::Stdio::inherit())
        .output();
    std::fs::remove_file(&file)?;
    let told = told?;
    if !told.status.success() {
        return Err("a peer failed; what it said is above".into());
    }
    let mut peers = BTreeMap::new();
    for line in String::from_utf8(told.stdout)?.lines() {
        let value: Value = serde_json::from_str(line)?;
        peers.insert(value["peer"].as_str().unwrap_or_default().to_owned(), value);
    }
    Ok(peers)
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
