//! Robot state to observation, and action to command: the two functions that training and the robot share, so that
//! the network sees and does the same thing in both places. Neither allocates.

use nalgebra::DVector;

use crate::spec::{ObservationTerm, RobotSpec, SpecError};

/// The state of the robot at one instant, in the order of [`RobotSpec::joints`].
#[derive(Debug, Clone, PartialEq)]
pub struct RobotState {
    /// Joint positions, rad, `[J]`.
    pub positions: DVector<f64>,
    /// Joint velocities, rad/s, `[J]`.
    pub velocities: DVector<f64>,
    /// The action sent one control period earlier, in `[-1, 1]`, `[A]`; zeros at the start.
    pub previous_action: Vec<f32>,
    /// The goal, m, in the frame of [`crate::spec::GoalSpec`]; zeros where there is none.
    pub goal: [f64; 3],
}

impl RobotState {
    /// All joints at zero, at rest, nothing sent yet.
    pub fn zeros(spec: &RobotSpec) -> Self {
        Self {
            positions: DVector::zeros(spec.joints.len()),
            velocities: DVector::zeros(spec.joints.len()),
            previous_action: vec![0.0; spec.action_size()],
            goal: [0.0; 3],
        }
    }
}

/// One observation term with its joint name replaced by an index.
#[derive(Debug, Clone, Copy)]
enum Term {
    Position(usize, f64),
    Sin(usize),
    Cos(usize),
    Velocity(usize, f64),
    PreviousAction(usize),
    Goal(usize, f64),
}

/// Builds observations of one robot.
#[derive(Debug, Clone)]
pub struct ObservationBuilder {
    terms: Vec<Term>,
}

impl ObservationBuilder {
    /// Resolves the joint names of the layout once.
    ///
    /// # Errors
    /// A [`SpecError`] when the spec is not valid.
    pub fn new(spec: &RobotSpec) -> Result<Self, SpecError> {
        spec.validate()?;
        // `validate` has found every name, so that no term is dropped here.
        let index = |joint: &str| spec.joint_index(joint);
        let terms = spec
            .observation
            .terms
            .iter()
            .filter_map(|term| {
                Some(match term {
                    ObservationTerm::Position { joint, scale } => Term::Position(index(joint)?, *scale),
                    ObservationTerm::SinPosition { joint } => Term::Sin(index(joint)?),
                    ObservationTerm::CosPosition { joint } => Term::Cos(index(joint)?),
                    ObservationTerm::Velocity { joint, scale } => Term::Velocity(index(joint)?, *scale),
                    ObservationTerm::PreviousAction { index } => Term::PreviousAction(*index),
                    ObservationTerm::Goal { axis, scale } => Term::Goal(axis.index(), *scale),
                })
            })
            .collect();
        Ok(Self { terms })
    }

    /// Number of components.
    pub fn size(&self) -> usize {
        self.terms.len()
    }

    /// Writes the observation of `state` into `out` (`[S]`). A state or an `out` of another size leaves the
    /// components that have no source at 0; the callers' types rule that out.
    pub fn build(&self, state: &RobotState, out: &mut [f32]) {
        let position = |joint: usize| state.positions.get(joint).copied().unwrap_or(0.0);
        for (slot, term) in out.iter_mut().zip(&self.terms) {
            *slot = match *term {
                Term::Position(joint, scale) => (position(joint) * scale) as f32,
                Term::Sin(joint) => position(joint).sin() as f32,
                Term::Cos(joint) => position(joint).cos() as f32,
                Term::Velocity(joint, scale) => {
                    (state.velocities.get(joint).copied().unwrap_or(0.0) * scale) as f32
                }
                Term::PreviousAction(index) => state.previous_action.get(index).copied().unwrap_or(0.0),
                Term::Goal(axis, scale) => (state.goal.get(axis).copied().unwrap_or(0.0) * scale) as f32,
            };
        }
    }
}

/// Turns actions of one robot into commands.
#[derive(Debug, Clone)]
pub struct ActionMap {
    offset_scale: Vec<(f64, f64)>,
}

impl ActionMap {
    /// Reads offsets and scales once.
    ///
    /// # Errors
    /// A [`SpecError`] when the spec is not valid.
    pub fn new(spec: &RobotSpec) -> Result<Self, SpecError> {
        spec.validate()?;
        let offset_scale = spec.action.joints.iter().map(|j| (j.offset, j.scale)).collect();
        Ok(Self { offset_scale })
    }

    /// Number of components.
    pub fn size(&self) -> usize {
        self.offset_scale.len()
    }

    /// `out[i] = offset[i] + scale[i] * clip(action[i], -1, 1)`, in the interface's unit and in the order of
    /// [`crate::spec::ActionSpec::joints`].
    pub fn command(&self, action: &[f32], out: &mut [f64]) {
        for ((slot, (offset, scale)), a) in out.iter_mut().zip(&self.offset_scale).zip(action) {
            *slot = offset + scale * f64::from(a.clamp(-1.0, 1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Axis, GoalSpec};
    use crate::testing::one_joint_robot;

    #[test]
    fn observation_follows_the_layout() {
        let spec = one_joint_robot();
        let builder = ObservationBuilder::new(&spec).unwrap();
        let mut state = RobotState::zeros(&spec);
        state.positions[0] = 0.3;
        state.velocities[0] = 4.0;
        state.previous_action[0] = -0.5;
        let mut out = vec![9.0; builder.size()];
        builder.build(&state, &mut out);
        assert_eq!(out, vec![0.3f64.sin() as f32, 0.3f64.cos() as f32, 0.4, -0.5]);
    }

    #[test]
    fn the_goal_is_observed_by_its_axes() {
        let mut spec = one_joint_robot();
        spec.goal = Some(GoalSpec {
            frame: "base".into(),
            min: [-1.0; 3],
            max: [1.0; 3],
        });
        spec.observation.terms = [(Axis::Z, 2.0), (Axis::X, -1.0)]
            .map(|(axis, scale)| ObservationTerm::Goal { axis, scale })
            .into();
        let mut state = RobotState::zeros(&spec);
        state.goal = [0.1, 0.2, 0.3];
        let mut out = [9.0; 2];
        ObservationBuilder::new(&spec).unwrap().build(&state, &mut out);
        assert_eq!(out, [0.6, -0.1]);
    }

    #[test]
    fn actions_are_clipped_before_they_are_scaled() {
        let map = ActionMap::new(&one_joint_robot()).unwrap();
        let mut out = [0.0];
        map.command(&[2.0], &mut out);
        assert_eq!(out, [0.5]);
        map.command(&[-0.5], &mut out);
        assert_eq!(out, [-0.25]);
    }
}
