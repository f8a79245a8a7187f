//! How far the policy is sampled in a tick. The first answer is always taken; what follows - all steps, then more
//! candidates - is taken while the tick's budget lasts, each stage only when it is likely to end in time. What a stage
//! takes is learnt from the ticks before, so that a slow machine samples less and is not late.

use mfpo_policy::sampler::Depth;

use crate::time::MonoTime;

/// Room for what a stage may take above its average.
const MARGIN: f64 = 1.5;
/// A stage that takes longer than usual moves its average by this part at once.
const RISE: f64 = 0.25;
/// One that takes less moves it by this part, and so does a tick without it: nothing is given up for good.
const FALL: f64 = 1.0 / 16.0;

/// What one unit of a stage takes, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Pace(f64);

impl Pace {
    fn took(&mut self, nanoseconds: f64) {
        let part = if nanoseconds > self.0 { RISE } else { FALL };
        self.0 += part * (nanoseconds - self.0);
    }

    fn rest(&mut self) {
        self.0 -= FALL * self.0;
    }
}

/// A stage that is being computed.
#[derive(Debug, Clone, Copy)]
struct Stage {
    began: MonoTime,
    reaches: Depth,
    /// Candidates that it adds; 0 for the one that completes the steps.
    adds: usize,
}

/// The budget of the ticks of one loop.
#[derive(Debug, Clone)]
pub struct Budget {
    /// From the state taken to the end of sampling, ns; `None` samples as far as it is told, whatever it takes.
    limit: Option<u64>,
    clock: fn() -> MonoTime,
    all_steps: Pace,
    candidate: Pace,
    deadline: MonoTime,
    stage: Option<Stage>,
    reached: usize,
}

impl Budget {
    /// `limit` is in ns, from the state taken; 0 sets none.
    pub fn new(limit: u64) -> Self {
        Self::with_clock(limit, MonoTime::now)
    }

    /// [`Budget::new`] on another clock.
    pub fn with_clock(limit: u64, clock: fn() -> MonoTime) -> Self {
        Self {
            limit: (limit > 0).then_some(limit),
            clock,
            all_steps: Pace::default(),
            candidate: Pace::default(),
            deadline: MonoTime::from_nanos(0),
            stage: None,
            reached: 1,
        }
    }

    /// Another limit, ns; 0 sets none. What stages take stays known.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = (limit > 0).then_some(limit);
    }

    /// Is there a limit?
    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// A tick begins whose state was taken at `taken`.
    pub fn begin(&mut self, taken: MonoTime) {
        self.deadline = taken.plus(self.limit.unwrap_or(u64::MAX));
        self.stage = None;
        self.reached = 1;
    }

    /// May the stage that reaches `next` be taken? The one before it has just ended.
    pub fn allows(&mut self, next: Depth) -> bool {
        let now = (self.clock)();
        self.settle(now);
        let adds = next.candidates - self.reached.min(next.candidates);
        let expected = match adds {
            0 => self.all_steps.0,
            n => self.candidate.0 * n as f64,
        };
        if now.plus((MARGIN * expected) as u64) > self.deadline {
            match adds {
                0 => self.all_steps.rest(),
                _ => self.candidate.rest(),
            }
            return false;
        }
        self.stage = Some(Stage {
            began: now,
            reaches: next,
            adds,
        });
        true
    }

    /// The tick's sampling has ended.
    pub fn end(&mut self) {
        if self.stage.is_some() {
            self.settle((self.clock)());
        }
    }

    fn settle(&mut self, now: MonoTime) {
        let Some(stage) = self.stage.take() else { return };
        let took = now.since(stage.began) as f64;
        match stage.adds {
            0 => self.all_steps.took(took),
            n => self.candidate.took(took / n as f64),
        }
        self.reached = stage.reaches.candidates;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
    }

    fn clock() -> MonoTime {
        MonoTime::from_nanos(NOW.get())
    }

    fn pass(nanoseconds: u64) {
        NOW.set(NOW.get() + nanoseconds);
    }

    /// One tick of a policy with two steps and up to 17 candidates, whose stages take so long; the depth it reached.
    fn tick(budget: &mut Budget, steps: u64, candidate: u64) -> Depth {
        budget.begin(clock());
        let mut depth = Depth::FIRST;
        pass(5_000);
        for (next, takes) in [(1, steps), (9, 8 * candidate), (17, 8 * candidate)] {
            let next = Depth {
                steps: 2,
                candidates: next,
                in_stages: true,
            };
            if !budget.allows(next) {
                break;
            }
            pass(takes);
            depth = next;
        }
        budget.end();
        depth
    }

    #[test]
    fn what_fits_is_taken_and_what_would_end_too_late_is_not() {
        let mut budget = Budget::with_clock(100_000, clock);
        let depths: Vec<_> = (0..50)
            .map(|_| tick(&mut budget, 10_000, 5_000).candidates)
            .collect();
        // 5 + 10 + 40 us fit into 100, another 40 would need 15 to spare (half of what they take).
        assert_eq!(depths[10..], [9; 40], "{depths:?}");
        let last = (0..100).map(|_| tick(&mut budget, 10_000, 1_000)).last();
        assert_eq!(last.map(|depth| depth.candidates), Some(17));
    }

    #[test]
    fn a_machine_that_is_slow_for_a_moment_gets_its_depth_back() {
        let mut budget = Budget::with_clock(100_000, clock);
        for _ in 0..20 {
            tick(&mut budget, 10_000, 1_000);
        }
        assert_eq!(tick(&mut budget, 10_000, 1_000).candidates, 17);
        tick(&mut budget, 5_000_000, 1_000);
        let bitten = tick(&mut budget, 10_000, 1_000);
        assert_eq!(bitten.steps, 1, "the first answer only");
        let depths: Vec<_> = (0..100)
            .map(|_| tick(&mut budget, 10_000, 1_000).candidates)
            .collect();
        assert_eq!(depths.last(), Some(&17), "{depths:?}");
    }

    #[test]
    fn without_a_limit_everything_is_allowed() {
        let mut budget = Budget::with_clock(0, clock);
        for _ in 0..5 {
            assert_eq!(tick(&mut budget, 1_000_000_000, 1_000_000_000).candidates, 17);
        }
    }
}
