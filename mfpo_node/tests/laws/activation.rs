//! When the policy may begin, when it has to stop, and when it takes over again.

use mfpo_node::control_loop::{ControlLoop, Decision, NotReady, Reason, Settings, Tuning};
use mfpo_node::joint_states::JointStates;
use mfpo_node::safety::{FallbackChoice, NotEnabled, Rule, Tightening, Verdict};
use mfpo_policy::spec::CommandInterface;

use super::support::{MS, STALE_AFTER, allocations, at, policy, robot, send, settings};

fn with(interface: CommandInterface, settings: Settings) -> (ControlLoop, JointStates) {
    let spec = robot(interface);
    let control = ControlLoop::new(&spec, policy(&spec, 1), settings).unwrap();
    (control, JointStates::new(&spec, STALE_AFTER))
}

/// Both joints at these positions, at rest.
fn report(states: &mut JointStates, ms: f64, positions: [f64; 2]) {
    send(states, at(ms), &["a", "b"], &positions, &[0.0, 0.0]).unwrap();
}

fn why(decision: &Decision<'_>) -> Option<u8> {
    match decision {
        Decision::Command(tick) => tick.fallback.as_ref().map(Reason::kind),
        Decision::Wait(reason) => Some(reason.kind()),
    }
}

#[test]
fn activation_needs_every_joint_fresh() {
    let (mut control, mut states) = with(CommandInterface::Effort, settings());
    let missing = control.activate(&states, at(0.0)).unwrap_err();
    assert!(
        matches!(missing, NotReady::States(Verdict::Missing { joint: 0 })),
        "{missing:?}"
    );
    report(&mut states, 0.0, [0.0, 0.0]);
    let stale = control.activate(&states, at(51.0)).unwrap_err();
    assert!(
        matches!(stale, NotReady::States(Verdict::Stale { .. })),
        "{stale:?}"
    );
    report(&mut states, 60.0, [0.0, 0.0]);
    control.activate(&states, at(61.0)).unwrap();
    assert_eq!(why(&control.step(&states, at(61.0))), None);
}

#[test]
fn activation_needs_the_robot_inside_its_limits_and_names_the_joint() {
    let (mut control, mut states) = with(CommandInterface::Effort, settings());
    report(&mut states, 0.0, [1.2, 0.0]);
    let NotReady::Outside(outside) = control.activate(&states, at(0.0)).unwrap_err() else {
        panic!("accepted")
    };
    assert_eq!(
        (outside.joint, outside.rule, outside.got),
        (0, Rule::Position, 1.2)
    );
    assert_eq!((outside.low, outside.high), (-1.0, 1.0));
    send(&mut states, at(1000.0), &["a", "b"], &[0.0, 0.0], &[0.0, 2.5]).unwrap();
    let NotReady::Outside(outside) = control.activate(&states, at(1000.0)).unwrap_err() else {
        panic!("accepted")
    };
    assert_eq!((outside.joint, outside.rule), (1, Rule::Velocity));
    // A sensor at its stop reads a little more than the limit.
    report(&mut states, 2000.0, [1.0005, 0.0]);
    control.activate(&states, at(2000.0)).unwrap();
}

/// The same robot, of which only `b` is commanded: `a` is observed.
fn with_an_observed_joint(settings: Settings) -> (ControlLoop, JointStates) {
    let mut spec = robot(CommandInterface::Effort);
    spec.action.joints.retain(|action| action.joint == "b");
    spec.observation.terms.pop();
    let control = ControlLoop::new(&spec, policy(&spec, 1), settings).unwrap();
    (control, JointStates::new(&spec, STALE_AFTER))
}

#[test]
fn activation_needs_a_joint_inside_its_limits_that_is_only_observed_too() {
    let (mut control, mut states) = with_an_observed_joint(settings());
    for (k, position, velocity, expected) in [
        (0.0, 1.2, 0.0, Some((Rule::Position, 1.2, -1.0, 1.0))),
        (1.0, -1.0011, 0.0, Some((Rule::Position, -1.0011, -1.0, 1.0))),
        (2.0, 0.0, -2.5, Some((Rule::Velocity, -2.5, -2.0, 2.0))),
        // A sensor at its stop reads a little more than the limit.
        (3.0, 1.0005, 2.0005, None),
    ] {
        let now = at(10_000.0 * k);
        send(&mut states, now, &["a", "b"], &[position, 0.0], &[velocity, 0.0]).unwrap();
        let told = control.activate(&states, now).err().map(|reason| {
            let NotReady::Outside(outside) = reason else {
                panic!("{reason:?}")
            };
            assert_eq!(outside.joint, 0);
            (outside.rule, outside.got, outside.low, outside.high)
        });
        assert_eq!(told, expected);
    }
}

#[test]
fn a_start_after_a_stop_needs_the_observed_joint_inside_its_limits_as_an_activation_does() {
    let (mut control, mut states) = with_an_observed_joint(settings());
    report(&mut states, 0.0, [0.0, 0.0]);
    control.activate(&states, at(0.0)).unwrap();
    drop(control.step(&states, at(0.0)));
    control.halt();
    report(&mut states, 1000.0, [1.2, 0.0]);
    assert!(matches!(
        control.resume(&states, at(1000.0)),
        Err(NotReady::Outside(outside)) if outside.joint == 0
    ));
    report(&mut states, 2000.0, [0.9, 0.0]);
    control.resume(&states, at(2000.0)).unwrap();
}

#[test]
fn what_the_operator_allows_commands_less_of_does_not_narrow_a_joint_that_is_only_observed() {
    let settings = Settings {
        tightening: Tightening {
            // More than half the range of `a`, which nobody commands.
            position_margin: 1.5,
            velocity_scale: 0.1,
            ..Tightening::NONE
        },
        ..settings()
    };
    let (mut control, mut states) = with_an_observed_joint(settings);
    send(&mut states, at(0.0), &["a", "b"], &[0.9, 0.0], &[1.9, 0.1]).unwrap();
    control.activate(&states, at(0.0)).unwrap();
    send(&mut states, at(1000.0), &["a", "b"], &[0.9, 0.0], &[0.0, 0.3]).unwrap();
    assert!(matches!(
        control.activate(&states, at(1000.0)),
        Err(NotReady::Outside(outside)) if (outside.joint, outside.high) == (1, 0.2)
    ));
}

#[test]
fn activation_begins_where_the_robot_is_not_where_it_was_commanded_last() {
    let (mut control, mut states) = with(CommandInterface::Position, settings());
    report(&mut states, 0.0, [0.0, 0.0]);
    control.activate(&states, at(0.0)).unwrap();
    drop(control.step(&states, at(0.0)));
    // Somebody has moved the robot by hand meanwhile.
    report(&mut states, 1000.0, [-0.8, 2.0]);
    control.activate(&states, at(1000.0)).unwrap();
    let Decision::Command(tick) = control.step(&states, at(1000.0)) else {
        panic!("it waits")
    };
    // 2 rad/s for 20 ms; commands are in the order b, a.
    for (command, position) in tick.command.values().iter().zip([2.0, -0.8]) {
        assert!((command - position).abs() <= 0.04 + 1e-9, "{:?}", tick.command);
    }
}

#[test]
fn a_stop_holds_until_it_is_ended_by_hand() {
    let (mut control, mut states) = with(CommandInterface::Effort, settings());
    report(&mut states, 0.0, [0.0, 0.0]);
    control.activate(&states, at(0.0)).unwrap();
    drop(control.step(&states, at(0.0)));
    control.halt();
    for k in 1..200 {
        let ms = 20.0 * f64::from(k);
        report(&mut states, ms, [0.0, 0.0]);
        assert_eq!(why(&control.step(&states, at(ms))), Some(Reason::Stopped.kind()));
    }
    assert!(
        control.resume(&states, at(4_500.0)).is_err(),
        "the states are stale"
    );
    report(&mut states, 4_501.0, [0.0, 0.0]);
    control.resume(&states, at(4_501.0)).unwrap();
    assert_eq!(why(&control.step(&states, at(4_501.0))), None);
}

#[test]
fn without_a_heartbeat_there_is_no_motion() {
    let settings = Settings {
        enable_timeout: 30 * MS,
        ..settings()
    };
    let (mut control, mut states) = with(CommandInterface::Effort, settings);
    report(&mut states, 0.0, [0.0, 0.0]);
    assert_eq!(
        control.activate(&states, at(0.0)),
        Err(NotReady::NotEnabled(NotEnabled::Never))
    );
    assert!(matches!(
        control.step(&states, at(0.0)),
        Decision::Wait(Reason::NotEnabled(_))
    ));
    control.heard_enable(true, at(0.0));
    control.activate(&states, at(0.0)).unwrap();
    assert_eq!(why(&control.step(&states, at(30.0))), None);
    let late = Reason::NotEnabled(NotEnabled::Never).kind();
    assert_eq!(why(&control.step(&states, at(31.0))), Some(late));
    control.heard_enable(true, at(32.0));
    report(&mut states, 32.0, [0.0, 0.0]);
    assert_eq!(why(&control.step(&states, at(32.0))), None);
    control.heard_enable(false, at(33.0));
    assert_eq!(
        why(&control.step(&states, at(33.0))),
        Some(late),
        "withdrawn at once"
    );
}

#[test]
fn after_a_missing_heartbeat_the_policy_takes_over_by_the_same_rule_as_after_stale_states() {
    for (needed, comes_back) in [(1, true), (3, true), (0, false)] {
        let settings = Settings {
            enable_timeout: 30 * MS,
            recovery_inputs: needed,
            ..settings()
        };
        let (mut control, mut states) = with(CommandInterface::Effort, settings);
        report(&mut states, 0.0, [0.0, 0.0]);
        control.heard_enable(true, at(0.0));
        control.activate(&states, at(0.0)).unwrap();
        drop(control.step(&states, at(0.0)));
        report(&mut states, 40.0, [0.0, 0.0]);
        let late = Reason::NotEnabled(NotEnabled::Never).kind();
        assert_eq!(why(&control.step(&states, at(40.0))), Some(late));
        let mut acts = Vec::new();
        for k in 1..=6 {
            let ms = 40.0 + 20.0 * f64::from(k);
            control.heard_enable(true, at(ms));
            report(&mut states, ms, [0.0, 0.0]);
            acts.push(why(&control.step(&states, at(ms))).is_none());
        }
        let expected: Vec<bool> = (1..=6).map(|inputs| comes_back && inputs >= needed).collect();
        assert_eq!(acts, expected, "{needed}");
        control.resume(&states, at(160.0)).unwrap();
        assert_eq!(why(&control.step(&states, at(160.0))), None);
    }
}

#[test]
fn after_a_fallback_the_policy_waits_for_good_inputs_in_a_row_or_for_a_start() {
    for (needed, comes_back) in [(3, true), (0, false)] {
        let settings = Settings {
            recovery_inputs: needed,
            ..settings()
        };
        let (mut control, mut states) = with(CommandInterface::Effort, settings);
        report(&mut states, 0.0, [0.0, 0.0]);
        control.activate(&states, at(0.0)).unwrap();
        drop(control.step(&states, at(0.0)));
        assert!(why(&control.step(&states, at(80.0))).is_some());
        let mut acts = Vec::new();
        for k in 0..6 {
            let ms = 100.0 + 20.0 * f64::from(k);
            report(&mut states, ms, [0.0, 0.0]);
            acts.push(why(&control.step(&states, at(ms))).is_none());
        }
        let expected: Vec<bool> = (1..=6).map(|inputs| comes_back && inputs >= 3).collect();
        assert_eq!(acts, expected, "{needed}");
        control.resume(&states, at(200.0)).unwrap();
        assert_eq!(why(&control.step(&states, at(200.0))), None);
    }
}

#[test]
fn the_policy_fades_in_from_the_last_safe_command() {
    let settings = Settings {
        fade_in: 0.1,
        ..settings()
    };
    let (mut control, mut states) = with(CommandInterface::Effort, settings);
    report(&mut states, 0.0, [0.0, 0.0]);
    control.activate(&states, at(0.0)).unwrap();
    let mut step = |control: &mut ControlLoop, ms: f64| {
        report(&mut states, ms, [0.0, 0.0]);
        let Decision::Command(tick) = control.step(&states, at(ms)) else {
            panic!("it waits")
        };
        (tick.blend, tick.command.values().to_vec(), tick.raw.to_vec())
    };
    for k in 0..7 {
        let (blend, command, raw) = step(&mut control, 20.0 * f64::from(k));
        let expected = (0.2 * f64::from(k + 1)).min(1.0);
        assert!((blend - expected).abs() < 1e-12, "tick {k}: {blend}");
        for (command, raw) in command.iter().zip(&raw) {
            assert!(
                (command - expected * raw).abs() < 1e-12,
                "tick {k}: an effort starts at 0"
            );
        }
    }
    let (_, last, _) = step(&mut control, 140.0);
    drop(control.swap(policy(&robot(CommandInterface::Effort), 2)));
    let (blend, command, raw) = step(&mut control, 160.0);
    assert!((blend - 0.2).abs() < 1e-12);
    for ((command, last), raw) in command.iter().zip(&last).zip(&raw) {
        assert!((command - (last + 0.2 * (raw - last))).abs() < 1e-12);
    }
}

#[test]
fn other_settings_take_effect_at_the_next_step_without_an_allocation() {
    let spec = robot(CommandInterface::Effort);
    let (mut control, mut states) = with(CommandInterface::Effort, settings());
    report(&mut states, 0.0, [0.0, 0.0]);
    control.activate(&states, at(0.0)).unwrap();
    drop(control.step(&states, at(0.0)));
    let mut tuning = Tuning::new(
        &spec,
        Settings {
            stale_after: 100 * MS,
            fallback: FallbackChoice::Zero,
            tightening: Tightening {
                effort_scale: 0.01,
                ..Tightening::NONE
            },
            ..settings()
        },
    )
    .unwrap();
    assert_eq!(allocations(|| control.tune(&mut tuning)), 0);
    states.set_stale_after(100 * MS);
    assert_eq!(
        why(&control.step(&states, at(99.0))),
        None,
        "stale after 100 ms now"
    );
    let Decision::Command(tick) = control.step(&states, at(100.0)) else {
        panic!("it waits")
    };
    assert!(
        tick.command.values().iter().all(|c| c.abs() <= 0.01),
        "{:?}",
        tick.command
    );
    send(&mut states, at(110.0), &["a", "b"], &[0.0, 0.0], &[1.0, 1.0]).unwrap();
    control.halt();
    let Decision::Command(tick) = control.step(&states, at(110.0)) else {
        panic!("it waits")
    };
    assert_eq!(tick.command.values(), [0.0, 0.0], "zero, not damping");
}

#[test]
fn a_postures_effort_is_taken_over_between_two_steps_limited_and_counted_and_gone_after_a_stop() {
    let spec = robot(CommandInterface::Effort);
    let (mut control, mut states) = with(CommandInterface::Effort, settings());
    report(&mut states, 0.0, [0.0, 0.0]);
    control.activate(&states, at(0.0)).unwrap();
    drop(control.step(&states, at(0.0)));
    let stated = Settings {
        fallback_effort: vec![0.4, -5.0],
        ..settings()
    };
    let mut tuning = Tuning::new(&spec, stated).unwrap();
    assert_eq!(allocations(|| control.tune(&mut tuning)), 0);
    let Decision::Command(tick) = control.step(&states, at(80.0)) else {
        panic!("it waits")
    };
    assert!(tick.fallback.is_some(), "the states are stale");
    assert_eq!(
        tick.command.values(),
        [0.4, -1.0],
        "-5 N m is beyond the limit of 1"
    );
    assert_eq!(tick.command.rules(), [None, Some(Rule::Effort)]);
    // Under ~/stop it goes on, and damps on top of it.
    send(&mut states, at(100.0), &["a", "b"], &[0.0, 0.0], &[0.0, 1.0]).unwrap();
    control.halt();
    let Decision::Command(tick) = control.step(&states, at(100.0)) else {
        panic!("it waits")
    };
    assert!(
        (tick.command.values()[0] - 0.15).abs() < 1e-12,
        "{:?}",
        tick.command
    );
    // Nothing follows a deactivation or the end of the node: no effort is left behind.
    let (command, there) = control.stop(&states, at(120.0)).unwrap();
    assert_eq!((command.values(), there), (&[0.0, 0.0][..], true));
}

#[test]
fn settings_that_do_not_fit_the_robot_are_refused_with_the_reason() {
    let spec = robot(CommandInterface::Effort);
    for (change, part) in [
        (
            Settings {
                stale_after: MS,
                ..settings()
            },
            "stale_timeout is 0.001 s",
        ),
        (
            Settings {
                fallback: FallbackChoice::Hold,
                ..settings()
            },
            "does not fit commands in N m",
        ),
        (
            Settings {
                fallback_effort: vec![0.1],
                ..settings()
            },
            "one for each of [b, a]",
        ),
        (
            Settings {
                tightening: Tightening {
                    position_margin: 1.0,
                    ..Tightening::NONE
                },
                ..settings()
            },
            "less than half the range of joint 'a', 2 rad",
        ),
    ] {
        let text = Tuning::new(&spec, change).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}
