//! Joint states that are wrong: values, names, shapes, and what a robot does that it must not.

use std::time::Duration;

use mfpo_policy::spec::CommandInterface;
use serde_json::{Value, json};

use super::outcome::{Outcome, milliseconds};
use super::stand::{BOTH, FAULT, Stand, at_rest};
use super::view::numbers;
use super::{Row, Scene};
use crate::Qos;
use crate::peer::{arrived, now, states};

const REST: [f64; 2] = [0.0, 0.0];
/// Index of the elbow among the commands, and of the rule `position` among the rules.
const ELBOW: usize = 1;

pub(super) fn scenes() -> Vec<Scene> {
    vec![
        Scene {
            title: "Joint states",
            start: || Stand::of(CommandInterface::Effort, &[]),
            rows: rows(),
        },
        Scene {
            title: "Joint states",
            start: reliable,
            rows: vec![
                Row::new(
                    "best effort states where the node asks for reliable ones (qos_overrides)",
                    less_than_asked_for,
                )
                .quick(),
            ],
        },
    ]
}

/// A node that asks for reliable states, and gets them.
fn reliable() -> Stand {
    let asks = "qos_overrides./joint_states.subscription.reliability:=reliable";
    let mut stand = Stand::of(CommandInterface::Effort, &[asks]);
    report_again(&mut stand, Qos::Reliable);
    stand
}

/// The robot reports both joints through a new publisher; tells when the last state of the one before was sent.
fn report_again(stand: &mut Stand, qos: Qos) -> f64 {
    let last = stand.peer.withdraw("robot");
    let topic = ("joint_states", "sensor_msgs/JointState", qos);
    stand.peer.repeat_as("robot", topic, &at_rest());
    last.unwrap_or_else(now)
}

fn less_than_asked_for(stand: &mut Stand) -> Outcome {
    let began = report_again(stand, Qos::Sensor);
    let words = ["is not heard", "reliability best_effort, expected reliable"];
    stand.falls_back(began, &words, |stand| {
        report_again(stand, Qos::Reliable);
        now()
    })
}

fn rows() -> Vec<Row> {
    let nan = f64::NAN;
    let mut sideways = states(&BOTH, &[0.1, 0.2], &[0.4, 0.0]);
    sideways["name"] = json!(["elbow", "wrsit"]);
    vec![
        once(
            "a NaN position in one message",
            states(&BOTH, &[0.1, nan], &REST),
            &["position of joint 'wrist' is NaN"],
        ),
        lasting(
            "NaN positions",
            states(&BOTH, &[nan, nan], &REST),
            &["position of joint 'elbow' is NaN"],
        )
        .quick(),
        lasting(
            "an infinite position",
            states(&BOTH, &[0.1, f64::NEG_INFINITY], &REST),
            &["position of joint 'wrist' is -inf"],
        ),
        lasting(
            "an infinite velocity",
            states(&BOTH, &[0.1, 0.2], &[f64::INFINITY, 0.0]),
            &["velocity of joint 'elbow' is inf"],
        ),
        lasting(
            "a missing joint, the other one moving at 0.4 rad/s",
            states(&["elbow"], &[0.1], &[0.4]),
            &["the fallback commands", "joint 'wrist' has not reported"],
        ),
        lasting(
            "a duplicate name",
            states(&["elbow", "elbow"], &[0.1, 0.2], &REST),
            &["joint 'elbow' appears twice"],
        ),
        lasting(
            "a renamed joint, the other one moving at 0.4 rad/s",
            sideways,
            &["'wrsit'", "closest: 'wrist'"],
        )
        .quick(),
        lasting(
            "no joint that the policy knows",
            states(&["knee"], &[0.1], &[0.0]),
            &["no joint of the policy"],
        ),
        lasting(
            "position array shorter than the names",
            states(&BOTH, &[0.1], &REST),
            &["position has 1 values for 2 names"],
        ),
        lasting(
            "velocity array longer than the names",
            states(&BOTH, &[0.1, 0.2], &[0.0; 3]),
            &["velocity has 3 values for 2 names"],
        ),
        lasting(
            "empty messages",
            states(&[], &[], &[]),
            &["carries no names or neither positions nor velocities"],
        ),
        Row::new("reordered names", reordered).quick(),
        Row::new("no velocities, or NaN in their place", without_velocities),
        Row::new("a joint outside its position limit", outside_position).quick(),
        Row::new("a joint faster than its velocity limit", outside_velocity),
        Row::new("two publishers that contradict each other", two_publishers).quick(),
    ]
}

/// One bad message among good ones.
fn once(fault: &'static str, message: Value, words: &'static [&'static str]) -> Row {
    Row::new(fault, move |stand| {
        stand.peer.publish(
            "joint_states",
            "sensor_msgs/JointState",
            Qos::Sensor,
            message.clone(),
        );
        let log = stand.says(words);
        std::thread::sleep(Duration::from_millis(300));
        stand.goes_on(log, "not needed: one message is refused, the next one is good")
    })
}

/// Bad messages in place of the good ones.
fn lasting(fault: &'static str, message: Value, words: &'static [&'static str]) -> Row {
    Row::new(fault, move |stand| {
        let began = stand.report_instead(&message, 100);
        stand.falls_back(began, words, Stand::good_states)
    })
}

/// The wrist, which has no limit, is where the elbow must not be: names decide, not places.
fn reordered(stand: &mut Stand) -> Outcome {
    stand.report_instead(&states(&["wrist", "elbow"], &[1.5, 0.1], &REST), 100);
    std::thread::sleep(Duration::from_millis(500));
    let view = stand.view();
    let outward = view.commands.iter().any(|c| numbers(&c["data"])[ELBOW] > 0.0);
    assert!(
        outward,
        "the elbow is not at its limit, and may be driven outwards"
    );
    let outcome = stand.goes_on(String::new(), "not needed: joints are read by name");
    stand.good_states();
    outcome
}

/// As ros2_control's broadcaster writes what it does not know.
fn without_velocities(stand: &mut Stand) -> Outcome {
    for message in [
        states(&BOTH, &[0.1, 0.2], &[]),
        states(&BOTH, &[0.1, 0.2], &[f64::NAN; 2]),
    ] {
        stand.report_instead(&message, 100);
        std::thread::sleep(Duration::from_millis(400));
    }
    let outcome = stand.goes_on(
        String::new(),
        "not needed: velocities are the differences of the positions",
    );
    stand.good_states();
    outcome
}

fn outside_position(stand: &mut Stand) -> Outcome {
    driven_out(stand, &states(&BOTH, &[1.2, 0.2], &REST), "position")
}

fn outside_velocity(stand: &mut Stand) -> Outcome {
    driven_out(stand, &states(&BOTH, &[0.1, 0.2], &[2.5, 0.0]), "velocity")
}

/// How many commands for the elbow a rule has altered, as a status counts them.
fn altered(status: &Value, rule: &str) -> Option<u64> {
    let rules = status["rules"].as_array()?;
    let joints = status["command_joints"].as_array()?;
    let rule = rules.iter().position(|of| of == rule)?;
    let joint = joints.iter().position(|of| of == "elbow")?;
    status["interventions_by_rule"][joint * rules.len() + rule].as_u64()
}

/// The elbow is where nobody has commanded it to be: the policy goes on, and no effort drives it further out.
fn driven_out(stand: &mut Stand, message: &Value, rule: &str) -> Outcome {
    let before = altered(&stand.waits_until_active(), rule).expect("a count");
    let began = stand.report_instead(message, 100);
    // The states that were under way when it began are still acted on.
    let seen = began + 0.05;
    let held = stand.command_after("a command that is held back", seen, |r| {
        let elbow = |field: &str| numbers(&r[field])[ELBOW];
        elbow("command_raw") > 0.0 && elbow("command") <= 0.0 && r["interventions"].as_u64() > Some(0)
    });
    std::thread::sleep(Duration::from_millis(500));
    let view = stand.view();
    let since = view.commands.iter().filter(|c| arrived(c) >= seen);
    for command in since {
        let effort = numbers(&command["data"])[ELBOW];
        assert!(
            effort <= 0.0,
            "an effort of {effort} N m drives the elbow further out"
        );
    }
    let status = stand.peer.status("the interventions are counted", |s| {
        altered(s, rule) > Some(before)
    });
    let count = altered(&status, rule).unwrap_or_default() - before;
    let log = format!("policy/status counts {count} commands for the elbow that rule '{rule}' altered");
    let outcome = stand.goes_on(log, "not needed");
    stand.good_states();
    Outcome {
        sees: "the policy's commands, but no effort on that joint that drives it further out".into(),
        reaction: Some(held - began),
        ..outcome
    }
}

/// A second publisher says that both joints are elsewhere, a fifth as often as the robot itself.
fn two_publishers(stand: &mut Stand) -> Outcome {
    let elsewhere = states(&BOTH, &[0.6, 0.9], &REST);
    stand.peer.repeat("second", &elsewhere, 20);
    let began = now();
    let fell = stand.fell(began);
    let log = stand.says(&[
        "the fallback commands the robot",
        "contradict each other about joint 'elbow'",
        "/joint_states has",
        "publishers (node '/peer')",
    ]);
    std::thread::sleep(FAULT);
    let ended = stand.peer.withdraw("second").unwrap_or_else(now);
    let acts = stand.acts(ended);
    stand.fades_in(ended);
    Outcome {
        sees: stand.view().fallback(&stand.spec),
        reaction: Some(fell - began),
        recovers: format!(
            "by itself when one of them has ended ({}); the policy fades in",
            milliseconds(acts - ended)
        ),
        way: None,
        log,
    }
}
