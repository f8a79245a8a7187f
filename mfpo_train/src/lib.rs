//! The MFPO trainer: learns a MeanFlow policy online in MuJoCo, and seals every better one for the robot.
//!
//! Start at [`train`]: the loop is on one page.

pub mod algorithm;
pub mod appended_file;
pub mod checkpoint;
pub mod cli;
pub mod collapse;
pub mod conditions;
pub mod config;
mod difference;
pub mod episode;
pub mod eval;
pub mod evaluate;
pub mod events;
pub mod film;
pub mod footprint;
pub mod guard;
pub mod idle;
pub mod inspect;
pub mod keys;
pub mod learner;
pub mod metrics;
pub mod normalize;
pub mod overlay;
pub mod pace;
pub mod plot;
pub mod progress;
pub mod publish;
pub mod recorder;
pub mod replay_buffer;
pub mod resumption;
pub mod rollout;
#[cfg(feature = "ros")]
pub mod ros;
pub mod run_info;
pub mod sac;
pub mod seeds;
pub mod state;
pub mod statistics;
pub mod train;
