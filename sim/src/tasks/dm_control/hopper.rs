//! `hopper`: stand or hop on one leg in a plane.

use rand_chacha::ChaCha8Rng;

use super::rewards::{Margin, Sigmoid, tolerance};
use super::{Times, after_reset, benchmark, randomize_joints, small_control, step};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 20.0;
/// Time between two actions, s.
const CONTROL_PERIOD: f64 = 0.02;
/// Heights of the torso over the foot at which it stands, m.
const STAND_HEIGHT: (f64, f64) = (0.6, 2.0);
/// Speed from which hopping is worth 1, m/s.
const HOP_SPEED: f64 = 2.0;

pub(super) fn stand(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("hopper-stand", options, false)
}

pub(super) fn hop(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("hopper-hop", options, true)
}

fn make(name: &str, options: &TaskOptions, hopping: bool) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: Some(CONTROL_PERIOD),
    };
    benchmark((name, "hopper.xml"), options, times, |physics, substeps| {
        Ok(Box::new(Hopper {
            hopping,
            torso: physics.id(Element::Body, "torso")?,
            foot: physics.id(Element::Body, "foot")?,
            velocity: physics.sensor("torso_subtreelinvel")?,
            touch: [physics.sensor("touch_toe")?, physics.sensor("touch_heel")?],
            substeps,
        }))
    })
}

struct Hopper {
    hopping: bool,
    torso: usize,
    foot: usize,
    /// Where the torso's velocity lies among the sensors' readings.
    velocity: usize,
    /// Toe and heel.
    touch: [usize; 2],
    substeps: usize,
}

impl Hopper {
    fn height(&self, physics: &Physics) -> f64 {
        physics.xipos()[self.torso][2] - physics.xipos()[self.foot][2]
    }
}

impl BenchmarkTask for Hopper {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        randomize_joints(physics, rng);
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

    /// Without the horizontal position.
    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        out.extend_from_slice(&physics.qpos()[1..]);
        out.extend_from_slice(physics.qvel());
        out.extend(self.touch.map(|sensor| physics.sensordata()[sensor].ln_1p()));
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let standing = tolerance(self.height(physics), STAND_HEIGHT, Margin::gaussian(0.0));
        if !self.hopping {
            return standing * small_control(physics);
        }
        let margin = Margin {
            width: HOP_SPEED / 2.0,
            value_at_margin: 0.5,
            sigmoid: Sigmoid::Linear,
        };
        let speed = physics.sensordata()[self.velocity];
        standing * tolerance(speed, (HOP_SPEED, f64::INFINITY), margin)
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
