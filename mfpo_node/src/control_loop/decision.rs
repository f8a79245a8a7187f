//! What a step decides, and why the policy does not or may not act.

use std::sync::Arc;

use mfpo_policy::guard::Signals;
use mfpo_policy::sampler::{Depth, SampleError};

use crate::goal::NoGoal;
use crate::safety::{NotEnabled, Outside, SafeCommand, Unknown, Verdict};
use crate::weights::PolicyIdentity;

/// Why the policy does not act in this tick.
#[derive(Debug)]
pub enum Reason {
    /// The joint states are not fit to act on, or simulated time does not pass.
    States(Verdict),
    /// The policy gave no action.
    Policy(SampleError),
    /// Somebody has stopped the robot, and nobody has started it again.
    Stopped,
    /// The heartbeat that permits motion is missing.
    NotEnabled(NotEnabled),
    /// Nobody has given the goal that the policy needs, or not lately.
    NoGoal(NoGoal),
    /// The fallback commanded, and it is too early to act again.
    Recovering {
        /// Good inputs so far.
        good: u64,
        /// Good inputs that are needed; `None` waits for an explicit start.
        needed: Option<u64>,
    },
    /// The observation is outside what the policy knows.
    Guard(Unknown),
}

impl Reason {
    /// A small number for each kind, to tell a change of reason by; a recording keeps it, one higher, as `tick.msg` says.
    pub const fn kind(&self) -> u8 {
        match self {
            Self::States(_) => 0,
            Self::Policy(_) => 1,
            Self::Stopped => 2,
            Self::NotEnabled(_) => 3,
            Self::Recovering { .. } => 4,
            Self::Guard(_) => 5,
            Self::NoGoal(_) => 6,
        }
    }
}

/// Why the policy may not begin to act.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NotReady {
    /// The joint states are not fit to act on, or simulated time does not pass.
    States(Verdict),
    /// The heartbeat that permits motion is missing.
    NotEnabled(NotEnabled),
    /// The robot is not inside its limits.
    Outside(Outside),
    /// Nobody has given the goal that the policy needs, or not lately.
    NoGoal(NoGoal),
}

impl NotReady {
    /// Is it the same joint and the same trouble?
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::States(Verdict::Missing { joint: a }), Self::States(Verdict::Missing { joint: b }))
            | (
                Self::States(Verdict::Stale { joint: a, .. }),
                Self::States(Verdict::Stale { joint: b, .. }),
            )
            | (Self::States(Verdict::Late { joint: a, .. }), Self::States(Verdict::Late { joint: b, .. }))
            | (
                Self::States(Verdict::Contradicted { joint: a }),
                Self::States(Verdict::Contradicted { joint: b }),
            )
            | (
                Self::States(Verdict::Behind { joint: a, .. }),
                Self::States(Verdict::Behind { joint: b, .. }),
            ) => a == b,
            (Self::States(Verdict::NoClock), Self::States(Verdict::NoClock))
            | (Self::States(Verdict::ClockStands { .. }), Self::States(Verdict::ClockStands { .. })) => true,
            (Self::NotEnabled(a), Self::NotEnabled(b)) => {
                std::mem::discriminant(a) == std::mem::discriminant(b)
            }
            (Self::NoGoal(a), Self::NoGoal(b)) => std::mem::discriminant(a) == std::mem::discriminant(b),
            (Self::Outside(a), Self::Outside(b)) => (a.joint, a.rule) == (b.joint, b.rule),
            _ => false,
        }
    }
}

/// What a step decides.
#[derive(Debug)]
pub enum Decision<'a> {
    /// Nothing was ever commanded, and nothing can be yet.
    Wait(Reason),
    /// Send this.
    Command(Tick<'a>),
}

/// What an action came from: with the policy itself it gives the same action again.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The observation, not normalised.
    pub observation: &'a [f32],
    /// Number of the noise's sequence under the loop's seed, see [`mfpo_policy::noise::NormalNoise::begin`].
    pub draw: u64,
    /// How far the sampler went.
    pub depth: Depth,
    /// The part of the policy before, during the blend of a swap.
    pub before: Option<Before>,
}

/// The policy before has a part in an action, `action = before + weight (current - before)`, from the same observation and
/// noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Before {
    /// Weight of the current policy.
    pub weight: f64,
    /// How far the sampler of the one before went.
    pub depth: Depth,
}

/// One tick's command and what it came from.
#[derive(Debug)]
pub struct Tick<'a> {
    /// What to send, in the order of the policy's action joints.
    pub command: &'a SafeCommand,
    /// The live policy.
    pub policy: &'a Arc<PolicyIdentity>,
    /// The one before, where it has a part in the action.
    pub previous: Option<&'a Arc<PolicyIdentity>>,
    /// The command before fade and safety filter.
    pub raw: &'a [f64],
    /// The policy's action, in `[-1, 1]`; the last one where it was not asked.
    pub action: &'a [f32],
    /// What the policy was asked and how; `None` where it was not. Where the guard refuses its action, the fallback commands
    /// although it was.
    pub asked: Option<Asked<'a>>,
    /// The policy's weight in the command, below 1 while it fades in.
    pub blend: f64,
    /// What the guard judged last, where it is on.
    pub signals: Signals,
    /// Why the fallback commands, when it does.
    pub fallback: Option<Reason>,
}
