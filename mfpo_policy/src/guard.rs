//! The guard: does the policy know what it sees? A policy that was trained as a flow has three signals of that at hand. Of
//! the candidates `a_1 ... a_K`, with A components each, that it samples from the noises `z_1 ... z_K` where it sees `s`:
//!
//! - disagreement, `sqrt(1/A sum_i (a_1i - b_i)^2)`: how far `a_1`, the answer in all T steps, is from the answer in one step
//!   from the same noise, `b = clip(z_1 - u(s, z_1, 1, 1))`; from 0 to 2, larger is worse;
//! - spread, `sqrt(1/A sum_i 1/K sum_k (a_ki - mean_i)^2)`: candidates differ in their noise alone; from 0 to 1, larger is
//!   worse;
//! - value, `max_k Q(s, a_k)`, where Q is the smaller of the two critics or their mean, as for best of N; in the unit of the
//!   discounted return, smaller is worse.
//!
//! Each that a bundle states a threshold for is held against it. One that is beyond it so many ticks in a row says that the
//! policy does not know what it sees. [`ActionSampler::signals`] computes them, for the trainer, which calibrates and
//! measures (`mfpo_train guard`, `run.guard`), as for the control node, which uses them where somebody asks for it.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::bundle::BundleError;
use crate::sampler::ActionSampler;

/// More ticks in a row than this would never come true in time.
const MOST_IN_A_ROW: u32 = 10_000;

/// What tells that an observation is outside what the policy knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// One step against all.
    Disagreement,
    /// Spread of the candidates.
    Spread,
    /// The critics' value of the best candidate.
    Value,
}

impl Signal {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 3] = [Self::Disagreement, Self::Spread, Self::Value];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disagreement => "disagreement",
            Self::Spread => "spread",
            Self::Value => "value",
        }
    }

    /// The name of its threshold in a bundle.
    pub const fn limit_name(self) -> &'static str {
        match self {
            Self::Disagreement => "disagreement_max",
            Self::Spread => "spread_max",
            Self::Value => "value_min",
        }
    }

    /// `value` of this signal as a number that is larger where the policy is less at home, and such a number back as a value.
    pub fn severity(self, value: f64) -> f64 {
        match self {
            Self::Disagreement | Self::Spread => value,
            Self::Value => -value,
        }
    }
}

/// The signals of one tick; `None` where one was not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Signals {
    /// How far one step is from all, from 0 to 2.
    pub disagreement: Option<f64>,
    /// How far the candidates are spread, from 0 to 1.
    pub spread: Option<f64>,
    /// The best candidate's value, in the unit of the discounted return.
    pub value: Option<f64>,
}

impl Signals {
    /// None was asked for.
    pub const NONE: Self = Self {
        disagreement: None,
        spread: None,
        value: None,
    };

    /// One of them.
    pub const fn get(&self, signal: Signal) -> Option<f64> {
        match signal {
            Signal::Disagreement => self.disagreement,
            Signal::Spread => self.spread,
            Signal::Value => self.value,
        }
    }
}

/// An observation that is outside what the policy knows, and the signal that says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unknown {
    /// Which.
    pub signal: Signal,
    /// What it is.
    pub got: f64,
    /// What the bundle allows: no more, or, of the value, no less.
    pub limit: f64,
}

impl Display for Unknown {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (got, limit) = (self.got, self.limit);
        match self.signal {
            Signal::Disagreement => write!(
                f,
                "its answer in one step is {got:.4} from that in all steps, expected at most {limit:.4}"
            ),
            Signal::Spread => write!(
                f,
                "its candidates are spread by {got:.4}, expected at most {limit:.4}"
            ),
            Signal::Value => write!(
                f,
                "its best candidate is valued at {got:.4}, expected at least {limit:.4}"
            ),
        }
    }
}

/// The guard of a bundle: a threshold for one signal or for several.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardManifest {
    /// The largest disagreement at which the policy is taken to know what it sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disagreement_max: Option<f64>,
    /// The largest such spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread_max: Option<f64>,
    /// The smallest such value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_min: Option<f64>,
    /// Candidates that spread and value are of, K.
    pub candidates: usize,
    /// Ticks in a row beyond the threshold of the same signal after which the policy must not act.
    pub in_a_row: u32,
}

impl GuardManifest {
    /// One that states no threshold yet.
    pub const fn without_limits(candidates: usize, in_a_row: u32) -> Self {
        Self {
            disagreement_max: None,
            spread_max: None,
            value_min: None,
            candidates,
            in_a_row,
        }
    }

    /// The same with this threshold of `signal`.
    #[must_use]
    pub const fn with_limit(mut self, signal: Signal, limit: f64) -> Self {
        match signal {
            Signal::Disagreement => self.disagreement_max = Some(limit),
            Signal::Spread => self.spread_max = Some(limit),
            Signal::Value => self.value_min = Some(limit),
        }
        self
    }

    /// The threshold of `signal`.
    pub const fn limit(&self, signal: Signal) -> Option<f64> {
        match signal {
            Signal::Disagreement => self.disagreement_max,
            Signal::Spread => self.spread_max,
            Signal::Value => self.value_min,
        }
    }

    /// Is `signal` beyond its threshold? At the threshold it is not; what is not a number is.
    pub fn beyond(&self, signal: Signal, signals: &Signals) -> Option<Unknown> {
        let (limit, got) = (self.limit(signal)?, signals.get(signal)?);
        let is_beyond = got.is_nan() || signal.severity(got) > signal.severity(limit);
        is_beyond.then_some(Unknown { signal, got, limit })
    }

    /// Is every signal within its threshold?
    pub fn allows(&self, signals: &Signals) -> bool {
        Signal::ALL
            .into_iter()
            .all(|signal| self.beyond(signal, signals).is_none())
    }

    /// Can a sampler of so many steps, with critics or without, be held to it?
    pub(crate) fn check(&self, has_critics: bool, steps: usize) -> Result<(), BundleError> {
        let most = ActionSampler::MOST_CANDIDATES;
        let stated = Signal::ALL.map(|signal| (signal, self.limit(signal)));
        let wrong = stated.into_iter().find_map(|(signal, limit)| {
            let limit = limit?;
            let is_fit = limit.is_finite() && (signal == Signal::Value || limit > 0.0);
            let range = if signal == Signal::Value { "" } else { " above 0" };
            let name = signal.limit_name();
            (!is_fit).then(|| (format!("{name} {limit}"), format!("a finite {name}{range}")))
        });
        let wrong = if let Some(wrong) = wrong {
            wrong
        } else if stated.iter().all(|(_, limit)| limit.is_none()) {
            (
                "one without a threshold".to_owned(),
                "disagreement_max, spread_max or value_min, or several of them".to_owned(),
            )
        } else if !(2..=most).contains(&self.candidates) {
            (
                format!("of {} candidates", self.candidates),
                format!("candidates from 2 to {most}"),
            )
        } else if !(1..=MOST_IN_A_ROW).contains(&self.in_a_row) {
            (
                format!("of {} ticks in a row", self.in_a_row),
                format!("in_a_row from 1 to {MOST_IN_A_ROW}"),
            )
        } else if !has_critics {
            (
                "in a bundle without critics".to_owned(),
                "critics, without which no candidates are compared".to_owned(),
            )
        } else if self.disagreement_max.is_some() && steps < 2 {
            (
                format!("disagreement_max for a policy of {steps} step"),
                "2 steps or more, which one step can differ from".to_owned(),
            )
        } else {
            return Ok(());
        };
        let (got, expected) = wrong;
        Err(BundleError::Mismatch {
            what: "the guard",
            expected,
            got,
        })
    }
}

impl Display for GuardManifest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let candidates = self.candidates;
        if let Some(limit) = self.disagreement_max {
            write!(f, "one step at most {limit:.4} from all, ")?;
        }
        if let Some(limit) = self.spread_max {
            write!(f, "{candidates} candidates spread by at most {limit:.4}, ")?;
        }
        if let Some(limit) = self.value_min {
            write!(f, "the best of {candidates} valued at {limit:.4} or more, ")?;
        }
        write!(f, "{} ticks in a row", self.in_a_row)
    }
}

/// Counts ticks in a row in which a signal is beyond its threshold, each signal for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InARow([u32; Signal::ALL.len()]);

impl InARow {
    /// None yet.
    pub const fn new() -> Self {
        Self([0; Signal::ALL.len()])
    }

    /// Takes the signals of the next tick: the first that has been beyond its threshold in enough ticks in a row, this one
    /// included.
    pub fn count(&mut self, guard: &GuardManifest, signals: &Signals) -> Option<Unknown> {
        let mut first = None;
        for (signal, ticks) in Signal::ALL.into_iter().zip(&mut self.0) {
            let unknown = guard.beyond(signal, signals);
            *ticks = if unknown.is_some() {
                ticks.saturating_add(1)
            } else {
                0
            };
            if *ticks >= guard.in_a_row {
                first = first.or(unknown);
            }
        }
        first
    }
}

/// The root mean square of the difference between two actions `[A]`.
pub fn difference(one: &[f32], other: &[f32]) -> f64 {
    let squares = one.iter().zip(other).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / one.len().max(1) as f64).sqrt()
}

/// The spread of candidates `[K, A]`.
pub fn spread(candidates: &[f32], action_size: usize) -> f64 {
    let size = action_size.max(1);
    let count = (candidates.len() / size).max(1) as f64;
    let mut sum = 0.0;
    for component in 0..size {
        let column = || {
            let values = candidates.iter().skip(component).step_by(size);
            values.map(|value| f64::from(*value))
        };
        let mean = column().sum::<f64>() / count;
        sum += column().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    }
    (sum / size as f64).sqrt()
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
