//! Ticks that were missed, as the records of `policy/action` tell, and whose doing it was.

use std::fmt;

use mfpo_node::time::MonoTime;
use mfpo_ros::r2r::mfpo_msgs::msg::PolicyAction;
use mfpo_ros::time;
use serde_json::{Value, json};

use super::{Evidence, Sampler};

const MILLISECOND: u64 = 1_000_000;
/// The sampler has noted what belongs to a miss after this time, ns.
const NOTED: u64 = 20 * MILLISECOND;
/// The system clock, which stamps are of, drifts from the monotonic one by no more than this, ns a tick.
const DRIFT: i64 = 2_000;
/// Misses that are told one by one in words.
const TOLD: usize = 40;
/// What made a tick late may have begun so long before its deadline, and is told of so long after it came, ns: the sampler
/// counts a wait when it ends.
const AROUND: u64 = MILLISECOND;
/// A record that comes later than this, ns, has a stamp that tells nothing.
const MOST_ON_ITS_WAY: u64 = 1_000 * MILLISECOND;
/// Between two moments without a miss that are looked at for comparison, ns.
const COMPARED: u64 = 500 * MILLISECOND;

/// Ticks that were missed at once.
#[derive(Debug, Clone, Copy)]
pub struct Miss {
    /// When the tick that came after all had its command.
    pub at: MonoTime,
    /// Number of the tick that came after all.
    pub sequence: u64,
    /// How many.
    pub ticks: u64,
    /// By how much the last of them was late, ms.
    pub late_ms: f64,
}

/// A miss, and whose doing it was.
#[derive(Debug, Clone, Copy)]
pub struct Judged {
    /// The ticks.
    pub miss: Miss,
    /// What the machine did meanwhile.
    pub evidence: Evidence,
    /// Does that account for it?
    pub is_machine: bool,
}

impl Judged {
    /// For programs.
    pub fn json(&self) -> Value {
        let (miss, evidence) = (&self.miss, &self.evidence);
        json!({
            "tick": miss.sequence, "missed": miss.ticks, "late_ms": miss.late_ms, "machine": self.is_machine,
            "waited_for_a_core_ms": evidence.run_delay_ms, "sleeper_late_ms": evidence.witness_late_ms,
            "hypervisor_took_ms": evidence.steal_ms,
        })
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Miss {
            sequence,
            ticks,
            late_ms,
            ..
        } = self.miss;
        let whose = if self.is_machine { "the machine's" } else { "ours" };
        write!(
            f,
            "tick {sequence}: {ticks} missed, {late_ms:.2} ms late, {whose}: {}",
            self.evidence
        )
    }
}

/// Misses, and what the machine did meanwhile.
pub struct Misses {
    period: i64,
    last: Option<u64>,
    /// When a tick of number 0 that was in time would have begun, ns of the stamps' clock.
    base: Option<i64>,
    waiting: Vec<Miss>,
    /// Missed ticks of which the machine's own record tells.
    pub by_machine: u64,
    /// Others.
    pub by_us: u64,
    /// Moments that the clock chose, and those of them in which a miss of one tick would have been called the machine's:
    /// how much the machine's record proves.
    pub by_chance: (u64, u64),
    next_comparison: Option<MonoTime>,
    /// All of them that are settled.
    pub judged: Vec<Judged>,
}

impl Misses {
    /// None so far, at a control rate, Hz.
    pub fn new(rate: f64) -> Self {
        Self {
            period: (1e9 / rate) as i64,
            last: None,
            base: None,
            waiting: Vec::new(),
            by_machine: 0,
            by_us: 0,
            by_chance: (0, 0),
            next_comparison: None,
            judged: Vec::new(),
        }
    }

    /// The first of them in words, and how many more there are.
    pub fn in_words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.judged.iter().take(TOLD).map(Judged::to_string).collect();
        let more = self.judged.len().saturating_sub(TOLD);
        if more > 0 {
            words.push(format!("and {more} more"));
        }
        words
    }

    /// The ticks that were missed with one of which the record has arrived.
    pub fn of(&mut self, action: &PolicyAction, now: MonoTime) -> Option<Miss> {
        let skipped = self
            .last
            .map_or(0, |last| action.sequence.saturating_sub(last + 1));
        self.last = Some(action.sequence);
        let late = self.lateness(action);
        let ticks = skipped + u64::from(action.fallback || late > self.period);
        let on_its_way = time::system_nanoseconds() - time::nanoseconds(&action.stamp);
        (ticks > 0).then(|| Miss {
            at: now.minus(u64::try_from(on_its_way).unwrap_or(0).min(MOST_ON_ITS_WAY)),
            sequence: action.sequence,
            ticks,
            late_ms: 1e-6 * (late as f64).max((skipped as i64 * self.period) as f64),
        })
    }

    /// Counts a miss, once the machine's record of that time is complete.
    pub fn count(&mut self, miss: Miss) {
        self.waiting.push(miss);
    }

    /// Settles what is old enough.
    pub fn judge(&mut self, now: MonoTime, sampler: &Sampler) {
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|miss: &Miss| now.since(miss.at) > NOTED);
        self.waiting = waiting;
        for miss in ready {
            self.blame(&miss, sampler);
        }
        if self.next_comparison.is_none_or(|next| now >= next) {
            self.next_comparison = Some(now.plus(COMPARED));
            let late_ms = 1e-6 * self.period as f64;
            let evidence = during(sampler, now.minus(NOTED), late_ms);
            self.by_chance.0 += 1;
            self.by_chance.1 += u64::from(evidence.explains(late_ms));
        }
    }

    /// How long after its deadline a tick had handed its command over, ns, where the tick that began earliest of those before
    /// it began in time.
    fn lateness(&mut self, action: &PolicyAction) -> i64 {
        let handed_over = time::nanoseconds(&action.stamp) - action.sequence as i64 * self.period;
        let began = handed_over - (1e9 * action.latency) as i64;
        let base = self.base.map_or(began, |base| began.min(base + DRIFT));
        self.base = Some(base);
        handed_over - base
    }

    fn blame(&mut self, miss: &Miss, sampler: &Sampler) {
        let evidence = during(sampler, miss.at, miss.late_ms);
        let is_machine = evidence.explains(miss.late_ms);
        if is_machine {
            self.by_machine += miss.ticks;
        } else {
            self.by_us += miss.ticks;
        }
        self.judged.push(Judged {
            miss: *miss,
            evidence,
            is_machine,
        });
    }
}

/// What the machine did while a tick was late by so much that had its command at `at`.
fn during(sampler: &Sampler, at: MonoTime, late_ms: f64) -> Evidence {
    let deadline = at.minus((1e6 * late_ms) as u64);
    sampler.between(deadline.minus(AROUND), at.plus(AROUND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_of_the_first_misses_and_programs_get_all_of_them() {
        let judged = |sequence| Judged {
            miss: Miss {
                at: MonoTime::from_nanos(0),
                sequence,
                ticks: 2,
                late_ms: 4.5,
            },
            evidence: Evidence {
                run_delay_ms: 0.25,
                witness_late_ms: 5.5,
                steal_ms: 10.0,
            },
            is_machine: true,
        };
        let mut misses = Misses::new(500.0);
        misses.judged.extend((0..100).map(judged));
        let words = misses.in_words();
        assert_eq!(words.len(), TOLD + 1);
        assert!(
            words[7].starts_with("tick 7: 2 missed, 4.50 ms late, the machine's: "),
            "{}",
            words[7]
        );
        assert_eq!(words[TOLD], "and 60 more");
        let last = misses.judged[99].json();
        assert_eq!((&last["tick"], &last["missed"]), (&json!(99), &json!(2)));
        assert_eq!(
            (&last["machine"], &last["sleeper_late_ms"]),
            (&json!(true), &json!(5.5))
        );
    }
}
