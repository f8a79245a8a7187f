//! MuJoCo tasks to learn in, and a simulated robot to run a policy on.
//!
//! A task is made by name: [`registry::make`] gives an [`Env`] for training and evaluation, and the same robot runs
//! in real time as a [`robot::Robot`]. Observations and commands go through `mfpo_policy::observation` only, so that
//! the trainer, the simulated robot and a real one share the function.
//!
//! ```
//! use mfpo_sim::{EnvOptions, registry};
//!
//! let mut env = registry::make("swing_arm", &EnvOptions::default())?;
//! let mut observation = env.reset(7)?;
//! let step = env.step(&[1.0])?;
//! observation.copy_from_slice(&step.observation);
//! # Ok::<(), mfpo_sim::SimError>(())
//! ```

pub mod camera;
pub mod env;
mod error;
pub mod physics;
#[cfg(feature = "renderer")]
pub mod picture;
pub mod randomize;
pub mod robot;
#[cfg(feature = "ros")]
pub mod ros;
pub mod tasks;
pub mod vector_env;

pub use camera::Camera;
pub use env::{Env, EnvOptions, EnvSpec, Info, Mode, Step, TaskOptions};
pub use error::SimError;
pub use randomize::Randomization;
pub use tasks::registry;
pub use tasks::rollout::{FullState, Outcome, Rollout};
pub use vector_env::VectorEnv;
