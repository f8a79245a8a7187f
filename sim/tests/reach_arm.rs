//! `reach_arm`: whoever knows the arm brings its tip to every goal, and whoever does not look at the goal fails.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use mfpo_sim::env::evaluation_seed;
use mfpo_sim::{EnvOptions, FullState, registry};

const LINKS: (f64, f64) = (0.3, 0.25);
const STARTS: u64 = 100;

/// Velocities towards the joint angles that bring the tip to the goal.
fn knowing(observation: &[f32]) -> [f32; 2] {
    let value = |k: usize| f64::from(observation[k]);
    let now = [value(0).atan2(value(1)), value(2).atan2(value(3))];
    let goal = [value(6) / 3.0, value(7) / 3.0];
    let square = goal[0] * goal[0] + goal[1] * goal[1];
    let bend = (square - LINKS.0 * LINKS.0 - LINKS.1 * LINKS.1) / (2.0 * LINKS.0 * LINKS.1);
    let elbow = bend.clamp(-1.0, 1.0).acos().copysign(now[1]);
    let shoulder = goal[1].atan2(goal[0]) - (LINKS.1 * elbow.sin()).atan2(LINKS.0 + LINKS.1 * elbow.cos());
    [shoulder, elbow]
        .into_iter()
        .zip(now)
        .map(|(wanted, now)| {
            let error = (wanted - now + PI).rem_euclid(2.0 * PI) - PI;
            (3.0 * error).clamp(-1.0, 1.0) as f32
        })
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

/// Share of successful episodes.
fn successes(policy: impl Fn(&[f32]) -> [f32; 2]) -> f64 {
    let mut env = registry::make("reach_arm", &EnvOptions::default()).unwrap();
    let succeeded = (0..STARTS).filter(|k| {
        let mut observation = env.reset(evaluation_seed(0, *k)).unwrap();
        loop {
            let step = env.step(&policy(&observation)).unwrap();
            assert!((0.0..=1.0).contains(&step.reward));
            observation = step.observation;
            if let Some(success) = step.info.success {
                return success;
            }
        }
    });
    succeeded.count() as f64 / STARTS as f64
}

#[test]
fn a_controller_that_knows_the_arm_reaches_every_goal() {
    let share = successes(knowing);
    println!("success {share}");
    assert!(share >= 0.99, "{share}");
}

#[test]
fn who_does_not_look_at_the_goal_fails() {
    let blind = |observation: &[f32]| {
        let mut elsewhere = observation.to_vec();
        elsewhere[6] = 0.8;
        elsewhere[7] = 0.0;
        knowing(&elsewhere)
    };
    let still = successes(|_| [0.0, 0.0]);
    let blind = successes(blind);
    println!("standing still {still}, always to the same place {blind}");
    assert!(still < 0.1 && blind < 0.1, "{still} {blind}");
}

#[test]
fn a_rollout_has_the_goal_that_its_state_gives() {
    let with = |name: &str, values: &[f64]| FullState {
        model: BTreeMap::from([(name.to_owned(), values.to_vec())]),
        ..FullState::default()
    };
    let mut arm = registry::rollout("reach_arm", &EnvOptions::evaluate()).unwrap();
    arm.begin(&with("goal", &[0.2, -0.1, 0.1]), 3).unwrap();
    for (seen, expected) in arm.observation()[6..8].iter().zip([0.6, -0.3]) {
        assert!((seen - expected).abs() < 1e-6, "{seen}, expected {expected}");
    }
    for (state, expected) in [
        (with("goal", &[0.2, -0.1]), "3 finite numbers"),
        (with("goal", &[0.2, f64::NAN, 0.1]), "3 finite numbers"),
        // Finite, but not as a component of an observation.
        (
            with("goal", &[0.2, 1e300, 0.1]),
            "component 7 of the observation is inf",
        ),
        (with("target", &[0.2, -0.1, 0.1]), "'goal', its x, y and z"),
    ] {
        let text = arm.begin(&state, 3).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    let mut without = registry::rollout("swing_arm", &EnvOptions::evaluate()).unwrap();
    let text = without
        .begin(&with("goal", &[0.0; 3]), 3)
        .unwrap_err()
        .to_string();
    assert!(text.contains("keeps nothing in the model"), "{text}");
}
