//! The program as a person and as another program meet it: its output, its exit code, and what it says to bad input.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mfpo_train"));
    command.args(args).env("RUST_LOG", "warn");
    command
}

fn output(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// What the program prints when it succeeds.
fn told(args: &[&str]) -> String {
    let output = output(args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What the program says when it refuses.
fn refusal(args: &[&str]) -> String {
    let output = output(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        text.trim_end().lines().count(),
        1,
        "one line says what went wrong: {text}"
    );
    text
}

/// A small training into a folder of its own.
struct Training {
    folder: TempDir,
    args: Vec<String>,
}

impl Training {
    fn new(steps: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut args: Vec<String> = ["train", "--json-progress", "--seed", "3", "--publish-every", "20"]
            .map(str::to_owned)
            .into();
        args.push(format!("--steps={steps}"));
        args.push(format!("--out={}", folder.path().join("run").display()));
        for set in [
            "run.random_steps=100",
            "run.report_every=10",
            "learner.batch_size=16",
            "evaluation.episodes=2",
        ] {
            args.push(format!("--set={set}"));
        }
        Self { folder, args }
    }

    fn spawn(&self) -> Child {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        command(&args).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("run").join(name)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_device_that_cannot_be_had_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let out = format!("--out={}", run.display());
    // No machine has so many, and most programs are built without CUDA.
    let text = refusal(&["train", "--device=cuda:99", "--steps=10", &out]);
    assert!(
        text.contains("device cuda:99 cannot be had") && text.contains("take the device cpu"),
        "{text}"
    );
    assert!(!run.exists());
    let bad = output(&["train", "--device=gpu", &out]);
    let text = String::from_utf8(bad.stderr).unwrap();
    assert_eq!(bad.status.code(), Some(2));
    assert!(text.contains("expected cpu, cuda or cuda:N, got 'gpu'"), "{text}");
}

#[test]
fn every_report_is_one_json_line_with_the_promised_keys() {
    let training = Training::new(150);
    let output = training.spawn().wait_with_output().unwrap();
    assert!(output.status.success());
    let reports: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let keys = [
        "step",
        "return",
        "success",
        "temperature",
        "entropy",
        "updates_per_s",
        "version",
    ];
    for report in &reports {
        assert!(keys.iter().all(|key| report.get(key).is_some()), "{report}");
    }
    let (first, last) = (&reports[0], reports.last().unwrap());
    assert!(
        first["step"] == 0 && first["version"] == 0 && first["temperature"].is_null(),
        "{first}"
    );
    assert!(
        last["step"] == 150 && last["version"] == 3 && last["temperature"].is_f64(),
        "{last}"
    );

    let bundle = training.path("last.safetensors");
    let manifest = told(&["inspect", text(&bundle)]);
    for words in [
        "swing_arm",
        "shoulder",
        "control period",
        "version           3",
        "N m",
    ] {
        assert!(manifest.contains(words), "{words}: {manifest}");
    }
    for candidates in ["1", "4"] {
        let json = told(&[
            "eval",
            text(&bundle),
            "--episodes",
            "2",
            "--candidates",
            candidates,
            "--json",
        ]);
        let evaluation: Value = serde_json::from_str(&json).unwrap();
        assert!(
            evaluation["mean_return"].is_f64() && evaluation["success"].is_f64(),
            "{json}"
        );
    }
}

#[test]
fn a_signal_ends_the_run_in_good_order() {
    let training = Training::new(1_000_000);
    let mut child = training.spawn();
    let mut reports = BufReader::new(child.stdout.take().unwrap()).lines();
    let trained = reports
        .by_ref()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    trained
        .take_while(|report| report["updates"].as_u64().unwrap() < 30)
        .for_each(drop);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let rest: Vec<Value> = reports
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    assert!(child.wait().unwrap().success());
    let last = mfpo_policy::bundle::open(&std::fs::read(training.path("last.safetensors")).unwrap()).unwrap();
    assert_eq!(rest.last().unwrap()["version"], last.manifest().version);
    assert!(training.path("curve.png").exists());
}

#[test]
fn unknown_names_are_refused_with_the_closest() {
    assert!(told(&["tasks"]).lines().any(|task| task == "swing_arm"));
    let text = refusal(&["train", "--task", "swing_am"]);
    assert!(
        text.contains("'swing_am'") && text.contains("swing_arm"),
        "{text}"
    );
    let text = refusal(&["train", "--set", "learner.discont=0.9"]);
    assert!(text.contains("did you mean 'learner.discount'?"), "{text}");
    let text = refusal(&["train", "--config", "swing_arn.toml"]);
    assert!(
        text.contains("swing_arn.toml") && text.contains("swing_arm, reach_arm, HalfCheetah-v5, paper"),
        "{text}"
    );
}

#[test]
fn sizes_that_no_machine_holds_are_refused_by_key_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let out = format!("--out={}", run.display());
    for set in [
        "learner.hidden_sizes=[1000000000, 1000000000]",
        "learner.batch_size=1000000000000",
        "learner.atoms=1000000000000",
        "learner.policy_candidates=100000000000",
        "learner.sampling_steps=10000000000",
        "run.replay_capacity=1000000000000",
        "run.environments=1000000000000",
        "evaluation.candidates=1000000000000",
    ] {
        let (key, _) = set.split_once('=').unwrap();
        let text = refusal(&["train", "--set", set, &out]);
        assert!(text.contains(key) && text.contains("GB"), "{set}: {text}");
        assert!(!run.exists(), "{set}");
    }
    let text = refusal(&["train", "--set", "learner.observation_size=99", &out]);
    assert!(
        text.contains("learner.observation_size is 99; expected 4"),
        "{text}"
    );
}

#[test]
fn a_bad_bundle_is_refused_with_its_name_and_the_reason() {
    let training = Training::new(110);
    assert!(training.spawn().wait_with_output().unwrap().status.success());
    let good = std::fs::read(training.path("last.safetensors")).unwrap();
    let bad = training.path("bad.safetensors");
    let mut changed = good.clone();
    *changed.last_mut().unwrap() ^= 0x40;
    for (bytes, reason) in [
        (&good[..good.len() / 2], "complete"),
        (&changed[..], "digest"),
        (b"hello", "complete"),
    ] {
        std::fs::write(&bad, bytes).unwrap();
        for subcommand in ["inspect", "eval"] {
            let words = refusal(&[subcommand, text(&bad)]);
            assert!(
                words.contains("bad.safetensors") && words.contains(reason),
                "{words}"
            );
        }
    }
    assert!(refusal(&["inspect", "/nowhere.safetensors"]).contains("cannot read /nowhere.safetensors"));
}

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

#[test]
fn runs_are_drawn_over_one_another() {
    let one = Training::new(160);
    assert!(one.spawn().wait_with_output().unwrap().status.success());
    let folder = one.folder.path().to_str().unwrap().to_owned();
    let picture = format!("{folder}/plot.png");
    let text = told(&["plot", &folder, "--out", &picture, "--x", "seconds"]);
    assert!(
        text.starts_with("MFPO (seed 3): step 160, interquartile mean") && text.contains("1 runs in"),
        "{text}"
    );
    let header = std::fs::read(&picture).unwrap();
    assert_eq!(&header[1..4], b"PNG");
    let run: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{folder}/run/run.json")).unwrap()).unwrap();
    assert_eq!(
        (&run["task"], &run["algorithm"], &run["seed"]),
        (&"swing_arm".into(), &"mfpo".into(), &3.into())
    );
    assert!(run["revision"].as_str().unwrap().len() > 6);
    let text = refusal(&["plot", "/nowhere"]);
    assert!(text.contains("/nowhere"), "{text}");
}

/// `train --seeds` with a small configuration.
fn several_seeds(folder: &Path, seeds: &str, steps: u64, more: &[&str]) -> Command {
    let mut command = command(&["train", "--quiet", "--seeds", seeds, "--jobs", "2"]);
    command
        .arg("--out")
        .arg(folder)
        .args(["--steps", &steps.to_string()])
        .args(more);
    for set in [
        "run.random_steps=100",
        "run.report_every=10",
        "learner.batch_size=16",
        "evaluation.episodes=1",
    ] {
        command.args(["--set", set]);
    }
    command
}

fn checkpoint_step(folder: &Path) -> u64 {
    mfpo_train::checkpoint::Checkpoints::new(folder)
        .load()
        .unwrap()
        .0
        .step
}

#[test]
fn several_seeds_are_runs_of_their_own_that_go_on_when_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("runs");
    for (seeds, steps) in [("0..2", 120), ("0..3", 140)] {
        let output = several_seeds(&out, seeds, steps, &[]).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    for seed in 0..4 {
        assert_eq!(checkpoint_step(&out.join(format!("s{seed}"))), 140, "seed {seed}");
    }
    assert!(out.join("curve.png").exists());
    let metrics = |seed| std::fs::read_to_string(out.join(format!("s{seed}/metrics.jsonl"))).unwrap();
    assert_ne!(metrics(0), metrics(1));
}

#[test]
fn seeds_without_a_folder_have_one_of_their_task_and_algorithm() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "train",
        "--quiet",
        "--seeds",
        "0..1",
        "--steps",
        "110",
        "--algorithm",
        "sac",
    ];
    let mut command = command(&args);
    for set in [
        "run.random_steps=100",
        "sac.batch_size=16",
        "evaluation.episodes=1",
    ] {
        command.args(["--set", set]);
    }
    let output = command.current_dir(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    for seed in ["s0", "s1"] {
        let run = folder.path().join("runs/swing_arm-sac").join(seed);
        assert_eq!(checkpoint_step(&run), 110);
    }
}

#[test]
fn a_seed_that_fails_is_named_and_the_others_end() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("runs");
    std::fs::create_dir_all(out.join("s1/checkpoints")).unwrap();
    // A run cannot make its folder `bundles` there.
    std::fs::write(out.join("s1/bundles"), "in the way").unwrap();
    let output = several_seeds(&out, "0..2", 120, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("1 of 3 runs failed: seed 1:") && text.contains("s1.log"),
        "{text}"
    );
    assert_eq!(
        (checkpoint_step(&out.join("s0")), checkpoint_step(&out.join("s2"))),
        (120, 120)
    );
}

#[test]
fn an_interrupted_set_of_seeds_stops_in_good_order() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("runs");
    let mut child = several_seeds(&out, "0..3", 100_000, &[]).spawn().unwrap();
    let learns = |seed| {
        let text = std::fs::read_to_string(out.join(format!("s{seed}/metrics.jsonl")));
        text.is_ok_and(|text| text.contains("\"update\""))
    };
    while !(learns(0) && learns(1)) {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    for seed in 0..2 {
        let step = checkpoint_step(&out.join(format!("s{seed}")));
        assert!((1..100_000).contains(&step), "seed {seed} at {step}");
    }
    assert!(
        !out.join("s2/metrics.jsonl").exists(),
        "the third was not started any more"
    );
}

/// Prints the scalars of a run folder as JSON: name to steps and values.
const SCALARS: &str = "
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})
events.Reload()
print(json.dumps({tag: [[e.step, e.value, e.wall_time] for e in events.Scalars(tag)] for tag in events.Tags()['scalars']}))
";

#[test]
fn tensorboard_reads_the_numbers_of_the_metrics_also_after_a_resume() {
    let training = Training::new(150);
    assert!(training.spawn().wait_with_output().unwrap().status.success());
    let run = training.folder.path().join("run");
    told(&["train", "--quiet", "--resume", text(&run), "--steps", "200"]);
    let deps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps");
    let python = ["venv", "tools"].map(|venv| deps.join(venv).join("bin/python3"));
    let python = python.into_iter().find(|python| python.exists());
    let python = python.expect("the Python of the set-up is there: cargo xtask setup");
    let output = Command::new(python)
        .args(["-c", SCALARS])
        .arg(&run)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let scalars: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(run.join("best.safetensors").exists());
    let started = start_of(&run);
    for (kind, name) in [
        ("update", "critic_loss_1"),
        ("update", "temperature"),
        ("evaluation", "mean_return"),
        ("episode", "return"),
    ] {
        let expected: Vec<&Value> = lines.iter().filter(|line| line["kind"] == kind).collect();
        let events = scalars[format!("{kind}/{name}")].as_array().unwrap();
        assert_eq!(events.len(), expected.len(), "{kind}/{name}");
        for (event, line) in events.iter().zip(expected) {
            assert_eq!(event[0], line["step"]);
            assert_eq!(
                event[1].as_f64().unwrap() as f32,
                line[name].as_f64().unwrap() as f32
            );
            let wall_time = started + line["seconds"].as_f64().unwrap();
            assert!((event[2].as_f64().unwrap() - wall_time).abs() < 1e-3);
        }
    }
}

fn start_of(run: &Path) -> f64 {
    let text = std::fs::read_to_string(run.join("run.json")).unwrap();
    let info: Value = serde_json::from_str(&text).unwrap();
    info["started"].as_f64().unwrap()
}

#[test]
fn a_calibrated_guard_is_written_into_a_bundle_which_is_to_be_signed_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch/policies/swing_arm.safetensors");
    let (key, signed, guarded) = (at("key"), at("signed.safetensors"), at("guarded.safetensors"));
    told(&["keygen", text(&key)]);
    told(&[
        "sign",
        text(&policies),
        "--key",
        text(&key),
        "--out",
        text(&signed),
    ]);
    assert!(told(&["inspect", text(&signed)]).contains("guard             none"));
    let said = told(&[
        "guard",
        text(&signed),
        "--episodes",
        "2",
        "--write",
        text(&guarded),
    ]);
    assert!(
        said.contains("guarded where 8 candidates are spread by more than"),
        "{said}"
    );
    assert!(said.contains("sign it again"), "{said}");
    let seen = told(&["inspect", text(&guarded)]);
    assert!(seen.contains("8 candidates spread by at most"), "{seen}");
    assert!(seen.contains("signed by         nobody"), "{seen}");
}

#[test]
fn a_signed_bundle_is_verified_by_its_key_and_by_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["ours", "theirs"] {
        let text_of = told(&["keygen", text(&at(name))]);
        assert!(text_of.contains("keep it secret"), "{text_of}");
    }
    assert!(refusal(&["keygen", text(&at("ours"))]).contains("never overwritten"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&at("ours").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch/policies/swing_arm.safetensors");
    let (plain, signed) = (text(&policies), at("signed.safetensors"));
    let (key, ours, theirs) = (at("ours"), at("ours.pub"), at("theirs.pub"));
    assert!(told(&["verify", plain]).contains("signed by nobody"));
    assert!(refusal(&["verify", plain, "--trust", text(&ours)]).contains("the bundle is not signed"));
    told(&["sign", plain, "--key", text(&key), "--out", text(&signed)]);
    let public = told(&["verify", text(&signed), "--trust", text(&ours)]);
    assert!(told(&["inspect", text(&signed)]).contains("signed by"));
    let hexadecimal = public.trim_end().rsplit(' ').next().unwrap();
    told(&["verify", text(&signed), "--trust", hexadecimal]);
    let text_of = refusal(&["verify", text(&signed), "--trust", text(&theirs)]);
    assert!(
        text_of.contains(&format!("is signed by {hexadecimal}")),
        "{text_of}"
    );
    assert!(refusal(&["verify", text(&signed), "--trust", "nobody"]).contains("neither a file nor a key"));
    assert!(
        refusal(&["sign", plain, "--key", text(&ours)]).contains("not an Ed25519 private key"),
        "a public key signs nothing"
    );
}
