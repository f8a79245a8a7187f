//! A recording against what was published and what was received: each recorded tick is of exactly one policy that was published,
//! or of two with a weight while one takes over; and of the ticks of which records were received there is each once, and
//! says the same.

use std::collections::HashMap;

use anyhow::{bail, ensure};
use mfpo_node::recording::TickMessage;
use mfpo_ros::r2r::mfpo_msgs::msg::PolicyAction;

use super::{Lineage, Named};

/// What a record of `policy/action` said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Said {
    /// Number of the tick.
    pub sequence: u64,
    /// Version of the policy.
    pub version: u64,
    /// Its weight in a blend; `None` where the fallback commanded.
    pub weight: Option<f64>,
}

impl From<&PolicyAction> for Said {
    fn from(action: &PolicyAction) -> Self {
        Self {
            sequence: action.sequence,
            version: action.version,
            weight: (!action.fallback).then_some(action.policy_weight),
        }
    }
}

impl From<&TickMessage> for Said {
    fn from(tick: &TickMessage) -> Self {
        Self {
            sequence: tick.sequence,
            version: tick.version,
            weight: (tick.fallback == 0).then_some(tick.policy_weight),
        }
    }
}

/// Goes through recordings.
pub struct Audit {
    run: &'static str,
    /// Versions of the bundles that were published, by digest.
    published: HashMap<String, u64>,
    lineage: Lineage,
    /// What was received, and has not been found in a recording yet, by the number of the tick.
    received: HashMap<u64, Said>,
    /// The numbers of the first and the last tick that was received.
    range: Option<(u64, u64)>,
    ticks: u64,
    within: u64,
    wrong: Option<String>,
}

/// What recordings hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audited {
    /// Ticks.
    pub ticks: u64,
    /// Those of them from the first to the last that was received.
    pub received: u64,
    /// Ticks of a blend.
    pub blended: u64,
}

impl Audit {
    /// Of a run whose first version that acts is this one.
    pub fn new(run: &'static str, version: u64, digest: String) -> Self {
        Self {
            run,
            published: HashMap::from([(digest, version)]),
            lineage: Lineage::new(run, version),
            received: HashMap::new(),
            range: None,
            ticks: 0,
            within: 0,
            wrong: None,
        }
    }

    /// A bundle of this version was published.
    pub fn published(&mut self, version: u64, digest: String) {
        self.lineage.published(version);
        self.published.insert(digest, version);
    }

    /// A record was received.
    pub fn received(&mut self, said: Said) {
        self.received.insert(said.sequence, said);
        let (first, last) = self.range.unwrap_or((said.sequence, said.sequence));
        self.range = Some((first.min(said.sequence), last.max(said.sequence)));
    }

    /// Takes the next tick of the recordings.
    pub fn recorded(&mut self, tick: &TickMessage) {
        self.ticks += 1;
        let previous = self.published.get(&tick.previous_digest).copied();
        self.lineage.take(&Named {
            sequence: tick.sequence,
            run: &tick.run,
            version: tick.version,
            weight: tick.policy_weight,
            previous: previous.map(|version| (self.run, version)),
        });
        let checked = self.check(tick);
        if self.wrong.is_none() {
            self.wrong = checked.err();
        }
        self.within += u64::from(self.is_within(tick.sequence));
        self.received.remove(&tick.sequence);
    }

    fn is_within(&self, sequence: u64) -> bool {
        self.range
            .is_some_and(|(first, last)| (first..=last).contains(&sequence))
    }

    fn check(&self, tick: &TickMessage) -> Result<(), String> {
        let TickMessage {
            sequence, version, ..
        } = *tick;
        let digest = &tick.digest;
        if self.published.get(digest) != Some(&version) {
            return Err(format!(
                "recorded tick {sequence} names version {version} and the digest '{digest}'; expected one that was published"
            ));
        }
        if !tick.previous_digest.is_empty() && !self.published.contains_key(&tick.previous_digest) {
            return Err(format!(
                "recorded tick {sequence} takes over from the digest '{}'; expected one that was published",
                tick.previous_digest
            ));
        }
        if !self.is_within(sequence) {
            return Ok(());
        }
        let recorded = Said::from(tick);
        match self.received.get(&sequence) {
            Some(said) if *said == recorded => Ok(()),
            said => Err(format!(
                "tick {sequence} was recorded as {recorded:?}; expected what was received, once: {said:?}"
            )),
        }
    }

    /// What it amounts to.
    ///
    /// # Errors
    /// When a tick is of no policy that was published, or is not what was received, or of one that was received there is none.
    pub fn conclude(self) -> anyhow::Result<Audited> {
        if let Some(wrong) = self.lineage.wrong.or(self.wrong) {
            bail!("the recording: {wrong}");
        }
        let missing = self.received.keys().min();
        ensure!(
            missing.is_none(),
            "{} ticks of which records were received are not in the recording, first tick {}; expected all of them",
            self.received.len(),
            missing.copied().unwrap_or_default()
        );
        ensure!(self.within > 0, "the recording holds no tick of this time");
        Ok(Audited {
            ticks: self.ticks,
            received: self.within,
            blended: self.lineage.blended,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(version: u64) -> String {
        format!("digest {version}")
    }

    /// Versions 1 and 2 were published.
    fn audit() -> Audit {
        let mut audit = Audit::new("bench", 1, digest(1));
        audit.published(2, digest(2));
        audit
    }

    fn action(sequence: u64, version: u64, weight: f64) -> PolicyAction {
        PolicyAction {
            sequence,
            version,
            policy_weight: weight,
            ..PolicyAction::default()
        }
    }

    fn tick(sequence: u64, version: u64, weight: f64) -> TickMessage {
        let previous = if weight < 1.0 {
            digest(version - 1)
        } else {
            String::new()
        };
        TickMessage {
            sequence,
            run: "bench".into(),
            version,
            digest: digest(version),
            previous_digest: previous,
            policy_weight: weight,
            ..TickMessage::default()
        }
    }

    /// Ticks 10 to 13 were received; what a recording of these amounts to.
    fn told(recorded: &[TickMessage]) -> anyhow::Result<Audited> {
        let mut audit = audit();
        for (sequence, version, weight) in [(10, 1, 1.0), (11, 2, 0.25), (12, 2, 0.75), (13, 2, 1.0)] {
            audit.received(Said::from(&action(sequence, version, weight)));
        }
        recorded.iter().for_each(|tick| audit.recorded(tick));
        audit.conclude()
    }

    fn all() -> Vec<TickMessage> {
        vec![
            tick(9, 1, 1.0),
            tick(10, 1, 1.0),
            tick(11, 2, 0.25),
            tick(12, 2, 0.75),
            tick(13, 2, 1.0),
            tick(14, 2, 1.0),
        ]
    }

    #[test]
    fn a_recording_of_every_tick_agrees_with_what_was_received() {
        let audited = told(&all()).expect("it agrees");
        let expected = Audited {
            ticks: 6,
            received: 4,
            blended: 2,
        };
        assert_eq!(audited, expected);
    }

    #[test]
    fn a_tick_that_is_missing_another_or_there_twice_is_found() {
        let fails = |change: fn(&mut Vec<TickMessage>), words: &str| {
            let mut recorded = all();
            change(&mut recorded);
            let error = told(&recorded).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        };
        fails(|all| drop(all.remove(2)), "first tick 11");
        fails(|all| all.insert(2, tick(10, 1, 1.0)), "once");
        fails(|all| all[3].policy_weight = 0.5, "tick 12 was recorded as");
        fails(
            |all| all[1].digest = digest(2),
            "recorded tick 10 names version 1",
        );
        fails(|all| all[5].digest = "other".into(), "'other'");
        fails(|all| all[2].previous_digest = "other".into(), "tick 11");
        fails(|all| all[4].run = "other".into(), "run 'other'");
        fails(|all| all[5].version = 1, "tick 14");
        fails(Vec::clear, "are not in the recording");
    }
}
