//! Ticks that were missed, as the records of `policy/action` tell, and whose doing it was.

use mfpo_node::time::MonoTime;
use mfpo_ros::r2r::mfpo_msgs::msg::PolicyAction;
use mfpo_ros::time;

use super::Sampler;

const MILLISECOND: u64 = 1_000_000;
/// The sampler has noted what belongs to a miss after this time, ns.
const NOTED: u64 = 20 * MILLISECOND;
/// The system clock, which stamps are of, drifts from the monotonic one by no more than this, ns a tick.
const DRIFT: i64 = 2_000;
/// Misses that are told one by one.
const TOLD: usize = 40;
/// Evidence is looked for from so long before a miss on, ns.
const BEFORE: u64 = 8 * MILLISECOND;
/// Between two moments without a miss that are looked at for comparison, ns.
const COMPARED: u64 = 500 * MILLISECOND;

/// Ticks that were missed at once.
#[derive(Debug, Clone, Copy)]
pub struct Miss {
    /// When their record arrived.
    pub at: MonoTime,
    /// Number of the tick that came after all.
    pub sequence: u64,
    /// How many.
    pub ticks: u64,
    /// By how much the last of them was late, ms.
    pub late_ms: f64,
}

/// Misses, and what the machine did meanwhile.
pub struct Misses {
    period: i64,
    last: Option<u64>,
    /// Stamp of an on-time tick of number 0, ns.
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
    /// What is known of them.
    pub told: Vec<String>,
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
            told: Vec::new(),
        }
    }

    /// The ticks that were missed with one of which the record has arrived.
    pub fn of(&mut self, action: &PolicyAction, now: MonoTime) -> Option<Miss> {
        let skipped = self
            .last
            .map_or(0, |last| action.sequence.saturating_sub(last + 1));
        self.last = Some(action.sequence);
        let late = self.lateness(action);
        let ticks = skipped + u64::from(action.fallback || late > self.period);
        (ticks > 0).then(|| Miss {
            at: now,
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
            let evidence = sampler.since(began(now.minus(NOTED), late_ms));
            self.by_chance.0 += 1;
            self.by_chance.1 += u64::from(evidence.explains(late_ms));
        }
    }

    /// By how much the command of a tick was later than that of the ticks before, ns.
    fn lateness(&mut self, action: &PolicyAction) -> i64 {
        let offset = time::nanoseconds(&action.stamp) - action.sequence as i64 * self.period;
        let base = self.base.map_or(offset, |base| offset.min(base + DRIFT));
        self.base = Some(base);
        offset - base
    }

    fn blame(&mut self, miss: &Miss, sampler: &Sampler) {
        let evidence = sampler.since(began(miss.at, miss.late_ms));
        let is_machine = evidence.explains(miss.late_ms);
        let whose = if is_machine {
            self.by_machine += miss.ticks;
            "the machine's"
        } else {
            self.by_us += miss.ticks;
            "ours"
        };
        if self.told.len() < TOLD {
            self.told.push(format!(
                "tick {}: {} missed, {:.2} ms late, {whose}: {evidence}",
                miss.sequence, miss.ticks, miss.late_ms
            ));
        }
    }
}

/// When what made a tick so late may have begun.
fn began(at: MonoTime, late_ms: f64) -> MonoTime {
    at.minus((1e6 * late_ms) as u64 + BEFORE)
}
