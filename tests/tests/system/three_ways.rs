//! The three ways of the architecture; the second, a transition becomes a gradient, is in `gradient.rs`.

use std::time::Duration;

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{RUN, digest_of, sealed, two_joints};
use mfpo_tests::peer::{state, states};
use mfpo_tests::{Peer, Process, Qos, TestEnv, Witness, until};
use nix::sys::signal::Signal;
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    let all = value.as_array().expect("a list");
    all.iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[test]
fn rclpy_publishes_joint_states_and_gets_commands() {
    let env = TestEnv::new();
    let bundle = sealed(&two_joints(CommandInterface::Effort), 3);
    let policy = env.file("policy.safetensors", &bundle);
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.report_both_joints();

    let status = peer.active();
    assert_eq!((&status["run"], &status["version"]), (&RUN.into(), &3.into()));
    assert_eq!(status["digest"], digest_of(&bundle));
    assert_eq!(status["robot"], "two_joints");
    assert_eq!(status["joint_names"], serde_json::json!(["elbow", "wrist"]));

    for command in peer.next("commands", 50) {
        let command = numbers(&command["data"]);
        assert!(
            command.len() == 2 && command.iter().all(|c| c.abs() <= 0.5),
            "{command:?}"
        );
    }
    let records = peer.next("policy/action", 50);
    for record in &records {
        let (action, raw) = (numbers(&record["action"]), numbers(&record["command_raw"]));
        assert!(
            action.iter().zip(&raw).all(|(a, r)| (0.5 * a - r).abs() < 1e-6),
            "{record}"
        );
        assert_eq!(record["version"], 3);
        assert_eq!(record["steps"], 2);
        assert!(record["state_stamp"]["sec"].as_i64() > Some(0), "{record}");
    }
    let differ = records.windows(2).filter(|r| r[0]["action"] != r[1]["action"]);
    assert!(
        differ.count() > 40,
        "a MeanFlow policy samples: hardly two actions are equal"
    );
    control.says(&["every joint reports"]);
}

#[test]
fn a_policy_trained_for_position_commands_a_joint_trajectory() {
    let env = TestEnv::new();
    let policy = env.file("policy", &sealed(&two_joints(CommandInterface::Position), 0));
    let mut peer = env.peer("");
    peer.listen("trajectory", "trajectory_msgs/JointTrajectory", Qos::Reliable);
    let parameters = format!("policy:={}", policy.display());
    let _control = env.start(
        "control",
        &[
            "--ros-args",
            "-p",
            &parameters,
            "-p",
            "stale_timeout:=1.0",
            "-p",
            "command_topic_type:=joint_trajectory",
            "-r",
            "commands:=trajectory",
        ],
    );
    peer.report_both_joints();
    for command in peer.next("trajectory", 10) {
        assert_eq!(command["joint_names"], serde_json::json!(["wrist", "elbow"]));
        let point = &command["points"][0];
        assert_eq!(numbers(&point["positions"]).len(), 2);
        assert!(numbers(&point["velocities"]).is_empty());
        assert_eq!(point["time_from_start"]["nanosec"], 20_000_000);
    }
}

#[test]
fn arriving_states_trigger_ticks_at_the_policys_rate() {
    let env = TestEnv::new();
    let policy = env.file("policy", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let policy = format!("policy:={}", policy.display());
    let _control = env.control(&[&policy, "trigger:=on_state"]);
    peer.report_both_joints();
    peer.active();
    // States come at 100 Hz, the policy was trained for 50 Hz.
    peer.status("50 ticks a second", |s| {
        s["tick_rate"]
            .as_f64()
            .is_some_and(|rate| (40.0..60.0).contains(&rate))
            && s["ticks"].as_u64() > Some(100)
    });
    peer.silence("robot");
    peer.status("the fallback commands", |s| s["state"] == state::FALLBACK);
    peer.next("commands", 5);
}

#[test]
fn joints_of_several_publishers_without_velocities_are_put_together() {
    let env = TestEnv::new();
    let policy = env.file("policy", &sealed(&two_joints(CommandInterface::Effort), 0));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.repeat_states("arm", &states(&["elbow"], &[0.1], &[]));
    let waiting = peer.status("it waits for the wrist", |s| {
        s["state"] == state::WAITING_FOR_STATES
            && s["message"].as_str().unwrap_or_default().contains("[wrist]")
    });
    assert_eq!(waiting["joint_ages"][1], "inf", "{waiting}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        peer.count("commands"),
        0,
        "nothing is commanded while a joint is missing"
    );

    peer.repeat_states("hand", &states(&["gripper", "wrist"], &[9.0, 0.2], &[]));
    peer.active();
    control.says(&["'gripper'", "is left out"]);
    assert_eq!(
        peer.next("commands", 5)[0]["data"].as_array().map(Vec::len),
        Some(2)
    );
}

/// Robot, node and trainer with networks that are trained in little time; the trainer is niced.
struct LearningRobot {
    robot: Process,
    control: Process,
    trainer: Process,
    peer: Peer,
}

impl LearningRobot {
    fn start(env: &TestEnv, run: &str) -> Self {
        let mut peer = env.peer("");
        peer.listen("joint_states", "sensor_msgs/JointState", Qos::Sensor);
        let robot = env.start("robot", &["--rate", "100", "--episode-seconds", "0.5"]);
        // A tick must not be late because the machine paused for a moment; staleness is another test's.
        // Several policies have to get through all stages of their swaps in a few seconds.
        let stages = ["swap.shadow:=0.06", "swap.blend:=0.1", "swap.probation:=0.2"];
        let control = env.control(&[&["robot:=swing_arm"][..], &stages].concat());
        let waiting = peer.status("it waits for a policy", |s| {
            s["state"] == state::WAITING_FOR_POLICY
        });
        assert_eq!(waiting["version"], 0);
        let folder = env.path(run);
        let mut arguments = vec!["train", "--topic", "--quiet", "--nice", "19", "--seed", "5"];
        let out = format!("--out={}", folder.display());
        arguments.extend([&*out, "--steps=1000000", "--publish-every=40"]);
        for set in [
            "--set=run.random_steps=200",
            "--set=learner.batch_size=16",
            "--set=evaluation.every=1000000",
            "--set=evaluation.episodes=1",
        ] {
            arguments.push(set);
        }
        let trainer = env.start("mfpo_train", &arguments);
        Self {
            robot,
            control,
            trainer,
            peer,
        }
    }

    fn version_of_at_least(&self, version: u64) -> Value {
        self.peer.status(&format!("version {version} is live"), |s| {
            s["state"] == state::ACTIVE && s["version"].as_u64() >= Some(version)
        })
    }
}

/// Of the policy: a command that is this late is a missed tick.
const PERIOD: Duration = Duration::from_millis(20);

#[test]
fn a_trained_bundle_goes_live_in_a_moving_robot_without_a_missed_tick() {
    let env = TestEnv::alone();
    for attempt in 1..=4 {
        let system = LearningRobot::start(&env, &format!("attempt{attempt}"));
        let witness = Witness::start(PERIOD);
        system.version_of_at_least(8);
        let status = system
            .peer
            .status("five seconds of ticks", |s| s["ticks"].as_u64() > Some(250));
        assert!(status["swaps"].as_u64() >= Some(4), "{status}");
        assert!(
            !status["previous_digest"].as_str().unwrap_or_default().is_empty(),
            "{status}"
        );
        assert_ne!(status["digest"], status["previous_digest"]);
        assert_eq!(status["rejections"], 0, "{status}");
        versions_rise_and_the_robot_moves(&system);
        let status = system.peer.active();
        let latest = witness.worst();
        if status["missed_ticks"] == 0 {
            return;
        }
        // Where a thread that does nothing but sleep came late as well, the attempt says nothing of the swaps.
        assert!(
            latest > PERIOD,
            "missed ticks while the machine kept time within {latest:?}: {status:#}"
        );
        eprintln!("attempt {attempt} is void: the machine itself was {latest:?} late");
    }
    panic!("the machine is too busy to tell whether ticks are missed");
}

fn versions_rise_and_the_robot_moves(system: &LearningRobot) {
    let records = system.peer.messages("policy/action", 0);
    let versions: Vec<u64> = records.iter().filter_map(|r| r["version"].as_u64()).collect();
    assert!(versions.is_sorted(), "an older policy acted again: {versions:?}");
    assert!(records.iter().all(|r| r["fallback"] == false));
    let positions = system.peer.messages("joint_states", 0);
    let positions = positions.iter().filter_map(|s| s["position"][0].as_f64());
    let (low, high) = positions.fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p), h.max(p)));
    assert!(high - low > 0.2, "the robot moved only from {low} to {high}");
}

#[test]
fn a_killed_trainer_leaves_the_robot_running() {
    let env = TestEnv::new();
    let mut system = LearningRobot::start(&env, "run");
    system.version_of_at_least(1);
    system.trainer.signal(Signal::SIGKILL);
    assert!(!system.trainer.ended().success());
    // A bundle that was under way may still arrive.
    let mut last = system.peer.active();
    until("the last bundle has arrived", || {
        system.peer.next("policy/status", 4);
        let before = std::mem::replace(&mut last, system.peer.active());
        (before["version"] == last["version"]).then_some(())
    });
    system.peer.next("commands", 50);
    let after = system.peer.active();
    for kept in ["run", "version", "digest", "swaps"] {
        assert_eq!(after[kept], last[kept], "{kept}");
    }
    assert!(system.control.has_ended().is_none() && system.robot.has_ended().is_none());
}
