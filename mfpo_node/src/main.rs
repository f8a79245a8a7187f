//! `control`: commands a robot with a learned policy over ROS 2. Parse, configure, run, exit code.

use std::process::ExitCode;

use clap::Parser;

/// Commands a robot with a MeanFlow policy: `joint_states` in, `commands` out, better policies from `policy/bundle`.
///
/// Everything is set by ROS parameters: `control --ros-args -p policy:=/path/to/bundle -p trigger:=on_state`, or
/// `--params-file FILE`; `-r __ns:=/left` puts the node into a namespace. RUST_LOG sets what is logged.
#[derive(Debug, Parser)]
#[command(name = "control", version)]
struct Arguments {}

fn main() -> ExitCode {
    let _: Arguments = Arguments::parse_from(mfpo_ros::args::without_ros_args(std::env::args()));
    mfpo_ros::transport::settle();
    let log = mfpo_ros::log::init_with_queue();
    match mfpo_node::ros::run(log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", mfpo_node::causes::in_words(&error));
            ExitCode::FAILURE
        }
    }
}
