//! What `/diagnostics` says of the inputs: their age, how regularly they come, and what of it is worth a warning.

use std::collections::BTreeMap;

use mfpo_node::diagnostics::{Diagnostic, Level, Sources, Threshold, diagnose};
use mfpo_node::metrics::Live;
use mfpo_node::sim_time::SimTime;
use mfpo_node::status::Status;

use super::status::{sources, status};
use super::support::{MS, at};

const LOOSE: Threshold = Threshold {
    warn: 1e9,
    error: 1e9,
};

/// The part `inputs`, of a node whose joints have just reported.
fn inputs(sources: &Sources<'_>, ms: f64) -> Diagnostic {
    (0..2).for_each(|joint| sources.live.set_received(joint, Some(at(ms))));
    let mut parts = diagnose(sources, at(ms));
    parts.retain(|part| part.name == "inputs");
    let [part] = parts.try_into().unwrap();
    part
}

/// The figures of a part that are numbers.
fn numbers(part: &Diagnostic) -> BTreeMap<&str, f64> {
    let values = part.values.iter();
    let numbers = values.filter_map(|(key, value)| Some((key.as_str(), value.parse::<f64>().ok()?)));
    numbers.collect()
}

fn are_about<const N: usize>(numbers: &BTreeMap<&str, f64>, expected: [(&str, f64); N]) {
    for (name, expected) in expected {
        let got = numbers.get(name).copied().unwrap_or(f64::NAN);
        assert!((got - expected).abs() < 1e-6, "{name} is {got}: {numbers:?}");
    }
}

#[test]
fn inputs_that_come_near_to_being_stale_are_a_warning_with_the_figure() {
    let live = Live::new(2);
    let mut status = status();
    let told = |status: &Status, ms: f64| {
        let mut parts = diagnose(&sources(status, &live, LOOSE), at(ms));
        parts.retain(|part| part.name == "inputs");
        let [part] = parts.try_into().unwrap();
        (part.level, part.message)
    };
    // A round every 20 ms; then none for 60 ms, and 100 ms is stale.
    let until = |status: &mut Status, rounds: &[f64], ms: f64| {
        for round in rounds.iter().map(|ms| at(*ms)) {
            (0..2).for_each(|joint| live.set_received(joint, Some(round)));
            live.note_round(round);
        }
        status.rounds.look(&live, at(ms));
    };
    until(&mut status, &[0.0, 20.0, 40.0, 60.0], 70.0);
    let (level, message) = told(&status, 70.0);
    assert_eq!(level, Level::Ok);
    assert_eq!(message, "every joint reports; the oldest state is 10 ms old");
    until(&mut status, &[80.0, 140.0], 150.0);
    let (level, message) = told(&status, 150.0);
    assert_eq!(level, Level::Warn);
    for part in ["60 ms between two states", "at most 50 ms"] {
        assert!(message.contains(part), "{message}");
    }
    until(&mut status, &[160.0], 170.0);
    assert_eq!(told(&status, 170.0).0, Level::Ok);
    live.set_backlog(70 * MS);
    let (level, message) = told(&status, 170.0);
    assert_eq!(level, Level::Warn);
    assert!(message.contains("70 ms longer than at best"), "{message}");
    assert_eq!(told(&status, 300.0).0, Level::Stale, "silence goes first");
}

#[test]
fn diagnostics_tell_the_age_of_heartbeat_and_goal() {
    let (status, live) = (status(), Live::new(2));
    let told = |enable_timeout: f64| {
        let sources = Sources {
            enable_timeout,
            ..sources(&status, &live, LOOSE)
        };
        let mut parts = diagnose(&sources, at(500.0));
        parts.retain(|part| part.name == "inputs");
        let [part] = parts.try_into().unwrap();
        let of = |name: &str| {
            let found = part.values.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        ["enable", "enable.age", "goal", "goal.age"].map(of)
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(told(0.0), [None, None, text("none"), None]);
    assert_eq!(told(0.5), [text("none"), None, text("none"), None]);
    live.set_heartbeat(true, at(250.0));
    live.set_goal(Some(([0.1, 0.2, 0.3], at(0.0))));
    let goal = text("0.1000 0.2000 0.3000");
    assert_eq!(told(0.5), [text("true"), text("0.25"), goal, text("0.5")]);
    live.set_goal(None);
    assert_eq!(told(0.5)[2..], [text("none"), None]);
}

#[test]
fn a_heartbeat_with_gaps_of_more_than_half_its_timeout_is_a_warning_before_motion_ends() {
    let (mut status, live) = (status(), Live::new(2));
    let told = |status: &Status, ms: f64| {
        let sources = Sources {
            enable_timeout: 0.5,
            ..sources(status, &live, LOOSE)
        };
        inputs(&sources, ms)
    };
    let beat = |status: &mut Status, permits: bool, beats: &[f64]| {
        beats.iter().for_each(|ms| live.set_heartbeat(permits, at(*ms)));
        status.periods.look(&live);
    };
    let part = told(&status, 0.0);
    assert_eq!(
        (part.level, &*part.message),
        (Level::Stale, "no heartbeat on topic enable yet")
    );

    // Every 100 ms, but for one that comes 200 ms after the one before: well within half of 500 ms.
    let mut beats: Vec<f64> = (0..=10).map(|k| 100.0 * f64::from(k)).collect();
    beats.remove(4);
    beat(&mut status, true, &beats);
    let part = told(&status, 1050.0);
    assert_eq!(part.level, Level::Ok, "{}", part.message);
    let expected = [
        ("enable.age", 0.05),
        ("enable.longest_gap", 0.2),
        ("enable.period.average", 1.0 / 9.0),
        ("enable.period.min", 0.1),
        ("enable.period.max", 0.2),
        ("enable.period.standard_deviation", 8.0_f64.sqrt() / 90.0),
    ];
    are_about(&numbers(&part), expected);

    beat(&mut status, true, &[1300.0, 1400.0]);
    let part = told(&status, 1410.0);
    assert_eq!(part.level, Level::Warn);
    for words in [
        "heartbeat on topic enable",
        "300 ms without one",
        "at most 250 ms, half of enable_timeout",
    ] {
        assert!(part.message.contains(words), "{}", part.message);
    }
    // A gap that lasts counts as one that is over; then it is late.
    let beats: Vec<f64> = (15..=41).map(|k| 100.0 * f64::from(k)).collect();
    beat(&mut status, true, &beats);
    assert_eq!(
        told(&status, 4110.0).level,
        Level::Ok,
        "two good seconds have passed"
    );
    assert_eq!(told(&status, 4360.0).level, Level::Warn);
    let part = told(&status, 4610.0);
    assert_eq!(part.level, Level::Stale);
    assert!(
        part.message.contains("no heartbeat on topic enable for 510 ms"),
        "{}",
        part.message
    );
    // Whoever says `false` is there, and wants no motion.
    beat(&mut status, false, &[4620.0]);
    assert_eq!(told(&status, 9000.0).level, Level::Ok);
}

#[test]
fn a_goal_that_ages_is_judged_by_its_timeout_and_one_that_holds_is_not() {
    let (mut status, live) = (status(), Live::new(2));
    let told = |status: &Status, goal_timeout: f64, ms: f64| {
        let sources = Sources {
            goal_timeout,
            ..sources(status, &live, LOOSE)
        };
        inputs(&sources, ms)
    };
    assert_eq!(told(&status, 2.0, 0.0).level, Level::Ok, "none was given yet");
    for ms in [0.0, 400.0, 800.0, 1200.0] {
        live.set_goal(Some(([0.1, 0.2, 0.3], at(ms))));
    }
    status.periods.look(&live);
    let part = told(&status, 2.0, 1300.0);
    assert_eq!(part.level, Level::Ok, "{}", part.message);
    let expected = [
        ("goal.age", 0.1),
        ("goal.longest_gap", 0.4),
        ("goal.period.average", 0.4),
        ("goal.period.standard_deviation", 0.0),
    ];
    are_about(&numbers(&part), expected);

    let part = told(&status, 2.0, 2300.0);
    assert_eq!(part.level, Level::Warn);
    let words = "goal on topic goal is near to being late: 1100 ms without one (expected at most 1000 ms, half of goal_timeout)";
    assert!(part.message.contains(words), "{}", part.message);
    let part = told(&status, 2.0, 3450.0);
    assert_eq!(part.level, Level::Stale);
    let words = "no goal on topic goal for 2.25 s; expected one at least every 2 s (parameter goal_timeout)";
    assert!(part.message.contains(words), "{}", part.message);
    assert_eq!(
        told(&status, 0.0, 3450.0).level,
        Level::Ok,
        "it holds until the next one"
    );

    // A deactivation forgets it, and the time until the next one is no gap.
    live.set_goal(None);
    status.periods.look(&live);
    assert_eq!(told(&status, 2.0, 60_000.0).level, Level::Ok);
    live.set_goal(Some(([0.1, 0.2, 0.3], at(90_000.0))));
    status.periods.look(&live);
    let part = told(&status, 2.0, 90_100.0);
    assert_eq!(part.level, Level::Ok, "{}", part.message);
    are_about(&numbers(&part), [("goal.age", 0.1), ("goal.longest_gap", 0.1)]);
}

#[test]
fn joint_states_that_come_unevenly_are_a_warning_though_none_is_near_to_being_stale() {
    let (mut status, live) = (status(), Live::new(2));
    // Of a policy of 100 Hz: half a period is 5 ms.
    let clock = SimTime::default();
    let told = |status: &Status, clock: Option<&SimTime>, ms: f64| {
        let sources = Sources {
            clock,
            ..sources(status, &live, LOOSE)
        };
        inputs(&sources, ms)
    };
    let report = |status: &mut Status, times: Vec<f64>| {
        times.into_iter().for_each(|ms| live.note_round(at(ms)));
        status.periods.look(&live);
    };
    report(&mut status, (0..=50).map(|k| 20.0 * f64::from(k)).collect());
    let part = told(&status, None, 1001.0);
    assert_eq!(part.level, Level::Ok, "slow, but even: {}", part.message);
    let expected = [
        ("period.average", 0.02),
        ("period.standard_deviation", 0.0),
        ("period.max", 0.02),
    ];
    are_about(&numbers(&part), expected);

    // As many, but two right behind each other.
    let pairs = (0..=25).flat_map(|k| [1020.0, 1022.0].map(|first| first + 40.0 * f64::from(k)));
    report(&mut status, pairs.collect());
    let part = told(&status, None, 2030.0);
    assert_eq!(part.level, Level::Warn);
    for words in [
        "the states arrive irregularly",
        "standard deviation of 1",
        "at most 5.0 ms, half the control period",
    ] {
        assert!(part.message.contains(words), "{}", part.message);
    }
    clock.hear(MS.cast_signed(), at(2030.0));
    assert_eq!(
        told(&status, Some(&clock), 2030.0).level,
        Level::Ok,
        "a simulator's come as it gets on"
    );
}
