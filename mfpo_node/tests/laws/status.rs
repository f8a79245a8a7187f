//! What the status says: what the node does and, where it does not act, why.

use mfpo_node::metrics::{Live, LoopState};
use mfpo_node::safety::Verdict;
use mfpo_node::status::{Cause, LoopEvent, Status};

use super::support::{MS, at};

fn status() -> Status {
    let mut status = Status::default();
    status.joint_names = vec!["a".into(), "b".into()];
    status
}

#[test]
fn without_a_policy_it_waits_says_so_and_how_to_give_one() {
    let text = status().message(&Live::new(0), at(0.0));
    assert!(
        text.contains("policy/bundle") && text.contains("commanding nothing"),
        "{text}"
    );
}

#[test]
fn joints_that_are_missing_are_named() {
    let live = Live::new(2);
    live.set_state(LoopState::WaitingForStates);
    live.set_received(0, Some(at(0.0)));
    let text = status().message(&live, at(1.0));
    assert!(
        text.contains("[b]") && text.contains("commanding nothing"),
        "{text}"
    );
}

#[test]
fn a_fallback_names_the_joint_and_how_long_it_has_been_silent() {
    let live = Live::new(2);
    live.set_state(LoopState::Fallback);
    let mut status = status();
    let verdict = Verdict::Stale {
        joint: 1,
        age: 103 * MS,
    };
    status.absorb(LoopEvent::State(LoopState::Fallback, Cause::States(verdict)));
    let text = status.message(&live, at(1.0));
    assert!(text.contains("joint 'b' has not reported for 103 ms"), "{text}");
}

#[test]
fn refusals_of_bundles_are_counted_and_the_last_reason_is_kept() {
    let mut status = status();
    status.reject("version 4 is not newer; expected above 5");
    status.reject("digest differs");
    assert_eq!(
        (status.rejections, status.last_rejection.as_str()),
        (2, "digest differs")
    );
}

#[test]
fn a_bundle_that_waits_while_swaps_are_frozen_is_mentioned() {
    let mut status = status();
    status.is_frozen_with_pending = true;
    let text = status.message(&Live::new(2), at(0.0));
    assert!(text.contains("a newer bundle waits for accept_bundles"), "{text}");
}
