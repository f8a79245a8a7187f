//! `~/probe`: whether a probe may begin, and what is answered when it has ended.

use super::control_thread::{Order, ProbeEnd};
use super::life::{LONGEST_ANSWER, told};
use super::r2r;
use super::service::Service;
use r2r::ServiceRequest;
use r2r::mfpo_msgs::srv::Probe as ProbeService;

use crate::lifecycle::State;
use crate::metrics::LoopState;
use crate::probe::judge::{Outcome, judge};
use crate::probe::{Mode, Probe};
use crate::time::MonoTime;

const MOVE: u8 = ProbeService::Request::MOVE as u8;
const BY_HAND: u8 = ProbeService::Request::BY_HAND as u8;

/// A probe that is under way.
pub struct Probing {
    request: ServiceRequest<ProbeService::Service>,
    since: MonoTime,
}

impl Service {
    /// Begins a probe; answered when it has ended.
    pub fn probe(&mut self, request: ServiceRequest<ProbeService::Service>) {
        match self.make_probe(&request.message) {
            Ok(probe) => match self.order(Order::Probe(Box::new(probe))) {
                Ok(()) => {
                    let since = MonoTime::now();
                    self.probing = Some(Probing { request, since });
                }
                Err(reason) => refuse(request, reason),
            },
            Err(reason) => refuse(request, &reason),
        }
    }

    /// Is a probe under way?
    pub fn is_probing(&self) -> bool {
        self.probing.is_some()
    }

    /// A probe that the control loop knows nothing of is given up.
    pub fn give_up_probing(&mut self, now: MonoTime) {
        let is_late = |probing: &Probing| now.since(probing.since) > LONGEST_ANSWER;
        if !self.probing.as_ref().is_some_and(is_late) || self.live.state() == LoopState::Probing {
            return;
        }
        // One that has just ended was handed back before the loop's state changed.
        self.free_retired();
        if let Some(Probing { request, .. }) = self.probing.take() {
            refuse(request, "the control loop does not answer");
        }
    }

    /// A probe has come back from the control loop.
    pub fn probed(&mut self, probe: &Probe, end: &ProbeEnd) {
        let Some(Probing { request, .. }) = self.probing.take() else {
            return;
        };
        let why = match end {
            ProbeEnd::Complete if probe.is_restless() => {
                Some("the robot moves when it is told to stay".to_owned())
            }
            ProbeEnd::Complete => None,
            ProbeEnd::Overtaken => Some("the node was asked for a transition of its life cycle".to_owned()),
            ProbeEnd::Hindered(cause) => Some(self.status.explain(cause)),
            ProbeEnd::NotReady(not_ready) => Some(self.status.explain_refusal(not_ready)),
            ProbeEnd::Refused(reason) => Some((*reason).to_owned()),
        };
        if matches!(end, ProbeEnd::NotReady(_) | ProbeEnd::Refused(_)) {
            refuse(request, &why.unwrap_or_default());
            return;
        }
        let outcomes = judge(probe);
        let found = outcomes
            .iter()
            .filter(|outcome| outcome.finding.is_some())
            .count();
        let message = match why {
            Some(why) => format!("the probe ended early: {why}"),
            None => format!("{found} of {} joints with a finding", outcomes.len()),
        };
        log(&message, &outcomes);
        let finding = |outcome: &Outcome| outcome.finding.as_ref().map(ToString::to_string);
        told(request.respond(ProbeService::Response {
            ok: found == 0 && matches!(end, ProbeEnd::Complete),
            message,
            joints: outcomes.iter().map(|outcome| outcome.joint.clone()).collect(),
            findings: outcomes.iter().map(|o| finding(o).unwrap_or_default()).collect(),
            expected: outcomes.iter().map(|outcome| outcome.expected).collect(),
            measured: outcomes.iter().map(|outcome| outcome.measured).collect(),
        }));
    }

    fn make_probe(&self, request: &ProbeService::Request) -> Result<Probe, String> {
        let settings = self.config.probe;
        let mode = match request.mode {
            MOVE => Mode::Move,
            BY_HAND => Mode::ByHand,
            other => return Err(format!("mode is {other}; expected 0 (move) or 1 (by hand)")),
        };
        let Some(spec) = self.spec.as_ref().filter(|_| self.has_robot) else {
            return Err("no policy is loaded that says what to expect; give one, and configure the node (ros2 lifecycle set ... configure)".to_owned());
        };
        if self.life.state() != State::Inactive || self.wants_to_start() {
            return Err(format!(
                "the node is {}{}; expected it to be inactive (deactivate it, or call ~/stop before it starts)",
                self.life.state().label(),
                if self.wants_to_start() {
                    " and starts by itself"
                } else {
                    ""
                }
            ));
        }
        if self.is_busy() || self.is_probing() {
            return Err("something else is under way; expected nothing to be".to_owned());
        }
        if mode == Mode::Move && !settings.is_allowed {
            return Err(
                "probe.allowed is false; set it to true to let joints be moved, or probe by hand".to_owned(),
            );
        }
        if mode == Mode::Move && self.config.dry_run {
            return Err("this is a dry run, in which nothing moves; probe by hand".to_owned());
        }
        if let Some(contradiction) = self.described.contradiction() {
            return Err(contradiction.to_owned());
        }
        let limited = self.described.limited(spec)?;
        Probe::new(&limited, mode, &request.joints, settings).map_err(|error| error.to_string())
    }
}

fn refuse(request: ServiceRequest<ProbeService::Service>, reason: &str) {
    tracing::warn!("probe refused: {reason}");
    told(request.respond(ProbeService::Response {
        ok: false,
        message: format!("refused: {reason}"),
        ..Default::default()
    }));
}

fn log(message: &str, outcomes: &[Outcome]) {
    tracing::info!("{message}");
    for outcome in outcomes {
        match &outcome.finding {
            None => tracing::info!("joint '{}' is as the policy expects", outcome.joint),
            Some(finding) => tracing::warn!("joint '{}': {finding}", outcome.joint),
        }
    }
}
