//! Commands and their records, one to one: each record of `policy/action` tells of one command of the same bits, so that
//! equal commands, as of a fallback at rest, need as many records.

use std::collections::{HashMap, VecDeque};

use mfpo_node::time::MonoTime;

/// A command and its record are no further apart, ns.
const APART: u64 = 1_000_000_000;

/// Commands and records that wait for each other.
#[derive(Debug, Default)]
pub struct Pairing {
    /// Commands without a record so far, in the order of their arrival.
    open: VecDeque<(Vec<u64>, MonoTime)>,
    /// When each record came that tells of no command so far, oldest first.
    records: HashMap<Vec<u64>, VecDeque<MonoTime>>,
    tidied: Option<MonoTime>,
    /// Commands received.
    pub commands: u64,
    /// Commands that no record told of.
    pub unexplained: u64,
}

impl Pairing {
    /// A command has arrived.
    pub fn command(&mut self, command: &[f64], now: MonoTime) {
        self.commands += 1;
        self.open.push_back((key(command), now));
    }

    /// A record of a command has arrived.
    pub fn record(&mut self, command: &[f64], now: MonoTime) {
        self.records.entry(key(command)).or_default().push_back(now);
    }

    /// Settles what is old enough, and what has found its record.
    pub fn judge(&mut self, now: MonoTime) {
        while let Some((command, at)) = self.open.pop_front() {
            if self.take_record(&command, at) {
                continue;
            }
            if now.since(at) <= APART {
                self.open.push_front((command, at));
                break;
            }
            self.unexplained += 1;
        }
        if now.since(*self.tidied.get_or_insert(now)) > APART {
            self.tidied = Some(now);
            self.records.retain(|_, told| {
                told.retain(|told| now.since(*told) < 3 * APART);
                !told.is_empty()
            });
        }
    }

    /// Uses up the oldest record that may tell of a command; is there one?
    fn take_record(&mut self, command: &[u64], at: MonoTime) -> bool {
        let Some(told) = self.records.get_mut(command) else {
            return false;
        };
        while let Some(oldest) = told.pop_front() {
            if at.since(oldest) < APART {
                return true;
            }
        }
        false
    }
}

/// A command as its bits.
pub fn key(command: &[f64]) -> Vec<u64> {
    command.iter().map(|value| value.to_bits()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    fn at(milliseconds: u64) -> MonoTime {
        MonoTime::from_nanos((10_000 + milliseconds) * MILLISECOND)
    }

    #[test]
    fn one_record_explains_one_of_several_equal_commands() {
        let mut pairing = Pairing::default();
        for tick in 0..3 {
            pairing.command(&[0.0, 0.5], at(2 * tick));
        }
        pairing.record(&[0.0, 0.5], at(1));
        pairing.record(&[0.0, 0.5], at(3));
        pairing.judge(at(500));
        assert_eq!((pairing.commands, pairing.unexplained), (3, 0), "it may yet come");
        pairing.judge(at(1_100));
        assert_eq!(pairing.unexplained, 1);
        pairing.record(&[0.0, 0.5], at(1_200));
        pairing.judge(at(1_300));
        assert_eq!(pairing.unexplained, 1, "it was counted");
    }

    #[test]
    fn a_record_may_come_before_its_command_or_after_it_but_not_long_before() {
        let mut pairing = Pairing::default();
        pairing.record(&[1.0], at(0));
        pairing.command(&[1.0], at(2));
        pairing.command(&[2.0], at(4));
        pairing.record(&[2.0], at(900));
        pairing.record(&[3.0], at(1_000));
        pairing.command(&[3.0], at(2_001));
        pairing.judge(at(2_500));
        assert_eq!(pairing.unexplained, 0, "the last one may yet have its own");
        pairing.judge(at(3_100));
        assert_eq!(pairing.unexplained, 1);
    }

    #[test]
    fn what_never_finds_its_other_half_is_forgotten() {
        let mut pairing = Pairing::default();
        for tick in 0..5_000_u32 {
            let now = at(2 * u64::from(tick));
            pairing.record(&[f64::from(tick)], now);
            pairing.judge(now);
        }
        assert!(
            pairing.records.len() < 2_100,
            "{} are kept",
            pairing.records.len()
        );
    }
}
