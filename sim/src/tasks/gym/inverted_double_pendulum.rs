//! `InvertedDoublePendulum-v5`: keep two poles, one on the other, upright on a cart.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::rewards::{Range, at_times, squares, sum, weighted};
use super::{Bounded, add_normal, add_uniform, advance, benchmark};
use crate::physics::Physics;
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::tasks::options;
use crate::{Camera, SimError, TaskOptions};

/// Velocities and the constraint's force in the observation are clipped to this.
const OBSERVATION_MAX: f64 = 10.0;
/// The poles have fallen when their tip is no higher than this, m.
const HEIGHT_MIN: f64 = 1.0;
/// Height from which the tip's distance is taken, m.
const HEIGHT_WANTED: f64 = 2.0;
/// Both poles together, m: the tip is no further than that from the cart, which is at height 0.
const POLES: f64 = 1.2;
/// How far the cart gets on a rail that ends 1 m to each side, softly, m.
const CART_MAX: f64 = 1.2;
/// Sanity bound on how fast a pole turns before it has fallen, rad/s. Met in 700 episodes of commands anywhere in their range
/// and at its ends: 17.7.
const SPIN_MAX: f64 = 40.0;
/// What the squares cost: of the tip's way along the rail, and of the speeds of the lower and the upper pole.
const WAY_COST: f64 = 0.01;
const SPIN_COSTS: [f64; 2] = [1e-3, 5e-3];

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    frame_skip: usize,
    healthy_reward: f64,
    reset_noise_scale: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            frame_skip: 5,
            healthy_reward: 10.0,
            reset_noise_scale: 0.1,
        }
    }
}

pub(super) fn make(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let options: Options = options::read("InvertedDoublePendulum-v5", options)?;
    benchmark("inverted_double_pendulum.xml", (options.frame_skip, 1000), |_| {
        Ok(InvertedDoublePendulum { options })
    })
}

struct InvertedDoublePendulum {
    options: Options,
}

/// The tip of the upper pole, m.
fn tip(physics: &Physics) -> [f64; 3] {
    physics.site_xpos()[0]
}

impl Bounded for InvertedDoublePendulum {
    /// Even upright the tip is lower than what is wanted, which costs something.
    fn reward_range(&self, _: &Physics) -> Range {
        let heights = ((HEIGHT_WANTED - POLES).powi(2), (HEIGHT_WANTED + POLES).powi(2));
        let spin = squares(1, [-SPIN_MAX, SPIN_MAX]);
        sum([
            at_times(self.options.healthy_reward),
            weighted(-WAY_COST, squares(1, [-CART_MAX - POLES, CART_MAX + POLES])),
            weighted(-1.0, heights),
            weighted(-SPIN_COSTS[0], spin),
            weighted(-SPIN_COSTS[1], spin),
        ])
    }
}

impl BenchmarkTask for InvertedDoublePendulum {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        let scale = self.options.reset_noise_scale;
        add_uniform(physics.qpos_mut(), scale, rng);
        add_normal(physics.qvel_mut(), scale, rng);
        physics.forward();
        Ok(())
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        advance(physics, action, self.options.frame_skip);
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        let clip = |v: &f64| v.clamp(-OBSERVATION_MAX, OBSERVATION_MAX);
        let qpos = physics.qpos();
        out.push(qpos[0]);
        out.extend(qpos[1..].iter().map(|q| q.sin()));
        out.extend(qpos[1..].iter().map(|q| q.cos()));
        out.extend(physics.qvel().iter().map(clip));
        out.extend(physics.qfrc_constraint().iter().take(1).map(clip));
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let ([x, _, y], qvel) = (tip(physics), physics.qvel());
        let alive = if self.terminated(physics) {
            0.0
        } else {
            self.options.healthy_reward
        };
        let distance_penalty = WAY_COST * x.powi(2) + (y - HEIGHT_WANTED).powi(2);
        let velocity_penalty = SPIN_COSTS[0] * qvel[1].powi(2) + SPIN_COSTS[1] * qvel[2].powi(2);
        alive - distance_penalty - velocity_penalty
    }

    fn terminated(&self, physics: &Physics) -> bool {
        tip(physics)[2] <= HEIGHT_MIN
    }

    /// Gymnasium's own: the whole rail and both poles.
    fn camera(&self) -> Camera {
        Camera::Towards {
            point: [0.0, 0.0, 0.1225],
            distance: 4.1225,
        }
    }
}
