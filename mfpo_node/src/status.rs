//! What `policy/status` says, put together away from the control loop from what the loop has noted.

use std::sync::Arc;

use mfpo_ros::parameters::closest;

use crate::joint_states::Refusal;
use crate::metrics::{Figures, Live, LoopState, TickRecord, read};
use crate::safety::Verdict;
use crate::time::MonoTime;
use crate::weights::PolicyIdentity;

/// Why the loop is in its state.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// Nothing to explain.
    None,
    /// The joint states.
    States(Verdict),
    /// The policy gave no action, in its words.
    Policy(String),
}

/// What the loop tells besides its counters; rare, and pushed without waiting.
#[derive(Debug)]
pub enum LoopEvent {
    /// The loop has taken over a policy.
    WentLive {
        /// The policy that acts from now on.
        current: Arc<PolicyIdentity>,
        /// The one that is kept.
        previous: Option<Arc<PolicyIdentity>>,
        /// Does it take the place of another?
        is_swap: bool,
    },
    /// The loop is in another state.
    State(LoopState, Cause),
    /// A joint state was refused.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Refusals of this kind that were not told since the last one.
        untold: u64,
    },
    /// A message named joints that the policy does not know.
    UnknownJoints(Vec<String>),
}

/// The state of the node in words and numbers.
#[derive(Default)]
pub struct Status {
    /// Joint names of the policy's robot.
    pub joint_names: Vec<String>,
    /// The policy that acts.
    pub current: Option<Arc<PolicyIdentity>>,
    /// The one that is kept.
    pub previous: Option<Arc<PolicyIdentity>>,
    /// Bundles refused.
    pub rejections: u64,
    /// Why the last one was.
    pub last_rejection: String,
    /// Does a bundle wait because swaps are frozen?
    pub is_frozen_with_pending: bool,
    /// Latency and rate.
    pub figures: Figures,
    state: Option<LoopState>,
    reason: String,
}

impl Status {
    /// Takes over what one tick took.
    pub fn record(&mut self, record: TickRecord) {
        self.figures.record(record);
    }

    /// Takes over an event and logs it.
    pub fn absorb(&mut self, event: LoopEvent) {
        match event {
            LoopEvent::WentLive {
                current,
                previous,
                is_swap,
            } => {
                let how = if is_swap { "swapped to" } else { "starting with" };
                tracing::info!(
                    "{how} policy version {} of run '{}' for robot '{}' ({:.1} us an action)",
                    current.version,
                    current.run,
                    current.robot,
                    current.latency * 1e6
                );
                self.current = Some(current);
                self.previous = previous;
            }
            LoopEvent::State(state, cause) => self.enter(state, &cause),
            LoopEvent::Refused { refusal, untold } if untold > 0 => {
                tracing::warn!("{refusal} ({untold} more like it since the last line)");
            }
            LoopEvent::Refused { refusal, .. } => tracing::warn!("{refusal}"),
            LoopEvent::UnknownJoints(names) => self.explain_unknown(&names),
        }
    }

    /// A bundle was refused.
    pub fn reject(&mut self, reason: &str) {
        self.rejections += 1;
        self.last_rejection = reason.to_owned();
        tracing::warn!("bundle refused, the running policy is untouched: {reason}");
    }

    /// One line that says what the node does and, where it does not act, why.
    pub fn message(&self, live: &Live, now: MonoTime) -> String {
        let frozen = if self.is_frozen_with_pending {
            "; a newer bundle waits for accept_bundles"
        } else {
            ""
        };
        let text = match live.state() {
            LoopState::WaitingForPolicy => {
                "waiting for a policy on topic policy/bundle (or parameter policy); commanding nothing"
                    .to_owned()
            }
            LoopState::WaitingForStates => {
                let names = self.silent_joints(live, now);
                format!("waiting for the state of joints [{names}]; commanding nothing")
            }
            LoopState::Active => "the policy commands the robot".to_owned(),
            LoopState::Fallback => format!("the fallback commands the robot: {}", self.reason),
            LoopState::Stopped => "stopped; the last safe command has been sent".to_owned(),
        };
        text + frozen
    }

    fn silent_joints(&self, live: &Live, now: MonoTime) -> String {
        let ages = live.joint_ages(now);
        let silent: Vec<&str> = self
            .joint_names
            .iter()
            .zip(&ages)
            .filter(|(_, age)| age.is_infinite())
            .map(|(name, _)| name.as_str())
            .collect();
        if silent.is_empty() {
            self.joint_names.join(", ")
        } else {
            silent.join(", ")
        }
    }

    fn enter(&mut self, state: LoopState, cause: &Cause) {
        self.reason = self.explain(cause);
        let was = self.state.replace(state);
        match state {
            LoopState::Active if was == Some(LoopState::Fallback) => {
                tracing::info!("states are fresh again: the policy commands the robot");
            }
            LoopState::Active => tracing::info!("every joint reports: the policy commands the robot"),
            LoopState::Fallback => tracing::warn!("the fallback commands the robot: {}", self.reason),
            LoopState::WaitingForStates => {
                tracing::info!(
                    "waiting for the state of joints [{}]; commanding nothing",
                    self.joint_names.join(", ")
                );
            }
            LoopState::WaitingForPolicy => tracing::info!("waiting for a policy; commanding nothing"),
            LoopState::Stopped => tracing::info!("stopped; the last safe command has been sent"),
        }
    }

    fn explain(&self, cause: &Cause) -> String {
        let name = |joint: &usize| self.joint_names.get(*joint).map_or("?", String::as_str);
        match cause {
            Cause::None | Cause::States(Verdict::Fresh) => String::new(),
            Cause::States(Verdict::Missing { joint }) => {
                format!("joint '{}' has no fresh position and velocity", name(joint))
            }
            Cause::States(Verdict::Stale { joint, age }) => {
                format!(
                    "joint '{}' has not reported for {:.0} ms",
                    name(joint),
                    *age as f64 * 1e-6
                )
            }
            Cause::Policy(error) => format!("the policy gave no action: {error}"),
        }
    }

    fn explain_unknown(&self, names: &[String]) {
        for name in names {
            let known = self.joint_names.iter().map(String::as_str);
            let closest = closest(name, known).unwrap_or_default();
            tracing::info!(
                "joint '{name}' is not one of the policy's and is left out (closest: '{closest}')"
            );
        }
    }
}

/// The counters of a status message.
pub fn counters(live: &Live) -> [u64; 5] {
    [
        read(&live.swaps),
        read(&live.ticks),
        read(&live.missed_ticks),
        read(&live.fallback_ticks),
        read(&live.interventions),
    ]
}
