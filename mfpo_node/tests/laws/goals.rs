//! Goals: only in the policy's frame and range, and none without need.

use mfpo_node::control_loop::{Decision, NotReady, Reason};
use mfpo_node::goal::{Goal, GoalRefusal};
use mfpo_policy::spec::CommandInterface;

use super::support::{allocations, at, control_loop, reaching, robot, send};

#[test]
fn a_goal_counts_only_in_the_policys_frame_and_range() {
    let mut goal = Goal::new(&reaching());
    assert!(goal.is_missing());
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
        let refusal = goal.give(frame, position).unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
        assert!(goal.is_missing());
    }
    assert_eq!(goal.give("base", [0.2, 0.1, 0.1]), Ok(true));
    assert_eq!(goal.give("base", [0.3, 0.1, 0.1]), Ok(false));
    assert!(goal.give("map", [0.4, 0.1, 0.1]).is_err());
    assert_eq!(
        goal.position(),
        Some([0.3, 0.1, 0.1]),
        "a refused goal changes nothing"
    );
}

#[test]
fn a_policy_that_observes_no_goal_needs_none_and_takes_none() {
    for spec in [robot(CommandInterface::Effort), {
        let mut unused = reaching();
        unused.observation.terms = robot(CommandInterface::Effort).observation.terms;
        unused
    }] {
        let mut goal = Goal::new(&spec);
        assert!(!goal.is_missing());
        assert_eq!(goal.give("base", [0.2, 0.0, 0.1]), Err(GoalRefusal::NotObserved));
    }
}

#[test]
fn the_policy_begins_only_with_a_goal_and_observes_the_newest_one() {
    let (mut control, mut states) = control_loop(&reaching());
    let mut report = |ms: f64| {
        send(&mut states, at(ms), &["a", "b"], &[0.0, 0.0], &[0.0, 0.0]).unwrap();
        states.clone()
    };
    let now = report(0.0);
    assert_eq!(control.activate(&now, at(0.0)), Err(NotReady::NoGoal));
    assert!(matches!(
        control.step(&now, at(0.0)),
        Decision::Wait(Reason::NoGoal)
    ));
    control.give_goal("base", [0.2, 0.1, 0.1]).unwrap();
    control.activate(&now, at(0.0)).unwrap();
    for (ms, goal) in [(1.0, [0.2, 0.1, 0.1]), (20.0, [0.4, -0.2, 0.0])] {
        control.give_goal("base", goal).unwrap();
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
        matches!(tick.fallback, Some(Reason::NoGoal)),
        "{:?}",
        tick.fallback
    );
    assert_eq!(control.activate(&now, at(40.0)), Err(NotReady::NoGoal));
    assert_eq!(control.resume(&now, at(40.0)), Err(NotReady::NoGoal));
    control.give_goal("base", [0.4, -0.2, 0.0]).unwrap();
    control.resume(&now, at(40.0)).unwrap();
}

#[test]
fn a_new_goal_between_two_steps_allocates_nothing() {
    let (mut control, mut states) = control_loop(&reaching());
    send(&mut states, at(0.0), &["a", "b"], &[0.0, 0.0], &[0.0, 0.0]).unwrap();
    let count = allocations(|| {
        control.give_goal("base", [0.2, 0.1, 0.1]).unwrap();
        control.give_goal("base", [0.3, 0.1, 0.1]).unwrap();
    });
    assert_eq!(count, 0);
}
