//! Simulated time, as the topic /clock tells it (parameter `use_sim_time`). It stamps what the node publishes; ages and deadlines
//! are not measured by it, for it passes as it likes. That it passes at all is asked before a robot is commanded: where it does
//! not, the simulator is paused, or this is a real robot whose node follows somebody else's clock.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::time::MonoTime;

/// Simulators publish their time ten times a second and more often; one that is ten times slower than real time, and counts these
/// by its own clock, once a second. What has not moved for twice that long stands still, ns.
const LONGEST_REST: u64 = 2_000_000_000;

/// The newest simulated time: written by the control thread, read by whoever stamps a message. Nobody waits for it.
#[derive(Debug, Default)]
pub struct SimTime {
    /// ns; 0 before it has come.
    newest: AtomicI64,
    /// When it moved last, ns of the monotonic clock; 0 before it has come.
    moved: AtomicU64,
}

impl SimTime {
    /// /clock says that it is this late, ns; only the control thread tells. Time that is set back has moved, too: a simulator
    /// begins anew.
    pub fn hear(&self, time: i64, now: MonoTime) {
        let before = self.newest.swap(time, Ordering::Relaxed);
        if time != before || self.moved.load(Ordering::Relaxed) == 0 {
            self.moved.store(now.nanos(), Ordering::Relaxed);
        }
    }

    /// The newest one, ns; 0 before it has come, as everywhere in ROS 2.
    pub fn newest(&self) -> i64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// For how long it has not moved, ns; `None` before it has come.
    pub fn rest(&self, now: MonoTime) -> Option<u64> {
        match self.moved.load(Ordering::Relaxed) {
            0 => None,
            moved => Some(now.since(MonoTime::from_nanos(moved))),
        }
    }

    /// The longest rest that is no standstill, ns, where a joint's state is stale after `stale_after`: whoever is as patient with a
    /// slow simulator's joints is so with its clock.
    pub fn longest_rest(stale_after: u64) -> u64 {
        stale_after.max(LONGEST_REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_nanos(5_000 * MS + ms * MS)
    }

    #[test]
    fn time_rests_from_its_last_move_on_whichever_way_that_was() {
        let time = SimTime::default();
        assert_eq!(time.rest(at(9_000)), None, "it has not come");
        // A simulator that is paused from the beginning.
        time.hear(0, at(0));
        time.hear(0, at(300));
        assert_eq!((time.newest(), time.rest(at(400))), (0, Some(400 * MS)));
        time.hear(7, at(500));
        assert_eq!(time.rest(at(510)), Some(10 * MS));
        time.hear(3, at(520));
        assert_eq!((time.newest(), time.rest(at(520))), (3, Some(0)), "it began anew");
        time.hear(3, at(900));
        assert_eq!(time.rest(at(1_000)), Some(480 * MS), "a message is no move");
    }

    #[test]
    fn a_clock_may_rest_for_as_long_as_a_joint_and_for_two_seconds_in_any_case() {
        assert_eq!(SimTime::longest_rest(100 * MS), 2_000 * MS);
        assert_eq!(SimTime::longest_rest(5_000 * MS), 5_000 * MS);
    }
}
