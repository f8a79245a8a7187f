//! `cargo xtask`: the set-up of this workspace and the commands that need it.
//!
//! Nothing of the workspace is used here, so that this builds before anything is set up.

mod aarch64;
mod bench;
mod cargo;
mod cuda;
mod demo;
mod doctor;
mod environment;
mod hash;
mod messages;
mod models;
mod mujoco;
mod peers;
mod probe;
mod process;
mod progress;
mod python;
mod repair;
mod ros;
mod setup;
mod stamp;
mod system;
mod test;
mod venv;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Sets up, shows, tests and measures this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Gets ROS 2 (unless one is sourced), MuJoCo and the messages into .deps and writes .deps/setup.bash.
    Setup(cuda::Args),
    /// Says what is found and, for each missing thing, the line to type.
    Doctor,
    /// Sets up, builds and runs the tests, those over real ROS 2 included; with --slow those that take minutes.
    Test(test::Args),
    /// Sets up, builds and shows a robot that learns while it moves.
    Demo(demo::Args),
    /// Sets up, builds and runs one benchmark.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match args.command {
        Command::Setup(args) => setup::run_with(&workspace, &args).map(|environment| {
            eprintln!("All is there: {}.", environment.summary());
            eprintln!("For plain cargo and colcon: source .deps/setup.bash");
            ExitCode::SUCCESS
        }),
        Command::Doctor => doctor::run(&workspace),
        Command::Test(args) => test::run(&workspace, &args),
        Command::Demo(args) => demo::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
    }
}
