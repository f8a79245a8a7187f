//! mfpo_msgs from rclpy: the fields exist, and what is sent arrives at another process unchanged.

use std::collections::BTreeSet;
use std::fs;

use mfpo_tests::peer::ARRIVED;
use mfpo_tests::{Qos, TestEnv, repository};
use serde_json::{Value, json};

/// One of each, with a value for every field.
fn messages() -> Vec<(&'static str, Value)> {
    let stamp = json!({"sec": 7, "nanosec": 9});
    vec![
        (
            "PolicyBundle",
            json!({"stamp": stamp, "run": "run", "version": 18_446_744_073_709_551_615_u64, "robot": "arm",
                "digest": "ab", "path": "/runs/1", "data": [0, 127, 255]}),
        ),
        (
            "PolicyBundleChunk",
            json!({"stamp": stamp, "run": "run", "version": 2, "digest": "ab", "size": 9, "index": 1, "count": 3,
                "data": [0, 127, 255]}),
        ),
        (
            "PolicyStatus",
            json!({"stamp": stamp, "state": 3, "message": "m", "robot": "arm", "run": "run", "version": 2,
                "digest": "ab", "weights_digest": "ef", "previous_digest": "cd", "swaps": 3, "rejections": 4, "last_rejection": "why", "competing_runs": ["a", "b"],
                "ticks": 5, "missed_ticks": 6, "fallback_ticks": 7, "interventions": 8, "tick_rate": 50.0,
                "lifecycle": "active", "rollbacks": 9, "fallbacks": 10, "refused_states": 11,
                "command_joints": ["b"], "rules": ["rate"], "interventions_by_rule": [12],
                "latency_p50": 1e-4, "latency_p99": 2e-4, "latency_max": 3e-4, "joint_names": ["a", "b"],
                "joint_ages": [0.25, "inf"], "steps_mean": 2.0, "candidates_mean": 3.5, "swap_stage": "blend",
                "staged_version": 13, "swap_returns": 14, "last_swap_return": "why", "dry_run": true,
                "robot_description": "tightens"}),
        ),
        (
            "PolicyAction",
            json!({"stamp": stamp, "sequence": 1, "state_stamp": stamp, "state_age": 0.5, "run": "run",
                "version": 2, "steps": 3, "candidates": 4, "action": [0.5, -1.0], "command_raw": [0.1, 0.2],
                "command": [0.3, 0.4], "interventions": 5, "blend": 0.5, "fallback": true, "compute_time": 1e-5,
                "in_stages": true, "draw": 6, "previous_run": "before", "previous_version": 7, "policy_weight": 0.25,
                "latency": 3e-5, "dry_run": true}),
        ),
        (
            "EpisodeResult",
            json!({"stamp": stamp, "index": 1, "seed": 2, "success": true, "episode_return": -0.5,
                "duration": 2.5, "real_time_factor": 0.75, "commands_received": 3, "timeouts": 4}),
        ),
    ]
}

#[test]
fn every_message_has_its_fields_and_arrives_unchanged_in_another_process() {
    let env = TestEnv::new();
    let (mut sender, mut receiver) = (env.peer("/sender"), env.peer("/receiver"));
    for (name, message) in messages() {
        let kind = format!("mfpo_msgs/{name}");
        let has = receiver.fields(&kind, &[]);
        let keys = |value: &Value| -> BTreeSet<String> {
            value.as_object().expect("fields").keys().cloned().collect()
        };
        assert_eq!(keys(&has["fields"]), keys(&message), "{name}");
        let topic = format!("/check/{}", name.to_lowercase());
        receiver.listen(&topic, &kind, Qos::Latched);
        sender.publish(&topic, &kind, Qos::Latched, message.clone());
        let mut arrived = mfpo_tests::until(&format!("{name} arrives"), || receiver.newest(&topic));
        arrived.as_object_mut().expect("fields").remove(ARRIVED);
        assert_eq!(arrived, message, "{name}");
    }
    let names = [
        "WAITING_FOR_POLICY",
        "WAITING_FOR_STATES",
        "ACTIVE",
        "FALLBACK",
        "STOPPED",
        "INACTIVE",
        "PROBING",
    ];
    let told = receiver.fields("mfpo_msgs/PolicyStatus", &names);
    for (value, name) in names.iter().enumerate() {
        assert_eq!(told["constants"][name], value, "{name}");
    }
}

#[test]
fn every_field_of_every_message_is_commented_with_its_unit() {
    let folder = repository().join("msg/msg");
    let mut fields = 0;
    for entry in fs::read_dir(folder).expect("the messages") {
        let path = entry.expect("a message").path();
        let text = fs::read_to_string(&path).expect("a message");
        let lines: Vec<&str> = text.lines().collect();
        for (above, line) in lines.iter().zip(&lines[1..]) {
            let is_field = !line.is_empty() && !line.starts_with('#') && !line.contains('=');
            if is_field {
                fields += 1;
                let commented = above.starts_with('#') && above.contains('[') && above.contains(']');
                assert!(
                    commented,
                    "{}: '{line}' has no comment with a unit above it",
                    path.display()
                );
            }
        }
    }
    assert!(fields > 40, "only {fields} fields were found");
}
