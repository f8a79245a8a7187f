//! What may be changed when a run goes on from its checkpoint. Most numbers are read anew; three that the state holds are
//! taken over by hand ([`ByHand`]); what the state was made with stays, and a change of it is refused.

use thiserror::Error;

use crate::algorithm::AlgorithmKind;
use crate::config::TrainConfig;

/// A change that the state of a checkpoint does not allow.
#[derive(Debug, Clone, PartialEq, Error)]
#[error(
    "{change}: a run that goes on cannot change this, because {reason}; leave it out, or start a new run with it; what may \
     change: {may_change}"
)]
pub struct ResumptionError {
    /// What was asked for, `section.key = value`.
    pub change: String,
    /// What stands against it.
    pub reason: &'static str,
    /// The keys that a run of this algorithm may change.
    pub may_change: String,
}

/// Refuses to go on with `after` from a checkpoint of `before` where the state does not allow it.
///
/// # Errors
/// The first change that is not possible.
pub fn check(before: &TrainConfig, after: &TrainConfig) -> Result<(), ResumptionError> {
    for change in before.changed(after) {
        if let Some(reason) = why_fixed(&change.key, after) {
            return Err(ResumptionError {
                change: change.to_string(),
                reason,
                may_change: may_change(before),
            });
        }
    }
    Ok(())
}

/// Why a run that goes on keeps the value of `key`, where it does.
fn why_fixed(key: &str, after: &TrainConfig) -> Option<&'static str> {
    let section = key.split('.').next().unwrap_or_default();
    match key {
        "run.algorithm" => Some("the checkpoint holds the networks of the other algorithm"),
        "run.normalize_observations" => Some("its networks have learnt from the other kind of observations"),
        "run.replay_capacity" => Some("its replay buffer has the other size"),
        "run.environments" => Some("it holds an episode under way for each of the others"),
        "learner.hidden_sizes" | "learner.atoms" | "sac.hidden_sizes" => {
            Some("its networks have the other sizes")
        }
        "learner.value_min" | "learner.value_max" if after.learner.support_from_returns => {
            Some("learner.support_from_returns chooses it")
        }
        _ if ["environment", "task"].contains(&section) => {
            Some("its episode is under way in the other environment")
        }
        _ => None,
    }
}

/// The keys that a run of `config` may change, separated by commas.
fn may_change(config: &TrainConfig) -> String {
    let idle = match config.run.algorithm {
        AlgorithmKind::Mfpo => "sac.",
        AlgorithmKind::Sac => "learner.",
    };
    let mut keys = config.keys();
    keys.retain(|key| {
        let of_the_task = key.ends_with("observation_size") || key.ends_with("action_size");
        !key.starts_with(idle) && !of_the_task && why_fixed(key, config).is_none()
    });
    keys.join(", ")
}

/// Numbers that a learner's state holds, too, where somebody has changed them since: without this the state would win.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ByHand {
    /// Alpha; it is learnt on from there.
    pub temperature: Option<f64>,
    /// Lowest value that the critics can express.
    pub value_min: Option<f64>,
    /// Highest value that the critics can express.
    pub value_max: Option<f64>,
}

impl ByHand {
    /// What `after` changes of `before`. Where the returns no longer choose the support, it is the configuration's, as
    /// `config.toml` then says.
    pub fn of(before: &TrainConfig, after: &TrainConfig) -> Self {
        let changed = |before: f64, after: f64| (before != after).then_some(after);
        let (old, new) = (&before.learner, &after.learner);
        let is_given_back = old.support_from_returns && !new.support_from_returns;
        let end = |before, after| changed(before, after).or(is_given_back.then_some(after));
        match after.run.algorithm {
            AlgorithmKind::Mfpo => Self {
                temperature: changed(old.initial_temperature, new.initial_temperature),
                value_min: end(old.value_min, new.value_min),
                value_max: end(old.value_max, new.value_max),
            },
            AlgorithmKind::Sac => Self {
                temperature: changed(before.sac.initial_temperature, after.sac.initial_temperature),
                ..Self::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::algorithm::{self, Algorithm};
    use crate::replay_buffer::{Batch, Transition};
    use crate::state::Numbers;

    const SIZES: (usize, usize) = (4, 1);

    /// What a change of a key does to a run that goes on.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Effect {
        /// It is refused.
        Refused,
        /// The task says it: any other value is refused, in a new run, too.
        OfTheTask,
        /// The loop reads it anew.
        ReadByTheLoop,
        /// The next update is another one.
        Learns,
        /// Nothing that is learnt depends on it.
        SameBits,
    }

    use Effect::{Learns, OfTheTask, ReadByTheLoop, Refused, SameBits};

    /// Every key of a configuration with another value than the tests' own.
    const TABLE: [(&str, &str, Effect); 58] = [
        ("run.algorithm", "sac", Refused),
        ("run.device", "cuda:1", ReadByTheLoop),
        ("run.normalize_observations", "true", Refused),
        ("run.guard", "true", ReadByTheLoop),
        ("run.steps", "77", ReadByTheLoop),
        ("run.random_steps", "77", ReadByTheLoop),
        ("run.replay_capacity", "77", Refused),
        ("run.report_every", "77", ReadByTheLoop),
        ("run.publish_every", "77", ReadByTheLoop),
        ("run.checkpoint_every", "77", ReadByTheLoop),
        ("run.checkpoint_seconds", "77", ReadByTheLoop),
        ("run.environments", "2", Refused),
        ("evaluation.every", "77", ReadByTheLoop),
        ("evaluation.episodes", "7", ReadByTheLoop),
        ("evaluation.candidates", "7", ReadByTheLoop),
        ("evaluation.without_selection", "false", ReadByTheLoop),
        ("environment.action_delay_min", "0.004", Refused),
        ("environment.action_delay_max", "0.02", Refused),
        ("environment.position_noise", "0.1", Refused),
        ("environment.velocity_noise", "0.1", Refused),
        ("environment.mass", "0.1", Refused),
        ("environment.damping", "0.1", Refused),
        ("environment.effort", "0.1", Refused),
        ("task.frame_skip", "4", Refused),
        ("learner.observation_size", "7", OfTheTask),
        ("learner.action_size", "7", OfTheTask),
        ("learner.hidden_sizes", "[9, 8]", Refused),
        ("learner.batch_size", "17", Learns),
        ("learner.policy_candidates", "5", Learns),
        ("learner.gaussian_candidates", "5", Learns),
        ("learner.sampling_steps", "3", Learns),
        ("learner.probes", "3", Learns),
        ("learner.discount", "0.5", Learns),
        ("learner.tau", "0.5", Learns),
        ("learner.learning_rate", "0.02", Learns),
        ("learner.initial_temperature", "0.9", Learns),
        ("learner.target_entropy_per_dim", "-0.3", Learns),
        // The temperature has fallen from there by now.
        ("learner.temperature_min", "0.1", Learns),
        ("learner.value_min", "-7.0", Learns),
        ("learner.value_max", "60.0", Learns),
        ("learner.atoms", "22", Refused),
        ("learner.clipped_double_q", "false", Learns),
        ("learner.threads", "2", SameBits),
        ("learner.precision", "fast", Learns),
        ("learner.update_to_data", "2", Learns),
        ("learner.grid_time_share", "0.5", Learns),
        ("learner.support_from_returns", "true", Learns),
        ("learner.leave_one_out", "true", Learns),
        ("sac.observation_size", "7", OfTheTask),
        ("sac.action_size", "7", OfTheTask),
        ("sac.hidden_sizes", "[9, 8]", Refused),
        ("sac.batch_size", "17", Learns),
        ("sac.discount", "0.5", Learns),
        ("sac.tau", "0.5", Learns),
        ("sac.learning_rate", "0.02", Learns),
        ("sac.initial_temperature", "0.9", Learns),
        ("sac.target_entropy_per_dim", "-0.3", Learns),
        ("sac.update_to_data", "2", Learns),
    ];

    /// A small configuration of the algorithm that reads `key`, changed by `sets`.
    fn config(key: &str, sets: &[&str]) -> TrainConfig {
        let algorithm = if key.starts_with("sac.") { "sac" } else { "mfpo" };
        let algorithm = format!("run.algorithm={algorithm}");
        let small = [
            algorithm.as_str(),
            "learner.hidden_sizes=[8, 8]",
            "learner.batch_size=16",
            "learner.policy_candidates=4",
            "learner.gaussian_candidates=4",
            "learner.atoms=21",
            "sac.hidden_sizes=[8, 8]",
            "sac.batch_size=16",
        ];
        let sets: Vec<String> = small.iter().chain(sets).map(|set| (*set).to_owned()).collect();
        TrainConfig::load("swing_arm", None, &sets).unwrap()
    }

    fn sized(mut config: TrainConfig) -> TrainConfig {
        config.set_sizes(SIZES.0, SIZES.1).unwrap();
        config
    }

    fn batch(rows: usize) -> Batch {
        let numbers = |count: usize, scale: f32| -> Vec<f32> {
            (0..count).map(|i| scale * (i as f32 * 0.37).sin()).collect()
        };
        Batch {
            size: rows,
            observation_size: SIZES.0,
            action_size: SIZES.1,
            observations: numbers(rows * SIZES.0, 1.5),
            actions: numbers(rows * SIZES.1, 0.9),
            rewards: numbers(rows, 2.0),
            masks: vec![1.0; rows],
            next_observations: numbers(rows * SIZES.0, 1.4),
        }
    }

    fn update(learner: &mut dyn Algorithm) {
        let transition = Transition {
            observation: &[0.0; SIZES.0],
            action: &[0.0; SIZES.1],
            reward: 3.0,
            terminated: true,
            next_observation: &[0.0; SIZES.0],
        };
        learner.observe(0, &transition, true);
        let rows = learner.rows_per_update();
        learner.update(&batch(rows)).unwrap();
    }

    /// Every number of a learner that has done two updates with `before` and went on with `after` for one more, as bits.
    fn gone_on(before: &TrainConfig, after: &TrainConfig) -> Vec<(String, Vec<u64>)> {
        let mut first = algorithm::make(before, 5).unwrap();
        update(first.as_mut());
        update(first.as_mut());
        let mut second = algorithm::make(after, 6).unwrap();
        second.restore(first.state().unwrap()).unwrap();
        second.adopt(&ByHand::of(before, after)).unwrap();
        update(second.as_mut());
        let bits = |numbers: &Numbers<'_>| match numbers {
            Numbers::F32(values) => values.iter().map(|v| u64::from(v.to_bits())).collect(),
            Numbers::F64(values) => values.iter().map(|v| v.to_bits()).collect(),
            Numbers::U64(values) => values.to_vec(),
        };
        let state = second.state().unwrap();
        let arrays = state.iter().filter(|(name, _)| !name.starts_with("returns/"));
        arrays
            .map(|(name, numbers)| (name.clone(), bits(numbers)))
            .collect()
    }

    #[test]
    fn the_table_holds_every_key_of_a_configuration() {
        let all = config(
            "run",
            &[
                "environment.action_delay_min=0.001",
                "environment.action_delay_max=0.01",
                "task.frame_skip=2",
            ],
        );
        let keys: BTreeSet<String> = all.keys().into_iter().collect();
        let listed = TABLE.iter().map(|(key, _, _)| (*key).to_owned()).collect();
        assert_eq!(keys, listed);
    }

    #[test]
    fn every_key_does_to_a_run_that_goes_on_what_the_table_says() {
        for (key, value, effect) in TABLE {
            let (before, after) = (config(key, &[]), config(key, &[&format!("{key}={value}")]));
            let mut resized = after.clone();
            let fits = resized.set_sizes(SIZES.0, SIZES.1).is_ok();
            assert_eq!(fits, effect != OfTheTask, "{key}");
            let allowed = check(&before, &after);
            assert_eq!(allowed.is_ok(), effect != Refused, "{key}: {allowed:?}");
            if [Learns, SameBits].contains(&effect) {
                let (before, after) = (sized(before), sized(after));
                let same = gone_on(&before, &after) == gone_on(&before, &before);
                assert_eq!(same, effect == SameBits, "{key}");
            }
        }
    }

    #[test]
    fn a_refusal_names_the_reason_and_what_may_change() {
        let text = check(&config("run", &[]), &config("run", &["learner.atoms=22"]))
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("learner.atoms = 22: ") && text.contains("networks have the other sizes"),
            "{text}"
        );
        let (_, may_change) = text.split_once("what may change: ").unwrap();
        for (key, _, effect) in TABLE {
            let allowed = [ReadByTheLoop, Learns, SameBits].contains(&effect) && !key.starts_with("sac.");
            let named = may_change.split(", ").any(|named| named == key);
            assert_eq!(named, allowed, "{key}: {may_change}");
        }
    }

    #[test]
    fn a_support_that_the_returns_choose_is_not_set_by_hand() {
        let before = config("run", &["learner.support_from_returns=true"]);
        let mut after = before.clone();
        after.learner.value_max = 50.0;
        let text = check(&before, &after).unwrap_err().to_string();
        assert!(text.contains("learner.support_from_returns chooses it"), "{text}");
        after.learner.support_from_returns = false;
        check(&before, &after).unwrap();
    }

    #[test]
    fn a_support_that_the_returns_no_longer_choose_is_the_configurations() {
        let chosen = sized(config("run", &["learner.support_from_returns=true"]));
        let own = sized(config("run", &["learner.support_from_returns=false"]));
        let ends = |learner: &dyn Algorithm| {
            let mut state = learner.state().unwrap();
            state.take_f64("support").unwrap()
        };
        let mut first = algorithm::make(&chosen, 5).unwrap();
        update(first.as_mut());
        // The only return is 3, with the least width around it.
        assert_eq!(ends(first.as_ref()), [2.5, 3.5]);
        for after in [&own, &chosen] {
            let mut second = algorithm::make(after, 6).unwrap();
            second.restore(first.state().unwrap()).unwrap();
            second.adopt(&ByHand::of(&chosen, after)).unwrap();
            let expected = match after.learner.support_from_returns {
                true => [2.5, 3.5],
                false => [own.learner.value_min, own.learner.value_max],
            };
            assert_eq!(ends(second.as_ref()), expected);
            assert_eq!(ByHand::of(after, after), ByHand::default());
        }
    }
}
