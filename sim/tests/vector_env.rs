//! Laws of environments that step side by side.

use mfpo_policy::gradient::Team;
use mfpo_sim::{EnvOptions, Step, VectorEnv, registry};

const TASKS: [&str; 3] = ["Hopper-v5", "reacher-easy", "swing_arm"];

fn vector(task: &str, count: usize, threads: usize) -> VectorEnv {
    let envs = (0..count).map(|_| registry::make(task, &EnvOptions::train()).unwrap());
    VectorEnv::new(envs.collect(), Team::new(threads).unwrap()).unwrap()
}

/// An action that differs between environments and steps.
fn action(size: usize, env: usize, step: usize) -> Vec<f32> {
    let number = |i: usize| ((env * 7 + step * 3 + i) as f32 * 0.61).sin();
    (0..size).map(number).collect()
}

/// 80 steps of each environment; one that ends starts again with a seed of its own.
fn rollout(task: &str, count: usize, threads: usize) -> Vec<Vec<Step>> {
    let mut envs = vector(task, count, threads);
    for i in 0..count {
        envs.reset(i, 100 + i as u64).unwrap();
    }
    let size = envs.spec().action_size;
    let mut told = Vec::new();
    for step in 0..80 {
        let actions: Vec<_> = (0..count).map(|i| action(size, i, step)).collect();
        let steps = envs.step(&actions).unwrap();
        for (i, one) in steps.iter().enumerate() {
            if one.terminated || one.truncated {
                envs.reset(i, (1_000 * step + i) as u64).unwrap();
            }
        }
        told.push(steps);
    }
    told
}

#[test]
fn threads_and_neighbours_do_not_change_a_bit() {
    for task in TASKS {
        let alone = rollout(task, 5, 1);
        for threads in [2, 3, 8] {
            assert_eq!(alone, rollout(task, 5, threads), "{task} on {threads} threads");
        }
        let one: Vec<_> = rollout(task, 1, 1);
        let first: Vec<_> = alone.iter().map(|steps| vec![steps[0].clone()]).collect();
        assert_eq!(one, first, "{task}: the first of five is the only one of one");
    }
}

#[test]
fn what_cannot_be_stepped_is_refused() {
    assert!(VectorEnv::new(Vec::new(), Team::default()).is_err());
    let mixed = ["Hopper-v5", "swing_arm"].map(|task| registry::make(task, &EnvOptions::train()).unwrap());
    assert!(VectorEnv::new(mixed.into(), Team::default()).is_err());
    let mut envs = vector("swing_arm", 2, 2);
    let text = envs.step(&[vec![0.0]]).unwrap_err().to_string();
    assert!(text.contains("one for each environment"), "{text}");
    envs.reset(0, 1).unwrap();
    assert!(
        envs.step(&[vec![0.0], vec![0.0]]).is_err(),
        "the second was not reset"
    );
}
