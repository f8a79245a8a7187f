//! `cargo xtask test`: set-up, the messages from Python, then the tests of the workspace.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::aarch64;
use crate::cargo;
use crate::environment::Environment;
use crate::probe;
use crate::setup;
use crate::workspace::Workspace;

/// Sends one of each message over DDS, from Python to Python.
const MESSAGES: &str = include_str!("../python/check_messages.py");

/// Where the golden tests run.
const TEST_DEVICE: &str = "MFPO_TEST_DEVICE";

/// What `cargo test` is told.
#[derive(clap::Args)]
pub struct Args {
    /// Run the tests that take minutes (targets named `slow`) instead of the others.
    #[arg(long)]
    slow: bool,
    /// Build with CUDA and run the golden tests on the GPU that MFPO_TEST_DEVICE names [default: cuda:0].
    #[arg(long)]
    cuda: bool,
    /// Run the tests of mfpo_policy for 64-bit ARM in an emulator instead; needs no set-up.
    #[arg(long, conflicts_with_all = ["slow", "cuda"])]
    aarch64: bool,
    /// Words for `cargo test`, as a test's name or `-p PACKAGE`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
    words: Vec<String>,
}

/// Runs the tests.
pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    if args.aarch64 {
        return aarch64::test(workspace, &args.words);
    }
    let environment = setup::run(workspace)?;
    let cuda = cargo::cuda(&environment, args.cuda)?;
    check_messages(&environment)?;
    // The tests of the whole system start the programs, which `cargo test` alone does not build for them.
    let mut build = cargo::command(workspace, &environment);
    build
        .arg("build")
        .args(cargo::WHOLE)
        .args(cuda)
        .args(["--bins", "--exclude", "xtask"]);
    cargo::run(build)?;
    let mut test = cargo::command(workspace, &environment);
    let scope: &[&str] = if names_package(&args.words) {
        &["--release", "--locked"]
    } else {
        &cargo::WHOLE
    };
    test.arg("test").args(scope).args(cuda);
    if args.slow {
        // Their figures are part of what they tell.
        test.args(["--test", "slow"]).args(&args.words);
        test.args(["--", "--nocapture", "--test-threads", "1"]);
    } else {
        test.args(&args.words);
    }
    if args.cuda && std::env::var_os(TEST_DEVICE).is_none() {
        test.env(TEST_DEVICE, "cuda:0");
    }
    keep_to_this_machine(&mut test, &environment);
    without_egl(workspace, &mut test);
    cargo::run(test)?;
    Ok(ExitCode::SUCCESS)
}

/// Pictures need EGL, which no wheel holds: without it their tests check the error instead.
fn without_egl(workspace: &Workspace, test: &mut Command) {
    if probe::egl(workspace).is_none() {
        eprintln!(
            "No EGL: the tests of pictures check only the error; `cargo xtask doctor` tells what to install."
        );
        test.env("MFPO_WITHOUT_RENDERING", "1");
    }
}

fn names_package(words: &[String]) -> bool {
    words
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word.starts_with("-p") || word.starts_with("--package"))
}

/// Variables that may name other machines, whatever the range of discovery is.
const ELSEWHERE: [&str; 7] = [
    "ROS_STATIC_PEERS",
    "ROS_DISCOVERY_SERVER",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_ENVIRONMENT_FILE",
    "ROS2_EASY_MODE",
    "CYCLONEDDS_URI",
];

/// Robots on the network neither see the tests nor are seen by them.
fn keep_to_this_machine(command: &mut Command, environment: &Environment) {
    without_others(command);
    let (name, value) = range(environment.distro());
    command.env(name, value);
}

fn without_others(command: &mut Command) {
    for name in ELSEWHERE {
        command.env_remove(name);
    }
}

/// What keeps the distribution `distro` to this machine (mfpo_ros::this_machine says why, which is not to be had here).
fn range(distro: &str) -> (&'static str, &'static str) {
    match distro {
        "humble" => ("ROS_LOCALHOST_ONLY", "1"),
        _ => ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
    }
}

fn check_messages(environment: &Environment) -> Result<()> {
    let mut command = Command::new("python3");
    environment.apply(&mut command);
    keep_to_this_machine(&mut command, environment);
    command.env("ROS_DOMAIN_ID", (1 + std::process::id() % 100).to_string());
    cargo::run_named(command.args(["-c", MESSAGES]), "mfpo_msgs from rclpy")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{names_package, range};

    #[test]
    fn named_package_is_tested_alone() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(names_package(&words("-p mfpo_policy golden")));
        assert!(names_package(&words("--package=mfpo_sim")));
        assert!(!names_package(&words("golden -- -p")));
    }

    #[test]
    fn tests_neither_reach_out_nor_are_told_to() {
        let mut command = Command::new("true");
        command.env("ROS_DISCOVERY_SERVER", "10.0.0.1:11811");
        super::without_others(&mut command);
        let told: Vec<_> = command.get_envs().collect();
        assert_eq!(told.len(), super::ELSEWHERE.len());
        assert!(told.iter().all(|(_, value)| value.is_none()), "{told:?}");
    }

    #[test]
    fn humble_knows_no_range_of_discovery() {
        assert_eq!(range("humble"), ("ROS_LOCALHOST_ONLY", "1"));
        assert_eq!(range("kilted"), ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"));
    }
}
