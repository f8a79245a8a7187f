//! What the service does where the control thread stands still: it says so, and lets nobody wait for an answer that does not
//! come. It cannot do what that thread would: whatever holds that one up in the middleware would hold up another, too.

use mfpo_ros::shutdown;

use super::life::respond;
use super::service::Service;

use crate::time::MonoTime;

/// The control thread comes round 100 times a second; one that has not for so long, nor for two periods, stands still, ns.
const STANDSTILL: u64 = 500_000_000;
/// A thread that has stood still for so long is not waited for any more where the process is to end, ns.
pub const LONGEST_END: u64 = 3_000_000_000;
/// `~/stop` is answered within this time, ns: the control thread needs a hundredth of it.
const LONGEST_HALT: u64 = 1_000_000_000;

impl Service {
    /// Sees whether the control thread comes round, and tells where it does not.
    pub fn watch_control(&mut self, now: MonoTime) {
        let period = self.spec.as_ref().map_or(0, |spec| spec.control_period_ns);
        let limit = STANDSTILL.max(2 * period);
        let found = self.standstill.look(&self.pulse, limit, now);
        self.status.note_standstill(found);
    }

    /// Does the control thread stand still while the process is to end?
    pub fn is_stuck_at_its_end(&self) -> bool {
        let is_long = |silence: u64| silence > LONGEST_END;
        shutdown::requested() && self.status.standstill().is_some_and(is_long)
    }

    /// Whoever asked for a stop and was not answered is told that nothing says that the robot stands.
    pub fn give_up_stops(&mut self, now: MonoTime) {
        let (late, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.stops)
            .into_iter()
            .partition(|(since, _)| now.since(*since) > LONGEST_HALT);
        self.stops = waiting;
        for (_, request) in late {
            let why = "the control thread has not confirmed the stop within 1 s: the robot may still move by what it was sent \
                       last; expected a confirmation at once, use the robot's own stop";
            tracing::error!("{why}");
            respond(request, false, why.to_owned());
        }
    }
}
