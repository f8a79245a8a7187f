//! A robot's body in the simulator: commands go in at any time and act after a delay, the state comes out.

use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::CommandInterface;

use super::robot_task::{RobotTask, Start};
use super::rollout::{FullState, copy_part};
use crate::SimError;
use crate::physics::{ActuatorIndex, Element, JointIndex, Physics};
use crate::randomize::{DelayLine, Draw};

/// A robot in MuJoCo.
pub struct Body {
    physics: Physics,
    joints: Vec<JointIndex>,
    actuators: Vec<ActuatorIndex>,
    /// The site that shows the goal, where there is one.
    goal_site: Option<usize>,
    /// Positions and velocities after the last physics step, and the episode's goal; `previous_action` belongs to whoever
    /// controls.
    state: RobotState,
    delay: DelayLine,
    effort_interface: bool,
    command_scale: f64,
}

impl Body {
    /// Loads the task's model and finds the joints and actuators of its spec.
    ///
    /// # Errors
    /// [`SimError::Model`], [`SimError::MissingElement`] or [`SimError::Spec`].
    pub fn new(task: &dyn RobotTask) -> Result<Self, SimError> {
        let spec = task.spec();
        spec.validate()?;
        let physics = Physics::from_xml(task.model())?;
        let joints = spec.joints.iter().map(|joint| physics.joint(&joint.name));
        let joints = joints.collect::<Result<Vec<_>, _>>()?;
        let actuators = spec.action.joints.iter().map(|a| physics.actuator(&a.joint));
        let actuators = actuators.collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            delay: DelayLine::new(0, vec![0.0; actuators.len()]),
            state: RobotState::zeros(spec),
            effort_interface: spec.action.interface == CommandInterface::Effort,
            command_scale: 1.0,
            goal_site: physics.id(Element::Site, "goal").ok(),
            physics,
            joints,
            actuators,
        })
    }

    /// Puts the robot where an episode starts, with `acting` as the command in effect.
    pub(crate) fn restart(&mut self, start: &Start, acting: Vec<f64>, draw: Draw, rescale: bool) {
        if rescale {
            self.physics.scale_parameters(draw.mass, draw.damping);
        }
        self.command_scale = if self.effort_interface { draw.effort } else { 1.0 };
        self.physics.reset();
        let values = start.positions.iter().zip(&start.velocities);
        for (joint, (position, velocity)) in self.joints.iter().zip(values) {
            self.physics.place(*joint, *position, *velocity);
        }
        self.set_goal(start.goal);
        self.physics.forward();
        self.delay = DelayLine::new(draw.delay, acting);
        self.read_state();
    }

    /// Puts the goal somewhere, m, and with it the site that shows it.
    pub(crate) fn set_goal(&mut self, goal: [f64; 3]) {
        self.state.goal = goal;
        for (axis, coordinate) in goal.into_iter().enumerate() {
            if let Some(site) = self.goal_site {
                self.physics.set_site_position(site, axis, coordinate);
            }
        }
    }

    /// Sends a command, in the unit of the robot's interface, `[A]`. It acts after the delay, until the next one.
    pub fn send(&mut self, command: &[f64]) {
        self.delay.send(command);
    }

    /// Advances by one physics step.
    ///
    /// # Errors
    /// [`SimError::Unstable`].
    pub fn advance(&mut self) -> Result<(), SimError> {
        for (actuator, command) in self.actuators.iter().zip(self.delay.advance()) {
            self.physics.command(*actuator, self.command_scale * command);
        }
        self.physics.step()?;
        self.read_state();
        Ok(())
    }

    /// Sets the parts of the state that are given.
    pub(crate) fn place(&mut self, state: &FullState) -> Result<(), SimError> {
        copy_part("qpos", state.qpos.as_ref(), self.physics.qpos_mut())?;
        copy_part("qvel", state.qvel.as_ref(), self.physics.qvel_mut())?;
        copy_part("act", state.act.as_ref(), self.physics.act_mut())?;
        copy_part(
            "qacc_warmstart",
            state.qacc_warmstart.as_ref(),
            self.physics.qacc_warmstart_mut(),
        )?;
        if let Some(time) = state.time {
            self.physics.set_time(time);
        }
        self.physics.forward();
        self.read_state();
        Ok(())
    }

    /// The model and its state.
    pub(crate) fn physics(&self) -> &Physics {
        &self.physics
    }

    /// The model and its state, to be drawn.
    pub(crate) fn physics_mut(&mut self) -> &mut Physics {
        &mut self.physics
    }

    fn read_state(&mut self) {
        for (index, joint) in self.joints.iter().enumerate() {
            self.state.positions[index] = self.physics.position(*joint);
            self.state.velocities[index] = self.physics.velocity(*joint);
        }
    }

    /// Positions and velocities, in the order of the spec's joints.
    pub fn state(&self) -> &RobotState {
        &self.state
    }

    /// Remembers the action that the controller sees as its last.
    pub(crate) fn set_previous_action(&mut self, action: &[f32]) {
        self.state.previous_action.clear();
        self.state.previous_action.extend_from_slice(action);
    }

    /// Motor efforts in the last physics step, N m, in the order of the spec's joints.
    pub fn efforts(&self, out: &mut Vec<f64>) {
        out.clear();
        out.extend(self.joints.iter().map(|joint| self.physics.effort(*joint)));
    }

    /// Simulated time since the restart, s.
    pub fn time(&self) -> f64 {
        self.physics.time()
    }

    /// Physics step, s.
    pub fn timestep(&self) -> f64 {
        self.physics.timestep()
    }
}
