//! What the transitions of the life cycle do, and the other orders of operators. Whatever concerns the robot is an order
//! to the control loop, which carries it out at a tick boundary and tells how it went; the answer leaves then.

use std::sync::Arc;
use std::time::Duration;

use mfpo_ros::time;

use super::control_thread::Order;
use super::r2r;
use super::requests::{Command, Query};
use super::service::Service;
use r2r::ServiceRequest;
use r2r::lifecycle_msgs::msg;
use r2r::lifecycle_msgs::srv::{ChangeState, GetAvailableStates, GetAvailableTransitions, GetState};
use r2r::std_srvs::srv::Trigger;

use crate::lifecycle::{Goal, Impossible, Outcome, State, TRANSITIONS, Transition};
use crate::status::{LoopEvent, Rest};
use crate::time::MonoTime;
use crate::weights::{PolicyIdentity, Stage, Why};

/// The control loop looks at its orders a hundred times a second; a stop may ramp for a second.
pub const LONGEST_ANSWER: u64 = Duration::from_secs(5).as_nanos() as u64;

/// Who waits for an answer.
pub enum Waiting {
    /// `~/change_state`.
    ChangeState(ServiceRequest<ChangeState::Service>),
    /// `~/start` and `~/rollback`.
    Trigger(ServiceRequest<Trigger::Service>),
}

/// What the control loop was asked for.
pub enum Asked {
    /// A transition of the life cycle.
    Transition(Goal),
    /// An end of a stop or of a fallback.
    Resume,
    /// The policy before.
    RollBack,
}

/// An order that is being carried out.
pub struct Pending {
    asked: Asked,
    waiting: Waiting,
    since: MonoTime,
}

impl Service {
    /// Answers a query.
    pub fn answer(&mut self, query: Query) {
        let answered = match query {
            Query::State(request) => request.respond(GetState::Response {
                current_state: state(self.life.state()),
            }),
            Query::States(request) => request.respond(GetAvailableStates::Response {
                available_states: State::ALL.into_iter().map(state).collect(),
            }),
            Query::Transitions(request) => request.respond(GetAvailableTransitions::Response {
                available_transitions: self.life.available().map(description).collect(),
            }),
            Query::Graph(request) => request.respond(GetAvailableTransitions::Response {
                available_transitions: TRANSITIONS.into_iter().map(description).collect(),
            }),
            Query::Stop(request) => {
                self.stop(request);
                Ok(())
            }
            Query::Load(request) => {
                self.load(request);
                Ok(())
            }
            Query::Probe(request) => {
                self.probe(request);
                Ok(())
            }
            Query::SaveRecording(request) => {
                self.save_recording(request);
                Ok(())
            }
        };
        told(answered);
    }

    /// Begins to carry out an order; [`Service::is_busy`] until it is done.
    pub fn obey(&mut self, command: Command) {
        match command {
            Command::ChangeState(request) => self.change_state(request),
            Command::Start(request) => self.start(request),
            Command::RollBack(request) if !self.has_robot => {
                respond(request, false, "no policy is loaded".to_owned());
            }
            Command::RollBack(request) => match self.why_not_before() {
                Some(why) => respond(request, false, format!("the policy before cannot act: {why}")),
                None => self.ask(Order::RollBack, Asked::RollBack, Waiting::Trigger(request)),
            },
        }
    }

    /// Why a roll-back would bring a policy that cannot act. Of one in the shadow only that is given up.
    fn why_not_before(&self) -> Option<String> {
        let is_shadow = self.status.swap.stage() == Some(Stage::Shadow.name());
        self.why_unfit(self.status.previous.as_ref().filter(|_| !is_shadow)?)
    }

    fn why_unfit(&self, policy: &PolicyIdentity) -> Option<String> {
        let period = self.spec.as_ref()?.control_period();
        self.config.settings.why_unfit(policy, period)
    }

    /// A policy acts again; told where it cannot with the settings of this moment, or is not guarded by them.
    fn acts_again(&mut self, policy: &Arc<PolicyIdentity>) {
        self.expected.rolled_back(policy);
        self.tell_unguarded(policy.guard);
        if let Some(why) = self.why_unfit(policy) {
            tracing::error!(
                "the policy that was returned to cannot act: {why}. Until candidates is changed or another policy is loaded \
                 the fallback commands, or ticks are late"
            );
        }
    }

    /// Is an order being carried out?
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// May a policy be taken over in this state?
    pub fn is_configured(&self) -> bool {
        matches!(
            self.life.state(),
            State::Inactive | State::Active | State::Activating | State::Deactivating
        )
    }

    /// Is the robot to be commanded as soon as it is ready?
    pub fn wants_to_start(&self) -> bool {
        let may = !self.is_held && self.described.contradiction().is_none();
        self.autostart && may && self.life.state() == State::Inactive
    }

    /// Why nothing is on its way to command the robot, where that is so.
    pub fn rest(&self) -> Option<Rest> {
        match self.life.state() {
            State::Unconfigured => Some(Rest::Unconfigured),
            State::Finalized => Some(Rest::Finalized),
            State::Inactive if !self.wants_to_start() => Some(Rest::Inactive),
            _ => None,
        }
    }

    /// The first configuration of a node that starts by itself.
    pub fn configure_at_start(&mut self) {
        if let Ok(transition) = self.life.begin(Goal::Configure) {
            self.tell_transition(transition);
            self.finish(Outcome::Success);
        }
    }

    /// What the control loop tells may end what is being carried out.
    pub fn note(&mut self, event: &LoopEvent) {
        match event {
            LoopEvent::Activated => self.activated(),
            LoopEvent::NotReady(not_ready) if self.is_waiting_for(Goal::Activate) || self.is_resuming() => {
                let reason = self.status.explain_refusal(not_ready);
                self.conclude(Outcome::Failure, &reason);
            }
            LoopEvent::Deactivated => self.deactivated(),
            LoopEvent::Halted => {
                for (_, request) in self.stops.drain(..) {
                    respond(request, true, "stopped until ~/start".to_owned());
                }
            }
            LoopEvent::Resumed if self.is_resuming() => {
                self.conclude(Outcome::Success, "the policy takes over");
            }
            LoopEvent::RolledBack { current, .. } => {
                self.acts_again(current);
                let now = format!("version {} of run '{}' acts again", current.version, current.run);
                if self.is_rolling_back() {
                    self.conclude(Outcome::Success, &now);
                }
            }
            // Whatever overtook it was handed over last.
            LoopEvent::Returned { current, why, .. } if *why != Why::Overtaken => self.acts_again(current),
            LoopEvent::NothingBefore if self.is_rolling_back() => {
                self.conclude(Outcome::Failure, "there is no policy before this one");
            }
            _ => {}
        }
    }

    /// An order that nobody answers is given up.
    pub fn give_up_waiting(&mut self, now: MonoTime) {
        let is_late = |pending: &Pending| now.since(pending.since) > LONGEST_ANSWER;
        if self.pending.as_ref().is_some_and(is_late) && !self.is_checking() {
            self.conclude(Outcome::Failure, "the control loop does not answer");
        }
    }

    /// Ends what is being carried out, and answers.
    pub fn conclude(&mut self, outcome: Outcome, message: &str) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let is_done = outcome == Outcome::Success;
        if !is_done {
            tracing::warn!("{} refused: {message}", pending.asked.name());
        }
        if let Asked::Transition(_) = pending.asked {
            self.finish(outcome);
        }
        match pending.waiting {
            Waiting::ChangeState(request) => {
                told(request.respond(ChangeState::Response { success: is_done }));
            }
            Waiting::Trigger(request) => respond(request, is_done, message.to_owned()),
        }
    }

    fn change_state(&mut self, request: ServiceRequest<ChangeState::Service>) {
        let wanted = &request.message.transition;
        match self.life.request(wanted.id, &wanted.label) {
            Ok((goal, transition)) => {
                self.tell_transition(transition);
                self.carry_out(goal, Waiting::ChangeState(request));
            }
            Err(impossible) => {
                tracing::warn!("{impossible}");
                told(request.respond(ChangeState::Response { success: false }));
            }
        }
    }

    fn start(&mut self, request: ServiceRequest<Trigger::Service>) {
        if self.life.state() == State::Active {
            self.ask(Order::Resume, Asked::Resume, Waiting::Trigger(request));
            return;
        }
        match self.life.begin(Goal::Activate) {
            Ok(transition) => {
                self.tell_transition(transition);
                self.carry_out(Goal::Activate, Waiting::Trigger(request));
            }
            Err(impossible) => self.refuse(request, &impossible),
        }
    }

    fn refuse(&self, request: ServiceRequest<Trigger::Service>, impossible: &Impossible) {
        tracing::warn!("{impossible}");
        respond(request, false, impossible.to_string());
    }

    fn stop(&mut self, request: ServiceRequest<Trigger::Service>) {
        self.is_held = true;
        if !self.has_robot {
            respond(
                request,
                true,
                "nothing is commanded, and nothing will be until ~/start".to_owned(),
            );
            return;
        }
        match self.order(Order::Halt) {
            Ok(()) => self.stops.push((MonoTime::now(), request)),
            Err(reason) => respond(
                request,
                false,
                format!("not stopped: {reason}; expected it to take them at once, use the robot's own stop"),
            ),
        }
    }

    /// Carries out a transition that has begun.
    fn carry_out(&mut self, goal: Goal, waiting: Waiting) {
        let asked = Asked::Transition(goal);
        match goal {
            Goal::Configure => {
                self.wait_for(asked, waiting);
                if !self.check_first_policy() {
                    self.conclude(Outcome::Success, "configured");
                }
            }
            Goal::Activate if !self.has_robot => {
                self.wait_for(asked, waiting);
                self.conclude(Outcome::Failure, "no policy is loaded");
            }
            Goal::Activate if self.is_probing() => {
                self.wait_for(asked, waiting);
                self.conclude(Outcome::Failure, "a probe is under way; ~/stop ends it");
            }
            Goal::Activate if self.described.contradiction().is_some() => {
                let reason = self.described.contradiction().unwrap_or_default().to_owned();
                self.wait_for(asked, waiting);
                self.conclude(Outcome::Failure, &reason);
            }
            Goal::Activate => self.ask(Order::Activate { persistent: false }, asked, waiting),
            Goal::Deactivate => {
                self.is_held = true;
                self.ask(Order::Deactivate, asked, waiting);
            }
            Goal::CleanUp | Goal::ShutDown => {
                self.is_held = true;
                if self.has_robot {
                    // A loop that was about to start may command already.
                    self.ask(Order::Deactivate, asked, waiting);
                } else {
                    self.wait_for(asked, waiting);
                    self.conclude(Outcome::Success, "nothing was loaded");
                }
            }
        }
    }

    fn activated(&mut self) {
        if self.is_waiting_for(Goal::Activate) {
            self.is_held = false;
            self.conclude(Outcome::Success, "active");
        } else if let Ok(transition) = self.life.begin(Goal::Activate) {
            // The loop has waited for the robot by itself. Where another transition is under way, this is no news.
            self.is_held = false;
            self.tell_transition(transition);
            self.finish(Outcome::Success);
        }
    }

    fn deactivated(&mut self) {
        if self.is_waiting_for(Goal::Deactivate) {
            self.conclude(Outcome::Success, "inactive");
        } else if self.is_waiting_for(Goal::CleanUp) || self.is_waiting_for(Goal::ShutDown) {
            let outcome = self.forget();
            self.conclude(outcome, "everything is given up");
        } else if let Ok(transition) = self.life.begin(Goal::Deactivate) {
            // It began to command just when it was no longer allowed to.
            self.tell_transition(transition);
            self.finish(Outcome::Success);
        }
    }

    fn is_waiting_for(&self, goal: Goal) -> bool {
        let asked = self.pending.as_ref().map(|pending| &pending.asked);
        matches!(asked, Some(Asked::Transition(asked)) if *asked == goal)
    }

    fn is_resuming(&self) -> bool {
        matches!(&self.pending, Some(pending) if matches!(pending.asked, Asked::Resume))
    }

    fn is_rolling_back(&self) -> bool {
        matches!(&self.pending, Some(pending) if matches!(pending.asked, Asked::RollBack))
    }

    fn ask(&mut self, order: Order, asked: Asked, waiting: Waiting) {
        let sent = self.order(order);
        self.wait_for(asked, waiting);
        if let Err(reason) = sent {
            self.conclude(Outcome::Failure, reason);
        }
    }

    fn wait_for(&mut self, asked: Asked, waiting: Waiting) {
        self.pending = Some(Pending {
            asked,
            waiting,
            since: MonoTime::now(),
        });
    }

    /// Ends the transition that is under way.
    fn finish(&mut self, outcome: Outcome) {
        if let Some(transition) = self.life.finish(outcome) {
            self.tell_transition(transition);
            tracing::info!("life cycle: {}", transition.goal.label());
        }
    }

    fn tell_transition(&self, transition: Transition) {
        let event = msg::TransitionEvent {
            timestamp: time::system_nanoseconds().unsigned_abs(),
            transition: message(transition),
            start_state: state(transition.start),
            goal_state: state(transition.goal),
        };
        if let Err(error) = self.outputs.transitions.publish(&event) {
            tracing::warn!("~/transition_event could not be published: {error}");
        }
    }
}

impl Asked {
    fn name(&self) -> &'static str {
        match self {
            Self::Transition(Goal::Configure) => "configuration",
            Self::Transition(Goal::CleanUp) => "clean-up",
            Self::Transition(Goal::Activate) => "activation",
            Self::Transition(Goal::Deactivate) => "deactivation",
            Self::Transition(Goal::ShutDown) => "shut-down",
            Self::Resume => "start",
            Self::RollBack => "roll-back",
        }
    }
}

fn state(state: State) -> msg::State {
    msg::State {
        id: state.id(),
        label: state.label().to_owned(),
    }
}

fn message(transition: Transition) -> msg::Transition {
    msg::Transition {
        id: transition.id,
        label: transition.label.to_owned(),
    }
}

fn description(transition: Transition) -> msg::TransitionDescription {
    msg::TransitionDescription {
        transition: message(transition),
        start_state: state(transition.start),
        goal_state: state(transition.goal),
    }
}

/// Answers a `std_srvs/Trigger`.
pub fn respond(request: ServiceRequest<Trigger::Service>, success: bool, message: String) {
    told(request.respond(Trigger::Response { success, message }));
}

/// A client that has gone away gets no answer, and that is all.
pub fn told(answered: r2r::Result<()>) {
    if let Err(error) = answered {
        tracing::debug!("a request could not be answered: {error}");
    }
}
