//! Bundles that do not come in one message: announced by digest and path, or sent in parts; and what the node says when two
//! training runs publish at once, or an older version comes.

use std::path::{Path, PathBuf};

use mfpo_policy::spec::{CommandInterface, RobotSpec};
use mfpo_tests::bundles::{digest_of, sealed, sealed_in, two_joints};
use mfpo_tests::{Peer, Process, Qos, TestEnv, assert_says};
use serde_json::{Value, json};

fn spec() -> RobotSpec {
    two_joints(CommandInterface::Effort)
}

/// A node that runs version 5.
fn running(env: &TestEnv, parameters: &[&str]) -> (Process, Peer) {
    let policy = env.file("live.safetensors", &sealed(&spec(), 5));
    let policy = format!("policy:={}", policy.display());
    let mut peer = env.peer("");
    let control = env.control(&[&[policy.as_str()], parameters].concat());
    peer.report_both_joints();
    peer.active();
    (control, peer)
}

fn announce(peer: &mut Peer, path: &Path, digest: &str) {
    let message = json!({"stamp": "now", "run": "run-a", "version": 6, "digest": digest, "path": path});
    peer.publish("policy/bundle", "mfpo_msgs/PolicyBundle", Qos::Latched, message);
}

fn refused(peer: &Peer, rejections: u64, words: &[&str]) {
    let status = peer.status(&format!("{rejections} rejections"), |s| {
        s["rejections"].as_u64() >= Some(rejections)
    });
    assert_says(status["last_rejection"].as_str().unwrap_or_default(), words);
    assert_eq!((&status["version"], &status["swaps"]), (&5.into(), &0.into()));
}

#[test]
fn a_bundle_that_is_announced_by_digest_and_path_goes_live_once_its_file_has_that_digest() {
    let env = TestEnv::new();
    let (_control, mut peer) = running(&env, &[]);
    let newer = sealed(&spec(), 6);
    let file = env.file("six", &newer);
    let other = sealed(&spec(), 7);
    announce(&mut peer, &file, &digest_of(&other));
    refused(
        &peer,
        1,
        &[&digest_of(&newer), "announced was", &digest_of(&other)],
    );
    announce(&mut peer, Path::new("/nowhere/six"), &digest_of(&newer));
    refused(&peer, 2, &["'/nowhere/six'", "No such file"]);
    announce(&mut peer, Path::new("six"), &digest_of(&newer));
    refused(&peer, 3, &["'six'", "absolute path"]);
    announce(&mut peer, Path::new("/dev/zero"), &digest_of(&newer));
    refused(&peer, 4, &["'/dev/zero' is no ordinary file"]);

    announce(&mut peer, &file, &digest_of(&newer));
    let status = peer.status("the announced bundle is live", |s| s["version"] == 6);
    assert_eq!(status["digest"], digest_of(&newer));
    let opened = mfpo_policy::bundle::open(&newer).expect("a bundle");
    let weights = opened.weights_digest().expect("a digest");
    assert_eq!(
        status["weights_digest"], weights,
        "read back from the node's memory"
    );
}

/// A bundle in parts, each a file.
fn parts(env: &TestEnv, bundle: &[u8], count: usize) -> Vec<PathBuf> {
    let size = bundle.len().div_ceil(count);
    let digest = digest_of(bundle);
    let part = |(index, part): (usize, &[u8])| env.file(&format!("{}-{index}", &digest[..8]), part);
    bundle.chunks(size).enumerate().map(part).collect()
}

fn send_part(peer: &mut Peer, (run, version): (&str, u64), bundle: &[u8], files: &[PathBuf], index: usize) {
    let message: Value = json!({"stamp": "now", "run": run, "version": version, "digest": digest_of(bundle),
        "size": bundle.len(), "index": index, "count": files.len(), "data": {"file": files[index]}});
    peer.publish(
        "policy/bundle_chunk",
        "mfpo_msgs/PolicyBundleChunk",
        Qos::Latched,
        message,
    );
}

#[test]
fn bundles_in_parts_of_two_runs_at_once_are_put_together_and_whoever_comes_later_gets_them_too() {
    let env = TestEnv::new();
    let (control, mut peer) = running(&env, &[]);
    let (ours, theirs) = (sealed(&spec(), 6), sealed_in("run-b", &spec(), 9));
    let (our_parts, their_parts) = (parts(&env, &ours, 5), parts(&env, &theirs, 3));
    for index in [3, 0, 4] {
        send_part(&mut peer, ("run-a", 6), &ours, &our_parts, index);
    }
    for index in [2, 0, 1] {
        send_part(&mut peer, ("run-b", 9), &theirs, &their_parts, index);
    }
    refused(&peer, 1, &["run 'run-b'", "accept_runs"]);
    for index in [2, 1] {
        send_part(&mut peer, ("run-a", 6), &ours, &our_parts, index);
    }
    let status = peer.status("the bundle in parts is live", |s| s["version"] == 6);
    assert_eq!(status["digest"], digest_of(&ours));

    drop(control);
    let policy = env.file("again", &sealed(&spec(), 5));
    let later = env.control(&[&format!("policy:={}", policy.display())]);
    later.says(&["starting with policy version 5"]);
    later.says(&["swapped to policy version 6 of run 'run-a'"]);
}

#[test]
fn a_bundle_of_which_a_part_stays_away_is_given_up_and_named() {
    let env = TestEnv::new();
    let (_control, mut peer) = running(&env, &[]);
    let bundle = sealed(&spec(), 6);
    let files = parts(&env, &bundle, 4);
    for index in [0, 1, 3] {
        send_part(&mut peer, ("run-a", 6), &bundle, &files, index);
    }
    refused(
        &peer,
        1,
        &[
            "version 6 of run 'run-a'",
            "3 of 4 parts came",
            "publish it again",
        ],
    );
}

#[test]
fn a_bundle_that_a_parameter_refused_is_looked_at_again_when_the_parameter_changes() {
    let env = TestEnv::new();
    let (_control, mut peer) = running(&env, &[]);
    let theirs = sealed_in("run-b", &spec(), 9);
    let files = parts(&env, &theirs, 3);
    for index in 0..3 {
        send_part(&mut peer, ("run-b", 9), &theirs, &files, index);
    }
    refused(&peer, 1, &["run 'run-b'", "accept_runs"]);
    let runs = json!({"type": 9, "string_array_value": ["run-b"]});
    let (set, reason) = peer.set_parameter("accept_runs", runs);
    assert!(set, "{reason}");
    let status = peer.status("the other run acts", |s| s["run"] == "run-b");
    assert_eq!(
        (&status["version"], &status["rejections"]),
        (&9.into(), &1.into())
    );
}

#[test]
fn two_runs_that_publish_at_once_are_named_and_only_the_accepted_one_acts() {
    let env = TestEnv::new();
    let (control, mut peer) = running(&env, &[]);
    let mut offer = |run: &str, version: u64| {
        let file = env.file(&format!("{run}-{version}"), &sealed_in(run, &spec(), version));
        let message = json!({"stamp": "now", "run": run, "version": version, "data": {"file": file}});
        peer.publish("policy/bundle", "mfpo_msgs/PolicyBundle", Qos::Latched, message);
        peer.status(&format!("version {version} of {run} was looked at"), |s| {
            let refused = s["last_rejection"].as_str().unwrap_or_default();
            match run {
                "run-a" => s["version"] == version,
                _ => refused.contains(&format!("run '{run}' may not take over")),
            }
        })
    };
    assert_eq!(offer("run-a", 6)["competing_runs"], json!([]));
    offer("run-b", 1);
    offer("run-a", 7);
    control.says(&[
        "training runs ['run-a', 'run-b'] publish bundles at the same time",
        "accept_runs",
        "-r policy/bundle:=",
    ]);
    let status = peer.status("both are named", |s| {
        s["competing_runs"] == json!(["run-a", "run-b"])
    });
    assert_eq!((&status["run"], &status["version"]), (&"run-a".into(), &7.into()));
}

#[test]
fn an_older_version_goes_live_only_while_the_operator_allows_it() {
    let env = TestEnv::new();
    let (_control, mut peer) = running(&env, &[]);
    let older = env.file("older", &sealed(&spec(), 3));
    let (accepted, reason) = peer.load(&older);
    assert!(!accepted);
    assert_says(&reason, &["version 3", "above 5", "parameter allow_downgrade"]);
    let boolean = |value: bool| json!({"type": 1, "bool_value": value});
    let (set, reason) = peer.set_parameter("allow_downgrade", boolean(true));
    assert!(set, "{reason}");
    assert_eq!(peer.load(&older), (true, "accepted".into()));
    peer.status("version 3 acts", |s| s["version"] == 3);
    let (set, reason) = peer.set_parameter("allow_downgrade", boolean(false));
    assert!(set, "{reason}");
    let oldest = env.file("oldest", &sealed(&spec(), 2));
    assert!(!peer.load(&oldest).0);
}
