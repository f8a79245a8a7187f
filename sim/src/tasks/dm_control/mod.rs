//! Tasks of the DeepMind Control Suite. One domain a file, in the order: constants with their units, factories, physics
//! words, start, observation, reward. Models are the suite's own files, which the set-up brings.
//!
//! Observations are flattened in the suite's own order; an episode is truncated at the suite's time limit, and none of
//! these tasks ends otherwise.

mod acrobot;
mod ball_in_cup;
mod cartpole;
mod cheetah;
mod dog;
mod finger;
mod fish;
mod hopper;
mod humanoid;
mod manipulator;
mod mjcf;
mod pendulum;
mod point_mass;
mod quadruped;
mod reacher;
mod rewards;
mod swimmer;
mod walker;

use std::f64::consts::PI;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::Deserialize;

use super::benchmark::{Benchmark, BenchmarkTask};
use super::{models, options};
use crate::physics::{JointKind, Physics};
use crate::{SimError, TaskOptions};
use mjcf::Mjcf;
use rewards::{Margin, Sigmoid, tolerance};

use super::gym::Factory;

/// All tasks by name, `domain-task`.
pub(crate) const TASKS: [(&str, Factory); 34] = [
    ("acrobot-swingup", acrobot::swingup),
    ("acrobot-swingup_sparse", acrobot::swingup_sparse),
    ("ball_in_cup-catch", ball_in_cup::catch),
    ("cartpole-balance", cartpole::balance),
    ("cartpole-balance_sparse", cartpole::balance_sparse),
    ("cartpole-swingup", cartpole::swingup),
    ("cartpole-swingup_sparse", cartpole::swingup_sparse),
    ("cheetah-run", cheetah::run),
    ("dog-run", dog::run),
    ("dog-stand", dog::stand),
    ("dog-trot", dog::trot),
    ("dog-walk", dog::walk),
    ("finger-spin", finger::spin),
    ("finger-turn_easy", finger::turn_easy),
    ("finger-turn_hard", finger::turn_hard),
    ("fish-swim", fish::swim),
    ("fish-upright", fish::upright),
    ("hopper-hop", hopper::hop),
    ("hopper-stand", hopper::stand),
    ("humanoid-run", humanoid::run),
    ("humanoid-stand", humanoid::stand),
    ("humanoid-walk", humanoid::walk),
    ("manipulator-bring_ball", manipulator::bring_ball),
    ("pendulum-swingup", pendulum::swingup),
    ("point_mass-easy", point_mass::easy),
    ("quadruped-run", quadruped::run),
    ("quadruped-walk", quadruped::walk),
    ("reacher-easy", reacher::easy),
    ("reacher-hard", reacher::hard),
    ("swimmer-swimmer15", swimmer::swimmer15),
    ("swimmer-swimmer6", swimmer::swimmer6),
    ("walker-run", walker::run),
    ("walker-stand", walker::stand),
    ("walker-walk", walker::walk),
];

/// Rows of a rotation matrix, row-major: the z components of the frame's own x and z axes.
const XZ: usize = 2;
const ZZ: usize = 8;
/// The last row of a rotation matrix: the z components of the frame's own axes.
const Z: std::ops::Range<usize> = 6..9;

/// Starts that are drawn before a task gives up.
const DRAWS: usize = 1000;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Length of an episode, s.
    time_limit: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { time_limit: f64::NAN }
    }
}

/// Times of a domain, s.
struct Times {
    limit: f64,
    /// `None` takes one physics step for each action.
    control_period: Option<f64>,
}

/// A model of the suite, and a task over it; `make` also learns how many physics steps an action lasts.
fn benchmark(
    (name, file): (&str, &str),
    options: &TaskOptions,
    times: Times,
    make: impl FnOnce(&mut Physics, usize) -> Result<Box<dyn BenchmarkTask>, SimError>,
) -> Result<Benchmark, SimError> {
    let load = || Physics::from_file(&models::path("dm_control", file)?);
    benchmark_over(load, (name, options), times, make)
}

/// The same over a model that is changed before it is compiled.
fn edited_benchmark(
    (name, file): (&str, &str),
    options: &TaskOptions,
    times: Times,
    edit: impl FnOnce(&mut Mjcf) -> Result<(), SimError>,
    make: impl FnOnce(&mut Physics, usize) -> Result<Box<dyn BenchmarkTask>, SimError>,
) -> Result<Benchmark, SimError> {
    let load = || {
        let mut mjcf = Mjcf::read(&models::path("dm_control", file)?)?;
        edit(&mut mjcf)?;
        mjcf.compile()
    };
    benchmark_over(load, (name, options), times, make)
}

fn benchmark_over(
    load: impl FnOnce() -> Result<Physics, SimError>,
    (name, options): (&str, &TaskOptions),
    times: Times,
    make: impl FnOnce(&mut Physics, usize) -> Result<Box<dyn BenchmarkTask>, SimError>,
) -> Result<Benchmark, SimError> {
    let options: Options = options::read(name, options)?;
    let limit = if options.time_limit.is_nan() {
        times.limit
    } else {
        options.time_limit
    };
    if !(limit > 0.0 && limit.is_finite()) {
        let (what, expected) = ("time_limit", "a positive number of seconds");
        return Err(SimError::Option {
            what,
            expected,
            got: limit,
        });
    }
    let mut physics = load()?;
    let timestep = physics.timestep();
    let substeps = times
        .control_period
        .map_or(1.0, |period| (period / timestep).round());
    Ok(Benchmark {
        control_period: timestep * substeps,
        // An episode is over at the first step that is not below the limit.
        episode_steps: (limit / (timestep * substeps)).ceil() as usize,
        reward_range: (0.0, 1.0),
        // The suite's PhysicsError.
        stops_at_warnings: true,
        task: make(&mut physics, substeps as usize)?,
        physics,
    })
}

/// The suite's way to step: what depends on position and velocity is up to date afterwards.
fn step(physics: &mut Physics, action: &[f64], substeps: usize) {
    physics.ctrl_mut().copy_from_slice(action);
    step_without_action(physics, substeps);
}

fn step_without_action(physics: &mut Physics, substeps: usize) {
    if physics.is_runge_kutta() {
        physics.advance(substeps);
    } else {
        physics.step2();
        physics.advance(substeps - 1);
    }
    physics.step1();
}

/// The suite brings derived quantities up to date with the actuators switched off, before and after a start is set.
fn after_reset(physics: &mut Physics) {
    physics.forward_without_actuation();
}

/// Limited hinges and slides anywhere in their range, unlimited hinges anywhere on the circle, free bodies turned by a
/// quaternion of the suite's own distribution: all four components positive.
fn randomize_joints(physics: &mut Physics, rng: &mut ChaCha8Rng) {
    for joint in physics.joints() {
        if joint.kind == JointKind::Free {
            let quaternion = unit([(); 4].map(|()| rng.random::<f64>()));
            physics.qpos_mut()[joint.position + 3..joint.position + 7].copy_from_slice(&quaternion);
            continue;
        }
        let value = match (joint.kind, joint.range) {
            (JointKind::Hinge | JointKind::Slide, Some((low, high))) => {
                low + (high - low) * rng.random::<f64>()
            }
            (JointKind::Hinge, None) => PI * (2.0 * rng.random::<f64>() - 1.0),
            _ => continue,
        };
        physics.qpos_mut()[joint.position] = value;
    }
}

/// Draws starts until one is without contact.
fn draw_without_contact(physics: &mut Physics, mut draw: impl FnMut(&mut Physics)) -> Result<(), SimError> {
    for _ in 0..DRAWS {
        draw(physics);
        after_reset(physics);
        if physics.ncon() == 0 {
            return Ok(());
        }
    }
    Err(SimError::StartState {
        what: "a number of contacts".into(),
        expected: format!("none in {DRAWS} draws"),
        got: physics.ncon().to_string(),
    })
}

/// A quaternion that turns evenly in all directions.
fn random_rotation(rng: &mut ChaCha8Rng) -> [f64; 4] {
    unit([(); 4].map(|()| normal(rng)))
}

fn unit(vector: [f64; 4]) -> [f64; 4] {
    let length = distance(&vector, &[0.0; 4]);
    vector.map(|component| component / length)
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

fn uniform(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

fn distance<const N: usize>(a: &[f64; N], b: &[f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// A vector of the world seen from a frame.
fn in_frame(vector: &[f64; 3], rotation: &[f64; 9]) -> [f64; 3] {
    [0, 1, 2].map(|axis| (0..3).map(|row| vector[row] * rotation[3 * row + axis]).sum())
}

fn difference<const N: usize>(a: &[f64; N], b: &[f64; N]) -> [f64; N] {
    std::array::from_fn(|axis| a[axis] - b[axis])
}

/// The `N` readings of a sensor that begin at `at`.
fn reading<const N: usize>(physics: &Physics, at: usize) -> [f64; N] {
    std::array::from_fn(|component| physics.sensordata()[at + component])
}

/// The numbers of the one model value that a task has, called `known`.
fn only_value<const N: usize>(known: &str, name: &str, values: &[f64]) -> Result<[f64; N], SimError> {
    let values_given = <[f64; N]>::try_from(values).ok();
    values_given
        .filter(|_| name == known)
        .ok_or_else(|| SimError::StartState {
            what: "model value".into(),
            expected: format!("'{known}' with {N} numbers"),
            got: format!("'{name}' with {} numbers", values.len()),
        })
}

/// The suite's reward for small commands, 0.8 to 1.
fn small_control(physics: &Physics) -> f64 {
    let margin = Margin {
        width: 1.0,
        value_at_margin: 0.0,
        sigmoid: Sigmoid::Quadratic,
    };
    let ctrl = physics.ctrl();
    let total: f64 = ctrl.iter().map(|c| tolerance(*c, (0.0, 0.0), margin)).sum();
    (total / ctrl.len() as f64 + 4.0) / 5.0
}
