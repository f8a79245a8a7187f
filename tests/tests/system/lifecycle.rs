//! The managed life cycle over its services, as `ros2 lifecycle` uses them, beside a managed node of rcl itself.

use std::time::Duration;

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::peer::{state, states};
use mfpo_tests::{Peer, Qos, TestEnv, assert_says, until};
use serde_json::{Value, json};

/// Everything that a managed node says of its life cycle.
fn told(peer: &mut Peer, node: &str) -> [Value; 4] {
    [
        ("get_state", "lifecycle_msgs/GetState"),
        ("get_available_states", "lifecycle_msgs/GetAvailableStates"),
        (
            "get_available_transitions",
            "lifecycle_msgs/GetAvailableTransitions",
        ),
        ("get_transition_graph", "lifecycle_msgs/GetAvailableTransitions"),
    ]
    .map(|(service, kind)| peer.call(&format!("/{node}/{service}"), kind, json!({})))
}

/// Commands that arrive within a time in which dozens are sent where any are.
fn commands_in_half_a_second(peer: &Peer) -> usize {
    let before = peer.count("commands");
    std::thread::sleep(Duration::from_millis(500));
    peer.count("commands") - before
}

#[test]
fn the_life_cycle_answers_as_rcls_own_and_commands_leave_only_while_it_is_active() {
    let env = TestEnv::new();
    let policy = env.file("policy", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    peer.start_lifecycle_node("reference");
    let policy = format!("policy:={}", policy.display());
    let _control = env.control(&[&policy, "autostart:=false"]);
    peer.listen(
        "/control/transition_event",
        "lifecycle_msgs/TransitionEvent",
        Qos::Reliable,
    );
    peer.report_both_joints();
    assert_eq!(told(&mut peer, "control"), told(&mut peer, "reference"));
    for (asked, there) in [
        ("activate", "unconfigured"),
        ("configure", "inactive"),
        ("configure", "inactive"),
        ("deactivate", "inactive"),
        ("activate", "active"),
        ("cleanup", "active"),
        ("nonsense", "active"),
        ("deactivate", "inactive"),
        ("activate", "active"),
        ("deactivate", "inactive"),
        ("cleanup", "unconfigured"),
        ("configure", "inactive"),
        ("activate", "active"),
        ("shutdown", "finalized"),
        ("configure", "finalized"),
    ] {
        let done = peer.change_state("control", asked);
        assert_eq!(done, peer.change_state("reference", asked), "{asked}");
        assert_eq!(
            told(&mut peer, "control"),
            told(&mut peer, "reference"),
            "{asked}"
        );
        assert_eq!(peer.lifecycle("control"), there, "{asked}");
        peer.status(&format!("the status says {there}"), |s| s["lifecycle"] == there);
        let commands = commands_in_half_a_second(&peer);
        assert_eq!(
            commands > 5,
            there == "active",
            "{asked}: {commands} commands while {there}"
        );
        let last = peer.newest("commands").unwrap_or_default();
        assert!(
            there == "active" || last.is_null() || last["data"] == json!([0.0, 0.0]),
            "{last}"
        );
    }
    // Every command has its record, those of a stop included, and the records are numbered through.
    let records = peer.messages("policy/action", 0);
    assert!(records.len() >= peer.count("commands"), "{}", records.len());
    let numbers: Vec<u64> = records.iter().filter_map(|r| r["sequence"].as_u64()).collect();
    assert!(numbers.windows(2).all(|n| n[0] < n[1]), "{numbers:?}");
    let events = peer.messages("/control/transition_event", 0);
    let goals: Vec<&str> = events
        .iter()
        .filter_map(|e| e["goal_state"]["label"].as_str())
        .collect();
    let expected = "configuring inactive activating active deactivating inactive activating active deactivating \
        inactive cleaningup unconfigured configuring inactive activating active shuttingdown finalized";
    assert_eq!(goals.join(" "), expected);
    for pair in events.windows(2) {
        assert_eq!(pair[0]["goal_state"], pair[1]["start_state"]);
    }
}

#[test]
fn activation_is_refused_with_the_reason_until_the_robot_is_ready() {
    let env = TestEnv::new();
    let bundle = env.file("policy", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let control = env.control(&["autostart:=false"]);
    let (done, why) = peer.trigger("start");
    assert!(!done);
    assert_says(&why, &["'activate'", "'unconfigured'", "[configure, shutdown]"]);
    assert!(!peer.load(&bundle).0, "nothing is loaded before it is configured");
    assert!(peer.change_state("control", "configure"));
    let refused = |peer: &mut Peer, words: &[&str]| {
        assert!(!peer.change_state("control", "activate"));
        assert_eq!(peer.lifecycle("control"), "inactive");
        let (done, why) = peer.trigger("start");
        assert!(!done, "{why}");
        assert_says(&why, words);
        control.says(&[&["activation refused"], words].concat());
        assert_eq!(commands_in_half_a_second(peer), 0);
    };
    refused(&mut peer, &["no policy is loaded"]);
    assert_eq!(peer.load(&bundle), (true, "accepted".into()));
    refused(&mut peer, &["joint 'elbow' has no fresh position"]);
    peer.repeat_states("robot", &states(&["elbow"], &[0.1], &[0.0]));
    until("the elbow reports", || {
        (peer.newest("policy/status")?["joint_ages"][0] != "inf").then_some(())
    });
    refused(&mut peer, &["joint 'wrist' has no fresh position"]);
    peer.repeat_states("robot", &states(&["elbow", "wrist"], &[1.2, 0.2], &[0.0, 0.0]));
    peer.status("the wrist reports", |s| s["joint_ages"][1] != "inf");
    refused(
        &mut peer,
        &["the position of joint 'elbow' is 1.2000 rad", "-1.0000 to 1.0000"],
    );
    peer.report_both_joints();
    until("it is activated", || peer.trigger("start").0.then_some(()));
    peer.active();
    peer.next("commands", 5);
}

#[test]
fn autostart_waits_for_a_ready_robot_and_says_once_what_is_missing() {
    let env = TestEnv::new();
    let policy = env.file("policy", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.repeat_states("robot", &states(&["elbow", "wrist"], &[1.2, 0.2], &[0.0, 0.0]));
    let status = peer.status("it says what is missing", |s| {
        s["message"]
            .as_str()
            .is_some_and(|m| m.contains("joint 'elbow' is 1.2"))
    });
    assert_eq!(status["lifecycle"], "inactive");
    assert_eq!(status["state"], state::WAITING_FOR_STATES);
    assert_eq!(commands_in_half_a_second(&peer), 0);
    assert_eq!(control.log().matches("not active yet").count(), 1);
    peer.report_both_joints();
    peer.status("it is active", |s| {
        s["state"] == state::ACTIVE && s["lifecycle"] == "active"
    });
    assert_eq!(peer.lifecycle("control"), "active");

    // Whoever deactivates it means it: it does not start again by itself.
    assert!(peer.change_state("control", "deactivate"));
    let status = peer.status("it says that it is inactive", |s| s["state"] == state::INACTIVE);
    assert_says(
        status["message"].as_str().unwrap_or_default(),
        &["inactive", "~/start"],
    );
    let before = control.cpu_time();
    assert!(before > Duration::ZERO, "the time is measured");
    let commands = commands_in_half_a_second(&peer) + commands_in_half_a_second(&peer);
    let spent = control.cpu_time() - before;
    assert_eq!(commands, 0);
    assert!(
        spent < Duration::from_millis(200),
        "{spent:?} of a second spent on nothing"
    );
    assert_eq!(peer.trigger("start"), (true, "active".into()));
    peer.next("commands", 5);
}
