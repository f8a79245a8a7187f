//! Joint states: each joint its own age, several publishers, nothing half-applied.

use mfpo_node::joint_states::{JointStateMessage, JointStates, Refusal};
use mfpo_node::safety::{Verdict, Watchdog};
use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::CommandInterface;
use proptest::prelude::*;

use super::support::{MS, STALE_AFTER, at, robot, send};

fn states() -> JointStates {
    JointStates::new(&robot(CommandInterface::Effort), STALE_AFTER)
}

fn written(states: &JointStates, ms: f64) -> (RobotState, bool) {
    let mut state = RobotState::zeros(&robot(CommandInterface::Effort));
    let complete = states.write(at(ms), &mut state);
    (state, complete)
}

#[test]
fn joints_are_found_by_name_in_any_order_among_others() {
    let mut states = states();
    send(
        &mut states,
        at(0.0),
        &["gripper", "b", "a"],
        &[9.0, 2.0, 1.0],
        &[9.0, 0.2, 0.1],
    )
    .unwrap();
    let (state, complete) = written(&states, 0.0);
    assert!(complete);
    assert_eq!(state.positions.as_slice(), [1.0, 2.0]);
    assert_eq!(state.velocities.as_slice(), [0.1, 0.2]);
}

#[test]
fn partial_messages_keep_the_age_of_each_joint() {
    let mut states = states();
    send(&mut states, at(0.0), &["a"], &[1.0], &[0.0]).unwrap();
    assert_eq!(states.age(1, at(5.0)), None);
    send(&mut states, at(10.0), &["b"], &[2.0], &[0.0]).unwrap();
    assert_eq!(states.age(0, at(15.0)), Some(15 * MS));
    assert_eq!(states.age(1, at(15.0)), Some(5 * MS));
    let (_, oldest) = states.oldest().unwrap();
    assert_eq!(oldest, at(0.0));
}

#[test]
fn a_round_is_complete_when_every_joint_has_reported_anew() {
    let mut states = states();
    send(&mut states, at(0.0), &["a"], &[1.0], &[0.0]).unwrap();
    send(&mut states, at(1.0), &["a"], &[1.0], &[0.0]).unwrap();
    assert!(!states.all_collected());
    send(&mut states, at(2.0), &["b"], &[1.0], &[0.0]).unwrap();
    assert!(states.all_collected());
    states.start_collecting();
    assert!(!states.all_collected());
}

#[test]
fn an_absent_velocity_is_the_difference_of_positions_from_the_second_sample_on() {
    let mut states = states();
    send(&mut states, at(0.0), &["a", "b"], &[0.0, 0.0], &[]).unwrap();
    assert!(!written(&states, 0.0).1, "one sample gives no velocity");
    send(&mut states, at(10.0), &["a", "b"], &[0.01, -0.02], &[]).unwrap();
    let (state, complete) = written(&states, 10.0);
    assert!(complete);
    assert!((state.velocities[0] - 1.0).abs() < 1e-9 && (state.velocities[1] + 2.0).abs() < 1e-9);
}

#[test]
fn stamps_give_the_time_between_two_positions_where_there_are_stamps() {
    let mut states = states();
    let names = ["a".to_owned(), "b".to_owned()];
    for (arrival, stamp, position) in [(0.0, 1_000, 0.0), (17.0, 1_010, 0.01)] {
        let message = JointStateMessage {
            stamp: stamp * MS as i64,
            names: &names,
            positions: &[position, position],
            velocities: &[],
        };
        states.apply(message, at(arrival)).unwrap();
    }
    assert!((states.fresh_velocity(0, at(17.0)).unwrap() - 1.0).abs() < 1e-9);
}

#[test]
fn a_continuous_joint_that_wraps_does_not_seem_to_spin() {
    let mut states = states();
    send(&mut states, at(0.0), &["a", "b"], &[0.0, 3.1], &[]).unwrap();
    send(&mut states, at(10.0), &["a", "b"], &[0.0, -3.1], &[]).unwrap();
    let velocity = states.fresh_velocity(1, at(10.0)).unwrap();
    assert!((0.0..10.0).contains(&velocity), "{velocity}");
}

#[test]
fn a_velocity_that_is_nan_is_absent_as_ros2_control_means_it() {
    let mut states = states();
    send(&mut states, at(0.0), &["a", "b"], &[0.0, 0.0], &[f64::NAN, 0.3]).unwrap();
    assert_eq!(states.fresh_velocity(0, at(0.0)), None);
    assert_eq!(states.fresh_velocity(1, at(0.0)), Some(0.3));
}

#[test]
fn positions_and_velocities_may_come_from_two_publishers() {
    let mut states = states();
    for ms in [0.0, 10.0] {
        send(&mut states, at(ms), &["a", "b"], &[0.01 * ms, 0.0], &[]).unwrap();
        send(&mut states, at(ms + 1.0), &["a", "b"], &[], &[7.0, 8.0]).unwrap();
    }
    assert_eq!(states.fresh_velocity(0, at(11.0)), Some(7.0));
    assert_eq!(
        states.age(0, at(11.0)),
        Some(MS),
        "velocities do not make a position newer"
    );
}

#[test]
fn a_gap_longer_than_the_stale_timeout_gives_no_velocity() {
    let mut states = states();
    send(&mut states, at(0.0), &["a", "b"], &[0.0, 0.0], &[]).unwrap();
    send(&mut states, at(60.0), &["a", "b"], &[1.0, 1.0], &[]).unwrap();
    assert_eq!(states.fresh_velocity(0, at(60.0)), None);
}

#[test]
fn a_driver_that_repeats_its_last_message_goes_stale() {
    let mut states = states();
    let names = ["a".to_owned(), "b".to_owned()];
    for ms in [0.0, 20.0, 40.0, 60.0] {
        let message = JointStateMessage {
            stamp: 1_000 * MS as i64,
            names: &names,
            positions: &[0.1, 0.2],
            velocities: &[0.0, 0.0],
        };
        states.apply(message, at(ms)).unwrap();
    }
    assert_eq!(states.age(0, at(60.0)), Some(60 * MS));
    assert_eq!(states.age(1, at(60.0)), Some(60 * MS));
}

/// Every refusal names what is wrong, and leaves everything as it was.
fn assert_refused(names: &[&str], positions: &[f64], velocities: &[f64], parts: &[&str]) {
    let mut states = states();
    send(&mut states, at(0.0), &["a", "b"], &[0.5, 0.6], &[0.1, 0.2]).unwrap();
    let before = written(&states, 0.0);
    let refusal = send(&mut states, at(10.0), names, positions, velocities).unwrap_err();
    let text = refusal.to_string();
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    assert_eq!(written(&states, 0.0), before, "something was applied: {text}");
    assert_eq!(states.age(0, at(10.0)), Some(10 * MS));
}

#[test]
fn nan_and_infinite_positions_are_refused_whole_with_joint_and_value() {
    assert_refused(
        &["a", "b"],
        &[0.0, f64::NAN],
        &[],
        &["position of joint 'b' is NaN"],
    );
    assert_refused(&["b", "a"], &[0.0, f64::INFINITY], &[], &["joint 'a' is inf"]);
    assert_refused(
        &["a", "b"],
        &[0.0, 0.0],
        &[f64::NEG_INFINITY, 0.0],
        &["velocity of joint 'a' is -inf"],
    );
}

#[test]
fn wrong_lengths_are_refused_with_expected_and_got() {
    assert_refused(&["a", "b"], &[0.0], &[], &["position has 1", "2 names"]);
    assert_refused(
        &["a", "b"],
        &[0.0, 0.0],
        &[0.0; 3],
        &["velocity has 3", "2 names"],
    );
    assert_refused(&["a"], &[], &[], &["neither positions nor velocities"]);
    assert_refused(&[], &[], &[], &["no names"]);
}

#[test]
fn a_duplicate_joint_is_refused_by_name() {
    assert_refused(
        &["a", "b", "a"],
        &[0.0, 0.0, 0.0],
        &[],
        &["joint 'a' appears twice"],
    );
}

#[test]
fn a_message_without_a_known_joint_is_refused_with_both_lists() {
    assert_refused(&["x", "y"], &[0.0, 0.0], &[], &["[a, b]", "[x, y]"]);
}

#[test]
fn unknown_joints_are_named() {
    let names = ["a".to_owned(), "gripper".to_owned()];
    let states = states();
    assert_eq!(states.unknown(&names).collect::<Vec<_>>(), ["gripper"]);
}

#[test]
fn a_stamp_that_goes_back_is_refused_until_the_joint_is_stale() {
    let mut states = states();
    let names = ["a".to_owned(), "b".to_owned()];
    let mut apply = |ms: f64, stamp: i64| {
        let message = JointStateMessage {
            stamp: stamp * MS as i64,
            names: &names,
            positions: &[0.0, 0.0],
            velocities: &[0.0, 0.0],
        };
        states.apply(message, at(ms))
    };
    apply(0.0, 100).unwrap();
    assert!(matches!(apply(5.0, 95), Err(Refusal::OutOfOrder { .. })));
    apply(60.0, 3).unwrap();
}

#[test]
fn a_state_that_waited_in_a_queue_is_as_old_as_its_stamp_says() {
    let mut states = states();
    let names = ["a".to_owned(), "b".to_owned()];
    let mut watchdog = Watchdog::new(2, STALE_AFTER);
    let mut state = RobotState::zeros(&robot(CommandInterface::Effort));
    let mut verdict = |ms: f64, stamp: i64| {
        let message = JointStateMessage {
            stamp: stamp * MS as i64,
            names: &names,
            positions: &[0.0, 0.0],
            velocities: &[0.0, 0.0],
        };
        states.apply(message, at(ms)).unwrap();
        watchdog.check(&states, at(ms), &mut state)
    };
    assert_eq!(verdict(0.0, 100), Verdict::Fresh);
    // The node stood still for a second, and the robot did not.
    let late = verdict(1000.0, 110);
    assert!(
        matches!(late, Verdict::Late { age, .. } if age == 990 * MS),
        "{late:?}"
    );
    assert!(matches!(verdict(1000.5, 700), Verdict::Late { .. }));
    assert_eq!(verdict(1001.0, 1100), Verdict::Fresh);
}

#[test]
fn a_delay_that_grows_without_any_silence_is_told_unless_a_simulator_is_slow() {
    let verdict_after = |ms: u32, is_simulated: bool| {
        let mut states = states().in_simulated_time(is_simulated);
        let names = ["a".to_owned(), "b".to_owned()];
        for sent in (0..ms).step_by(10).map(f64::from) {
            let message = JointStateMessage {
                stamp: 1_000 * MS as i64 + (sent * MS as f64) as i64,
                names: &names,
                positions: &[0.0, 0.0],
                velocities: &[0.0, 0.0],
            };
            // Each state takes 0.1 ms longer than the one before: 10 ms a second.
            states.apply(message, at(1.01 * sent)).unwrap();
        }
        let mut state = RobotState::zeros(&robot(CommandInterface::Effort));
        let mut watchdog = Watchdog::new(2, STALE_AFTER);
        let verdict = watchdog.check(&states, at(1.01 * f64::from(ms)), &mut state);
        (verdict, watchdog.fresh().to_vec())
    };
    assert_eq!(verdict_after(4_000, false), (Verdict::Fresh, vec![true; 2]));
    let (verdict, fresh) = verdict_after(6_000, false);
    assert!(
        matches!(verdict, Verdict::Behind { by, .. } if (55 * MS..60 * MS).contains(&by)),
        "{verdict:?}"
    );
    assert_eq!(fresh, [false; 2], "nor is an old velocity braked by");
    assert_eq!(verdict_after(6_000, true).0, Verdict::Fresh);
}

/// The verdict a number of seconds after a silence of 8 s. Before it the robot's clock was `before` ahead of the system's,
/// behind it `after` (ms, less is late).
fn verdict_after_a_silence(seconds: u32, (before, after): (i64, i64), is_simulated: bool) -> Verdict {
    const SYSTEM: i64 = 1_700_000_000_000_000_000;
    let mut states = states().in_simulated_time(is_simulated);
    states.set_system_ahead(SYSTEM);
    let names = ["a".to_owned(), "b".to_owned()];
    let mut watchdog = Watchdog::new(2, STALE_AFTER);
    let mut state = RobotState::zeros(&robot(CommandInterface::Effort));
    let mut verdict = Verdict::Fresh;
    let since = (8_000..=8_000 + 1_000 * seconds).step_by(20);
    for ms in std::iter::once(0).chain(since) {
        let now = at(f64::from(ms));
        let ahead = if ms == 0 { before } else { after };
        let message = JointStateMessage {
            stamp: now.nanos().cast_signed() + SYSTEM + ahead * MS.cast_signed(),
            names: &names,
            positions: &[0.0, 0.0],
            velocities: &[0.0, 0.0],
        };
        states.apply(message, now).unwrap();
        verdict = watchdog.check(&states, now, &mut state);
    }
    verdict
}

#[test]
fn states_of_a_queue_that_stays_full_stay_old_and_a_paused_simulator_is_believed() {
    for seconds in [1, 10, 600] {
        let verdict = verdict_after_a_silence(seconds, (0, -7_000), false);
        assert!(
            matches!(verdict, Verdict::Late { .. }),
            "{seconds} s: {verdict:?}"
        );
    }
    assert!(matches!(
        verdict_after_a_silence(0, (0, -7_000), true),
        Verdict::Late { .. }
    ));
    assert_eq!(verdict_after_a_silence(1, (0, -7_000), true), Verdict::Fresh);
}

#[test]
fn a_robots_clock_that_was_set_right_in_a_silence_is_believed_once_it_agrees_with_this_machines() {
    // stale_timeout is 50 ms: 125 s.
    let late = verdict_after_a_silence(120, (5_000, 0), false);
    assert!(matches!(late, Verdict::Late { .. }), "{late:?}");
    assert_eq!(verdict_after_a_silence(130, (5_000, 0), false), Verdict::Fresh);
    let wrong = verdict_after_a_silence(130, (7_000, 2_000), false);
    assert!(
        matches!(wrong, Verdict::Late { .. }),
        "it agrees with nobody's: {wrong:?}"
    );
    let set_back_by_more = verdict_after_a_silence(1, (60_000, 0), false);
    assert_eq!(
        set_back_by_more,
        Verdict::Fresh,
        "queues keep the order, so that it can only be the clock"
    );
}

#[test]
fn a_stamp_in_the_future_is_refused_once_and_then_taken_as_a_clock_that_was_set() {
    let mut states = states();
    let names = ["a".to_owned(), "b".to_owned()];
    let mut apply = |ms: f64, stamp: i64, position: f64| {
        let message = JointStateMessage {
            stamp: stamp * MS as i64,
            names: &names,
            positions: &[position, 0.0],
            velocities: &[],
        };
        let refusal = states.apply(message, at(ms)).err();
        (refusal, states.fresh_velocity(0, at(ms)))
    };
    apply(0.0, 100, 0.0);
    assert_eq!(apply(10.0, 110, 0.01), (None, Some(1.0)));
    // One stamp that is an hour ahead moves nothing; the next one is right again.
    let (refusal, _) = apply(20.0, 3_600_120, 0.02);
    assert!(matches!(refusal, Some(Refusal::Ahead { .. })), "{refusal:?}");
    let (refusal, velocity) = apply(30.0, 130, 0.03);
    assert_eq!(refusal, None);
    assert!(velocity.is_some_and(|v| (v - 1.0).abs() < 1e-9), "{velocity:?}");
    // The robot's clock is set: the second stamp confirms it, and the velocity is that of the arrivals.
    assert!(matches!(apply(40.0, 60_140, 0.04).0, Some(Refusal::Ahead { .. })));
    let (refusal, velocity) = apply(50.0, 60_150, 0.05);
    assert_eq!(refusal, None);
    assert!(velocity.is_some_and(|v| (v - 1.0).abs() < 1e-9), "{velocity:?}");
    assert_eq!(apply(60.0, 60_160, 0.06).0, None);
}

#[test]
fn a_position_out_of_reach_is_refused_once_and_then_taken_as_a_robot_that_was_set_elsewhere() {
    let mut states = states();
    let mut apply =
        |ms: f64, position: f64| send(&mut states, at(ms), &["a", "b"], &[position, 0.0], &[0.0; 2]);
    apply(0.0, 0.1).unwrap();
    // 2 rad/s: within 10 ms it can have gone 0.18 rad at the very most.
    apply(10.0, 0.27).unwrap();
    let refusal = apply(20.0, 0.9).unwrap_err();
    assert!(matches!(refusal, Refusal::Jump { .. }), "{refusal:?}");
    assert!(
        refusal
            .to_string()
            .contains("joint 'a' is 0.630 rad from where it was"),
        "{refusal}"
    );
    apply(30.0, 0.91).unwrap();
    apply(40.0, 0.92).unwrap();
}

#[test]
fn of_two_publishers_that_contradict_each_other_the_first_one_counts() {
    let mut states = states();
    for turn in 0..20 {
        let ms = 10.0 * f64::from(turn);
        send(&mut states, at(ms), &["a", "b"], &[0.1, 0.0], &[0.0; 2]).unwrap();
        let second = send(&mut states, at(ms + 5.0), &["a", "b"], &[0.8, 0.0], &[0.0; 2]);
        assert!(matches!(second, Err(Refusal::Jump { .. })), "{second:?}");
    }
    assert_eq!(written(&states, 200.0).0.positions[0], 0.1);
}

/// A robot at 500 Hz, and ten times a second a mock that says the same thing elsewhere, `in_a_row` times; the verdict at
/// the end, with as many publishers in the graph.
fn beside_a_mock(in_a_row: usize, elsewhere: f64, are_several: bool) -> Verdict {
    let mut states = states();
    states.set_several_sources(are_several);
    for k in 0..500 {
        let ms = 2.0 * f64::from(k);
        let _ = send(&mut states, at(ms), &["a", "b"], &[0.1, 0.0], &[0.0; 2]);
        if k % 50 == 25 {
            for n in 1..=in_a_row {
                let ms = ms + 0.2 * n as f64;
                let _ = send(&mut states, at(ms), &["a", "b"], &[elsewhere, 0.0], &[0.0; 2]);
            }
        }
    }
    let mut state = RobotState::zeros(&robot(CommandInterface::Effort));
    let mut watchdog = Watchdog::new(2, STALE_AFTER);
    let verdict = watchdog.check(&states, at(1000.0), &mut state);
    assert_eq!(watchdog.fresh(), [verdict == Verdict::Fresh, true]);
    verdict
}

#[test]
fn a_joint_about_which_two_publishers_contradict_each_other_is_not_fit_to_act_on_at_whatever_rates() {
    for (in_a_row, elsewhere) in [(1, 0.8), (2, 0.8), (3, 0.8), (1, 0.15), (2, 0.15)] {
        let verdict = beside_a_mock(in_a_row, elsewhere, true);
        assert_eq!(
            verdict,
            Verdict::Contradicted { joint: 0 },
            "{in_a_row} {elsewhere}"
        );
    }
    assert_eq!(beside_a_mock(1, 0.1, true), Verdict::Fresh, "they agree");
    let alone = beside_a_mock(1, 0.15, false);
    assert_eq!(alone, Verdict::Fresh, "one publisher: a sensor that is noisy");
}

#[test]
fn two_publishers_of_different_joints_do_not_contradict_each_other() {
    let mut states = states();
    states.set_several_sources(true);
    for k in 0..200 {
        let ms = 5.0 * f64::from(k);
        send(&mut states, at(ms), &["a"], &[0.8], &[0.0]).unwrap();
        send(&mut states, at(ms + 1.0), &["b"], &[-0.8], &[0.0]).unwrap();
    }
    assert!((0..2).all(|joint| !states.is_contradicted(joint, at(1000.0))));
}

#[test]
fn a_joint_that_is_stale_may_be_anywhere() {
    let mut states = states();
    send(&mut states, at(0.0), &["a", "b"], &[0.1, 0.0], &[0.0; 2]).unwrap();
    let later = 1.0 + STALE_AFTER as f64 / MS as f64;
    send(&mut states, at(later), &["a", "b"], &[-0.9, 3.0], &[0.0; 2]).unwrap();
}

proptest! {
    /// Whatever a message holds: it is taken over with finite values, or refused with nothing applied.
    #[test]
    fn no_message_puts_a_value_that_is_not_finite_into_the_state(
        names in proptest::collection::vec(prop_oneof!["a", "b", "c"], 0..4),
        positions in proptest::collection::vec(proptest::num::f64::ANY, 0..4),
        velocities in proptest::collection::vec(proptest::num::f64::ANY, 0..4),
    ) {
        let mut states = states();
        send(&mut states, at(0.0), &["a", "b"], &[0.5, 0.6], &[0.1, 0.2]).unwrap();
        let before = written(&states, 1.0).0;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let refused = send(&mut states, at(1.0), &names, &positions, &velocities).is_err();
        let after = written(&states, 1.0).0;
        prop_assert!(after.positions.iter().chain(after.velocities.iter()).all(|v| v.is_finite()));
        prop_assert!(!refused || after == before);
    }
}
