//! A dry run computes, records and tells everything, and no command leaves, whatever happens.

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, two_joints};
use mfpo_tests::peer::state;
use mfpo_tests::{Qos, TestEnv, assert_says, until};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn a_dry_run_computes_everything_and_commands_nothing() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Velocity), 1));
    let mut peer = env.peer("");
    peer.listen("/diagnostics", "diagnostic_msgs/DiagnosticArray", Qos::Reliable);
    let policy = format!("policy:={}", policy.display());
    let mut control = env.control(&[&policy, "dry_run:=true", "stale_timeout:=0.3"]);
    control.says(&["dry run", "no command is published"]);
    peer.report_both_joints();
    let status = peer.active();
    assert_eq!(status["dry_run"], true);
    assert_says(
        status["message"].as_str().unwrap_or_default(),
        &["dry run, no command is published"],
    );
    let records = peer.next("policy/action", 30);
    assert!(
        records
            .iter()
            .all(|r| r["dry_run"] == true && r["fallback"] == false)
    );
    // The whole way is walked: policy, fade, limits.
    assert!(
        records.iter().all(|r| r["command"] != json!([0.0, 0.0])),
        "{records:?}"
    );
    until("the diagnostics say so", || {
        let told = peer.newest("/diagnostics")?.to_string();
        (told.contains("dry run, no command is published: the policy")).then_some(())
    });

    peer.silence("robot");
    peer.status("the fallback acts", |s| {
        s["state"] == state::FALLBACK && s["dry_run"] == true
    });
    assert!(
        peer.next("policy/action", 10)
            .iter()
            .any(|r| r["fallback"] == true)
    );
    peer.report_both_joints();
    peer.active();
    assert!(peer.trigger("stop").0);
    peer.next("policy/action", 10);
    assert!(peer.change_state("control", "deactivate"));
    peer.status("it is inactive", |s| s["state"] == state::INACTIVE);
    assert!(peer.change_state("control", "activate"));
    peer.active();

    let publishers = peer.endpoints("/commands")["publishers"].clone();
    assert_eq!(
        publishers,
        json!([]),
        "there is nothing that a command could leave by"
    );
    control.signal(Signal::SIGTERM);
    assert_eq!(control.ended().code(), Some(0));
    peer.status("it has stopped", |s| s["state"] == state::STOPPED);
    assert_eq!(peer.count("commands"), 0);
}

#[test]
fn whether_it_is_a_dry_run_cannot_change_while_the_node_runs() {
    let env = TestEnv::new();
    let mut peer = env.peer("");
    let _control = env.control(&["dry_run:=true"]);
    let (done, why) = peer.set_parameter("dry_run", json!({"type": 1, "bool_value": false}));
    assert!(!done);
    assert_says(&why, &["dry_run", "cannot be changed while the node runs"]);
}
