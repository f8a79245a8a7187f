//! Laws that take minutes: `cargo xtask test --slow`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

fn train(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mfpo_train"));
    command.args(["train", "--json-progress", "--out"]).arg(folder);
    command.args(args).env("RUST_LOG", "warn").stdout(Stdio::piped());
    command
}

/// Reports of a run, as they come.
fn reports(child: &mut Child) -> impl Iterator<Item = Value> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

/// Return of the last evaluation of a run to its end.
fn last_return(args: &[&str]) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let mut child = train(&folder.path().join("run"), args).spawn().unwrap();
    let returns = reports(&mut child).filter_map(|report| report["return"].as_f64());
    let last = returns.last();
    assert!(child.wait().unwrap().success());
    last.unwrap()
}

/// Resident memory of a process, bytes.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    1024.0 * kilobytes
}

#[test]
fn memory_grows_by_no_more_than_the_replay_buffer_over_100_000_steps() {
    let folder = tempfile::tempdir().unwrap();
    let mut args = vec!["--task", "HalfCheetah-v5", "--steps", "100000"];
    for set in [
        "run.random_steps=1000",
        "learner.hidden_sizes=[32, 32]",
        "learner.batch_size=16",
        "learner.policy_candidates=4",
        "learner.gaussian_candidates=4",
        "evaluation.episodes=1",
    ] {
        args.extend(["--set", set]);
    }
    let mut child = train(&folder.path().join("run"), &args).spawn().unwrap();
    let (pid, mut early, mut late) = (child.id(), None, None);
    for report in reports(&mut child) {
        match report["step"].as_u64().unwrap() {
            20_000 => early = Some(resident(pid)),
            99_900 => late = Some(resident(pid)),
            _ => {}
        }
    }
    assert!(child.wait().unwrap().success());
    let growth = late.unwrap() - early.unwrap();
    let replay = 79_900.0 * f64::from(17 + 6 + 1 + 1 + 17) * 4.0;
    println!(
        "grew by {:.1} MB; the buffer's own numbers are {:.1} MB",
        growth / 1e6,
        replay / 1e6
    );
    // Pages, and the returns of the run's hundred episodes.
    assert!(growth < 1.15 * replay + 2e6, "{growth} {replay}");
}

#[test]
fn sac_balances_the_pendulum_for_three_seeds() {
    for seed in ["0", "1", "2"] {
        let args = [
            "--task",
            "InvertedPendulum-v5",
            "--algorithm",
            "sac",
            "--seed",
            seed,
        ];
        let more = ["--steps", "12000", "--set", "run.random_steps=1000"];
        let total = last_return(&[&args[..], &more].concat());
        println!("seed {seed}: {total}");
        assert!(total > 900.0, "seed {seed}: {total} of 1000");
    }
}
