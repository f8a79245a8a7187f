//! Small robots for tests.

use crate::spec::*;

/// A torque-controlled pendulum with four observation components.
pub(crate) fn one_joint_robot() -> RobotSpec {
    let joint = || "shoulder".to_owned();
    RobotSpec {
        robot: "pendulum".into(),
        joints: vec![JointSpec {
            name: joint(),
            position_min: None,
            position_max: None,
            velocity_max: 20.0,
            effort_max: 0.5,
            command_rate_max: None,
            acceleration_max: None,
        }],
        observation: ObservationSpec {
            terms: vec![
                ObservationTerm::SinPosition { joint: joint() },
                ObservationTerm::CosPosition { joint: joint() },
                ObservationTerm::Velocity {
                    joint: joint(),
                    scale: 0.1,
                },
                ObservationTerm::PreviousAction { index: 0 },
            ],
        },
        action: ActionSpec {
            interface: CommandInterface::Effort,
            joints: vec![ActionJoint {
                joint: joint(),
                offset: 0.0,
                scale: 0.5,
            }],
        },
        control_period_ns: 20_000_000,
        goal: None,
    }
}
