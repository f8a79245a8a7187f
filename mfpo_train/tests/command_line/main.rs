//! The program as a person and as another program meet it: its output, its exit code, and what it says to bad input.

mod bundles;
mod eval;
mod rollout;
mod seeds;
mod success;
mod unread;

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

#[test]
fn a_kernel_that_this_processor_lacks_is_refused() {
    let output = command(&["tasks"])
        .env("MFPO_KERNEL", "avx1024")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    for part in ["MFPO_KERNEL is 'avx1024'", "expected one", "baseline"] {
        assert!(text.contains(part), "{text}");
    }
    let output = command(&["tasks"])
        .env("MFPO_KERNEL", "baseline")
        .output()
        .unwrap();
    assert!(output.status.success());
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

/// As a shell tells of programs that a signal has ended, so that no script takes the run for done.
#[test]
fn a_signal_ends_the_run_in_good_order_and_with_its_exit_code() {
    use rustix::process::Signal;
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        ends_in_good_order(signal, code);
    }
}

fn ends_in_good_order(signal: rustix::process::Signal, code: i32) {
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
    rustix::process::kill_process(pid, signal).unwrap();
    let rest: Vec<Value> = reports
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    assert_eq!(child.wait().unwrap().code(), Some(code));
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
fn what_has_no_effect_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let out = format!("--out={}", run.display());
    let text = refusal(&["train", "--task=InvertedPendulum-v5", "--until-success=0.5", &out]);
    assert!(
        text.contains("the task 'InvertedPendulum-v5' does not say what success is"),
        "{text}"
    );
    assert!(!run.exists());

    let sac = [
        "train",
        "--quiet",
        "--algorithm=sac",
        "--set=learner.tau=0.1",
        &out,
    ];
    let short = [
        "--steps=20",
        "--set=run.random_steps=30",
        "--set=evaluation.episodes=1",
    ];
    let output = output(&[&sac[..], &short].concat());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    for words in [
        "learner.tau has no effect: the run learns with sac, which reads [sac]; did you mean 'sac.tau'?",
        "nothing is learnt: the run has 20 steps, and the first 30 are random and without updates",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
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
    ] {
        let (key, _) = set.split_once('=').unwrap();
        let text = refusal(&["train", "--set", set, &out]);
        assert!(text.contains(key) && text.contains("GB"), "{set}: {text}");
        assert!(!run.exists(), "{set}");
    }
    let text = refusal(&["train", "--set", "evaluation.candidates=1000000000000", &out]);
    assert!(
        text.contains("evaluation.candidates is 1000000000000; expected a whole number from 1 to 64"),
        "{text}"
    );
    let text = refusal(&["train", "--set", "learner.observation_size=99", &out]);
    assert!(
        text.contains("learner.observation_size is 99; expected 4"),
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
    assert!(
        text.contains("/nowhere") && text.contains("expected the folder"),
        "{text}"
    );
    let text = refusal(&["plot", &folder, "--out", "p.pdf"]);
    assert!(
        text.contains("cannot draw p.pdf: expected a name that ends in .png"),
        "{text}"
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
