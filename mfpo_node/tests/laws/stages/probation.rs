//! What a policy is returned from on probation, and whom it is compared with.

use mfpo_node::safety::Rule;
use mfpo_node::weights::{Policy, Stage, StageSettings, Turn, Why};
use mfpo_policy::spec::{CommandInterface, RobotSpec};

use super::{Rig, STAGES};
use crate::support::{at, bundle_of_one_action, bundle_with_critics, expected, policy, robot, send};

/// A policy whose every action is `sign`, whatever it sees.
fn always(spec: &RobotSpec, version: u64, sign: f32) -> Box<Policy> {
    let bundle = bundle_of_one_action(spec, version, sign);
    Box::new(expected().validate(&bundle).unwrap())
}

/// A robot whose joint `a` is at the end of its range, where an effort of 1 would push it further out, under a policy
/// of one action that has acted for so many ticks; the next is on probation at once.
fn at_the_end_of_its_range(sign: f32, ticks: u32) -> Rig {
    let spec = robot(CommandInterface::Effort);
    let stages = StageSettings {
        shadow: 0.0,
        blend: 0.0,
        ..STAGES
    };
    let mut rig = Rig::with(spec.clone(), always(&spec, 1, sign), stages);
    rig.position = 1.01;
    for _ in 0..ticks {
        rig.tick();
    }
    rig
}

#[test]
fn a_policy_that_trips_limits_more_often_is_returned_from_and_not_kept() {
    let mut rig = at_the_end_of_its_range(-1.0, 20);
    let pushing = always(&rig.spec, 2, 1.0);
    let begun = rig.control.begin_swap(pushing);
    assert_eq!(begun.stage, Some(Stage::Probation));
    let mut ticks = 0;
    let sent = loop {
        ticks += 1;
        let sent = rig.tick();
        if sent.turn.is_some() {
            break sent;
        }
    };
    let Some(Turn::Return(Why::Interventions {
        rule,
        joint,
        got,
        before,
    })) = sent.turn
    else {
        panic!("{:?}", sent.turn)
    };
    // A quarter of 20 ticks may trip: the sixth is too many.
    assert_eq!(
        (ticks, rule, joint, got, before),
        (6, Rule::Position, 1, 1.0, 0.0)
    );
    assert_eq!((sent.given_up, rig.acting()), (Some(2), 1));
    assert!(rig.control.slot().previous().is_none(), "nobody rolls back to it");
    assert_eq!(rig.control.stage(), None);
    assert_eq!(rig.tick().action, [-1.0, -1.0]);
}

#[test]
fn a_policy_that_trips_no_more_than_the_one_before_is_committed() {
    let mut rig = at_the_end_of_its_range(1.0, 20);
    let pushing = always(&rig.spec, 2, 1.0);
    let _ = rig.control.begin_swap(pushing);
    assert_eq!(rig.until_a_turn(), (20, Turn::Commit));
}

#[test]
fn a_policy_whose_ticks_take_longer_is_returned_from() {
    let mut rig = Rig::new(StageSettings {
        shadow: 0.0,
        blend: 0.0,
        ..STAGES
    });
    for _ in 0..20 {
        rig.tick_of(1.0);
    }
    assert_eq!(rig.begin(2), Some(Stage::Probation));
    // A fifth of the 20 ticks may be slow.
    for _ in 0..4 {
        assert!(rig.tick_of(5.0).turn.is_none());
    }
    assert!(rig.tick_of(2.9).turn.is_none(), "not three times as long");
    let turn = rig.tick_of(5.0).turn;
    assert!(
        matches!(turn, Some(Turn::Return(Why::Latency { got, before }))
            if (got - 4.65e-3).abs() < 1e-6 && (before - 1e-3).abs() < 1e-9),
        "{turn:?}"
    );
    assert_eq!(rig.acting(), 1);
}

/// A robot whose version 2 is on probation after a version 1 that has acted for so many ticks, fewer than make a habit.
fn after_few(ticks: u32) -> Rig {
    let mut rig = Rig::new(StageSettings {
        shadow: 0.0,
        blend: 0.0,
        ..STAGES
    });
    (0..ticks).for_each(|_| drop(rig.tick()));
    assert_eq!(rig.begin(2), Some(Stage::Probation), "after {ticks} ticks");
    rig
}

#[test]
fn a_policy_is_on_probation_after_one_that_has_hardly_acted_and_is_what_the_next_is_compared_with() {
    for ticks in [0, 1, 9] {
        let mut rig = after_few(ticks);
        assert_eq!(rig.until_a_turn(), (20, Turn::Commit), "after {ticks} ticks");
        assert_eq!(rig.begin(3), Some(Stage::Probation));
        let turn = (0..5).find_map(|_| rig.tick_of(5.0).turn);
        assert!(
            matches!(turn, Some(Turn::Return(Why::Latency { .. }))),
            "{turn:?}"
        );
    }
}

#[test]
fn a_policy_that_gives_no_action_is_returned_from_after_one_that_has_hardly_acted_too() {
    for ticks in [1, 9] {
        let mut rig = after_few(ticks);
        rig.fails(1e308);
        let progress = rig.control.after(5e-5).expect("a return");
        assert_eq!(progress.turn, Turn::Return(Why::NoAction));
        assert_eq!((rig.acting(), rig.control.stage()), (1, None), "after {ticks}");
    }
}

#[test]
fn nothing_is_compared_with_habits_that_nobody_knows() {
    let mut rig = after_few(9);
    let turn = (0..20).find_map(|_| rig.tick_of(5.0).turn);
    assert_eq!(turn, Some(Turn::Commit), "a hundred times as slow");
    let mut rig = at_the_end_of_its_range(-1.0, 9);
    let pushing = always(&rig.spec, 2, 1.0);
    assert_eq!(rig.control.begin_swap(pushing).stage, Some(Stage::Probation));
    assert_eq!(rig.until_a_turn(), (20, Turn::Commit), "each trips a limit");
}

/// A robot whose version 2 is on probation after version 1.
fn on_probation(shadow: f64) -> Rig {
    let mut rig = Rig::new(StageSettings {
        shadow: 0.0,
        blend: 0.0,
        ..STAGES
    });
    for _ in 0..20 {
        rig.tick();
    }
    assert_eq!(rig.begin(2), Some(Stage::Probation));
    rig.tick();
    rig.stages(StageSettings {
        shadow,
        blend: 0.0,
        ..STAGES
    });
    rig
}

fn before(rig: &Rig) -> Option<u64> {
    let previous = rig.control.slot().previous();
    previous.map(|policy| policy.identity().version)
}

#[test]
fn a_policy_that_comes_while_another_is_on_trial_takes_over_from_the_proven_one_which_is_kept() {
    for shadow in [0.0, 0.1] {
        let mut rig = on_probation(shadow);
        let begun = rig.control.begin_swap(policy(&rig.spec, 3));
        let cut_short = begun.cut_short.expect("version 2 had not proven itself");
        assert_eq!((cut_short.given_up.version, cut_short.proven.version), (2, 1));
        assert_eq!(begun.freed.iter().flatten().count(), 1);
        if shadow > 0.0 {
            assert_eq!((begun.stage, rig.acting()), (Some(Stage::Shadow), 1));
            assert!(matches!(rig.until_a_turn(), (5, Turn::GoLive(_))));
        }
        assert_eq!(rig.control.stage(), Some(Stage::Probation));
        assert_eq!((rig.acting(), before(&rig)), (3, Some(1)));
        assert!(rig.control.roll_back());
        assert_eq!(rig.acting(), 1, "the proven one, not version 2");
    }
}

#[test]
fn a_return_to_a_policy_that_lacks_what_the_settings_need_by_now_ends_in_the_fallback_with_the_reason() {
    let mut rig = Rig::new(StageSettings {
        shadow: 0.0,
        blend: 0.0,
        ..STAGES
    });
    for _ in 0..20 {
        rig.tick();
    }
    let with_critics = |rig: &Rig, version| {
        let bundle = bundle_with_critics(&rig.spec, "run", version);
        Box::new(expected().validate(&bundle).unwrap())
    };
    let next = with_critics(&rig, 2);
    assert_eq!(rig.control.begin_swap(next).stage, Some(Stage::Probation));
    rig.choose_among(4);
    rig.fails(1e308);
    let progress = rig.control.after(5e-5).expect("a return");
    assert_eq!((progress.turn, rig.acting()), (Turn::Return(Why::NoAction), 1));
    let why = rig.fails(0.2);
    assert!(
        why.contains("4 candidates") && why.contains("no critics"),
        "{why}"
    );
    assert!(rig.control.after(5e-5).is_none());
    // Another one is neither compared nor blended with it.
    let next = with_critics(&rig, 3);
    assert_eq!(rig.control.begin_swap(next).stage, Some(Stage::Probation));
    assert!(rig.tick().before.is_none());
    assert_eq!(rig.acting(), 3);
}

#[test]
fn a_policy_that_is_taken_over_while_nothing_is_commanded_is_on_probation_when_it_acts() {
    for acts in [true, false] {
        let mut rig = Rig::new(STAGES);
        assert_eq!(rig.control.stage(), None, "the first one has none to return to");
        (0..20).for_each(|_| drop(rig.tick()));
        assert!(rig.control.swap(policy(&rig.spec, 2)).is_none());
        let now = at(20.0 * f64::from(rig.ticks));
        send(&mut rig.states, now, &["a", "b"], &[0.1, 0.1], &[0.2, 0.0]).unwrap();
        rig.control.activate(&rig.states, now).unwrap();
        rig.ticks += 1;
        assert_eq!((rig.acting(), rig.control.stage()), (2, Some(Stage::Probation)));
        if acts {
            let turn = (0..20).find_map(|_| rig.tick_of(5.0).turn);
            assert_eq!(
                turn,
                Some(Turn::Commit),
                "nobody knows the habits of the one before"
            );
            assert_eq!((rig.acting(), before(&rig)), (2, Some(1)));
        } else {
            rig.tick();
            rig.fails(1e308);
            let progress = rig.control.after(5e-5).expect("a return");
            assert_eq!(progress.turn, Turn::Return(Why::NoAction));
            assert_eq!((rig.acting(), before(&rig)), (1, None));
        }
    }
}

#[test]
fn while_nothing_is_commanded_too_the_proven_policy_is_kept_and_the_one_on_trial_is_not() {
    let mut rig = on_probation(0.0);
    for version in [3, 4] {
        let freed = rig
            .control
            .swap(policy(&rig.spec, version))
            .expect("one on trial");
        assert_eq!(freed.identity().version, version - 1);
        assert_eq!((rig.acting(), before(&rig)), (version, Some(1)));
        assert_eq!(rig.control.stage(), Some(Stage::Probation));
    }
}

#[test]
fn without_probation_a_policy_that_is_taken_over_while_nothing_is_commanded_is_on_no_trial() {
    let mut rig = on_probation(0.0);
    rig.stages(StageSettings::NONE);
    let freed = rig.control.swap(policy(&rig.spec, 3)).expect("version 2");
    assert_eq!((freed.identity().version, rig.control.stage()), (2, None));
    let freed = rig.control.swap(policy(&rig.spec, 4)).expect("version 1");
    assert_eq!(freed.identity().version, 1, "version 3 is on no trial");
    assert_eq!((rig.acting(), before(&rig)), (4, Some(3)));
}
