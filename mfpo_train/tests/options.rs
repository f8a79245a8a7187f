//! Each option beside the paper's settings does what docs/options.md says, and nothing while it is off.

use std::path::Path;

use candle_core::Device;
use mfpo_policy::guard::{GuardManifest, InARow, Signal};
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::sampler::Depth;
use mfpo_train::algorithm::{self, Algorithm, TrainedPolicy};
use mfpo_train::checkpoint::Checkpoints;
use mfpo_train::config::TrainConfig;
use mfpo_train::learner::{LearnerConfig, MfpoLearner, RandomDraws, Trace};
use mfpo_train::replay_buffer::{Batch, ReplayBuffer, Transition};
use mfpo_train::train::{Outcome, train};

mod training;

const SIZES: (usize, usize) = (5, 2);

fn small() -> LearnerConfig {
    LearnerConfig {
        hidden_sizes: vec![16; 2],
        batch_size: 8,
        threads: 1,
        ..LearnerConfig::paper(SIZES.0, SIZES.1)
    }
}

fn batch(size: usize, phase: f32) -> Batch {
    let numbers = |count: usize, scale: f32| {
        let number = |i| scale * (i as f32 * 0.37 + phase).sin();
        (0..count).map(number).collect::<Vec<f32>>()
    };
    Batch {
        size,
        observation_size: SIZES.0,
        action_size: SIZES.1,
        observations: numbers(size * SIZES.0, 1.5),
        actions: numbers(size * SIZES.1, 0.9),
        rewards: numbers(size, 2.0),
        masks: vec![1.0; size],
        next_observations: numbers(size * SIZES.0, 1.4),
    }
}

fn joined(mut first: Batch, second: &Batch) -> Batch {
    first.size += second.size;
    first.observations.extend(&second.observations);
    first.actions.extend(&second.actions);
    first.rewards.extend(&second.rewards);
    first.masks.extend(&second.masks);
    first.next_observations.extend(&second.next_observations);
    first
}

/// How far the parameters of a network lie from those of a fresh learner of the same seed, at most.
fn moved(learner: &MfpoLearner, network: &str) -> f32 {
    let flat = |learner: &MfpoLearner| -> Vec<f32> {
        let all = learner.parameters();
        let (_, parameters) = all.iter().find(|(name, _)| *name == network).unwrap();
        let values = parameters.iter().flat_map(|(_, tensor)| {
            let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            values
        });
        values.collect()
    };
    let fresh = MfpoLearner::new(learner.config().clone(), 3, &Device::Cpu).unwrap();
    let pairs = flat(learner).into_iter().zip(flat(&fresh));
    pairs
        .map(|(now, before)| (now - before).abs())
        .fold(0.0, f32::max)
}

#[test]
fn more_updates_to_data_repeat_the_critics_only() {
    let config = LearnerConfig {
        update_to_data: 2,
        ..small()
    };
    let mut learner = MfpoLearner::new(config, 3, &Device::Cpu).unwrap();
    assert_eq!(learner.rows_per_update(), 16);
    let mut trace = Trace::on();
    let both = joined(batch(8, 0.0), &batch(8, 1.0));
    let mut draws = RandomDraws::new(1);
    learner.update_with(&both, &mut draws, &mut trace).unwrap();
    // Adam's first step is the learning rate at most; only what took a second one is beyond.
    let rate = 1.001 * learner.config().learning_rate as f32;
    assert!(moved(&learner, "actor") < rate && moved(&learner, "logp_mvel") < rate);
    assert!(moved(&learner, "critic_1") > 1.3 * rate && moved(&learner, "critic_2") > 1.3 * rate);
    // The policy learnt from one mini-batch, not from both.
    assert_eq!(
        trace.get("policy_logps").unwrap().len(),
        8 * learner.config().policy_candidates
    );
    let text = learner
        .update_with(&batch(9, 0.0), &mut draws, &mut trace)
        .unwrap_err();
    assert!(text.to_string().contains("rows"), "{text}");
}

#[test]
fn the_temperature_does_not_fall_below_its_minimum_and_may_rise_from_it() {
    // Adam moves the logarithm by the learning rate at each update, down while the entropy is above its target.
    let after = |updates: usize, temperature_min, target_entropy_per_dim| {
        let config = LearnerConfig {
            initial_temperature: 0.01,
            temperature_min,
            target_entropy_per_dim,
            learning_rate: 0.01,
            ..small()
        };
        let mut learner = MfpoLearner::new(config, 3, &Device::Cpu).unwrap();
        for _ in 0..updates {
            learner.update(&batch(8, 0.0)).unwrap();
        }
        learner.temperature()
    };
    assert!(after(20, 0.0, -50.0) < 0.0085);
    let least = after(20, 0.009, -50.0);
    assert!((least - 0.009).abs() < 1e-8, "{least}");
    assert!(after(20, 0.009, 50.0) > 0.0115);
}

#[test]
fn leave_one_out_gives_the_sample_that_made_the_point_no_weight() {
    let weights = |leave_one_out| {
        let config = LearnerConfig {
            leave_one_out,
            ..small()
        };
        let k = config.policy_candidates;
        let mut learner = MfpoLearner::new(config, 3, &Device::Cpu).unwrap();
        let mut trace = Trace::on();
        learner
            .update_with(&batch(8, 0.0), &mut RandomDraws::new(1), &mut trace)
            .unwrap();
        let all = trace.get("weight_policy").unwrap().to_vec();
        let first: f32 = all.iter().step_by(k).sum();
        (first, all.iter().sum::<f32>())
    };
    let ((with, total), (without, total_without)) = (weights(false), weights(true));
    assert!(with > 0.0 && without == 0.0, "{with} {without}");
    assert!((total - 8.0).abs() < 1e-4 && (total_without - 8.0).abs() < 1e-4);
}

#[test]
fn a_normalising_policy_is_the_plain_one_on_normalised_observations() {
    let mut config = TrainConfig::load("swing_arm", None, &[]).unwrap();
    config.set_sizes(SIZES.0, SIZES.1).unwrap();
    config.run.normalize_observations = true;
    let mut learner = algorithm::make(&config, 9).unwrap();
    let seen: Vec<Vec<f32>> = (0..50)
        .map(|i| {
            (0..SIZES.0)
                .map(|j| 100.0 * j as f32 + ((i * (j + 1)) as f32).sin())
                .collect()
        })
        .collect();
    for observation in &seen {
        let transition = Transition {
            observation,
            action: &[0.0; SIZES.1],
            reward: 0.0,
            terminated: false,
            next_observation: observation,
        };
        learner.observe(0, &transition, false);
    }
    let policy = |learner: &dyn Algorithm| match learner.policy().unwrap() {
        TrainedPolicy::MeanFlow(policy) => policy,
        TrainedPolicy::Gaussian(_) => panic!("MFPO's policy was asked for"),
    };
    let normalising = policy(learner.as_ref());
    let normalizer = normalising.normalizer.clone().expect("statistics");
    assert!((normalizer.mean[4] - 400.0).abs() < 0.5);
    let mut plain = normalising.clone();
    plain.normalizer = None;
    let act = |policy: &mfpo_train::algorithm::MeanFlowPolicy, observation: &[f32]| {
        let mut action = vec![0.0; SIZES.1];
        let mut sampler = policy.sampler().unwrap();
        sampler
            .sample_into(observation, &[0.3, -0.4], 1, &mut action)
            .unwrap();
        action
    };
    let mut normalised = seen[7].clone();
    normalizer.apply(&mut normalised);
    assert_eq!(act(&normalising, &seen[7]), act(&plain, &normalised));
    assert_ne!(act(&normalising, &seen[7]), act(&plain, &seen[7]));
}

fn run(folder: &Path, overrides: &[&str]) -> Outcome {
    let short = [
        "run.steps=130",
        "run.random_steps=100",
        "run.publish_every=20",
        "evaluation.every=1000",
        "evaluation.episodes=1",
        "learner.batch_size=16",
    ];
    let overrides: Vec<String> = short
        .iter()
        .chain(overrides)
        .map(|text| (*text).to_owned())
        .collect();
    let config = TrainConfig::load("swing_arm", None, &overrides).unwrap();
    train(training::options("swing_arm", config, 1, folder)).unwrap()
}

#[test]
fn every_option_runs_alone_and_all_run_together() {
    let options = [
        "run.normalize_observations=true",
        "learner.update_to_data=3",
        "learner.grid_time_share=0.1",
        "learner.leave_one_out=true",
        "learner.temperature_min=0.001",
        "learner.support_from_returns=true",
        "learner.sampling_steps=16",
        "environment.action_delay_max=0.02",
        "run.guard=true",
    ];
    let alone = options.map(|option| vec![option]);
    for overrides in alone.iter().chain([&options.to_vec()]) {
        let folder = tempfile::tempdir().unwrap();
        let outcome = run(folder.path(), overrides);
        assert_eq!(outcome.updates, 30, "{overrides:?}");
        let bundle = std::fs::read(outcome.bundle.unwrap()).unwrap();
        let bundle = mfpo_policy::bundle::open(&bundle).unwrap();
        let normalises = overrides.contains(&options[0]);
        assert_eq!(
            bundle.manifest().normalizer.is_some(),
            normalises,
            "{overrides:?}"
        );
        let is_guarded = overrides.contains(&"run.guard=true");
        assert_eq!(bundle.manifest().guard.is_some(), is_guarded, "{overrides:?}");
        let mut sampler = bundle.sampler(&Device::Cpu).unwrap();
        bundle.check_probes(&mut sampler).unwrap();
    }
}

/// Does the guard of the run's last bundle, or a stricter one, trip in what the run met last?
fn trips(folder: &Path, outcome: &Outcome, stricter: impl Fn(GuardManifest) -> GuardManifest) -> bool {
    let bundle = std::fs::read(outcome.bundle.as_ref().unwrap()).unwrap();
    let bundle = mfpo_policy::bundle::open(&bundle).unwrap();
    let guard = stricter(bundle.manifest().guard.unwrap());
    let mut sampler = bundle.sampler(&Device::Cpu).unwrap();
    let (header, mut state) = Checkpoints::new(folder).load().unwrap();
    let capacity = TrainConfig::parse(&header.config, &[])
        .unwrap()
        .run
        .replay_capacity;
    let (observation, action) = (sampler.observation_size(), sampler.action_size());
    let mut replay = ReplayBuffer::new(observation, action, capacity, 0);
    replay.restore(state.take_part("replay")).unwrap();
    let depth = Depth {
        steps: sampler.steps(),
        candidates: guard.candidates,
        in_stages: false,
    };
    let mut noise = NormalNoise::new(outcome.version);
    let mut draws = vec![0.0; guard.candidates * action];
    let mut best = vec![0.0; action];
    let (mut in_a_row, mut expected) = (InARow::new(), Vec::new());
    let mut is_tripped = false;
    for (index, met) in replay.latest(2_000).enumerate() {
        if met.observation != expected {
            in_a_row = InARow::new();
        }
        expected = met.next_observation.to_vec();
        noise.begin(index as u64);
        noise.fill(&mut draws);
        sampler
            .sample_at(met.observation, &draws, depth, &mut best)
            .unwrap();
        let signals = sampler.signals(&draws, depth, &guard).unwrap().unwrap();
        is_tripped |= in_a_row.count(&guard, &signals).is_some();
    }
    is_tripped
}

#[test]
fn the_guard_of_a_bundle_is_not_tripped_by_what_the_run_met_last_and_any_stricter_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path(), &["run.guard=true"]);
    assert!(!trips(folder.path(), &outcome, |guard| guard));
    for signal in Signal::ALL {
        let stricter = |guard: GuardManifest| {
            let severity = signal.severity(guard.limit(signal).unwrap());
            guard.with_limit(signal, signal.severity(severity - 2e-4))
        };
        assert!(trips(folder.path(), &outcome, stricter), "{signal:?}");
    }
    let untrained = std::fs::read(folder.path().join("bundles/v000000.safetensors")).unwrap();
    let untrained = mfpo_policy::bundle::open(&untrained).unwrap();
    assert_eq!(untrained.manifest().guard, None, "the run has met nothing yet");
}

#[test]
fn an_option_that_is_off_leaves_the_run_as_it_is() {
    let metrics = |overrides: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), overrides);
        let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        let timeless = text.lines().map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["seconds"] = 0.into();
            line
        });
        timeless.collect::<Vec<_>>()
    };
    let off = [
        "run.normalize_observations=false",
        "run.guard=false",
        "learner.update_to_data=1",
        "learner.grid_time_share=0.0",
        "learner.leave_one_out=false",
        "learner.temperature_min=0.0",
        "learner.support_from_returns=false",
    ];
    assert_eq!(metrics(&[]), metrics(&off));
    // Its randomness is its own.
    assert_eq!(metrics(&[]), metrics(&["run.guard=true"]));
    for on in ["learner.grid_time_share=0.1", "learner.leave_one_out=true"] {
        assert_ne!(metrics(&[]), metrics(&[on]), "{on}");
    }
}

#[test]
fn the_support_from_returns_holds_the_returns_and_goes_into_the_bundle() {
    let folder = tempfile::tempdir().unwrap();
    // One whole episode before the first update.
    let overrides = [
        "learner.support_from_returns=true",
        "run.random_steps=600",
        "run.steps=650",
    ];
    let outcome = run(folder.path(), &overrides);
    let bundle = std::fs::read(outcome.bundle.unwrap()).unwrap();
    let bundle = mfpo_policy::bundle::open(&bundle).unwrap();
    let support = bundle.manifest().critics.as_ref().unwrap().support;
    // Rewards are in [0, 1] and the discount is 0.98: a random policy earns little, and no return reaches 50.
    assert!(support.minimum < 0.0 && support.minimum > -40.0, "{support:?}");
    assert!(
        support.maximum > 0.0 && support.maximum < 90.0 && support.maximum != 40.0,
        "{support:?}"
    );
    let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert!(text.contains("\"value_max\""));
}

#[test]
fn options_of_the_task_reach_the_task() {
    let config = |set: &str| {
        let sets = [
            "run.steps=101",
            "run.random_steps=100",
            "evaluation.episodes=1",
            "learner.batch_size=8",
            set,
        ];
        let sets: Vec<String> = sets.iter().map(|text| (*text).to_owned()).collect();
        TrainConfig::load("InvertedPendulum-v5", None, &sets).unwrap()
    };
    assert_eq!(config("task.frame_skip=4").task["frame_skip"], 4);
    let folder = tempfile::tempdir().unwrap();
    let run = |task: &str, set: &str, name: &str| {
        train(training::options(task, config(set), 1, &folder.path().join(name)))
    };
    let text = run("InvertedPendulum-v5", "task.frame_skp=4", "a")
        .unwrap_err()
        .to_string();
    assert!(text.contains("did you mean 'frame_skip'?"), "{text}");
    let text = run("swing_arm", "task.frame_skip=4", "b")
        .unwrap_err()
        .to_string();
    assert!(text.contains("no option 'frame_skip'"), "{text}");
    let length = |set, name| {
        run("InvertedPendulum-v5", set, name)
            .unwrap()
            .evaluation
            .mean_length
    };
    // The untrained policy falls after about as much time, which is a fifth of the steps.
    assert!(length("task.frame_skip=20", "c") < 0.5 * length("task.frame_skip=2", "d"));
}
