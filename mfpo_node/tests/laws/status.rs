//! What the status says: what the node does and, where it does not act, why.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mfpo_node::control_loop::NotReady;
use mfpo_node::diagnostics::{Level, Sources, Threshold, Thresholds, diagnose};
use mfpo_node::lifecycle::State;
use mfpo_node::metrics::{Live, LoopState, TickRecord};
use mfpo_node::recording::Health;
use mfpo_node::safety::{NotEnabled, Outside, Rule, Verdict};
use mfpo_node::status::{Cause, LoopEvent, Others, Reporters, Rest, Status, Unheard};
use mfpo_node::weights::Why;
use mfpo_policy::spec::CommandInterface;

use super::support::{MS, at, policy, robot};

pub(super) fn status() -> Status {
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
fn a_node_that_ends_says_whether_there_was_a_command_to_end_with() {
    let live = Live::new(2);
    live.set_state(LoopState::Stopped);
    let said = |is_dry_run: bool, cause: Cause| {
        let mut status = Status::new(is_dry_run);
        status.absorb(LoopEvent::State(LoopState::Stopped, cause));
        status.message(&live, at(0.0))
    };
    assert_eq!(
        said(false, Cause::None),
        "stopped; the last safe command has been sent"
    );
    assert_eq!(said(false, Cause::Idle), "stopped; nothing was being commanded");
    assert_eq!(
        said(true, Cause::None),
        "dry run, no command is published: stopped"
    );
}

#[test]
fn a_fallback_names_the_joint_of_now_and_logs_another_one_only_now_and_then() {
    let live = Live::new(2);
    live.set_state(LoopState::Fallback);
    let mut status = status();
    let silent = |joint, ms: u64| Cause::States(Verdict::Stale { joint, age: ms * MS });
    status.absorb(LoopEvent::State(LoopState::Fallback, silent(1, 103)));
    assert!(!status.log_reason(at(0.0)), "that is in the log");
    status.absorb(LoopEvent::Reason(silent(1, 9_000)));
    let text = status.message(&live, at(9_000.0));
    assert!(text.contains("joint 'b' has not reported for 9000 ms"), "{text}");
    assert!(!status.log_reason(at(9_000.0)), "it is the same joint");

    status.absorb(LoopEvent::Reason(silent(0, 200)));
    let text = status.message(&live, at(9_250.0));
    assert!(text.contains("joint 'a' has not reported for 200 ms"), "{text}");
    assert!(status.log_reason(at(9_250.0)), "another joint");
    status.absorb(LoopEvent::Reason(silent(1, 300)));
    assert!(!status.log_reason(at(14_000.0)), "they take turns");
    assert!(status.log_reason(at(14_250.0)));
    status.absorb(LoopEvent::Reason(silent(0, 300)));
    status.absorb(LoopEvent::State(LoopState::Active, Cause::None));
    assert!(!status.log_reason(at(30_000.0)), "it is over");
}

#[test]
fn a_joint_that_falls_behind_is_named_with_what_may_be_behind_it() {
    let verdict = Verdict::Behind {
        joint: 0,
        by: 205 * MS,
    };
    let text = status().explain(&Cause::States(verdict));
    for part in [
        "joint 'a' reports later and later",
        "205 ms longer",
        "use_sim_time",
        "clock was slowed down to be set right: it is believed some minutes after it agrees with this machine's",
        "where it never does, start the node anew",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_joint_that_stays_late_is_named_with_what_may_be_behind_it() {
    let verdict = Verdict::Late {
        joint: 1,
        age: 5_000 * MS,
    };
    let text = status().explain(&Cause::States(verdict));
    for part in [
        "joint 'b' reports late: what came last was held up on its way and is 5000 ms old",
        "where that stays so, a queue stays full",
        "a simulator was paused: set use_sim_time",
        "clock was set back: it is believed some minutes after it agrees with this machine's",
    ] {
        assert!(text.contains(part), "{text}");
    }
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

#[test]
fn a_robot_that_is_not_ready_is_explained_with_joint_limit_and_value() {
    let live = Live::new(2);
    live.set_state(LoopState::WaitingForStates);
    let mut status = status();
    status.absorb(LoopEvent::NotYetReady(NotReady::Outside(Outside {
        joint: 0,
        rule: Rule::Position,
        got: 1.25,
        low: -1.0,
        high: 1.0,
    })));
    let text = status.message(&live, at(0.0));
    for part in [
        "not active yet",
        "joint 'a' is 1.25",
        "-1.0000 to 1.0000",
        "commanding nothing",
    ] {
        assert!(text.contains(part), "{text}");
    }
    status.absorb(LoopEvent::NotYetReady(NotReady::NotEnabled(
        NotEnabled::Withdrawn,
    )));
    assert!(status.message(&live, at(0.0)).contains("topic enable says false"));
    status.absorb(LoopEvent::NotReady(NotReady::NotEnabled(NotEnabled::Withdrawn)));
    let text = status.message(&live, at(0.0));
    assert!(
        text.contains("topic enable says false"),
        "~/start was refused, and it goes on trying: {text}"
    );
    status.absorb(LoopEvent::Activated);
    live.set_state(LoopState::Active);
    assert_eq!(status.message(&live, at(0.0)), "the policy commands the robot");
}

#[test]
fn a_node_that_rests_says_what_it_waits_for() {
    let live = Live::new(0);
    for (rest, part) in [
        (Rest::Unconfigured, "until it is configured"),
        (Rest::Inactive, "until it is activated"),
        (Rest::Finalized, "until it is started anew"),
    ] {
        let mut status = status();
        status.rest = Some(rest);
        let text = status.message(&live, at(0.0));
        assert!(
            text.contains(part) && text.contains("commanding nothing"),
            "{text}"
        );
        assert_eq!(status.state(&live), LoopState::Inactive);
    }
}

fn unheard(topic: &str) -> Unheard {
    Unheard {
        topic: topic.to_owned(),
        words: format!("/{topic} of node '/driver' is not heard"),
    }
}

#[test]
fn a_publisher_that_is_not_heard_is_part_of_the_reason_that_it_is_behind() {
    let live = Live::new(2);
    let mut status = status();
    status.note_unheard(vec![unheard("joint_states"), unheard("policy/bundle")]);
    let said = |status: &Status, topic: &str| {
        let text = status.message(&live, at(0.0));
        text.contains(&format!("; /{topic} of node '/driver' is not heard"))
    };
    assert!(said(&status, "policy/bundle") && !said(&status, "joint_states"));
    for state in [LoopState::WaitingForStates, LoopState::Fallback] {
        live.set_state(state);
        assert!(said(&status, "joint_states") && !said(&status, "policy/bundle"));
    }
    let refusal = status.explain_refusal(&NotReady::States(Verdict::Missing { joint: 1 }));
    assert!(
        refusal.contains("joint 'b' has no fresh position") && refusal.ends_with("is not heard"),
        "{refusal}"
    );
    live.set_state(LoopState::Active);
    assert!(!said(&status, "joint_states"), "the policy commands all the same");
    status.note_unheard(Vec::new());
    live.set_state(LoopState::WaitingForStates);
    assert!(!said(&status, "joint_states"));
}

fn reporters(heard: &[&str], elsewhere: &[&str]) -> Others {
    let words = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let reporters = Reporters {
        topic: "/left/joint_states".to_owned(),
        is_published: !heard.is_empty(),
        heard: words(heard),
        elsewhere: words(elsewhere),
    };
    Others {
        reporters,
        ..Others::default()
    }
}

#[test]
fn publishers_that_contradict_each_other_are_named_with_what_to_do() {
    let live = Live::new(2);
    live.set_state(LoopState::Fallback);
    let mut status = status();
    status.note_others(reporters(&["node '/driver'", "node '/mock'"], &[]));
    let cause = Cause::States(Verdict::Contradicted { joint: 1 });
    status.absorb(LoopEvent::State(LoopState::Fallback, cause));
    let text = status.message(&live, at(0.0));
    for part in [
        "contradict each other about joint 'b'",
        "/left/joint_states has 2 publishers (node '/driver', node '/mock')",
        "end the wrong one",
        "then a sensor of this joint jumps",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_node_that_waits_names_the_topic_that_nobody_publishes_and_where_it_is_published() {
    let live = Live::new(2);
    live.set_state(LoopState::WaitingForStates);
    let mut status = status();
    let said = |status: &Status| status.message(&live, at(0.0));
    assert!(
        !said(&status).contains("nobody publishes"),
        "nobody has looked yet"
    );
    status.note_others(reporters(&[], &[]));
    assert!(
        said(&status).contains("; nobody publishes /left/joint_states: start the robot's driver"),
        "{}",
        said(&status)
    );
    status.note_others(reporters(&[], &["/joint_states"]));
    for part in [
        "nobody publishes /left/joint_states, but somebody does /joint_states",
        "-r joint_states:=/joint_states",
    ] {
        assert!(said(&status).contains(part), "{}", said(&status));
    }
    let refusal = status.explain_refusal(&NotReady::States(Verdict::Missing { joint: 1 }));
    assert!(
        refusal.contains("nobody publishes /left/joint_states"),
        "{refusal}"
    );
    status.note_others(reporters(&["node '/driver'"], &[]));
    assert!(!said(&status).contains("nobody publishes"), "{}", said(&status));
}

#[test]
fn commands_reach_nobody_when_two_looks_in_a_row_find_no_receiver() {
    let mut status = status();
    let mut reach_nobody = |receivers, is_commanding| {
        status.note_receivers(receivers, is_commanding);
        status.reach_nobody()
    };
    assert!(
        !reach_nobody(Some(0), false) && !reach_nobody(Some(0), false),
        "nothing is sent"
    );
    assert!(!reach_nobody(Some(0), true) && reach_nobody(Some(0), true));
    assert!(!reach_nobody(Some(1), true));
    assert!(
        !reach_nobody(None, true) && !reach_nobody(None, true),
        "a dry run has no such topic"
    );
}

#[test]
fn connections_that_do_not_fit_are_a_warning_for_whoever_is_called_at_night() {
    let live = Live::new(2);
    let mut status = status();
    let part = |status: &Status| {
        let loose = Threshold {
            warn: 1e9,
            error: 1e9,
        };
        let sources = Sources {
            status,
            live: &live,
            life: State::Inactive,
            rate: 100.0,
            stale_timeout: 0.1,
            enable_timeout: 0.0,
            goal_timeout: 0.0,
            clock: None,
            thresholds: Thresholds {
                periodicity_mean_error: loose,
                periodicity_deviation: loose,
                execution_mean: loose,
                execution_deviation: loose,
            },
            recording: None,
        };
        let parts = diagnose(&sources, at(0.0));
        let part = parts.into_iter().find(|part| part.name == "connections");
        part.expect("that part")
    };
    assert_eq!(part(&status).level, Level::Ok);
    status.note_unheard(vec![unheard("enable"), unheard("joint_states")]);
    let told = part(&status);
    assert_eq!(told.level, Level::Warn);
    assert_eq!(
        told.message,
        "/enable of node '/driver' is not heard; /joint_states of node '/driver' is not heard"
    );
    assert!(told.values.contains(&("unheard_publishers".into(), "2".into())));
}

/// A node at 100 Hz, with loose limits but for the average of the rate and of the execution time.
pub(super) fn sources<'a>(status: &'a Status, live: &'a Live, execution_mean: Threshold) -> Sources<'a> {
    let loose = Threshold {
        warn: 1e9,
        error: 1e9,
    };
    Sources {
        status,
        live,
        life: State::Active,
        rate: 100.0,
        stale_timeout: 0.1,
        enable_timeout: 0.0,
        goal_timeout: 0.0,
        clock: None,
        thresholds: Thresholds {
            periodicity_mean_error: Threshold {
                warn: 1.0,
                error: 2.0,
            },
            periodicity_deviation: loose,
            execution_mean,
            execution_deviation: loose,
        },
        recording: None,
    }
}

#[test]
fn a_control_thread_that_stands_still_is_an_error_while_it_does() {
    let live = Live::new(2);
    live.set_state(LoopState::Active);
    let mut status = status();
    let loose = Threshold {
        warn: 1e9,
        error: 1e9,
    };
    let told = |status: &Status| {
        let part = diagnose(&sources(status, &live, loose), at(0.0)).swap_remove(0);
        (part.level, part.message)
    };
    assert_eq!(told(&status).0, Level::Ok);
    status.note_standstill(Some(700 * MS));
    let (level, message) = told(&status);
    assert_eq!(level, Level::Error);
    let expected = "the control thread has not finished a tick for 700 ms";
    assert!(message.starts_with(expected), "{message}");
    assert_eq!(status.message(&live, at(0.0)), message);
    status.note_standstill(None);
    assert_eq!(told(&status).0, Level::Ok);
}

#[test]
fn diagnostics_take_the_worst_of_their_thresholds_and_say_which() {
    let live = Live::new(2);
    live.set_state(LoopState::Active);
    let mut status = status();
    for k in 0..=101u64 {
        let taken = at(10.0 * k as f64);
        status.record(TickRecord {
            taken,
            handed_over: taken,
            latency: 300_000,
            depth: None,
        });
    }
    let level_at = |warn: f64, error: f64| {
        let sources = sources(&status, &live, Threshold { warn, error });
        let part = diagnose(&sources, at(1100.0)).swap_remove(0);
        (part.level, part.message)
    };
    assert_eq!(level_at(400.0, 500.0).0, Level::Ok);
    assert_eq!(level_at(200.0, 500.0).0, Level::Warn);
    let (level, message) = level_at(100.0, 200.0);
    assert_eq!(level, Level::Error);
    assert!(
        message.contains("300.0 us") && message.contains("at most 200"),
        "{message}"
    );
    assert!(!message.contains("Hz"), "the rate is right: {message}");
}

#[test]
fn diagnostics_tell_of_a_policy_that_was_returned_from_and_why() {
    let live = Live::new(2);
    let mut status = status();
    let spec = robot(CommandInterface::Effort);
    let [current, given_up] = [1, 2].map(|version| Arc::clone(policy(&spec, version).identity()));
    live.swap_returns.store(1, Ordering::Relaxed);
    status.absorb(LoopEvent::Returned {
        given_up,
        current,
        why: Why::NoAction,
    });
    let loose = Threshold {
        warn: 1e9,
        error: 1e9,
    };
    let parts = diagnose(&sources(&status, &live, loose), at(0.0));
    let told = parts.into_iter().find(|part| part.name == "policy").unwrap();
    let of = |key: &str| {
        told.values
            .iter()
            .find(|(name, _)| name == key)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(of("swap_returns"), "1");
    let why = of("last_swap_return");
    assert!(
        why.contains("version 2") && why.contains("gave no action"),
        "{why}"
    );
}

#[test]
fn diagnostics_tell_whether_the_recording_reaches_the_disk() {
    let (status, live) = (status(), Live::new(2));
    let told = |recording: Option<Health>, ms: f64| {
        let loose = Threshold {
            warn: 1e9,
            error: 1e9,
        };
        let sources = Sources {
            recording,
            ..sources(&status, &live, loose)
        };
        let mut parts = diagnose(&sources, at(ms));
        parts.retain(|part| part.name == "recording");
        let [part] = parts.try_into().unwrap();
        (part.level, part.message, part.values)
    };
    let (level, message, values) = told(None, 0.0);
    assert_eq!((level, message.as_str()), (Level::Ok, "nothing is recorded"));
    assert!(values.is_empty());
    let well = Health {
        written: 120,
        file: Some("/recordings/one.mcap".into()),
        file_bytes: 4096,
        ..Health::default()
    };
    let (level, message, values) = told(Some(well.clone()), 0.0);
    assert_eq!(level, Level::Ok);
    assert!(message.contains("/recordings/one.mcap"), "{message}");
    for (name, text) in [
        ("file", "/recordings/one.mcap"),
        ("file_bytes", "4096"),
        ("ticks_written", "120"),
        ("ticks_dropped", "0"),
    ] {
        assert!(values.contains(&(name.into(), text.into())), "{name}: {values:?}");
    }
    let behind = Health {
        dropped: 7,
        dropped_at: Some(at(1000.0)),
        ..well.clone()
    };
    let (level, message, _) = told(Some(behind.clone()), 5000.0);
    assert_eq!(level, Level::Warn);
    assert!(message.contains("7 ticks are missing"), "{message}");
    assert_eq!(told(Some(behind), 12_000.0).0, Level::Ok, "it has caught up");
    let full = Health {
        failures: 1,
        failure: Some("/recordings/one.mcap: No space left on device".into()),
        ..well
    };
    let (level, message, _) = told(Some(full), 0.0);
    assert_eq!(level, Level::Error);
    assert!(message.contains("No space left on device"), "{message}");
}
