//! `train --seeds`: runs side by side.

use super::*;

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
        let mut several = several_seeds(&out, seeds, steps, &[]);
        let output = several.env("RUST_LOG", "info").output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let log = std::fs::read_to_string(out.join("s0.log")).unwrap();
    let mut told = log.as_str();
    for words in [
        "training swing_arm with seed 0",
        "begun again, from its checkpoint ---",
        "going on with swing_arm-",
    ] {
        let (_, rest) = told.split_once(words).unwrap_or_else(|| panic!("{words}: {log}"));
        told = rest;
    }
    let log = std::fs::read_to_string(out.join("s3.log")).unwrap();
    assert!(!log.contains("begun again"), "{log}");
    for seed in 0..4 {
        assert_eq!(checkpoint_step(&out.join(format!("s{seed}"))), 140, "seed {seed}");
    }
    assert!(out.join("curve.png").exists());
    let mut one_more = several_seeds(&out, "0..4", 140, &[]);
    let output = one_more.env("RUST_LOG", "info").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("5 of 5 seeds measured"),
        "also those done before: {text}"
    );
    let metrics = |seed| std::fs::read_to_string(out.join(format!("s{seed}/metrics.jsonl"))).unwrap();
    assert_ne!(metrics(0), metrics(1));
}

#[test]
fn seeds_share_the_cores_unless_a_file_says_how_many_each_has() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("three.toml");
    std::fs::write(&file, "[learner]\nthreads = 3\n").unwrap();
    let shared = (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1);
    let file = file.to_string_lossy().into_owned();
    let cases: [(&str, &[&str], usize); 2] = [
        ("told", &["--config", &file], 3),
        ("shared", &["--set", "learner.threads=0"], shared),
    ];
    for (name, arguments, threads) in cases {
        let out = folder.path().join(name);
        let output = several_seeds(&out, "0..1", 105, arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let config = std::fs::read_to_string(out.join("s1/config.toml")).unwrap();
        let config: toml::Table = config.parse().unwrap();
        assert_eq!(
            config["learner"]["threads"].as_integer(),
            i64::try_from(threads).ok(),
            "{name}"
        );
    }
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
        // As --algorithm sac, which goes into the same folder.
        "--set",
        "run.algorithm=sac",
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
fn a_seed_whose_checkpoint_is_damaged_stops_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("runs");
    std::fs::create_dir_all(out.join("s1/checkpoints")).unwrap();
    std::fs::write(out.join("s1/checkpoints/last.safetensors"), "no checkpoint").unwrap();
    let output = several_seeds(&out, "0..2", 120, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("1 of 3 runs failed: seed 1: the checkpoint") && text.contains("is corrupt"),
        "{text}"
    );
    assert_eq!(
        (checkpoint_step(&out.join("s0")), checkpoint_step(&out.join("s2"))),
        (120, 120)
    );
}

#[test]
fn seeds_of_another_task_or_configuration_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("runs");
    let output = several_seeds(&out, "0..1", 120, &[]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let file = folder.path().join("other.toml");
    std::fs::write(&file, "[learner]\ndiscount = 0.5\n").unwrap();
    for (more, expected) in [
        (
            ["--task", "Hopper-v5"],
            "(task: swing_arm there, Hopper-v5 asked for)",
        ),
        (
            ["--set", "learner.tau=0.02"],
            "(learner.tau: 0.01 there, 0.02 asked for)",
        ),
        (["--config", super::text(&file)], " there, 0.5 asked for)"),
    ] {
        let output = several_seeds(&out, "0..2", 140, &more).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.contains("s0 is not the one asked for") && text.contains("choose another --out"),
            "{text}"
        );
        assert!(text.contains(expected), "{text}");
        assert!(!out.join("s2").exists());
        assert_eq!(checkpoint_step(&out.join("s0")), 120);
    }
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
    assert_eq!(child.wait().unwrap().code(), Some(130));
    for seed in 0..2 {
        let step = checkpoint_step(&out.join(format!("s{seed}")));
        assert!((1..100_000).contains(&step), "seed {seed} at {step}");
    }
    assert!(
        !out.join("s2/metrics.jsonl").exists(),
        "the third was not started any more"
    );
}
