//! Goals: only in the policy's frame and range, and none without need.

use mfpo_node::control_loop::{ControlLoop, Decision, NotReady, Reason, Settings, Tuning};
use mfpo_node::goal::{Goal, GoalRefusal, NoGoal};
use mfpo_node::joint_states::JointStates;
use mfpo_policy::spec::CommandInterface;

use super::support::{
    MS, STALE_AFTER, allocations, at, control_loop, policy, reaching, robot, send, settings,
};

#[test]
fn a_goal_counts_only_in_the_policys_frame_and_range() {
    let mut goal = Goal::new(&reaching(), 0);
    assert_eq!(goal.check(at(0.0)), Err(NoGoal::Never));
    for (frame, position, words) in [
        ("map", [0.2, 0.0, 0.1], "its frame_id is 'map'; expected 'base'"),
        ("", [0.2, 0.0, 0.1], "its frame_id is ''; expected 'base'"),
        ("base", [0.6, 0.0, 0.1], "its x is 0.6 m; expected 0.1 to 0.5"),
        (
            "base",
            [0.2, f64::NAN, 0.1],
            "its y is NaN m; expected -0.2 to 0.2",
        ),
        (
            "base",
            [0.2, 0.0, f64::INFINITY],
            "its z is inf m; expected 0 to 0.3",
        ),
    ] {
        let refusal = goal.give(frame, position, at(0.0)).unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
        assert_eq!(goal.check(at(0.0)), Err(NoGoal::Never));
    }
    assert_eq!(goal.give("base", [0.2, 0.1, 0.1], at(0.0)), Ok(true));
    assert_eq!(goal.give("base", [0.3, 0.1, 0.1], at(1.0)), Ok(false));
    assert!(goal.give("map", [0.4, 0.1, 0.1], at(2.0)).is_err());
    assert_eq!(
        goal.position(),
        Some([0.3, 0.1, 0.1]),
        "a refused goal changes nothing"
    );
}

#[test]
fn a_goal_holds_until_its_timeout_and_without_one_until_the_next() {
    for (timeout, late) in [(0, false), (100 * MS, true)] {
        let mut goal = Goal::new(&reaching(), timeout);
        goal.give("base", [0.2, 0.1, 0.1], at(0.0)).unwrap();
        assert_eq!(goal.check(at(100.0)), Ok(()));
        assert!(
            goal.give("map", [0.2, 0.1, 0.1], at(99.0)).is_err(),
            "which makes it no younger"
        );
        let age = 101 * MS;
        let expected = if late {
            Err(NoGoal::Late { age, timeout })
        } else {
            Ok(())
        };
        assert_eq!(goal.check(at(101.0)), expected);
        goal.give("base", [0.2, 0.1, 0.1], at(102.0)).unwrap();
        assert_eq!(goal.check(at(202.0)), Ok(()));
        goal.forget();
        assert_eq!(goal.check(at(202.0)), Err(NoGoal::Never));
    }
    let unused = Goal::new(&robot(CommandInterface::Effort), MS);
    assert_eq!(unused.check(at(9_000.0)), Ok(()), "the policy observes none");
}

#[test]
fn a_policy_that_observes_no_goal_needs_none_and_takes_none() {
    for spec in [robot(CommandInterface::Effort), {
        let mut unused = reaching();
        unused.observation.terms = robot(CommandInterface::Effort).observation.terms;
        unused
    }] {
        let mut goal = Goal::new(&spec, 0);
        assert_eq!(goal.check(at(0.0)), Ok(()));
        let given = goal.give("base", [0.2, 0.0, 0.1], at(0.0));
        assert_eq!(given, Err(GoalRefusal::NotObserved));
    }
}

#[test]
fn the_policy_begins_only_with_a_goal_and_observes_the_newest_one() {
    let (mut control, mut states) = control_loop(&reaching());
    let mut report = |ms: f64| {
        send(&mut states, at(ms), &["a", "b"], &[0.0, 0.0], &[0.0, 0.0]).unwrap();
        states.clone()
    };
    let never = NotReady::NoGoal(NoGoal::Never);
    let now = report(0.0);
    assert_eq!(control.activate(&now, at(0.0)), Err(never));
    assert!(matches!(
        control.step(&now, at(0.0)),
        Decision::Wait(Reason::NoGoal(NoGoal::Never))
    ));
    control.give_goal("base", [0.2, 0.1, 0.1], at(0.0)).unwrap();
    control.activate(&now, at(0.0)).unwrap();
    for (ms, goal) in [(1.0, [0.2, 0.1, 0.1]), (20.0, [0.4, -0.2, 0.0])] {
        control.give_goal("base", goal, at(ms)).unwrap();
        let Decision::Command(tick) = control.step(&report(ms), at(ms)) else {
            panic!("nothing commanded");
        };
        let seen = tick.asked.unwrap().observation;
        let expected = [2.0 * goal[1], goal[0]].map(|value| value as f32);
        assert!(seen.ends_with(&expected), "{seen:?} {expected:?}");
    }
    // A robot that begins anew needs a new goal; until then the fallback has it.
    control.forget_goal();
    let now = report(40.0);
    let Decision::Command(tick) = control.step(&now, at(40.0)) else {
        panic!("nothing commanded");
    };
    assert!(
        matches!(tick.fallback, Some(Reason::NoGoal(NoGoal::Never))),
        "{:?}",
        tick.fallback
    );
    assert_eq!(control.activate(&now, at(40.0)), Err(never));
    assert_eq!(control.resume(&now, at(40.0)), Err(never));
    control.give_goal("base", [0.4, -0.2, 0.0], at(40.0)).unwrap();
    control.resume(&now, at(40.0)).unwrap();
}

/// A robot whose goals hold for 100 ms; with a goal, and commanded.
fn moving(recovery_inputs: u64) -> (ControlLoop, JointStates) {
    let spec = reaching();
    let settings = Settings {
        goal_timeout: 100 * MS,
        recovery_inputs,
        ..settings()
    };
    let mut control = ControlLoop::new(&spec, policy(&spec, 1), settings).unwrap();
    let mut states = JointStates::new(&spec, STALE_AFTER);
    report(&mut states, 0.0);
    control.give_goal("base", [0.2, 0.1, 0.1], at(0.0)).unwrap();
    control.activate(&states, at(0.0)).unwrap();
    (control, states)
}

/// Both joints at rest.
fn report(states: &mut JointStates, ms: f64) {
    send(states, at(ms), &["a", "b"], &[0.0, 0.0], &[0.0, 0.0]).unwrap();
}

/// Why the fallback has this tick, where it has.
fn why_not(control: &mut ControlLoop, states: &mut JointStates, ms: f64) -> Option<Reason> {
    report(states, ms);
    match control.step(states, at(ms)) {
        Decision::Command(tick) => tick.fallback,
        Decision::Wait(reason) => Some(reason),
    }
}

#[test]
fn a_goal_that_is_too_old_brings_the_fallback_and_the_next_one_ends_it_as_good_states_do() {
    for (needed, comes_back) in [(1, true), (3, true), (0, false)] {
        let (mut control, mut states) = moving(needed);
        for ms in [20.0, 60.0, 100.0] {
            let reason = why_not(&mut control, &mut states, ms);
            assert!(reason.is_none(), "{ms} ms: {reason:?}");
        }
        let late = NoGoal::Late {
            age: 120 * MS,
            timeout: 100 * MS,
        };
        let reason = why_not(&mut control, &mut states, 120.0);
        assert!(
            matches!(reason, Some(Reason::NoGoal(missing)) if missing == late),
            "{reason:?}"
        );
        assert_eq!(
            control.resume(&states, at(120.0)),
            Err(NotReady::NoGoal(late)),
            "~/start is no goal"
        );
        assert_eq!(control.activate(&states, at(120.0)), Err(NotReady::NoGoal(late)));

        let acts: Vec<bool> = (1..=6)
            .map(|k| {
                let ms = 120.0 + 20.0 * f64::from(k);
                control.give_goal("base", [0.3, 0.1, 0.1], at(ms)).unwrap();
                why_not(&mut control, &mut states, ms).is_none()
            })
            .collect();
        let expected: Vec<bool> = (1..=6).map(|inputs| comes_back && inputs >= needed).collect();
        assert_eq!(acts, expected, "{needed}");
        control.resume(&states, at(240.0)).unwrap();
        assert!(why_not(&mut control, &mut states, 250.0).is_none());
    }
}

#[test]
fn another_timeout_counts_for_the_goal_that_is_there_without_an_allocation() {
    let (mut control, mut states) = moving(1);
    for (goal_timeout, ms, acts) in [
        (0, 400.0, true),
        (500 * MS, 480.0, true),
        (450 * MS, 490.0, false),
    ] {
        let settings = Settings {
            goal_timeout,
            ..settings()
        };
        let mut tuning = Tuning::new(&reaching(), settings).unwrap();
        assert_eq!(allocations(|| control.tune(&mut tuning)), 0);
        let reason = why_not(&mut control, &mut states, ms);
        assert_eq!(reason.is_none(), acts, "{goal_timeout} ns: {reason:?}");
    }
    // Nor does a fallback for an old goal allocate.
    report(&mut states, 500.0);
    assert_eq!(allocations(|| drop(control.step(&states, at(500.0)))), 0);
}

#[test]
fn a_new_goal_between_two_steps_allocates_nothing() {
    let (mut control, mut states) = control_loop(&reaching());
    send(&mut states, at(0.0), &["a", "b"], &[0.0, 0.0], &[0.0, 0.0]).unwrap();
    let count = allocations(|| {
        control.give_goal("base", [0.2, 0.1, 0.1], at(0.0)).unwrap();
        control.give_goal("base", [0.3, 0.1, 0.1], at(1.0)).unwrap();
    });
    assert_eq!(count, 0);
}
