//! What `policy/status` says, put together away from the control loop from what the loop has noted.

use std::sync::Arc;

use crate::arrivals::InputPeriods;
use crate::control_loop::NotReady;
use crate::goal::GoalRefusal;
use crate::joint_states::Refusal;
use crate::metrics::{Figures, Live, LoopState, Rounds, TickRecord};
use crate::probe::Mode;
use crate::time::MonoTime;
use crate::weights::{Compared, PolicyIdentity, Stage, Why};

mod reasons;
mod refused;
mod reporters;
mod swap;
mod unheard;

pub use reasons::Cause;
use reasons::Told;
pub use reporters::Reporters;
pub use swap::Swap;
pub use unheard::{Others, UNRECEIVED, Unheard};

/// What everything begins with that a dry run says of itself.
pub const DRY_RUN: &str = "dry run, no command is published: ";

/// Why a node that commands nothing is not on its way to command either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Nothing is configured.
    Unconfigured,
    /// Nobody has asked it to be active.
    Inactive,
    /// It has been shut down.
    Finalized,
}

impl Rest {
    fn message(self) -> &'static str {
        match self {
            Self::Unconfigured => "unconfigured; commanding nothing until it is configured and activated",
            Self::Inactive => "inactive; commanding nothing until it is activated (~/start)",
            Self::Finalized => "shut down; commanding nothing until it is started anew",
        }
    }
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
        /// The stage of its swap that it is in, where one is left.
        stage: Option<Stage>,
    },
    /// A policy is computed in the shadow of the one that acts.
    Shadowing(Arc<PolicyIdentity>),
    /// How it compares; it goes live.
    Compared(Compared),
    /// A policy leaves the shadow without having acted.
    Superseded(Arc<PolicyIdentity>),
    /// The blend is over.
    Blended(Option<Stage>),
    /// The swap is done.
    Committed,
    /// A policy was not let through a stage of its swap.
    Returned {
        /// That policy.
        given_up: Arc<PolicyIdentity>,
        /// The policy that acts from now on.
        current: Arc<PolicyIdentity>,
        /// Why.
        why: Why,
    },
    /// The loop is in another state.
    State(LoopState, Cause),
    /// It is in the same one, for this cause by now.
    Reason(Cause),
    /// A joint state was refused.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Refusals of this kind that were not told since the last one.
        untold: u64,
    },
    /// The policy has a goal, and had none before, m.
    GoalGiven([f64; 3]),
    /// A goal was refused.
    GoalRefused(GoalRefusal),
    /// A message named joints that the policy does not know.
    UnknownJoints(Vec<String>),
    /// The robot is commanded from now on.
    Activated,
    /// It was asked to be, and is not: the robot is not ready.
    NotReady(NotReady),
    /// The same, of a loop that keeps trying.
    NotYetReady(NotReady),
    /// The robot is stopped and no longer commanded.
    Deactivated,
    /// The robot was not at rest after so many ns of a stop, and was sent zero at once.
    StopCut(u64),
    /// The fallback commands until somebody starts the policy again.
    Halted,
    /// The policy commands again.
    Resumed,
    /// The policy before acts again.
    RolledBack {
        /// The policy that acts from now on.
        current: Arc<PolicyIdentity>,
        /// The one that acted, which is kept.
        previous: Option<Arc<PolicyIdentity>>,
    },
    /// There is no policy to go back to.
    NothingBefore,
    /// A joint is probed from now on.
    Probing {
        /// Its index in the spec.
        joint: usize,
        /// Who moves it.
        mode: Mode,
    },
}

/// The state of the node in words and numbers.
#[derive(Default)]
pub struct Status {
    /// Joint names of the policy's robot.
    pub joint_names: Vec<String>,
    /// Names of the joints that are commanded, in the order of the commands.
    pub command_joints: Vec<String>,
    /// Why the node is not on its way to command, where it is not.
    pub rest: Option<Rest>,
    /// The policy that acts.
    pub current: Option<Arc<PolicyIdentity>>,
    /// The one that is kept.
    pub previous: Option<Arc<PolicyIdentity>>,
    /// Bundles refused.
    pub rejections: u64,
    /// Why the last one was.
    pub last_rejection: String,
    /// Training runs that publish bundles at the same time.
    pub competing_runs: Vec<String>,
    /// Does a bundle wait because swaps are frozen?
    pub is_frozen_with_pending: bool,
    /// What the robot's own description does to the limits, or what is wrong with it.
    pub robot_description: String,
    /// Does it contradict the policy's robot?
    pub is_contradicted: bool,
    /// Is everything computed, and no command published?
    pub is_dry_run: bool,
    /// How far an operator is asked to move a joint, rad (m).
    pub by_hand: f64,
    /// Latency and rate.
    pub figures: Figures,
    /// How regularly the joints report.
    pub rounds: Rounds,
    /// The times between states, heartbeats and goals.
    pub periods: InputPeriods,
    /// The swap that is under way.
    pub swap: Swap,
    /// Publishers on the node's topics that it does not hear.
    pub unheard: Vec<Unheard>,
    /// Who else publishes commands, in words.
    pub rivals: Vec<String>,
    /// Who reports joint states.
    pub reporters: Reporters,
    /// Subscribers of `commands` that the middleware serves, where there is such a topic.
    pub receivers: Option<usize>,
    /// Who subscribes to the commands and why they receive nothing, as the last look has found while the robot is commanded.
    pub unserved: Vec<String>,
    /// The robot is commanded, as far as the receivers of the commands go.
    is_commanding: bool,
    /// Nobody receives the commands; the same of the look before, of which nothing was told yet.
    reach_nobody: bool,
    reached_nobody: bool,
    /// For how long the control thread has been standing still, ns, where it does.
    standstill: Option<u64>,
    state: Option<LoopState>,
    /// Why the loop is in that state.
    told: Told,
    /// What the probe does.
    probed: String,
    /// Why the robot is not ready, of a loop that keeps trying.
    not_ready: String,
    /// No bundle has gone live since one was refused.
    just_rejected: bool,
    /// That joints of a single publisher jump is in the log.
    knows_jumps: bool,
    /// What has gone wrong outside of the ticks since it was last asked for.
    mishaps: Vec<String>,
}

impl Status {
    /// Nothing known yet.
    pub fn new(is_dry_run: bool) -> Self {
        Self {
            is_dry_run,
            ..Self::default()
        }
    }

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
                stage,
            } => {
                let how = if is_swap { "swapped to" } else { "starting with" };
                tracing::info!(
                    "{how} policy version {} of run '{}' for robot '{}' ({:.1} us an action)",
                    current.version,
                    current.run,
                    current.robot,
                    current.latency * 1e6
                );
                self.swap.enter(stage, current.version);
                self.current = Some(current);
                self.previous = previous;
                self.just_rejected = false;
            }
            LoopEvent::Shadowing(policy) => self.swap.enter(Some(Stage::Shadow), policy.version),
            LoopEvent::Compared(compared) => self.swap.compare(compared),
            LoopEvent::Superseded(policy) => swap::log_superseded(&policy),
            LoopEvent::Blended(stage) => self.swap.go_on(stage),
            LoopEvent::Committed => self.swap.go_on(None),
            LoopEvent::Returned {
                given_up,
                current,
                why,
            } => {
                let joint = |index| self.command_joints.get(index).cloned().unwrap_or_default();
                let is_overtaken = why == Why::Overtaken;
                let why = swap::explain(&why, joint);
                self.swap.returned(&given_up, &why);
                if !is_overtaken {
                    self.mishaps.push(self.swap.last_return().to_owned());
                }
                if self.previous.as_ref() == Some(&current) {
                    self.previous = None;
                }
                self.current = Some(current);
            }
            LoopEvent::State(state, cause) => self.enter(state, &cause),
            LoopEvent::Reason(cause) => self.refresh_reason(cause),
            LoopEvent::Refused { refusal, untold } => {
                self.log_refused(&refusal, untold);
            }
            LoopEvent::GoalGiven([x, y, z]) => tracing::info!("goal: x {x:.3}, y {y:.3}, z {z:.3} m"),
            LoopEvent::GoalRefused(refusal) => tracing::warn!("{refusal}"),
            LoopEvent::UnknownJoints(names) => self.explain_unknown(&names),
            LoopEvent::NotYetReady(not_ready) => {
                self.not_ready = self.explain_not_ready(&not_ready);
                tracing::warn!("not active yet: {}", self.not_ready);
            }
            LoopEvent::RolledBack { current, previous } => {
                tracing::warn!(
                    "rolled back to policy version {} of run '{}'",
                    current.version,
                    current.run
                );
                self.swap.enter(None, 0);
                self.current = Some(current);
                self.previous = previous;
            }
            LoopEvent::Probing { joint, mode } => {
                self.probed = self.explain_probing(joint, mode);
                tracing::info!("probe: {}", self.probed);
            }
            LoopEvent::Halted => tracing::warn!("stopped by ~/stop until ~/start"),
            LoopEvent::Resumed => tracing::info!("started again: the policy takes over"),
            LoopEvent::StopCut(after) => tracing::warn!(
                "the stop has not ended within {} s, as slowly as rate and acceleration are limited: zero was sent at once (a position \
                 ends where it is commanded)",
                after / 1_000_000_000
            ),
            // The life cycle tells of these.
            LoopEvent::Activated | LoopEvent::Deactivated => self.not_ready.clear(),
            // A loop that keeps trying goes on for the same reason, which it tells once.
            LoopEvent::NotReady(_) | LoopEvent::NothingBefore => {}
        }
    }

    /// The robot has been given up, and with it all that was known of it.
    pub fn forget(&mut self) {
        *self = Self {
            rejections: self.rejections,
            last_rejection: std::mem::take(&mut self.last_rejection),
            by_hand: self.by_hand,
            unheard: std::mem::take(&mut self.unheard),
            rivals: std::mem::take(&mut self.rivals),
            reporters: std::mem::take(&mut self.reporters),
            standstill: self.standstill,
            ..Self::new(self.is_dry_run)
        };
    }

    /// What the node is doing, as the status says it.
    pub fn state(&self, live: &Live) -> LoopState {
        match live.state() {
            LoopState::WaitingForPolicy if self.rest.is_some() => LoopState::Inactive,
            state => state,
        }
    }

    /// Takes over whether the control thread stands still, and logs where that has changed.
    pub fn note_standstill(&mut self, standstill: Option<u64>) {
        let before = std::mem::replace(&mut self.standstill, standstill);
        match (before, self.standstill_in_words()) {
            (None, Some(words)) => {
                tracing::error!("{words}");
                self.mishaps.push(words);
            }
            (Some(_), None) => tracing::warn!("the control thread goes on"),
            _ => {}
        }
    }

    /// For how long the control thread has been standing still, ns, where it does.
    pub fn standstill(&self) -> Option<u64> {
        self.standstill
    }

    /// What is said of a control thread that stands still.
    pub fn standstill_in_words(&self) -> Option<String> {
        self.standstill.map(|silence| {
            format!(
                "the control thread has not finished a tick for {} ms: nothing is commanded and no order is carried out; expected \
                 10 ms at most, stop the robot by its own means and start the node again",
                silence / 1_000_000
            )
        })
    }

    /// Why the fallback commands, where it does.
    pub fn reason(&self) -> &str {
        &self.told.reason
    }

    /// Was the newest bundle refused?
    pub fn was_just_rejected(&self) -> bool {
        self.just_rejected
    }

    /// A bundle was refused.
    pub fn reject(&mut self, reason: &str) {
        self.rejections += 1;
        self.just_rejected = true;
        self.last_rejection = reason.to_owned();
        self.mishaps.push(format!("a bundle was refused: {reason}"));
        tracing::warn!("bundle refused, the running policy is untouched: {reason}");
    }

    /// What has gone wrong since it was last asked for and shows in no tick: a refused bundle, a policy that was given up in
    /// its swap, a control thread that stands still.
    pub fn take_mishaps(&mut self) -> Vec<String> {
        std::mem::take(&mut self.mishaps)
    }

    /// One line that says what the node does and, where it does not act, why.
    pub fn message(&self, live: &Live, now: MonoTime) -> String {
        if let Some(words) = self.standstill_in_words() {
            return words;
        }
        let frozen = if self.is_frozen_with_pending {
            "; a newer bundle waits for accept_bundles"
        } else {
            ""
        };
        let text = match live.state() {
            LoopState::WaitingForStates | LoopState::Inactive if self.is_contradicted => {
                format!("not active: {}; commanding nothing", self.robot_description)
            }
            LoopState::WaitingForPolicy | LoopState::WaitingForStates | LoopState::Inactive
                if self.rest.is_some() =>
            {
                self.rest.map(Rest::message).unwrap_or_default().to_owned()
            }
            LoopState::WaitingForPolicy => {
                let unheard = self.unheard_of(&["policy/bundle", "policy/bundle_chunk"]);
                format!(
                    "waiting for a policy on topic policy/bundle (or parameter policy){unheard}; commanding nothing"
                )
            }
            LoopState::WaitingForStates | LoopState::Inactive if !self.not_ready.is_empty() => {
                let unheard = self.unheard_inputs();
                format!("not active yet: {}{unheard}; commanding nothing", self.not_ready)
            }
            LoopState::WaitingForStates | LoopState::Inactive => {
                let names = self.silent_joints(live, now);
                let unheard = self.unheard_inputs();
                format!("waiting for the state of joints [{names}]{unheard}; commanding nothing")
            }
            LoopState::Active => {
                let (swap, rivals) = (self.swap.in_words(), self.rivals_in_words());
                format!("the policy commands the robot{swap}{rivals}")
            }
            LoopState::Fallback => {
                let unheard = self.unheard_inputs();
                format!("the fallback commands the robot: {}{unheard}", self.told.reason)
            }
            LoopState::Stopped => self.stopped_in_words().to_owned(),
            LoopState::Probing => format!("probe: {}", self.probed),
        };
        let dry_run = if self.is_dry_run { DRY_RUN } else { "" };
        [dry_run, &text, frozen].concat()
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
        self.begin_reason(cause);
        let was = self.state.replace(state);
        match state {
            LoopState::Active if was == Some(LoopState::Fallback) => {
                tracing::info!("the policy commands the robot again");
            }
            LoopState::Active => tracing::info!("every joint reports: the policy commands the robot"),
            LoopState::Fallback => tracing::warn!("the fallback commands the robot: {}", self.told.reason),
            LoopState::WaitingForStates => {
                tracing::info!(
                    "waiting for the state of joints [{}]; commanding nothing",
                    self.joint_names.join(", ")
                );
            }
            LoopState::WaitingForPolicy => tracing::info!("waiting for a policy; commanding nothing"),
            LoopState::Stopped => tracing::info!("{}", self.stopped_in_words()),
            LoopState::Inactive => tracing::info!("inactive; commanding nothing"),
            LoopState::Probing => tracing::info!("a probe begins"),
        }
    }
}
