//! What a loop is told besides the policy, and whether it fits the robot.

use mfpo_policy::guard::GuardManifest;
use mfpo_policy::spec::{RobotSpec, SpecError};

use crate::safety::fallback::DoesNotFit;
use crate::safety::{Fallback, FallbackChoice, Limits, Tightening, TooTight};
use crate::weights::{PolicyIdentity, StageSettings};

/// A policy must answer within this part of its control period, as when its bundle was checked.
const LATENCY_SHARE: f64 = 0.5;

/// What the loop needs to know besides the policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Actions sampled at each tick, of which the critics choose.
    pub candidates: usize,
    /// From the state taken to the end of sampling, ns: as many steps and candidates as fit; 0 takes all of them.
    pub compute_budget: u64,
    /// Seed of the noise.
    pub seed: u64,
    /// A joint whose newest state is older is stale, ns.
    pub stale_after: u64,
    /// What to command when the policy must not act.
    pub fallback: FallbackChoice,
    /// N m s/rad; 0 is automatic.
    pub damping: f64,
    /// What the effort fallback adds its damping to, N m, in the order of the action joints; empty is zero.
    pub fallback_effort: Vec<f64>,
    /// Time over which the policy fades in, s; 0 is at once.
    pub fade_in: f64,
    /// Good inputs after which the policy takes over from the fallback; 0 waits for an explicit start.
    pub recovery_inputs: u64,
    /// How long a heartbeat permits motion, ns; 0 needs none.
    pub enable_timeout: u64,
    /// How long a goal holds, ns; 0 until the next one.
    pub goal_timeout: u64,
    /// Does the bundle's guard keep the policy from acting on what it does not know?
    pub guard: bool,
    /// How a policy takes over from another.
    pub stages: StageSettings,
    /// Limits below those of the spec.
    pub tightening: Tightening,
}

impl Settings {
    /// Why a policy cannot act as these settings want it to, at one tick every `period`, s.
    pub fn why_unfit(&self, policy: &PolicyIdentity, period: f64) -> Option<String> {
        let candidates = self.candidates;
        if candidates <= 1 {
            return None;
        }
        let (version, run) = (policy.version, &policy.run);
        if !policy.has_critics {
            return Some(format!(
                "candidates is {candidates}, but version {version} of run '{run}' carries no critics to choose with; expected 1"
            ));
        }
        if self.compute_budget > 0 {
            return None;
        }
        let latency = policy.latency * candidates as f64 / policy.candidates as f64;
        let most = LATENCY_SHARE * period;
        (latency > most).then(|| {
            format!(
                "{candidates} candidates of version {version} of run '{run}' would take about {:.0} us; expected at most \
                 {:.0} us, half the control period",
                latency * 1e6,
                most * 1e6
            )
        })
    }

    /// Why the guard that is asked for judges no tick, or not every one, of a policy with this guard.
    pub fn why_unguarded(&self, guard: Option<GuardManifest>) -> Option<String> {
        if !self.guard {
            return None;
        }
        let Some(guard) = guard else {
            return Some(
                "parameter guard is true, but the bundle carries no guard: nothing is guarded; `mfpo_train guard BUNDLE \
                 --write FILE` makes one that does, and a training with run.guard=true publishes such bundles"
                    .to_owned(),
            );
        };
        let (needed, got) = (guard.candidates, self.candidates);
        if got < needed {
            return Some(format!(
                "parameter guard is true, but candidates is {got}: nothing is guarded; the bundle's guard compares {needed}, \
                 expected as many or more"
            ));
        }
        (self.compute_budget > 0).then(|| {
            format!(
                "parameter guard is true, and compute_budget too short for {needed} candidates in a tick leaves that tick \
                 unguarded"
            )
        })
    }
}

/// Why a loop could not be made for a robot.
#[derive(Debug, thiserror::Error)]
pub enum CannotControl {
    /// The spec is not valid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The fallback that was asked for does not fit the robot.
    #[error(transparent)]
    Fallback(#[from] DoesNotFit),
    /// The limits leave a joint no room.
    #[error(transparent)]
    Limits(#[from] TooTight),
    /// States would be stale between two ticks.
    #[error(
        "parameter stale_timeout is {got} s; expected at least the policy's control period, {expected} s: raise it"
    )]
    StaleTimeout {
        /// The control period, s.
        expected: f64,
        /// The parameter, s.
        got: f64,
    },
}

/// Settings that fit a robot, with all that they need: made where there is time, taken over between two steps.
#[derive(Debug)]
pub struct Tuning {
    pub(super) settings: Settings,
    pub(super) fallback: Fallback,
    pub(super) limits: Limits,
}

impl Tuning {
    /// Checks settings against a robot.
    ///
    /// # Errors
    /// When they do not fit it.
    pub fn new(spec: &RobotSpec, settings: Settings) -> Result<Self, CannotControl> {
        if settings.stale_after < spec.control_period_ns {
            return Err(CannotControl::StaleTimeout {
                expected: spec.control_period(),
                got: settings.stale_after as f64 * 1e-9,
            });
        }
        let (choice, damping) = (settings.fallback, settings.damping);
        Ok(Self {
            fallback: Fallback::new(spec, choice, damping, &settings.fallback_effort)?,
            limits: Limits::new(spec, &settings.tightening)?,
            settings,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
