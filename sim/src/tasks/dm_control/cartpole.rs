//! `cartpole`: balance a pole on a cart, from upright or hanging, with a smooth or a sparse reward.

use std::f64::consts::PI;

use rand_chacha::ChaCha8Rng;

use super::rewards::{Margin, tolerance};
use super::{Times, XZ, ZZ, after_reset, benchmark, normal, small_control, step, uniform};
use crate::physics::Physics;
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 10.0;
/// Where the cart counts as centred for the sparse reward, m.
const CART_RANGE: (f64, f64) = (-0.25, 0.25);
/// Cosines at which the pole counts as upright for the sparse reward.
const ANGLE_COSINE_RANGE: (f64, f64) = (0.995, 1.0);
/// The first body that is a pole: the world and the cart come before.
const FIRST_POLE: usize = 2;

pub(super) fn balance(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("cartpole-balance", options, (false, false))
}

pub(super) fn balance_sparse(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("cartpole-balance_sparse", options, (false, true))
}

pub(super) fn swingup(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("cartpole-swingup", options, (true, false))
}

pub(super) fn swingup_sparse(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("cartpole-swingup_sparse", options, (true, true))
}

fn make(name: &str, options: &TaskOptions, (swing_up, sparse): (bool, bool)) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: None,
    };
    benchmark((name, "cartpole.xml"), options, times, |_, substeps| {
        Ok(Box::new(Balance {
            swing_up,
            sparse,
            substeps,
        }))
    })
}

struct Balance {
    swing_up: bool,
    sparse: bool,
    substeps: usize,
}

fn cart_position(physics: &Physics) -> f64 {
    physics.qpos()[0]
}

/// The cosine of each pole's angle.
fn pole_angle_cosines(physics: &Physics) -> impl Iterator<Item = f64> + Clone + '_ {
    physics.xmat()[FIRST_POLE..].iter().map(|rotation| rotation[ZZ])
}

impl BenchmarkTask for Balance {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        let qpos = physics.qpos_mut();
        if self.swing_up {
            qpos[0] = 0.01 * normal(rng);
            qpos[1] = PI + 0.01 * normal(rng);
            qpos[2..].iter_mut().for_each(|q| *q = 0.1 * normal(rng));
        } else {
            qpos[0] = uniform(rng, -0.1, 0.1);
            qpos[1..]
                .iter_mut()
                .for_each(|q| *q = uniform(rng, -0.034, 0.034));
        }
        physics
            .qvel_mut()
            .iter_mut()
            .for_each(|v| *v = 0.01 * normal(rng));
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
        out.push(cart_position(physics));
        out.extend(physics.xmat()[FIRST_POLE..].iter().flat_map(|m| [m[ZZ], m[XZ]]));
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let cosines = pole_angle_cosines(physics);
        let cart = cart_position(physics);
        if self.sparse {
            let exact = Margin::gaussian(0.0);
            let upright: f64 = cosines.map(|c| tolerance(c, ANGLE_COSINE_RANGE, exact)).product();
            return tolerance(cart, CART_RANGE, exact) * upright;
        }
        let poles = cosines.clone().count() as f64;
        let upright = cosines.map(|c| (c + 1.0) / 2.0).sum::<f64>() / poles;
        let centered = (1.0 + tolerance(cart, (0.0, 0.0), Margin::gaussian(2.0))) / 2.0;
        let velocities = physics.qvel()[1..].iter();
        let slowest = velocities.map(|v| tolerance(*v, (0.0, 0.0), Margin::gaussian(5.0)));
        let small_velocity = (1.0 + slowest.fold(f64::INFINITY, f64::min)) / 2.0;
        upright * small_control(physics) * small_velocity * centered
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
