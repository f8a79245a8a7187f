//! SIGKILL, wherever the run is.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use mfpo_policy::bundle;
use mfpo_policy::guard::GuardManifest;
use mfpo_train::checkpoint::Checkpoints;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{arrays, command, metrics, refusal, resume, succeed, train};

/// Lets the run write `lines` more lines, then kills it without a warning.
fn kill_after(command: Command, folder: &Path, lines: usize) {
    let count = || fs::read_to_string(folder.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    let before = count();
    kill_when(command, || count() >= before + lines);
}

/// Kills the run without a warning, once it has come so far.
fn kill_when(mut command: Command, reached: impl Fn() -> bool) {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !reached() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert_eq!(
        child.wait().unwrap().signal(),
        Some(9),
        "the run was over before it could be killed"
    );
}

/// The guard of the last bundle.
fn guard(folder: &Path) -> Option<GuardManifest> {
    let bytes = fs::read(folder.join("last.safetensors")).ok()?;
    bundle::open(&bytes).unwrap().manifest().guard
}

fn a_killed_run_equals_one_that_was_not(task: &str, sets: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    succeed(train(&whole, task, sets));
    kill_after(train(&killed, task, sets), &killed, 90);
    // Each resumed run repeats what was not saved: it is killed once it has gone farther than the one before.
    kill_after(resume(&killed), &killed, 70);
    kill_after(resume(&killed), &killed, 75);
    succeed(resume(&killed));
    assert_eq!(metrics(&whole), metrics(&killed), "{task} {sets:?}");
    assert_eq!(arrays(&whole), arrays(&killed), "{task} {sets:?}");
    assert_eq!(guard(&whole).is_some(), sets.contains(&"run.guard=true"));
    assert_eq!(guard(&whole), guard(&killed), "{task} {sets:?}");
    let updates = metrics(&whole)
        .iter()
        .filter(|line| line["kind"] == "update")
        .count();
    assert!((295..=302).contains(&updates), "{updates} updates");
}

#[test]
fn mfpo_goes_on_bit_by_bit_after_kills() {
    a_killed_run_equals_one_that_was_not("swing_arm", &[]);
}

#[test]
fn every_option_goes_on_bit_by_bit() {
    let sets = [
        "run.normalize_observations=true",
        "run.guard=true",
        "run.environments=3",
        "learner.support_from_returns=true",
        "learner.update_to_data=2",
        "learner.grid_time_share=0.1",
        "learner.leave_one_out=true",
        // Just below the first temperature, so that the run soon comes down to it.
        "learner.temperature_min=0.0099",
        "learner.precision=fast",
        "learner.sampling_steps=3",
        "environment.action_delay_max=0.02",
        "environment.mass=0.1",
        "environment.damping=0.1",
        "environment.effort=0.1",
    ];
    a_killed_run_equals_one_that_was_not("InvertedPendulum-v5", &sets);
}

/// Sensors belong to robots; this one also has a goal in each episode.
#[test]
fn a_robot_with_noise_on_its_sensors_goes_on_bit_by_bit() {
    let sets = [
        "learner.clipped_double_q=false",
        "environment.position_noise=0.01",
        "environment.velocity_noise=0.1",
        "environment.action_delay_min=0.004",
        "environment.action_delay_max=0.02",
        "environment.damping=0.2",
        "environment.effort=0.1",
    ];
    a_killed_run_equals_one_that_was_not("reach_arm", &sets);
}

#[test]
fn sac_goes_on_bit_by_bit_after_kills() {
    let sets = ["run.algorithm=sac", "run.normalize_observations=true"];
    a_killed_run_equals_one_that_was_not("Hopper-v5", &sets);
}

/// More episodes than a test waits for.
const ENDLESS: &str = "evaluation.episodes=1000000";

#[test]
fn a_run_that_is_killed_in_its_first_evaluation_goes_on_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    succeed(train(&whole, "swing_arm", &[]));
    let checkpoint = Checkpoints::new(&killed).last();
    kill_when(train(&killed, "swing_arm", &[ENDLESS]), || checkpoint.exists());
    assert!(metrics(&killed).is_empty());
    let mut more = resume(&killed);
    more.args(["--set", "evaluation.episodes=1"]);
    succeed(more);
    assert_eq!(metrics(&whole), metrics(&killed));
    assert_eq!(arrays(&whole), arrays(&killed));
    assert!(killed.join("best.safetensors").exists());
}

#[test]
fn a_run_that_is_killed_in_its_last_evaluation_lacks_only_that() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let at_its_ends = ["evaluation.every=1000"];
    succeed(train(&whole, "swing_arm", &at_its_ends));
    kill_after(train(&killed, "swing_arm", &at_its_ends), &killed, 90);
    let mut endless = resume(&killed);
    endless.args(["--set", ENDLESS]);
    let checkpoints = Checkpoints::new(&killed);
    kill_when(endless, || {
        checkpoints.load().is_ok_and(|(header, _)| header.step == 400)
    });
    let mut more = resume(&killed);
    more.args(["--set", "evaluation.episodes=1"]);
    succeed(more);
    assert_eq!(metrics(&whole), metrics(&killed));
    assert_eq!(arrays(&whole), arrays(&killed));
    let text = refusal(resume(&killed));
    assert!(text.contains("is done: 400 of 400 steps"), "{text}");
}

/// Lets the run go for so long, then kills it without a warning; false where it had come to its end before.
fn is_killed_after(mut command: Command, time: Duration) -> bool {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(time);
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let is_killed = output.status.signal() == Some(9);
    if !is_killed {
        check_end(&output);
    }
    is_killed
}

/// A run that was killed behind its last checkpoint has nothing left to do, and says so.
fn check_end(output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() || text.contains("is done: 400 of 400 steps"),
        "{text}"
    );
}

#[test]
fn a_run_that_is_killed_at_random_moments_goes_on_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let began = Instant::now();
    succeed(train(&whole, "swing_arm", &[]));
    let duration = began.elapsed();
    // Where there is no checkpoint yet, the command that began the run is given again.
    let again = || {
        if Checkpoints::new(&killed).last().exists() {
            resume(&killed)
        } else {
            train(&killed, "swing_arm", &[])
        }
    };
    let mut rng = ChaCha8Rng::seed_from_u64(17);
    let mut kills = Vec::new();
    let is_over = (0..12).any(|_| {
        // Often early: while the program starts, makes its folder, or reads what was left.
        let moment = duration.mul_f64(0.3 * rng.random::<f64>().powi(2));
        kills.push(moment);
        !is_killed_after(again(), moment)
    });
    if !is_over {
        check_end(&again().output().unwrap());
    }
    println!("the whole run takes {duration:?}; killed after {kills:?}");
    assert!(kills.len() > 2, "hardly a kill");
    assert_eq!(metrics(&whole), metrics(&killed));
    assert_eq!(arrays(&whole), arrays(&killed));
}

#[test]
fn a_run_that_was_killed_before_its_first_checkpoint_says_how_it_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    succeed(train(&whole, "swing_arm", &[]));
    // A folder in the place of the file that is being written keeps the checkpoint from coming before the kill.
    let in_its_place = killed.join("checkpoints/last.writing");
    fs::create_dir_all(&in_its_place).unwrap();
    kill_when(train(&killed, "swing_arm", &[ENDLESS]), || {
        killed.join("run.json").exists()
    });
    fs::remove_dir(in_its_place).unwrap();
    let text = refusal(resume(&killed));
    assert!(text.contains("has no checkpoint yet"), "{text}");
    let (_, again) = text.rsplit_once(": ").unwrap();
    let mut again = command(&again.split_whitespace().collect::<Vec<_>>());
    again.args(["--quiet", "--set", "evaluation.episodes=1"]);
    succeed(again);
    assert_eq!(metrics(&whole), metrics(&killed));
    assert_eq!(arrays(&whole), arrays(&killed));

    // Killed even before it said what it is.
    let early = folder.path().join("early");
    fs::create_dir(&early).unwrap();
    fs::write(early.join("metrics.jsonl"), "").unwrap();
    let text = refusal(resume(&early));
    assert!(
        text.contains("start it again with the command that began it"),
        "{text}"
    );
}
