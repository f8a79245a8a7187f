//! A task of one's own, in one file: hold a ball in the middle of a beam by tilting it.
//!
//! `cargo run --release -p mfpo_train --example ball_on_beam -- train --task ball_on_beam`

use std::process::ExitCode;

use mfpo_sim::physics::Physics;
use mfpo_sim::tasks::{Benchmark, BenchmarkTask};
use mfpo_sim::{SimError, TaskOptions, registry};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

const MODEL: &str = r#"
<mujoco model="ball_on_beam">
  <option timestep="0.005"/>
  <worldbody>
    <light pos="0 -2 3"/>
    <body name="beam" pos="0 0 1">
      <joint name="tilt" axis="0 1 0" range="-20 20" damping="0.5"/>
      <geom type="box" size="0.5 0.05 0.01" mass="0.5"/>
      <body name="ball" pos="0 0 0.05">
        <joint name="roll" type="slide" axis="1 0 0" range="-0.5 0.5" damping="0.02"/>
        <geom type="sphere" size="0.04" mass="0.1"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="tilt" gear="3" ctrlrange="-1 1"/>
  </actuator>
</mujoco>"#;

struct BallOnBeam;

impl BenchmarkTask for BallOnBeam {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        physics.qpos_mut()[1] = rng.random_range(-0.4..0.4);
        physics.forward();
        Ok(())
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        physics.ctrl_mut().copy_from_slice(action);
        physics.advance(4);
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        out.extend_from_slice(physics.qpos());
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, _action: &[f64]) -> f64 {
        (-20.0 * physics.qpos()[1].powi(2)).exp()
    }

    fn terminated(&self, _physics: &Physics) -> bool {
        false
    }
}

pub(crate) fn make(_options: &TaskOptions) -> Result<Benchmark, SimError> {
    Ok(Benchmark {
        physics: Physics::from_xml(MODEL)?,
        task: Box::new(BallOnBeam),
        control_period: 4.0 * 0.005,
        episode_steps: 250,
        reward_range: (0.0, 1.0),
        stops_at_warnings: true,
    })
}

fn main() -> ExitCode {
    registry::register("ball_on_beam", make);
    mfpo_train::cli::main()
}
