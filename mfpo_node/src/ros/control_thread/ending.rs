//! How the control thread ends: the robot gets its last safe command, whatever else has gone wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use super::ControlThread;

use crate::time::MonoTime;

/// The middleware has this long to deliver the last command.
const FLUSH: Duration = Duration::from_millis(150);

impl ControlThread {
    /// Brings the robot to its last safe command and gives the middleware time to deliver it. States are listened to on
    /// the way, unless that `can_fail`.
    ///
    /// # Errors
    /// The panic of a step on that way; zero, or the position that is commanded, was then sent at once.
    pub(super) fn stop(&mut self, can_fail: bool) -> thread::Result<()> {
        let commanding = self
            .running
            .as_ref()
            .filter(|running| running.mode.is_commanding() && running.robot.control.commanded().is_some());
        let period = commanding.map(|running| running.robot.period);
        let stopped = period.map_or(Ok(()), |period| self.send_last(period, can_fail));
        if let Some(running) = &mut self.running {
            running.end(period.is_some(), &mut self.rings.tell);
        }
        stopped
    }

    fn send_last(&mut self, period: u64, can_fail: bool) -> thread::Result<()> {
        let began = MonoTime::now();
        let (mut next, mut is_deaf) = (began, can_fail);
        let step = |control: &mut Self| {
            // By the clock, not by the schedule: where the middleware holds up each command, the stop is cut all the same.
            if control.send_stop(MonoTime::now(), began) {
                return true;
            }
            control.rings.pulse.beat(MonoTime::now());
            // What was held up is not made up for: the rest of a ramp at once would be none.
            next = next.plus(period).max(MonoTime::now());
            is_deaf = is_deaf || catch_unwind(AssertUnwindSafe(|| control.drain())).is_err();
            next.sleep_until();
            false
        };
        let stopped = step_or_cut(self, step, Self::cut);
        thread::sleep(FLUSH);
        stopped
    }

    /// Zero at once, or the position that is commanded: the command alone, for what else is done with one may be at fault.
    fn cut(&mut self) {
        let Some(running) = &mut self.running else { return };
        if let Some(command) = running.robot.control.cut_stop() {
            // Nothing is left to do about a command that is not taken: the robot's own timeout has to act.
            let _ = self.commands.publish(command);
        }
    }
}

/// Takes steps until one says that it was the last. Where one panics none is tried again: `cut` comes in their place.
fn step_or_cut<S>(
    state: &mut S,
    mut step: impl FnMut(&mut S) -> bool,
    cut: impl FnOnce(&mut S),
) -> thread::Result<()> {
    loop {
        match catch_unwind(AssertUnwindSafe(|| step(state))) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(panic) => {
                // The first panic is the one that is told.
                let _ = catch_unwind(AssertUnwindSafe(|| cut(state)));
                return Err(panic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_last_stop_that_panics_is_cut_and_told() {
        let mut sent = Vec::new();
        let step = |sent: &mut Vec<i32>| {
            sent.push(5);
            assert!(sent.len() < 2, "the second step");
            false
        };
        let stopped = step_or_cut(&mut sent, step, |sent| sent.push(0));
        assert!(stopped.is_err(), "the panic is told");
        assert_eq!(sent, [5, 5, 0], "and zero is what was sent last");

        let stopped = step_or_cut(&mut sent, |sent| sent.pop() == Some(5), Vec::clear);
        assert!(stopped.is_ok());
        assert_eq!(sent, [5], "nothing was cut");
    }
}
