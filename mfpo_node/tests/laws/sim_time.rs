//! Simulated time that has not come, passes slowly or stands still.

use std::sync::Arc;

use mfpo_node::control_loop::probing::Probing;
use mfpo_node::control_loop::{ControlLoop, Decision, NotReady, Reason, Settings};
use mfpo_node::diagnostics::{Level, Sources, Threshold, diagnose};
use mfpo_node::joint_states::JointStates;
use mfpo_node::metrics::{Live, LoopState};
use mfpo_node::probe::{Mode, Probe};
use mfpo_node::safety::Verdict;
use mfpo_node::sim_time::SimTime;
use mfpo_node::status::{Cause, LoopEvent};
use mfpo_policy::spec::CommandInterface;

use super::status::{sources, status};
use super::support::{MS, STALE_AFTER, allocations, at, policy, probing, robot, send, settings};

/// Clock, loop and joints of a robot in simulated time.
fn simulated(settings: Settings) -> (Arc<SimTime>, ControlLoop, JointStates) {
    let spec = robot(CommandInterface::Effort);
    let clock = Arc::new(SimTime::default());
    let states = JointStates::new(&spec, settings.stale_after).in_simulated_time(true);
    let control = ControlLoop::new(&spec, policy(&spec, 1), settings).unwrap();
    let control = control.in_simulated_time(Some(Arc::clone(&clock)));
    (clock, control, states)
}

fn report(states: &mut JointStates, ms: f64) {
    send(states, at(ms), &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
}

/// Why the fallback commands at this moment, where both joints have just reported.
fn why(control: &mut ControlLoop, states: &mut JointStates, ms: f64) -> Option<Verdict> {
    report(states, ms);
    match control.step(states, at(ms)) {
        Decision::Command(tick) => match tick.fallback {
            None => None,
            Some(Reason::States(verdict)) => Some(verdict),
            Some(other) => panic!("{other:?}"),
        },
        Decision::Wait(reason) => panic!("it waits: {reason:?}"),
    }
}

#[test]
fn before_the_clock_has_come_nothing_may_be_commanded() {
    let (clock, mut control, mut states) = simulated(settings());
    report(&mut states, 0.0);
    let no_clock = NotReady::States(Verdict::NoClock);
    assert_eq!(control.activate(&states, at(0.0)), Err(no_clock));
    assert!(no_clock.is_like(&no_clock), "it is told once");
    assert!(matches!(
        control.step(&states, at(0.0)),
        Decision::Wait(Reason::States(Verdict::NoClock))
    ));
    for mode in [Mode::Move, Mode::ByHand] {
        assert_eq!(control.begin_probe(mode, &states, at(0.0)), Err(no_clock));
    }
    // A simulator that begins at zero.
    clock.hear(0, at(1.0));
    control.activate(&states, at(1.0)).unwrap();
    assert_eq!(why(&mut control, &mut states, 20.0), None);
}

#[test]
fn a_slow_clock_is_no_standstill_and_one_that_stands_still_brings_the_fallback_until_it_goes_on() {
    let (clock, mut control, mut states) = simulated(settings());
    report(&mut states, 0.0);
    clock.hear(0, at(0.0));
    control.activate(&states, at(0.0)).unwrap();
    // A tenth of real time, ten times a second of its own: one move a second.
    for tick in 1..500u32 {
        let ms = 20.0 * f64::from(tick);
        if tick.is_multiple_of(50) {
            clock.hear(i64::from(tick), at(ms));
        }
        assert_eq!(why(&mut control, &mut states, ms), None, "{ms} ms");
    }
    // From 9,000 ms on it says the same again and again, and the robot reports all the same.
    for tick in 500..=550u32 {
        let ms = 20.0 * f64::from(tick);
        clock.hear(450, at(ms));
        assert_eq!(why(&mut control, &mut states, ms), None, "{ms} ms");
    }
    let expected = Verdict::ClockStands { rest: 2_020 * MS };
    assert_eq!(why(&mut control, &mut states, 11_020.0), Some(expected));
    let standing = NotReady::States(expected);
    assert_eq!(control.resume(&states, at(11_020.0)), Err(standing));
    let longer = NotReady::States(Verdict::ClockStands { rest: 9_000 * MS });
    assert!(standing.is_like(&longer), "it is told once");
    // Set back, where it begins anew.
    clock.hear(1, at(11_030.0));
    assert_eq!(why(&mut control, &mut states, 11_040.0), None);
}

#[test]
fn whoever_is_more_patient_with_the_joints_is_so_with_the_clock() {
    let patient = Settings {
        stale_after: 5_000 * MS,
        ..settings()
    };
    let (clock, mut control, mut states) = simulated(patient);
    report(&mut states, 0.0);
    clock.hear(7, at(0.0));
    control.activate(&states, at(0.0)).unwrap();
    assert_eq!(why(&mut control, &mut states, 5_000.0), None);
    let expected = Verdict::ClockStands { rest: 5_001 * MS };
    assert_eq!(why(&mut control, &mut states, 5_001.0), Some(expected));
}

#[test]
fn a_probe_ends_where_time_stands_still() {
    let (clock, mut control, mut states) = simulated(settings());
    let mut probe = Probe::new(&robot(CommandInterface::Effort), Mode::Move, &[], probing()).unwrap();
    report(&mut states, 0.0);
    clock.hear(7, at(0.0));
    control.begin_probe(Mode::Move, &states, at(0.0)).unwrap();
    assert!(matches!(
        control.probe(&mut probe, &states, at(20.0)),
        Probing::Command { .. }
    ));
    report(&mut states, 2_001.0);
    let end = control.probe(&mut probe, &states, at(2_001.0));
    assert!(
        matches!(
            end,
            Probing::End(Some(Reason::States(Verdict::ClockStands { .. })))
        ),
        "{end:?}"
    );
}

#[test]
fn hearing_the_clock_and_going_by_it_allocates_nothing() {
    let (clock, mut control, mut states) = simulated(settings());
    report(&mut states, 0.0);
    clock.hear(1, at(0.0));
    control.activate(&states, at(0.0)).unwrap();
    for (time, ms) in [(2, 20.0), (2, 40.0), (2, 3_000.0)] {
        report(&mut states, ms);
        let count = allocations(|| {
            clock.hear(time, at(ms));
            drop(control.step(&states, at(ms)));
        });
        assert_eq!(count, 0, "{ms} ms");
    }
}

#[test]
fn a_clock_that_has_not_come_or_stands_still_is_told_with_what_to_do() {
    let (status, mut falling) = (status(), status());
    let refusal = status.explain_refusal(&NotReady::States(Verdict::NoClock));
    let no_clock = "use_sim_time is set, but /clock has not come yet: start the simulator";
    assert!(refusal.starts_with(no_clock), "{refusal}");
    let live = Live::new(2);
    live.set_state(LoopState::Fallback);
    let cause = Cause::States(Verdict::ClockStands { rest: 2_100 * MS });
    falling.absorb(LoopEvent::State(LoopState::Fallback, cause));
    let text = falling.message(&live, at(0.0));
    let stands = "simulated time stands still: /clock has not moved for 2.1 s";
    assert!(text.contains(stands), "{text}");

    // The diagnostics say so whatever the node is doing.
    let clock = SimTime::default();
    (0..2).for_each(|joint| live.set_received(joint, Some(at(5_000.0))));
    let told = |clock: Option<&SimTime>| {
        let loose = Threshold {
            warn: 1e9,
            error: 1e9,
        };
        let sources = Sources {
            clock,
            stale_timeout: STALE_AFTER as f64 * 1e-9,
            ..sources(&status, &live, loose)
        };
        let mut parts = diagnose(&sources, at(5_010.0));
        parts.retain(|part| part.name == "inputs");
        let [part] = parts.try_into().unwrap();
        let of = |name: &str| {
            let found = part.values.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        let values = ["sim_time", "sim_time.age"].map(of);
        (part.level, part.message, values)
    };
    let text = |text: &str| Some(text.to_owned());
    let (level, _, values) = told(None);
    assert_eq!((level, values), (Level::Ok, [None, None]));
    let (level, message, values) = told(Some(&clock));
    assert_eq!((level, values), (Level::Stale, [text("0"), None]));
    assert!(message.starts_with(no_clock), "{message}");
    clock.hear(1_500 * MS.cast_signed(), at(2_510.0));
    let (level, message, values) = told(Some(&clock));
    assert_eq!((level, values), (Level::Stale, [text("1.5"), text("2.5")]));
    assert!(message.starts_with("simulated time stands still"), "{message}");
    clock.hear(1_750 * MS.cast_signed(), at(5_010.0));
    assert_eq!(told(Some(&clock)).0, Level::Ok);
}
