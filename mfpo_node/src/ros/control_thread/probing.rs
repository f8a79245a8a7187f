//! The control thread while a probe is under way, and how it ends.

use super::{ControlThread, Retired, Robot, other_context};

use super::super::messages::fill_stop;
use super::super::running::Mode;
use crate::control_loop::NotReady;
use crate::control_loop::probing::Probing;
use crate::metrics::LoopState;
use crate::probe::Probe;
use crate::recording::tick::PROBING;
use crate::status::{Cause, LoopEvent};
use crate::time::MonoTime;

/// How a probe has ended.
#[derive(Debug)]
pub enum ProbeEnd {
    /// Every joint is done, or the robot moved by itself.
    Complete,
    /// It was told to, or something came up.
    Hindered(Cause),
    /// Somebody wanted something else of the node.
    Overtaken,
    /// The robot was not ready for it.
    NotReady(NotReady),
    /// The loop was busy otherwise.
    Refused(&'static str),
}

impl ControlThread {
    /// Begins a probe, where nothing else is done with the robot.
    pub(super) fn begin_probe(&mut self, probe: Box<Probe>, now: MonoTime) {
        let Some(running) = &mut self.running else {
            let end = ProbeEnd::Refused("no policy is loaded");
            self.rings.retire(Retired::Probe { probe, end });
            return;
        };
        if running.mode != Mode::Inactive {
            let end = ProbeEnd::Refused("the robot is commanded, or about to be");
            self.rings.retire(Retired::Probe { probe, end });
            return;
        }
        let Robot { control, states, .. } = &mut *running.robot;
        if let Err(not_ready) = control.begin_probe(probe.mode(), states, now) {
            let end = ProbeEnd::NotReady(not_ready);
            self.rings.retire(Retired::Probe { probe, end });
            return;
        }
        running.begin_probing(probe);
        running.enter(LoopState::Probing, &mut self.rings.tell);
        self.tell_joint();
    }

    /// One tick of a probe.
    pub(super) fn step_of_a_probe(&mut self, now: MonoTime) {
        let Some(running) = &mut self.running else { return };
        running.complete = false;
        running.schedule.serve(now, false);
        let (
            Some(probe),
            Robot {
                control,
                states,
                live,
                ..
            },
        ) = (&mut running.probe, &mut *running.robot)
        else {
            return;
        };
        let before = probe.joint();
        let end = match control.probe(probe, states, now) {
            Probing::Command { command, raw } => {
                // Nothing is left to do about a command that is not taken: the robot's own timeout has to act.
                let _ = self.commands.publish(command);
                live.count_interventions(command);
                fill_stop(&mut self.action, command, running.next);
                self.action.command_raw.clear();
                self.action.command_raw.extend_from_slice(raw);
                running.next += 1;
                self.action.stamp = self.stamps.now();
                let _ = self.actions.publish(&self.action);
                let context = other_context(&self.action, now);
                let wanted = Some(self.action.command_raw.as_slice());
                running.robot.record_other(PROBING, wanted, context);
                None
            }
            Probing::Look => None,
            Probing::End(None) => Some(ProbeEnd::Complete),
            Probing::End(Some(reason)) => Some(ProbeEnd::Hindered(Cause::of(&reason))),
        };
        let is_next = probe.joint() != before;
        match end {
            Some(end) => self.end_probe(end, now),
            None if is_next => self.tell_joint(),
            None => {}
        }
    }

    /// Ends a probe, where one is under way; a robot that was commanded is brought to a stop.
    pub(super) fn end_probe(&mut self, end: ProbeEnd, now: MonoTime) {
        let Some(running) = &mut self.running else { return };
        let Some(probe) = running.probe.take() else { return };
        self.rings.retire(Retired::Probe { probe, end });
        if !running.begin_stop(now) {
            running.enter(LoopState::Inactive, &mut self.rings.tell);
        }
    }

    fn tell_joint(&mut self) {
        let probe = self.running.as_ref().and_then(|running| running.probe.as_ref());
        if let Some((probe, joint)) = probe.and_then(|probe| Some((probe, probe.joint()?))) {
            let event = LoopEvent::Probing {
                joint,
                mode: probe.mode(),
            };
            self.rings.tell(event);
        }
    }
}
