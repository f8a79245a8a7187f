//! Why the loop is in its state, in words that name the joint.

use mfpo_ros::parameters::closest;

use super::Status;
use crate::control_loop::{NotReady, Reason};
use crate::probe::Mode;
use crate::safety::{NotEnabled, Outside, Rule, Unknown, Verdict};

/// Why a policy that needs a goal does not act.
const NO_GOAL: &str =
    "the policy needs a goal: publish one on topic goal (geometry_msgs/PointStamped, in the robot's base)";

/// Why the loop is in its state.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// Nothing to explain.
    None,
    /// The joint states.
    States(Verdict),
    /// The policy gave no action, in its words.
    Policy(String),
    /// `~/stop` was called.
    Stopped,
    /// The heartbeat is missing.
    NotEnabled(NotEnabled),
    /// The policy needs a goal.
    NoGoal,
    /// The fallback commanded a moment ago.
    Recovering {
        /// Good inputs that are needed; `None` waits for an explicit start.
        needed: Option<u64>,
    },
    /// The observation is outside what the policy knows.
    Guard(Unknown),
}

impl Cause {
    /// The cause for a reason.
    pub fn of(reason: &Reason) -> Self {
        match reason {
            Reason::States(verdict) => Self::States(*verdict),
            Reason::Policy(error) => Self::Policy(error.to_string()),
            Reason::Stopped => Self::Stopped,
            Reason::NotEnabled(missing) => Self::NotEnabled(*missing),
            Reason::NoGoal => Self::NoGoal,
            Reason::Recovering { needed, .. } => Self::Recovering { needed: *needed },
            Reason::Guard(unknown) => Self::Guard(*unknown),
        }
    }
}

impl Status {
    pub(super) fn explain_probing(&self, joint: usize, mode: Mode) -> String {
        let name = self.name(joint);
        match mode {
            Mode::Move => format!("joint '{name}' is moved a little"),
            Mode::ByHand => format!(
                "move joint '{name}' by hand by about {} rad (m) in its positive direction, and hold it there",
                self.by_hand
            ),
        }
    }

    /// Why the policy may not begin, in words.
    pub fn explain_not_ready(&self, not_ready: &NotReady) -> String {
        match not_ready {
            NotReady::States(verdict) => self.explain_verdict(verdict),
            NotReady::NotEnabled(missing) => explain_enable(*missing),
            NotReady::NoGoal => NO_GOAL.to_owned(),
            NotReady::Outside(outside) => self.explain_outside(outside),
        }
    }

    /// [`Status::explain_not_ready`] for whoever asked for it, with what may be behind it.
    pub fn explain_refusal(&self, not_ready: &NotReady) -> String {
        self.explain_not_ready(not_ready) + &self.unheard_inputs()
    }

    fn name(&self, joint: usize) -> &str {
        self.joint_names.get(joint).map_or("?", String::as_str)
    }

    fn explain_outside(&self, outside: &Outside) -> String {
        let (what, unit) = match outside.rule {
            Rule::Position => ("position", "rad"),
            _ => ("velocity", "rad/s"),
        };
        format!(
            "the {what} of joint '{}' is {:.4} {unit}; expected {:.4} to {:.4}",
            self.name(outside.joint),
            outside.got,
            outside.low,
            outside.high
        )
    }

    fn explain_verdict(&self, verdict: &Verdict) -> String {
        match verdict {
            Verdict::Fresh => String::new(),
            Verdict::Missing { joint } => {
                format!("joint '{}' has no fresh position and velocity", self.name(*joint))
            }
            Verdict::Stale { joint, age } => {
                format!(
                    "joint '{}' has not reported for {:.0} ms",
                    self.name(*joint),
                    *age as f64 * 1e-6
                )
            }
            Verdict::Late { joint, age } => {
                format!(
                    "joint '{}' reports late: what came last was held up on its way and is {:.0} ms old",
                    self.name(*joint),
                    *age as f64 * 1e-6
                )
            }
            Verdict::Behind { joint, by } => {
                format!(
                    "joint '{}' reports later and later: its states take {:.0} ms longer on their way than at best; its \
                     publisher, a bridge or the network falls behind (or it is a simulator slower than real time: set use_sim_time)",
                    self.name(*joint),
                    *by as f64 * 1e-6
                )
            }
        }
    }

    /// Why the loop is in its state, in words.
    pub fn explain(&self, cause: &Cause) -> String {
        match cause {
            Cause::None => String::new(),
            Cause::States(verdict) => self.explain_verdict(verdict),
            Cause::Policy(error) => format!("the policy gave no action: {error}"),
            Cause::Guard(Unknown { spread, most }) => format!(
                "the policy does not know what it sees: its candidates are spread by {spread:.3}, expected at most {most:.3} \
                 (parameter guard)"
            ),
            Cause::Stopped => "stopped by ~/stop until ~/start".to_owned(),
            Cause::NotEnabled(missing) => explain_enable(*missing),
            Cause::NoGoal => NO_GOAL.to_owned(),
            Cause::Recovering { needed: None } => {
                "the states are good again; it waits for ~/start (recovery_inputs is 0)".to_owned()
            }
            Cause::Recovering { needed: Some(needed) } => {
                format!("the states are good again; it waits for {needed} good ones in a row")
            }
        }
    }

    pub(super) fn explain_unknown(&self, names: &[String]) {
        for name in names {
            let known = self.joint_names.iter().map(String::as_str);
            let closest = closest(name, known).unwrap_or_default();
            tracing::info!(
                "joint '{name}' is not one of the policy's and is left out (closest: '{closest}')"
            );
        }
    }
}

fn explain_enable(missing: NotEnabled) -> String {
    match missing {
        NotEnabled::Never => "no heartbeat on topic enable yet".to_owned(),
        NotEnabled::Late { age } => {
            format!("no heartbeat on topic enable for {:.0} ms", age as f64 * 1e-6)
        }
        NotEnabled::Withdrawn => "topic enable says false".to_owned(),
    }
}
