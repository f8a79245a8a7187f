//! SAC's mathematics against numbers of another implementation: `golden.py` beside this file made `golden.json` with JAX
//! in double precision, on the CPU or on the GPU that MFPO_TEST_DEVICE names. And whole trainings with it.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use mfpo_policy::device::DeviceName;
use mfpo_policy::parameters::Parameters;
use mfpo_train::algorithm::Algorithm;
use mfpo_train::config::TrainConfig;
use mfpo_train::learner::Trace;
use mfpo_train::publish::{BundleSink, SealedBundle};
use mfpo_train::replay_buffer::Batch;
use mfpo_train::sac::{SacConfig, SacLearner};
use mfpo_train::train::{Options, Outcome, train};
use serde_json::Value;

#[path = "../training/mod.rs"]
mod training;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

/// Where the updates are computed.
fn device() -> Device {
    let name = std::env::var("MFPO_TEST_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    let device = name.parse::<DeviceName>().and_then(DeviceName::open);
    device.unwrap_or_else(|error| panic!("MFPO_TEST_DEVICE: {error}"))
}

fn numbers(value: &Value) -> Vec<f32> {
    let all = value.as_array().expect("a list of numbers");
    all.iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn sizes(file: &Value) -> [usize; 4] {
    let sizes = numbers(&file["sizes"]);
    std::array::from_fn(|i| sizes[i] as usize)
}

fn network(values: &Value, (input, hidden, output): (usize, usize, usize)) -> Parameters {
    let widths = [input, hidden, hidden, output];
    let mut tensors = BTreeMap::new();
    for (name, value) in values.as_object().unwrap() {
        let layer = usize::from(name.as_bytes()["Dense_".len()] - b'0');
        let shape = if name.ends_with("kernel") {
            vec![widths[layer], widths[layer + 1]]
        } else {
            vec![widths[layer + 1]]
        };
        let tensor = Tensor::from_vec(numbers(value), shape, &Device::Cpu).unwrap();
        tensors.insert(name.clone(), tensor);
    }
    Parameters::new(tensors)
}

fn learner(file: &Value, update_to_data: usize) -> SacLearner {
    let [s, a, b, h] = sizes(file);
    let number = |name: &str| numbers(&file["settings"][name])[0];
    let config = SacConfig {
        observation_size: s,
        action_size: a,
        hidden_sizes: vec![h; 2],
        batch_size: b,
        discount: number("discount").into(),
        tau: number("tau").into(),
        learning_rate: number("learning_rate").into(),
        initial_temperature: number("initial_temperature").into(),
        target_entropy_per_dim: number("target_entropy_per_dim").into(),
        update_to_data,
    };
    let initial = &file["initial"];
    let critic = |name: &str| network(&initial[name], (s + a, h, 1));
    let critics = [critic("critic_1"), critic("critic_2")];
    let actor = network(&initial["actor"], (s, h, 2 * a));
    SacLearner::with_parameters(config, actor, critics, 0, &device()).unwrap()
}

fn batch(file: &Value, update: usize) -> Batch {
    let [s, a, b, _] = sizes(file);
    let part = |name: &str| numbers(&file["updates"][update]["batch"][name]);
    Batch {
        size: b,
        observation_size: s,
        action_size: a,
        observations: part("observations"),
        actions: part("actions"),
        rewards: part("rewards"),
        masks: part("masks"),
        next_observations: part("next_observations"),
    }
}

/// One update with the noise of the file.
fn update(
    learner: &mut SacLearner,
    file: &Value,
    index: usize,
    trace: &mut Trace,
) -> Vec<(&'static str, f64)> {
    let recorded = &file["updates"][index]["batch"];
    let mut noise = [
        numbers(&recorded["next_noise"]),
        numbers(&recorded["actor_noise"]),
    ]
    .into_iter();
    let mut draw = |out: &mut [f32]| out.copy_from_slice(&noise.next().unwrap());
    learner
        .update_with(&batch(file, index), &mut draw, trace)
        .unwrap()
        .0
}

/// The largest difference, as a share of the largest expected number (or of 1e-3).
fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
    let differences = got.iter().zip(want).map(|(g, w)| (g - w).abs() / largest);
    differences.fold(0.0, f32::max)
}

#[test]
fn two_updates_equal_those_of_another_implementation() {
    let file = golden();
    let mut learner = learner(&file, 1);
    let (mut compared, mut worst) = (0, 0.0f32);
    let mut compare = |name: &str, got: &[f32], want: &Value| {
        let difference = difference(got, &numbers(want));
        assert!(
            difference < 1e-4,
            "{name} differs by {difference}: {got:?} {want}"
        );
        worst = worst.max(difference);
        compared += got.len();
    };
    for index in 0..2 {
        let mut trace = Trace::on();
        let told = update(&mut learner, &file, index, &mut trace);
        let expected = &file["updates"][index];
        for (name, want) in expected["metrics"].as_object().unwrap() {
            let got = told.iter().find(|(known, _)| known == name).unwrap().1;
            compare(name, &[got as f32], want);
        }
        compare("target", trace.get("target").unwrap(), &expected["target"]);
        for (network, gradients) in expected["gradients"].as_object().unwrap() {
            for (parameter, want) in gradients.as_object().unwrap() {
                let name = format!("grad/{network}/{parameter}");
                compare(&name, trace.get(&name).unwrap(), want);
            }
        }
    }
    for (network, parameters) in learner.parameters() {
        for (name, tensor) in parameters.iter() {
            let got: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            compare(&format!("{network}/{name}"), &got, &file["final"][network][name]);
        }
    }
    println!(
        "{compared} numbers compared; the largest difference is {worst:.1e} of a tensor's largest number"
    );
    assert!(compared > 1_400, "{compared}");
}

#[test]
fn more_updates_to_data_repeat_the_critics_only() {
    let file = golden();
    let [_, a, b, _] = sizes(&file);
    let mut twice = learner(&file, 2);
    assert_eq!(twice.rows_per_update(), 2 * b);
    let (first, second) = (batch(&file, 0), batch(&file, 1));
    let mut both = first.clone();
    both.size = 2 * b;
    both.observations.extend(&second.observations);
    both.actions.extend(&second.actions);
    both.rewards.extend(&second.rewards);
    both.masks.extend(&second.masks);
    both.next_observations.extend(&second.next_observations);
    let mut asked = Vec::new();
    let mut draw = |out: &mut [f32]| {
        asked.push(out.len());
        out.fill(0.1);
    };
    twice.update_with(&both, &mut draw, &mut Trace::off()).unwrap();
    assert_eq!(
        asked,
        [b * a; 3],
        "noise for two critic updates and one of the policy"
    );
    // The policy moves by one step of Adam, at most the learning rate; a critic that moved twice goes beyond it.
    let moved = |name: &str| {
        let all = twice.parameters();
        let (_, parameters) = all.iter().find(|(known, _)| *known == name).unwrap();
        let of = |parameter: &str, tensor: &Tensor| {
            let now: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            let before = numbers(&file["initial"][name][parameter]);
            now.iter()
                .zip(&before)
                .map(|(n, b)| (n - b).abs())
                .fold(0.0, f32::max)
        };
        parameters.iter().map(|(n, t)| of(n, t)).fold(0.0, f32::max)
    };
    let rate = numbers(&file["settings"]["learning_rate"])[0];
    assert!(moved("actor") < 1.001 * rate, "{}", moved("actor"));
    assert!(moved("critic_1") > 1.5 * rate, "{}", moved("critic_1"));
}

/// A training of SAC on `swing_arm`.
fn options(folder: &Path, seed: u64, overrides: &[&str]) -> Options {
    let overrides: Vec<String> = ["run.algorithm=sac"]
        .iter()
        .chain(overrides)
        .map(|text| (*text).to_owned())
        .collect();
    let config = TrainConfig::load("swing_arm", None, &overrides).unwrap();
    training::options("swing_arm", config, seed, folder)
}

fn run(folder: &Path, seed: u64, overrides: &[&str]) -> Outcome {
    train(options(folder, seed, overrides)).unwrap()
}

#[test]
fn a_run_of_sac_leaves_metrics_a_curve_and_its_policy_and_no_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let short = ["run.steps=150", "run.random_steps=100", "evaluation.episodes=2"];
    let outcome = run(folder.path(), 0, &short);
    assert_eq!((outcome.updates, outcome.bundle), (50, None));
    let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let update = text.lines().find(|line| line.contains("\"update\"")).unwrap();
    let update: Value = serde_json::from_str(update).unwrap();
    assert!(update["critic_loss_1"].is_f64() && update["entropy"].is_f64());
    assert!(folder.path().join("curve.png").exists());
    let config = std::fs::read_to_string(folder.path().join("config.toml")).unwrap();
    assert!(config.contains("algorithm = \"sac\""), "{config}");
    for name in ["best", "last"] {
        assert!(!folder.path().join(format!("{name}.safetensors")).exists());
        assert!(folder.path().join(format!("{name}.sac.safetensors")).exists());
    }
    assert_eq!(outcome.policy, Some(folder.path().join("last.sac.safetensors")));
}

/// Must never get a bundle.
struct NoBundle;

impl BundleSink for NoBundle {
    fn publish(&mut self, _: &SealedBundle, _file: &std::path::Path) -> anyhow::Result<()> {
        unreachable!("SAC has no bundle")
    }
}

#[test]
fn publishing_is_refused_before_the_run_begins() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path(), 0, &[]);
    options.sink = Some(Box::new(NoBundle));
    let text = train(options).unwrap_err().to_string();
    assert!(text.contains("MeanFlow policy; use --algorithm mfpo"), "{text}");
    assert!(!folder.path().join("metrics.jsonl").exists());
}

/// An untrained arm hangs and earns about 2; one that swings up and holds earns about 70.
const LEARNT: f64 = 30.0;

#[test]
fn sac_learns_to_swing_up_over_three_seeds() {
    let returns = (0..3).map(|seed| {
        let folder = tempfile::tempdir().unwrap();
        let outcome = run(folder.path(), seed, &["run.steps=5000", "evaluation.every=5000"]);
        println!(
            "seed {seed}: return {:.1}, {:.1} s",
            outcome.evaluation.mean_return, outcome.seconds
        );
        outcome.evaluation.mean_return
    });
    let mean = returns.sum::<f64>() / 3.0;
    assert!(mean >= LEARNT, "mean return {mean:.1}; expected {LEARNT} or more");
}
