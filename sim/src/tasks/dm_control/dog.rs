//! `dog`: stand, walk, trot or run on four legs, moved by a body of bones.

use std::f64::consts::TAU;

use rand_chacha::ChaCha8Rng;

use super::mjcf::Mjcf;
use super::rewards::{Margin, Sigmoid, tolerance};
use super::{Times, Z, ZZ, after_reset, edited_benchmark, in_frame, normal, reading, step, uniform};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 15.0;
/// Time between two actions, s.
const CONTROL_PERIOD: f64 = 0.015;
/// Angle from the vertical up to which uprightness is worth 1, degrees.
const UPRIGHT_ANGLE: f64 = 30.0;
/// Part of the heights of the model's own pose from which standing is worth 1.
const STAND_HEIGHT: f64 = 0.9;
/// What touching the ground with no weight at all is worth.
const NO_WEIGHT: f64 = 0.9;
/// Speeds from which moving is worth 1, m/s; to stand, the floor is that of walking.
const WALK_SPEED: f64 = 1.0;
const TROT_SPEED: f64 = 3.0;
const RUN_SPEED: f64 = 9.0;
/// Deviation of the root's velocities at the start, m/s and rad/s, and which they are: x, y, and about z.
const START_SPEED: f64 = 2.0;
const START_VELOCITIES: [usize; 3] = [0, 1, 5];
/// Spacing of the floor's grid, m.
const FLOOR_GRID: f64 = 0.1;
/// Coordinates of the free root in `qpos` and `qvel`, and those of its rotation.
const ROOT_POSITION: usize = 7;
const ROOT_VELOCITY: usize = 6;
const ROTATION: std::ops::Range<usize> = 3..7;
/// What the file has for the suite's task with a ball.
const OTHERS: [(&str, &str); 8] = [
    ("body", "ball"),
    ("geom", "target"),
    ("camera", "ball"),
    ("camera", "head"),
    ("geom", "wall_px"),
    ("geom", "wall_nx"),
    ("geom", "wall_py"),
    ("geom", "wall_ny"),
];
/// Sensors with three readings each that are observed, in this order: the head's motion, then the paws' forces.
const VECTORS: [&str; 7] = [
    "accelerometer",
    "velocimeter",
    "gyro",
    "foot_L",
    "foot_R",
    "hand_L",
    "hand_R",
];
const TOUCH: [&str; 4] = ["palm_L", "palm_R", "sole_L", "sole_R"];

pub(super) fn stand(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("dog-stand", options, None)
}

pub(super) fn walk(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("dog-walk", options, Some(WALK_SPEED))
}

pub(super) fn trot(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("dog-trot", options, Some(TROT_SPEED))
}

pub(super) fn run(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("dog-run", options, Some(RUN_SPEED))
}

fn make(name: &str, options: &TaskOptions, move_speed: Option<f64>) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: Some(CONTROL_PERIOD),
    };
    let side = TIME_LIMIT * move_speed.unwrap_or(WALK_SPEED);
    let edit = |mjcf: &mut Mjcf| {
        mjcf.set_plane("floor", [side, side, FLOOR_GRID])?;
        OTHERS.iter().try_for_each(|(kind, name)| mjcf.remove(kind, name))
    };
    edited_benchmark((name, "dog.xml"), options, times, edit, |physics, substeps| {
        let sensors = |names: &[&str]| -> Result<Vec<usize>, SimError> {
            names.iter().map(|name| physics.sensor(name)).collect()
        };
        let body = |name: &str| physics.id(Element::Body, name);
        Ok(Box::new(Dog {
            move_speed,
            skull: body("skull")?,
            torso: body("torso")?,
            pelvis: body("pelvis")?,
            velocity: physics.sensor("torso_linvel")?,
            vectors: sensors(&VECTORS)?,
            touch: sensors(&TOUCH)?,
            stand_heights: [0.0; 2],
            weight: 0.0,
            substeps,
        }))
    })
}

struct Dog {
    /// Wanted speed, m/s; `None` rewards standing alone.
    move_speed: Option<f64>,
    skull: usize,
    torso: usize,
    pelvis: usize,
    /// Where the velocity of the centre of mass lies among the sensors' readings.
    velocity: usize,
    vectors: Vec<usize>,
    touch: Vec<usize>,
    /// Heights of torso and pelvis from which standing is worth 1, m; measured at the start of an episode.
    stand_heights: [f64; 2],
    /// N; measured at the start of an episode.
    weight: f64,
    substeps: usize,
}

impl Dog {
    fn heights(&self, physics: &Physics) -> [f64; 2] {
        [self.torso, self.pelvis].map(|body| physics.xpos()[body][2])
    }

    /// In the torso's own frame, m/s.
    fn velocity(&self, physics: &Physics) -> [f64; 3] {
        in_frame(&reading(physics, self.velocity), &physics.xmat()[self.torso])
    }

    fn touch(&self, physics: &Physics) -> impl Iterator<Item = f64> {
        self.touch.iter().map(|touch| physics.sensordata()[*touch])
    }

    /// The bodies that shall be upright.
    fn uprights(&self) -> [usize; 3] {
        [self.skull, self.torso, self.pelvis]
    }

    fn stand_reward(&self, physics: &Physics) -> f64 {
        let heights = self.heights(physics).into_iter().zip(self.stand_heights);
        let high =
            heights.map(|(height, stand)| tolerance(height, (stand, f64::INFINITY), Margin::gaussian(stand)));
        let straight = UPRIGHT_ANGLE.to_radians().cos();
        let upright = self.uprights().map(|body| {
            let margin = linear(straight + 1.0, 0.0);
            tolerance(physics.xmat()[body][ZZ], (straight, f64::INFINITY), margin)
        });
        let weight = (self.weight, f64::INFINITY);
        let touch = tolerance(self.touch(physics).sum(), weight, linear(self.weight, NO_WEIGHT));
        high.chain(upright).product::<f64>() * touch
    }
}

fn linear(width: f64, value_at_margin: f64) -> Margin {
    Margin {
        width,
        value_at_margin,
        sigmoid: Sigmoid::Linear,
    }
}

impl BenchmarkTask for Dog {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        self.stand_heights = self.heights(physics).map(|height| STAND_HEIGHT * height);
        self.weight = -physics.gravity()[2] * physics.body_subtreemass()[self.torso];
        let half = 0.5 * uniform(rng, 0.0, TAU);
        physics.qpos_mut()[ROTATION].copy_from_slice(&[half.cos(), 0.0, 0.0, half.sin()]);
        for velocity in START_VELOCITIES {
            physics.qvel_mut()[velocity] = START_SPEED * normal(rng);
        }
        for actuator in 0..physics.act().len() {
            let [low, high] = physics.actuator_ctrlrange()[actuator];
            physics.act_mut()[actuator] = uniform(rng, low, high);
        }
        after_reset(physics);
        Ok(())
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
        out.extend(self.heights(physics));
        for body in self.uprights() {
            out.extend_from_slice(&physics.xmat()[body][Z]);
        }
        out.extend(self.velocity(physics));
        out.extend(self.vectors.iter().flat_map(|at| reading::<3>(physics, *at)));
        out.extend(self.touch(physics));
        out.extend_from_slice(physics.act());
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let standing = self.stand_reward(physics);
        let Some(speed) = self.move_speed else {
            return standing;
        };
        let [forward, ..] = self.velocity(physics);
        let moving = tolerance(forward, (speed, 2.0 * speed), linear(speed.max(1.0), 0.0));
        standing * (4.0 * moving + 1.0) / 5.0
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
