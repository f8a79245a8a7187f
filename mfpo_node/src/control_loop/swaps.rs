//! How the loop takes over another policy between two steps: at once, or stage by stage. Only pointers move here; what is no
//! longer kept is handed back, to be freed on a thread that has time.

use std::sync::Arc;

use mfpo_policy::sampler::SampleError;

use super::{ControlLoop, Outcome};
use crate::safety::Unknown;
use crate::time::MonoTime;
use crate::weights::{Policy, PolicyIdentity, Stage, Turn, Why};

/// Two policies blend where they take less than this part of the control period together.
const BLEND_SHARE: f64 = 0.5;

/// A policy has begun to take over from another.
#[must_use = "free the policy on another thread than the control loop"]
pub struct Begun {
    /// What is no longer kept.
    pub freed: [Option<Box<Policy>>; 3],
    /// The first stage; `None` when the policy acts alone already.
    pub stage: Option<Stage>,
    /// A policy that was in the shadow and will not go live.
    pub superseded: Option<Arc<PolicyIdentity>>,
    /// What was given up because it was still on trial.
    pub cut_short: Option<CutShort>,
}

/// A policy that acted, but had not proven itself when another came.
#[derive(Debug, Clone, PartialEq)]
pub struct CutShort {
    /// That policy.
    pub given_up: Arc<PolicyIdentity>,
    /// The proven one that took its place; the other takes over from this one.
    pub proven: Arc<PolicyIdentity>,
}

/// A swap has got further, between two steps.
#[must_use = "free the policy on another thread than the control loop"]
pub struct Progress {
    /// What came to pass.
    pub turn: Turn,
    /// The policy that was given up, where one was.
    pub given_up: Option<Arc<PolicyIdentity>>,
    /// What is no longer kept.
    pub freed: Option<Box<Policy>>,
}

impl ControlLoop {
    /// Another policy takes over where nothing is commanded: neither compared nor blended, and on probation from the first
    /// step on, for it has not proven itself; the habits of the one before are those of another start, and forgotten. What is
    /// no longer kept is handed back: of a policy that is still on trial and the proven one before it, the one on trial.
    pub fn swap(&mut self, policy: Box<Policy>) -> Option<Box<Policy>> {
        let is_on_trial = self.stages.is_on_trial();
        self.stages.forget();
        self.stages.went_live(false);
        self.begin_anew();
        if is_on_trial {
            return Some(self.slot.replace(policy));
        }
        self.slot.swap(policy)
    }

    /// Another policy begins to take over, stage by stage: [`ControlLoop::after`] tells how it gets on. What was under
    /// way ends: a policy in the shadow is given up, and so is one that acts on trial. The proven one before it acts until
    /// the other is through, and is the one that is returned to.
    pub fn begin_swap(&mut self, policy: Box<Policy>) -> Begun {
        let (unproven, cut_short) = self.cut_trial_short();
        let shadow = self.slot.set_shadow(None);
        let superseded = shadow.as_ref().map(|policy| Arc::clone(policy.identity()));
        // A policy that gives no action is not to be compared with.
        let freed = if self.answered != Outcome::Failed && self.stages.begin() {
            self.slot.set_shadow(Some(policy))
        } else {
            self.go_live(policy)
        };
        Begun {
            freed: [unproven, shadow, freed],
            stage: self.stages.stage(),
            superseded,
            cut_short,
        }
    }

    /// Gives up the policy that acts, where it is on trial and the one before it is there.
    fn cut_trial_short(&mut self) -> (Option<Box<Policy>>, Option<CutShort>) {
        if !self.stages.is_on_trial() {
            return (None, None);
        }
        let Some(unproven) = self.give_up() else {
            return (None, None);
        };
        let cut_short = CutShort {
            given_up: Arc::clone(unproven.identity()),
            proven: Arc::clone(self.slot.current().identity()),
        };
        (Some(unproven), Some(cut_short))
    }

    /// Takes the policy out of the shadow, where there is one; its swap ends without it having acted.
    #[must_use = "install it, or free it on another thread than the control loop"]
    pub fn take_shadow(&mut self) -> Option<Box<Policy>> {
        let shadow = self.slot.set_shadow(None)?;
        self.stages.end();
        Some(shadow)
    }

    /// A blend that is under way ends: the newer policy acts alone, on probation.
    pub fn cut_blend(&mut self) {
        self.stages.restart();
    }

    /// What a swap needs between two steps, once the command is on its way; `took` is the time of the last step, s.
    pub fn after(&mut self, took: f64) -> Option<Progress> {
        let turn = match self.outcome {
            Outcome::Idle => None,
            Outcome::Acted => self.acted(took),
            Outcome::Failed => self.failed(),
            Outcome::Guarded(unknown) => self.guarded(unknown),
            Outcome::Waiting => self.waiting(),
        }?;
        let (given_up, freed) = match turn {
            Turn::GoLive(_) => {
                let policy = self.slot.set_shadow(None)?;
                (None, self.go_live(policy))
            }
            Turn::Blended | Turn::Commit => (None, None),
            Turn::Return(_) => {
                let policy = self.give_up()?;
                (Some(Arc::clone(policy.identity())), Some(policy))
            }
        };
        Some(Progress {
            turn,
            given_up,
            freed,
        })
    }

    /// The stage of the swap that is under way.
    pub fn stage(&self) -> Option<Stage> {
        self.stages.stage()
    }

    /// The policy before acts from the next step on; `false` where there is none. A policy in the shadow is given up
    /// instead, where there is one: [`ControlLoop::give_up`].
    pub fn roll_back(&mut self) -> bool {
        let is_done = self.slot.rollback();
        if is_done {
            self.stages.forget();
            self.begin_anew();
        }
        is_done
    }

    /// Gives up the policy that is taking over: the one in the shadow, or else the one that acts, which the one before
    /// takes over from.
    pub fn give_up(&mut self) -> Option<Box<Policy>> {
        self.stages.end();
        if let Some(policy) = self.slot.set_shadow(None) {
            return Some(policy);
        }
        self.begin_anew();
        self.slot.give_up()
    }

    /// The policy goes live, in the blend where both can be computed in one tick and the one before has a part in an action.
    fn go_live(&mut self, policy: Box<Policy>) -> Option<Box<Policy>> {
        let both = policy.identity().latency + self.slot.current().identity().latency;
        let fits = both < BLEND_SHARE * self.period && !self.answered.is_hindrance();
        if self.stages.went_live(fits) == Some(Stage::Blend) {
            self.guard.restart();
        } else {
            self.begin_anew();
        }
        self.slot.swap(policy)
    }

    /// Another policy acts alone: what is known of the one before does not count, and its command fades in.
    fn begin_anew(&mut self) {
        self.answered = Outcome::Idle;
        self.guard.restart();
        self.fade.start(self.safety.references(&self.state));
    }

    /// The policy has commanded and taken so long, s: what comes next.
    fn acted(&mut self, took: f64) -> Option<Turn> {
        match self.ask_shadow() {
            Err(_) => return Some(Turn::Return(Why::NoAction)),
            Ok(Some(latency)) => self.stages.compare(&self.action, &self.other, latency),
            Ok(None) => {}
        }
        self.stages.acted(self.safety.last()?, took)
    }

    /// The policy gave no action: one in the shadow that gives one need not wait any longer. Where neither does, the
    /// observation may be to blame.
    fn failed(&mut self) -> Option<Turn> {
        match self.ask_shadow() {
            Ok(Some(latency)) if self.shadow_knows() => self.stages.relieve(latency),
            Ok(None) => self.stages.failed(Why::NoAction),
            Ok(Some(_)) | Err(_) => None,
        }
    }

    /// The policy does not know what it sees: the tick counts for one in the shadow that does.
    fn guarded(&mut self, unknown: Unknown) -> Option<Turn> {
        match self.ask_shadow() {
            Err(_) => Some(Turn::Return(Why::NoAction)),
            Ok(Some(latency)) if self.shadow_knows() => self.stages.answered(latency),
            Ok(Some(_)) => None,
            Ok(None) => self.stages.failed(Why::Guard(unknown)),
        }
    }

    /// The policy is not asked again yet after it failed or was guarded: one in the shadow is asked all the same.
    fn waiting(&mut self) -> Option<Turn> {
        self.slot.shadow()?;
        self.observe();
        match self.ask_shadow() {
            Ok(Some(latency)) if self.shadow_knows() => self.stages.answered(latency),
            _ => None,
        }
    }

    /// Asks the policy in the shadow, where there is one, for its action on the last observation: how long it took, s.
    fn ask_shadow(&mut self) -> Result<Option<f64>, SampleError> {
        let acting = self.slot.current().steps();
        let Some(shadow) = self.slot.shadow_mut() else {
            return Ok(None);
        };
        let depth = shadow.depth_like(self.asked.depth, acting);
        let (normals, _) = self.normals.split_at(depth.candidates * self.other.len());
        let began = MonoTime::now();
        shadow.act(&self.observation, normals, depth, &mut self.other)?;
        Ok(Some(MonoTime::now().since(began) as f64 * 1e-9))
    }

    /// Where the guard keeps the policy from acting, the one in the shadow has to know what it was just asked about; one
    /// whose bundle carries no guard cannot tell.
    fn shadow_knows(&mut self) -> bool {
        if self.guard.unknown().is_none() {
            return true;
        }
        let acting = self.slot.current().steps();
        let Some(shadow) = self.slot.shadow_mut() else {
            return false;
        };
        let depth = shadow.depth_like(self.asked.depth, acting);
        match (shadow.identity().guard, shadow.signals(&self.normals, depth)) {
            (Some(guard), Ok(Some(signals))) => guard.allows(&signals),
            _ => false,
        }
    }
}
