//! Ends of a topic that do not fit each other: named, where DDS is silent.

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::peer::states;
use mfpo_tests::{Peer, Process, Qos, TestEnv, assert_says, until};
use serde_json::{Value, json};

const OK: u8 = 0;
const WARN: u8 = 1;
const ERROR: u8 = 2;

fn at_rest() -> Value {
    states(&["elbow", "wrist"], &[0.1, 0.2], &[0.0, 0.0])
}

/// A node with version 1, these parameters, and nobody who reports joint states.
fn node(env: &TestEnv, parameters: &[&str]) -> (Peer, Process) {
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let policy = format!("policy:={}", policy.display());
    let mut peer = env.peer("");
    peer.listen("/diagnostics", "diagnostic_msgs/DiagnosticArray", Qos::Reliable);
    let control = env.control(&[&[policy.as_str()], parameters].concat());
    (peer, control)
}

/// Waits until the part `connections` of `/diagnostics` is at a level, and returns its message.
fn connections(peer: &Peer, level: u8) -> String {
    until(&format!("connections are at level {level}"), || {
        let newest = peer.newest("/diagnostics")?;
        let part = newest["status"]
            .as_array()?
            .iter()
            .find(|part| part["name"] == "control: connections")?;
        (part["level"] == level).then(|| part["message"].as_str().unwrap_or_default().to_owned())
    })
}

const STATES: (&str, &str) = ("joint_states", "sensor_msgs/JointState");

#[test]
fn joint_states_that_offer_less_than_is_requested_are_named_until_they_fit() {
    let env = TestEnv::new();
    let (mut peer, control) = node(
        &env,
        &["qos_overrides./joint_states.subscription.reliability:=reliable"],
    );
    connections(&peer, OK);
    peer.repeat_as("robot", (STATES.0, STATES.1, Qos::Sensor), &at_rest());
    let words = [
        "/joint_states of node '/peer' is not heard",
        "it offers reliability best_effort, expected reliable",
        "qos_overrides./joint_states.subscription.reliability to best_effort",
    ];
    for word in words {
        control.says(&[word]);
    }
    assert_says(&connections(&peer, WARN), &words);
    peer.status("the status says why the node waits", |s| {
        s["message"]
            .as_str()
            .is_some_and(|m| m.contains("waiting for") && m.contains(words[1]))
    });
    let (done, why) = peer.trigger("start");
    assert!(!done);
    assert_says(
        &why,
        &[
            "joint 'elbow' has no fresh position and velocity",
            words[0],
            words[1],
        ],
    );

    peer.withdraw("robot");
    peer.repeat_as("reliable", (STATES.0, STATES.1, Qos::Reliable), &at_rest());
    assert!(peer.trigger("start").0 || peer.active()["lifecycle"] == "active");
    peer.active();
    control.says(&["no longer so: /joint_states of node '/peer'"]);
    connections(&peer, OK);
}

#[test]
fn joint_states_that_are_published_in_another_namespace_are_named_as_such() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let (mut robot, peer) = (env.peer(""), env.peer("/left"));
    let _control = env.control_in("/left", &[&format!("policy:={}", policy.display())]);
    robot.report_both_joints();
    let words = "nobody publishes /left/joint_states, but somebody does /joint_states";
    peer.status("the status says where they are", |s| {
        s["message"].as_str().is_some_and(|m| m.contains(words))
    });
}

#[test]
fn a_publisher_of_another_type_and_one_that_is_not_latched_are_named() {
    let env = TestEnv::new();
    let (mut peer, control) = node(&env, &[]);
    // One program cannot have a topic with two types.
    let mut other = env.peer("/other");
    let text = ("/joint_states", "std_msgs/String", Qos::Sensor);
    other.repeat_as("text", text, &json!({"data": "0.1 0.2"}));
    let of_another_type = [
        "/joint_states of node '/other/peer' is not heard",
        "it sends std_msgs/msg/String, expected sensor_msgs/msg/JointState",
    ];
    control.says(&of_another_type);
    let urdf = ("robot_description", "std_msgs/String", Qos::Reliable);
    peer.repeat_as("urdf", urdf, &json!({"data": "<robot/>"}));
    let not_latched = [
        "/robot_description of node '/peer' is not heard",
        "it offers durability volatile, expected transient_local",
    ];
    control.says(&not_latched);
    until("both are in the diagnostics", || {
        let message = connections(&peer, WARN);
        let is_said = |words: &&str| message.contains(words);
        of_another_type
            .iter()
            .chain(&not_latched)
            .all(is_said)
            .then_some(())
    });
    // Who is heard is not hindered by who is not.
    peer.report_both_joints();
    peer.active();
}

#[test]
fn a_topic_that_is_remapped_is_looked_at_under_its_own_name() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let arguments = [
        "--ros-args",
        "-r",
        "policy/bundle:=/trainer/bundles",
        "-p",
        "qos_overrides./policy/bundle.subscription.durability:=transient_local",
    ];
    let control = env.start("control", &arguments);
    peer.repeat_as(
        "bundles",
        ("/trainer/bundles", "mfpo_msgs/PolicyBundle", Qos::Reliable),
        &json!({}),
    );
    control.says(&[
        "/trainer/bundles of node '/peer' is not heard",
        "qos_overrides./policy/bundle.subscription.durability to volatile",
    ]);
    peer.status("the status says why no policy comes", |s| {
        s["message"]
            .as_str()
            .is_some_and(|m| m.contains("waiting for a policy") && m.contains("is not heard"))
    });
}

#[test]
fn commands_that_nobody_receives_are_told_of() {
    let env = TestEnv::new();
    // The peer asks for reliable commands; best effort ones do not reach it.
    let (mut peer, control) = node(
        &env,
        &["qos_overrides./commands.publisher.reliability:=best_effort"],
    );
    peer.report_both_joints();
    peer.active();
    control.says(&["nobody receives the commands"]);
    assert_says(
        &connections(&peer, WARN),
        &["nobody receives the commands", "ros2 topic info --verbose"],
    );
    let named = [
        "/commands is not received by node '/peer': it requests reliability reliable, offered is best_effort",
        "qos_overrides./commands.publisher.reliability to reliable",
    ];
    control.says(&named);
    until("the subscriber is named in the diagnostics", || {
        let message = connections(&peer, WARN);
        named.iter().all(|words| message.contains(words)).then_some(())
    });
    peer.listen("commands", "std_msgs/Float64MultiArray", Qos::Sensor);
    peer.next("commands", 5);
    connections(&peer, OK);
    // The other subscription is served as little as before, though a recorder or a view may be.
    let still = connections(&peer, WARN);
    assert_says(&still, &named);
    assert!(!still.contains("nobody receives"), "{still}");
}

#[test]
fn one_who_comes_later_and_receives_nothing_is_named_beside_others_who_do() {
    let env = TestEnv::new();
    let (mut peer, control) = node(&env, &[]);
    peer.report_both_joints();
    peer.active();
    peer.next("commands", 5);
    connections(&peer, OK);
    let mut late = env.peer("/late");
    late.listen("/commands", "trajectory_msgs/JointTrajectory", Qos::Reliable);
    let named = "/commands is not received by node '/late/peer': it takes trajectory_msgs/msg/JointTrajectory, sent is \
                 std_msgs/msg/Float64MultiArray";
    control.says(&[named]);
    until("it is in the diagnostics", || {
        connections(&peer, WARN).contains(named).then_some(())
    });
    drop(late);
    control.says(&["no longer so: /commands is not received by node '/late/peer'"]);
    connections(&peer, OK);
}

#[test]
fn a_subscriber_of_commands_of_another_type_is_named() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Position), 1));
    let policy = format!("policy:={}", policy.display());
    let mut peer = env.peer("");
    // The peer listens to the other type.
    let control = env.control(&[&policy, "command_topic_type:=joint_trajectory"]);
    peer.report_both_joints();
    peer.active();
    control.says(&[
        "/commands is not received by node '/peer': it takes std_msgs/msg/Float64MultiArray, sent is \
         trajectory_msgs/msg/JointTrajectory",
    ]);
}

#[test]
fn subscribers_of_the_status_and_of_the_records_that_receive_nothing_are_named_too() {
    let env = TestEnv::new();
    let (mut peer, control) = node(&env, &[]);
    let mut view = env.peer("/view");
    // Records are not latched; and that is no status.
    view.listen("/policy/action", "mfpo_msgs/PolicyAction", Qos::Latched);
    view.listen("/policy/status", "std_msgs/String", Qos::Sensor);
    peer.report_both_joints();
    peer.active();
    let named = [
        "/policy/action is not received by node '/view/peer': it requests durability transient_local, offered is volatile \
         (or set parameter qos_overrides./policy/action.publisher.durability to transient_local)",
        "/policy/status is not received by node '/view/peer': it takes std_msgs/msg/String, sent is \
         mfpo_msgs/msg/PolicyStatus",
    ];
    for words in named {
        control.says(&[words]);
    }
    until("both are in the diagnostics", || {
        let message = connections(&peer, WARN);
        named.iter().all(|words| message.contains(words)).then_some(())
    });
}

#[test]
fn a_second_node_that_commands_the_robot_is_named_by_both() {
    let env = TestEnv::new();
    let (mut peer, first) = node(&env, &[]);
    peer.report_both_joints();
    peer.active();
    connections(&peer, OK);
    let second = env.start(
        "control",
        &["--ros-args", "-r", "__ns:=/other", "-r", "commands:=/commands"],
    );
    first
        .says(&["/commands is also published by node '/other/control_loop': two programs command one robot"]);
    second.says(&["/commands is also published by node '/control_loop': two programs command one robot"]);
    assert_says(&connections(&peer, ERROR), &["/other/control_loop"]);
    peer.status("the status says it", |s| {
        s["message"].as_str().is_some_and(|m| {
            m.starts_with("the policy commands the robot") && m.contains("/other/control_loop")
        })
    });
    drop(second);
    first.says(&["no longer so: /commands is also published by node '/other/control_loop'"]);
    connections(&peer, OK);
}

#[test]
fn that_nobody_subscribes_to_commands_is_told_with_their_name() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let policy = format!("policy:={}", policy.display());
    let mut peer = env.peer("");
    let control = env.start(
        "control",
        &["--ros-args", "-p", &policy, "-r", "commands:=/driver/commands"],
    );
    peer.report_both_joints();
    peer.active();
    control.says(&["nobody subscribes to /driver/commands", "ROS_DOMAIN_ID"]);
}
