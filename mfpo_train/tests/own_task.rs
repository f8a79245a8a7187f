//! The README's task of one's own: it is the file in `examples/`, it obeys the laws of an environment, and it trains.

use mfpo_policy::bundle;
use mfpo_sim::physics::Physics;
use mfpo_sim::tasks::{Benchmark, BenchmarkTask};
use mfpo_sim::{EnvOptions, FullState, SimError, TaskOptions, registry};
use mfpo_train::config::TrainConfig;
use mfpo_train::train::train;
use rand_chacha::ChaCha8Rng;

#[path = "../examples/ball_on_beam.rs"]
#[allow(dead_code)]
mod ball_on_beam;
mod training;

#[test]
fn the_readme_shows_the_example_word_for_word() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(root).unwrap();
    let example = include_str!("../examples/ball_on_beam.rs");
    let (_, code) = example.split_once("use std::process").unwrap();
    assert!(
        readme.contains(&format!("use std::process{code}")),
        "README.md and examples/ball_on_beam.rs differ"
    );
}

#[test]
fn an_added_task_is_known_everywhere_and_repeats_under_a_seed() {
    registry::register("ball_on_beam", ball_on_beam::make);
    assert!(registry::names().contains(&"ball_on_beam"));
    let episode = |seed| {
        let mut env = registry::make("ball_on_beam", &EnvOptions::train()).unwrap();
        assert_eq!((env.spec().observation_size, env.spec().action_size), (4, 1));
        let mut told = vec![env.reset(seed).unwrap()];
        for step in 0..250 {
            let next = env.step(&[(0.3 * step as f32).sin()]).unwrap();
            assert!((0.0..=1.0).contains(&next.reward));
            assert_eq!(next.truncated, step == 249);
            told.push(next.observation);
        }
        told
    };
    assert_eq!(episode(3), episode(3));
    assert_ne!(episode(3), episode(4));
}

#[test]
fn an_added_task_trains_and_leaves_bundles_of_its_own() {
    registry::register("ball_on_beam", ball_on_beam::make);
    let folder = tempfile::tempdir().unwrap();
    let sets = [
        "run.steps=130",
        "run.random_steps=100",
        "run.report_every=1",
        "run.replay_capacity=200",
        "evaluation.episodes=1",
        "learner.hidden_sizes=[16, 16]",
        "learner.batch_size=16",
    ];
    let config = TrainConfig::load("ball_on_beam", Some("swing_arm"), &sets.map(str::to_owned)).unwrap();
    let outcome = train(training::options("ball_on_beam", config, 3, folder.path())).unwrap();
    assert_eq!((outcome.steps, outcome.updates, outcome.version), (130, 30, 1));
    assert!((0.0..=250.0).contains(&outcome.evaluation.mean_return));

    let digest_of = |version: u64| {
        let path = folder.path().join(format!("bundles/v{version:06}.safetensors"));
        let bundle = bundle::open(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(bundle.manifest().subject.name(), "ball_on_beam");
        bundle.weights_digest().unwrap()
    };
    assert_ne!(digest_of(0), digest_of(1), "the updates change the policy");
    let metrics = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.matches("\"kind\":\"update\"").count(), 30, "{metrics}");
}

/// A beam whose motor is `motor`, or that has none.
fn with_motor(motor: &str, options: &TaskOptions) -> Result<Benchmark, SimError> {
    let model = format!(
        r#"<mujoco>
          <worldbody>
            <body>
              <joint name="tilt" axis="0 1 0"/>
              <geom type="box" size="0.5 0.05 0.01" mass="0.5"/>
              <body pos="0 0 0.05">
                <joint name="roll" type="slide" axis="1 0 0"/>
                <geom type="sphere" size="0.04" mass="0.1"/>
              </body>
            </body>
          </worldbody>
          <actuator>{motor}</actuator>
        </mujoco>"#
    );
    Ok(Benchmark {
        physics: Physics::from_xml(&model)?,
        ..ball_on_beam::make(options)?
    })
}

#[test]
fn a_task_whose_actions_would_do_nothing_is_refused() {
    registry::register("unlimited", |options| {
        with_motor(r#"<motor joint="tilt"/>"#, options)
    });
    registry::register("motorless", |options| with_motor("", options));
    for (task, got) in [
        ("unlimited", "(number 0, from 0) with the range 0 to 0"),
        ("motorless", "no actuator"),
    ] {
        let Err(error) = registry::make(task, &EnvOptions::train()) else {
            panic!("'{task}' was accepted");
        };
        let text = error.to_string();
        assert!(text.contains(task) && text.contains(got), "{text}");
        assert!(text.contains("a ctrlrange that rises"), "{text}");
    }
}

/// The example, with one thing wrong from the first step on, or with the time among what is observed.
struct Wrong(Box<dyn BenchmarkTask>, &'static str);

impl BenchmarkTask for Wrong {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        self.0.initialize_episode(physics, rng)
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        self.0.step(physics, action)
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        self.0.observe(physics, out);
        match self.1 {
            "longer" if physics.time() > 0.0 => out.push(0.0),
            "timed" => out.push(physics.time()),
            "damaged" if physics.time() > 0.0 => out[2] = f64::NAN,
            _ => {}
        }
    }

    fn reward(&mut self, physics: &Physics, action: &[f64]) -> f64 {
        match self.1 {
            "priceless" => f64::INFINITY,
            _ => self.0.reward(physics, action),
        }
    }

    fn terminated(&self, physics: &Physics) -> bool {
        self.0.terminated(physics)
    }
}

fn wrong(what: &'static str, options: &TaskOptions) -> Result<Benchmark, SimError> {
    let example = ball_on_beam::make(options)?;
    Ok(Benchmark {
        task: Box::new(Wrong(example.task, what)),
        ..example
    })
}

#[test]
fn a_rollout_begins_at_the_time_that_its_state_says() {
    registry::register("timed", |options| wrong("timed", options));
    let mut rollout = registry::rollout("timed", &EnvOptions::evaluate()).unwrap();
    let state = FullState {
        time: Some(2.5),
        ..FullState::default()
    };
    rollout.begin(&state, 3).unwrap();
    assert_eq!(rollout.observation()[4], 2.5);
    rollout.apply(&[0.0]).unwrap();
    assert!((rollout.observation()[4] - 2.52).abs() < 1e-9);
}

#[test]
fn what_a_task_must_not_tell_is_an_error_that_names_it() {
    registry::register("longer", |options| wrong("longer", options));
    registry::register("damaged", |options| wrong("damaged", options));
    registry::register("priceless", |options| wrong("priceless", options));
    for (task, expected) in [
        ("longer", "observation has 5 components; expected 4"),
        ("damaged", "component 2 of the observation is NaN"),
        ("priceless", "component 0 of the reward is inf"),
    ] {
        let mut env = registry::make(task, &EnvOptions::train()).unwrap();
        env.reset(3).unwrap();
        let text = env.step(&[0.0]).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
        let mut rollout = registry::rollout(task, &EnvOptions::train()).unwrap();
        rollout.begin(&FullState::default(), 3).unwrap();
        let text = rollout.apply(&[0.0]).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}
