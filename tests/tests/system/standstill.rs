//! A control thread that stands still, as one that is stuck in the middleware: it is held as by a debugger. It is told, whoever
//! asks for a stop gets an answer, and the process ends; a stop that is held up on its way is cut.

use std::time::Duration;

use mfpo_policy::spec::CommandInterface;
use mfpo_tests::bundles::{sealed, sealed_of_one_action, two_joints};
use mfpo_tests::peer::{now, state};
use mfpo_tests::{Held, Peer, TestEnv, assert_says, until};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn a_control_thread_that_stands_still_is_told_and_whoever_asks_for_a_stop_is_answered() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.report_both_joints();
    peer.active();
    let says = |words: &'static str| {
        move |s: &serde_json::Value| s["message"].as_str().is_some_and(|m| m.contains(words))
    };
    let held = Held::thread(&control, "control_loop");
    peer.status(
        "the control thread stands still",
        says("has not finished a tick for"),
    );
    let asked = now();
    let (done, why) = peer.trigger("stop");
    let took = now() - asked;
    assert!(!done && took > 0.9, "{took} s: {why}");
    assert_says(
        &why,
        &[
            "has not confirmed the stop within 1 s",
            "use the robot's own stop",
        ],
    );
    control.says(&["ERROR", "the control thread has not finished a tick for"]);
    drop(held);
    control.says(&["the control thread goes on"]);
    // What was ordered meanwhile is carried out.
    let status = peer.status("it is stopped after all", says("stopped by ~/stop"));
    assert_eq!(status["state"], state::FALLBACK);
}

#[test]
fn a_node_whose_control_thread_stands_still_ends_and_says_that_the_robot_was_not_stopped() {
    let env = TestEnv::new();
    let policy = env.file("v1", &sealed(&two_joints(CommandInterface::Effort), 1));
    let mut peer = env.peer("");
    let mut control = env.control(&[
        &format!("policy:={}", policy.display()),
        &format!("record.folder:={}", env.path("recordings").display()),
    ]);
    peer.report_both_joints();
    peer.active();
    // A disk that hangs holds the recorder.
    let held = ["control_loop", "recorder"].map(|name| Held::thread(&control, name));
    control.signal(Signal::SIGTERM);
    until("the process gives up its threads", || {
        held.iter().all(Held::has_ended).then_some(())
    });
    assert_eq!(control.ended().code(), Some(1));
    control.says(&[
        "ERROR",
        "the control thread stands still and does not end",
        "the robot was not stopped",
    ]);
}

/// Of the commands in the last stop, rad/s in a second: half a rad/s takes 125 ticks.
const RATE: f64 = 0.2;

#[test]
fn the_last_stop_is_cut_by_the_clock_and_makes_up_for_nothing_where_it_is_held_up() {
    let env = TestEnv::new();
    let mut spec = two_joints(CommandInterface::Velocity);
    for joint in &mut spec.joints {
        joint.command_rate_max = Some(RATE);
    }
    let policy = env.file("v1", &sealed_of_one_action(&spec, 1, 1.0));
    let mut peer = env.peer("");
    let mut control = env.control(&[&format!("policy:={}", policy.display())]);
    peer.report_both_joints();
    let wrist = |peer: &Peer| peer.newest("commands")?["data"][0].as_f64();
    until("the wrist turns", || wrist(&peer).filter(|speed| *speed > 0.49));
    control.signal(Signal::SIGTERM);
    until("the stop has begun", || {
        wrist(&peer).filter(|speed| *speed < 0.49)
    });
    let begun = peer.count("commands");
    // 4 s have passed then, with a few ticks between the two.
    for _ in 0..2 {
        let held = Held::thread(&control, "control_loop");
        std::thread::sleep(Duration::from_secs(2));
        drop(held);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(control.ended().code(), Some(0));
    control.says(&["the stop has not ended within 4 s", "zero was sent at once"]);
    until("the last command arrives", || {
        (peer.newest("commands")?["data"] == json!([0.0, 0.0])).then_some(())
    });
    let commands = peer.messages("commands", begun);
    assert!(
        commands.len() < 80,
        "{} commands: what was held up came at once",
        commands.len()
    );
    let before = commands.iter().rev().nth(1);
    let speed = before.and_then(|command| command["data"][0].as_f64());
    assert!(
        speed.is_some_and(|speed| speed > 0.2),
        "it was far from its end: {before:?}"
    );
}
