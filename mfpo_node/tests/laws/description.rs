//! A robot's own description tightens the limits of the bundle, joint by joint, and never loosens one.

use mfpo_node::safety::{Limits, RobotDescription, SafetyFilter, Tightening};
use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::{CommandInterface, RobotSpec};
use proptest::prelude::*;

use super::support::robot;

fn description(joints: &str) -> RobotDescription {
    RobotDescription::parse(&format!("<robot name=\"two_joints\">{joints}</robot>")).unwrap()
}

/// Joint `a` of the spec (limited to 1 rad, 2 rad/s, 1 N m) with these elements in its description.
fn tightened(interface: CommandInterface, kind: &str, elements: &str) -> Result<RobotSpec, String> {
    let text = format!("<joint name=\"a\" type=\"{kind}\">{elements}</joint>");
    let spec = description(&text).tighten(&robot(interface));
    spec.map_err(|error| error.to_string())
}

fn position(spec: &RobotSpec) -> (Option<f64>, Option<f64>) {
    (spec.joints[0].position_min, spec.joints[0].position_max)
}

#[test]
fn the_strictest_of_bundle_hard_and_soft_limits_wins() {
    let spec = tightened(
        CommandInterface::Velocity,
        "revolute",
        "<limit lower='-3' upper='0.75' velocity='0.5' effort='9'/>
         <safety_controller soft_lower_limit='-0.5' soft_upper_limit='2' k_velocity='10'/>",
    )
    .unwrap();
    assert_eq!(position(&spec), (Some(-0.5), Some(0.75)));
    assert_eq!(
        (spec.joints[0].velocity_max, spec.joints[0].effort_max),
        (0.5, 1.0)
    );
    assert_eq!(spec.joints[1], robot(CommandInterface::Velocity).joints[1]);
}

#[test]
fn what_is_not_stated_limits_nothing_and_a_continuous_joint_has_no_range() {
    for (kind, elements) in [
        ("revolute", ""),
        ("revolute", "<limit velocity='5' effort='5'/>"),
        (
            "continuous",
            "<limit lower='0' upper='0' velocity='5' effort='5'/>",
        ),
        (
            "continuous",
            "<safety_controller soft_lower_limit='0' soft_upper_limit='0'/>",
        ),
    ] {
        let spec = tightened(CommandInterface::Effort, kind, elements).unwrap();
        assert_eq!(spec, robot(CommandInterface::Effort), "{kind} {elements}");
    }
}

#[test]
fn a_joint_that_follows_limits_the_one_that_leads() {
    let described = description(
        "<joint name='a' type='revolute'><limit lower='-9' upper='9' velocity='9' effort='9'/></joint>
         <joint name='finger' type='revolute'><limit lower='-1' upper='0.5' velocity='1' effort='1'/>
           <mimic joint='a' multiplier='-2' offset='0.1'/></joint>",
    );
    let spec = described.tighten(&robot(CommandInterface::Position)).unwrap();
    let (low, high) = position(&spec);
    // -1 <= 0.1 - 2 a <= 0.5
    assert!(
        (low.unwrap() + 0.2).abs() < 1e-12 && (high.unwrap() - 0.55).abs() < 1e-12,
        "{low:?} {high:?}"
    );
    assert_eq!(
        (spec.joints[0].velocity_max, spec.joints[0].effort_max),
        (0.5, 1.0)
    );
}

#[test]
fn limits_that_leave_no_room_name_the_joint_and_both_sides() {
    use CommandInterface::{Effort, Position};
    for (interface, kind, elements, words) in [
        (
            Position,
            "revolute",
            "<limit lower='2' upper='3'/>",
            ["position is 2 to 3", "-1 to 1"],
        ),
        (
            Position,
            "prismatic",
            "<limit lower='0' upper='0'/>",
            ["position is 0 to 0", "-1 to 1"],
        ),
        (
            Position,
            "revolute",
            "<limit velocity='0'/>",
            ["velocity is 0", "bundle's is 2"],
        ),
        (Position, "fixed", "", ["velocity is 0", "bundle's is 2"]),
        (
            Effort,
            "revolute",
            "<limit effort='0'/>",
            ["effort is 0", "bundle's is 1"],
        ),
    ] {
        let error = tightened(interface, kind, elements).unwrap_err();
        assert!(
            error.contains("'a'") && error.contains("use_robot_description"),
            "{error}"
        );
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    // Nobody commands an effort here.
    tightened(Position, "revolute", "<limit effort='0'/>").unwrap();
}

#[test]
fn a_joint_that_is_only_observed_is_tightened_too_and_needs_no_effort() {
    let mut spec = robot(CommandInterface::Effort);
    spec.action.joints.retain(|action| action.joint != "a");
    let described = description(
        "<joint name='a' type='revolute'><limit lower='-0.5' upper='9' velocity='0.5' effort='0'/></joint>",
    );
    let tightened = described.tighten(&spec).unwrap();
    assert_eq!(position(&tightened), (Some(-0.5), Some(1.0)));
    assert_eq!(
        (tightened.joints[0].velocity_max, tightened.joints[0].effort_max),
        (0.5, 1.0)
    );
}

#[test]
fn a_joint_that_is_not_described_is_named() {
    let described = description("<joint name='b' type='continuous'/><link name='a'/>");
    let spec = robot(CommandInterface::Effort);
    assert_eq!(described.missing(&spec).collect::<Vec<_>>(), ["a"]);
    assert_eq!(described.tighten(&spec).unwrap(), spec);
}

#[test]
fn what_is_no_description_is_refused_with_the_place() {
    let bomb = "<!DOCTYPE x [<!ENTITY a '9'><!ENTITY b '&a;&a;'>]><robot><joint name='&b;'/></robot>";
    for (text, word) in [
        ("", "no XML"),
        ("<robot><joint></robot>", "no XML"),
        (bomb, "no XML"),
        ("<mujoco/>", "'mujoco'"),
        (
            "<robot><joint name='a'><limit lower='-1' upper='one'/></joint></robot>",
            "'upper' of joint 'a' is 'one'",
        ),
        (
            "<robot><joint name='a'><limit velocity='nan'/></joint></robot>",
            "'velocity' of joint 'a' is 'nan'",
        ),
    ] {
        let error = RobotDescription::parse(text).unwrap_err().to_string();
        assert!(
            error.contains(word) && error.contains("expected"),
            "{text}: {error}"
        );
    }
}

prop_compose! {
    fn limits()(low in -2.0..0.5f64, size in 0.0..2.0f64, velocity in 0.0..4.0f64, effort in 0.0..2.0f64)
        -> (f64, f64, f64, f64) { (low, low + size, velocity, effort) }
}

proptest! {
    /// The result is the stricter of both, or there is none; and no command leaves either of them.
    #[test]
    fn a_described_limit_is_never_loosened_and_never_loosens(
        (low, high, velocity, effort) in limits(),
        is_continuous in any::<bool>(),
        which in 0..3usize,
        wanted in -5.0..5.0f64,
        position in -1.0..1.0f64,
    ) {
        use CommandInterface::{Effort, Position, Velocity};
        let interface = [Position, Velocity, Effort][which];
        let kind = if is_continuous { "continuous" } else { "revolute" };
        let text = format!("<limit lower='{low}' upper='{high}' velocity='{velocity}' effort='{effort}'/>");
        let bundled = robot(interface);
        let Ok(spec) = tightened(interface, kind, &text) else {
            let overlap = is_continuous || low.max(-1.0) < high.min(1.0);
            prop_assert!(!overlap || velocity == 0.0 || effort == 0.0);
            return Ok(());
        };
        let (before, after) = (&bundled.joints[0], &spec.joints[0]);
        let at_least = if is_continuous { -1.0 } else { low.max(-1.0) };
        let at_most = if is_continuous { 1.0 } else { high.min(1.0) };
        prop_assert_eq!((after.position_min, after.position_max), (Some(at_least), Some(at_most)));
        prop_assert_eq!(after.velocity_max, velocity.min(before.velocity_max));
        prop_assert!(after.effort_max <= before.effort_max && (effort == 0.0 || after.effort_max <= effort));
        prop_assert_eq!(&spec.joints[1], &bundled.joints[1]);

        let mut filter = SafetyFilter::new(&spec, Limits::new(&spec, &Tightening::NONE).unwrap());
        let mut state = RobotState::zeros(&spec);
        state.positions[0] = position.clamp(at_least, at_most);
        for _ in 0..50 {
            // Commands are in the order b, a.
            let command = filter.enforce(&[0.0, wanted], &state).values()[1];
            let is_inside = match interface {
                Position => (at_least..=at_most).contains(&command),
                Velocity => command.abs() <= velocity.min(2.0),
                Effort => command.abs() <= after.effort_max,
            };
            prop_assert!(is_inside, "{command} under {after:?}");
        }
    }
}
