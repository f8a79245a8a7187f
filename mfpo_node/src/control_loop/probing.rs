//! A step of a probe: watchdog, heartbeat and safety filter as ever, and the probe where the policy would be.

use super::{ControlLoop, NotReady, Reason};
use crate::joint_states::JointStates;
use crate::probe::{Mode, Next, Probe};
use crate::safety::{SafeCommand, Verdict};
use crate::time::MonoTime;

/// What a step of a probe decides.
#[derive(Debug)]
pub enum Probing<'a> {
    /// Send this; before the safety filter it was `raw`.
    Command {
        /// What to send.
        command: &'a SafeCommand,
        /// What the probe wanted.
        raw: &'a [f64],
    },
    /// Send nothing; the operator moves the joint.
    Look,
    /// The probe is over; where it is not done, this is why.
    End(Option<Reason>),
}

impl ControlLoop {
    /// Lets a probe begin where it may; whoever asks for it ends a stop.
    ///
    /// # Errors
    /// Why it may not.
    pub fn begin_probe(&mut self, mode: Mode, states: &JointStates, now: MonoTime) -> Result<(), NotReady> {
        match mode {
            Mode::Move => {
                self.check_ready(states, now)?;
                self.safety.restart();
            }
            Mode::ByHand => match self.watchdog.check(states, now, &mut self.state) {
                Verdict::Fresh => {}
                unfit => return Err(NotReady::States(unfit)),
            },
        }
        self.is_stopped = false;
        Ok(())
    }

    /// Decides what a probe sends now.
    pub fn probe(&mut self, probe: &mut Probe, states: &JointStates, now: MonoTime) -> Probing<'_> {
        if self.is_stopped {
            return Probing::End(Some(Reason::Stopped));
        }
        match self.watchdog.check(states, now, &mut self.state) {
            Verdict::Fresh => {}
            unfit => return Probing::End(Some(Reason::States(unfit))),
        }
        if let (Mode::Move, Err(missing)) = (probe.mode(), self.enable.check(now)) {
            return Probing::End(Some(Reason::NotEnabled(missing)));
        }
        match probe.step(&self.state, &mut self.raw) {
            Next::End => Probing::End(None),
            Next::Look => Probing::Look,
            Next::Send => {
                let command = self.safety.enforce(&self.raw, &self.state);
                probe.sent(command.values(), &self.state);
                Probing::Command {
                    command,
                    raw: &self.raw,
                }
            }
        }
    }
}
