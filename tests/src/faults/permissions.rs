//! What a policy needs besides the robot's states: a goal where it observes one, a heartbeat where one is asked for, and
//! an operator who has not stopped it.

use std::time::Duration;

use mfpo_policy::spec::{Axis, CommandInterface, GoalSpec, ObservationTerm};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::outcome::{Outcome, milliseconds};
use super::stand::{FAULT, Stand, TICK, demanding};
use super::{Row, Scene};
use crate::Qos;
use crate::bundles::sealed;
use crate::peer::now;

/// How long a goal holds, s.
const GOAL: f64 = 0.5;
/// How long a heartbeat permits motion, s.
const HEARTBEAT: f64 = 0.3;
/// What the way to the peer and back may add to an answer that comes at once, s.
const AT_ONCE: f64 = 0.06;

pub(super) fn scenes() -> Vec<Scene> {
    vec![
        Scene {
            title: "Goals, heartbeats and stops",
            start: with_goal,
            rows: vec![
                Row::new("goals end (goal_timeout 0.5 s)", goals_end),
                Row::new("a goal in another frame than the robot's base", goal_elsewhere),
                Row::new("a node that is started again and given no goal", no_goal_comes),
            ],
        },
        Scene {
            title: "Goals, heartbeats and stops",
            start: with_heartbeat,
            rows: vec![
                Row::new(
                    "the heartbeat on enable ends (enable_timeout 0.3 s)",
                    heartbeat_ends,
                ),
                Row::new("enable says false", motion_is_forbidden),
                Row::new("an operator calls ~/stop", operator_stops),
            ],
        },
    ]
}

/// A policy that observes a goal, and somebody who goes on giving one.
fn with_goal() -> Stand {
    let mut spec = demanding(CommandInterface::Effort);
    spec.goal = Some(GoalSpec {
        frame: "base".into(),
        min: [-1.0; 3],
        max: [1.0; 3],
    });
    let goal = ObservationTerm::Goal {
        axis: Axis::X,
        scale: 1.0,
    };
    spec.observation.terms.push(goal);
    let bundle = sealed(&spec, 1);
    let mut stand = Stand::with(spec, &bundle, &[&format!("goal_timeout:={GOAL}")]);
    give_goals(&mut stand);
    stand
}

/// One goal, and tells when it was sent.
fn give_goal(stand: &mut Stand, frame: &str) -> f64 {
    let goal = json!({"header": {"frame_id": frame}, "point": {"x": 0.3, "y": 0.1, "z": 0.1}});
    stand
        .peer
        .publish("goal", "geometry_msgs/PointStamped", Qos::Reliable, goal)
}

/// Goals from now on; tells when the first one was sent.
fn give_goals(stand: &mut Stand) -> f64 {
    let first = give_goal(stand, "base");
    stand.peer.repeat_goal("base", [0.3, 0.1, 0.1]);
    first
}

/// Ends what is repeated under a name, and tells when the last one was sent.
fn end_of(stand: &mut Stand, name: &str) -> f64 {
    let last = stand.peer.repeat(name, &Value::Null, 0);
    last.expect("one was sent before")
}

/// The fallback answers the end of what came last at `began` and holds for so long; no sooner.
fn falls_after(stand: &Stand, seconds: f64, began: f64) -> f64 {
    let fell = stand.falls_within(seconds, began);
    let after = fell - began;
    assert!(
        after >= seconds,
        "the fallback came after {after:.3} s; what came last holds for {seconds} s"
    );
    fell
}

/// A fault that ends by itself with the next one of what was missing.
fn until_the_next(
    stand: &mut Stand,
    when: (f64, f64),
    words: &[&str],
    next: (&str, fn(&mut Stand) -> f64),
) -> Outcome {
    let outcome = stand.recovers(when, words, next.1);
    let with = format!("with the next {}", next.0);
    let recovers = outcome.recovers.replace("with the first good state", &with);
    Outcome { recovers, ..outcome }
}

fn goals_end(stand: &mut Stand) -> Outcome {
    let began = end_of(stand, "goal");
    let fell = falls_after(stand, GOAL, began);
    let words = ["the fallback commands", "no goal on topic goal for"];
    until_the_next(stand, (began, fell), &words, ("goal", give_goals))
}

fn goal_elsewhere(stand: &mut Stand) -> Outcome {
    give_goal(stand, "map");
    let log = stand.says(&["goal refused", "its frame_id is 'map'; expected 'base'"]);
    std::thread::sleep(Duration::from_millis(300));
    stand.goes_on(log, "not needed: one goal is refused, the one before holds")
}

fn no_goal_comes(stand: &mut Stand) -> Outcome {
    stand.peer.silence("goal");
    stand.control.signal(Signal::SIGTERM);
    stand.control.ended();
    stand.commands_have_ended();
    stand.mark();
    let before = stand.peer.count("commands");
    stand.restart_control();
    let log = stand.says(&["not active yet", "the policy needs a goal"]);
    std::thread::sleep(FAULT);
    assert_eq!(
        stand.peer.count("commands"),
        before,
        "nothing moves without a goal"
    );
    let given = give_goals(stand);
    let acts = stand.acts(given);
    stand.fades_in(given);
    stand.view();
    stand.waits_until_active();
    Outcome {
        sees: "nothing: without a goal the node does not become active".into(),
        reaction: None,
        recovers: format!(
            "by itself with the first goal ({}); the policy fades in",
            milliseconds(acts - given)
        ),
        way: None,
        log,
    }
}

/// Motion is permitted by a heartbeat alone.
fn with_heartbeat() -> Stand {
    let timeout = format!("enable_timeout:={HEARTBEAT}");
    let mut stand = Stand::of(CommandInterface::Effort, &[&timeout]);
    permit(&mut stand);
    stand
}

/// One heartbeat, and tells when it was sent.
fn beat(stand: &mut Stand, permits: bool) -> f64 {
    let heartbeat = json!({"data": permits});
    stand
        .peer
        .publish("enable", "std_msgs/Bool", Qos::Reliable, heartbeat)
}

/// Heartbeats from now on; tells when the first one was sent.
fn permit(stand: &mut Stand) -> f64 {
    let first = beat(stand, true);
    stand.peer.repeat_enable(Some(true));
    first
}

fn heartbeat_ends(stand: &mut Stand) -> Outcome {
    let began = end_of(stand, "enable");
    let fell = falls_after(stand, HEARTBEAT, began);
    let words = ["the fallback commands", "no heartbeat on topic enable for"];
    until_the_next(stand, (began, fell), &words, ("heartbeat", permit))
}

fn motion_is_forbidden(stand: &mut Stand) -> Outcome {
    end_of(stand, "enable");
    let began = beat(stand, false);
    let fell = stand.falls_within(0.0, began);
    let words = ["the fallback commands", "topic enable says false"];
    until_the_next(stand, (began, fell), &words, ("heartbeat that says true", permit))
}

/// The answer to the call says that it is done; the fallback then commands at the next tick at the latest.
fn operator_stops(stand: &mut Stand) -> Outcome {
    let (is_done, why) = stand.peer.trigger("stop");
    assert!(is_done, "{why}");
    let (called, answered) = (stand.peer.called(), now());
    let fell = stand.fell(called);
    assert!(
        fell <= answered + TICK + AT_ONCE,
        "the fallback came {:.3} s after the answer",
        fell - answered
    );
    let words = ["the fallback commands", "stopped by ~/stop until ~/start"];
    let outcome = stand.recovers((called, fell), &words, |stand| {
        let newest = stand.peer.newest("policy/action").unwrap_or_default();
        assert_eq!(newest["fallback"], true, "nobody has started it");
        let (is_done, why) = stand.peer.trigger("start");
        assert!(is_done, "{why}");
        stand.peer.called()
    });
    Outcome {
        recovers: "when an operator calls ~/start; the policy fades in".into(),
        ..outcome
    }
}
