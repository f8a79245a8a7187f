//! `rollout`: a task driven from outside.

use std::io::Write;
use std::time::Duration;

use super::*;

#[test]
fn a_rollout_starts_where_the_file_says_and_prints_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(
        path("state.json"),
        r#"{"qpos": [0.1, 0.15], "qvel": [0.0, -0.5]}"#,
    )
    .unwrap();
    std::fs::write(path("actions.jsonl"), "[0.5]\n\n[-3.0]\n[0]\n".repeat(20)).unwrap();
    let (state, actions) = (path("state.json"), path("actions.jsonl"));
    let told = told(&[
        "rollout",
        "InvertedPendulum-v5",
        "--state",
        &state,
        "--actions",
        &actions,
    ]);
    let lines: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 61, "the reset and one line an action");
    assert_eq!(lines[0]["observation"], serde_json::json!([0.1, 0.15, 0.0, -0.5]));
    assert_eq!(lines[0]["qpos"], serde_json::json!([0.1, 0.15]));
    assert_eq!(lines[1]["reward"], 1.0);
    let ends = lines.iter().filter(|line| line["terminated"] == true).count();
    assert!(ends > 1, "it goes on past the end");

    // Without a state the start is that of the seed.
    let start = |seed: &str| {
        let told = self::told(&["rollout", "Ant-v5", "--actions", "/dev/null", "--seed", seed]);
        assert_eq!(told.lines().count(), 1);
        told
    };
    assert_eq!(start("4"), start("4"));
    assert_ne!(start("4"), start("5"));
}

#[test]
fn a_rollout_answers_each_action_before_it_reads_the_next() {
    let mut child = command(&["rollout", "swing_arm", "--actions", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut actions = child.stdin.take().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, answers) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        for line in out.lines() {
            sender.send(line.unwrap()).unwrap();
        }
    });
    let answer = || -> Value {
        let line = answers.recv_timeout(Duration::from_secs(60));
        serde_json::from_str(&line.expect("an answer while the input is open")).unwrap()
    };
    let mut told = answer();
    for _ in 0..3 {
        // A damper, which has to know the velocity of now.
        let torque = -0.01 * told["qvel"][0].as_f64().unwrap();
        writeln!(actions, "[{torque}]").unwrap();
        told = answer();
    }
    drop(actions);
    assert!(child.wait().unwrap().success());
    reading.join().unwrap();
}

#[test]
fn a_rollout_refuses_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let actions = write("actions.jsonl", "[0.5]\n[0.5, 1.0]\n");
    let output = output(&["rollout", "InvertedPendulum-v5", "--actions", &actions]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        text.contains("actions.jsonl, line 2") && text.contains("expected 1"),
        "{text}"
    );

    let none = write("none.jsonl", "");
    for (state, expected) in [
        (r#"{"qpos": [0.1]}"#, "expected 2 finite numbers"),
        (r#"{"qps": [0.1]}"#, "qpos"),
        (r#"{"model": {"target": [1.0]}}"#, "'target'"),
        ("nothing", "state.json"),
    ] {
        let state = write("state.json", state);
        let text = refusal(&[
            "rollout",
            "InvertedPendulum-v5",
            "--state",
            &state,
            "--actions",
            &none,
        ]);
        assert!(text.contains(expected), "{text}");
    }
    let text = refusal(&["rollout", "swing_arm", "--actions", "/nowhere.jsonl"]);
    assert!(text.contains("cannot read /nowhere.jsonl"), "{text}");
    let text = refusal(&["rollout", "InvertedPendulum", "--actions", &none]);
    assert!(text.contains("did you mean 'InvertedPendulum-v5'?"), "{text}");
    let text = refusal(&["rollout", "Ant-v5", "--option", "frame_skp=3", "--actions", &none]);
    assert!(text.contains("did you mean 'frame_skip'?"), "{text}");
    let mut without = command(&["rollout", "Ant-v5", "--actions", &none]);
    let told = without.env("MFPO_MODELS", folder.path()).output().unwrap();
    let text = String::from_utf8(told.stderr).unwrap();
    assert!(
        text.contains("gymnasium/ant.xml") && text.contains("cargo xtask setup"),
        "{text}"
    );
}
