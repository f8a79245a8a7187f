//! `ball_in_cup-catch`: swing a ball on a string into the cup.

use rand_chacha::ChaCha8Rng;

use super::{Times, after_reset, benchmark, draw_without_contact, step, uniform};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 20.0;
/// Time between two actions, s.
const CONTROL_PERIOD: f64 = 0.02;
/// Where the ball starts, m: to the side, and up.
const BALL_X: (f64, f64) = (-0.2, 0.2);
const BALL_Z: (f64, f64) = (0.2, 0.5);

pub(super) fn catch(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: Some(CONTROL_PERIOD),
    };
    benchmark(
        ("ball_in_cup-catch", "ball_in_cup.xml"),
        options,
        times,
        |physics, substeps| {
            let target = physics.id(Element::Site, "target")?;
            let size = physics.site_size()[target];
            let radius = physics.geom_size()[physics.id(Element::Geom, "ball")?][0];
            let coordinate = |name: &str| physics.joint(name).map(|joint| joint.position());
            Ok(Box::new(BallInCup {
                target,
                ball: physics.id(Element::Body, "ball")?,
                room: [size[0] - radius, size[2] - radius],
                ball_x: coordinate("ball_x")?,
                ball_z: coordinate("ball_z")?,
                substeps,
            }))
        },
    )
}

struct BallInCup {
    target: usize,
    ball: usize,
    /// How far the ball may be from the target's middle, m: to the side, and up.
    room: [f64; 2],
    ball_x: usize,
    ball_z: usize,
    substeps: usize,
}

impl BenchmarkTask for BallInCup {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        draw_without_contact(physics, |physics| {
            physics.qpos_mut()[self.ball_x] = uniform(rng, BALL_X.0, BALL_X.1);
            physics.qpos_mut()[self.ball_z] = uniform(rng, BALL_Z.0, BALL_Z.1);
        })?;
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
        out.extend_from_slice(physics.qpos());
        out.extend_from_slice(physics.qvel());
    }

    /// 1 while the ball is in the cup.
    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let (target, ball) = (physics.site_xpos()[self.target], physics.xpos()[self.ball]);
        let inside = [0, 2].iter().zip(self.room);
        let mut inside = inside.map(|(axis, room)| (target[*axis] - ball[*axis]).abs() < room);
        if inside.all(|inside| inside) { 1.0 } else { 0.0 }
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
