//! What the trainer and the robot must agree on: robot specs, observations, the MeanFlow networks and their
//! sampler, distributional critics, and the PolicyBundle that carries them. No ROS, no MuJoCo.

mod bounds;
pub mod bundle;
mod contents;
pub mod critic;
pub mod device;
mod digest;
pub mod fast;
mod foreign;
pub mod fused;
pub mod gradient;
pub mod guard;
mod header;
pub mod kernel;
pub mod manifest;
pub mod mean_flow;
pub mod nn;
pub mod noise;
pub mod observation;
pub mod parameters;
pub mod sampler;
pub mod signature;
pub mod spec;
pub mod subject;
#[cfg(test)]
mod testing;
mod weights;
