//! No command leaves outside the limits, and the fallback fits the interface.

use mfpo_node::metrics::Live;
use mfpo_node::safety::{Fallback, FallbackChoice, Limits, Rule, SafetyFilter, Tightening};
use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::{CommandInterface, RobotSpec};
use proptest::prelude::*;

use super::support::robot;

fn state(spec: &RobotSpec, positions: [f64; 2], velocities: [f64; 2]) -> RobotState {
    let mut state = RobotState::zeros(spec);
    state.positions.copy_from_slice(&positions);
    state.velocities.copy_from_slice(&velocities);
    state
}

fn filter(spec: &RobotSpec) -> SafetyFilter {
    tightened(spec, Tightening::NONE)
}

fn tightened(spec: &RobotSpec, tightening: Tightening) -> SafetyFilter {
    SafetyFilter::new(spec, Limits::new(spec, &tightening).unwrap())
}

/// Commands are in the order b, a; states in the order a, b.
fn enforced(
    spec: &RobotSpec,
    wanted: [f64; 2],
    positions: [f64; 2],
    velocities: [f64; 2],
) -> (Vec<f64>, u32) {
    let mut filter = filter(spec);
    let command = filter.enforce(&wanted, &state(spec, positions, velocities));
    (command.values().to_vec(), command.interventions())
}

#[test]
fn the_first_position_command_starts_where_the_robot_is() {
    let spec = robot(CommandInterface::Position);
    // 2 rad/s for 20 ms: 0.04 rad.
    let (command, interventions) = enforced(&spec, [0.9, 0.51], [0.5, -0.5], [0.0; 2]);
    assert!(
        (command[0] + 0.46).abs() < 1e-12 && (command[1] - 0.51).abs() < 1e-12,
        "{command:?}"
    );
    assert_eq!(interventions, 1);
}

#[test]
fn positions_stay_inside_the_joints_limits() {
    let spec = robot(CommandInterface::Position);
    let (command, interventions) = enforced(&spec, [0.0, 1.5], [0.99, 0.0], [0.0; 2]);
    assert_eq!((command[1], interventions), (1.0, 1));
}

#[test]
fn velocities_do_not_lead_past_a_limit_and_may_always_lead_back() {
    let spec = robot(CommandInterface::Velocity);
    // 0.01 rad left and 20 ms: 0.5 rad/s at most.
    let (command, _) = enforced(&spec, [0.0, 2.0], [0.99, 0.0], [0.0; 2]);
    assert!((command[1] - 0.5).abs() < 1e-9, "{command:?}");
    let (command, _) = enforced(&spec, [0.0, 2.0], [1.2, 0.0], [0.0; 2]);
    assert_eq!(command[1], 0.0);
    let (command, interventions) = enforced(&spec, [0.0, -1.0], [1.2, 0.0], [0.0; 2]);
    assert_eq!((command[1], interventions), (-1.0, 0));
}

#[test]
fn efforts_are_limited_and_never_push_further_out_or_faster() {
    let spec = robot(CommandInterface::Effort);
    assert_eq!(
        enforced(&spec, [5.0, -5.0], [0.0; 2], [0.0; 2]),
        (vec![1.0, -1.0], 2)
    );
    assert_eq!(enforced(&spec, [0.0, 0.5], [1.0, 0.0], [0.0; 2]).0, [0.0, 0.0]);
    assert_eq!(enforced(&spec, [0.0, -0.5], [1.0, 0.0], [0.0; 2]).0, [0.0, -0.5]);
    assert_eq!(enforced(&spec, [0.5, 0.0], [0.0; 2], [0.0, 2.0]).0, [0.0, 0.0]);
    assert_eq!(enforced(&spec, [-0.5, 0.0], [0.0; 2], [0.0, 2.0]).0, [-0.5, 0.0]);
}

#[test]
fn the_rate_of_a_command_is_limited() {
    let mut spec = robot(CommandInterface::Effort);
    spec.joints[1].command_rate_max = Some(10.0);
    let mut filter = filter(&spec);
    let state = RobotState::zeros(&spec);
    for expected in [0.2, 0.4, 0.6] {
        let command = filter.enforce(&[1.0, 1.0], &state).values().to_vec();
        assert!((command[0] - expected).abs() < 1e-12, "{command:?}");
        assert_eq!(command[1], 1.0);
    }
}

#[test]
fn tighter_limits_by_parameter_win_over_the_robots_own() {
    let tightening = Tightening {
        position_margin: 0.25,
        velocity_scale: 0.5,
        effort_scale: 0.1,
        ..Tightening::NONE
    };
    let command = |interface, wanted: [f64; 2], positions: [f64; 2]| {
        let spec = robot(interface);
        let mut filter = tightened(&spec, tightening);
        let command = filter.enforce(&wanted, &state(&spec, positions, [0.0; 2]));
        (command.values().to_vec(), command.rules().to_vec())
    };
    let (values, rules) = command(CommandInterface::Position, [0.0, 1.0], [0.74, 0.0]);
    assert_eq!((values[1], rules[1]), (0.75, Some(Rule::Position)));
    let (values, rules) = command(CommandInterface::Velocity, [2.0, 0.2], [0.0, 0.0]);
    assert_eq!(
        (values, rules),
        (vec![1.0, 0.2], vec![Some(Rule::Velocity), None])
    );
    let (values, rules) = command(CommandInterface::Effort, [0.5, -0.05], [0.0, 0.0]);
    assert_eq!(
        (values, rules),
        (vec![0.1, -0.05], vec![Some(Rule::Effort), None])
    );
}

#[test]
fn the_rule_that_decided_is_the_one_that_is_counted() {
    let mut spec = robot(CommandInterface::Position);
    spec.joints[1].command_rate_max = Some(1.0);
    let live = Live::with_commanded(2, 2);
    let mut filter = filter(&spec);
    // b: the rate (1 rad/s) is stricter than the velocity (2 rad/s); a: the range is, 0.01 rad away.
    let at = state(&spec, [0.99, 0.0], [0.0; 2]);
    live.count_interventions(filter.enforce(&[9.0, 9.0], &at));
    live.count_interventions(filter.enforce(&[f64::NAN, 0.999], &at));
    let counts = live.interventions_by_rule();
    let of = |joint: usize, rule: Rule| counts[joint * Rule::NAMES.len() + rule as usize];
    assert_eq!((of(0, Rule::Rate), of(0, Rule::Velocity)), (1, 0));
    assert_eq!((of(1, Rule::Position), of(0, Rule::Finite)), (1, 1));
    assert_eq!(counts.iter().sum::<u64>(), 3, "{counts:?}");
}

#[test]
fn an_acceleration_limit_ramps_a_position_up_and_brakes_it_before_its_limit() {
    let spec = robot(CommandInterface::Position);
    let tightening = Tightening {
        acceleration_max: 10.0,
        ..Tightening::NONE
    };
    let mut filter = tightened(&spec, tightening);
    let at = state(&spec, [0.0; 2], [0.0; 2]);
    let mut commands = vec![0.0, 0.0];
    commands.extend((0..100).map(|_| filter.enforce(&[0.0, 5.0], &at).values()[1]));
    let speeds: Vec<f64> = commands.windows(2).map(|c| (c[1] - c[0]) / 0.02).collect();
    let top = speeds.iter().copied().fold(0.0, f64::max);
    assert!(top > 1.5 && top <= 2.0 + 1e-9, "{top}");
    let last = commands[commands.len() - 1];
    assert!(last > 0.999 && last <= 1.0, "{last}");
    for pair in speeds.windows(2) {
        assert!(pair[1] - pair[0] <= 10.0 * 0.02 + 1e-9, "{speeds:?}");
        assert!(pair[0] - pair[1] <= 10.0 * 0.02 + 1e-9, "{speeds:?}");
    }
}

#[test]
fn the_bundles_acceleration_limit_holds_and_the_stricter_of_it_and_the_parameter_wins() {
    for (bundle, parameter, strictest) in [
        (Some(10.0), f64::INFINITY, 10.0),
        (Some(10.0), 40.0, 10.0),
        (Some(10.0), 5.0, 5.0),
        (None, 5.0, 5.0),
    ] {
        let mut spec = robot(CommandInterface::Velocity);
        // Joint a, the second one commanded.
        spec.joints[0].acceleration_max = bundle;
        let tightening = Tightening {
            acceleration_max: parameter,
            ..Tightening::NONE
        };
        let live = Live::with_commanded(2, 2);
        let mut filter = tightened(&spec, tightening);
        let at = state(&spec, [0.0; 2], [0.0; 2]);
        for step in 1..=3 {
            let command = filter.enforce(&[0.0, 1.5], &at);
            let expected = strictest * 0.02 * f64::from(step);
            assert!((command.values()[1] - expected).abs() < 1e-9, "{command:?}");
            assert_eq!(command.rules()[1], Some(Rule::Acceleration));
            live.count_interventions(command);
        }
        let counts = live.interventions_by_rule();
        let on_a = counts[Rule::NAMES.len() + Rule::Acceleration as usize];
        assert_eq!(
            (on_a, counts.iter().sum::<u64>()),
            (3, 3),
            "{bundle:?} {parameter}"
        );
    }
}

#[test]
fn the_bundles_acceleration_limit_ramps_a_position_too() {
    let mut spec = robot(CommandInterface::Position);
    spec.joints[0].acceleration_max = Some(10.0);
    let mut filter = filter(&spec);
    let at = state(&spec, [0.0; 2], [0.0; 2]);
    let command = filter.enforce(&[0.9, 0.9], &at);
    // 10 rad/s^2 times 20 ms squared; b has no such limit and runs into its velocity.
    assert!((command.values()[1] - 0.004).abs() < 1e-12, "{command:?}");
    assert_eq!(command.rules(), [Some(Rule::Velocity), Some(Rule::Acceleration)]);
}

#[test]
fn holding_a_position_ramping_a_velocity_damping_an_effort() {
    let fresh = [true, true];
    let command = |interface, last: &[f64], velocities: &[f64], fresh: &[bool]| {
        let fallback = Fallback::new(&robot(interface), FallbackChoice::Auto, 0.25, &[]).unwrap();
        let mut out = vec![9.0; 2];
        fallback.command(last, velocities, fresh, &mut out);
        out
    };
    assert_eq!(
        command(CommandInterface::Position, &[0.3, -0.4], &[1.0, 1.0], &fresh),
        [0.3, -0.4]
    );
    let ramped = command(CommandInterface::Velocity, &[1.0, -0.05], &[1.0, 1.0], &fresh);
    assert!(
        ramped[0] > 0.8 && ramped[0] < 1.0 && ramped[1] == 0.0,
        "{ramped:?}"
    );
    // Action order b, a: b turns at 2 rad/s.
    assert_eq!(
        command(CommandInterface::Effort, &[1.0, 1.0], &[0.4, 2.0], &fresh),
        [-0.5, -0.1]
    );
    // The velocity of b is stale: no damping there.
    assert_eq!(
        command(CommandInterface::Effort, &[1.0, 1.0], &[0.4, 2.0], &[true, false]),
        [0.0, -0.1]
    );
}

#[test]
fn a_velocity_ramp_ends_at_zero() {
    let fallback = Fallback::new(&robot(CommandInterface::Velocity), FallbackChoice::Auto, 0.0, &[]).unwrap();
    let mut last = vec![2.0, -2.0];
    for _ in 0..16 {
        let mut next = vec![0.0; 2];
        fallback.command(&last, &[0.0; 2], &[false; 2], &mut next);
        assert!(next.iter().zip(&last).all(|(n, l)| n.abs() <= l.abs()));
        last = next;
    }
    assert_eq!(last, [0.0, 0.0]);
}

#[test]
fn a_fallback_that_would_move_the_robot_is_refused_with_what_fits() {
    use CommandInterface::{Effort, Position, Velocity};
    use FallbackChoice::{Damp, Hold, Ramp, Zero};
    for (interface, choice, fits) in [
        (Position, Zero, "hold"),
        (Position, Damp, "hold"),
        (Velocity, Hold, "ramp"),
        (Effort, Hold, "damp"),
        (Effort, Ramp, "damp"),
    ] {
        let error = Fallback::new(&robot(interface), choice, 0.0, &[])
            .unwrap_err()
            .to_string();
        assert!(error.contains(fits), "{error}");
    }
}

#[test]
fn damping_is_added_to_the_postures_effort_which_stands_alone_where_no_velocity_is_fresh() {
    let spec = robot(CommandInterface::Effort);
    let fallback = Fallback::new(&spec, FallbackChoice::Auto, 0.25, &[0.3, -0.6]).unwrap();
    let command = |velocities: [f64; 2], fresh: [bool; 2]| {
        let mut out = vec![9.0; 2];
        fallback.command(&[1.0, 1.0], &velocities, &fresh, &mut out);
        out
    };
    assert_eq!(command([0.0, 0.0], [true, true]), [0.3, -0.6], "at rest it holds");
    // Commands are in the order b, a; b turns at 2 rad/s.
    assert_eq!(command([0.4, 2.0], [true, true]), [0.3 - 0.5, -0.6 - 0.1]);
    assert_eq!(command([0.4, 2.0], [true, false]), [0.3, -0.6 - 0.1]);
    assert_eq!(command([0.4, 2.0], [false, false]), [0.3, -0.6]);
}

#[test]
fn a_postures_effort_that_does_not_fit_the_robot_is_refused_with_what_would() {
    use CommandInterface::{Effort, Position, Velocity};
    use FallbackChoice::{Auto, Zero};
    for (interface, choice, posture, parts) in [
        (
            Effort,
            Auto,
            vec![0.1],
            ["holds 1 numbers", "2, one for each of [b, a]"],
        ),
        (Effort, Auto, vec![0.1; 3], ["holds 3 numbers", "or none"]),
        (Effort, Auto, vec![0.1, f64::NAN], ["joint 'a' is NaN", "finite"]),
        (
            Effort,
            Auto,
            vec![f64::INFINITY, 0.1],
            ["joint 'b' is inf", "finite"],
        ),
        (Effort, Zero, vec![0.1, 0.1], ["'zero'", "the fallback damp"]),
        (
            Position,
            Auto,
            vec![0.1, 0.1],
            ["commands in rad uses none", "empty list"],
        ),
        (
            Velocity,
            Auto,
            vec![0.1, 0.1],
            ["commands in rad/s uses none", "empty list"],
        ),
    ] {
        let error = Fallback::new(&robot(interface), choice, 0.0, &posture).unwrap_err();
        let error = error.to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

proptest! {
    /// Whatever a policy wants, and whatever came before.
    #[test]
    fn no_command_leaves_outside_the_limits(
        which in 0..3usize,
        commands in proptest::collection::vec((proptest::num::f64::ANY, proptest::num::f64::ANY), 1..20),
        position in -1.0..1.0f64,
        velocity in -5.0..5.0f64,
    ) {
        use CommandInterface::{Effort, Position, Velocity};
        let interface = [Position, Velocity, Effort][which];
        let spec = robot(interface);
        let state = state(&spec, [position, position], [velocity, velocity]);
        let mut filter = filter(&spec);
        let limits = match interface { Position => [f64::MAX, 1.0], Velocity => [2.0, 2.0], Effort => [1.0, 1.0] };
        let mut last: Option<Vec<f64>> = None;
        for (b, a) in commands {
            let command = filter.enforce(&[b, a], &state).values().to_vec();
            prop_assert!(command.iter().zip(limits).all(|(c, l)| c.is_finite() && c.abs() <= l));
            if let (Some(last), Position) = (&last, interface) {
                prop_assert!(command.iter().zip(last).all(|(c, l)| (c - l).abs() <= 0.04 + 1e-9));
            }
            last = Some(command);
        }
    }

    /// A joint that does what it is told comes to rest before its limit, braking no harder than it may.
    #[test]
    fn a_velocity_is_braked_before_a_position_limit(
        wishes in proptest::collection::vec(-3.0..3.0f64, 1..300),
        acceleration in 0.5..50.0f64,
        start in -0.9..0.9f64,
    ) {
        let spec = robot(CommandInterface::Velocity);
        let tightening = Tightening { acceleration_max: acceleration, ..Tightening::NONE };
        let mut filter = tightened(&spec, tightening);
        let (period, mut position, mut last) = (spec.control_period(), start, 0.0);
        for wish in wishes.iter().chain(&[3.0; 300]) {
            let command = filter.enforce(&[0.0, *wish], &state(&spec, [position, 0.0], [last, 0.0]));
            let velocity = command.values()[1];
            prop_assert!((velocity - last).abs() <= acceleration * period + 1e-9, "{last} {velocity}");
            position += velocity * period;
            prop_assert!(position.abs() <= 1.0 + 1e-9, "{position}");
            last = velocity;
        }
        prop_assert!(position > 0.5, "it gets near: {position}");
    }

    /// Whatever is wanted of a position: it comes to rest before its limit, and neither speeds up nor brakes harder than it may.
    #[test]
    fn a_position_is_braked_before_its_limit(
        wishes in proptest::collection::vec(-2.0..2.0f64, 1..300),
        acceleration in 0.5..50.0f64,
        start in -0.9..0.9f64,
    ) {
        let spec = robot(CommandInterface::Position);
        let tightening = Tightening { acceleration_max: acceleration, ..Tightening::NONE };
        let mut filter = tightened(&spec, tightening);
        let at = state(&spec, [start, 0.0], [0.0; 2]);
        let change = acceleration * spec.control_period().powi(2);
        let (mut last, mut step) = (start, 0.0);
        for wish in wishes.iter().chain(&[2.0; 600]) {
            let position = filter.enforce(&[0.0, *wish], &at).values()[1];
            prop_assert!((position - last - step).abs() <= change + 1e-9, "{last} {step} {position}");
            prop_assert!(position.abs() <= 1.0, "{position}");
            (last, step) = (position, position - last);
        }
        prop_assert!(last > 0.99, "it gets there: {last}");
    }
}
