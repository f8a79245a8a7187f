//! A run that is killed goes on bit by bit; a checkpoint that does not fit is refused, and a full disk loses nothing.

mod kills;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mfpo_train::checkpoint::Checkpoints;
use mfpo_train::state::Numbers;
use serde_json::Value;

const SMALL: [&str; 11] = [
    "run.random_steps=100",
    "run.report_every=1",
    "run.publish_every=150",
    "run.checkpoint_every=60",
    "run.replay_capacity=250",
    "evaluation.every=130",
    "evaluation.episodes=1",
    "learner.hidden_sizes=[16, 16]",
    "learner.batch_size=16",
    "sac.hidden_sizes=[16, 16]",
    "sac.batch_size=16",
];

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mfpo_train"));
    command.args(args).env("RUST_LOG", "warn");
    command
}

fn train(folder: &Path, task: &str, sets: &[&str]) -> Command {
    let mut command = command(&[
        "train",
        "--quiet",
        "--seed",
        "5",
        "--set",
        "run.steps=400",
        "--task",
        task,
    ]);
    command.arg("--out").arg(folder);
    for set in SMALL.iter().chain(sets) {
        command.args(["--set", set]);
    }
    command
}

fn resume(folder: &Path) -> Command {
    let mut command = command(&["train", "--quiet"]);
    command.arg("--resume").arg(folder);
    command
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn refusal(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

/// The lines of `metrics.jsonl` without their times.
fn metrics(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        value.as_object_mut().unwrap().remove("seconds");
        value
    };
    text.lines().map(line).collect()
}

/// Every number of the last checkpoint, as bits.
fn arrays(folder: &Path) -> Vec<(String, Vec<u64>)> {
    let (header, state) = Checkpoints::new(folder).load().unwrap();
    // With several environments a run ends with the round in which it reaches its steps.
    assert!((400..403).contains(&header.step));
    let bits = |numbers: &Numbers<'_>| match numbers {
        Numbers::F32(values) => values.iter().map(|v| u64::from(v.to_bits())).collect(),
        Numbers::F64(values) => values.iter().map(|v| v.to_bits()).collect(),
        Numbers::U64(values) => values.to_vec(),
    };
    let arrays = state.iter().map(|(name, numbers)| (name.clone(), bits(numbers)));
    arrays.collect()
}

/// A finished run, and the path of its checkpoint.
fn finished() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    succeed(train(&run, "swing_arm", &["run.steps=120"]));
    (folder, run)
}

#[test]
fn a_checkpoint_comes_by_time_where_its_step_is_far_away() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let far = [
        "run.steps=1000000",
        "run.checkpoint_every=1000000",
        "run.checkpoint_seconds=1",
    ];
    let mut child = train(&run, "swing_arm", &far).spawn().unwrap();
    let began = Instant::now();
    let step = loop {
        let step = Checkpoints::new(&run).load().map_or(0, |(header, _)| header.step);
        if step > 0 || began.elapsed().as_secs() > 60 || child.try_wait().unwrap().is_some() {
            break step;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!((1..1_000_000).contains(&step), "step {step}");
}

#[test]
fn a_finished_run_goes_on_when_it_gets_more_steps() {
    let (_folder, run) = finished();
    let text = refusal(resume(&run));
    assert!(
        text.contains("is done: 120 of 120 steps; give more with --steps"),
        "{text}"
    );
    let mut more = resume(&run);
    more.args(["--steps", "140"]);
    succeed(more);
    assert_eq!(Checkpoints::new(&run).load().unwrap().0.step, 140);
    let mut other = resume(&run);
    other.args(["--steps", "200", "--task", "Hopper-v5"]);
    let text = refusal(other);
    assert!(
        text.contains("is of the task 'swing_arm', not of 'Hopper-v5'"),
        "{text}"
    );
    let mut larger = resume(&run);
    larger.args(["--steps", "200", "--set", "learner.hidden_sizes=[17, 16]"]);
    let text = refusal(larger);
    assert!(
        text.contains("learner.hidden_sizes = ") && text.contains("its networks have the other sizes"),
        "{text}"
    );
    assert!(refusal(train(&run, "swing_arm", &[])).contains("or go on with it: --resume"));
}

#[test]
fn a_run_goes_on_with_the_temperature_that_is_set_and_learns_it_on() {
    let (_folder, run) = finished();
    let temperature = || {
        let lines = metrics(&run);
        let last = lines.iter().rfind(|line| line["kind"] == "update").unwrap();
        last["temperature"].as_f64().unwrap()
    };
    assert!(temperature() < 0.2);
    // Published after the checkpoint, version 1, and maybe run by a robot.
    let published = run.join("bundles/v000004.safetensors");
    fs::write(&published, "as it was").unwrap();
    let mut hotter = resume(&run);
    hotter.args(["--steps", "121", "--set", "learner.temperature=0.5"]);
    hotter.args(["--set", "evaluation.candidates=2"]);
    let output = hotter.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("the run goes on with learner.initial_temperature = 0.5"),
        "{text}"
    );
    // The curve before was measured without a choice.
    assert!(
        text.contains("the run goes on with evaluation.candidates = 2"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(published).unwrap(), "as it was");
    assert_eq!(Checkpoints::new(&run).load().unwrap().0.version, Some(5));
    // One update moves it by the learning rate, 1e-3 of itself.
    assert!((temperature() - 0.5).abs() < 1e-3, "{}", temperature());
    // Said again it changes nothing: the checkpoint knows of it, and the second update goes on from the first.
    let mut more = resume(&run);
    more.args(["--steps", "122", "--set", "learner.temperature=0.5"]);
    succeed(more);
    assert!((temperature() - 0.5).abs() > 8e-4, "{}", temperature());
}

#[test]
fn the_progress_of_a_resumed_run_tells_the_version_of_its_last_bundle() {
    let (_folder, run) = finished();
    let version = Checkpoints::new(&run).load().unwrap().0.version;
    assert_eq!(version, Some(1));
    let mut more = command(&["train", "--json-progress", "--steps", "140", "--resume"]);
    let output = more.arg(&run).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["step"], &first["version"]),
        (&121.into(), &1.into()),
        "{first}"
    );
}

/// What a run writes after its checkpoint, and repeats when it goes on.
const AFTER: &str = "{\"kind\":\"update\",\"step\":121,\"seconds\":9.0}\n";

/// What a resume that fails must leave as it is.
fn files(run: &Path) -> [Vec<u8>; 4] {
    let names = [
        "config.toml",
        "run.json",
        "metrics.jsonl",
        "events.out.tfevents.mfpo",
    ];
    names.map(|name| fs::read(run.join(name)).unwrap())
}

#[test]
fn a_log_of_metrics_that_is_damaged_is_refused_by_line_before_anything_is_cut() {
    let (_folder, run) = finished();
    let path = run.join("metrics.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let second = whole.find('\n').unwrap() + 1;
    for (damage, reason) in [(&b"x"[..], "expected value"), (&b"\xff"[..], "UTF-8")] {
        let mut bytes = (whole.clone() + AFTER).into_bytes();
        bytes[second..second + 1].copy_from_slice(damage);
        fs::write(&path, bytes).unwrap();
        let before = files(&run);
        let mut more = resume(&run);
        more.args(["--steps", "200"]);
        let text = refusal(more);
        assert!(
            text.contains("metrics.jsonl: line 2 is not what a run writes") && text.contains(reason),
            "{text}"
        );
        assert!(files(&run) == before, "{text}");
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_leaves_every_file_as_it_is() {
    let (_folder, run) = finished();
    let path = run.join("metrics.jsonl");
    fs::write(&path, fs::read_to_string(&path).unwrap() + AFTER).unwrap();
    let before = files(&run);
    let mut larger = resume(&run);
    larger.args(["--steps", "200", "--set", "learner.hidden_sizes=[17, 16]"]);
    let text = refusal(larger);
    assert!(text.contains("a run that goes on cannot change this"), "{text}");
    assert!(files(&run) == before);
}

#[test]
fn a_folder_without_a_checkpoint_is_begun_anew_and_keeps_what_was_measured() {
    let (_folder, run) = finished();
    let before = metrics(&run);
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let output = train(&run, "swing_arm", &["run.steps=110"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("holds a run without a checkpoint"),
        "{text}"
    );
    assert_eq!(Checkpoints::new(&run).load().unwrap().0.step, 110);
    assert_eq!(metrics(&run.join("before_1")), before);
}

#[test]
fn a_checkpoint_that_is_damaged_or_missing_is_named() {
    let (folder, run) = finished();
    let path = Checkpoints::new(&run).last();
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x10;
    for bad in [&damaged[..], &whole[..whole.len() - 9], b"", b"not a checkpoint"] {
        fs::write(&path, bad).unwrap();
        let text = refusal(resume(&run));
        assert!(
            text.contains("last.safetensors is corrupt") && text.contains("start the run"),
            "{text}"
        );
    }
    let text = refusal(resume(folder.path()));
    assert!(
        text.contains("cannot read the checkpoint") && text.contains("--resume takes a run folder"),
        "{text}"
    );
}

/// The limit on the size of files is the full disk: the write fails in its middle.
#[test]
fn a_disk_that_is_full_leaves_the_last_checkpoint_whole() {
    let (_folder, run) = finished();
    let before = fs::read(Checkpoints::new(&run).last()).unwrap();
    let blocks = before.len() / 2 / 1024;
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut command = Command::new("bash");
    command.args([
        "-c",
        &script,
        env!("CARGO_BIN_EXE_mfpo_train"),
        "train",
        "--quiet",
        "--steps",
        "130",
    ]);
    command.arg("--resume").arg(&run).env("RUST_LOG", "error");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("cannot write the checkpoint") && text.contains("the checkpoint before it is whole"),
        "{text}"
    );
    assert!(fs::read(Checkpoints::new(&run).last()).unwrap() == before);
    assert_eq!(
        fs::read_dir(run.join("checkpoints")).unwrap().count(),
        1,
        "no half file stays"
    );
}

/// [`command`] on a disk that takes no file beyond 4 kB: a configuration fits, a bundle or a picture does not.
fn on_a_full_disk(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("bash");
    let script = "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_mfpo_train"), "train", "--quiet"]);
    command
        .arg("--resume")
        .arg(folder)
        .args(args)
        .env("RUST_LOG", "warn");
    command
}

#[test]
fn a_disk_that_is_full_ends_no_run_and_takes_nothing_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, full) = (folder.path().join("whole"), folder.path().join("full"));
    for run in [&whole, &full] {
        succeed(train(run, "swing_arm", &["run.steps=120"]));
    }
    let names = [
        "checkpoints/last.safetensors",
        "last.safetensors",
        "best.safetensors",
        "bundles/v000000.safetensors",
        "curve.png",
    ];
    let files = || names.map(|name| fs::read(full.join(name)).unwrap());
    let before = files();
    let text = refusal(on_a_full_disk(&full, &["--steps=200"]));
    // No checkpoint without the lines that it counts.
    let lines = format!("cannot write {}", full.join("metrics.jsonl").display());
    let missing = format!("but the disk has not taken all of it: {lines}: File too large");
    // Each told once or at each saving, but none of them ended the run: it came to its end, where it says what is missing.
    for words in [
        "metrics.jsonl: File too large",
        "v000002.safetensors: File too large",
        "the run has come to its end",
        missing.as_str(),
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(files() == before);
    let entries = fs::read_dir(&full).unwrap();
    let mut names = entries.map(|entry| entry.unwrap().file_name());
    let unfinished = names.find(|name| name.to_string_lossy().starts_with('.'));
    assert_eq!(unfinished, None);

    for run in [&whole, &full] {
        let mut more = resume(run);
        more.args(["--steps", "200"]);
        succeed(more);
    }
    assert_eq!(metrics(&whole), metrics(&full));
    let (end, other) = (Checkpoints::new(&whole), Checkpoints::new(&full));
    assert!(end.load().unwrap().1 == other.load().unwrap().1);
}

#[test]
fn numbers_that_are_not_finite_stop_the_run_with_their_tensor_and_a_checkpoint() {
    let (_folder, run) = finished();
    let checkpoints = Checkpoints::new(&run);
    let (header, mut state) = checkpoints.load().unwrap();
    let name = "learner/critic_1/parameters/Dense_0/bias";
    let mut bias = state.take_f32(name).unwrap();
    bias[3] = f32::NAN;
    state.put(name, bias);
    checkpoints.save(header, &state).unwrap();
    let mut more = resume(&run);
    more.args(["--steps", "140"]);
    let text = refusal(more);
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert!(text.contains("critic_loss_1 is NaN at update 21"), "{text}");
    assert!(
        text.contains(&format!("the first tensor that is not finite is {name};")),
        "{text}"
    );
    assert!(
        text.contains("not_finite.safetensors") && text.contains("go on from step 120"),
        "{text}"
    );
    assert!(run.join("checkpoints/not_finite.safetensors").exists());
    assert_eq!(
        checkpoints.load().unwrap().0.step,
        120,
        "the checkpoint before is left alone"
    );
}

/// What a run of 120 steps says that goes on with a number that is not finite in the first bias of `network`, and the bias' name.
fn damaged(sets: &[&str], network: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    succeed(train(&run, "swing_arm", &[&["run.steps=120"][..], sets].concat()));
    let checkpoints = Checkpoints::new(&run);
    let (header, mut state) = checkpoints.load().unwrap();
    let is_bias = |name: &&String| name.starts_with(network) && name.ends_with("/bias");
    let found = state.iter().map(|(name, _)| name).find(is_bias).cloned();
    let name = found.expect("the network has a bias");
    let mut bias = state.take_f32(&name).unwrap();
    bias[0] = f32::INFINITY;
    state.put(&name, bias);
    checkpoints.save(header, &state).unwrap();
    let before = fs::read(checkpoints.last()).unwrap();
    let mut more = resume(&run);
    more.args(["--steps", "140"]);
    let text = refusal(more);
    assert!(fs::read(checkpoints.last()).unwrap() == before, "{network}");
    let broken = run.join("checkpoints/not_finite.safetensors");
    fs::copy(broken, checkpoints.last()).unwrap();
    let (_, state) = checkpoints.load().unwrap();
    let found: Vec<&String> = state
        .iter()
        .filter(|(_, n)| !is_finite(n))
        .map(|(n, _)| n)
        .collect();
    assert_eq!(found, [&name], "nothing has learnt from it: {text}");
    (text, name)
}

fn is_finite(numbers: &Numbers<'_>) -> bool {
    match numbers {
        Numbers::F32(values) => values.iter().all(|v| v.is_finite()),
        Numbers::F64(values) => values.iter().all(|v| v.is_finite()),
        Numbers::U64(_) => true,
    }
}

#[test]
fn the_network_that_a_number_is_not_finite_in_is_named_before_another_learns_from_it() {
    let (mean, sac) = (["learner.clipped_double_q=false"], ["run.algorithm=sac"]);
    for (sets, network, told) in [
        (&[][..], "learner/actor/parameters/", "action"),
        (&[], "learner/logp_mvel/parameters/", "next_logps is"),
        (&[], "learner/critic_1/parameters/", "critic_loss_1 is"),
        (&[], "learner/critic_2/parameters/", "critic_loss_2 is"),
        (&[], "learner/target_critic_1/", "target_value_1 is"),
        (&[], "learner/target_critic_2/", "target_value_2 is"),
        (&mean[..], "learner/logp_mvel/parameters/", "next_logps is"),
        (&mean, "learner/critic_1/parameters/", "critic_loss_1 is"),
        (&mean, "learner/critic_2/parameters/", "critic_loss_2 is"),
        (&mean, "learner/target_critic_1/", "critic_loss_1 is"),
        (&sac[..], "learner/actor/parameters/", "action"),
        (&sac, "learner/critic_1/parameters/", "critic_loss_1 is"),
        (&sac, "learner/critic_2/parameters/", "critic_loss_2 is"),
        (&sac, "learner/target_critic_1/", "critic_loss_1 is"),
        (&sac, "learner/target_critic_2/", "critic_loss_1 is"),
    ] {
        let (text, name) = damaged(sets, network);
        assert_eq!(text.trim_end().lines().count(), 1, "{network}: {text}");
        let named = format!("the first tensor that is not finite is {name};");
        for words in [told, named.as_str(), "its state is in", "go on from step 120"] {
            assert!(text.contains(words), "{sets:?}, {network}, {words}: {text}");
        }
        let section = if sets == sac { "sac" } else { "learner" };
        assert!(text.contains(&format!("--set {section}.learning_rate")), "{text}");
    }
}

#[test]
fn two_programs_do_not_write_into_one_folder() {
    let (_folder, run) = finished();
    let held = fs::File::create(run.join("lock")).unwrap();
    held.lock().unwrap();
    let mut more = resume(&run);
    more.args(["--steps", "140"]);
    assert!(refusal(more).contains("another program trains in"));
}
