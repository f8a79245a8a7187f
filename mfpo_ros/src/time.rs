//! `builtin_interfaces/Time` to and from nanoseconds.

use std::time::{SystemTime, UNIX_EPOCH};

use r2r::builtin_interfaces::msg::Time;

const NANOSECONDS: i64 = 1_000_000_000;

/// Nanoseconds since the epoch of the stamp's clock.
pub fn nanoseconds(time: &Time) -> i64 {
    i64::from(time.sec) * NANOSECONDS + i64::from(time.nanosec)
}

/// The stamp of `nanoseconds` since the epoch.
pub fn stamp(nanoseconds: i64) -> Time {
    Time {
        sec: i32::try_from(nanoseconds.div_euclid(NANOSECONDS)).unwrap_or(i32::MAX),
        nanosec: nanoseconds.rem_euclid(NANOSECONDS) as u32,
    }
}

/// System time, nanoseconds since the Unix epoch.
pub fn system_nanoseconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX))
}

/// The stamp of now, on the system clock.
pub fn now() -> Time {
    stamp(system_nanoseconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_survive_the_round_trip_before_and_after_the_epoch() {
        for value in [0, 1, 999_999_999, 1_000_000_000, 1_763_904_000_123_456_789, -1] {
            assert_eq!(nanoseconds(&stamp(value)), value);
        }
    }
}
