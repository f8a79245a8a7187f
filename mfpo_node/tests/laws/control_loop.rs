//! The control loop, step by step.

use mfpo_node::control_loop::{ControlLoop, Decision, Reason, Settings};
use mfpo_node::joint_states::JointStates;
use mfpo_node::safety::{Tightening, Verdict};
use mfpo_node::time::MonoTime;
use mfpo_node::weights::Expected;
use mfpo_policy::noise::NormalNoise;
use mfpo_policy::sampler::Depth;
use mfpo_policy::spec::CommandInterface;

use super::support::{
    MS, STALE_AFTER, allocations, at, best_of, best_within, bundle_of_one_action, bundle_with_critics,
    control_loop, expected, policy, robot, sampled, send, settings,
};

/// What a step sent, and whether the fallback did; `None` when nothing was sent.
fn sent(decision: &Decision<'_>) -> Option<(Vec<f64>, bool)> {
    match decision {
        Decision::Wait(_) => None,
        Decision::Command(tick) => Some((tick.command.values().to_vec(), tick.fallback.is_some())),
    }
}

#[test]
fn nothing_is_commanded_before_every_joint_has_reported() {
    let (mut control, mut states) = control_loop(&robot(CommandInterface::Effort));
    assert!(sent(&control.step(&states, at(0.0))).is_none());
    send(&mut states, at(0.0), &["a"], &[0.1], &[0.0]).unwrap();
    let decision = control.step(&states, at(1.0));
    assert!(
        matches!(
            decision,
            Decision::Wait(Reason::States(Verdict::Missing { joint: 1 }))
        ),
        "{decision:?}"
    );
    send(&mut states, at(2.0), &["b"], &[0.1], &[0.0]).unwrap();
    assert!(matches!(sent(&control.step(&states, at(3.0))), Some((_, false))));
}

#[test]
fn states_that_are_stale_from_the_start_command_nothing() {
    let (mut control, mut states) = control_loop(&robot(CommandInterface::Effort));
    send(&mut states, at(0.0), &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
    assert!(sent(&control.step(&states, at(51.0))).is_none());
}

#[test]
fn stale_state_falls_back_within_one_tick() {
    let (mut control, mut states) = control_loop(&robot(CommandInterface::Effort));
    send(&mut states, at(0.0), &["a", "b"], &[0.1, 0.1], &[0.4, 2.0]).unwrap();
    assert!(matches!(sent(&control.step(&states, at(50.0))), Some((_, false))));
    let (command, is_fallback) = sent(&control.step(&states, at(51.0))).unwrap();
    assert!(is_fallback);
    assert_eq!(command, [0.0, 0.0], "no velocity is fresh: no effort");
}

#[test]
fn one_stale_joint_is_enough_and_the_others_are_damped() {
    let (mut control, mut states) = control_loop(&robot(CommandInterface::Effort));
    send(&mut states, at(0.0), &["a", "b"], &[0.1, 0.1], &[0.4, 2.0]).unwrap();
    control.step(&states, at(1.0));
    send(&mut states, at(60.0), &["a"], &[0.1], &[0.4]).unwrap();
    let decision = control.step(&states, at(61.0));
    let Decision::Command(tick) = &decision else {
        panic!("{decision:?}")
    };
    assert!(matches!(
        tick.fallback,
        Some(Reason::States(Verdict::Stale { joint: 1, age })) if age == 61 * MS
    ));
    assert_eq!(
        tick.command.values(),
        [0.0, -0.1],
        "0.25 N m s/rad times 0.4 rad/s on a"
    );
}

#[test]
fn a_position_is_held_while_states_are_stale() {
    let (mut control, mut states) = control_loop(&robot(CommandInterface::Position));
    send(&mut states, at(0.0), &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
    let (last, _) = sent(&control.step(&states, at(1.0))).unwrap();
    for ms in [60.0, 80.0, 100.0] {
        assert_eq!(sent(&control.step(&states, at(ms))), Some((last.clone(), true)));
    }
}

#[test]
fn the_policy_takes_over_again_once_every_joint_is_fresh() {
    let (mut control, mut states) = control_loop(&robot(CommandInterface::Effort));
    send(&mut states, at(0.0), &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
    control.step(&states, at(1.0));
    assert!(sent(&control.step(&states, at(80.0))).unwrap().1);
    send(&mut states, at(90.0), &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
    assert!(!sent(&control.step(&states, at(91.0))).unwrap().1);
}

#[test]
fn the_same_seed_and_states_give_the_same_commands() {
    let run = || {
        let (mut control, mut states) = control_loop(&robot(CommandInterface::Effort));
        let mut commands = Vec::new();
        for k in 0..50 {
            let ms = 20.0 * f64::from(k);
            send(&mut states, at(ms), &["a", "b"], &[0.01 * ms, 0.1], &[0.5, 0.0]).unwrap();
            commands.push(sent(&control.step(&states, at(ms))).unwrap());
        }
        commands
    };
    let first = run();
    assert_eq!(first, run());
    assert!(first.windows(2).any(|pair| pair[0] != pair[1]));
}

/// The action of each of 50 steps, with what it came from.
fn asked(control: &mut ControlLoop, states: &mut JointStates) -> Vec<(Vec<f32>, Vec<f32>, u64, Depth)> {
    let mut answers = Vec::new();
    for k in 0..50 {
        let now = MonoTime::now();
        send(states, now, &["a", "b"], &[0.02 * f64::from(k), 0.1], &[0.5, 0.0]).unwrap();
        let Decision::Command(tick) = control.step(states, now) else {
            panic!("nothing commanded")
        };
        let from = tick.asked.expect("the policy acts");
        answers.push((
            tick.action.to_vec(),
            from.observation.to_vec(),
            from.draw,
            from.depth,
        ));
    }
    answers
}

#[test]
fn every_action_can_be_given_again_from_its_observation_draw_and_depth() {
    let spec = robot(CommandInterface::Effort);
    for compute_budget in [0, 1, 1_000_000_000] {
        let (mut control, mut states) = best_within(compute_budget, 12, &spec);
        let expected = Expected::new(String::new(), None, 12, Vec::new());
        let mut again = expected.validate(&bundle_with_critics(&spec, "run", 1)).unwrap();
        let mut noise = NormalNoise::new(settings().seed);
        for (number, (action, observation, draw, depth)) in
            asked(&mut control, &mut states).into_iter().enumerate()
        {
            assert_eq!(draw, number as u64);
            match compute_budget {
                0 => assert_eq!((depth.steps, depth.candidates), (2, 12)),
                1 => assert_eq!(depth, Depth::FIRST, "no time is left for more"),
                _ => assert_eq!(depth.steps, 2, "a second is enough"),
            }
            let mut normals = vec![0.0; depth.candidates * action.len()];
            noise.begin(draw);
            noise.fill(&mut normals);
            let mut got = vec![0.0; action.len()];
            again.act(&observation, &normals, depth, &mut got).unwrap();
            assert_eq!(got, action, "draw {draw} at {depth:?}");
        }
    }
}

#[test]
fn a_swap_takes_effect_at_the_next_step_and_a_rollback_takes_it_back() {
    let spec = robot(CommandInterface::Effort);
    let (mut control, _) = control_loop(&spec);
    let version =
        |control: &mfpo_node::control_loop::ControlLoop| control.slot().current().identity().version;
    assert!(!control.slot_mut().rollback(), "there is nothing to go back to");
    assert!(control.slot_mut().swap(policy(&spec, 2)).is_none());
    assert_eq!(version(&control), 2);
    assert_eq!(control.slot().previous().unwrap().identity().version, 1);
    let freed = control.slot_mut().swap(policy(&spec, 3)).unwrap();
    assert_eq!((freed.identity().version, version(&control)), (1, 3));
    assert!(control.slot_mut().rollback());
    assert_eq!(version(&control), 2);
    assert_eq!(control.slot().previous().unwrap().identity().version, 3);
}

#[test]
fn settings_that_a_policy_cannot_act_with_are_told_by_its_name() {
    let spec = robot(CommandInterface::Effort);
    let of = |candidates, compute_budget| Settings {
        candidates,
        compute_budget,
        ..settings()
    };
    let plain = policy(&spec, 3);
    let period = spec.control_period();
    assert_eq!(of(1, 0).why_unfit(plain.identity(), period), None);
    for settings in [of(2, 0), of(2, 1_000)] {
        let why = settings.why_unfit(plain.identity(), period).unwrap();
        assert!(why.contains("version 3 of run 'run' carries no critics"), "{why}");
    }
    let bundle = bundle_with_critics(&spec, "run", 4);
    let with_critics = expected().validate(&bundle).unwrap();
    assert_eq!(of(2, 0).why_unfit(with_critics.identity(), 1e3), None);
    let why = of(2, 0).why_unfit(with_critics.identity(), 1e-9).unwrap();
    assert!(
        why.contains("2 candidates of version 4") && why.contains("half the control period"),
        "{why}"
    );
    assert_eq!(
        of(2, 1).why_unfit(with_critics.identity(), 1e-9),
        None,
        "as many as fit"
    );
}

#[test]
fn a_stop_ends_at_zero_effort_and_where_a_position_is() {
    let (mut control, mut states) = control_loop(&robot(CommandInterface::Effort));
    assert!(
        control.stop(&states, at(0.0)).is_none(),
        "nothing was commanded, so that nothing has to be stopped"
    );
    send(&mut states, at(0.0), &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
    control.step(&states, at(1.0));
    let (command, there) = control.stop(&states, at(20.0)).unwrap();
    assert_eq!((command.values(), there), (&[0.0, 0.0][..], true));

    let (mut control, mut states) = control_loop(&robot(CommandInterface::Position));
    send(&mut states, at(0.0), &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
    let (last, _) = sent(&control.step(&states, at(1.0))).unwrap();
    let (command, there) = control.stop(&states, at(20.0)).unwrap();
    assert_eq!((command.values(), there), (&last[..], true));
    assert_eq!(
        control.cut_stop().unwrap().values(),
        last,
        "a position stays where it is"
    );
}

/// The commands of a stop, each of joints b, a, after those of `control` so far.
fn stopped(control: &mut ControlLoop, states: &JointStates, from: f64) -> Vec<Vec<f64>> {
    let mut commands = Vec::new();
    loop {
        let now = at(from + 20.0 * commands.len() as f64);
        let (command, there) = control.stop(states, now).unwrap();
        commands.push(command.values().to_vec());
        if there {
            return commands;
        }
        assert!(commands.len() < 200, "the stop does not end");
    }
}

#[test]
fn a_position_is_stopped_as_gently_as_its_acceleration_is_limited() {
    let spec = robot(CommandInterface::Position);
    let acceleration_max = 5.0;
    let tightening = Tightening {
        acceleration_max,
        ..Tightening::NONE
    };
    let settings = Settings {
        tightening,
        ..settings()
    };
    let always = expected().validate(&bundle_of_one_action(&spec, 1, 1.0)).unwrap();
    let mut control = ControlLoop::new(&spec, Box::new(always), settings).unwrap();
    let mut states = JointStates::new(&spec, STALE_AFTER);
    let mut commands = vec![vec![0.0, 0.0]];
    for k in 0..10u32 {
        let ms = 20.0 * f64::from(k);
        send(&mut states, at(ms), &["a", "b"], &[0.0, 0.0], &[0.0, 0.0]).unwrap();
        commands.push(sent(&control.step(&states, at(ms))).unwrap().0);
    }
    let step = 0.02 * 0.02 * acceleration_max;
    let speed = commands[10][1] - commands[9][1];
    assert!((speed - 10.0 * step).abs() < 1e-9, "{commands:?}");
    commands.extend(stopped(&mut control, &states, 200.0));
    for three in commands.windows(3) {
        let [first, second, third] = three else {
            unreachable!()
        };
        for ((a, b), c) in first.iter().zip(second).zip(third) {
            let change = c - 2.0 * b + a;
            assert!(change.abs() <= step + 1e-9, "{commands:?}");
        }
    }
    let end = &commands[commands.len() - 2..];
    let is_same = end[0].iter().zip(&end[1]).all(|(a, b)| (a - b).abs() < 1e-9);
    assert!(is_same, "nothing moves any more when commands end: {commands:?}");
    assert!(
        commands.len() >= 20,
        "ten steps to speed up, nine to brake: {commands:?}"
    );
}

#[test]
fn a_velocity_is_stopped_by_a_ramp() {
    let (mut control, mut states) = control_loop(&robot(CommandInterface::Velocity));
    send(&mut states, at(0.0), &["a", "b"], &[0.0, 0.0], &[2.0, 2.0]).unwrap();
    control.step(&states, at(1.0));
    let mut steps = 0;
    loop {
        steps += 1;
        let (command, there) = control.stop(&states, at(20.0 * f64::from(steps))).unwrap();
        if there {
            assert_eq!(command.values(), [0.0, 0.0]);
            break;
        }
        assert!(steps < 50, "the ramp does not end");
    }
}

#[test]
fn a_stop_goes_by_where_the_joints_are_by_now_and_can_be_cut() {
    let (mut control, mut states) = control_loop(&robot(CommandInterface::Velocity));
    send(&mut states, at(0.0), &["a", "b"], &[0.98, 0.0], &[2.0, 2.0]).unwrap();
    control.step(&states, at(1.0));
    let (command, _) = control.stop(&states, at(20.0)).unwrap();
    let ramp = command.values().to_vec();
    assert!(ramp.iter().all(|v| v.abs() > 0.1), "{ramp:?}");
    // Joint a has reached its limit meanwhile; commands are in the order b, a.
    send(&mut states, at(30.0), &["a", "b"], &[1.0, 0.0], &[2.0, 2.0]).unwrap();
    let (command, there) = control.stop(&states, at(40.0)).unwrap();
    assert!(
        command.values()[1] <= 0.0 && command.values()[0].abs() > 0.1,
        "{command:?}"
    );
    assert!(!there);
    let command = control.cut_stop().unwrap();
    assert_eq!(command.values(), [0.0, 0.0]);
    assert_eq!(command.interventions(), 0);
}

#[test]
fn a_step_allocates_nothing_whether_the_policy_or_the_fallback_commands() {
    for interface in [
        CommandInterface::Position,
        CommandInterface::Velocity,
        CommandInterface::Effort,
    ] {
        let spec = robot(interface);
        for (mut control, mut states) in [control_loop(&spec), best_of(4, &spec)] {
            assert!(
                allocations(|| drop(std::hint::black_box(Box::new(1)))) > 0,
                "the counter counts"
            );
            assert_eq!(allocations(|| drop(control.step(&states, at(0.0)))), 0);
            for k in 0..100u32 {
                let ms = 20.0 * f64::from(k);
                send(&mut states, at(ms), &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
                assert_eq!(allocations(|| drop(control.step(&states, at(ms)))), 0);
            }
            assert!(sent(&control.step(&states, at(5_000.0))).unwrap().1);
            assert_eq!(allocations(|| drop(control.step(&states, at(5_020.0)))), 0);
        }
    }
}

#[test]
fn a_step_within_a_budget_allocates_nothing_however_far_it_gets() {
    let spec = robot(CommandInterface::Effort);
    // ns, and the most actions that are sampled in one tick.
    for (compute_budget, expected) in [(1, 1), (1_000_000_000, 12)] {
        let (mut control, mut states) = best_within(compute_budget, 12, &spec);
        let mut most: usize = 0;
        for _ in 0..100 {
            // A budget is of real time.
            let now = MonoTime::now();
            send(&mut states, now, &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
            let count = allocations(|| most = most.max(sampled(&control.step(&states, now))));
            assert_eq!(count, 0);
        }
        assert_eq!(most, expected, "{compute_budget} ns");
    }
}

#[test]
fn a_budget_counts_from_where_the_state_was_taken_and_ages_count_to_now() {
    let spec = robot(CommandInterface::Effort);
    let budget = 1_000_000_000;
    let (mut control, mut states) = best_within(budget, 12, &spec);
    // A budget is of real time.
    for (before, expected) in [(0, 12), (2 * budget, 1)] {
        let now = MonoTime::now();
        send(&mut states, now, &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
        let decision = control.step_since(&states, now.minus(before), now);
        assert_eq!(sampled(&decision), expected, "taken {before} ns ago");
    }
    let now = MonoTime::now();
    let late = now.plus(STALE_AFTER + MS);
    send(&mut states, now, &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
    assert!(
        sent(&control.step_since(&states, now, late)).unwrap().1,
        "stale by now"
    );
}

#[test]
fn taking_over_a_joint_state_allocates_nothing() {
    let (_, mut states) = control_loop(&robot(CommandInterface::Effort));
    let names = ["a".to_owned(), "b".to_owned(), "gripper".to_owned()];
    let message = mfpo_node::joint_states::JointStateMessage {
        stamp: 0,
        names: &names,
        positions: &[0.0; 3],
        velocities: &[],
    };
    let count = allocations(|| {
        for k in 0..100u32 {
            states.apply(message, at(f64::from(k))).unwrap();
        }
    });
    assert_eq!(count, 0);
}
