//! Random starts of ours and of the original, drawn from generators of their own, come from one distribution: no
//! component's two-sample Kolmogorov-Smirnov statistic is one that happens once in a million times.

use mfpo_sim::{EnvOptions, registry};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::reference::Reference;

/// `sqrt(-ln(p / 2) / 2)` for p = 1e-6; times `sqrt(2 / n)` it is the largest statistic that is accepted.
const CRITICAL: f64 = 2.69;
/// Closer values count as equal: what both sides search for, or set, differs in its last digits.
const EQUAL: f64 = 1e-7;

/// `count` starts of every task.
pub fn compare_all(script: &str, tasks: &[&str], count: usize) {
    let mut reference = Reference::start(script);
    let largest = CRITICAL * (2.0 / count as f64).sqrt();
    for task in tasks {
        let (theirs, ours) = (reference.starts(task, count), ours(task, count));
        let size = theirs[0].len();
        assert_eq!(size, ours[0].len(), "{task}");
        let column = |starts: &[Vec<f64>], i: usize| starts.iter().map(|start| start[i]).collect();
        let statistics = (0..size).map(|i| statistic(column(&theirs, i), column(&ours, i)));
        let (component, worst) = statistics.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        println!(
            "{task:<26} {count} starts, {size} components, largest statistic {worst:.3} of {largest:.3}"
        );
        assert!(
            worst < largest,
            "{task}: component {component} of (qpos, qvel, model values) starts otherwise: statistic {worst:.3}"
        );
    }
}

/// Positions, velocities, and what the task keeps in the model.
fn ours(task: &str, count: usize) -> Vec<Vec<f64>> {
    let mut benchmark = registry::benchmark(task, &EnvOptions::default()).unwrap();
    let physics = &mut benchmark.physics;
    let start = |seed| {
        physics.reset();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        benchmark.task.initialize_episode(physics, &mut rng).unwrap();
        let kept = benchmark.task.model_values(physics);
        let mut start = [physics.qpos(), physics.qvel()].concat();
        start.extend(kept.into_iter().flat_map(|(_, values)| values));
        start
    };
    (0..count as u64).map(start).collect()
}

/// Largest distance of the two distribution functions.
fn statistic(mut a: Vec<f64>, mut b: Vec<f64>) -> f64 {
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let below =
        |sorted: &[f64], x: f64| sorted.partition_point(|v| *v <= x + EQUAL) as f64 / sorted.len() as f64;
    let points = a.iter().chain(&b);
    points
        .map(|x| (below(&a, *x) - below(&b, *x)).abs())
        .fold(0.0, f64::max)
}
