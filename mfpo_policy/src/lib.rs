//! What the trainer and the robot must agree on: robot specs, observations, the MeanFlow networks and their
//! sampler, distributional critics, and the PolicyBundle that carries them. No ROS, no MuJoCo.

pub mod kernel;
pub mod observation;
pub mod spec;
#[cfg(test)]
mod testing;
