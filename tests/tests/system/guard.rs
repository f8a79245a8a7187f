//! The guard on a real node: off by default, and where it is on it says why it acts, or why it cannot.

use mfpo_policy::guard::GuardManifest;
use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, sealed_guarded, two_joints};
use mfpo_tests::peer::state;
use mfpo_tests::{TestEnv, assert_says};
use serde_json::{Value, json};

/// Nothing that a network of random weights answers is as uniform as this.
const TIGHT: GuardManifest = GuardManifest {
    disagreement_max: Some(2.1),
    spread_max: Some(1e-9),
    value_min: None,
    candidates: 8,
    in_a_row: 3,
};

fn flag(value: bool) -> Value {
    json!({"type": 1, "bool_value": value})
}

#[test]
fn candidates_spread_beyond_the_bundles_limit_bring_the_fallback_until_the_guard_is_off() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    let policy = env.file("policy", &sealed_guarded(&spec, 1, TIGHT));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display()), "candidates:=8"]);
    peer.report_both_joints();
    peer.active();
    assert_eq!(peer.set_parameter("guard", flag(true)), (true, String::new()));
    let status = peer.status("the fallback commands", |s| s["state"] == state::FALLBACK);
    let message = status["message"].as_str().unwrap_or_default();
    assert_says(
        message,
        &[
            "does not know what it sees: its candidates are spread by",
            "expected at most 0.0000",
        ],
    );
    control.says(&["does not know what it sees"]);
    assert_eq!(peer.set_parameter("guard", flag(false)), (true, String::new()));
    peer.active();
}

#[test]
fn a_guard_that_cannot_guard_says_why_and_the_policy_acts_all_the_same() {
    let env = TestEnv::new();
    let spec = two_joints(CommandInterface::Effort);
    let policy = env.file("policy", &sealed(&spec, 1));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display()), "guard:=true"]);
    peer.report_both_joints();
    peer.active();
    control.says(&["the bundle carries no guard: nothing is guarded"]);
    let guarded = env.file("guarded", &sealed_guarded(&spec, 2, TIGHT));
    peer.offer(&guarded);
    control.says(&["candidates is 1: nothing is guarded", "compares 8"]);
    peer.status("the guarded one is live", |s| s["version"] == 2);
}
