//! Are the joint states fit to act on? Every joint has its own age, and the oldest decides. Of a robot in simulated time that
//! time has to pass as well.

use std::fmt;
use std::sync::Arc;

use mfpo_policy::observation::RobotState;

use crate::joint_states::JointStates;
use crate::sim_time::SimTime;
use crate::time::MonoTime;

/// What the watchdog says of the joint states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every joint has a fresh position and velocity.
    Fresh,
    /// This joint has never reported, or its velocity is not known yet.
    Missing {
        /// Index of the joint in the policy's spec.
        joint: usize,
    },
    /// This joint has not reported for longer than allowed.
    Stale {
        /// Index of the joint in the policy's spec.
        joint: usize,
        /// Its age, ns.
        age: u64,
    },
    /// What this joint reports was held up on its way, and is older than allowed.
    Late {
        /// Index of the joint in the policy's spec.
        joint: usize,
        /// Its age, ns.
        age: u64,
    },
    /// Two publishers contradict each other about this joint.
    Contradicted {
        /// Index of the joint in the policy's spec.
        joint: usize,
    },
    /// What this joint reports takes longer and longer on its way, by now longer than allowed.
    Behind {
        /// Index of the joint in the policy's spec.
        joint: usize,
        /// By how much longer than at best, ns.
        by: u64,
    },
    /// The node goes by simulated time, and that has not come yet.
    NoClock,
    /// Simulated time stands still.
    ClockStands {
        /// For so long, ns.
        rest: u64,
    },
}

impl Verdict {
    /// What is wrong with simulated time, where a joint's state is stale after `stale_after` (ns); `None` where it passes.
    pub fn of_clock(clock: &SimTime, stale_after: u64, now: MonoTime) -> Option<Self> {
        let Some(rest) = clock.rest(now) else {
            return Some(Self::NoClock);
        };
        (rest > SimTime::longest_rest(stale_after)).then_some(Self::ClockStands { rest })
    }

    /// The joint that is the worst.
    pub const fn joint(&self) -> Option<usize> {
        match self {
            Self::Fresh | Self::NoClock | Self::ClockStands { .. } => None,
            Self::Missing { joint }
            | Self::Stale { joint, .. }
            | Self::Late { joint, .. }
            | Self::Contradicted { joint }
            | Self::Behind { joint, .. } => Some(*joint),
        }
    }
}

/// Judges the joint states at each tick.
#[derive(Debug)]
pub struct Watchdog {
    stale_after: u64,
    /// Simulated time, where the robot has it.
    clock: Option<Arc<SimTime>>,
    /// Which joints are fresh, as of the last check.
    fresh: Vec<bool>,
}

impl Watchdog {
    /// A joint whose newest position is older than `stale_after` (ns) is stale.
    pub fn new(joints: usize, stale_after: u64) -> Self {
        Self {
            stale_after,
            clock: None,
            fresh: vec![false; joints],
        }
    }

    /// Simulated time has to pass from now on, where the robot has it.
    pub fn set_clock(&mut self, clock: Option<Arc<SimTime>>) {
        self.clock = clock;
    }

    /// Changes the age at which a joint is stale, ns.
    pub fn set_stale_after(&mut self, stale_after: u64) {
        self.stale_after = stale_after;
    }

    /// Looks at every joint and writes the newest values into `state`; the worst joint gives the verdict, unless simulated time
    /// does, without which no joint tells anything.
    pub fn check(&mut self, states: &JointStates, now: MonoTime, state: &mut RobotState) -> Verdict {
        states.write(now, state);
        let mut verdict = Verdict::Fresh;
        for (joint, fresh) in self.fresh.iter_mut().enumerate() {
            let age = states.age(joint, now);
            let velocity = states.fresh_velocity(joint, now);
            let is_contradicted = states.is_contradicted(joint, now);
            let backlog = states.backlog(joint);
            let is_known = age.is_some_and(|age| age <= self.stale_after) && velocity.is_some();
            *fresh = is_known && !is_contradicted && backlog.is_none();
            if *fresh {
                continue;
            }
            let this = match (age, backlog) {
                (Some(age), _) if age > self.stale_after && states.lag(joint) > 0 => {
                    Verdict::Late { joint, age }
                }
                (Some(age), _) if age > self.stale_after => Verdict::Stale { joint, age },
                (Some(_), _) if is_contradicted => Verdict::Contradicted { joint },
                (Some(_), Some(by)) if velocity.is_some() => Verdict::Behind { joint, by },
                _ => Verdict::Missing { joint },
            };
            verdict = worse(verdict, this);
        }
        let clock = self.clock.as_ref();
        let of_clock = clock.and_then(|clock| Verdict::of_clock(clock, self.stale_after, now));
        of_clock.unwrap_or(verdict)
    }

    /// Which joints were fresh at the last check, in the policy's order.
    pub fn fresh(&self) -> &[bool] {
        &self.fresh
    }
}

fn worse(a: Verdict, b: Verdict) -> Verdict {
    if badness(b) > badness(a) { b } else { a }
}

/// A joint that is missing is worse than any of which different things are told, and that worse than any that is old.
fn badness(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Fresh => 0,
        Verdict::Stale { age, .. } | Verdict::Late { age, .. } | Verdict::Behind { by: age, .. } => {
            age.clamp(1, u64::MAX - 2)
        }
        Verdict::Contradicted { .. } => u64::MAX - 1,
        Verdict::Missing { .. } | Verdict::NoClock | Verdict::ClockStands { .. } => u64::MAX,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => write!(f, "every joint is fresh"),
            Self::Missing { joint } => {
                write!(f, "joint {joint} has not reported a position and a velocity yet")
            }
            Self::Stale { joint, age } => {
                write!(
                    f,
                    "joint {joint} has not reported for {:.1} ms",
                    *age as f64 * 1e-6
                )
            }
            Self::Late { joint, age } => {
                write!(
                    f,
                    "joint {joint} reports late: what came last was held up on its way and is {:.1} ms old",
                    *age as f64 * 1e-6
                )
            }
            Self::Contradicted { joint } => {
                write!(f, "two publishers contradict each other about joint {joint}")
            }
            Self::Behind { joint, by } => {
                write!(
                    f,
                    "joint {joint} reports later and later: its states take {:.1} ms longer than at best",
                    *by as f64 * 1e-6
                )
            }
            Self::NoClock => write!(f, "simulated time has not come yet"),
            Self::ClockStands { rest } => {
                write!(
                    f,
                    "simulated time has stood still for {:.1} s",
                    *rest as f64 * 1e-9
                )
            }
        }
    }
}
