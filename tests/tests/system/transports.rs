//! How the programs reach others: by UDP alone, unless the user has chosen.

use std::fs;

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::{Process, Qos, TestEnv, program, until};

/// Does a program have memory that Fast DDS shares with others?
fn shares_memory(process: &Process) -> bool {
    let maps = fs::read_to_string(format!("/proc/{}/maps", process.id())).expect("a program that runs");
    maps.contains("/fastdds_") || maps.contains("/fastrtps_")
}

const NONE: &str = "no shared memory of Fast DDS in use";

#[test]
fn the_node_and_the_robot_share_no_memory_with_others() {
    let env = TestEnv::new();
    let policy = env.file(
        "policy.safetensors",
        &sealed(&two_joints(CommandInterface::Effort), 1),
    );
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    let robot = env.start("robot", &["--ros-args", "-r", "__ns:=/another"]);
    peer.listen("/another/joint_states", "sensor_msgs/JointState", Qos::Sensor);
    peer.report_both_joints();
    peer.active();
    until("the robot reports", || peer.newest("/another/joint_states"));
    for process in [&control, &robot] {
        process.says(&[NONE]);
        assert!(!shares_memory(process), "{}", process.log());
    }
}

/// What `control` says where variables are set, and whether it shares memory then.
fn with(variables: &[(&str, &str)], words: &[&str]) -> bool {
    let env = TestEnv::new();
    let mut command = env.command(&program("control"));
    command.envs(variables.iter().copied());
    let control = env.launch("control", command);
    control.says(words);
    shares_memory(&control)
}

#[test]
fn whoever_wants_shared_memory_has_it() {
    let wanted = ("FASTDDS_BUILTIN_TRANSPORTS", "DEFAULT");
    assert!(with(
        &[wanted],
        &["INFO", "shared memory in use, because", wanted.0]
    ));
}

#[test]
fn udp_is_had_where_the_middleware_does_not_go_by_its_variable() {
    // The middleware brings shared memory of its own where it keeps to this machine, as here.
    assert!(!with(&[("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")], &[NONE]));
}

#[test]
fn shared_memory_that_nobody_wants_is_warned_of() {
    let nowhere = [("ROS_HOME", "/proc"), ("XDG_RUNTIME_DIR", "/proc")];
    assert!(with(
        &nowhere,
        &[
            "WARN",
            "cannot write /proc/mfpo/",
            "FASTDDS_BUILTIN_TRANSPORTS=UDPv4"
        ]
    ));
}
