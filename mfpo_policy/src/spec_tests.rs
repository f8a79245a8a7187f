//! Laws of the spec: what is wrong is refused with expected and got, and the hash tells every change.

use super::*;
use crate::testing::one_joint_robot;

#[test]
fn a_valid_spec_is_accepted_and_its_hash_is_stable() {
    let spec = one_joint_robot();
    spec.validate().unwrap();
    let json = serde_json::to_string(&spec).unwrap();
    let again: RobotSpec = serde_json::from_str(&json).unwrap();
    assert_eq!(spec.hash(), again.hash());
}

#[test]
fn every_change_changes_the_hash() {
    let spec = one_joint_robot();
    let mut other = spec.clone();
    other.control_period_ns += 1;
    assert_ne!(spec.hash(), other.hash());
    let mut other = spec.clone();
    other.joints[0].name.push('x');
    assert_ne!(spec.hash(), other.hash());
    let mut other = spec.clone();
    other.observation.terms.swap(0, 1);
    assert_ne!(spec.hash(), other.hash());
}

#[test]
fn a_goal_that_is_observed_needs_a_frame_and_a_range() {
    let mut spec = one_joint_robot();
    let plain = spec.hash();
    spec.observation.terms.push(ObservationTerm::Goal {
        axis: Axis::Y,
        scale: 2.0,
    });
    assert_eq!(spec.validate(), Err(SpecError::NoGoal));
    let goal = GoalSpec {
        frame: "base".into(),
        min: [0.0, -0.1, 0.0],
        max: [0.2, 0.1, 0.0],
    };
    spec.goal = Some(goal.clone());
    spec.validate().unwrap();
    assert!(spec.observes_goal());
    assert_ne!(spec.hash(), plain);
    let mut turned = goal.clone();
    turned.min[1] = 0.2;
    let mut nowhere = goal.clone();
    nowhere.max[2] = f64::INFINITY;
    let mut unnamed = goal;
    unnamed.frame.clear();
    for (goal, word) in [(turned, "above max"), (nowhere, "finite"), (unnamed, "frame")] {
        spec.goal = Some(goal);
        let message = spec.validate().unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_robot_without_a_goal_is_written_as_it_was_before_there_were_goals() {
    let json = serde_json::to_string(&one_joint_robot()).unwrap();
    assert!(!json.contains("goal"), "{json}");
}

#[test]
fn a_spec_without_an_acceleration_limit_reads_and_hashes_as_before_there_was_one() {
    let spec = one_joint_robot();
    let json = serde_json::to_string(&spec).unwrap();
    assert!(!json.contains("acceleration_max"), "{json}");
    // `printf %s JSON | sha256sum` of the JSON that was written before the field existed.
    assert_eq!(
        spec.hash(),
        "0168e0505eb590f1799c817b9fa44118e3b872a3545355e1ed8c9c39f8946671"
    );
    let mut limited = spec.clone();
    limited.joints[0].acceleration_max = Some(30.0);
    limited.validate().unwrap();
    let json = serde_json::to_string(&limited).unwrap();
    assert_eq!(serde_json::from_str::<RobotSpec>(&json).unwrap(), limited);
    assert_ne!(limited.hash(), spec.hash());
}

#[test]
fn wrong_specs_are_refused_with_expected_and_got() {
    let mut spec = one_joint_robot();
    spec.joints.push(spec.joints[0].clone());
    assert!(spec.validate().unwrap_err().to_string().contains("listed twice"));

    let mut spec = one_joint_robot();
    spec.action.joints[0].joint = "elbow".into();
    let message = spec.validate().unwrap_err().to_string();
    assert!(
        message.contains("elbow") && message.contains("shoulder"),
        "{message}"
    );

    let mut spec = one_joint_robot();
    spec.observation.terms = vec![ObservationTerm::PreviousAction { index: 3 }];
    assert!(spec.validate().unwrap_err().to_string().contains("index 3"));

    let mut spec = one_joint_robot();
    spec.joints[0].effort_max = f64::NAN;
    assert!(spec.validate().is_err());

    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let mut spec = one_joint_robot();
        spec.joints[0].acceleration_max = Some(wrong);
        let message = spec.validate().unwrap_err().to_string();
        assert!(
            message.contains("acceleration_max") && message.contains("shoulder"),
            "{message}"
        );
    }

    let mut spec = one_joint_robot();
    (spec.action.joints[0].offset, spec.action.joints[0].scale) = (-f64::MAX, -f64::MAX);
    assert!(spec.validate().unwrap_err().to_string().contains("the sum of"));

    let mut spec = one_joint_robot();
    spec.joints[0].position_min = Some(1.0);
    spec.joints[0].position_max = Some(-1.0);
    assert!(spec.validate().is_err());

    let mut spec = one_joint_robot();
    spec.control_period_ns = 0;
    assert!(spec.validate().is_err());
}

#[test]
fn a_term_is_read_as_it_is_written_and_with_nothing_else() {
    let terms = [
        r#"{"term":"position","joint":"a","scale":2.0}"#,
        r#"{"term":"sin_position","joint":"a"}"#,
        r#"{"term":"cos_position","joint":"a"}"#,
        r#"{"term":"velocity","joint":"a","scale":0.5}"#,
        r#"{"term":"previous_action","index":3}"#,
        r#"{"term":"goal","axis":"z","scale":-1.0}"#,
    ];
    for text in terms {
        let term: ObservationTerm = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&term).unwrap(), text);
    }
    for (text, words) in [
        (r#"{"term":"sin_position"}"#, "sin_position takes joint"),
        (
            r#"{"term":"sin_position","joint":"a","scale":1.0}"#,
            "sin_position takes joint, and nothing else",
        ),
        (r#"{"term":"previous_action","joint":"a"}"#, "takes index"),
        (r#"{"term":"goal","axis":"z"}"#, "takes axis and scale"),
        (r#"{"term":"goal","axis":"z","more":[0]}"#, "unknown field `more`"),
        (r#"{"term":"temperature"}"#, "unknown variant `temperature`"),
        (r#"{"joint":"a"}"#, "missing field `term`"),
    ] {
        let told = serde_json::from_str::<ObservationTerm>(text)
            .unwrap_err()
            .to_string();
        assert!(told.contains(words), "{text}: {told}");
    }
}
