//! One policy takes over from another, stage by stage, while the robot moves.

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, sealed_of_one_action, two_joints};
use mfpo_tests::peer::states;
use mfpo_tests::{Peer, Process, TestEnv, assert_says};
use serde_json::{Value, json};

/// A robot that the policy of this file commands, with its elbow at this position.
fn moving(env: &TestEnv, first: &[u8], elbow: f64) -> (Peer, Process) {
    moving_with(env, first, elbow, &[])
}

/// The same, with parameters.
fn moving_with(env: &TestEnv, first: &[u8], elbow: f64, parameters: &[&str]) -> (Peer, Process) {
    let policy = format!("policy:={}", env.file("first", first).display());
    let mut peer = env.peer("");
    let control = env.control(&[&[policy.as_str()], parameters].concat());
    peer.repeat_states("both", &states(&["elbow", "wrist"], &[elbow, 0.2], &[0.0, 0.0]));
    peer.active();
    // What the policy does is known after a while.
    peer.next("policy/action", 20);
    (peer, control)
}

fn number(record: &Value, field: &str) -> f64 {
    record[field].as_f64().unwrap_or(f64::NAN)
}

#[test]
fn a_policy_is_compared_blended_and_watched_and_every_record_says_who_acted() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    let (mut peer, control) = moving(&env, &sealed(&spec, 1), 0.1);
    let first = peer.count("policy/action");
    peer.offer(&env.file("v2", &sealed(&spec, 2)));
    for (stage, version) in [("shadow", 1), ("blend", 2), ("probation", 2)] {
        peer.status(&format!("version 2 in its {stage}"), |s| {
            s["swap_stage"] == stage && s["staged_version"] == 2 && s["version"] == version
        });
    }
    let done = peer.status("the swap is done", |s| s["swap_stage"] == "" && s["version"] == 2);
    assert_eq!(
        (&done["swaps"], &done["swap_returns"], &done["missed_ticks"]),
        (&json!(1), &json!(0), &json!(0))
    );
    control.says(&["compared over 10 ticks"]);
    control.says(&["swapped to policy version 2"]);

    let records = peer.messages("policy/action", first);
    let blend: Vec<&Value> = records.iter().filter(|r| r["previous_version"] == 1).collect();
    let weights: Vec<f64> = blend.iter().map(|r| number(r, "policy_weight")).collect();
    assert_eq!(weights.len(), 15, "0.3 s at 50 Hz: {weights:?}");
    for (k, weight) in (1..).zip(&weights) {
        assert!((weight - f64::from(k) / 16.0).abs() < 1e-9, "{weights:?}");
    }
    for record in &records {
        let is_blend = record["previous_version"] == 1;
        assert_eq!(
            record["previous_run"],
            if is_blend { json!("run-a") } else { json!("") }
        );
        assert!(is_blend || record["policy_weight"] == 1.0, "{record}");
        assert!(!is_blend || record["version"] == 2, "{record}");
    }
}

#[test]
fn a_policy_under_which_limits_trip_is_returned_from_with_the_reason() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    // The elbow is at the end of its range: the first policy pulls it back, the second pushes it further out.
    let folder = format!("record.folder:={}", env.path("recordings").display());
    let parameters = [folder.as_str(), "record.mode:=before_fault"];
    let (mut peer, control) = moving_with(&env, &sealed_of_one_action(&spec, 1, -1.0), 1.0, &parameters);
    peer.offer(&env.file("v2", &sealed_of_one_action(&spec, 2, 1.0)));
    let status = peer.status("version 1 acts again", |s| s["swap_returns"] == 1);
    assert_eq!(
        (&status["version"], &status["swap_stage"]),
        (&json!(1), &json!(""))
    );
    let reason = status["last_swap_return"].as_str().unwrap_or_default().to_owned();
    assert_says(
        &reason,
        &[
            "version 2",
            "probation",
            "position of joint 'elbow'",
            "0 % before",
        ],
    );
    control.says(&["given up in its probation"]);
    // Whether a recording begins for it or one goes on that a missed tick or the filter began.
    control.says(&["recording", "(version 2 of run", "given up in its probation"]);
    let records = peer.next("policy/action", 20);
    assert!(
        records[2..]
            .iter()
            .all(|r| r["version"] == 1 && r["interventions"] == 0)
    );
    let (done, why) = peer.trigger("rollback");
    assert!(!done, "there is nothing to go back to");
    assert_says(&why, &["no policy before"]);
    // The same again is not newer; the next is welcome.
    let (accepted, reason) = peer.load(&env.file("v2", &sealed_of_one_action(&spec, 2, 1.0)));
    assert!(!accepted);
    assert_says(&reason, &["version 2", "above 2"]);
    peer.offer(&env.file("v3", &sealed_of_one_action(&spec, 3, -1.0)));
    peer.status("version 3 acts for good", |s| {
        s["version"] == 3 && s["swap_stage"] == ""
    });
}

#[test]
fn with_every_stage_at_zero_a_policy_acts_alone_from_the_next_tick_on() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    let (mut peer, _control) = moving(&env, &sealed(&spec, 1), 0.1);
    for stage in ["swap.shadow", "swap.blend", "swap.probation"] {
        let (done, why) = peer.set_parameter(stage, json!({"type": 3, "double_value": 0.0}));
        assert!(done, "{why}");
    }
    let first = peer.count("policy/action");
    peer.offer(&env.file("v2", &sealed(&spec, 2)));
    peer.status("version 2 acts", |s| s["version"] == 2 && s["swap_stage"] == "");
    peer.next("policy/action", 5);
    let records = peer.messages("policy/action", first);
    assert!(
        records
            .iter()
            .all(|r| r["policy_weight"] == 1.0 && r["previous_run"] == "")
    );
}

/// A stage of 60 s does not end by itself in a test.
fn set(peer: &mut Peer, stage: &str, seconds: f64) {
    let value = json!({"type": 3, "double_value": seconds});
    let (done, why) = peer.set_parameter(&format!("swap.{stage}"), value);
    assert!(done, "{why}");
}

#[test]
fn a_robot_that_is_deactivated_keeps_no_policy_in_the_shadow_and_none_waiting_behind_it() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    let (mut peer, control) = moving(&env, &sealed(&spec, 1), 0.1);
    set(&mut peer, "shadow", 60.0);
    set(&mut peer, "probation", 0.2);
    let taken_over = |peer: &Peer, version: u64| {
        peer.status(&format!("version {version} takes over, on probation"), |s| {
            s["version"] == version && s["swap_stage"] == "probation" && s["lifecycle"] == "inactive"
        });
    };
    peer.offer(&env.file("v2", &sealed(&spec, 2)));
    peer.status("version 2 is in the shadow", |s| s["swap_stage"] == "shadow");
    assert!(peer.change_state("control", "deactivate"));
    control.says(&["swapped to policy version 2"]);
    taken_over(&peer, 2);
    peer.offer(&env.file("v3", &sealed(&spec, 3)));
    taken_over(&peer, 3);

    assert!(peer.change_state("control", "activate"));
    peer.offer(&env.file("v4", &sealed(&spec, 4)));
    peer.status("version 4 is in the shadow", |s| s["swap_stage"] == "shadow");
    peer.offer(&env.file("v5", &sealed(&spec, 5)));
    assert!(peer.change_state("control", "deactivate"));
    // Version 4 may be passed over, where 5 comes before the robot has stopped.
    taken_over(&peer, 5);
    let first = peer.count("policy/action");
    assert!(peer.change_state("control", "activate"));
    peer.next("policy/action", 10);
    let records = peer.messages("policy/action", first);
    assert!(
        records
            .iter()
            .all(|r| r["version"] == 5 && r["previous_run"] == ""),
        "{records:?}"
    );
}

#[test]
fn while_the_fallback_commands_a_newer_bundle_takes_the_place_of_the_one_in_its_stage() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    let (mut peer, control) = moving(&env, &sealed(&spec, 1), 0.1);
    set(&mut peer, "shadow", 60.0);
    peer.offer(&env.file("v2", &sealed(&spec, 2)));
    peer.status("version 2 is in the shadow", |s| s["staged_version"] == 2);
    assert!(peer.trigger("stop").0);
    peer.offer(&env.file("v3", &sealed(&spec, 3)));
    peer.status("version 3 is in its place", |s| {
        s["swap_stage"] == "shadow" && s["staged_version"] == 3 && s["version"] == 1
    });
    control.says(&["version 2", "leaves the shadow without having acted"]);
}

#[test]
fn a_blend_that_a_stop_cuts_short_is_over_and_holds_up_no_bundle() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    let (mut peer, _control) = moving(&env, &sealed(&spec, 1), 0.1);
    set(&mut peer, "shadow", 0.0);
    set(&mut peer, "blend", 60.0);
    set(&mut peer, "probation", 0.0);
    for (version, way) in [(2, ["stop", "start"]), (3, ["deactivate", "activate"])] {
        peer.offer(&env.file("next", &sealed(&spec, version)));
        peer.status(&format!("version {version} blends in"), |s| {
            s["swap_stage"] == "blend" && s["version"] == version
        });
        for step in way {
            let done = match step {
                "stop" | "start" => peer.trigger(step).0,
                _ => peer.change_state("control", step),
            };
            assert!(done, "{step}");
        }
        peer.status("the swap is over", |s| s["swap_stage"] == "");
        let until_it_acts = peer.next("policy/action", 10);
        let last = until_it_acts.last().expect("records");
        assert_eq!(
            (
                &last["version"],
                &last["previous_run"],
                &last["policy_weight"],
                &last["fallback"]
            ),
            (&json!(version), &json!(""), &json!(1.0), &json!(false))
        );
    }
}
