//! The stages of a swap: in the shadow a policy is computed and compared while the one before acts; in the blend both
//! act, its weight rising; on probation it acts alone and is returned from when it gives no action, its guard fires, or,
//! where the habits of the one before are known, limits trip more often or it takes longer. Bookkeeping only: the control
//! loop computes, and asks here what comes next. Ticks that the fallback commands count for no stage, but for the shadow
//! where the policy before is itself the reason: the new one then answers alone.

use crate::safety::{Rule, SafeCommand, Unknown};

/// Time over which the habits of a policy are averaged, s.
const HABIT: f64 = 1.0;
/// A habit is known after so many ticks.
const FEWEST: u64 = 10;
/// A tick is not slow below this part of the control period, whatever the policy before took.
const SLOW_SHARE: f64 = 0.1;
/// A policy in the shadow must answer within this part of the control period, as when its bundle was checked.
const LATENCY_SHARE: f64 = 0.5;
/// Part of the ticks on probation that may be slow.
const SLOW_TICKS: f64 = 0.2;

/// How long each stage takes, and what ends it early.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageSettings {
    /// In the shadow, s; 0 leaves the stage out.
    pub shadow: f64,
    /// Blending, s; 0 leaves the stage out.
    pub blend: f64,
    /// On probation, s; 0 leaves the stage out.
    pub probation: f64,
    /// Part of the ticks on probation in which a limit may trip beyond those of the policy before.
    pub interventions_rise: f64,
    /// A tick on probation is slow when it takes so many times as long as the policy before did on average.
    pub latency_factor: f64,
}

impl StageSettings {
    /// No stages: a policy acts from the next tick on.
    pub const NONE: Self = Self {
        shadow: 0.0,
        blend: 0.0,
        probation: 0.0,
        interventions_rise: 1.0,
        latency_factor: f64::INFINITY,
    };
}

/// A stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Computed and compared, not acted upon.
    Shadow,
    /// Part of the action.
    Blend,
    /// Acts, and is watched.
    Probation,
}

impl Stage {
    /// Its name in the status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Blend => "blend",
            Self::Probation => "probation",
        }
    }
}

/// Why a policy was not let through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// It gave no action.
    NoAction,
    /// Another came before it was through.
    Overtaken,
    /// It did not know what it saw.
    Guard(Unknown),
    /// It takes too long, s.
    Slow {
        /// On average.
        got: f64,
        /// At most.
        expected: f64,
    },
    /// Limits trip more often.
    Interventions {
        /// The rule that tripped most.
        rule: Rule,
        /// The commanded joint on which it did.
        joint: usize,
        /// Part of the ticks with an intervention.
        got: f64,
        /// The same of the policy before.
        before: f64,
    },
    /// Ticks take longer, s.
    Latency {
        /// Its average.
        got: f64,
        /// The average of the policy before.
        before: f64,
    },
}

/// How a policy in the shadow compares.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Compared {
    /// Ticks compared; those in which it answered alone are none.
    pub ticks: u64,
    /// Root mean square of the difference between the two actions' components, `[-1, 1]` each.
    pub rms: f64,
    /// The largest difference of a component.
    pub largest: f64,
    /// Average time of the policy in the shadow, s.
    pub latency: f64,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Turn {
    /// The policy in the shadow has been compared and goes live.
    GoLive(Compared),
    /// The blend is over.
    Blended,
    /// Probation is over: the swap is done.
    Commit,
    /// The policy is not let through.
    Return(Why),
}

/// A running average that is exact at first.
#[derive(Debug, Clone, Copy, Default)]
struct Average {
    count: u64,
    mean: f64,
}

impl Average {
    fn add(&mut self, value: f64, least_part: f64) {
        self.count += 1;
        let part = (1.0 / self.count as f64).max(least_part);
        self.mean += part * (value - self.mean);
    }
}

/// What the acting policy is used to.
#[derive(Debug, Clone, Copy, Default)]
struct Habits {
    /// Part of the ticks in which a limit trips.
    interventions: Average,
    /// Time of a tick, s.
    latency: Average,
}

impl Habits {
    /// Has the policy acted for long enough to compare another with?
    fn are_known(&self) -> bool {
        self.interventions.count >= FEWEST
    }

    fn is_slow(&self, took: f64, factor: f64, period: f64) -> bool {
        self.are_known() && took > factor * self.latency.mean && took > SLOW_SHARE * period
    }
}

#[derive(Debug)]
enum Under {
    Nothing,
    Shadow {
        squares: f64,
        components: u64,
        compared: Compared,
        /// Of the policy in the shadow, alone or compared, s.
        latency: Average,
    },
    Blend {
        tick: u64,
    },
    Probation(Trial),
}

/// What a policy has done on probation.
#[derive(Debug, Clone, Copy, Default)]
struct Trial {
    ticks: u64,
    /// Of these, with an intervention.
    tripped: u64,
    /// Of these, slower than the policy before lets expect.
    slow: u64,
    latency: Average,
}

impl Trial {
    /// What the next policy is compared with.
    fn habits(&self) -> Habits {
        Habits {
            interventions: Average {
                count: self.ticks,
                mean: self.tripped as f64 / self.ticks as f64,
            },
            latency: self.latency,
        }
    }
}

/// The swap that is under way, if one is.
#[derive(Debug)]
pub struct Stages {
    settings: StageSettings,
    period: f64,
    under: Under,
    habits: Habits,
    /// Interventions on probation: rule r of commanded joint j is at `j * Rule::NAMES.len() + r`.
    trips: Vec<u32>,
}

impl Stages {
    /// Nothing under way, for `commanded` joints and one tick every `period`, s.
    pub fn new(settings: StageSettings, commanded: usize, period: f64) -> Self {
        Self {
            settings,
            period,
            under: Under::Nothing,
            habits: Habits::default(),
            trips: vec![0; commanded * Rule::NAMES.len()],
        }
    }

    /// Other settings; a stage that is under way goes on with them.
    pub fn set(&mut self, settings: StageSettings) {
        self.settings = settings;
    }

    /// The stage that is under way.
    pub fn stage(&self) -> Option<Stage> {
        match self.under {
            Under::Nothing => None,
            Under::Shadow { .. } => Some(Stage::Shadow),
            Under::Blend { .. } => Some(Stage::Blend),
            Under::Probation(_) => Some(Stage::Probation),
        }
    }

    /// Does a policy act that has not proven itself yet?
    pub fn is_on_trial(&self) -> bool {
        matches!(self.under, Under::Blend { .. } | Under::Probation(_))
    }

    /// Weight of the new policy in the coming action, during a blend.
    pub fn weight(&self) -> Option<f64> {
        match self.under {
            Under::Blend { tick } => Some((tick + 1) as f64 / (self.ticks(self.settings.blend) + 1) as f64),
            _ => None,
        }
    }

    /// A swap begins; `true` where it begins in the shadow, `false` where the policy goes live at once.
    pub fn begin(&mut self) -> bool {
        self.under = Under::Nothing;
        let has_shadow = self.ticks(self.settings.shadow) > 0;
        if has_shadow {
            self.under = Under::Shadow {
                squares: 0.0,
                components: 0,
                compared: Compared::default(),
                latency: Average::default(),
            };
        }
        has_shadow
    }

    /// The new policy goes live; `fits` says whether both can be computed in one tick. Tells the stage that follows.
    pub fn went_live(&mut self, fits: bool) -> Option<Stage> {
        self.under = Under::Nothing;
        if fits && self.ticks(self.settings.blend) > 0 {
            self.under = Under::Blend { tick: 0 };
        } else {
            self.begin_probation();
        }
        self.stage()
    }

    /// Nothing is under way any more.
    pub fn end(&mut self) {
        self.under = Under::Nothing;
    }

    /// Another policy is to act, and nothing is known to compare it with.
    pub fn forget(&mut self) {
        self.under = Under::Nothing;
        self.habits = Habits::default();
    }

    /// The blend is cut short: the robot begins anew.
    pub fn restart(&mut self) {
        if let Under::Blend { .. } = self.under {
            self.begin_probation();
        }
    }

    /// The policy in the shadow has answered: both actions, and the time it took, s.
    pub fn compare(&mut self, acting: &[f32], shadow: &[f32], latency: f64) {
        let Under::Shadow {
            squares,
            components,
            compared,
            ..
        } = &mut self.under
        else {
            return;
        };
        for (a, b) in acting.iter().zip(shadow) {
            let difference = f64::from((a - b).abs());
            *squares += difference * difference;
            *components += 1;
            compared.largest = compared.largest.max(difference);
        }
        compared.ticks += 1;
        compared.rms = (*squares / (*components).max(1) as f64).sqrt();
        self.note_answer(latency);
    }

    /// The policy in the shadow has answered and taken so long, s, where the one that acts has not: what comes next.
    pub fn answered(&mut self, latency: f64) -> Option<Turn> {
        self.note_answer(latency);
        self.judge_shadow(self.ticks(self.settings.shadow))
    }

    /// The same where the one that acts gives no action any more: the end of the stage need not be waited for.
    pub fn relieve(&mut self, latency: f64) -> Option<Turn> {
        self.note_answer(latency);
        self.judge_shadow(0)
    }

    fn note_answer(&mut self, took: f64) {
        if let Under::Shadow {
            compared, latency, ..
        } = &mut self.under
        {
            latency.add(took, 0.0);
            compared.latency = latency.mean;
        }
    }

    /// The policy has commanded and taken so long, s: what comes next.
    pub fn acted(&mut self, command: &SafeCommand, took: f64) -> Option<Turn> {
        let tripped = command.interventions() > 0;
        if !self.is_on_trial() {
            let part = self.period / HABIT;
            self.habits.interventions.add(f64::from(u8::from(tripped)), part);
            self.habits.latency.add(took, part);
        }
        match self.stage()? {
            Stage::Shadow => self.judge_shadow(self.ticks(self.settings.shadow)),
            Stage::Blend => self.blended(),
            Stage::Probation => self.judge_probation(command, took),
        }
    }

    /// The new policy gave no action, or must not act: on probation or in the blend it is returned from.
    pub fn failed(&mut self, why: Why) -> Option<Turn> {
        self.is_on_trial().then_some(Turn::Return(why))
    }

    /// After `of` answers.
    fn judge_shadow(&self, of: u64) -> Option<Turn> {
        let Under::Shadow {
            compared, latency, ..
        } = self.under
        else {
            return None;
        };
        if latency.count < of {
            return None;
        }
        let expected = LATENCY_SHARE * self.period;
        Some(if compared.latency > expected {
            Turn::Return(Why::Slow {
                got: compared.latency,
                expected,
            })
        } else {
            Turn::GoLive(compared)
        })
    }

    fn blended(&mut self) -> Option<Turn> {
        let of = self.ticks(self.settings.blend);
        let Under::Blend { tick } = &mut self.under else {
            return None;
        };
        *tick += 1;
        if *tick < of {
            return None;
        }
        self.begin_probation();
        Some(Turn::Blended)
    }

    /// Also where the policy before has no habits: what the new one does by itself, and whether it acts at all, needs none.
    fn begin_probation(&mut self) {
        self.trips.fill(0);
        self.under = if self.ticks(self.settings.probation) > 0 {
            Under::Probation(Trial::default())
        } else {
            Under::Nothing
        };
    }

    fn judge_probation(&mut self, command: &SafeCommand, took: f64) -> Option<Turn> {
        let (settings, period) = (self.settings, self.period);
        let is_slow = self.habits.is_slow(took, settings.latency_factor, period);
        let Under::Probation(trial) = &mut self.under else {
            return None;
        };
        trial.ticks += 1;
        trial.tripped += u64::from(command.interventions() > 0);
        trial.slow += u64::from(is_slow);
        trial.latency.add(took, 0.0);
        let trial = *trial;
        for (joint, rule) in command.rules().iter().enumerate() {
            let index = rule.map(|rule| joint * Rule::NAMES.len() + rule as usize);
            if let Some(trips) = index.and_then(|index| self.trips.get_mut(index)) {
                *trips += 1;
            }
        }
        let of = self.ticks(settings.probation);
        if let Some(why) = self.does_worse(&trial, of) {
            return Some(Turn::Return(why));
        }
        if trial.ticks < of {
            return None;
        }
        self.habits = trial.habits();
        self.under = Under::Nothing;
        Some(Turn::Commit)
    }

    /// How a policy does worse on probation than the habits of the one before, where these are known. What is beyond
    /// them adds up; where it can no longer be made good within `of` ticks, the end need not be waited for.
    fn does_worse(&self, trial: &Trial, of: u64) -> Option<Why> {
        if !self.habits.are_known() {
            return None;
        }
        let before = &self.habits;
        let beyond = trial.tripped as f64 - before.interventions.mean * trial.ticks as f64;
        if beyond > self.settings.interventions_rise * of as f64 {
            let (rule, joint) = self.worst();
            return Some(Why::Interventions {
                rule,
                joint,
                got: trial.tripped as f64 / trial.ticks as f64,
                before: before.interventions.mean,
            });
        }
        (trial.slow as f64 > SLOW_TICKS * of as f64).then_some(Why::Latency {
            got: trial.latency.mean,
            before: before.latency.mean,
        })
    }

    /// Rule and joint that tripped most.
    fn worst(&self) -> (Rule, usize) {
        let most = self.trips.iter().enumerate().max_by_key(|(_, trips)| **trips);
        let index = most.map_or(0, |(index, _)| index);
        let rules = Rule::NAMES.len();
        (
            Rule::ALL.get(index % rules).copied().unwrap_or(Rule::Finite),
            index / rules,
        )
    }

    /// Ticks in so many seconds; at least one where it is not 0.
    fn ticks(&self, seconds: f64) -> u64 {
        (seconds / self.period).ceil() as u64
    }
}
