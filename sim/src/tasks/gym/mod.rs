//! The eleven MuJoCo tasks of Gymnasium, version 5, with their options. One task a file, in the order: options with the
//! original's defaults, factory, task. Models are Gymnasium's own files, which the set-up brings.

mod ant;
mod half_cheetah;
mod hopper;
mod humanoid;
mod humanoid_standup;
mod inverted_double_pendulum;
mod inverted_pendulum;
mod pusher;
mod reacher;
mod rewards;
mod swimmer;
mod walker2d;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::benchmark::{Benchmark, BenchmarkTask};
use super::models;
use crate::physics::Physics;
use crate::{SimError, TaskOptions};
use rewards::Range;

/// Makes a task from its options.
pub(crate) type Factory = fn(&TaskOptions) -> Result<Benchmark, SimError>;

/// All tasks by name.
pub(crate) const TASKS: [(&str, Factory); 11] = [
    ("Ant-v5", ant::make),
    ("HalfCheetah-v5", half_cheetah::make),
    ("Hopper-v5", hopper::make),
    ("Humanoid-v5", humanoid::make),
    ("HumanoidStandup-v5", humanoid_standup::make),
    ("InvertedDoublePendulum-v5", inverted_double_pendulum::make),
    ("InvertedPendulum-v5", inverted_pendulum::make),
    ("Pusher-v5", pusher::make),
    ("Reacher-v5", reacher::make),
    ("Swimmer-v5", swimmer::make),
    ("Walker2d-v5", walker2d::make),
];

/// More physics steps in a control period are a slip of the keyboard, and a single step would seem to hang: at least 2 s.
const MOST_FRAME_SKIP: usize = 1_000;

/// A task that knows the bounds of its reward.
trait Bounded: BenchmarkTask {
    /// Lowest and highest reward of a step whose commands are within their ranges.
    fn reward_range(&self, physics: &Physics) -> Range;
}

/// A model of Gymnasium's, and a task over it.
fn benchmark<T: Bounded + 'static>(
    file: &str,
    (frame_skip, episode_steps): (usize, usize),
    task: impl FnOnce(&Physics) -> Result<T, SimError>,
) -> Result<Benchmark, SimError> {
    if !(1..=MOST_FRAME_SKIP).contains(&frame_skip) {
        return Err(SimError::Option {
            what: "frame_skip",
            expected: "1 to 1000 physics steps in a control period",
            got: frame_skip as f64,
        });
    }
    let physics = Physics::from_file(&models::path("gymnasium", file)?)?;
    let task = task(&physics)?;
    Ok(Benchmark {
        control_period: physics.timestep() * frame_skip as f64,
        reward_range: task.reward_range(&physics),
        task: Box::new(task),
        physics,
        episode_steps,
        stops_at_warnings: false,
    })
}

/// `frame_skip` physics steps under one action.
fn advance(physics: &mut Physics, action: &[f64], frame_skip: usize) {
    physics.ctrl_mut().copy_from_slice(action);
    physics.advance(frame_skip);
}

/// Adds uniform noise from `[-scale, scale)`.
fn add_uniform(values: &mut [f64], scale: f64, rng: &mut ChaCha8Rng) {
    for value in values {
        *value += scale * (2.0 * rng.random::<f64>() - 1.0);
    }
}

/// Adds normal noise of deviation `scale`.
fn add_normal(values: &mut [f64], scale: f64, rng: &mut ChaCha8Rng) {
    for value in values {
        let noise: f64 = StandardNormal.sample(rng);
        *value += scale * noise;
    }
}

fn sum_of_squares(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|v| v * v).sum()
}

fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    sum_of_squares((0..3).map(|i| a[i] - b[i])).sqrt()
}
