//! Bad input other than bundles gets a clear answer, and nothing is lost.

use std::time::Duration;

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::peer::{state, states};
use mfpo_tests::{Qos, TestEnv, assert_says, program, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[test]
fn a_wrong_joint_state_is_refused_whole_and_the_robot_goes_on() {
    let env = TestEnv::new();
    let policy = env.file("policy", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.report_both_joints();
    peer.active();
    let both = ["elbow", "wrist"];
    let nan = f64::NAN;
    for (message, words) in [
        (
            states(&["elbow", "elbow"], &[0.1, 0.2], &[0.0, 0.0]),
            vec!["joint 'elbow' appears twice"],
        ),
        (
            states(&both, &[0.1, nan], &[0.0, 0.0]),
            vec!["position of joint 'wrist' is NaN", "finite"],
        ),
        (
            states(&both, &[f64::NEG_INFINITY, 0.2], &[0.0, 0.0]),
            vec!["position of joint 'elbow' is -inf"],
        ),
        (
            states(&both, &[0.1, 0.2], &[f64::INFINITY, 0.0]),
            vec!["velocity of joint 'elbow' is inf"],
        ),
        (
            states(&both, &[0.1], &[]),
            vec!["position has 1 values for 2 names"],
        ),
        (
            states(&both, &[0.1, 0.2], &[0.0, 0.0, 0.0]),
            vec!["velocity has 3 values for 2 names"],
        ),
        (
            states(&["knee"], &[0.1], &[0.0]),
            vec![
                "no joint of the policy",
                "expected some of [elbow, wrist], got [knee]",
            ],
        ),
        (states(&[], &[], &[]), vec!["carries no names"]),
        (
            states(&["wrsit", "elbow"], &[0.1, 0.1], &[0.0, 0.0]),
            vec!["'wrsit'", "closest: 'wrist'"],
        ),
    ] {
        peer.repeat_states("bad", &message);
        control.says(&words);
        peer.silence("bad");
        let records = peer.next("policy/action", 5);
        assert!(
            records.iter().all(|r| r["fallback"] == false),
            "{words:?}: {records:?}"
        );
    }
    assert_eq!(peer.active()["fallback_ticks"], 0);
}

#[test]
fn states_that_are_all_refused_move_nothing() {
    let env = TestEnv::new();
    let policy = env.file("policy", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.repeat_states("bad", &states(&["elbow", "wrist"], &[f64::NAN; 2], &[0.0, 0.0]));
    control.says(&["position of joint 'elbow' is NaN"]);
    let status = peer.next("policy/status", 3).pop().unwrap_or_default();
    assert_eq!(status["state"], state::WAITING_FOR_STATES, "{status}");
    assert_eq!(peer.count("commands"), 0);
}

#[test]
fn without_a_policy_it_waits_says_so_and_commands_nothing() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let control = env.control(&[]);
    peer.report_both_joints();
    let status = peer.status("it waits for a policy", |s| {
        s["state"] == state::WAITING_FOR_POLICY
    });
    assert_says(
        status["message"].as_str().unwrap_or_default(),
        &[
            "waiting for a policy on topic policy/bundle",
            "commanding nothing",
        ],
    );
    control.says(&["waiting for a policy"]);
    peer.next("policy/status", 4);
    assert_eq!((peer.count("commands"), peer.count("policy/action")), (0, 0));

    let bundle = env.file("bundle", &sealed(&two_joints(CommandInterface::Effort), 7));
    peer.offer(&bundle);
    assert_eq!(peer.active()["version"], 7);
    peer.next("commands", 5);
}

fn command(message: &Value) -> Vec<f64> {
    let data = message["data"].as_array().expect("a command");
    data.iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[test]
fn stale_states_bring_the_fallback_and_fresh_ones_end_it() {
    for (interface, fallback_fits) in [
        // Position: the last command is held.
        (
            CommandInterface::Position,
            (|last, now| now == last) as fn(&[f64], &[f64]) -> bool,
        ),
        // Velocity: a ramp to zero.
        (CommandInterface::Velocity, |_, now| now == [0.0, 0.0]),
        // Effort: nothing is left to damp with, once the velocity is stale.
        (CommandInterface::Effort, |_, now| now == [0.0, 0.0]),
    ] {
        let env = TestEnv::new();
        let policy = env.file("policy", &sealed(&two_joints(interface), 1));
        let mut peer = env.peer("");
        let control = env.control(&[&format!("policy:={}", policy.display()), "stale_timeout:=0.2"]);
        peer.report_both_joints();
        peer.active();
        peer.next("commands", 10);
        peer.silence("robot");
        let status = peer.status("the fallback commands", |s| s["state"] == state::FALLBACK);
        assert_says(
            status["message"].as_str().unwrap_or_default(),
            &["has not reported for", "ms"],
        );
        control.says(&["the fallback commands the robot", "has not reported"]);
        let first = command(&peer.next("commands", 1)[0]);
        let what = format!("the fallback fits {interface:?}");
        until(&what, || {
            let newest = command(&peer.newest("commands")?);
            fallback_fits(&first, &newest).then_some(())
        });
        let record = peer.next("policy/action", 2).pop().unwrap_or_default();
        assert_eq!(record["fallback"], true, "{record}");

        peer.report_both_joints();
        let status = peer.active();
        assert!(status["fallback_ticks"].as_u64() >= status["missed_ticks"].as_u64().map(|n| n.min(1)));
        assert!(
            status["missed_ticks"].as_u64() > Some(0),
            "fallback ticks are missed ticks"
        );
    }
}

#[test]
fn one_silent_joint_is_enough_and_is_named() {
    let env = TestEnv::new();
    let policy = env.file("policy", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let _control = env.control(&[&format!("policy:={}", policy.display()), "stale_timeout:=0.3"]);
    peer.repeat_states("a", &states(&["elbow"], &[0.1], &[0.0]));
    peer.repeat_states("b", &states(&["wrist"], &[0.1], &[0.0]));
    peer.active();
    peer.silence("b");
    peer.status("the fallback commands because of the wrist", |s| {
        let message = s["message"].as_str().unwrap_or_default();
        s["state"] == state::FALLBACK && message.contains("joint 'wrist' has not reported")
    });
}

#[test]
fn the_robot_acts_on_its_own_when_commands_end() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    peer.listen("joint_states", "sensor_msgs/JointState", Qos::Sensor);
    peer.listen("robot/episode", "mfpo_msgs/EpisodeResult", Qos::Latched);
    let robot = env.start("robot", &["--rate", "100", "--episode-seconds", "1"]);
    robot.says(&["waiting for the first command"]);
    let spec = mfpo_sim::registry::robot("swing_arm")
        .expect("the task")
        .spec()
        .clone();
    let bundle = env.file("bundle", &sealed(&spec, 1));
    let mut control = env.control(&[&format!("policy:={}", bundle.display())]);
    // Active is what the node is once it commands; the robot has it a moment later.
    peer.active();
    robot.says(&["first command received"]);
    // Killed in the middle of its work, the node says nothing more.
    control.signal(Signal::SIGKILL);
    control.ended();
    let episodes = until("an episode with a timeout ends", || {
        let episodes = peer.messages("robot/episode", 0);
        let timed_out = episodes.iter().any(|e| e["timeouts"].as_u64() > Some(0));
        timed_out.then_some(episodes)
    });
    assert!(
        episodes.iter().any(|e| e["commands_received"].as_u64() > Some(0)),
        "{episodes:?}"
    );
    // Its own command brakes: the effort is never along the velocity.
    for moment in peer.next("joint_states", 50) {
        let (velocity, effort) = (&moment["velocity"][0], &moment["effort"][0]);
        let power = velocity.as_f64().unwrap_or(f64::NAN) * effort.as_f64().unwrap_or(f64::NAN);
        assert!(power <= 1e-9, "{moment}");
    }
}

#[test]
fn a_command_of_the_wrong_length_or_not_finite_is_refused_by_the_robot() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let robot = env.start("robot", &["--episode-seconds", "0.3", "--no-wait"]);
    let mut send = |data: Value| {
        let kind = "std_msgs/Float64MultiArray";
        peer.publish("commands", kind, Qos::Reliable, json!({"data": data}));
    };
    send(json!([0.1, 0.2]));
    robot.says(&["command refused", "has 2 components; expected 1"]);
    // One warning a second.
    std::thread::sleep(Duration::from_millis(1_100));
    send(json!(["nan"]));
    robot.says(&["command refused", "component 0", "NaN"]);
}

#[test]
fn unknown_names_are_answered_with_the_closest_valid_one() {
    let env = TestEnv::new();
    for (program, arguments, words) in [
        ("robot", vec!["--task", "swing_amr"], ["'swing_amr'", "swing_arm"]),
        (
            "mfpo_train",
            vec!["train", "--task", "swingarm"],
            ["'swingarm'", "swing_arm"],
        ),
        (
            "mfpo_train",
            vec!["train", "--set", "learner.discuont=0.9"],
            ["learner.discuont", "did you mean 'learner.discount'"],
        ),
        (
            "mfpo_train",
            vec!["train", "--set", "lerner.discount=0.9"],
            ["lerner", "did you mean 'learner'"],
        ),
        (
            "control",
            vec!["--ros-args", "-p", "stale_timeot:=0.2"],
            ["'stale_timeot'", "did you mean 'stale_timeout'"],
        ),
        (
            "control",
            vec!["--ros-args", "-p", "trigger:=on_stat"],
            ["got 'on_stat'", "did you mean 'on_state'"],
        ),
        (
            "control",
            vec!["--ros-args", "-p", "stale_timeout:=-1.0"],
            ["above 0", "got -1"],
        ),
        (
            "control",
            vec!["--ros-args", "-p", "candidates:=many"],
            ["expected integer", "many"],
        ),
        (
            "control",
            vec!["--ros-args", "-p", "record.folder:=/dev/null/recordings"],
            ["parameter record.folder", "'/dev/null/recordings'"],
        ),
    ] {
        let output = env.run(program, &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{program} {arguments:?}: {said}");
        assert_says(&said, &words);
    }
}

#[test]
fn a_node_names_a_kernel_that_this_processor_lacks() {
    let env = TestEnv::new();
    let mut command = env.command(&program("control"));
    command
        .env("MFPO_KERNEL", "avx1024")
        .args(["--ros-args", "-p", "trigger:=on_stat"]);
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_says(
        &said,
        &["MFPO_KERNEL is 'avx1024'", "baseline", "did you mean 'on_state'"],
    );
}

#[test]
fn a_file_with_an_unknown_key_is_refused_with_the_closest_valid_one() {
    let env = TestEnv::new();
    let config = env.file("config.toml", b"[learner]\nlearning_rat = 1e-3\n");
    let output = env.run(
        "mfpo_train",
        &["train", "--config", &config.display().to_string()],
    );
    assert_eq!(output.status.code(), Some(1));
    assert_says(
        &String::from_utf8_lossy(&output.stderr),
        &["did you mean 'learner.learning_rate'"],
    );

    let yaml = b"/**:\n  ros__parameters:\n    fallbck: hold\n";
    let file = env.file("params.yaml", yaml);
    let output = env.run(
        "control",
        &["--ros-args", "--params-file", &file.display().to_string()],
    );
    assert_eq!(output.status.code(), Some(1));
    assert_says(
        &String::from_utf8_lossy(&output.stderr),
        &["did you mean 'fallback'"],
    );
}
