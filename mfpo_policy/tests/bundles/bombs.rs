//! Files that are small and ask for much: each once took too long, took too much memory or overflowed a number.

use serde_json::{Value, json};

use crate::exercise::Came;
use crate::mutations::Parts;
use crate::seeds::task_with_width;

/// A name and a file of each kind, and how far it may come.
pub fn bombs() -> Vec<(&'static str, Came, Vec<u8>)> {
    let with = |width: usize, change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(&task_with_width(width)).expect("a bundle");
        change(&mut parts);
        parts.put_together()
    };
    let in_manifest = |width: usize, change: &dyn Fn(&mut Value)| {
        with(width, &|parts| parts.within("mfpo", |manifest| change(manifest)))
    };
    vec![
        (
            "a wide layer whose bias is kept for each of a thousand steps",
            Came::Refused,
            in_manifest(40_000, &|m| m["sampling_steps"] = json!(1000)),
        ),
        (
            "a manifest of nothing but short values",
            Came::Refused,
            in_manifest(5, &|m| m["task"]["options"] = json!({"a": vec![0; 8_000_000]})),
        ),
        (
            "short values up to the largest header",
            Came::Acts,
            in_manifest(5, &|m| m["task"]["options"] = json!({"a": vec![0; 500_000]})),
        ),
        (
            "every term looked up among every joint",
            Came::Refused,
            in_manifest(5, &many_joints),
        ),
        (
            "a tensor without numbers, of sizes whose product overflows",
            Came::Refused,
            with(5, &|parts| {
                let at = parts.data.len();
                let entry =
                    json!({"dtype": "F32", "shape": [0, 1u64 << 62, 1u64 << 62], "data_offsets": [at, at]});
                parts.header.insert("actor/extra".into(), entry);
            }),
        ),
        (
            "sizes whose sum overflows",
            Came::Refused,
            in_manifest(5, &|m| {
                m["task"]["action_size"] = json!(u64::MAX);
                m["task"]["observation_size"] = json!(u64::MAX);
            }),
        ),
        (
            "a header that is announced and not there",
            Came::Refused,
            (1u64 << 60).to_le_bytes().to_vec(),
        ),
    ]
}

/// A robot of so many joints and terms that comparing all names takes minutes.
fn many_joints(manifest: &mut Value) {
    let name = |i: usize| format!("a_joint_with_a_name_of_the_same_length_{i:06}");
    let joints: Vec<Value> = (0..30_000)
        .map(|i| {
            json!({"name": name(i), "position_min": null, "position_max": null, "velocity_max": 1.0,
                "effort_max": 1.0, "command_rate_max": null})
        })
        .collect();
    let terms = vec![json!({"term": "sin_position", "joint": name(29_999)}); 200_000];
    let robot = json!({
        "robot": "centipede",
        "joints": joints,
        "observation": {"terms": terms},
        "action": {"interface": "effort", "joints": [{"joint": name(0), "offset": 0.0, "scale": 1.0}]},
        "control_period_ns": 20_000_000,
    });
    let spec: mfpo_policy::spec::RobotSpec = serde_json::from_value(robot.clone()).expect("a robot");
    let Some(fields) = manifest.as_object_mut() else {
        return;
    };
    fields.remove("task");
    fields.insert("robot".into(), robot);
    fields.insert("spec_hash".into(), json!(spec.hash()));
}
