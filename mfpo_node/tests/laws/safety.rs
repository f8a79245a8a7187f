//! No command leaves outside the limits, and the fallback fits the interface.

use mfpo_node::safety::{Fallback, FallbackChoice, SafetyFilter};
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

/// Commands are in the order b, a; states in the order a, b.
fn enforced(
    spec: &RobotSpec,
    wanted: [f64; 2],
    positions: [f64; 2],
    velocities: [f64; 2],
) -> (Vec<f64>, u32) {
    let mut filter = SafetyFilter::new(spec);
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
    let mut filter = SafetyFilter::new(&spec);
    let state = RobotState::zeros(&spec);
    for expected in [0.2, 0.4, 0.6] {
        let command = filter.enforce(&[1.0, 1.0], &state).values().to_vec();
        assert!((command[0] - expected).abs() < 1e-12, "{command:?}");
        assert_eq!(command[1], 1.0);
    }
}

#[test]
fn holding_a_position_ramping_a_velocity_damping_an_effort() {
    let fresh = [true, true];
    let command = |interface, last: &[f64], velocities: &[f64], fresh: &[bool]| {
        let fallback = Fallback::new(&robot(interface), FallbackChoice::Auto, 0.25).unwrap();
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
    let fallback = Fallback::new(&robot(CommandInterface::Velocity), FallbackChoice::Auto, 0.0).unwrap();
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
        let error = Fallback::new(&robot(interface), choice, 0.0)
            .unwrap_err()
            .to_string();
        assert!(error.contains(fits), "{error}");
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
        let mut filter = SafetyFilter::new(&spec);
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
}
