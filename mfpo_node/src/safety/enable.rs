//! An optional heartbeat of somebody who watches the robot: without it, no motion. `true` permits motion for a time,
//! `false` ends it at once.

use crate::time::MonoTime;

/// Whether motion is permitted.
#[derive(Debug, Clone, Copy)]
pub struct Enable {
    /// How long one heartbeat lasts, ns; `None` where none is needed.
    timeout: Option<u64>,
    last: Option<(bool, MonoTime)>,
}

/// Why motion is not permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotEnabled {
    /// No heartbeat has come since the start.
    Never,
    /// The last one is too old.
    Late {
        /// Its age, ns.
        age: u64,
    },
    /// The last one said `false`.
    Withdrawn,
}

impl Enable {
    /// Nothing heard yet; a `timeout` of 0 ns needs no heartbeat.
    pub const fn new(timeout: u64) -> Self {
        Self {
            timeout: if timeout > 0 { Some(timeout) } else { None },
            last: None,
        }
    }

    /// A heartbeat has arrived.
    pub fn heard(&mut self, permits: bool, now: MonoTime) {
        self.last = Some((permits, now));
    }

    /// Is motion permitted now?
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, now: MonoTime) -> Result<(), NotEnabled> {
        let Some(timeout) = self.timeout else {
            return Ok(());
        };
        match self.last {
            None => Err(NotEnabled::Never),
            Some((false, _)) => Err(NotEnabled::Withdrawn),
            Some((true, at)) if now.since(at) > timeout => Err(NotEnabled::Late { age: now.since(at) }),
            Some((true, _)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanoseconds: u64) -> MonoTime {
        MonoTime::from_nanos(1_000 + nanoseconds)
    }

    #[test]
    fn without_a_timeout_no_heartbeat_is_needed() {
        assert_eq!(Enable::new(0).check(at(0)), Ok(()));
    }

    #[test]
    fn a_heartbeat_permits_motion_until_its_timeout_or_until_it_is_withdrawn() {
        let mut enable = Enable::new(100);
        assert_eq!(enable.check(at(0)), Err(NotEnabled::Never));
        enable.heard(true, at(0));
        assert_eq!(enable.check(at(100)), Ok(()));
        assert_eq!(enable.check(at(101)), Err(NotEnabled::Late { age: 101 }));
        enable.heard(false, at(102));
        assert_eq!(enable.check(at(102)), Err(NotEnabled::Withdrawn));
    }
}
