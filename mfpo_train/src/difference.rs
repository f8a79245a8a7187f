//! What differs between the configurations of two runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use toml::{Table, Value};

use crate::algorithm::AlgorithmKind;
use crate::config::TrainConfig;

/// A key that two configurations set differently; `None` where one leaves it out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    /// As `section.key`.
    pub(crate) key: String,
    /// In the first configuration.
    pub(crate) before: Option<Value>,
    /// In the other one.
    pub(crate) after: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.after {
            Some(value) => write!(f, "{} = {value}", self.key),
            None => write!(f, "{} left out", self.key),
        }
    }
}

impl TrainConfig {
    /// What is different in `other`, as `section.key = value`; lengths and intervals do not count, nor do the
    /// numbers of an algorithm that does not learn there, nor how the policy is measured.
    pub fn changes(&self, other: &Self) -> Vec<String> {
        self.changed(other).iter().map(Change::to_string).collect()
    }

    /// [`TrainConfig::changes`] with the values of both.
    pub(crate) fn changed(&self, other: &Self) -> Vec<Change> {
        let idle = match other.run.algorithm {
            AlgorithmKind::Mfpo => "sac",
            AlgorithmKind::Sac => "learner",
        };
        let harmless = |key: &str| ["steps", "threads"].contains(&key) || key.ends_with("_every");
        let (before, after) = (values(self), values(other));
        // Of both: an option of the task may be set in the first alone.
        let places: BTreeSet<&(String, String)> = before.keys().chain(after.keys()).collect();
        let counts = |(section, key): &&(String, String)| {
            ![idle, "evaluation"].contains(&section.as_str()) && !harmless(key)
        };
        let changes = places.into_iter().filter(counts).map(|place| Change {
            key: format!("{}.{}", place.0, place.1),
            before: before.get(place).cloned(),
            after: after.get(place).cloned(),
        });
        changes.filter(|change| change.before != change.after).collect()
    }

    /// Every key that it sets, as `section.key`.
    pub(crate) fn keys(&self) -> Vec<String> {
        let places = values(self).into_keys();
        places.map(|(section, key)| format!("{section}.{key}")).collect()
    }

    /// What makes the returns of `other` another curve: its [`TrainConfig::changes`], and of how many candidates
    /// its evaluations choose an action. SAC has no candidates.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        self.differing(other).iter().map(Change::to_string).collect()
    }

    /// [`TrainConfig::differences`] with the values of both.
    pub(crate) fn differing(&self, other: &Self) -> Vec<Change> {
        let mut differing = self.changed(other);
        let (before, after) = (self.evaluation.candidates, other.evaluation.candidates);
        if other.run.algorithm == AlgorithmKind::Mfpo && before != after {
            let value = |candidates: usize| i64::try_from(candidates).ok().map(Value::Integer);
            differing.push(Change {
                key: "evaluation.candidates".to_owned(),
                before: value(before),
                after: value(after),
            });
        }
        differing
    }
}

/// Every value of a configuration by its section and key.
fn values(config: &TrainConfig) -> BTreeMap<(String, String), Value> {
    let text = config.to_toml().unwrap_or_default();
    let mut values = BTreeMap::new();
    for (section, keys) in text.parse::<Table>().unwrap_or_default() {
        let Value::Table(keys) = keys else {
            continue;
        };
        for (key, value) in keys {
            values.insert((section.clone(), key), value);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(task: &str, sets: &[&str]) -> TrainConfig {
        let sets: Vec<String> = sets.iter().map(|text| (*text).to_owned()).collect();
        TrainConfig::load(task, None, &sets).unwrap()
    }

    #[test]
    fn half_cheetah_differs_from_the_paper_only_as_the_authors_script_says() {
        let (paper, cheetah) = (config("Hopper-v5", &[]), config("HalfCheetah-v5", &[]));
        assert_eq!(paper.changes(&cheetah), ["learner.clipped_double_q = false"]);
    }

    #[test]
    fn what_only_one_of_two_sets_differs_either_way() {
        let own = config("HalfCheetah-v5", &[]);
        let skipping = config("HalfCheetah-v5", &["task.frame_skip=4"]);
        assert_eq!(own.changes(&skipping), ["task.frame_skip = 4"]);
        assert_eq!(skipping.changes(&own), ["task.frame_skip left out"]);
        assert!(skipping.changes(&skipping).is_empty());
    }

    #[test]
    fn candidates_of_an_evaluation_make_another_curve_but_no_other_run() {
        let own = config("swing_arm", &[]);
        let choosing = config("swing_arm", &["evaluation.candidates=8"]);
        assert!(own.changes(&choosing).is_empty());
        assert_eq!(own.differences(&choosing), ["evaluation.candidates = 8"]);
        let seldom = config("swing_arm", &["evaluation.every=500", "evaluation.episodes=3"]);
        assert!(own.differences(&seldom).is_empty());
        // SAC acts without a choice.
        let sac = |sets: &[&str]| config("swing_arm", &[&["run.algorithm=sac"][..], sets].concat());
        assert!(
            sac(&[])
                .differences(&sac(&["evaluation.candidates=8"]))
                .is_empty()
        );
    }
}
