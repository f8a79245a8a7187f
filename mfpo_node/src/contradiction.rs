//! Whether two publishers contradict each other about one joint. A message does not say who sent it, so that it is told by
//! what no joint can do: it is elsewhere, further off than it can have moved at its velocity limit, and back again at once;
//! and that several times. How often each of the two reports does not matter, nor how many messages one of them sends in
//! a row. What a message tells counts whether the message is refused or not.
//!
//! A sensor that is broken or noisy can do the same, so that this is certain only where the graph shows several publishers:
//! [`crate::joint_states::JointStates::set_several_sources`].

use crate::time::MonoTime;

/// Noise of a sensor: what is no further off is no leap, rad (m).
const NOISE: f64 = 0.01;
/// A leap that is not undone within this time, ns, is a robot that was set elsewhere.
const RETURN: u64 = 250_000_000;
/// A return that follows later than this, ns, begins a new count; so long what is certain stays so.
const AGAIN: u64 = 5_000_000_000;
/// So many returns are no accident.
const CERTAIN: u32 = 3;

/// Where a message tells that a joint is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Told {
    /// Its position, rad (m).
    pub position: f64,
    /// Stamp of the message, ns; 0 where it has none.
    pub stamp: i64,
    /// When it arrived.
    pub at: MonoTime,
}

impl Told {
    /// The time between another one and this, s: by the arrivals or by the stamps, whichever is longer. A stamp that goes
    /// back tells of where the joint was then: what a bridge or a relay passes on once more contradicts nobody.
    fn elapsed_since(&self, before: &Self) -> f64 {
        let by_stamp = if self.stamp > 0 && before.stamp > 0 {
            self.stamp.abs_diff(before.stamp)
        } else {
            0
        };
        self.at.since(before.at).max(by_stamp) as f64 * 1e-9
    }
}

/// What speaks for two publishers that contradict each other about one joint.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Contradiction {
    last: Option<Told>,
    /// How the last message leapt, where it did, rad (m).
    stride: Option<f64>,
    /// The last leap that was not undone, rad (m), and when it was.
    leap: Option<(f64, MonoTime)>,
    returns: u32,
    returned: Option<MonoTime>,
}

impl Contradiction {
    /// Takes over what the next message tells of a joint that moves at `fastest` (rad/s) at most; `way` is the short way
    /// round for a difference of its positions.
    pub fn see(&mut self, told: Told, fastest: f64, way: impl Fn(f64) -> f64) {
        let Some(last) = self.last.replace(told) else {
            return;
        };
        let by = way(told.position - last.position);
        let leaps = by.abs() > fastest * told.elapsed_since(&last) + NOISE;
        let before = std::mem::replace(&mut self.stride, leaps.then_some(by));
        if !leaps {
            return;
        }
        // Two publishers that take turns leap to and fro; twice in one direction is a joint above its velocity limit.
        if before.is_some_and(|before| before * by > 0.0) {
            self.leap = None;
            return;
        }
        let is_undone = |(leap, at): (f64, MonoTime)| {
            told.at.since(at) <= RETURN && by * leap < 0.0 && (by + leap).abs() <= 0.5 * leap.abs()
        };
        if !self.leap.is_some_and(is_undone) {
            self.leap = Some((by, told.at));
            return;
        }
        self.leap = None;
        let goes_on = self.returned.is_some_and(|at| told.at.since(at) <= AGAIN);
        self.returns = if goes_on {
            self.returns.saturating_add(1)
        } else {
            1
        };
        self.returned = Some(told.at);
    }

    /// Can no single publisher have told this, as far as positions go?
    pub fn is_certain(&self, now: MonoTime) -> bool {
        self.returns >= CERTAIN && self.returned.is_some_and(|at| now.since(at) <= AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const FASTEST: f64 = 2.0;

    /// Positions at these times, ms, in that order; is it certain then?
    fn is_certain(told: impl IntoIterator<Item = (f64, f64)>) -> bool {
        let mut contradiction = Contradiction::default();
        let mut now = MonoTime::from_nanos(0);
        for (ms, position) in told {
            now = MonoTime::from_nanos(7_000 * MS + (ms * MS as f64) as u64);
            let stamp = now.nanos().cast_signed();
            let told = Told {
                position,
                stamp,
                at: now,
            };
            contradiction.see(told, FASTEST, |difference| difference);
        }
        contradiction.is_certain(now)
    }

    /// A robot that swings, told of at 500 Hz, and every `every` ms a mock that stands still, `in_a_row` times.
    fn beside_a_mock(every: usize, in_a_row: usize, mock: f64) -> bool {
        let mut told = Vec::new();
        for k in 0..1000 {
            let ms = 2.0 * k as f64;
            told.push((ms, 0.2 * (0.004 * ms).sin()));
            if (2 * k) % every == 0 {
                let mocks = (1..=in_a_row).map(|n| (ms + 0.1 * n as f64, mock));
                told.extend(mocks);
            }
        }
        is_certain(told)
    }

    #[test]
    fn a_slow_mock_beside_a_fast_robot_is_certain_however_near_it_is() {
        for (every, in_a_row, mock) in [
            (100, 1, 0.3),
            (100, 2, 0.3),
            (100, 1, 1.5),
            (20, 3, 0.3),
            (400, 1, 0.25),
        ] {
            assert!(beside_a_mock(every, in_a_row, mock), "{every} {in_a_row} {mock}");
        }
    }

    #[test]
    fn one_robot_that_moves_as_fast_as_it_may_is_none() {
        let swing = |k: usize| (2.0 * k as f64, 0.1 * (FASTEST / 0.1 * 0.002 * k as f64).sin());
        assert!(!is_certain((0..2000).map(swing)));
        // What a queue held up comes at once; the stamps tell of the time that has passed.
        let mut contradiction = Contradiction::default();
        let at = MonoTime::from_nanos(MS);
        for k in 0..500_i64 {
            let told = Told {
                position: swing(k.unsigned_abs() as usize).1,
                stamp: 1 + 2 * k * MS.cast_signed(),
                at,
            };
            contradiction.see(told, FASTEST, |difference| difference);
        }
        assert!(!contradiction.is_certain(at));
    }

    #[test]
    fn a_joint_that_swings_above_its_velocity_limit_is_none() {
        // 3.5 rad/s, told of 50 times a second: its way back follows within 200 ms.
        let swing = |k: usize| (20.0 * k as f64, 0.4375 * (8.0 * 0.02 * k as f64).sin());
        for k in 2..300 {
            assert!(!is_certain((0..k).map(swing)), "{k}");
        }
    }

    #[test]
    fn a_relay_that_tells_the_same_once_more_with_its_old_stamp_is_none() {
        let swing = |ms: u64| 0.1 * (FASTEST / 0.1 * 1e-3 * ms as f64).sin();
        let mut contradiction = Contradiction::default();
        for ms in (100_u64..4_000).step_by(2) {
            // What was sent 20 ms ago comes right behind what is sent now.
            for (late, behind) in [(0_u64, 0), (20, MS / 10)] {
                let told = Told {
                    position: swing(ms - late),
                    stamp: ((ms - late) * MS).cast_signed(),
                    at: MonoTime::from_nanos(ms * MS + behind),
                };
                contradiction.see(told, FASTEST, |difference| difference);
                assert!(!contradiction.is_certain(told.at), "{ms} ms");
            }
        }
    }

    #[test]
    fn a_sensor_that_is_noisy_and_a_robot_that_is_set_elsewhere_now_and_then_are_none() {
        let noise = |k: usize| (2.0 * k as f64, if k.is_multiple_of(2) { 0.004 } else { -0.004 });
        assert!(!is_certain((0..1000).map(noise)));
        // Set elsewhere and back, twice a second: each stay is longer than a message of another publisher.
        let reset = |k: usize| {
            (
                2.0 * k as f64,
                if (k / 250).is_multiple_of(2) { 0.0 } else { 1.0 },
            )
        };
        assert!(!is_certain((0..5000).map(reset)));
    }

    #[test]
    fn what_was_certain_is_so_no_longer_when_one_of_the_two_has_ended() {
        let mut contradiction = Contradiction::default();
        let at = |ms: u64| MonoTime::from_nanos(ms * MS);
        for k in 0..20 {
            let told = Told {
                position: if k % 2 == 0 { 0.0 } else { 0.5 },
                stamp: 0,
                at: at(10 * k),
            };
            contradiction.see(told, FASTEST, |difference| difference);
        }
        assert!(contradiction.is_certain(at(200)));
        assert!(!contradiction.is_certain(at(6_000)));
    }
}
