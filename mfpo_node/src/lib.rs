//! The ROS 2 control node. A joint state becomes a command in [`control_loop`]; a trained weight becomes the live
//! policy in [`weights`]; [`ros`] is the only part that knows ROS.

pub mod agreement;
pub mod arrivals;
pub mod backlog;
pub mod budget;
pub mod causes;
pub mod config;
pub mod contradiction;
pub mod control_loop;
pub mod diagnostics;
pub mod goal;
pub mod joint_states;
pub mod lateness;
pub mod lifecycle;
pub mod metrics;
pub mod probe;
pub mod pulse;
pub mod realtime;
pub mod recording;
pub mod replay;
pub mod ros;
pub mod safety;
pub mod schedule;
pub mod sim_time;
pub mod status;
pub mod time;
pub mod weights;
