//! `fish`: keep upright in water, or swim to a target.

use rand_chacha::ChaCha8Rng;

use super::rewards::{Margin, tolerance};
use super::{
    Times, ZZ, after_reset, benchmark, difference, distance, in_frame, only_value, random_rotation, step,
    uniform,
};
use crate::physics::{Element, JointIndex, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask, keeps_nothing};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 40.0;
/// Time between two actions, s.
const CONTROL_PERIOD: f64 = 0.04;
/// The joints that are observed, in this order.
const JOINTS: [&str; 7] = [
    "tail1",
    "tail_twist",
    "tail2",
    "finright_roll",
    "finright_pitch",
    "finleft_roll",
    "finleft_pitch",
];
/// Where the joints start, rad.
const JOINT_START: (f64, f64) = (-0.2, 0.2);
/// Where a target lies, m: to the sides, and up.
const TARGET_XY: (f64, f64) = (-0.4, 0.4);
const TARGET_Z: (f64, f64) = (0.1, 0.3);
/// Where the rotation of the free root begins in `qpos`.
const ROTATION: std::ops::Range<usize> = 3..7;

pub(super) fn upright(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("fish-upright", options, false)
}

pub(super) fn swim(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("fish-swim", options, true)
}

fn make(name: &str, options: &TaskOptions, swimming: bool) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: Some(CONTROL_PERIOD),
    };
    benchmark((name, "fish.xml"), options, times, |physics, substeps| {
        let joints: Result<Vec<JointIndex>, SimError> =
            JOINTS.iter().map(|name| physics.joint(name)).collect();
        let (mouth, target) = (
            physics.id(Element::Geom, "mouth")?,
            physics.id(Element::Geom, "target")?,
        );
        Ok(Box::new(Fish {
            swimming,
            torso: physics.id(Element::Body, "torso")?,
            mouth,
            target,
            radii: physics.geom_size()[mouth][0] + physics.geom_size()[target][0],
            joints: joints?,
            substeps,
        }))
    })
}

struct Fish {
    swimming: bool,
    torso: usize,
    mouth: usize,
    target: usize,
    /// Distance from which the mouth is in the target, m.
    radii: f64,
    joints: Vec<JointIndex>,
    substeps: usize,
}

impl Fish {
    fn upright(&self, physics: &Physics) -> f64 {
        physics.xmat()[self.torso][ZZ]
    }

    /// In the mouth's own frame.
    fn mouth_to_target(&self, physics: &Physics) -> [f64; 3] {
        let positions = physics.geom_xpos();
        let way = difference(&positions[self.target], &positions[self.mouth]);
        in_frame(&way, &physics.geom_xmat()[self.mouth])
    }
}

impl BenchmarkTask for Fish {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        physics.qpos_mut()[ROTATION].copy_from_slice(&random_rotation(rng));
        for joint in &self.joints {
            physics.qpos_mut()[joint.position()] = uniform(rng, JOINT_START.0, JOINT_START.1);
        }
        if self.swimming {
            for (axis, (low, high)) in [TARGET_XY, TARGET_XY, TARGET_Z].into_iter().enumerate() {
                physics.set_geom_position(self.target, axis, uniform(rng, low, high));
            }
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
        out.extend(self.joints.iter().map(|joint| physics.position(*joint)));
        out.push(self.upright(physics));
        if self.swimming {
            out.extend(self.mouth_to_target(physics));
        }
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let upright = self.upright(physics);
        if !self.swimming {
            return tolerance(upright, (1.0, 1.0), Margin::gaussian(1.0));
        }
        let far = distance(&self.mouth_to_target(physics), &[0.0; 3]);
        let in_target = tolerance(far, (0.0, self.radii), Margin::gaussian(2.0 * self.radii));
        (7.0 * in_target + 0.5 * (upright + 1.0)) / 8.0
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }

    /// `target`: where it lies, m.
    fn model_values(&self, physics: &Physics) -> Vec<(&'static str, Vec<f64>)> {
        if !self.swimming {
            return Vec::new();
        }
        vec![("target", physics.geom_pos()[self.target].to_vec())]
    }

    fn set_model_value(&mut self, physics: &mut Physics, name: &str, values: &[f64]) -> Result<(), SimError> {
        if !self.swimming {
            return Err(keeps_nothing(name));
        }
        let target: [f64; 3] = only_value("target", name, values)?;
        for (axis, position) in target.into_iter().enumerate() {
            physics.set_geom_position(self.target, axis, position);
        }
        Ok(())
    }
}
