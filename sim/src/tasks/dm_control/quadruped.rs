//! `quadruped`: walk or run on four legs, from any pose.

use rand_chacha::ChaCha8Rng;

use super::mjcf::Mjcf;
use super::rewards::{Margin, Sigmoid, tolerance};
use super::{Times, ZZ, after_reset, edited_benchmark, random_rotation, reading, step};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{Camera, SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 20.0;
/// Time between two actions, s.
const CONTROL_PERIOD: f64 = 0.02;
/// Speeds from which moving is worth 1, m/s.
const WALK_SPEED: f64 = 0.5;
const RUN_SPEED: f64 = 5.0;
/// Spacing of the floor's grid, m.
const FLOOR_GRID: f64 = 0.5;
/// How far the body is lifted at once until nothing touches, m, and how often.
const LIFT: f64 = 0.01;
const LIFTS: usize = 10_000;
/// Coordinates of the free root in `qpos` and `qvel`.
const ROOT_POSITION: usize = 7;
const ROOT_VELOCITY: usize = 6;
/// What the file has for the suite's other tasks.
const WALLS: [&str; 4] = ["wall_px", "wall_py", "wall_nx", "wall_ny"];
/// Forces first, then torques, as the file orders them.
const TOE_SENSORS: [&str; 8] = [
    "force_toe_front_left",
    "force_toe_front_right",
    "force_toe_back_right",
    "force_toe_back_left",
    "torque_toe_front_left",
    "torque_toe_front_right",
    "torque_toe_back_right",
    "torque_toe_back_left",
];

pub(super) fn walk(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("quadruped-walk", options, WALK_SPEED)
}

pub(super) fn run(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("quadruped-run", options, RUN_SPEED)
}

fn make(name: &str, options: &TaskOptions, move_speed: f64) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: Some(CONTROL_PERIOD),
    };
    let file = (name, "quadruped.xml");
    let edit = |mjcf: &mut Mjcf| only_floor(mjcf, TIME_LIMIT * move_speed);
    edited_benchmark(file, options, times, edit, |physics, substeps| {
        let toes: Result<Vec<usize>, SimError> =
            TOE_SENSORS.iter().map(|name| physics.sensor(name)).collect();
        Ok(Box::new(Quadruped {
            move_speed,
            torso: physics.id(Element::Body, "torso")?,
            velocity: physics.sensor("velocimeter")?,
            imu: [physics.sensor("imu_accel")?, physics.sensor("imu_gyro")?],
            toes: toes?,
            substeps,
        }))
    })
}

/// A floor of half this side, and nothing else but the robot.
fn only_floor(mjcf: &mut Mjcf, side: f64) -> Result<(), SimError> {
    mjcf.set_plane("floor", [side, side, FLOOR_GRID])?;
    for wall in WALLS {
        mjcf.remove("geom", wall)?;
    }
    mjcf.remove("geom", "terrain")?;
    mjcf.remove("body", "ball")?;
    mjcf.remove("site", "target")?;
    mjcf.remove_sensors("rangefinder");
    Ok(())
}

struct Quadruped {
    /// Wanted speed, m/s.
    move_speed: f64,
    torso: usize,
    /// Where the torso's velocity lies among the sensors' readings.
    velocity: usize,
    /// Acceleration and rotation of the torso.
    imu: [usize; 2],
    toes: Vec<usize>,
    substeps: usize,
}

impl Quadruped {
    fn upright(&self, physics: &Physics) -> f64 {
        physics.xmat()[self.torso][ZZ]
    }
}

impl BenchmarkTask for Quadruped {
    /// Turned at random, as low as nothing touches.
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        let rotation = random_rotation(rng);
        let mut height = 0.0;
        for _ in 0..LIFTS {
            physics.reset();
            physics.qpos_mut()[..ROOT_POSITION].copy_from_slice(&[
                0.0,
                0.0,
                height,
                rotation[0],
                rotation[1],
                rotation[2],
                rotation[3],
            ]);
            after_reset(physics);
            if physics.ncon() == 0 {
                return Ok(());
            }
            height += LIFT;
        }
        Err(SimError::StartState {
            what: "a number of contacts".into(),
            expected: format!("none {height} m above the floor"),
            got: physics.ncon().to_string(),
        })
    }

    fn state_was_set(&mut self, physics: &mut Physics) {
        after_reset(physics);
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        step(physics, action, self.substeps);
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        out.extend_from_slice(&physics.qpos()[ROOT_POSITION..]);
        out.extend_from_slice(&physics.qvel()[ROOT_VELOCITY..]);
        out.extend_from_slice(physics.act());
        out.extend(reading::<3>(physics, self.velocity));
        out.push(self.upright(physics));
        out.extend(self.imu.iter().flat_map(|at| reading::<3>(physics, *at)));
        let toes = self.toes.iter().flat_map(|at| reading::<3>(physics, *at));
        out.extend(toes.map(f64::asinh));
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let linear = |width: f64, value_at_margin: f64| Margin {
            width,
            value_at_margin,
            sigmoid: Sigmoid::Linear,
        };
        let fast = (self.move_speed, f64::INFINITY);
        let [forward] = reading(physics, self.velocity);
        let moving = tolerance(forward, fast, linear(self.move_speed, 0.5));
        tolerance(self.upright(physics), (1.0, f64::INFINITY), linear(2.0, 0.0)) * moving
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }

    /// The first camera of the model is far away.
    fn camera(&self) -> Camera {
        Camera::Named("y")
    }
}
