//! `rollout`: a task driven from outside.

use std::io::Write;
use std::time::Duration;

use mfpo_sim::{EnvOptions, FullState, registry};

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

/// The observation at the start and after each of five actions, as the program tells them for `state`; and it tells what the
/// library gives.
fn driven(task: &str, actions: usize, state: &FullState) -> Vec<Vec<f64>> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let action = vec![0.25; actions];
    std::fs::write(path("state.json"), serde_json::to_string(state).unwrap()).unwrap();
    std::fs::write(path("actions.jsonl"), format!("{action:?}\n").repeat(5)).unwrap();
    let (file, actions) = (path("state.json"), path("actions.jsonl"));
    let told = told(&["rollout", task, "--state", &file, "--actions", &actions]);
    let mut rollout = registry::rollout(task, &EnvOptions::evaluate()).unwrap();
    rollout.begin(state, 0).unwrap();
    let mut observations = Vec::new();
    for (index, line) in told.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (reward, terminated, truncated) = match index {
            0 => (0.0, false, false),
            _ => {
                let outcome = rollout.apply(&action).unwrap();
                let last = state.steps.is_some_and(|steps| steps as usize + index >= 1000);
                assert_eq!(outcome.truncated, last, "{task}, line {index}");
                (outcome.reward, outcome.terminated, outcome.truncated)
            }
        };
        let observation: Vec<f64> = serde_json::from_value(line["observation"].clone()).unwrap();
        assert_eq!(observation, rollout.observation(), "{task}, line {index}");
        assert_eq!(line["reward"].as_f64(), Some(reward), "{task}, line {index}");
        assert_eq!(
            (line["terminated"].as_bool(), line["truncated"].as_bool()),
            (Some(terminated), Some(truncated)),
            "{task}, line {index}"
        );
        for (name, expected) in [("qpos", rollout.qpos()), ("qvel", rollout.qvel())] {
            let told: Vec<f64> = serde_json::from_value(line[name].clone()).unwrap();
            assert_eq!(told, expected, "{task}, line {index}: {name}");
        }
        observations.push(observation);
    }
    assert_eq!(observations.len(), 6);
    observations
}

#[test]
fn a_rollout_takes_every_part_of_the_file_over_as_the_library_does() {
    let reacher = |target: [f64; 2]| {
        let state = FullState {
            qpos: Some(vec![0.25, -0.5]),
            qvel: Some(vec![1.0, -2.0]),
            act: None,
            time: Some(3.5),
            qacc_warmstart: Some(vec![0.5, -0.25]),
            // Of 1,000: the episode's last three are among what is told.
            steps: Some(997),
            model: [("target".to_owned(), target.to_vec())].into(),
        };
        driven("reacher-easy", 2, &state)
    };
    // Positions, the way from the finger to the target, velocities.
    let (here, there) = (reacher([0.125, 0.0]), reacher([0.0625, 0.125]));
    for (here, there) in here.iter().zip(&there) {
        assert!((here[2] - there[2] - 0.0625).abs() < 1e-12 && (here[3] - there[3] + 0.125).abs() < 1e-12);
        assert_eq!((&here[..2], &here[4..]), (&there[..2], &there[4..]));
    }

    // Twelve actuators that follow their commands slowly; where they are is observed.
    let act: Vec<f64> = (0..12).map(|index| f64::from(index) / 16.0 - 0.25).collect();
    let state = FullState {
        act: Some(act.clone()),
        ..FullState::default()
    };
    let observed = driven("quadruped-walk", 12, &state);
    assert!(observed[0].windows(12).any(|window| window == act));
    assert!(!observed[5].windows(12).any(|window| window == act));
}

#[test]
fn what_a_state_leaves_out_is_the_random_start_of_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json").display().to_string();
    for (task, qpos) in [
        ("InvertedPendulum-v5", vec![0.125, 0.0625]),
        ("swing_arm", vec![0.25]),
    ] {
        std::fs::write(&file, serde_json::json!({ "qpos": qpos }).to_string()).unwrap();
        let start = |seed: &str, state: &[&str]| -> Value {
            let words = ["rollout", task, "--actions", "/dev/null", "--seed", seed];
            serde_json::from_str(&told(&[&words[..], state].concat())).unwrap()
        };
        let state = ["--state", file.as_str()];
        for seed in ["4", "5"] {
            let (random, given) = (start(seed, &[]), start(seed, &state));
            assert_eq!(given["qpos"], serde_json::json!(qpos), "{task}");
            assert_ne!(random["qpos"], given["qpos"], "{task}");
            assert_eq!(given["qvel"], random["qvel"], "{task}");
        }
        assert_ne!(start("4", &[])["qpos"], start("5", &[])["qpos"], "{task}");
    }
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
        (r#"{"act": [0.0]}"#, "expected 0 finite numbers"),
        (r#"{"time": "now"}"#, "invalid type"),
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
    let state = write("state.json", r#"{"model": {"targets": [0.1, 0.1]}}"#);
    let text = refusal(&["rollout", "reacher-easy", "--state", &state, "--actions", &none]);
    assert!(
        text.contains("'targets' with 2 numbers; expected 'target' with 2 numbers"),
        "{text}"
    );
    let state = write("state.json", r#"{"qvel": [1e11]}"#);
    let one = write("one.jsonl", "[0.0]\n");
    let mut suite = command(&[
        "rollout",
        "pendulum-swingup",
        "--state",
        &state,
        "--actions",
        &one,
    ]);
    let diverged = suite.output().unwrap();
    let text = String::from_utf8(diverged.stderr).unwrap();
    assert_eq!(diverged.status.code(), Some(1), "{text}");
    assert!(
        text.contains("one.jsonl, line 1") && text.contains("huge or not finite in step 1"),
        "{text}"
    );
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
