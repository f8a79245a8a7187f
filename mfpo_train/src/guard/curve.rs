//! What thresholds give: false alarms in episodes without a fault, detections in episodes with one. Several signals share
//! one row of thresholds, at each of which as large a part of all ticks without a fault is beyond that of each signal.

use mfpo_policy::guard::{GuardManifest, InARow, Signal};

use super::evidence::Evidence;
use super::{CANDIDATES, Episode, Fault, IN_A_ROW, IN_TIME};

/// The first tick from `from` on at which a signal has been beyond its threshold often enough in a row.
pub(super) fn alarm(episode: &Episode, guard: &GuardManifest, from: usize) -> Option<usize> {
    let mut in_a_row = InARow::new();
    let mut ticks = episode.signals.iter().enumerate().skip(from);
    let (tick, _) = ticks.find(|(_, signals)| in_a_row.count(guard, signals).is_some())?;
    Some(tick)
}

/// Alarms of an episode that nothing is wrong with; after one, the count in a row begins anew.
pub(super) fn alarms(episode: &Episode, guard: &GuardManifest) -> u64 {
    let (mut count, mut from) = (0, 0);
    while let Some(tick) = alarm(episode, guard, from) {
        count += 1;
        from = tick + 1;
    }
    count
}

/// What thresholds give.
pub(super) struct Point {
    /// The thresholds.
    pub(super) guard: GuardManifest,
    /// False alarms an hour, as measured.
    pub(super) rate: f64,
    /// With 95 % confidence they are no more, an hour.
    pub(super) rate_at_most: f64,
    /// By fault: share detected in time, and the median time to the alarm of those detected, if any were, s.
    pub(super) faults: Vec<(f64, Option<f64>)>,
}

impl Point {
    /// Measures `guard` on episodes of one tick every `period`, s.
    pub(super) fn of(
        guard: GuardManifest,
        nominal: &[Episode],
        faults: &[(Fault, Vec<Episode>)],
        period: f64,
    ) -> Self {
        let evidence = evidence_of(nominal, period);
        let false_alarms: u64 = nominal.iter().map(|e| alarms(e, &guard)).sum();
        let faults = faults
            .iter()
            .map(|(_, episodes)| detections(episodes, &guard, period));
        Self {
            guard,
            rate: false_alarms as f64 * 3600.0 / evidence.seconds,
            rate_at_most: evidence.highest_rate(false_alarms),
            faults: faults.collect(),
        }
    }

    /// Share of all faults that is detected in time.
    pub(super) fn detected(&self) -> f64 {
        self.faults.iter().map(|(share, _)| share).sum::<f64>() / self.faults.len().max(1) as f64
    }
}

/// One signal, or several of which any may give the alarm, at all thresholds: from many false alarms to none.
pub(super) struct Curve {
    pub(super) signals: Vec<Signal>,
    pub(super) points: Vec<Point>,
}

impl Curve {
    /// Measures `signals` on episodes of one tick every `period`, s.
    pub(super) fn of(
        signals: &[Signal],
        nominal: &[Episode],
        faults: &[(Fault, Vec<Episode>)],
        period: f64,
    ) -> Self {
        let sorted: Vec<_> = signals
            .iter()
            .map(|signal| severities(*signal, nominal))
            .collect();
        // From the median to the largest value, ever finer towards the end.
        let quantiles = (0..=60).map(|k| 1.0 - 0.5 * (1.0 - f64::from(k) / 60.0).powi(4));
        let points = quantiles.filter_map(|quantile| {
            let mut guard = GuardManifest::without_limits(CANDIDATES, IN_A_ROW);
            for (signal, severities) in signals.iter().zip(&sorted) {
                let last = severities.len().checked_sub(1)?;
                let severity = *severities.get((quantile * last as f64) as usize)?;
                guard = guard.with_limit(*signal, signal.severity(severity));
            }
            Some(Point::of(guard, nominal, faults, period))
        });
        Self {
            signals: signals.to_vec(),
            points: points.collect(),
        }
    }

    /// What it is of, in words.
    pub(super) fn name(&self) -> String {
        let names: Vec<&str> = self.signals.iter().map(|signal| label(*signal)).collect();
        names.join(", ")
    }

    /// The point that detects most with, at 95 % confidence, at most so many false alarms an hour.
    pub(super) fn at(&self, rate: f64) -> Option<&Point> {
        self.best(|point| point.rate_at_most <= rate)
    }

    /// The point that detects most with at most so many false alarms an hour as measured.
    pub(super) fn measured_at(&self, rate: f64) -> Option<&Point> {
        self.best(|point| point.rate <= rate)
    }

    fn best(&self, allowed: impl Fn(&Point) -> bool) -> Option<&Point> {
        let allowed = self.points.iter().filter(|point| allowed(point));
        allowed.max_by(|a, b| a.detected().total_cmp(&b.detected()))
    }
}

/// How a signal is called in tables; each is larger there where the policy is less at home.
const fn label(signal: Signal) -> &'static str {
    match signal {
        Signal::Disagreement => "one step against all",
        Signal::Spread => "spread of candidates",
        Signal::Value => "critics' value (negative)",
    }
}

/// What a signal was in all ticks, the mildest first.
fn severities(signal: Signal, episodes: &[Episode]) -> Vec<f64> {
    let ticks = episodes.iter().flat_map(|episode| &episode.signals);
    let mut severities: Vec<f64> = ticks
        .filter_map(|signals| signals.get(signal))
        .map(|value| signal.severity(value))
        .collect();
    severities.sort_by(f64::total_cmp);
    severities
}

/// What the episodes without a fault can vouch for.
pub(super) fn evidence_of(nominal: &[Episode], period: f64) -> Evidence {
    let ticks: usize = nominal.iter().map(|episode| episode.signals.len()).sum();
    Evidence {
        seconds: ticks as f64 * period,
        episodes: nominal.len() as u64,
    }
}

fn detections(episodes: &[Episode], guard: &GuardManifest, period: f64) -> (f64, Option<f64>) {
    let mut delays: Vec<f64> = episodes
        .iter()
        .filter_map(|episode| {
            let tick = alarm(episode, guard, episode.onset)?;
            Some((tick + 1 - episode.onset) as f64 * period)
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    let reached = episodes.iter().filter(|e| e.signals.len() > e.onset).count();
    let in_time = delays.iter().filter(|delay| **delay <= IN_TIME).count();
    let median = delays.get(delays.len() / 2).copied();
    (in_time as f64 / reached.max(1) as f64, median)
}
