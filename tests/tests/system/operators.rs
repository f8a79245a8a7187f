//! What an operator can do while the robot moves: stop, start, roll back, load, watch over it.

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, sealed_in, two_joints};
use mfpo_tests::peer::state;
use mfpo_tests::{Peer, Process, TestEnv, assert_says};
use serde_json::{Value, json};

/// A robot of this interface that version 1 commands.
fn moving(env: &TestEnv, interface: CommandInterface, parameters: &[&str]) -> (Peer, Process) {
    let policy = env.file("v1", &sealed(&two_joints(interface), 1));
    let mut peer = env.peer("");
    let policy = format!("policy:={}", policy.display());
    let control = env.control(&[&[policy.as_str()], parameters].concat());
    peer.report_both_joints();
    (peer, control)
}

fn fallback(peer: &Peer, words: &str) -> Value {
    peer.status(&format!("the fallback commands: {words}"), |s| {
        s["state"] == state::FALLBACK && s["message"].as_str().is_some_and(|m| m.contains(words))
    })
}

#[test]
fn a_stop_brings_the_fallback_at_once_until_an_explicit_start() {
    let env = TestEnv::new();
    let (mut peer, control) = moving(&env, CommandInterface::Position, &[]);
    peer.active();
    let (done, message) = peer.trigger("stop");
    assert!(done, "{message}");
    let status = fallback(&peer, "stopped by ~/stop");
    assert_eq!(
        status["lifecycle"], "active",
        "the robot is held, and therefore commanded"
    );
    control.says(&["stopped by ~/stop until ~/start"]);
    let held = peer.next("commands", 20);
    assert!(
        held.windows(2).skip(1).all(|c| c[0]["data"] == c[1]["data"]),
        "{held:?}"
    );
    let records = peer.next("policy/action", 5);
    assert!(records.iter().all(|r| r["fallback"] == true && r["blend"] == 0.0));

    assert!(peer.trigger("start").0);
    peer.active();
    // The command fades back in from where it was held.
    let records = peer.messages("policy/action", 0);
    let back = records
        .iter()
        .rposition(|r| r["fallback"] == true)
        .unwrap_or_default();
    let weights: Vec<f64> = records[back + 1..]
        .iter()
        .filter_map(|r| r["blend"].as_f64())
        .collect();
    assert!(weights[0] < 0.2 && weights.is_sorted(), "{weights:?}");
}

#[test]
fn a_stop_before_the_first_command_keeps_the_robot_still() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    control.says(&["waiting for the state of joints"]);
    assert!(peer.trigger("stop").0);
    peer.report_both_joints();
    peer.status("it does not start", |s| {
        s["state"] == state::INACTIVE && s["joint_ages"][0] != "inf"
    });
    peer.next("policy/status", 3);
    assert_eq!(peer.count("commands"), 0);
    assert!(peer.trigger("start").0);
    peer.active();
}

#[test]
fn a_roll_back_brings_the_policy_before_and_a_load_the_next() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    let (mut peer, control) = moving(&env, CommandInterface::Effort, &["accept_bundles:=false"]);
    peer.active();
    let (done, why) = peer.trigger("rollback");
    assert!(!done);
    assert_says(&why, &["no policy before"]);

    let second = env.file("v2", &sealed(&spec, 2));
    assert_eq!(peer.load(&second), (true, "accepted".into()));
    peer.status("version 2 acts", |s| s["version"] == 2 && s["swaps"] == 1);
    let (done, what) = peer.trigger("rollback");
    assert!(done, "{what}");
    assert_says(&what, &["version 1 of run"]);
    let status = peer.status("version 1 acts again", |s| s["version"] == 1);
    assert_eq!(
        (&status["rollbacks"], &status["state"]),
        (&json!(1), &json!(state::ACTIVE))
    );
    let records = peer.next("policy/action", 10);
    assert!(
        records[2..]
            .iter()
            .all(|r| r["version"] == 1 && r["fallback"] == false)
    );

    for (name, bytes, words) in [
        ("v2", sealed(&spec, 2), ["version 2", "above 2"]),
        ("other", sealed_in("run-b", &spec, 9), ["'run-b'", "accept_runs"]),
        (
            "half",
            sealed(&spec, 3)[..1000].to_vec(),
            ["safetensors", "complete"],
        ),
    ] {
        let (accepted, reason) = peer.load(&env.file(name, &bytes));
        assert!(!accepted, "{name}");
        assert_says(&reason, &words);
    }
    let (accepted, reason) = peer.load(&env.path("nowhere"));
    assert!(!accepted);
    assert_says(&reason, &["cannot read", "nowhere"]);
    control.says(&["bundle refused", "nowhere"]);
    assert!(peer.load(&env.file("v3", &sealed(&spec, 3))).0);
    assert_eq!(
        peer.status("version 3 acts", |s| s["version"] == 3)["rejections"],
        4
    );
}

#[test]
fn the_newest_valid_bundle_of_a_watched_folder_goes_live() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    let folder = env.path("policies");
    std::fs::create_dir(&folder).expect("a folder");
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("a bundle");
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy_folder:={}", folder.display())]);
    peer.report_both_joints();
    write("a.safetensors", &sealed(&spec, 4));
    assert_eq!(peer.active()["version"], 4);
    write("b.safetensors", &sealed(&spec, 5));
    peer.status("version 5 acts", |s| s["version"] == 5);
    write("c.safetensors", &sealed(&spec, 6)[..500]);
    control.says(&["bundle refused", "c.safetensors"]);
    write("d.safetensors", &sealed(&spec, 3));
    control.says(&["bundle refused", "d.safetensors", "above 5"]);
    let status = peer.status("both are counted", |s| s["rejections"] == 2);
    assert_eq!(
        (&status["version"], &status["state"]),
        (&json!(5), &json!(state::ACTIVE))
    );
}

#[test]
fn without_a_heartbeat_nothing_moves() {
    let env = TestEnv::new();
    let (mut peer, control) = moving(&env, CommandInterface::Effort, &["enable_timeout:=0.5"]);
    control.says(&["not active yet", "no heartbeat on topic enable"]);
    assert_eq!(peer.count("commands"), 0);
    peer.repeat_enable(Some(true));
    peer.active();
    peer.repeat_enable(None);
    fallback(&peer, "no heartbeat on topic enable for");
    peer.repeat_enable(Some(true));
    peer.active();
    peer.repeat_enable(Some(false));
    fallback(&peer, "topic enable says false");
}

#[test]
fn after_a_fallback_an_explicit_start_is_needed_where_the_parameter_says_so() {
    let env = TestEnv::new();
    let (mut peer, _control) = moving(
        &env,
        CommandInterface::Effort,
        &["stale_timeout:=0.3", "recovery_inputs:=0"],
    );
    peer.active();
    peer.silence("robot");
    fallback(&peer, "has not reported");
    peer.report_both_joints();
    let status = fallback(&peer, "it waits for ~/start");
    assert_eq!(status["fallbacks"], 1);
    assert!(peer.trigger("start").0);
    peer.active();
}
