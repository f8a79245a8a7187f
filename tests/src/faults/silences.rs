//! A robot that says nothing, says the same again, or says more than anybody can take.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mfpo_policy::spec::CommandInterface;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::outcome::{Outcome, milliseconds};
use super::stand::{STALE, Stand, TICK, at_rest, seconds, stamped};
use super::{Row, Scene};
use crate::peer::{arrived, now};

/// Of the 50 ticks of a second in which the node is held up, so many at least are missed.
const FEWEST_MISSED: u64 = 45;

pub(super) fn scenes() -> Vec<Scene> {
    vec![
        Scene {
            title: "Silence and floods",
            start: || Stand::of(CommandInterface::Effort, &[]),
            rows: vec![
                Row::new("silence for one tick (20 ms)", |s| pause(s, TICK)),
                silence("silence for 1 s, commands in N m", 1.0).quick(),
                Row::new("the same state again and again, with its old stamp", repeating),
                Row::new("a burst of 200 messages that are 1 s old", burst),
                Row::new(
                    "full queues: states at 500 Hz while the node is held up for 1 s (SIGSTOP)",
                    full_queues,
                ),
            ],
        },
        Scene {
            title: "Silence and floods",
            start: || Stand::of(CommandInterface::Velocity, &[]),
            rows: vec![silence("silence for 1 s, commands in rad/s", 1.0)],
        },
        Scene {
            title: "Silence and floods",
            start: || Stand::of(CommandInterface::Position, &[]),
            rows: vec![silence("silence for 10 s, commands in rad", 10.0)],
        },
        Scene {
            title: "Silence and floods",
            start: || Stand::of(CommandInterface::Effort, &["recovery_inputs:=0"]),
            rows: vec![Row::new(
                "silence for 1 s with recovery_inputs 0",
                waits_for_start,
            )],
        },
    ]
}

fn pause(stand: &mut Stand, seconds: f64) -> Outcome {
    stand.report_instead(&Value::Null, 0);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    stand.good_states();
    std::thread::sleep(Duration::from_millis(300));
    stand.goes_on(
        String::new(),
        "not needed: the newest state is younger than stale_timeout",
    )
}

fn silence(fault: &'static str, seconds: f64) -> Row {
    Row::new(fault, move |stand| {
        let began = stand.report_instead(&Value::Null, 0);
        let words = ["the fallback commands", "has not reported for"];
        stand.falls_back(began, &words, |stand| {
            let left = began + seconds - now();
            std::thread::sleep(Duration::from_secs_f64(left.max(0.0)));
            stand.good_states()
        })
    })
}

fn waits_for_start(stand: &mut Stand) -> Outcome {
    let began = stand.report_instead(&Value::Null, 0);
    let words = ["the fallback commands", "has not reported for"];
    let outcome = stand.falls_back(began, &words, |stand| {
        stand.good_states();
        std::thread::sleep(Duration::from_millis(500));
        let newest = stand.peer.newest("policy/action").unwrap_or_default();
        assert_eq!(newest["fallback"], true, "nobody has started it");
        let called = now();
        assert!(stand.peer.trigger("start").0);
        called
    });
    Outcome {
        recovers: "when an operator calls ~/start; the policy fades in".into(),
        ..outcome
    }
}

/// A driver that has lost its robot and repeats the last message.
fn repeating(stand: &mut Stand) -> Outcome {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a date");
    let mut message = at_rest();
    message["header"]["stamp"] = json!({"sec": since.as_secs(), "nanosec": since.subsec_nanos()});
    let began = stand.report_instead(&message, 100);
    // The first of them is news.
    let first = began + 0.01;
    stand.falls_back(
        first,
        &["the fallback commands", "has not reported for"],
        Stand::good_states,
    )
}

fn burst(stand: &mut Stand) -> Outcome {
    stand.peer.burst_of_states(&stamped(-1.0), 200);
    let log = stand.says(&["stamp is", "behind the newest one of joint"]);
    std::thread::sleep(Duration::from_millis(300));
    stand.goes_on(log, "not needed: what is older than what is known is refused")
}

/// A node that is held up finds its queues full. What has waited in them arrives when the node goes on, and is as old as
/// its stamps say.
fn full_queues(stand: &mut Stand) -> Outcome {
    stand.report_instead(&at_rest(), 500);
    std::thread::sleep(Duration::from_millis(300));
    stand.begin();
    let before = missed(&stand.waits_until_active());
    stand.control.signal(Signal::SIGSTOP);
    let stopped = now();
    std::thread::sleep(Duration::from_secs(1));
    let continued = now();
    stand.control.signal(Signal::SIGCONT);
    let acts = stand.acts(continued);
    std::thread::sleep(Duration::from_millis(300));
    let view = stand.view();
    let held = view
        .commands
        .iter()
        .filter(|c| (stopped + 0.1..continued).contains(&arrived(c)));
    assert_eq!(held.count(), 0, "a stopped node sends nothing");
    let after = view
        .records
        .iter()
        .filter(|r| arrived(r) > continued && r["fallback"] == false);
    for record in after {
        let age = seconds(&record["stamp"]) - seconds(&record["state_stamp"]);
        assert!(
            age < STALE,
            "the policy acted on a state that was {age:.3} s old: {record}"
        );
    }
    let status = stand
        .peer
        .status("the ticks of that time are counted as missed", |s| {
            missed(s) >= before + FEWEST_MISSED
        });
    let count = missed(&status) - before;
    stand.good_states();
    Outcome {
        sees: "nothing while it lasts: its own command timeout has to act; then the policy's commands from new states; \
               where one that has waited in a queue comes first, the fallback until then".into(),
        reaction: None,
        recovers: format!("by itself ({} after the node goes on)", milliseconds(acts - continued)),
        way: None,
        log: format!("policy/status counts {count} missed ticks"),
    }
}

fn missed(status: &Value) -> u64 {
    status["missed_ticks"].as_u64().unwrap_or_default()
}
