//! Whether ticks are later in some turns than in others, on a machine that has other work, too: the turns alternate, so that
//! the machine is the same for both, and all last equally long, since the worst of a longer time is worse.

use std::fmt;

/// Turns are worse than others where they are worse by this factor and by so much, ms, at once: half a period of 500 Hz.
const FACTOR: f64 = 2.0;
const BY_MS: f64 = 1.0;

/// Lateness of the deadlines of all turns of a kind, ms.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    late: Vec<f64>,
    /// The worst of each turn.
    worst: Vec<f64>,
}

impl Turns {
    /// One more turn, and how late each of its deadlines was.
    pub fn take(&mut self, turn: &[f64]) {
        self.worst.push(turn.iter().copied().fold(0.0, f64::max));
        self.late.extend(turn);
    }

    /// Number of deadlines.
    pub fn count(&self) -> usize {
        self.late.len()
    }

    /// The 99th percentile of all.
    pub fn p99(&self) -> f64 {
        quantile(&self.late, 0.99)
    }

    /// The median of the turns' worst: what happens in most turns, be it one tick of hundreds. What happens in a few turns
    /// does not move it.
    pub fn typical_worst(&self) -> f64 {
        quantile(&self.worst, 0.5)
    }

    /// Were these worse than quiet ones?
    pub fn are_worse_than(&self, quiet: &Self) -> bool {
        let is_worse = |these: f64, quiet: f64| these > FACTOR * quiet && these > quiet + BY_MS;
        is_worse(self.p99(), quiet.p99()) || is_worse(self.typical_worst(), quiet.typical_worst())
    }
}

impl fmt::Display for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} deadlines in {} turns, late by {:.3} ms (p50), {:.3} ms (p99), {:.3} ms (median of the worst of each turn)",
            self.count(),
            self.worst.len(),
            quantile(&self.late, 0.5),
            self.p99(),
            self.typical_worst()
        )
    }
}

/// Of none it is 0.
fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (at * sorted.len() as f64) as usize;
    sorted
        .get(index.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKS: usize = 250;

    /// Eight turns at 500 Hz of a machine that is up to 0.4 ms late, and in a tenth of the ticks `noise` more; `blocks` of each
    /// turn hold a tick up for 5 ms, which makes the two behind it late, too.
    fn turns(noise: f64, blocks: impl Fn(usize) -> usize) -> Turns {
        let mut turns = Turns::default();
        for turn in 0..8 {
            let own = |tick: usize| 0.1 * ((tick * 7 + turn * 3) % 5) as f64;
            let machine = |tick: usize| {
                if (tick + turn).is_multiple_of(10) {
                    noise
                } else {
                    0.0
                }
            };
            let mut late: Vec<f64> = (0..TICKS).map(|tick| own(tick) + machine(tick)).collect();
            for block in 0..blocks(turn) {
                for (tick, by) in late.iter_mut().skip(30 * block).zip([5.0, 3.0, 1.0]) {
                    *tick += by;
                }
            }
            turns.take(&late);
        }
        turns
    }

    #[test]
    fn one_tick_of_each_turn_that_is_held_up_for_five_milliseconds_is_seen() {
        let quiet = turns(0.0, |_| 0);
        let held = turns(0.0, |_| 1);
        assert!(held.p99() < quiet.p99() + BY_MS, "three of 250 ticks");
        assert!(held.are_worse_than(&quiet), "{held}\n{quiet}");
        let busy = turns(1.0, |_| 0);
        assert!(
            turns(1.0, |_| 1).are_worse_than(&busy),
            "on a machine that is late itself"
        );
    }

    #[test]
    fn many_ticks_that_are_held_up_in_few_turns_are_seen() {
        let quiet = turns(0.0, |_| 0);
        let held = turns(0.0, |turn| if turn < 3 { 6 } else { 0 });
        assert!(held.typical_worst() < quiet.typical_worst() + BY_MS);
        assert!(held.are_worse_than(&quiet), "{held}\n{quiet}");
    }

    #[test]
    fn a_machine_that_is_late_in_all_turns_or_once_accuses_nobody() {
        for noise in [0.0, 1.0, 20.0] {
            let (quiet, same) = (turns(noise, |_| 0), turns(noise, |turn| usize::from(turn == 2)));
            assert!(!same.are_worse_than(&quiet), "{same}\n{quiet}");
            assert!(!quiet.are_worse_than(&same));
        }
        assert!(
            !turns(0.8, |_| 0).are_worse_than(&turns(0.0, |_| 0)),
            "less than half of a tick's time"
        );
        assert!(
            turns(1.2, |_| 0).are_worse_than(&turns(0.0, |_| 0)),
            "more than half of a tick's time"
        );
        assert!(!Turns::default().are_worse_than(&Turns::default()));
    }
}
