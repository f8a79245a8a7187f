//! Files that are small and ask for much: each once took too long, took too much memory or overflowed a number.

use mfpo_policy::spec::RobotSpec;
use serde_json::{Map, Value, json};

use crate::exercise::Came;
use crate::mutations::Parts;
use crate::seeds::task_with;

/// Characters of a manifest that leave room for the rest of the largest header.
const LONG: usize = 1_000_000;

/// A name and a file of each kind, and how far it may come.
pub fn bombs() -> Vec<(&'static str, Came, Vec<u8>)> {
    let mut bombs = of_policies();
    bombs.extend(of_manifests());
    bombs.extend(of_headers());
    bombs
}

fn with(bytes: &[u8], change: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let mut parts = Parts::of(bytes).expect("a bundle");
    change(&mut parts);
    parts.put_together()
}

fn in_manifest(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    with(&task_with(5, 1), |parts| parts.within("mfpo", change))
}

/// Policies that cost as much as one may, and one that costs more.
fn of_policies() -> Vec<(&'static str, Came, Vec<u8>)> {
    let too_wide = with(&task_with(10_000, 1), |parts| {
        parts.within("mfpo", |m| m["sampling_steps"] = json!(1000));
    });
    vec![
        (
            "a wide layer whose bias is kept for each of a thousand steps",
            Came::Refused,
            too_wide,
        ),
        ("the widest layer", Came::Acts, task_with(1 << 14, 1)),
        (
            "the most steps of the widest layer that they may have",
            Came::Acts,
            task_with(1000, 1000),
        ),
    ]
}

/// Manifests that become more in memory than they are in the file.
fn of_manifests() -> Vec<(&'static str, Came, Vec<u8>)> {
    let ones = |count: usize| json!(vec![1; count]);
    let probe = json!({"observation": vec![0; LONG / 130], "noise": [0], "action": [0]});
    vec![
        (
            "a manifest of nothing but short values",
            Came::Refused,
            in_manifest(|m| m["task"]["options"] = json!({"a": ones(8_000_000)})),
        ),
        (
            "options up to the largest header",
            Came::Refused,
            in_manifest(|m| m["task"]["options"] = json!({"a": ones(LONG / 2)})),
        ),
        (
            "options up to the largest options, each an object",
            Came::Acts,
            in_manifest(|m| m["task"]["options"] = json!({"a": vec![json!({"b": 1}); 250]})),
        ),
        (
            "options up to the largest options, each an object in another one, as deep as they may lie",
            Came::Acts,
            in_manifest(|m| {
                m["task"]["options"] = json!({"a": [nested(124), nested(124), nested(124), nested(28)]})
            }),
        ),
        (
            "options deeper than they may lie",
            Came::Refused,
            in_manifest(|m| m["task"]["options"] = json!({"a": [nested(125)]})),
        ),
        (
            "layers up to the largest header",
            Came::Refused,
            in_manifest(|m| m["hidden_sizes"] = ones(LONG / 2)),
        ),
        (
            "a list just longer than a power of two",
            Came::Refused,
            in_manifest(|m| m["normalizer"] = json!({"mean": ones((1 << 15) + 1), "deviation": []})),
        ),
        (
            "golden probes up to the largest header",
            Came::Refused,
            in_manifest(|m| m["probes"] = json!(vec![probe; 64])),
        ),
        (
            "a term with a list up to the largest header",
            Came::Refused,
            in_manifest(|m| robot(m, 1, vec![json!({"term": "goal", "more": ones(LONG / 2)})])),
        ),
        (
            "terms up to the largest header",
            Came::Refused,
            in_manifest(|m| robot(m, 1, vec![json!({"term": "previous_action", "index": 0}); 20_000])),
        ),
        (
            "the shortest terms up to the largest header",
            Came::Refused,
            in_manifest(|m| {
                robot(
                    m,
                    1,
                    vec![json!({"term": "sin_position", "joint": ""}); LONG / 43],
                )
            }),
        ),
        (
            "terms up to the largest header, each a list",
            Came::Refused,
            in_manifest(|m| robot(m, 1, vec![json!(["goal", null, 1, null, "x"]); LONG / 29])),
        ),
        (
            "every term looked up among every joint",
            Came::Refused,
            in_manifest(|m| {
                robot(
                    m,
                    1000,
                    vec![json!({"term": "sin_position", "joint": joint(999)}); 9000],
                )
            }),
        ),
        (
            "more joints than a robot may have",
            Came::Refused,
            in_manifest(|m| robot(m, 5000, vec![json!({"term": "sin_position", "joint": joint(0)})])),
        ),
        (
            "a long text where a number belongs, each character of which an error tells in six",
            Came::Refused,
            in_manifest(|m| m["version"] = json!("\u{7f}".repeat(LONG))),
        ),
        (
            "a long text with something to unescape at its end",
            Came::Refused,
            in_manifest(|m| m["run"] = json!(format!("{}\n", "x".repeat(LONG)))),
        ),
        (
            "lists in each other up to the largest header",
            Came::Refused,
            with(&task_with(5, 1), |parts| {
                parts.header["__metadata__"]["mfpo"] = json!(format!("{{\"a\":{}", "[".repeat(LONG)));
            }),
        ),
        (
            "sizes whose sum overflows",
            Came::Refused,
            in_manifest(|m| {
                m["task"]["action_size"] = json!(u64::MAX);
                m["task"]["observation_size"] = json!(u64::MAX);
            }),
        ),
    ]
}

/// The same of headers.
fn of_headers() -> Vec<(&'static str, Came, Vec<u8>)> {
    let in_header =
        |change: &dyn Fn(&mut Map<String, Value>)| with(&task_with(5, 1), |parts| change(&mut parts.header));
    let name = |i: usize| format!("{i:x}");
    let entry = |shape: Value| json!({"dtype": "F32", "shape": shape, "data_offsets": [0, 4]});
    vec![
        (
            "a tensor without numbers, of sizes whose product overflows",
            Came::Refused,
            with(&task_with(5, 1), |parts| {
                let at = parts.data.len();
                let entry =
                    json!({"dtype": "F32", "shape": [0, 1u64 << 62, 1u64 << 62], "data_offsets": [at, at]});
                parts.header.insert("actor/extra".into(), entry);
            }),
        ),
        (
            "tensors up to the largest header",
            Came::Refused,
            in_header(&|header| header.extend((0..80_000).map(|i| (name(i), json!({}))))),
        ),
        (
            "metadata up to the largest header",
            Came::Acts,
            in_header(&|header| {
                let metadata = header["__metadata__"].as_object_mut().expect("metadata");
                metadata.extend((0..80_000).map(|i| (name(i), json!(""))));
            }),
        ),
        (
            "a tensor with a shape up to the largest header",
            Came::Refused,
            in_header(&|header| drop(header.insert("a".into(), entry(json!(vec![1; LONG / 2]))))),
        ),
        (
            "as many tensors as there may be, each with the longest shape",
            Came::Refused,
            in_header(&|header| header.extend((0..490).map(|i| (name(i), entry(json!(vec![1; 220])))))),
        ),
        (
            "as many tensors as there may be, each with the longest name",
            Came::Refused,
            with(&task_with(5, 1), |parts| {
                for i in 0..480 {
                    let at = parts.data.len();
                    let entry = json!({"dtype": "F32", "shape": [1], "data_offsets": [at, at + 4]});
                    parts.header.insert(format!("actor/{i:058}"), entry);
                    parts.data.extend([0; 4]);
                }
            }),
        ),
        (
            "as many tensors as there may be, each a list",
            Came::Refused,
            with(&task_with(5, 1), |parts| {
                for i in 0..490 {
                    let at = parts.data.len();
                    parts.header.insert(name(i), json!(["F32", [1], [at, at + 4]]));
                    parts.data.extend([0; 4]);
                }
            }),
        ),
        (
            "a long text in place of a tensor",
            Came::Refused,
            in_header(&|header| drop(header.insert("a".into(), json!("\u{7f}".repeat(LONG))))),
        ),
        (
            "a tensor's name up to the largest header, with something to unescape at its end",
            Came::Refused,
            in_header(&|header| drop(header.insert(format!("{}\n", "x".repeat(LONG)), entry(json!([1]))))),
        ),
        (
            "a signature up to the largest header",
            Came::Refused,
            in_header(&|header| header["__metadata__"]["mfpo_signature"] = json!("\u{7f}".repeat(LONG))),
        ),
        (
            "a header that is announced and not there",
            Came::Refused,
            (1u64 << 60).to_le_bytes().to_vec(),
        ),
        (
            "a header of lists in each other",
            Came::Refused,
            [
                &(LONG as u64 + 5).to_le_bytes()[..],
                format!("{{\"a\":{}", "[".repeat(LONG)).as_bytes(),
            ]
            .concat(),
        ),
        (
            "a header that is one text",
            Came::Refused,
            [
                &(LONG as u64 + 2).to_le_bytes()[..],
                format!("\"{}\"", "\u{7f}".repeat(LONG)).as_bytes(),
            ]
            .concat(),
        ),
    ]
}

/// Objects in each other without a name.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!({"": inner}))
}

fn joint(i: usize) -> String {
    format!("a_joint_with_a_name_of_the_same_length_{i:06}")
}

/// Puts a robot of so many joints and of these terms in place of the task.
fn robot(manifest: &mut Value, joints: usize, terms: Vec<Value>) {
    let joints: Vec<Value> = (0..joints)
        .map(|i| {
            json!({"name": joint(i), "position_min": null, "position_max": null, "velocity_max": 1.0,
                "effort_max": 1.0, "command_rate_max": null})
        })
        .collect();
    let robot = json!({
        "robot": "centipede",
        "joints": joints,
        "observation": {"terms": terms},
        "action": {"interface": "effort", "joints": [{"joint": joint(0), "offset": 0.0, "scale": 1.0}]},
        "control_period_ns": 20_000_000,
    });
    // What is no robot has no hash, and is not looked at so far.
    let hash =
        serde_json::from_value::<RobotSpec>(robot.clone()).map_or_else(|_| String::new(), |spec| spec.hash());
    let Some(fields) = manifest.as_object_mut() else {
        return;
    };
    fields.remove("task");
    fields.insert("robot".into(), robot);
    fields.insert("spec_hash".into(), json!(hash));
}
