//! `humanoid`: stand, walk or run on two legs in space.

use rand_chacha::ChaCha8Rng;

use super::rewards::{Margin, Sigmoid, tolerance};
use super::{
    Times, Z, ZZ, after_reset, benchmark, difference, distance, draw_without_contact, in_frame,
    randomize_joints, reading, small_control, step,
};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 25.0;
/// Time between two actions, s.
const CONTROL_PERIOD: f64 = 0.025;
/// Height of the head from which standing is worth 1, m.
const STAND_HEIGHT: f64 = 1.4;
/// Uprightness from which it is worth 1, and its distance from the worst.
const UPRIGHT: f64 = 0.9;
const UPRIGHT_MARGIN: f64 = 1.9;
/// Speed at which standing still is worth a tenth, m/s.
const STILL_MARGIN: f64 = 2.0;
/// Speeds from which moving is worth 1, m/s.
const WALK_SPEED: f64 = 1.0;
const RUN_SPEED: f64 = 10.0;
/// Coordinates of the free root in `qpos`.
const ROOT: usize = 7;
/// The bodies whose places are observed, in this order.
const EXTREMITIES: [&str; 4] = ["left_hand", "left_foot", "right_hand", "right_foot"];

pub(super) fn stand(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("humanoid-stand", options, 0.0)
}

pub(super) fn walk(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("humanoid-walk", options, WALK_SPEED)
}

pub(super) fn run(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("humanoid-run", options, RUN_SPEED)
}

fn make(name: &str, options: &TaskOptions, move_speed: f64) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: Some(CONTROL_PERIOD),
    };
    benchmark((name, "humanoid.xml"), options, times, |physics, substeps| {
        let mut extremities = [0; 4];
        for (id, name) in extremities.iter_mut().zip(EXTREMITIES) {
            *id = physics.id(Element::Body, name)?;
        }
        Ok(Box::new(Humanoid {
            move_speed,
            torso: physics.id(Element::Body, "torso")?,
            head: physics.id(Element::Body, "head")?,
            extremities,
            velocity: physics.sensor("torso_subtreelinvel")?,
            substeps,
        }))
    })
}

struct Humanoid {
    /// Wanted speed, m/s; 0 rewards standing still.
    move_speed: f64,
    torso: usize,
    head: usize,
    extremities: [usize; 4],
    /// Where the velocity of the centre of mass lies among the sensors' readings.
    velocity: usize,
    substeps: usize,
}

impl Humanoid {
    fn head_height(&self, physics: &Physics) -> f64 {
        physics.xpos()[self.head][2]
    }
}

impl BenchmarkTask for Humanoid {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        draw_without_contact(physics, |physics| randomize_joints(physics, rng))?;
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
        let (frame, torso) = (&physics.xmat()[self.torso], &physics.xpos()[self.torso]);
        out.extend_from_slice(&physics.qpos()[ROOT..]);
        out.push(self.head_height(physics));
        for limb in self.extremities {
            out.extend(in_frame(&difference(&physics.xpos()[limb], torso), frame));
        }
        out.extend_from_slice(&frame[Z]);
        out.extend(reading::<3>(physics, self.velocity));
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let linear = |width: f64| Margin {
            width,
            value_at_margin: 0.0,
            sigmoid: Sigmoid::Linear,
        };
        let standing = tolerance(
            self.head_height(physics),
            (STAND_HEIGHT, f64::INFINITY),
            Margin::gaussian(STAND_HEIGHT / 4.0),
        );
        let upright = tolerance(
            physics.xmat()[self.torso][ZZ],
            (UPRIGHT, f64::INFINITY),
            linear(UPRIGHT_MARGIN),
        );
        let stand_reward = standing * upright;
        let velocity: [f64; 2] = reading(physics, self.velocity);
        let moving = if self.move_speed == 0.0 {
            let still = velocity.map(|v| tolerance(v, (0.0, 0.0), Margin::gaussian(STILL_MARGIN)));
            still.iter().sum::<f64>() / 2.0
        } else {
            let fast = (self.move_speed, f64::INFINITY);
            let speed = distance(&velocity, &[0.0; 2]);
            (5.0 * tolerance(speed, fast, linear(self.move_speed)) + 1.0) / 6.0
        };
        small_control(physics) * stand_reward * moving
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
