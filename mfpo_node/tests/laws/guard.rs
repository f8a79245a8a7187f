//! The guard keeps a policy from acting on what it does not know, where somebody asks for it.

use mfpo_node::control_loop::{ControlLoop, Decision, Progress, Reason, Settings, Tuning};
use mfpo_node::joint_states::JointStates;
use mfpo_node::metrics::{Live, LoopState};
use mfpo_node::safety::Unknown;
use mfpo_node::status::{Cause, LoopEvent};
use mfpo_node::time::MonoTime;
use mfpo_node::weights::{Policy, StageSettings, Turn, Why};
use mfpo_policy::guard::{GuardManifest, Signal, Signals};
use mfpo_policy::spec::CommandInterface;

use super::status::status;
use super::support::{
    STALE_AFTER, allocations, at, bundle_with_critics, expected, guard_of, guarded, guarded_policy,
    guarded_settings, policy, policy_with, robot, send, settings,
};

/// Nothing that a network of random weights answers is as uniform as this.
const TIGHT: f64 = 1e-9;
/// Actions are within 1 of zero.
const LOOSE: f64 = 1.1;

/// A tick on fresh states: the guard's reason, where it was that.
fn tick(control: &mut ControlLoop, states: &mut JointStates, number: u32) -> Option<Unknown> {
    tick_at(control, states, at(20.0 * f64::from(number)))
}

fn tick_at(control: &mut ControlLoop, states: &mut JointStates, now: MonoTime) -> Option<Unknown> {
    send(states, now, &["a", "b"], &[0.1, 0.1], &[0.0, 0.4]).unwrap();
    match control.step(states, now) {
        Decision::Command(tick) => match tick.fallback {
            None => None,
            Some(Reason::Guard(unknown)) => {
                let [got, limit] = [unknown.got, unknown.limit].map(|value| unknown.signal.severity(value));
                assert!(got > limit, "{unknown:?}");
                assert_eq!(tick.signals.get(unknown.signal), Some(unknown.got));
                assert_eq!(tick.command.values(), [-0.1, 0.0], "damped: 0.25 N m s/rad");
                Some(unknown)
            }
            Some(other) => panic!("{other:?}"),
        },
        Decision::Wait(reason) => panic!("{reason:?}"),
    }
}

fn trips(control: &mut ControlLoop, states: &mut JointStates, ticks: std::ops::Range<u32>) -> Vec<bool> {
    ticks
        .map(|number| tick(control, states, number).is_some())
        .collect()
}

#[test]
fn a_spread_beyond_the_bundles_limit_brings_the_fallback_after_so_many_ticks_in_a_row() {
    let spec = robot(CommandInterface::Effort);
    let (mut control, mut states) = guarded(&spec, TIGHT);
    let tripped = [false, false, true, true, true, true];
    assert_eq!(trips(&mut control, &mut states, 0..6), tripped);
    let (mut control, mut states) = guarded(&spec, LOOSE);
    assert_eq!(trips(&mut control, &mut states, 0..20), [false; 20]);
}

#[test]
fn any_signal_beyond_its_limit_brings_the_fallback_and_is_named() {
    let spec = robot(CommandInterface::Effort);
    // No value is above the critics' support, whose end is 0.
    for (signal, limit) in [
        (Signal::Disagreement, TIGHT),
        (Signal::Spread, TIGHT),
        (Signal::Value, 0.5),
    ] {
        // Where both answers are clipped to the same corner they agree: few ticks in a row. The first gives a command to fall
        // back from.
        let guard = GuardManifest {
            in_a_row: 2,
            ..guard_of(LOOSE).with_limit(signal, limit)
        };
        let policy = policy_with(&spec, 1, guard);
        let mut control = ControlLoop::new(&spec, policy, guarded_settings()).unwrap();
        let mut states = JointStates::new(&spec, STALE_AFTER);
        let told: Vec<Unknown> = (0..20)
            .filter_map(|number| tick(&mut control, &mut states, number))
            .collect();
        assert!(!told.is_empty(), "{signal:?}");
        for unknown in told {
            assert_eq!((unknown.signal, unknown.limit), (signal, limit));
        }
    }
}

#[test]
fn a_tick_is_guarded_as_far_as_its_budget_lets_it_sample() {
    let spec = robot(CommandInterface::Effort);
    for (compute_budget, tripped) in [
        (1, [false; 6]),
        (1_000_000_000, [false, false, true, true, true, true]),
    ] {
        let settings = Settings {
            compute_budget,
            ..guarded_settings()
        };
        let mut control = ControlLoop::new(&spec, guarded_policy(&spec, 1, TIGHT), settings).unwrap();
        let mut states = JointStates::new(&spec, STALE_AFTER);
        // A budget is of real time.
        let told = tripped.map(|_| tick_at(&mut control, &mut states, MonoTime::now()).is_some());
        assert_eq!(told, tripped, "{compute_budget} ns");
    }
}

#[test]
fn it_is_off_unless_asked_for_and_needs_its_candidates_and_a_bundle_that_carries_it() {
    let spec = robot(CommandInterface::Effort);
    let off = Settings {
        guard: false,
        ..guarded_settings()
    };
    let too_few = Settings {
        candidates: 3,
        ..guarded_settings()
    };
    assert!(!settings().guard);
    for settings in [off, too_few] {
        let mut control = ControlLoop::new(&spec, guarded_policy(&spec, 1, TIGHT), settings).unwrap();
        let mut states = JointStates::new(&spec, STALE_AFTER);
        assert_eq!(trips(&mut control, &mut states, 0..10), [false; 10]);
    }
    let without = Settings {
        candidates: 1,
        ..guarded_settings()
    };
    let mut control = ControlLoop::new(&spec, policy(&spec, 1), without).unwrap();
    let mut states = JointStates::new(&spec, STALE_AFTER);
    assert_eq!(trips(&mut control, &mut states, 0..10), [false; 10]);
}

#[test]
fn after_the_guard_the_policy_is_asked_again_after_so_many_good_inputs_and_acts_on_what_it_knows() {
    let spec = robot(CommandInterface::Effort);
    let settings = Settings {
        recovery_inputs: 3,
        ..guarded_settings()
    };
    let mut control = ControlLoop::new(&spec, guarded_policy(&spec, 1, TIGHT), settings).unwrap();
    let mut states = JointStates::new(&spec, STALE_AFTER);
    let tripped: Vec<bool> = (0..12).map(|number| number >= 2).collect();
    assert_eq!(
        trips(&mut control, &mut states, 0..12),
        tripped,
        "the reason stays the guard's, and no tick is let through in between"
    );
    // Another policy, which knows what it sees.
    drop(control.swap(guarded_policy(&spec, 2, LOOSE)));
    let after = (12..20).map(|number| {
        let now = at(20.0 * f64::from(number));
        send(&mut states, now, &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
        match control.step(&states, now) {
            Decision::Command(tick) => tick.fallback.is_none(),
            Decision::Wait(_) => false,
        }
    });
    let acts: Vec<bool> = after.collect();
    assert!(!acts[0] && acts[3..].iter().all(|acts| *acts), "{acts:?}");
}

#[test]
fn switching_it_off_lets_the_policy_act_again() {
    let spec = robot(CommandInterface::Effort);
    let (mut control, mut states) = guarded(&spec, TIGHT);
    assert_eq!(trips(&mut control, &mut states, 0..3), [false, false, true]);
    let off = Settings {
        guard: false,
        ..guarded_settings()
    };
    control.tune(&mut Tuning::new(&spec, off).unwrap());
    assert_eq!(trips(&mut control, &mut states, 3..6), [false; 3]);
}

#[test]
fn a_policy_on_probation_whose_guard_fires_is_returned_from_and_the_one_before_acts() {
    let spec = robot(CommandInterface::Effort);
    let settings = Settings {
        stages: StageSettings {
            probation: 2.0,
            ..StageSettings::NONE
        },
        ..guarded_settings()
    };
    // Whether the one before has acted for long enough to be compared with, or not at all.
    for acted in [20, 3, 0] {
        let mut control = ControlLoop::new(&spec, guarded_policy(&spec, 1, LOOSE), settings.clone()).unwrap();
        let mut states = JointStates::new(&spec, STALE_AFTER);
        for number in 0..acted {
            assert_eq!(tick(&mut control, &mut states, number), None);
            assert!(control.after(1e-4).is_none());
        }
        drop(control.begin_swap(guarded_policy(&spec, 2, TIGHT)));
        let mut returned = None;
        for number in acted..acted + 3 {
            let spread = tick(&mut control, &mut states, number);
            assert_eq!(spread.is_some(), number == acted + 2);
            if let Some(progress) = control.after(1e-4) {
                returned = Some((progress.turn, progress.given_up.map(|policy| policy.version)));
            }
        }
        let Some((Turn::Return(Why::Guard(unknown)), Some(2))) = returned else {
            panic!("after {acted} ticks: {returned:?}")
        };
        assert_eq!((unknown.signal, unknown.limit), (Signal::Spread, TIGHT));
        assert!(unknown.got > TIGHT);
        let again = tick(&mut control, &mut states, acted + 3);
        assert_eq!(again, None, "version 1 acts again");
        assert_eq!(control.slot().current().identity().version, 1);
    }
}

/// Version 1 is guarded, this one is in its shadow: the tick of its turn, how many were compared, and who acts after it.
fn beside_a_guarded_policy(newcomer: Box<Policy>, recovery_inputs: u64) -> (Option<(u32, u64)>, u64) {
    let spec = robot(CommandInterface::Effort);
    let settings = Settings {
        recovery_inputs,
        stages: StageSettings {
            shadow: 0.1,
            blend: 0.08,
            ..StageSettings::NONE
        },
        ..guarded_settings()
    };
    let mut control = ControlLoop::new(&spec, guarded_policy(&spec, 1, TIGHT), settings).unwrap();
    let mut states = JointStates::new(&spec, STALE_AFTER);
    assert_eq!(trips(&mut control, &mut states, 0..3), [false, false, true]);
    drop(control.begin_swap(newcomer));
    let mut turned = None;
    for number in 3..20 {
        tick(&mut control, &mut states, number);
        let mut progress = None;
        assert_eq!(allocations(|| progress = control.after(1e-4)), 0);
        if let Some(Progress {
            turn: Turn::GoLive(compared),
            ..
        }) = progress
        {
            assert_eq!(
                control.stage(),
                None,
                "what it does not know has no part in a blend"
            );
            turned = Some((number, compared.ticks));
            break;
        }
    }
    (turned, control.slot().current().identity().version)
}

#[test]
fn while_the_guard_keeps_a_policy_from_acting_one_in_the_shadow_that_knows_what_it_sees_takes_over() {
    let spec = robot(CommandInterface::Effort);
    // Whether the one that acts is asked again at every tick, or waits for an explicit start.
    for recovery_inputs in [1, 0] {
        let knows = guarded_policy(&spec, 2, LOOSE);
        assert_eq!(
            beside_a_guarded_policy(knows, recovery_inputs),
            (Some((7, 0)), 2),
            "five ticks"
        );
        let knows_neither = guarded_policy(&spec, 2, TIGHT);
        assert_eq!(beside_a_guarded_policy(knows_neither, recovery_inputs), (None, 1));
        let cannot_tell = expected()
            .validate(&bundle_with_critics(&spec, "run", 2))
            .unwrap();
        assert_eq!(
            beside_a_guarded_policy(Box::new(cannot_tell), recovery_inputs),
            (None, 1)
        );
    }
}

#[test]
fn a_guarded_step_allocates_nothing_whether_the_guard_fires_or_not() {
    let spec = robot(CommandInterface::Effort);
    for (spread_max, compute_budget) in [(TIGHT, 0), (LOOSE, 0), (TIGHT, 1_000_000_000), (LOOSE, 1)] {
        let (mut control, mut states) = guarded(&spec, spread_max);
        let settings = Settings {
            compute_budget,
            ..guarded_settings()
        };
        control.tune(&mut Tuning::new(&spec, settings).unwrap());
        for _ in 0..50 {
            let now = MonoTime::now();
            send(&mut states, now, &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
            assert_eq!(allocations(|| drop(control.step(&states, now))), 0);
            assert_eq!(allocations(|| drop(control.after(1e-4))), 0);
        }
    }
}

#[test]
fn what_keeps_the_guard_from_guarding_is_said() {
    let guard = GuardManifest::without_limits(8, 3).with_limit(Signal::Spread, 0.1);
    let of = |candidates, compute_budget| Settings {
        candidates,
        compute_budget,
        ..guarded_settings()
    };
    for (settings, guard, part) in [
        (of(8, 0), None, "the bundle carries no guard"),
        (of(4, 0), Some(guard), "compares 8, expected as many or more"),
        (of(8, 1_000), Some(guard), "compute_budget"),
    ] {
        let why = settings.why_unguarded(guard).unwrap();
        assert!(why.contains(part), "{why}");
    }
    assert_eq!(of(8, 0).why_unguarded(Some(guard)), None);
    assert_eq!(settings().why_unguarded(None), None, "nobody asked for it");
}

#[test]
fn a_policy_that_does_not_know_what_it_sees_is_told_with_the_signal_its_value_and_its_limit() {
    let mut status = status();
    let unknown = |signal, got, limit| Cause::Guard(Unknown { signal, got, limit });
    for (signal, words) in [
        (
            Signal::Disagreement,
            "in one step is 0.6000 from that in all steps, expected at most 0.5000",
        ),
        (
            Signal::Spread,
            "candidates are spread by 0.6000, expected at most 0.5000",
        ),
        (Signal::Value, "valued at 0.6000, expected at least 0.5000"),
    ] {
        let text = status.explain(&unknown(signal, 0.6, 0.5));
        assert!(
            text.contains(words) && text.contains("(parameter guard)"),
            "{text}"
        );
    }
    // Another value of the same signal is not logged again, another signal is.
    let first = unknown(Signal::Spread, 0.6, 0.5);
    status.absorb(LoopEvent::State(LoopState::Fallback, first));
    assert!(!status.log_reason(at(0.0)));
    status.absorb(LoopEvent::Reason(unknown(Signal::Spread, 0.7, 0.5)));
    assert!(!status.log_reason(at(9_000.0)));
    status.absorb(LoopEvent::Reason(unknown(Signal::Value, -6.0, -5.0)));
    assert!(status.log_reason(at(9_250.0)));
}

#[test]
fn what_the_guard_judged_last_is_read_as_it_was_set() {
    let live = Live::new(2);
    assert_eq!(live.guard_signals(), Signals::NONE);
    let signals = Signals {
        disagreement: None,
        spread: Some(0.0),
        value: Some(-7.25),
    };
    live.set_guard_signals(&signals);
    assert_eq!(live.guard_signals(), signals);
    live.set_guard_signals(&Signals::NONE);
    assert_eq!(live.guard_signals(), Signals::NONE);
}
