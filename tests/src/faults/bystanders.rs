//! Programs of the same machine that have nothing to do with the robot: they come late, hang, and are killed. They reach others
//! by shared memory, too, as ROS 2 has it.

use std::path::Path;
use std::time::Duration;

use mfpo_policy::spec::CommandInterface;
use nix::sys::signal::Signal;

use super::outcome::Outcome;
use super::stand::Stand;
use super::{Row, Scene};
use crate::{Process, repository};

/// Seconds from when one joins to when it listens. Fast DDS looks after its ports once a second, and whoever opens one just
/// then would wait by shared memory.
const LATE: [f64; 6] = [1.15, 1.3, 2.1, 2.2, 2.3, 3.15];
/// How long one hangs: longer than Fast DDS takes to call its port broken.
const HANGS: Duration = Duration::from_secs(4);

pub(super) fn scenes() -> Vec<Scene> {
    let rows = vec![
        Row::new(
            "six other ROS 2 programs start, listen to states and commands later, are killed (SIGKILL) and start again",
            others_come_and_go,
        ),
        Row::new(
            "a program that listens to states, commands and records hangs (SIGSTOP) for 4 s and is killed (SIGKILL)",
            one_hangs,
        ),
    ];
    vec![Scene {
        title: "Other programs of the machine",
        start: || Stand::of(CommandInterface::Effort, &[]),
        rows,
    }]
}

/// A program that listens so late.
fn bystander(stand: &Stand, seconds: f64, topics: &[&str]) -> Process {
    let mut command = stand.env.command(Path::new("python3"));
    command
        .arg(repository().join("tests/python/bystander.py"))
        .arg(seconds.to_string())
        .args(topics);
    stand.env.launch("bystander", command)
}

fn others_come_and_go(stand: &mut Stand) -> Outcome {
    for _ in 0..2 {
        let topics = [
            "joint_states",
            "sensor_msgs/JointState",
            "commands",
            "std_msgs/Float64MultiArray",
        ];
        let others = LATE.map(|seconds| bystander(stand, seconds, &topics));
        for other in &others {
            other.says(&["listening"]);
        }
        // What a node waits for with locks held, it waits for a third of a second at a time.
        std::thread::sleep(Duration::from_millis(500));
        others.iter().for_each(|other| other.signal(Signal::SIGKILL));
    }
    std::thread::sleep(Duration::from_secs(2));
    stand.goes_on(String::new(), "not needed")
}

fn one_hangs(stand: &mut Stand) -> Outcome {
    let topics = [
        "joint_states",
        "sensor_msgs/JointState",
        "commands",
        "std_msgs/Float64MultiArray",
        "policy/action",
        "mfpo_msgs/PolicyAction",
    ];
    let other = bystander(stand, 0.2, &topics);
    other.says(&["listening"]);
    std::thread::sleep(Duration::from_millis(300));
    other.signal(Signal::SIGSTOP);
    std::thread::sleep(HANGS);
    other.signal(Signal::SIGKILL);
    std::thread::sleep(Duration::from_secs(1));
    stand.goes_on(String::new(), "not needed")
}
