//! Our types to messages.

use std::sync::Arc;

use mfpo_policy::spec::RobotSpec;
use mfpo_ros::{convert, time};

use super::r2r;
use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus, KeyValue};
use r2r::mfpo_msgs::msg::{PolicyAction, PolicyStatus};
use r2r::std_msgs::msg::Float64MultiArray;
use r2r::trajectory_msgs::msg::JointTrajectory;

use crate::config::CommandTopic;
use crate::control_loop::Tick;
use crate::diagnostics::Diagnostic;
use crate::lifecycle;
use crate::metrics::{Live, read};
use crate::safety::{Rule, SafeCommand};
use crate::sim_time::SimTime;
use crate::status::Status;
use crate::time::MonoTime;
use crate::weights::PolicyIdentity;

/// Stamps of messages: system time, or the simulated time of /clock with `use_sim_time`.
#[derive(Clone)]
pub struct Stamps {
    simulated: Option<Arc<SimTime>>,
}

impl Stamps {
    /// Of simulated time, which somebody has to tell, or of the system's.
    pub fn new(are_simulated: bool) -> Self {
        Self {
            simulated: are_simulated.then(Arc::default),
        }
    }

    /// Simulated time, where they are of that.
    pub fn simulated(&self) -> Option<&Arc<SimTime>> {
        self.simulated.as_ref()
    }

    /// The stamp of now.
    pub fn now(&self) -> r2r::builtin_interfaces::msg::Time {
        match &self.simulated {
            Some(clock) => time::stamp(clock.newest()),
            None => time::now(),
        }
    }
}

/// The subscribers of `commands`.
#[derive(Default)]
pub enum Receivers {
    /// Of `std_msgs/Float64MultiArray`.
    Array(r2r::Publisher<Float64MultiArray>),
    /// Of `trajectory_msgs/JointTrajectory`.
    Trajectory(r2r::Publisher<JointTrajectory>),
    /// There is no such topic.
    #[default]
    Nobody,
}

impl Receivers {
    /// How many the middleware serves: those whose type and quality of service fit. `None` where there is no topic.
    pub fn count(&self) -> Option<usize> {
        match self {
            Self::Array(publisher) => publisher.get_inter_process_subscription_count().ok(),
            Self::Trajectory(publisher) => publisher.get_inter_process_subscription_count().ok(),
            Self::Nobody => None,
        }
    }
}

/// Publishes commands, of either type. It takes nothing but a [`SafeCommand`].
pub enum CommandPublisher {
    /// `std_msgs/Float64MultiArray`.
    Array(r2r::Publisher<Float64MultiArray>, Float64MultiArray),
    /// `trajectory_msgs/JointTrajectory`.
    Trajectory(r2r::Publisher<JointTrajectory>, JointTrajectory),
    /// A dry run: there is no topic, so that nothing can leave.
    Nothing,
}

impl CommandPublisher {
    /// Announces the topic `commands`.
    ///
    /// # Errors
    /// When rcl refuses it.
    pub fn new(node: &mut r2r::Node, topic: CommandTopic, qos: r2r::QosProfile) -> r2r::Result<Self> {
        Ok(match topic {
            CommandTopic::Float64MultiArray => Self::Array(
                node.create_publisher("commands", qos)?,
                Float64MultiArray::default(),
            ),
            CommandTopic::JointTrajectory => Self::Trajectory(
                node.create_publisher("commands", qos)?,
                JointTrajectory::default(),
            ),
        })
    }

    /// Who receives the commands, for another thread to ask.
    pub fn receivers(&self) -> Receivers {
        match self {
            Self::Array(publisher, _) => Receivers::Array(publisher.clone()),
            Self::Trajectory(publisher, _) => Receivers::Trajectory(publisher.clone()),
            Self::Nothing => Receivers::Nobody,
        }
    }

    /// Makes the message as large as the robot's commands.
    pub fn prepare(&mut self, spec: &RobotSpec) {
        match self {
            Self::Array(_, message) => *message = convert::command_array(spec.action_size()),
            Self::Trajectory(_, message) => *message = convert::command_trajectory(spec),
            Self::Nothing => {}
        }
    }

    /// Hands a command to rmw.
    ///
    /// # Errors
    /// When rcl does not take it.
    pub fn publish(&mut self, command: &SafeCommand) -> r2r::Result<()> {
        match self {
            Self::Array(publisher, message) => {
                message.data.clear();
                message.data.extend_from_slice(command.values());
                publisher.publish(message)
            }
            Self::Trajectory(publisher, message) => {
                if let Some(values) = convert::trajectory_values(message) {
                    values.clear();
                    values.extend_from_slice(command.values());
                }
                publisher.publish(message)
            }
            Self::Nothing => Ok(()),
        }
    }
}

/// When things of one tick happened.
pub struct TickTimes {
    /// Number of the deadline.
    pub sequence: u64,
    /// Stamp of the oldest joint state in use, ns, and its arrival.
    pub oldest: (i64, MonoTime),
    /// When the tick began: when the states were taken.
    pub taken: MonoTime,
    /// When the command was ready.
    pub decided: MonoTime,
    /// When it was with rmw.
    pub handed_over: MonoTime,
}

/// Writes the record of a tick.
pub fn fill_action(message: &mut PolicyAction, tick: &Tick<'_>, times: &TickTimes) {
    message.sequence = times.sequence;
    message.state_stamp = time::stamp(times.oldest.0);
    message.state_age = seconds(times.taken.since(times.oldest.1));
    copy(&mut message.action, tick.action);
    copy(&mut message.command_raw, tick.raw);
    copy(&mut message.command, tick.command.values());
    // What the guard refused made no command.
    let asked = tick.asked.filter(|_| tick.fallback.is_none());
    let depth = asked.map(|asked| (asked.depth, asked.draw));
    message.steps = depth.map_or(0, |(depth, _)| count(depth.steps));
    message.candidates = depth.map_or(0, |(depth, _)| count(depth.candidates));
    message.in_stages = depth.is_some_and(|(depth, _)| depth.in_stages);
    message.draw = depth.map_or(0, |(_, draw)| draw);
    let before = asked.and_then(|asked| asked.before);
    message.policy_weight = before.map_or(1.0, |before| before.weight);
    message.interventions = tick.command.interventions();
    message.blend = tick.blend;
    message.fallback = tick.fallback.is_some();
    message.compute_time = seconds(times.decided.since(times.taken));
    message.latency = seconds(times.handed_over.since(times.taken));
}

/// Writes the record of a command on the way to a stop; the states are those of the record before.
pub fn fill_stop(message: &mut PolicyAction, command: &SafeCommand, sequence: u64) {
    message.sequence = sequence;
    copy(&mut message.command_raw, command.values());
    copy(&mut message.command, command.values());
    (message.steps, message.candidates, message.draw) = (0, 0, 0);
    message.interventions = command.interventions();
    message.blend = 0.0;
    message.fallback = true;
    (message.compute_time, message.latency) = (0.0, 0.0);
}

/// Writes which policy acts.
pub fn fill_identity(message: &mut PolicyAction, identity: &PolicyIdentity) {
    message.run.clone_from(&identity.run);
    message.version = identity.version;
}

/// Writes which policy it is taking over from, during a blend.
pub fn fill_before(message: &mut PolicyAction, before: Option<&PolicyIdentity>) {
    message.previous_run.clear();
    if let Some(before) = before {
        message.previous_run.push_str(&before.run);
    }
    message.previous_version = before.map_or(0, |before| before.version);
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn copy<T: Copy>(to: &mut Vec<T>, from: &[T]) {
    to.clear();
    to.extend_from_slice(from);
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 * 1e-9
}

/// The status message, but for its stamp.
pub fn status_message(status: &Status, live: &Live, life: lifecycle::State, now: MonoTime) -> PolicyStatus {
    let figures = status.figures.shown(now);
    let current = status.current.as_deref();
    PolicyStatus {
        state: status.state(live) as u8,
        lifecycle: life.label().to_owned(),
        message: status.message(live, now),
        robot: current.map(|p| p.robot.clone()).unwrap_or_default(),
        run: current.map(|p| p.run.clone()).unwrap_or_default(),
        version: current.map(|p| p.version).unwrap_or_default(),
        digest: current.map(|p| p.digest.clone()).unwrap_or_default(),
        weights_digest: current.map(|p| p.weights_digest.clone()).unwrap_or_default(),
        previous_digest: status
            .previous
            .as_ref()
            .map(|p| p.digest.clone())
            .unwrap_or_default(),
        swaps: read(&live.swaps),
        rollbacks: read(&live.rollbacks),
        swap_stage: status.swap.stage().unwrap_or_default().to_owned(),
        staged_version: status.swap.version(),
        swap_returns: read(&live.swap_returns),
        last_swap_return: status.swap.last_return().to_owned(),
        rejections: status.rejections,
        last_rejection: status.last_rejection.clone(),
        competing_runs: status.competing_runs.clone(),
        ticks: read(&live.ticks),
        missed_ticks: read(&live.missed_ticks),
        fallback_ticks: read(&live.fallback_ticks),
        fallbacks: read(&live.fallbacks),
        refused_states: read(&live.refused_states),
        interventions: read(&live.interventions),
        command_joints: status.command_joints.clone(),
        rules: Rule::NAMES.map(str::to_owned).to_vec(),
        interventions_by_rule: live.interventions_by_rule(),
        tick_rate: figures.tick_rate,
        latency_p50: figures.latency_p50,
        latency_p99: figures.latency_p99,
        latency_max: figures.latency_max,
        steps_mean: figures.steps,
        candidates_mean: figures.candidates,
        joint_names: status.joint_names.clone(),
        joint_ages: live.joint_ages(now),
        dry_run: status.is_dry_run,
        robot_description: status.robot_description.clone(),
        ..Default::default()
    }
}

/// The diagnostics message, but for its stamp.
pub fn diagnostics_message(parts: Vec<Diagnostic>, node: &str, robot: &str) -> DiagnosticArray {
    let status = |part: Diagnostic| DiagnosticStatus {
        level: part.level as u8,
        name: format!("{node}: {}", part.name),
        message: part.message,
        hardware_id: robot.to_owned(),
        values: part
            .values
            .into_iter()
            .map(|(key, value)| KeyValue { key, value })
            .collect(),
    };
    DiagnosticArray {
        status: parts.into_iter().map(status).collect(),
        ..Default::default()
    }
}
