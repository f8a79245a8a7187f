//! The one clock of the control loop: `CLOCK_MONOTONIC`, in nanoseconds. Ages and deadlines are measured on it, so
//! that a step of the system clock or a robot with another clock moves nothing. Stamps of messages are never
//! compared with it.

/// An instant of `CLOCK_MONOTONIC`, ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(u64);

impl MonoTime {
    /// The instant `nanoseconds` after the clock's origin.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Nanoseconds from `earlier` to here; 0 when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Nanoseconds from `other` to here, negative when `other` is later.
    pub const fn signed_since(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }

    /// The instant `nanoseconds` later.
    pub const fn plus(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// The instant `nanoseconds` later, or earlier when negative.
    pub const fn shifted(self, nanoseconds: i64) -> Self {
        Self(self.0.saturating_add_signed(nanoseconds))
    }

    /// The instant `nanoseconds` earlier.
    pub const fn minus(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_sub(nanoseconds))
    }

    /// Reads the clock.
    pub fn now() -> Self {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is a valid timespec; CLOCK_MONOTONIC exists on every Linux, so that the call cannot fail.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
        Self(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// Sleeps until this instant; returns at once when it has passed, and early when a signal arrives.
    pub fn sleep_until(self) {
        let time = libc::timespec {
            tv_sec: (self.0 / 1_000_000_000) as libc::time_t,
            tv_nsec: (self.0 % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: `time` is a valid timespec and the remaining-time pointer may be null with TIMER_ABSTIME.
        unsafe {
            libc::clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                libc::TIMER_ABSTIME,
                &time,
                std::ptr::null_mut(),
            )
        };
    }
}
