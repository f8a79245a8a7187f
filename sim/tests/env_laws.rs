//! Every task against every law.

use mfpo_sim::env::evaluation_seed;
use mfpo_sim::{Env, EnvOptions, FullState, Mode, Randomization, SimError, registry};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Every task in every mode, with every randomisation that changes something.
fn all_environments() -> Vec<Box<dyn Env>> {
    let mut environments = Vec::new();
    for name in registry::names() {
        let robot = registry::robot(name).is_ok();
        // The modes and the noise on sensors belong to robots; a benchmark has one start and no units.
        let modes = if robot {
            &[Mode::Train, Mode::Evaluate][..]
        } else {
            &[Mode::Train]
        };
        let randomizations = if robot {
            vec![
                Randomization::none(),
                Randomization::default(),
                Randomization::small(),
            ]
        } else {
            let differing = Randomization {
                position_noise: 0.0,
                velocity_noise: 0.0,
                action_delay_max: Some(0.1),
                ..Randomization::small()
            };
            vec![Randomization::none(), differing]
        };
        for (mode, randomization) in modes
            .iter()
            .flat_map(|m| randomizations.iter().map(move |r| (*m, r)))
        {
            let options = EnvOptions {
                mode,
                randomization: randomization.clone(),
                max_episode_steps: (!robot).then_some(BENCHMARK_STEPS),
                ..EnvOptions::default()
            };
            environments.push(registry::make(name, &options).unwrap());
        }
    }
    assert!(environments.len() > registry::names().len());
    environments
}

/// Steps of a benchmark's episode here: the laws are the same for a thousand, which the comparison with the originals
/// takes.
const BENCHMARK_STEPS: usize = 60;

/// An episode of random actions: every observation and reward, in order.
fn random_episode(env: &mut dyn Env, seed: u64) -> Vec<(Vec<f32>, f64)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xac71);
    let mut episode = vec![(env.reset(seed).unwrap(), 0.0)];
    loop {
        let action: Vec<f32> = (0..env.spec().action_size)
            .map(|_| rng.random_range(-1.0..=1.0))
            .collect();
        let step = env.step(&action).unwrap();
        let ended = step.terminated || step.truncated;
        let defined = env.spec().success_threshold.is_some();
        assert_eq!(step.info.success.is_some(), ended && defined);
        episode.push((step.observation, step.reward));
        if step.terminated || step.truncated {
            return episode;
        }
    }
}

#[test]
fn deterministic_under_a_seed() {
    for mut env in all_environments() {
        let first = random_episode(env.as_mut(), 11);
        // Another episode in between must leave no trace.
        random_episode(env.as_mut(), 12);
        assert_eq!(first, random_episode(env.as_mut(), 11), "{}", env.spec().name);
    }
}

#[test]
fn random_starts_differ() {
    for mut env in all_environments() {
        let starts: Vec<Vec<f32>> = (0..20)
            .map(|k| env.reset(evaluation_seed(1, k)).unwrap())
            .collect();
        for (k, start) in starts.iter().enumerate() {
            assert!(!starts[..k].contains(start), "{}", env.spec().name);
        }
    }
}

#[test]
fn reward_in_range() {
    for mut env in all_environments() {
        let (lowest, highest) = env.spec().reward_range;
        for seed in 0..5 {
            for (_, reward) in random_episode(env.as_mut(), seed) {
                assert!((lowest..=highest).contains(&reward), "{reward}");
            }
        }
    }
}

/// For how many steps an action at the ends of its range is held; `None` for actions anywhere in it.
const HELD: [Option<usize>; 3] = [None, Some(1), Some(20)];
/// Steps of each of these, and what is missing to the end of an episode.
const WHOLE_STEPS: usize = 1000;
/// Rewards that are so many times larger are not all in a range that says something.
const ANOTHER_SCALE: f64 = 20.0;

/// The rewards of an episode of the task's own length.
fn rewards(env: &mut dyn Env, seed: u64, held: Option<usize>) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xac71);
    env.reset(seed).unwrap();
    let mut action = vec![0.0f32; env.spec().action_size];
    let mut rewards = Vec::new();
    loop {
        if rewards.len().is_multiple_of(held.unwrap_or(1)) {
            for component in &mut action {
                let anywhere: f32 = rng.random_range(-1.0..=1.0);
                *component = if held.is_some() {
                    anywhere.signum()
                } else {
                    anywhere
                };
            }
        }
        let step = env.step(&action).unwrap();
        rewards.push(step.reward);
        if step.terminated || step.truncated {
            return rewards;
        }
    }
}

/// The steps of [`HELD`] with a task as it is, unchanged.
fn rewards_of_whole_episodes(env: &mut dyn Env) -> Vec<f64> {
    let mut all = Vec::new();
    for held in HELD {
        let enough = all.len() + WHOLE_STEPS;
        for seed in 0.. {
            all.extend(rewards(env, seed, held));
            if all.len() >= enough {
                break;
            }
        }
    }
    all
}

#[test]
fn rewards_of_whole_episodes_are_in_a_range_that_says_something() {
    for name in registry::names() {
        let mut env = registry::make(name, &EnvOptions::default()).unwrap();
        let (lowest, highest) = env.spec().reward_range;
        let rewards = rewards_of_whole_episodes(env.as_mut());
        let least = rewards.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        println!("{name:<26} rewards from {least:.3} to {most:.3}, range {lowest:.3} to {highest:.3}");
        assert!(
            rewards.iter().all(|reward| (lowest..=highest).contains(reward)),
            "{name}: {least} to {most} is not in {lowest} to {highest}"
        );
        if !name.ends_with("-v5") {
            // Shares of what is wanted, and products and means of them.
            assert_eq!((lowest, highest), (0.0, 1.0), "{name}");
            continue;
        }
        assert!(lowest.is_finite() && highest.is_finite(), "{name}");
        assert!(
            ANOTHER_SCALE * least < lowest || ANOTHER_SCALE * most > highest,
            "{name}: {lowest} to {highest} is so wide that rewards {ANOTHER_SCALE} times as large as {least} to {most} fit in"
        );
    }
}

#[test]
fn a_range_of_rewards_has_room_for_the_cost_of_commands_that_are_scaled_up() {
    let options = EnvOptions {
        randomization: Randomization {
            effort: 0.5,
            ..Randomization::none()
        },
        ..EnvOptions::default()
    };
    let nominal = registry::make("Reacher-v5", &EnvOptions::default()).unwrap();
    let mut stronger = registry::make("Reacher-v5", &options).unwrap();
    let lowest = stronger.spec().reward_range.0;
    let rewards = rewards_of_whole_episodes(stronger.as_mut());
    let least = rewards.into_iter().fold(f64::INFINITY, f64::min);
    assert!(least < nominal.spec().reward_range.0, "{least}");
    assert!(lowest <= least, "{least} is below {lowest}");
}

#[test]
fn observations_finite() {
    for mut env in all_environments() {
        for seed in 0..5 {
            for (observation, _) in random_episode(env.as_mut(), seed) {
                assert_eq!(observation.len(), env.spec().observation_size);
                assert!(observation.iter().all(|o| o.is_finite()));
            }
        }
    }
}

#[test]
fn an_episode_lasts_as_long_as_its_spec_says() {
    for mut env in all_environments() {
        let steps = random_episode(env.as_mut(), 3).len() - 1;
        assert!(steps <= env.spec().max_episode_steps);
    }
    let options = EnvOptions {
        max_episode_steps: Some(9),
        ..EnvOptions::default()
    };
    let mut env = registry::make("swing_arm", &options).unwrap();
    assert_eq!(random_episode(env.as_mut(), 3).len() - 1, 9);
}

#[test]
fn what_a_policy_acts_on_is_valid_and_of_the_same_sizes() {
    for env in all_environments() {
        let (spec, subject) = (env.spec(), &env.spec().subject);
        subject.validate().unwrap();
        assert_eq!(subject.observation_size(), spec.observation_size);
        assert_eq!(subject.action_size(), spec.action_size);
        assert_eq!(subject.name(), spec.name);
        assert_eq!(subject.robot().is_some(), spec.success_threshold.is_some());
    }
}

#[test]
fn step_after_end_is_an_error() {
    for mut env in all_environments() {
        let action = vec![0.0; env.spec().action_size];
        assert!(matches!(env.step(&action), Err(SimError::NotReset)));
        let steps = random_episode(env.as_mut(), 5).len() - 1;
        match env.step(&action) {
            Err(SimError::EpisodeOver { steps: told }) => assert_eq!(told, steps),
            other => panic!("expected EpisodeOver, got {other:?}"),
        }
        env.reset(6).unwrap();
        env.step(&action).unwrap();
    }
}

#[test]
fn a_wrong_action_is_refused_with_expected_and_got_and_changes_nothing() {
    for mut env in all_environments() {
        let size = env.spec().action_size;
        let undisturbed = random_episode(env.as_mut(), 8);
        env.reset(8).unwrap();
        let message = env.step(&vec![0.0; size + 2]).unwrap_err().to_string();
        assert!(message.contains(&format!("{} components", size + 2)), "{message}");
        assert!(message.contains(&format!("expected {size}")), "{message}");
        for bad in [f32::NAN, f32::INFINITY] {
            let mut action = vec![0.0; size];
            action[size - 1] = bad;
            let message = env.step(&action).unwrap_err().to_string();
            assert!(message.contains("finite"), "{message}");
        }
        let mut rng = ChaCha8Rng::seed_from_u64(8 ^ 0xac71);
        let action: Vec<f32> = (0..size).map(|_| rng.random_range(-1.0..=1.0)).collect();
        assert_eq!(env.step(&action).unwrap().reward, undisturbed[1].1);
    }
}

#[test]
fn actions_beyond_the_range_act_like_the_end_of_the_range() {
    for mut env in all_environments() {
        let size = env.spec().action_size;
        env.reset(4).unwrap();
        let clipped = env.step(&vec![1.0; size]).unwrap();
        env.reset(4).unwrap();
        assert_eq!(env.step(&vec![17.0; size]).unwrap(), clipped);
    }
}

#[test]
fn unknown_task_names_the_closest() {
    let Err(error) = registry::make("swing_arn", &EnvOptions::default()) else {
        panic!("'swing_arn' was accepted");
    };
    let message = error.to_string();
    assert!(message.contains("'swing_arn'"), "{message}");
    assert!(message.contains("did you mean 'swing_arm'?"), "{message}");
}

#[test]
fn an_option_outside_its_range_is_refused() {
    let options = EnvOptions {
        max_episode_steps: Some(0),
        ..EnvOptions::default()
    };
    assert!(registry::make("swing_arm", &options).is_err());
    let options = EnvOptions {
        randomization: Randomization {
            action_delay_max: Some(-1.0),
            ..Randomization::default()
        },
        ..EnvOptions::default()
    };
    let Err(error) = registry::make("swing_arm", &options) else {
        panic!("a negative delay was accepted");
    };
    assert!(error.to_string().contains("action_delay_max"), "{error}");
}

/// A benchmark task whose actions take effect up to `seconds` late; `None` leaves that to the task.
fn delayed(task: &str, seconds: Option<f64>) -> Result<Box<dyn Env>, SimError> {
    let options = EnvOptions {
        randomization: Randomization {
            action_delay_max: seconds,
            ..Randomization::default()
        },
        ..EnvOptions::default()
    };
    registry::make(task, &options)
}

#[test]
fn a_delay_acts_on_a_benchmark_where_it_is_asked_for_and_only_there() {
    let episodes = |seconds| -> Vec<_> {
        let mut env = delayed("Hopper-v5", seconds).unwrap();
        (0..8).map(|seed| random_episode(env.as_mut(), seed)).collect()
    };
    let own = episodes(None);
    assert_eq!(own, episodes(Some(0.0)));
    // One control period, and what a robot has without being asked.
    assert_ne!(own, episodes(Some(0.008)));
}

#[test]
fn a_delay_that_a_benchmark_would_round_to_none_is_refused() {
    let Err(error) = delayed("HalfCheetah-v5", Some(0.02)) else {
        panic!("a delay of 0 control periods was accepted");
    };
    let message = error.to_string();
    assert!(
        message.contains("'action_delay_max' is 0.02 s") && message.contains("0 control periods of 0.05 s"),
        "{message}"
    );
    assert!(delayed("HalfCheetah-v5", Some(0.03)).is_ok());
    // A robot's delay is a number of physics steps.
    assert!(delayed("swing_arm", Some(0.001)).is_ok());
}

#[test]
fn physics_that_diverges_is_an_error_of_a_robot_and_of_the_suite_and_seen_in_gymnasium() {
    let mut robot = registry::make("swing_arm", &EnvOptions::default()).unwrap();
    robot.reset(3).unwrap();
    robot.physics().qvel_mut()[0] = f64::NAN;
    assert!(matches!(robot.step(&[0.0]), Err(SimError::Unstable { .. })));
    robot.reset(3).unwrap();
    robot.step(&[0.0]).unwrap();

    let mut hopper = registry::make("Hopper-v5", &EnvOptions::default()).unwrap();
    for velocity in [1e11, f64::NAN] {
        hopper.reset(3).unwrap();
        assert!(!hopper.physics().has_diverged());
        hopper.physics().qvel_mut()[0] = velocity;
        // MuJoCo hides it: the state is finite again.
        let step = hopper.step(&[0.0; 3]).unwrap();
        assert!(step.observation.iter().all(|o| o.is_finite()));
        assert!(hopper.physics().has_diverged());
    }

    let mut walker = registry::make("walker-walk", &EnvOptions::default()).unwrap();
    for velocity in [1e11, f64::NAN] {
        walker.reset(3).unwrap();
        walker.step(&[0.0; 6]).unwrap();
        walker.physics().qvel_mut()[0] = velocity;
        let text = match walker.step(&[0.0; 6]) {
            Err(error @ SimError::Warned { step: 2, .. }) => error.to_string(),
            other => panic!("expected the warning of step 2, got {other:?}"),
        };
        assert!(
            text.contains("'walker-walk'") && text.contains("huge or not finite"),
            "{text}"
        );
        let after = walker.step(&[0.0; 6]);
        assert!(matches!(after, Err(SimError::EpisodeOver { .. })), "{after:?}");
    }
    walker.reset(3).unwrap();
    walker.step(&[0.0; 6]).unwrap();
}

#[test]
fn a_rollout_of_the_suite_ends_where_its_physics_diverges_and_one_of_gymnasium_goes_on() {
    for (name, stops) in [("walker-walk", true), ("Hopper-v5", false)] {
        let mut rollout = registry::rollout(name, &EnvOptions::default()).unwrap();
        rollout.begin(&FullState::default(), 3).unwrap();
        let mut qvel = rollout.qvel().to_vec();
        qvel[0] = 1e11;
        let state = FullState {
            qvel: Some(qvel),
            ..FullState::default()
        };
        rollout.begin(&state, 3).unwrap();
        let env = registry::make(name, &EnvOptions::default()).unwrap();
        let action = vec![0.0; env.spec().action_size];
        let outcome = rollout.apply(&action);
        assert_eq!(
            matches!(outcome, Err(SimError::Warned { step: 1, .. })),
            stops,
            "{outcome:?}"
        );
        assert_eq!(outcome.is_ok(), !stops, "{outcome:?}");
    }
}

#[test]
fn an_environment_step_is_cheap() {
    const STEPS: u32 = 10_000;
    let mut env = registry::make("swing_arm", &EnvOptions::default()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    env.reset(0).unwrap();
    let began = std::time::Instant::now();
    for k in 1..=STEPS {
        let step = env.step(&[rng.random_range(-1.0..=1.0)]).unwrap();
        if step.truncated {
            env.reset(u64::from(k)).unwrap();
        }
    }
    let step = began.elapsed() / STEPS;
    println!("swing_arm: {step:?} a step of 20 physics steps");
    // A few tens of microseconds on a free core; the bound leaves room for a busy machine.
    assert!(step.as_micros() < 500, "{step:?}");
}

#[test]
fn a_rollout_is_the_environments_own_episode() {
    for name in registry::names()
        .into_iter()
        .filter(|name| registry::robot(name).is_err())
    {
        let mut env = registry::make(name, &EnvOptions::default()).unwrap();
        let mut rollout = registry::rollout(name, &EnvOptions::default()).unwrap();
        let ranges = registry::benchmark(name, &EnvOptions::default()).unwrap();
        let ranges = ranges.physics.actuator_ctrlrange().to_vec();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let observation = env.reset(3).unwrap();
        rollout.begin(&FullState::default(), 3).unwrap();
        assert_eq!(observation, rounded(rollout.observation()), "{name}");
        for _ in 0..BENCHMARK_STEPS {
            let action: Vec<f32> = ranges.iter().map(|_| rng.random_range(-1.0..=1.0)).collect();
            let scaled = action.iter().zip(&ranges);
            let scaled =
                scaled.map(|(a, [low, high])| 0.5 * (low + high) + 0.5 * (high - low) * f64::from(*a));
            let step = env.step(&action).unwrap();
            let outcome = rollout.apply(&scaled.collect::<Vec<f64>>()).unwrap();
            assert_eq!(step.observation, rounded(rollout.observation()), "{name}");
            assert_eq!(
                (step.reward, step.terminated),
                (outcome.reward, outcome.terminated),
                "{name}"
            );
            assert_eq!(step.truncated, outcome.truncated, "{name}");
            if step.terminated || step.truncated {
                break;
            }
        }
    }
}

#[test]
fn a_rollout_counts_the_steps_that_its_state_has_behind_it() {
    for name in ["swing_arm", "pendulum-swingup", "Reacher-v5"] {
        let env = registry::make(name, &EnvOptions::default()).unwrap();
        let state = FullState {
            steps: Some(env.spec().max_episode_steps as u32 - 2),
            ..FullState::default()
        };
        let mut rollout = registry::rollout(name, &EnvOptions::default()).unwrap();
        rollout.begin(&state, 3).unwrap();
        let action = vec![0.0; env.spec().action_size];
        let ends = [(); 3].map(|()| rollout.apply(&action).unwrap().truncated);
        assert_eq!(ends, [false, true, true], "{name}");
        // As if it had none.
        rollout.begin(&FullState::default(), 3).unwrap();
        assert!(!rollout.apply(&action).unwrap().truncated, "{name}");
    }
}

/// A start with one model value.
fn with_value(name: &str, values: &[f64]) -> FullState {
    FullState {
        model: [(name.to_owned(), values.to_vec())].into(),
        ..FullState::default()
    }
}

#[test]
fn a_rollout_takes_each_model_value_that_the_task_has_and_names_them_where_it_is_told_another() {
    let mut having = Vec::new();
    for name in registry::names() {
        let mut rollout = registry::rollout(name, &EnvOptions::default()).unwrap();
        let values: Vec<(&str, Vec<f64>)> = match registry::benchmark(name, &EnvOptions::default()) {
            Ok(benchmark) => benchmark.task.model_values(&benchmark.physics),
            Err(_) if registry::robot(name).unwrap().spec().observes_goal() => {
                vec![("goal", vec![0.3, 0.1, 0.1])]
            }
            Err(_) => Vec::new(),
        };
        for (value, numbers) in &values {
            rollout.begin(&with_value(value, numbers), 3).unwrap();
            let longer = [&numbers[..], &[0.0]].concat();
            let text = rollout
                .begin(&with_value(value, &longer), 3)
                .unwrap_err()
                .to_string();
            assert!(text.contains(&format!("{} ", numbers.len())), "{name}: {text}");
        }
        for told in ["targets", "target"] {
            if values.iter().any(|(value, _)| *value == told) {
                continue;
            }
            let text = rollout
                .begin(&with_value(told, &[0.0; 2]), 3)
                .unwrap_err()
                .to_string();
            let known = values
                .iter()
                .all(|(value, _)| text.contains(&format!("'{value}'")));
            let nothing = text.contains("the task keeps nothing in the model");
            assert!(
                text.contains(&format!("'{told}'")) && known && nothing == values.is_empty(),
                "{name}: {text}"
            );
        }
        having.extend((!values.is_empty()).then_some(name));
    }
    assert_eq!(
        having,
        [
            "reach_arm",
            "finger-turn_easy",
            "finger-turn_hard",
            "fish-swim",
            "manipulator-bring_ball",
            "reacher-easy",
            "reacher-hard",
            "swimmer-swimmer15",
            "swimmer-swimmer6",
        ],
        "README.md lists these"
    );
}

fn rounded(observation: &[f64]) -> Vec<f32> {
    observation.iter().map(|o| *o as f32).collect()
}
