//! What the status says of a swap: which stage, and why a policy was not let through.

use std::sync::Arc;

use crate::safety::Rule;
use crate::weights::{Compared, PolicyIdentity, Stage, Why};

/// The swap that is under way, as the loop tells of it.
#[derive(Debug, Default)]
pub struct Swap {
    is_under_way: bool,
    stage: Option<(Stage, u64)>,
    last_return: String,
    compared: Option<Compared>,
}

impl Swap {
    /// A policy has been handed to the loop.
    pub fn begin(&mut self) {
        self.is_under_way = true;
    }

    /// Is the loop busy with a policy that takes over from another?
    pub fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// Does a policy act that may be returned from?
    pub fn is_on_trial(&self) -> bool {
        matches!(self.stage, Some((Stage::Blend | Stage::Probation, _)))
    }

    /// Name of the stage, where one is under way.
    pub fn stage(&self) -> Option<&'static str> {
        self.stage.map(|(stage, _)| stage.name())
    }

    /// Version of the policy in that stage; 0 where none is.
    pub fn version(&self) -> u64 {
        self.stage.map_or(0, |(_, version)| version)
    }

    /// Why the last policy that was not let through was not.
    pub fn last_return(&self) -> &str {
        &self.last_return
    }

    /// How the last policy in the shadow compared with the one that acted.
    pub fn compared(&self) -> Option<&Compared> {
        self.compared.as_ref()
    }

    /// What the stage means for the robot; empty where none is under way.
    pub(super) fn in_words(&self) -> String {
        match self.stage {
            None => String::new(),
            Some((Stage::Shadow, version)) => {
                format!("; version {version} is compared with it in the shadow")
            }
            Some((Stage::Blend, version)) => format!("; version {version} takes over from the one before"),
            Some((Stage::Probation, version)) => format!("; version {version} is on probation"),
        }
    }

    /// A policy is in this stage; `None` when it is through.
    pub(super) fn enter(&mut self, stage: Option<Stage>, version: u64) {
        self.stage = stage.map(|stage| (stage, version));
        self.is_under_way = stage.is_some();
    }

    /// The same policy is in its next stage.
    pub(super) fn go_on(&mut self, stage: Option<Stage>) {
        let version = self.version();
        self.enter(stage, version);
    }

    /// A policy in the shadow has been compared with the one that acts.
    pub(super) fn compare(&mut self, compared: Compared) {
        self.compared = Some(compared);
        if compared.ticks == 0 {
            tracing::info!(
                "not compared: the policy before does not act; {:.1} us an action",
                compared.latency * 1e6
            );
            return;
        }
        tracing::info!(
            "compared over {} ticks: the actions differ by {:.3} (root mean square) and at most {:.3}; {:.1} us an action",
            compared.ticks,
            compared.rms,
            compared.largest,
            compared.latency * 1e6
        );
    }

    /// A policy was not let through.
    pub(super) fn returned(&mut self, given_up: &PolicyIdentity, why: &str) {
        let stage = self.stage().unwrap_or("swap");
        self.last_return = format!(
            "version {} of run '{}' was given up in its {stage}: {why}",
            given_up.version, given_up.run
        );
        tracing::warn!("{}", self.last_return);
        self.enter(None, 0);
    }
}

/// Logs that a policy will not go live.
pub(super) fn log_superseded(identity: &Arc<PolicyIdentity>) {
    tracing::info!(
        "version {} of run '{}' leaves the shadow without having acted",
        identity.version,
        identity.run
    );
}

/// In words; `joint` names the commanded joints.
pub(super) fn explain(why: &Why, joint: impl Fn(usize) -> String) -> String {
    match why {
        Why::NoAction => "it gave no action".to_owned(),
        Why::Overtaken => {
            "another policy came before it was through; the proven one before it is kept".to_owned()
        }
        Why::Guard(unknown) => {
            format!("it does not know what it sees: {unknown} (parameter guard)")
        }
        Why::Slow { got, expected } => format!(
            "it takes {:.0} us an action; expected at most {:.0} us",
            got * 1e6,
            expected * 1e6
        ),
        Why::Interventions {
            rule,
            joint: index,
            got,
            before,
        } => format!(
            "limits trip in {:.0} % of its ticks, {:.0} % before; most of all {} of joint '{}' (parameter \
             swap.interventions_rise)",
            got * 100.0,
            before * 100.0,
            Rule::NAMES.get(*rule as usize).copied().unwrap_or_default(),
            joint(*index)
        ),
        Why::Latency { got, before } => format!(
            "its ticks take {:.0} us on average, {:.0} us before (parameter swap.latency_factor)",
            got * 1e6,
            before * 1e6
        ),
    }
}
