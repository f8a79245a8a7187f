//! Messages to and from the types of `mfpo_policy`.

use std::time::Duration;

use mfpo_policy::spec::{CommandInterface, RobotSpec};
use r2r::builtin_interfaces::msg::Time;
use r2r::mfpo_msgs::msg::PolicyBundle;
use r2r::sensor_msgs::msg::JointState;
use r2r::std_msgs::msg::{Float64MultiArray, Header, MultiArrayDimension, MultiArrayLayout};
use r2r::trajectory_msgs::msg::{JointTrajectory, JointTrajectoryPoint};

/// Joint names of the robot's spec, in its order.
pub fn joint_names(spec: &RobotSpec) -> Vec<String> {
    spec.joints.iter().map(|joint| joint.name.clone()).collect()
}

/// Names of the joints that are commanded, in the order of the commands.
pub fn command_names(spec: &RobotSpec) -> Vec<String> {
    spec.action
        .joints
        .iter()
        .map(|joint| joint.joint.clone())
        .collect()
}

/// A `sensor_msgs/JointState` without efforts. `positions` in rad, `velocities` in rad/s.
pub fn joint_state(stamp: Time, names: Vec<String>, positions: Vec<f64>, velocities: Vec<f64>) -> JointState {
    JointState {
        header: Header {
            stamp,
            frame_id: String::new(),
        },
        name: names,
        position: positions,
        velocity: velocities,
        effort: Vec::new(),
    }
}

/// An empty command of `size` joints, as ros2_control's forward command controllers read it.
pub fn command_array(size: usize) -> Float64MultiArray {
    let size_u32 = u32::try_from(size).unwrap_or(u32::MAX);
    Float64MultiArray {
        layout: MultiArrayLayout {
            dim: vec![MultiArrayDimension {
                label: "joint".into(),
                size: size_u32,
                stride: size_u32,
            }],
            data_offset: 0,
        },
        data: vec![0.0; size],
    }
}

/// An empty one-point trajectory for the commanded joints, to be reached within one control period.
pub fn command_trajectory(spec: &RobotSpec) -> JointTrajectory {
    let zeros = || vec![0.0; spec.action_size()];
    let mut point = JointTrajectoryPoint {
        time_from_start: duration(Duration::from_nanos(spec.control_period_ns)),
        ..Default::default()
    };
    match spec.action.interface {
        CommandInterface::Position => point.positions = zeros(),
        CommandInterface::Velocity => point.velocities = zeros(),
        CommandInterface::Effort => point.effort = zeros(),
    }
    JointTrajectory {
        header: Header::default(),
        joint_names: command_names(spec),
        points: vec![point],
    }
}

/// The values of a one-point trajectory's only non-empty array, in the order of its joint names.
pub fn trajectory_values(trajectory: &mut JointTrajectory) -> Option<&mut Vec<f64>> {
    let point = trajectory.points.first_mut()?;
    [&mut point.positions, &mut point.velocities, &mut point.effort]
        .into_iter()
        .find(|values| !values.is_empty())
}

/// A `builtin_interfaces/Duration`.
pub fn duration(value: Duration) -> r2r::builtin_interfaces::msg::Duration {
    r2r::builtin_interfaces::msg::Duration {
        sec: i32::try_from(value.as_secs()).unwrap_or(i32::MAX),
        nanosec: value.subsec_nanos(),
    }
}

/// What names a policy in a `mfpo_msgs/PolicyBundle`.
#[derive(Debug, Clone, Copy)]
pub struct BundleName<'a> {
    /// Unique id of the training run.
    pub run: &'a str,
    /// Rises within the run.
    pub version: u64,
    /// Robot the policy was trained for.
    pub robot: &'a str,
    /// Digest as the manifest seals it.
    pub digest: &'a str,
}

/// A `mfpo_msgs/PolicyBundle` stamped now; `data` is the sealed bundle file.
pub fn bundle_message(name: BundleName<'_>, data: Vec<u8>) -> PolicyBundle {
    PolicyBundle {
        stamp: crate::time::now(),
        run: name.run.to_owned(),
        version: name.version,
        robot: name.robot.to_owned(),
        digest: name.digest.to_owned(),
        path: String::new(),
        data,
    }
}
