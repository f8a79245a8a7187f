//! Stamps and clocks that jump, and one that stands still.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mfpo_policy::spec::CommandInterface;
use serde_json::{Value, json};

use super::outcome::{Outcome, milliseconds};
use super::stand::{FAULT, STALE, Stand, TICK, seconds, stamped};
use super::{Row, Scene};
use crate::Qos;
use crate::peer::now;

pub(super) fn scenes() -> Vec<Scene> {
    let ahead = [
        "stamp is",
        "ahead of joint",
        "a second one like it is taken as a clock that was set",
    ];
    vec![
        Scene {
            title: "Stamps and clocks",
            start: || Stand::of(CommandInterface::Effort, &[]),
            rows: vec![
                Row::new("one stamp 10 s in the future", move |stand| {
                    send(stand, 10.0);
                    let log = stand.says(&ahead);
                    std::thread::sleep(Duration::from_millis(300));
                    stand.goes_on(log, "not needed: one message is refused, the next one is good")
                }),
                Row::new("one stamp 1 s in the past", move |stand| {
                    send(stand, -1.0);
                    let log = stand.says(&["stamp is", "behind the newest one of joint"]);
                    std::thread::sleep(Duration::from_millis(300));
                    stand.goes_on(log, "not needed: one message is refused, the next one is good")
                }),
                Row::new("the robot's clock is set 10 s ahead and back", |stand| {
                    stand.report_instead(&stamped(10.0), 100);
                    std::thread::sleep(Duration::from_millis(400));
                    stand.view().policy_alone();
                    set_back(stand, 0.0)
                })
                .quick(),
            ],
        },
        Scene {
            title: "Stamps and clocks",
            start: || {
                let mut stand = Stand::of(CommandInterface::Effort, &["use_sim_time:=true"]);
                set_clock(&mut stand, 0.0);
                stand
            },
            rows: vec![
                Row::new(
                    "/clock and the states' stamps jump 1000 s ahead, then 1500 s back",
                    sim_time,
                ),
                Row::new(
                    "/clock stands still, and the states go on (use_sim_time)",
                    clock_stands_still,
                ),
            ],
        },
    ]
}

fn send(stand: &mut Stand, ahead: f64) {
    let message = stamped(ahead);
    stand
        .peer
        .publish("joint_states", "sensor_msgs/JointState", Qos::Sensor, message);
}

/// Stamps go back and stay there: they are older than what is known, until that is stale. Whether a tick falls between
/// that moment and the next state is chance.
fn set_back(stand: &mut Stand, to: f64) -> Outcome {
    // The log tells of refusals of one kind once a second.
    std::thread::sleep(Duration::from_millis(1_100));
    let newest = stand.peer.newest("policy/action").unwrap_or_default();
    let began = stand.report_instead(&stamped(to), 100);
    let before = seconds(&newest["state_stamp"]);
    let acts = stand.command_after("the policy acts on the stamps of after", began, |r| {
        r["fallback"] == false && seconds(&r["state_stamp"]) < before - 1.0
    });
    let took = acts - began;
    assert!(took <= STALE + 2.0 * TICK + 0.06, "it took {took} s");
    let log = stand.says(&["stamp is", "behind the newest one of joint"]);
    let records = stand.view().records;
    let fallbacks = records.iter().filter(|r| r["fallback"] == true).count();
    assert!(fallbacks <= 2, "{fallbacks} fallback ticks");
    let acted = records.iter().filter(|r| r["fallback"] == false);
    let oldest = acted.filter_map(|r| r["state_age"].as_f64()).fold(0.0, f64::max);
    assert!(
        oldest <= STALE,
        "the policy acted on a state that was {oldest} s old"
    );
    Outcome {
        sees: "ahead: the policy's commands, without a gap; back: from the last state before it until that is stale, \
               then from the new ones, at most two of the fallback between them"
            .into(),
        reaction: Some(took),
        recovers: "by itself, once what was known is stale".into(),
        way: None,
        log,
    }
}

/// The simulator says this time from now on.
fn tell_time(stand: &mut Stand, time: &Value) {
    let topic = ("/clock", "rosgraph_msgs/Clock", Qos::Reliable);
    stand.peer.repeat_as("clock", topic, &json!({"clock": time}));
}

/// The simulator's time is so many seconds ahead of the machine's, and passes like that.
fn set_clock(stand: &mut Stand, ahead: f64) {
    tell_time(stand, &json!({"now": ahead}));
}

/// A simulator that is set ahead and then starts anew.
fn sim_time(stand: &mut Stand) -> Outcome {
    set_clock(stand, 1_000.0);
    stand.report_instead(&stamped(1_000.0), 100);
    std::thread::sleep(Duration::from_millis(400));
    stand.view().policy_alone();
    set_clock(stand, -500.0);
    let outcome = set_back(stand, -500.0);
    let record = stand.peer.next("policy/action", 2).pop().unwrap_or_default();
    let machine = SystemTime::now().duration_since(UNIX_EPOCH).expect("a date");
    let behind = machine.as_secs_f64() - seconds(&record["stamp"]);
    assert!(
        (495.0..505.0).contains(&behind),
        "records bear the simulator's time: {record}"
    );
    set_clock(stand, 0.0);
    stand.good_states();
    outcome
}

/// A simulator that is paused and says so, and joints that report all the same.
fn clock_stands_still(stand: &mut Stand) -> Outcome {
    let began = now();
    tell_time(stand, &json!({"sec": 100, "nanosec": 0}));
    let fell = stand.fell(began);
    let took = fell - began;
    assert!(
        (2.0..2.3).contains(&took),
        "the fallback came after {took:.3} s; expected 2 s and a tick"
    );
    let log = stand.says(&["the fallback commands", "simulated time stands still"]);
    std::thread::sleep(FAULT);
    let ended = now();
    set_clock(stand, 0.0);
    let acts = stand.acts(ended);
    stand.fades_in(ended);
    let sees = stand.view().fallback(&stand.spec);
    stand.waits_until_active();
    Outcome {
        sees,
        reaction: Some(took),
        recovers: format!(
            "by itself with the first good state after time has moved ({}); the policy fades in",
            milliseconds(acts - ended)
        ),
        way: None,
        log,
    }
}
