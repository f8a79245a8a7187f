//! How the control thread takes over a policy: stage by stage while the robot is commanded, at once and on probation otherwise.

use std::sync::Arc;

use super::control_thread::{ControlThread, Retired};
use super::messages::{fill_before, fill_identity};
use super::running::Mode;

use crate::control_loop::{CutShort, Progress};
use crate::metrics::add;
use crate::status::LoopEvent;
use crate::weights::{Policy, PolicyIdentity, Stage, Turn, Why};

impl ControlThread {
    /// A better policy has been accepted.
    pub(super) fn begin_swap(&mut self, policy: Box<Policy>) {
        let Some(running) = &mut self.running else {
            return self.rings.retire(Retired::Policy(policy));
        };
        let identity = Arc::clone(policy.identity());
        if running.mode != Mode::Active {
            if let Some(superseded) = running.robot.control.take_shadow() {
                let name = Arc::clone(superseded.identity());
                self.rings.retire(Retired::Policy(superseded));
                self.rings.tell(LoopEvent::Superseded(name));
            }
            let freed = running.robot.control.swap(policy);
            let stage = running.robot.control.stage();
            self.free(freed);
            return self.went_live(true, stage);
        }
        let begun = running.robot.control.begin_swap(policy);
        for freed in begun.freed {
            self.free(freed);
        }
        if let Some(superseded) = begun.superseded {
            self.rings.tell(LoopEvent::Superseded(superseded));
        }
        if let Some(CutShort { given_up, proven }) = begun.cut_short {
            self.returned(given_up, proven, Why::Overtaken);
        }
        match begun.stage {
            Some(Stage::Shadow) => self.rings.tell(LoopEvent::Shadowing(identity)),
            stage => self.went_live(true, stage),
        }
    }

    /// The command is on its way: the swap that is under way gets further.
    pub(super) fn after_tick(&mut self) {
        let Some(running) = &mut self.running else { return };
        let control = &mut running.robot.control;
        let Some(Progress {
            turn,
            given_up,
            freed,
        }) = control.after(running.took)
        else {
            return;
        };
        let stage = control.stage();
        if let Some(policy) = freed {
            self.rings.retire(Retired::Policy(policy));
        }
        match (turn, given_up) {
            (Turn::GoLive(compared), _) => {
                self.rings.tell(LoopEvent::Compared(compared));
                self.went_live(true, stage);
            }
            (Turn::Blended, _) => {
                fill_before(&mut self.action, None);
                self.rings.tell(LoopEvent::Blended(stage));
            }
            (Turn::Commit, _) => self.rings.tell(LoopEvent::Committed),
            (Turn::Return(why), Some(given_up)) => {
                let current = Arc::clone(running.robot.control.slot().current().identity());
                self.returned(given_up, current, why);
            }
            (Turn::Return(_), None) => {}
        }
    }

    /// A policy was not let through its swap, and another acts.
    fn returned(&mut self, given_up: Arc<PolicyIdentity>, current: Arc<PolicyIdentity>, why: Why) {
        let Some(running) = &self.running else { return };
        add(&running.robot.live.swap_returns, 1);
        fill_identity(&mut self.action, &current);
        fill_before(&mut self.action, None);
        self.rings.tell(LoopEvent::Returned {
            given_up,
            current,
            why,
        });
    }

    /// Nothing is commanded any more, so that two policies can be neither compared nor blended: the one in the shadow
    /// takes over at once, as one does that arrives now, and the one in the blend acts alone when it goes on. Either is on
    /// probation then.
    pub(super) fn end_stages(&mut self) {
        let Some(running) = &mut self.running else { return };
        let control = &mut running.robot.control;
        let before = control.stage();
        match control.take_shadow() {
            Some(policy) => self.begin_swap(policy),
            None => {
                control.cut_blend();
                self.note_cut(before);
            }
        }
    }

    /// The blend that was under way before may have been cut short.
    pub(super) fn note_cut(&mut self, before: Option<Stage>) {
        let Some(running) = &self.running else { return };
        let stage = running.robot.control.stage();
        if before == Some(Stage::Blend) && stage != before {
            fill_before(&mut self.action, None);
            self.rings.tell(LoopEvent::Blended(stage));
        }
    }

    /// The operator wants the policy before, or the one that acts rather than the one in the shadow.
    pub(super) fn roll_back(&mut self) {
        let Some(running) = &mut self.running else { return };
        let control = &mut running.robot.control;
        if control.stage() == Some(Stage::Shadow) {
            let shadow = control.give_up();
            let given_up = shadow.as_ref().map(|policy| Arc::clone(policy.identity()));
            self.free(shadow);
            if let Some(given_up) = given_up {
                self.rings.tell(LoopEvent::Superseded(given_up));
            }
        } else if !control.roll_back() {
            return self.rings.tell(LoopEvent::NothingBefore);
        }
        let Some(running) = &mut self.running else { return };
        add(&running.robot.live.rollbacks, 1);
        let slot = running.robot.control.slot();
        fill_identity(&mut self.action, slot.current().identity());
        fill_before(&mut self.action, None);
        self.rings.tell(LoopEvent::RolledBack {
            current: Arc::clone(slot.current().identity()),
            previous: slot.previous().map(|p| Arc::clone(p.identity())),
        });
    }

    /// A policy acts from now on, in this stage of its swap.
    pub(super) fn went_live(&mut self, is_swap: bool, stage: Option<Stage>) {
        let Some(running) = &self.running else { return };
        let slot = running.robot.control.slot();
        add(&running.robot.live.swaps, u64::from(is_swap));
        fill_identity(&mut self.action, slot.current().identity());
        let before = slot.previous().filter(|_| stage == Some(Stage::Blend));
        fill_before(&mut self.action, before.map(|policy| &**policy.identity()));
        self.rings.tell(LoopEvent::WentLive {
            current: Arc::clone(slot.current().identity()),
            previous: slot.previous().map(|p| Arc::clone(p.identity())),
            is_swap,
            stage,
        });
    }

    fn free(&mut self, policy: Option<Box<Policy>>) {
        if let Some(policy) = policy {
            self.rings.retire(Retired::Policy(policy));
        }
    }
}
