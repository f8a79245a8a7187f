//! Why the loop is in its state, in words that name the joint.

use std::mem::discriminant;

use mfpo_ros::parameters::closest;

use super::Status;
use crate::control_loop::{NotReady, Reason};
use crate::goal::NoGoal;
use crate::metrics::LoopState;
use crate::probe::Mode;
use crate::safety::{NotEnabled, Outside, Rule, Unknown, Verdict};
use crate::time::MonoTime;

/// A reason that changes without the state is logged at most once in this time, ns.
const LOG_EVERY: u64 = 5_000_000_000;

/// Why a policy that needs a goal does not act.
const NO_GOAL: &str =
    "the policy needs a goal: publish one on topic goal (geometry_msgs/PointStamped, in the robot's base)";

/// Why a node in simulated time does not act before that has come.
const NO_CLOCK: &str =
    "use_sim_time is set, but /clock has not come yet: start the simulator, or the node without use_sim_time";

/// What becomes of a delay that is none, but a robot's clock that was set or slowed down.
const CLOCK: &str = "it is believed some minutes after it agrees with this machine's; where it never does, start the node anew";

/// Why the loop is in its state.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Cause {
    /// Nothing to explain.
    #[default]
    None,
    /// The joint states.
    States(Verdict),
    /// The policy gave no action, in its words.
    Policy(String),
    /// `~/stop` was called.
    Stopped,
    /// The node ends, and nothing was being commanded.
    Idle,
    /// The heartbeat is missing.
    NotEnabled(NotEnabled),
    /// The policy needs a goal, or a newer one.
    NoGoal(NoGoal),
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
            Reason::NoGoal(missing) => Self::NoGoal(*missing),
            Reason::Recovering { needed, .. } => Self::Recovering { needed: *needed },
            Reason::Guard(unknown) => Self::Guard(*unknown),
        }
    }

    /// The cause for a reason that may be another one of the same kind by now: of another joint, after a longer time.
    /// Nothing is put into words for it, so that the control thread may ask from time to time.
    pub fn moving(reason: &Reason) -> Option<Self> {
        match reason {
            Reason::States(_) | Reason::NotEnabled(_) | Reason::NoGoal(_) | Reason::Guard(_) => {
                Some(Self::of(reason))
            }
            Reason::Policy(_) | Reason::Stopped | Reason::Recovering { .. } => None,
        }
    }

    /// Is it the same trouble with the same joint, or of the same signal?
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::States(a), Self::States(b)) => {
                a.joint() == b.joint() && discriminant(a) == discriminant(b)
            }
            (Self::NotEnabled(a), Self::NotEnabled(b)) => discriminant(a) == discriminant(b),
            (Self::NoGoal(a), Self::NoGoal(b)) => discriminant(a) == discriminant(b),
            (Self::Guard(a), Self::Guard(b)) => a.signal == b.signal,
            _ => discriminant(self) == discriminant(other),
        }
    }
}

/// The reason as it is now, and as the log has it.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) reason: String,
    cause: Cause,
    logged: Cause,
    /// When that was; `None` where it was a moment ago.
    logged_at: Option<MonoTime>,
}

impl Status {
    /// The loop is in a state for this cause, which the log has from now on.
    pub(super) fn begin_reason(&mut self, cause: &Cause) {
        self.told = Told {
            reason: self.explain(cause),
            cause: cause.clone(),
            logged: cause.clone(),
            logged_at: None,
        };
    }

    /// The cause of the same state is this one by now.
    pub(super) fn refresh_reason(&mut self, cause: Cause) {
        self.told.reason = self.explain(&cause);
        self.told.cause = cause;
    }

    /// What is said of a node that has ended.
    pub(super) fn stopped_in_words(&self) -> &'static str {
        match self.told.cause {
            Cause::Idle => "stopped; nothing was being commanded",
            _ if self.is_dry_run => "stopped",
            _ => "stopped; the last safe command has been sent",
        }
    }

    /// Logs a reason of the fallback that has become another one since the last line; `true` where there was one. Joints that
    /// take turns make a line every few seconds, not one a tick.
    pub fn log_reason(&mut self, now: MonoTime) -> bool {
        let told = &mut self.told;
        let since = *told.logged_at.get_or_insert(now);
        let is_known = self.state != Some(LoopState::Fallback) || told.cause.is_like(&told.logged);
        if is_known || now.since(since) < LOG_EVERY {
            return false;
        }
        tracing::warn!("the fallback commands the robot: {}", told.reason);
        told.logged = told.cause.clone();
        told.logged_at = Some(now);
        true
    }

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
            NotReady::NoGoal(missing) => explain_goal(*missing),
            NotReady::Outside(outside) => self.explain_outside(outside),
        }
    }

    /// [`Status::explain_not_ready`] for whoever asked for it, with what may be behind it.
    pub fn explain_refusal(&self, not_ready: &NotReady) -> String {
        self.explain_not_ready(not_ready) + &self.unheard_inputs()
    }

    pub(super) fn name(&self, joint: usize) -> &str {
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
            Verdict::NoClock => NO_CLOCK.to_owned(),
            Verdict::ClockStands { rest } => explain_rest(*rest),
            Verdict::Contradicted { joint } => self.explain_contradiction(*joint),
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
                    "joint '{}' reports late: what came last was held up on its way and is {:.0} ms old (where that stays so, a \
                     queue stays full; or a simulator was paused: set use_sim_time; or the robot's clock was set back: {CLOCK})",
                    self.name(*joint),
                    *age as f64 * 1e-6
                )
            }
            Verdict::Behind { joint, by } => {
                format!(
                    "joint '{}' reports later and later: its states take {:.0} ms longer on their way than at best; its \
                     publisher, a bridge or the network falls behind (or it is a simulator slower than real time: set use_sim_time; or \
                     the robot's clock was slowed down to be set right: {CLOCK})",
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
            Cause::Guard(unknown) => {
                format!("the policy does not know what it sees: {unknown} (parameter guard)")
            }
            Cause::Idle => "nothing was being commanded".to_owned(),
            Cause::Stopped => "stopped by ~/stop until ~/start".to_owned(),
            Cause::NotEnabled(missing) => explain_enable(*missing),
            Cause::NoGoal(missing) => explain_goal(*missing),
            Cause::Recovering { needed: None } => {
                "the inputs are good again; it waits for ~/start (recovery_inputs is 0)".to_owned()
            }
            Cause::Recovering { needed: Some(needed) } => {
                format!("the inputs are good again; it waits for {needed} good ones in a row")
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

fn explain_rest(rest: u64) -> String {
    format!(
        "simulated time stands still: /clock has not moved for {:.1} s; let the simulator go on, or start the node of a real robot \
         without use_sim_time",
        rest as f64 * 1e-9
    )
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

fn explain_goal(missing: NoGoal) -> String {
    match missing {
        NoGoal::Never => NO_GOAL.to_owned(),
        NoGoal::Late { age, timeout } => format!(
            "no goal on topic goal for {:.2} s; expected one at least every {} s (parameter goal_timeout): is its sender still there?",
            age as f64 / 1e9,
            timeout as f64 / 1e9
        ),
    }
}
