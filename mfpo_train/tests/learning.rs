//! Whole trainings on the real task: environment, replay buffer, learner, bundle, evaluation.

use std::path::Path;

use mfpo_train::config::TrainConfig;
use mfpo_train::train::{Outcome, train};

mod training;

/// A training on `swing_arm` into `folder`; `change` edits the configuration.
fn run(folder: &Path, seed: u64, change: impl Fn(&mut TrainConfig)) -> Outcome {
    let mut config = TrainConfig::load("swing_arm", None, &[]).unwrap();
    change(&mut config);
    train(training::options("swing_arm", config, seed, folder)).unwrap()
}

/// A training that ends before it has begun well.
fn tiny(config: &mut TrainConfig) {
    config.run.steps = 150;
    config.run.random_steps = 100;
    config.run.publish_every = 20;
    config.run.report_every = 10;
    config.evaluation.every = 1_000;
    config.evaluation.episodes = 2;
    config.learner.batch_size = 16;
}

fn lines(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Without the time, which differs between two runs.
fn timeless(folder: &Path) -> Vec<serde_json::Value> {
    let mut all = lines(folder);
    all.iter_mut().for_each(|line| line["seconds"] = 0.into());
    all
}

#[test]
fn a_run_leaves_configuration_metrics_curve_and_rising_bundles() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path(), 0, tiny);
    assert_eq!(
        (outcome.steps, outcome.updates, outcome.interrupted),
        (150, 50, false)
    );
    // Untrained, then after steps 120 and 140, then the last.
    assert_eq!(outcome.version, 3);
    for version in 0..=outcome.version {
        let path = folder.path().join(format!("bundles/v{version:06}.safetensors"));
        let bundle = mfpo_policy::bundle::open(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(
            (bundle.manifest().version, &bundle.manifest().run),
            (version, &outcome.run)
        );
        let mut sampler = bundle.sampler(&candle_core::Device::Cpu).unwrap();
        bundle.check_probes(&mut sampler).unwrap();
    }
    let last = folder.path().join("bundles/v000003.safetensors");
    assert_eq!(
        std::fs::read(outcome.bundle.as_ref().unwrap()).unwrap(),
        std::fs::read(last).unwrap()
    );
    let kinds = |kind: &str| {
        lines(folder.path())
            .iter()
            .filter(|line| line["kind"] == kind)
            .count()
    };
    assert_eq!(
        (kinds("update"), kinds("episode"), kinds("evaluation")),
        (5, 1, 2)
    );
    assert!(folder.path().join("curve.png").exists());
    let config = folder.path().join("config.toml");
    let resolved = TrainConfig::load("swing_arm", config.to_str(), &[]).unwrap();
    assert_eq!((resolved.run.steps, resolved.learner.observation_size), (150, 4));
}

#[test]
fn the_seed_fixes_the_whole_run() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    for (folder, seed) in folders.iter().zip([7, 7, 8]) {
        run(folder.path(), seed, tiny);
    }
    let [one, again, other] = folders.each_ref().map(|folder| timeless(folder.path()));
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[test]
fn a_folder_that_holds_a_run_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 0, tiny);
    let before = std::fs::read(folder.path().join("metrics.jsonl")).unwrap();
    let again = std::panic::catch_unwind(|| run(folder.path(), 0, tiny));
    assert!(again.is_err());
    assert_eq!(
        std::fs::read(folder.path().join("metrics.jsonl")).unwrap(),
        before
    );
}

#[test]
fn the_papers_configuration_learns_and_measures_first_at_step_10_000() {
    let folder = tempfile::tempdir().unwrap();
    // One step more than that, because a run measures its last policy anyhow.
    let short = [
        "run.steps=10001",
        "learner.hidden_sizes=[16, 16]",
        "learner.batch_size=16",
    ];
    let task = "InvertedPendulum-v5";
    let config = TrainConfig::load(task, Some("paper"), &short.map(str::to_owned)).unwrap();
    let outcome = train(training::options(task, config, 0, folder.path())).unwrap();
    assert_eq!((outcome.steps, outcome.updates), (10_001, 2));
    let steps = |kind: &str| -> Vec<u64> {
        let lines = lines(folder.path());
        let of_kind = lines.iter().filter(|line| line["kind"] == kind);
        of_kind.map(|line| line["step"].as_u64().unwrap()).collect()
    };
    assert_eq!(steps("update"), [10_000]);
    assert_eq!(steps("evaluation"), [0, 10_000, 10_001]);
    // Untrained, then after each of the two.
    assert_eq!(outcome.version, 2);
}

/// Mean return over three seeds of a short training, with the sign of the actor's loss as it is or flipped.
fn mean_return_of_three_seeds(flip_actor_loss_sign: bool) -> f64 {
    let short = |config: &mut TrainConfig| {
        config.run.steps = SHORT;
        config.evaluation.every = SHORT;
        config.learner.flip_actor_loss_sign = flip_actor_loss_sign;
    };
    let returns = (0..3).map(|seed| {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), seed, short).evaluation.mean_return
    });
    returns.sum::<f64>() / 3.0
}

/// Steps of a short training.
const SHORT: u64 = 3_500;

/// An untrained arm hangs and earns about 2; one that swings up and holds earns about 70.
const LEARNT: f64 = 30.0;

#[test]
fn short_training_learns_over_three_seeds() {
    let mean = mean_return_of_three_seeds(false);
    assert!(mean >= LEARNT, "mean return {mean:.1}; expected {LEARNT} or more");
}

#[test]
fn short_training_does_not_learn_when_the_sign_of_the_actor_loss_is_flipped() {
    let mean = mean_return_of_three_seeds(true);
    assert!(
        mean < LEARNT,
        "mean return {mean:.1} without a working actor; expected less than {LEARNT}"
    );
}
