//! The executable `robot` over real ROS 2. Run with `--features ros`, in the environment that `cargo xtask setup`
//! writes.

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mfpo_ros::r2r::mfpo_msgs::msg::EpisodeResult;
use mfpo_ros::r2r::sensor_msgs::msg::JointState;
use mfpo_ros::r2r::std_msgs::msg::Float64MultiArray;
use mfpo_ros::{Inbox, create_node, qos};

/// Ends the robot however the test ends.
struct RobotProcess(Child);

impl RobotProcess {
    fn start(namespace: &str, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_robot"))
            .args(arguments)
            .args(["--ros-args", "-r", &format!("__ns:={namespace}")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Sends `signal` and returns exit code and standard output.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the robot does not end on {signal}");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut output = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        (self.0.wait().unwrap().code(), output)
    }
}

impl Drop for RobotProcess {
    fn drop(&mut self) {
        // Has usually ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn robot(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_robot"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_robot_obeys_commands_over_ros_2_reports_episodes_and_ends_cleanly() {
    let namespace = format!("/robot_test_{}", std::process::id());
    let topic = |name: &str| format!("{namespace}/{name}");
    let mut node = create_node("robot_test").unwrap();
    let mut states: Inbox<JointState> =
        Inbox::subscribe(&mut node, &topic("joint_states"), qos::JOINT_STATES).unwrap();
    let mut episodes: Inbox<EpisodeResult> =
        Inbox::subscribe(&mut node, &topic("robot/episode"), qos::ROBOT_EPISODE).unwrap();
    let commands = node
        .create_publisher::<Float64MultiArray>(&topic("commands"), qos::COMMANDS)
        .unwrap();
    let process = RobotProcess::start(&namespace, &["--episode-seconds", "0.5", "--json"]);

    let began = Instant::now();
    let (mut obeyed, mut results, mut sent) = (0, Vec::new(), 0);
    while obeyed < 20 || results.len() < 3 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{obeyed} states with the command, {} episodes",
            results.len()
        );
        node.spin_once(Duration::from_millis(10));
        while let Some(state) = states.pop() {
            assert_eq!(state.name, ["shoulder"]);
            assert_eq!(state.velocity.len(), 1);
            obeyed += usize::from(state.effort == [0.125]);
        }
        while let Some(result) = episodes.pop() {
            results.push(result);
        }
        // Every fifth command is of the wrong length and must change nothing.
        let data = if sent % 5 == 4 {
            vec![0.1, 0.1]
        } else {
            vec![0.125]
        };
        commands
            .publish(&Float64MultiArray {
                data,
                ..Default::default()
            })
            .unwrap();
        sent += 1;
    }
    for (k, result) in results.iter().enumerate() {
        assert_eq!(result.index, k as u64);
        assert!((result.duration - 0.5).abs() < 1e-9);
        assert!(result.commands_received > 0);
        assert!(!result.success);
    }
    let (code, output) = process.end("-INT");
    assert_eq!(code, Some(0));
    let lines: Vec<serde_json::Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.len() >= 3);
    assert!(
        lines
            .iter()
            .any(|line| line["commands_refused"].as_u64() > Some(0))
    );
}

#[test]
fn a_robot_without_commands_ends_cleanly_too() {
    let namespace = format!("/robot_idle_{}", std::process::id());
    let process = RobotProcess::start(&namespace, &["--no-wait", "--episode-seconds", "0.2", "--json"]);
    std::thread::sleep(Duration::from_millis(1500));
    let (code, output) = process.end("-TERM");
    assert_eq!(code, Some(0));
    let first: serde_json::Value = serde_json::from_str(output.lines().next().unwrap()).unwrap();
    assert_eq!(first["commands_received"], 0);
    assert_eq!(first["success"], false);
}

#[test]
fn a_robot_whose_episodes_nobody_reads_ends_with_the_reason() {
    let (reader, nobody) = std::io::pipe().unwrap();
    drop(reader);
    let namespace = format!("__ns:=/robot_unread_{}", std::process::id());
    let output = Command::new(env!("CARGO_BIN_EXE_robot"))
        .args(["--no-wait", "--episode-seconds", "0.2", "--json"])
        .args(["--ros-args", "-r", &namespace])
        .stdout(nobody)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("episode 0 cannot be told on standard output") && !said.contains("panicked"),
        "{said}"
    );
}

#[test]
fn wrong_arguments_are_answered_with_the_closest_valid_ones() {
    let output = robot(&["--task", "swingarm"]);
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("did you mean 'swing_arm'?"), "{message}");

    let output = robot(&["--rate", "0"]);
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("rate"));

    let output = robot(&["--episode-second", "1"]);
    assert!(!output.status.success());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--episode-seconds")
    );

    assert!(robot(&["--version"]).status.success());
}
