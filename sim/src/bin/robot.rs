//! `robot`: a simulated robot on ROS 2, in real time.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use mfpo_ros::{args, log, shutdown, transport};
use mfpo_sim::robot::{EpisodeResult, Robot, RobotOptions};
use mfpo_sim::ros::RosLink;
use tracing::{error, info};

/// A robot simulated in MuJoCo, on ROS 2, in real time. It publishes `joint_states` and `robot/episode`, the
/// episode's `goal` where the task has goals, and obeys `commands`. ROS arguments work as for every node: `robot --ros-args -r __ns:=/left`.
#[derive(Debug, Parser)]
#[command(name = "robot", version)]
struct Arguments {
    /// The task whose robot to simulate
    #[arg(long, default_value = "swing_arm")]
    task: String,
    /// Seed of the list of starts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of starts, which are gone through again and again
    #[arg(long, default_value_t = 20)]
    starts: u64,
    /// Joint states a second, Hz
    #[arg(long, default_value_t = 250.0)]
    rate: f64,
    /// Length of an episode, s [default: the task's own]
    #[arg(long)]
    episode_seconds: Option<f64>,
    /// Time without a command after which the robot acts on its own, s
    #[arg(long, default_value_t = 0.1)]
    command_timeout: f64,
    /// Begin the first episode at once instead of with the first command
    #[arg(long)]
    no_wait: bool,
    /// Print one JSON object per episode on standard output
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse_from(args::without_ros_args(std::env::args()));
    transport::settle();
    log::init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            error!("{cause:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    shutdown::install().context("cannot catch SIGINT and SIGTERM")?;
    let options = RobotOptions {
        task: arguments.task,
        seed: arguments.seed,
        starts: arguments.starts,
        rate: arguments.rate,
        episode_seconds: arguments.episode_seconds,
        command_timeout: arguments.command_timeout,
        wait_for_command: !arguments.no_wait,
    };
    let mut robot = Robot::new(options.clone())?;
    let json = arguments.json;
    let mut link = RosLink::new(&robot, Box::new(move |result| report(result, json)))?;
    info!(
        "robot '{}': joint_states at {} Hz, commands time out after {} s",
        options.task, options.rate, options.command_timeout
    );
    if options.wait_for_command {
        info!("waiting for the first command");
    }
    let summary = robot.run(&mut link, &shutdown::requested)?;
    info!(
        "stopped after {} episodes, {} successful; real-time factor {:.3}",
        summary.episodes, summary.successes, summary.real_time_factor
    );
    match shutdown::failure() {
        Some(why) => bail!("{why}"),
        None => Ok(()),
    }
}

fn report(result: &EpisodeResult, json: bool) {
    if json {
        // Numbers and booleans only, so that this cannot fail.
        let line = serde_json::to_string(result).unwrap_or_default();
        // Not println, which panics where nobody reads it; a robot that is to report and cannot ends instead.
        if let Err(error) = writeln!(std::io::stdout(), "{line}") {
            shutdown::fail(format!(
                "episode {} cannot be told on standard output: {error}",
                result.index
            ));
        }
        return;
    }
    let outcome = if result.success { "success" } else { "no success" };
    info!(
        "episode {}: {outcome}, return {:.1}, {} commands, {} timeouts, real-time factor {:.3}",
        result.index,
        result.episode_return,
        result.commands_received,
        result.timeouts,
        result.real_time_factor
    );
}
