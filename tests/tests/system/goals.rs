//! A policy that is told where to go: over real DDS, with the simulated robot.

use mfpo_policy::spec::RobotSpec;
use mfpo_sim::registry;
use mfpo_tests::bundles::sealed;
use mfpo_tests::peer::state;
use mfpo_tests::{Qos, TestEnv};

use serde_json::json;

fn spec() -> RobotSpec {
    registry::robot("reach_arm").expect("a robot").spec().clone()
}

/// Its joints within their limits.
fn at_rest() -> serde_json::Value {
    json!({"header": {"stamp": "now"}, "name": ["shoulder", "elbow"], "position": [0.1, 0.5], "velocity": [0.0, 0.0]})
}

#[test]
fn a_goal_in_another_frame_is_refused_by_name_and_the_robot_waits_for_a_right_one() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&spec(), 1));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.repeat_states("robot", &at_rest());
    control.says(&[
        "not active yet",
        "the policy needs a goal",
        "geometry_msgs/PointStamped",
    ]);
    peer.repeat_goal("map", [0.3, 0.1, 0.1]);
    control.says(&[
        "goal refused",
        "its frame_id is 'map'; expected 'base'",
        "transform it",
    ]);
    peer.repeat_goal("base", [2.0, 0.1, 0.1]);
    control.says(&["goal refused", "its x is 2 m; expected 0.15 to 0.38"]);
    assert_eq!(peer.count("commands"), 0, "nothing moves without a goal");
    peer.repeat_goal("base", [0.3, 0.1, 0.1]);
    control.says(&["goal: x 0.300, y 0.100, z 0.100 m"]);
    peer.active();
    // One that comes later in a wrong frame changes nothing.
    peer.repeat_goal("tool", [0.2, 0.0, 0.1]);
    control.says(&["its frame_id is 'tool'; expected 'base'"]);
    assert!(
        peer.next("policy/action", 10)
            .iter()
            .all(|r| r["fallback"] == false)
    );
    // After a rest it needs a new goal.
    assert!(peer.change_state("control", "deactivate"));
    assert!(!peer.change_state("control", "activate"), "without a new goal");
    peer.repeat_goal("base", [0.2, 0.0, 0.1]);
    control.says(&["goal: x 0.200, y 0.000, z 0.100 m"]);
    assert!(peer.change_state("control", "activate"));
    peer.active();
}

#[test]
fn a_goal_whose_sender_is_gone_holds_for_goal_timeout_and_the_next_one_goes_on() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&spec(), 1));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.repeat_states("robot", &at_rest());
    peer.repeat_goal("base", [0.3, 0.1, 0.1]);
    peer.active();
    peer.silence("goal");
    let records = peer.next("policy/action", 100);
    assert!(
        records.iter().all(|r| r["fallback"] == false),
        "without a timeout a goal holds"
    );

    // From the next tick on it is older than it may be.
    let seconds = |value: f64| json!({"type": 3, "double_value": value});
    assert_eq!(
        peer.set_parameter("goal_timeout", seconds(0.5)),
        (true, String::new())
    );
    let is_too_old = |status: &serde_json::Value| {
        let told = status["message"].as_str().unwrap_or_default();
        status["state"] == state::FALLBACK && told.contains("at least every 0.5 s (parameter goal_timeout)")
    };
    peer.status("the goal is too old", is_too_old);
    control.says(&[
        "the fallback commands the robot",
        "no goal on topic goal for",
        "goal_timeout",
    ]);
    let (started, why) = peer.trigger("start");
    assert!(!started && why.contains("goal_timeout"), "{why}");

    peer.repeat_goal("base", [0.2, 0.0, 0.1]);
    peer.active();
    control.says(&["the policy commands the robot again"]);
    peer.silence("goal");
    peer.status("its sender is gone again", is_too_old);
}

#[test]
fn the_simulated_robot_says_where_to_go_and_the_node_begins() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&spec(), 1));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.listen("robot/episode", "mfpo_msgs/EpisodeResult", Qos::Latched);
    let _robot = env.start("robot", &["--task", "reach_arm"]);
    control.says(&["goal: x"]);
    peer.active();
    let episode = peer.next("robot/episode", 1).remove(0);
    assert_eq!(episode["timeouts"], 0);
}
