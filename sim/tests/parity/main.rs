//! Every task of Gymnasium and of the DeepMind Control Suite against the real packages: from the same state, under the
//! same actions, observations, rewards, ends and contacts agree step by step - from random starts, and from the middle of an
//! episode, whose state ours takes over while the original goes on.
//!
//! Both sides run the same version of MuJoCo - where they do not, the comparison fails and says so (`reference.rs`) - so that
//! what is left is the order in which the tasks' own sums are taken: 1e-9 is asked for, and the printed worst differences are
//! of the order of 1e-14.

mod options;
mod reference;
mod starts;
mod touching;

use mfpo_sim::{EnvOptions, FullState, Rollout, TaskOptions, registry};
use reference::{Reference, Request, Trajectory};

/// Largest difference of an observation or a reward.
const TOLERANCE: f64 = 1e-9;
/// Seeds of the states of a task, and steps from each. Among the manipulator's the ball is in the hand, and at its target.
const SEEDS: [u64; 3] = [1, 9, 11];
const STEPS: usize = 1000;
/// The last seed's episode is longer by this, and from here on it is compared a second time, ours beginning in its middle.
const MIDDLE: usize = 300;
/// Steps that the original takes with one task.
const DRIVEN: usize = SEEDS.len() * STEPS + MIDDLE;
/// Tasks whose reward takes the position before a step from what MuJoCo derived before it last moved, one physics step ago. No
/// state holds that, so that their first reward after the middle is another.
const POSITION_OF_BEFORE: [&str; 2] = ["Ant-v5", "Humanoid-v5"];

/// Drives our task from `state`, as the original was driven from its step `first` on; returns the worst difference.
fn compare(
    (task, options): (&str, &TaskOptions),
    theirs: &Trajectory,
    state: &FullState,
    first: usize,
) -> f64 {
    let options = EnvOptions {
        task: options.clone(),
        ..EnvOptions::default()
    };
    let mut ours = registry::rollout(task, &options).unwrap();
    ours.begin(state, 0).unwrap();
    let mut worst = 0.0f64;
    if first == 0 {
        // Later the original's has readings in it that are older than its state.
        worst = difference(ours.observation(), &theirs.observations[0]);
        assert!(
            worst <= TOLERANCE,
            "{task}: the reset's observation differs by {worst:e}"
        );
    }
    for (step, action) in theirs.actions.iter().enumerate().skip(first) {
        let outcome = ours.apply(action).unwrap();
        let observation = difference(ours.observation(), &theirs.observations[step + 1]);
        let mut reward = (outcome.reward - theirs.rewards[step]).abs();
        if first > 0 && step == first && POSITION_OF_BEFORE.contains(&task) {
            reward = 0.0;
        }
        assert!(
            observation <= TOLERANCE,
            "{task}, step {step}: an observation differs by {observation:e}"
        );
        assert!(
            reward <= TOLERANCE,
            "{task}, step {step}: reward {} here, {} there",
            outcome.reward,
            theirs.rewards[step]
        );
        assert_eq!(
            (outcome.terminated, outcome.truncated),
            (theirs.terminated[step], theirs.truncated[step]),
            "{task}, step {step}: the end differs (terminated, truncated)"
        );
        assert_eq!(
            ours.contacts(),
            theirs.contacts[step],
            "{task}, step {step}: another number of contacts"
        );
        worst = worst.max(observation).max(reward);
    }
    worst.max(compare_ends(task, ours.as_ref(), theirs))
}

/// The states after the last step, which hold what no observation has, as how far a body has come.
fn compare_ends(task: &str, ours: &dyn Rollout, theirs: &Trajectory) -> f64 {
    let part = |here: &[f64], there: &Option<Vec<f64>>| {
        difference(here, there.as_deref().expect("a part of the original's state"))
    };
    let (qpos, qvel) = (
        part(ours.qpos(), &theirs.end.qpos),
        part(ours.qvel(), &theirs.end.qvel),
    );
    let state = qpos.max(qvel);
    assert!(state <= TOLERANCE, "{task}: the last state differs by {state:e}");
    state
}

/// In how many of the steps every command is at an end of its range or beyond it.
fn saturated((task, options): (&str, &TaskOptions), theirs: &Trajectory) -> usize {
    let options = EnvOptions {
        task: options.clone(),
        ..EnvOptions::default()
    };
    let benchmark = registry::benchmark(task, &options).unwrap();
    let ranges = benchmark.physics.actuator_ctrlrange();
    let is_saturated = |action: &&Vec<f64>| {
        let mut commands = action.iter().zip(ranges);
        commands.all(|(a, [low, high])| a <= low || a >= high)
    };
    theirs.actions.iter().filter(is_saturated).count()
}

fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "observations have other lengths");
    let distance = |(a, b): (&f64, &f64)| Some((a - b).abs()).filter(|d| !d.is_nan());
    // What is no number is as far as can be: `f64::max` would pass over it.
    let distances = a
        .iter()
        .zip(b)
        .map(|pair| distance(pair).unwrap_or(f64::INFINITY));
    distances.fold(0.0, f64::max)
}

/// What a comparison met, over all tasks.
#[derive(Default)]
struct Met {
    contacts: usize,
    ends: usize,
    cuts: usize,
}

/// Compares every task that `script` drives, each with the options that stand beside it.
fn compare_all(script: &str, tasks: &[(&str, TaskOptions)]) -> Met {
    let mut reference = Reference::start(script);
    println!("{}", reference.versions());
    let mut met = Met::default();
    for (task, options) in tasks {
        let (mut contacts, mut ends, mut cuts, mut worst) = (0, 0, 0, 0.0f64);
        let mut at_the_ends = 0;
        for seed in SEEDS {
            let middle = (seed == SEEDS[SEEDS.len() - 1]).then_some(MIDDLE);
            let theirs = reference.drive(&Request {
                task,
                seed,
                steps: STEPS + middle.unwrap_or(0),
                middle,
                options,
            });
            assert_eq!(theirs.rewards.len(), STEPS + middle.unwrap_or(0));
            worst = worst.max(compare((*task, options), &theirs, &theirs.start, 0));
            if let Some(middle) = middle {
                let state = theirs.middle.as_ref().expect("it was asked for");
                worst = worst.max(compare((*task, options), &theirs, state, middle));
            }
            at_the_ends += saturated((*task, options), &theirs);
            contacts += theirs.contacts.iter().filter(|count| **count > 0).count();
            ends += theirs.terminated.iter().filter(|end| **end).count();
            cuts += theirs.truncated.iter().filter(|cut| **cut).count();
        }
        println!(
            "{task:<26} {DRIVEN} steps compared, {contacts} with contact, {at_the_ends} with saturated actions, {ends} past an end, \
             {cuts} past the time limit, and {STEPS} from the middle of an episode, worst difference {worst:.1e}"
        );
        assert!(
            at_the_ends >= DRIVEN / 5,
            "{task}: {at_the_ends} of {DRIVEN} steps with saturated actions, expected a fifth or more"
        );
        touching::check(task, contacts);
        met.contacts += contacts;
        met.ends += ends;
        met.cuts += cuts;
    }
    met
}

/// All tasks of Gymnasium.
fn gymnasium() -> Vec<&'static str> {
    let mut tasks = registry::names();
    tasks.retain(|name| name.ends_with("-v5"));
    assert_eq!(tasks.len(), 11);
    tasks
}

/// All tasks of the DeepMind Control Suite.
fn control_suite() -> Vec<&'static str> {
    let mut tasks = registry::names();
    tasks.retain(|name| name.contains('-') && !name.ends_with("-v5"));
    assert_eq!(tasks.len(), 34);
    tasks
}

fn without_options(tasks: Vec<&str>) -> Vec<(&str, TaskOptions)> {
    tasks.into_iter().map(|task| (task, TaskOptions::new())).collect()
}

#[test]
fn every_gymnasium_task_is_the_original() {
    let met = compare_all("gymnasium_reference.py", &without_options(gymnasium()));
    assert!(
        met.contacts > 10_000 && met.ends > 1000 && met.cuts > 1000,
        "contacts and both kinds of ends are among what is compared"
    );
}

#[test]
fn every_gymnasium_task_is_the_original_with_every_option_changed() {
    let changed = options::changed();
    let tasks: Vec<&str> = changed.iter().map(|(task, _)| *task).collect();
    assert_eq!(tasks, gymnasium());
    let met = compare_all("gymnasium_reference.py", &changed);
    assert!(
        met.contacts > 5000 && met.ends > 1000,
        "contacts and ends are among what is compared"
    );
}

#[test]
fn every_gymnasium_task_is_the_original_with_every_flag_the_other_way() {
    let flipped = options::flipped();
    assert_eq!(flipped.len(), 7, "tasks that have flags");
    let met = compare_all("gymnasium_reference.py", &flipped);
    assert!(met.ends > 100, "the walker's falls are ends now");
}

#[test]
fn every_option_of_gymnasium_is_compared_with_a_value_that_is_not_its_default() {
    let mut reference = Reference::start("gymnasium_reference.py");
    let flipped = options::flipped();
    for (task, options) in options::changed() {
        let mut kept = reference.kept(task, &options);
        if let Some((_, options)) = flipped.iter().find(|(other, _)| *other == task) {
            let also = reference.kept(task, options);
            kept.retain(|name| also.contains(name));
        }
        assert!(
            kept.is_empty(),
            "{task}: {kept:?} are compared at their defaults only"
        );
    }
}

#[test]
fn every_task_of_the_control_suite_is_the_original() {
    let tasks = control_suite();
    let met = compare_all("dm_control_reference.py", &without_options(tasks.clone()));
    assert!(met.contacts > 5000, "contacts are among what is compared");
    assert_eq!(
        met.cuts,
        (SEEDS.len() + MIDDLE) * tasks.len(),
        "each ends with step {STEPS}, and the last seed's has {MIDDLE} more"
    );
}

#[test]
fn random_starts_of_gymnasium_are_distributed_as_the_originals() {
    starts::compare_all("gymnasium_reference.py", &gymnasium(), 1000);
}

#[test]
fn random_starts_of_the_control_suite_are_distributed_as_the_originals() {
    starts::compare_all("dm_control_reference.py", &control_suite(), 300);
}

/// A start of ours is one that the original could have drawn: it stays inside the bounds of its noise.
#[test]
fn random_starts_are_of_the_originals_distribution() {
    for (task, noise, normal_velocities) in [
        ("HalfCheetah-v5", 0.1, true),
        ("Ant-v5", 0.1, true),
        ("Hopper-v5", 5e-3, false),
        ("Humanoid-v5", 1e-2, false),
        ("InvertedPendulum-v5", 0.01, false),
    ] {
        let mut rollout = registry::rollout(task, &EnvOptions::default()).unwrap();
        let (mut positions, mut velocities) = (Vec::new(), Vec::new());
        for seed in 0..300 {
            rollout.begin(&FullState::default(), seed).unwrap();
            positions.push(rollout.qpos()[0]);
            velocities.push(rollout.qvel()[0]);
        }
        let (deviation, widest) = spread(&positions);
        assert!(
            widest < 1.2 * noise && (deviation / (noise / 3f64.sqrt()) - 1.0).abs() < 0.15,
            "{task}: {deviation}"
        );
        let (deviation, _) = spread(&velocities);
        let expected = if normal_velocities {
            noise
        } else {
            noise / 3f64.sqrt()
        };
        assert!(
            (deviation / expected - 1.0).abs() < 0.2,
            "{task}: velocities deviate by {deviation}"
        );
    }
}

/// Standard deviation, and the largest distance from the mean.
fn spread(all: &[f64]) -> (f64, f64) {
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let variance = all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / all.len() as f64;
    let widest = all.iter().map(|v| (v - mean).abs()).fold(0.0, f64::max);
    (variance.sqrt(), widest)
}

#[test]
fn options_change_what_they_say() {
    let observation_size = |task: &str, options: &str| {
        let options = EnvOptions {
            task: serde_json::from_str(options).unwrap(),
            ..EnvOptions::default()
        };
        registry::make(task, &options).map(|env| env.spec().observation_size)
    };
    assert_eq!(observation_size("Ant-v5", "{}").unwrap(), 105);
    assert_eq!(
        observation_size("Ant-v5", r#"{"include_cfrc_ext_in_observation": false}"#).unwrap(),
        27
    );
    assert_eq!(observation_size("Humanoid-v5", "{}").unwrap(), 348);
    assert_eq!(
        observation_size(
            "HalfCheetah-v5",
            r#"{"exclude_current_positions_from_observation": false}"#
        )
        .unwrap(),
        18
    );
    let text = observation_size("Hopper-v5", r#"{"healthy_range": [0, 1]}"#)
        .unwrap_err()
        .to_string();
    assert!(text.contains("did you mean 'healthy_"), "{text}");
    for frame_skip in ["0", "1001", "1000000000000000"] {
        let text = observation_size("Hopper-v5", &format!(r#"{{"frame_skip": {frame_skip}}}"#))
            .unwrap_err()
            .to_string();
        let words = format!("option 'frame_skip' is {frame_skip}; expected 1 to 1000 physics steps");
        assert!(text.contains(&words), "{text}");
    }
    assert!(observation_size("Hopper-v5", r#"{"frame_skip": 1000}"#).is_ok());
}
