//! A run on a task of a benchmark leaves bundles like any other; they carry the task, and are measured on no other.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mfpo_policy::bundle;
use mfpo_policy::subject::Subject;
use mfpo_train::config::TrainConfig;
use mfpo_train::publish::{BundleSink, SealedBundle};
use mfpo_train::train::train;
use serde_json::Value;
use tempfile::TempDir;

mod training;

const SMALL: [&str; 6] = [
    "run.random_steps=100",
    "run.publish_every=15",
    "learner.hidden_sizes=[16, 16]",
    "learner.batch_size=16",
    "evaluation.episodes=2",
    "evaluation.candidates=3",
];

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mfpo_train"));
    command.args(args).env("RUST_LOG", "warn");
    command
}

/// What the program prints when it succeeds, and what it warns of.
fn told(args: &[&str]) -> (String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(args).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{args:?}: {stderr}");
    (String::from_utf8(stdout).unwrap(), stderr)
}

fn refusal(args: &[&str]) -> String {
    let output = command(args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A short run of `task`.
struct Run {
    folder: TempDir,
}

impl Run {
    fn of(task: &str, sets: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run").display().to_string();
        let mut args = vec!["train", "--quiet", "--steps=130", "--task", task, "--out", &out];
        for set in SMALL.iter().chain(sets) {
            args.extend(["--set", set]);
        }
        told(&args);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("run").join(name)
    }

    fn last(&self) -> String {
        self.path("last.safetensors").display().to_string()
    }

    /// The last evaluation in the metrics.
    fn evaluation(&self) -> Value {
        let text = std::fs::read_to_string(self.path("metrics.jsonl")).unwrap();
        let mut lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.rfind(|line| line["kind"] == "evaluation").unwrap()
    }
}

fn launch_policy() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch/policies");
    folder.join("swing_arm.safetensors").display().to_string()
}

#[test]
fn a_task_without_a_robot_leaves_bundles_and_is_made_again_from_them() {
    let run = Run::of(
        "InvertedPendulum-v5",
        &["task.frame_skip=4", "run.normalize_observations=true"],
    );
    for name in [
        "best.safetensors",
        "bundles/v000000.safetensors",
        "bundles/v000002.safetensors",
    ] {
        let bundle = bundle::open(&std::fs::read(run.path(name)).unwrap()).unwrap();
        let Subject::Task(task) = &bundle.manifest().subject else {
            panic!("{name} is for a robot");
        };
        assert_eq!(
            (task.name.as_str(), task.control_period_ns),
            ("InvertedPendulum-v5", 80_000_000)
        );
        assert_eq!(task.options["frame_skip"], 4);
    }
    let (text, _) = told(&["inspect", &run.last()]);
    for words in [
        "task              InvertedPendulum-v5",
        "control period    80 ms",
        "observation       4 numbers",
        "action            1 numbers",
        "option            frame_skip = 4",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // The evaluation of the run was that of the sealed bundle on the same starts.
    let eval = ["eval", &run.last(), "--episodes=2", "--candidates=3", "--json"];
    for named in [&[][..], &["--task", "InvertedPendulum-v5"]] {
        let (json, warnings) = told(&[&eval[..], named].concat());
        let evaluation: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(evaluation["mean_return"], run.evaluation()["mean_return"]);
        assert_eq!(evaluation["mean_length"], run.evaluation()["mean_length"]);
        assert_eq!(warnings, "");
    }
}

#[test]
fn a_bundle_is_measured_under_the_conditions_of_its_run_or_those_that_are_asked_for() {
    let sets = ["environment.action_delay_max=0.1", "environment.mass=0.3"];
    let run = Run::of("swing_arm", &sets);
    let eval = |bundle: &str, more: &[&str]| -> Value {
        let args = ["eval", bundle, "--episodes=2", "--candidates=3", "--json"];
        serde_json::from_str(&told(&[&args[..], more].concat()).0).unwrap()
    };
    let own = eval(&run.last(), &[]);
    assert_eq!(own["mean_return"], run.evaluation()["mean_return"]);
    assert_eq!(
        (&own["environment_of"], &own["environment"]["mass"]),
        (&"run".into(), &0.3.into())
    );
    let plain = eval(&run.last(), &["--environment=task"]);
    assert_ne!(plain["mean_return"], own["mean_return"]);

    // Away from its run nobody knows under which conditions that was.
    let away = run.folder.path().join("away.safetensors").display().to_string();
    std::fs::copy(run.last(), &away).unwrap();
    let elsewhere = eval(&away, &[]);
    assert_eq!(elsewhere["environment_of"], "task");
    assert_eq!(elsewhere["mean_return"], plain["mean_return"]);
    let asked: Vec<String> = sets.iter().map(|set| format!("--set={set}")).collect();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    assert_eq!(eval(&away, &asked)["mean_return"], own["mean_return"]);
    let text = refusal(&["eval", &away, "--environment=run"]);
    assert!(text.contains("does not lie in the folder of its run"), "{text}");
    let text = refusal(&["eval", &away, "--set=learner.tau=0.1"]);
    assert!(
        text.contains("section [learner] has no part in a measurement"),
        "{text}"
    );
}

#[test]
fn more_candidates_than_a_sampler_has_room_for_are_refused_at_once() {
    for candidates in ["0", "65", "18446744073709551615"] {
        let text = refusal(&["eval", &launch_policy(), "--candidates", candidates]);
        assert!(
            text.contains(&format!("--candidates is {candidates}; expected 1 to 64")),
            "{text}"
        );
    }
}

#[test]
fn a_bundle_is_measured_only_on_what_it_fits() {
    let run = Run::of("walker-stand", &["evaluation.episodes=1"]);
    let short = ["--episodes=1", "--json"];
    let (_, warnings) = told(&[&["eval", &run.last(), "--task", "walker-walk"], &short[..]].concat());
    assert!(
        warnings.contains("was trained on 'walker-stand' and is measured on 'walker-walk'"),
        "{warnings}"
    );
    for (task, words) in [
        ("Hopper-v5", ["observation size is 24", "'Hopper-v5' expects 11"]),
        (
            "swing_arm",
            ["for the task 'walker-stand'", "for the robot 'swing_arm'"],
        ),
        (
            "walker-fly",
            ["there is no task 'walker-fly'", "did you mean 'walker-"],
        ),
    ] {
        let text = refusal(&["eval", &run.last(), "--task", task]);
        assert!(words.iter().all(|words| text.contains(words)), "{text}");
    }
    let text = refusal(&["eval", &launch_policy(), "--task", "walker-walk"]);
    assert!(
        text.contains("for the robot 'swing_arm'") && text.contains("'walker-walk' has no robot"),
        "{text}"
    );
}

#[test]
fn two_tasks_of_the_same_sizes_and_another_period_are_told_apart() {
    let run = Run::of("HalfCheetah-v5", &["evaluation.episodes=1"]);
    let text = refusal(&["eval", &run.last(), "--task", "Walker2d-v5"]);
    assert!(
        text.contains("control period is 50 ms") && text.contains("'Walker2d-v5' expects 8 ms"),
        "{text}"
    );
}

/// Must never get a bundle.
struct NoBundle;

impl BundleSink for NoBundle {
    fn publish(&mut self, _: &SealedBundle, _file: &std::path::Path) -> anyhow::Result<()> {
        unreachable!("no node runs a task")
    }
}

#[test]
fn nodes_are_not_sent_bundles_of_a_task_without_a_robot() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig::load("HalfCheetah-v5", None, &[]).unwrap();
    let mut options = training::options("HalfCheetah-v5", config, 0, folder.path());
    options.sink = Some(Box::new(NoBundle));
    let text = train(options).unwrap_err().to_string();
    assert!(
        text.contains("'HalfCheetah-v5' has no robot; leave --topic out"),
        "{text}"
    );
    assert!(!folder.path().join("metrics.jsonl").exists());
}
