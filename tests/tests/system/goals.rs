//! A policy that is told where to go: over real DDS, with the simulated robot.

use mfpo_policy::spec::RobotSpec;
use mfpo_sim::registry;
use mfpo_tests::bundles::sealed;
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
