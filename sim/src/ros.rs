//! The simulated robot on ROS 2; the only file of this crate that names r2r. Topics are relative: `joint_states`
//! and `robot/episode` out, `goal` where the robot has goals, `commands` in.

use std::sync::mpsc::{Receiver, channel};

use mfpo_ros::r2r::{self, Publisher};
use mfpo_ros::{Inbox, RosError, SpinThread, create_node, qos, time};
use r2r::geometry_msgs::msg::PointStamped;
use r2r::mfpo_msgs::msg::EpisodeResult as EpisodeMessage;
use r2r::sensor_msgs::msg::JointState;
use r2r::std_msgs::msg::Float64MultiArray;
use tracing::warn;

use crate::robot::{EpisodeResult, JointStates, Robot, RobotLink};

/// The robot's link over ROS 2. Commands are received on a thread of their own, whose panic ends the process: a robot that
/// no longer hears commands must not look as if it did. States are published by the thread that steps the physics.
pub struct RosLink {
    /// Held for its drop alone, which ends the thread, before anything else of the link is gone.
    _receives: SpinThread,
    commands: Receiver<Vec<f64>>,
    states: Publisher<JointState>,
    episodes: Publisher<EpisodeMessage>,
    /// Where the robot has goals.
    goals: Option<Publisher<PointStamped>>,
    /// Reused from one publication to the next; holds the joint names.
    message: JointState,
    on_episode: Box<dyn FnMut(&EpisodeResult)>,
}

impl RosLink {
    /// Creates the node `robot` and its topics; `on_episode` sees every result as well.
    ///
    /// # Errors
    /// A [`RosError`] when ROS 2 does not start or refuses a topic.
    pub fn new(robot: &Robot, on_episode: Box<dyn FnMut(&EpisodeResult)>) -> Result<Self, RosError> {
        let mut node = create_node("robot")?;
        let publishing = |topic: &str| RosError::while_doing(format!("publishing on '{topic}'"));
        let states = node
            .create_publisher("joint_states", qos::JOINT_STATES)
            .map_err(publishing("joint_states"))?;
        let episodes = node
            .create_publisher("robot/episode", qos::ROBOT_EPISODE)
            .map_err(publishing("robot/episode"))?;
        let goals = robot.has_goal().then(|| node.create_publisher("goal", qos::GOAL));
        let goals = goals.transpose().map_err(publishing("goal"))?;
        let (receives, commands) = receive_commands(node)?;
        let message = JointState {
            name: robot.joints().iter().map(|joint| joint.name.clone()).collect(),
            ..JointState::default()
        };
        Ok(Self {
            _receives: receives,
            commands,
            states,
            episodes,
            goals,
            message,
            on_episode,
        })
    }
}

/// Spins the node, and passes every command on.
fn receive_commands(mut node: r2r::Node) -> Result<(SpinThread, Receiver<Vec<f64>>), RosError> {
    let mut inbox: Inbox<Float64MultiArray> = Inbox::subscribe(&mut node, "commands", qos::COMMANDS)?;
    let (sender, commands) = channel();
    let thread = SpinThread::start_showing(node, "commands", move |_| {
        while let Some(message) = inbox.pop() {
            // The robot takes no more only while it ends.
            let _ = sender.send(message.data);
        }
    });
    let thread = thread.map_err(|error| RosError::Rcl {
        doing: "starting the thread that receives commands",
        reason: error.to_string(),
    })?;
    Ok((thread, commands))
}

impl RobotLink for RosLink {
    fn receive(&mut self) -> Option<Vec<f64>> {
        self.commands.try_recv().ok()
    }

    fn publish_states(&mut self, states: &JointStates) {
        self.message.header.stamp = time::now();
        self.message.position.clone_from(&states.positions);
        self.message.velocity.clone_from(&states.velocities);
        self.message.effort.clone_from(&states.efforts);
        if let Err(error) = self.states.publish(&self.message) {
            warn!("joint state not published: {error}");
        }
    }

    fn publish_goal(&mut self, frame: &str, [x, y, z]: [f64; 3]) {
        let Some(goals) = &self.goals else { return };
        let mut goal = PointStamped::default();
        goal.header.stamp = time::now();
        goal.header.frame_id = frame.to_owned();
        (goal.point.x, goal.point.y, goal.point.z) = (x, y, z);
        if let Err(error) = goals.publish(&goal) {
            warn!("goal not published: {error}");
        }
    }

    fn publish_episode(&mut self, result: &EpisodeResult) {
        let message = EpisodeMessage {
            stamp: time::now(),
            index: result.index,
            seed: result.seed,
            success: result.success,
            episode_return: result.episode_return,
            duration: result.duration,
            real_time_factor: result.real_time_factor,
            commands_received: result.commands_received,
            timeouts: result.timeouts,
        };
        if let Err(error) = self.episodes.publish(&message) {
            warn!("result of episode {} not published: {error}", result.index);
        }
        (self.on_episode)(result);
    }
}
