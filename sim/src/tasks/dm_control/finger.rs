//! `finger`: flick a body on a hinge, to keep it spinning or to turn it to where it shall point.

use std::f64::consts::PI;

use rand_chacha::ChaCha8Rng;

use super::{
    Times, after_reset, benchmark, difference, distance, draw_without_contact, only_value, randomize_joints,
    reading, step, uniform,
};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask, keeps_nothing};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 20.0;
/// Time between two actions, s.
const CONTROL_PERIOD: f64 = 0.02;
/// Radii of the targets, m.
const EASY_TARGET: f64 = 0.07;
const HARD_TARGET: f64 = 0.03;
/// Speed of the body from which it spins, rad/s.
const SPIN_SPEED: f64 = 15.0;
/// Damping of its hinge where it shall spin, N m s.
const SPIN_DAMPING: f64 = 0.03;

pub(super) fn spin(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("finger-spin", options, None)
}

pub(super) fn turn_easy(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("finger-turn_easy", options, Some(EASY_TARGET))
}

pub(super) fn turn_hard(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("finger-turn_hard", options, Some(HARD_TARGET))
}

fn make(name: &str, options: &TaskOptions, target_size: Option<f64>) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: Some(CONTROL_PERIOD),
    };
    benchmark((name, "finger.xml"), options, times, |physics, substeps| {
        let target = physics.id(Element::Site, "target")?;
        match target_size {
            Some(size) => physics.set_site_size(target, 0, size),
            None => physics.set_damping(physics.joint("hinge")?, SPIN_DAMPING),
        }
        let cap = physics.id(Element::Geom, "cap1")?;
        Ok(Box::new(Finger {
            turning: target_size.is_some(),
            target,
            hinge: physics.id(Element::Joint, "hinge")?,
            reach: physics.geom_size()[cap].iter().sum(),
            joints: [physics.sensor("proximal")?, physics.sensor("distal")?],
            velocities: [
                physics.sensor("proximal_velocity")?,
                physics.sensor("distal_velocity")?,
                physics.sensor("hinge_velocity")?,
            ],
            touch: [physics.sensor("touchtop")?, physics.sensor("touchbottom")?],
            places: Places {
                tip: physics.sensor("tip")?,
                target: physics.sensor("target")?,
                spinner: physics.sensor("spinner")?,
            },
            substeps,
        }))
    })
}

/// Where positions lie among the sensors' readings.
struct Places {
    tip: usize,
    target: usize,
    spinner: usize,
}

struct Finger {
    turning: bool,
    target: usize,
    hinge: usize,
    /// Distance of the target from the hinge, m.
    reach: f64,
    joints: [usize; 2],
    /// Those of the joints, then the hinge's.
    velocities: [usize; 3],
    touch: [usize; 2],
    places: Places,
    substeps: usize,
}

impl Finger {
    /// In the plane of the motion, seen from the hinge.
    fn seen_from_hinge(&self, physics: &Physics, place: usize) -> [f64; 2] {
        let [x, _, z] = difference(&reading(physics, place), &reading(physics, self.places.spinner));
        [x, z]
    }

    /// From the tip to the target's surface, m; negative inside.
    fn distance_to_target(&self, physics: &Physics) -> f64 {
        let [tip, target] =
            [self.places.tip, self.places.target].map(|place| self.seen_from_hinge(physics, place));
        distance(&target, &tip) - physics.site_size()[self.target][0]
    }
}

impl BenchmarkTask for Finger {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        if self.turning {
            let angle = uniform(rng, -PI, PI);
            let [x, _, z] = physics.xanchor()[self.hinge];
            physics.set_site_position(self.target, 0, x + self.reach * angle.sin());
            physics.set_site_position(self.target, 2, z + self.reach * angle.cos());
        }
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
        let sensors = physics.sensordata();
        out.extend(self.joints.map(|joint| sensors[joint]));
        out.extend(self.seen_from_hinge(physics, self.places.tip));
        out.extend(self.velocities.map(|velocity| sensors[velocity]));
        out.extend(self.touch.map(|touch| sensors[touch].ln_1p()));
        if self.turning {
            out.extend(self.seen_from_hinge(physics, self.places.target));
            out.push(self.distance_to_target(physics));
        }
    }

    /// 1 while the body spins fast, or its tip is in the target.
    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let there = if self.turning {
            self.distance_to_target(physics) <= 0.0
        } else {
            physics.sensordata()[self.velocities[2]] <= -SPIN_SPEED
        };
        if there { 1.0 } else { 0.0 }
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }

    /// `target`: where it lies in the plane of the motion, m.
    fn model_values(&self, physics: &Physics) -> Vec<(&'static str, Vec<f64>)> {
        if !self.turning {
            return Vec::new();
        }
        let [x, _, z] = physics.site_pos()[self.target];
        vec![("target", vec![x, z])]
    }

    fn set_model_value(&mut self, physics: &mut Physics, name: &str, values: &[f64]) -> Result<(), SimError> {
        if !self.turning {
            return Err(keeps_nothing(name));
        }
        let [x, z] = only_value("target", name, values)?;
        physics.set_site_position(self.target, 0, x);
        physics.set_site_position(self.target, 2, z);
        Ok(())
    }
}
