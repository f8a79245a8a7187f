//! Stamps and clocks that jump.

use std::time::Duration;

use mfpo_policy::spec::CommandInterface;
use serde_json::json;

use super::outcome::Outcome;
use super::stand::{STALE, Stand, TICK, seconds, stamped};
use super::{Row, Scene};
use crate::Qos;

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
            start: || Stand::of(CommandInterface::Effort, &["use_sim_time:=true"]),
            rows: vec![Row::new(
                "/clock and the states' stamps jump 1000 s ahead, then 1500 s back",
                sim_time,
            )],
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
        log,
    }
}

/// A simulator that is set ahead and then starts anew.
fn sim_time(stand: &mut Stand) -> Outcome {
    let clock = |stand: &mut Stand, seconds: u32| {
        let message = json!({"clock": {"sec": seconds, "nanosec": 0}});
        stand
            .peer
            .publish("/clock", "rosgraph_msgs/Clock", Qos::Reliable, message);
    };
    clock(stand, 10_000);
    clock(stand, 11_000);
    stand.report_instead(&stamped(1_000.0), 100);
    std::thread::sleep(Duration::from_millis(400));
    stand.view().policy_alone();
    clock(stand, 9_500);
    let outcome = set_back(stand, -500.0);
    let record = stand.peer.next("policy/action", 2).pop().unwrap_or_default();
    assert_eq!(
        record["stamp"]["sec"], 9_500,
        "records bear the simulator's time: {record}"
    );
    stand.good_states();
    outcome
}
