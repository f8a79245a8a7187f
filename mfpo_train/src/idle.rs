//! Settings that somebody gave and that a run does not read. They are told: the run would look the same without them.

use crate::algorithm::AlgorithmKind;
use crate::config::TrainConfig;

/// One sentence for each of `overrides`, `section.key=value`, that means nothing to a run of `config`.
pub fn settings(overrides: &[String], config: &TrainConfig) -> Vec<String> {
    let given = overrides.iter().filter_map(|text| text.split_once('='));
    given
        .filter_map(|(key, _)| why_idle(key.trim(), config))
        .collect()
}

fn why_idle(key: &str, config: &TrainConfig) -> Option<String> {
    let (section, name) = key.split_once('.')?;
    let (algorithm, read) = match config.run.algorithm {
        AlgorithmKind::Mfpo => ("mfpo", "learner"),
        AlgorithmKind::Sac => ("sac", "sac"),
    };
    let sac = config.run.algorithm == AlgorithmKind::Sac;
    match (section, name) {
        // The environments step on these threads, whoever learns.
        ("learner", "threads") => None,
        ("learner" | "sac", _) if section != read => {
            let meant = format!("{read}.{name}");
            // `temperature` is short for another key of both.
            let known = name == "temperature" || config.keys().contains(&meant);
            let hint = if known {
                format!("; did you mean '{meant}'?")
            } else {
                String::new()
            };
            Some(format!(
                "{key} has no effect: the run learns with {algorithm}, which reads [{read}]{hint}"
            ))
        }
        ("evaluation", "candidates" | "without_selection") if sac => Some(format!(
            "{key} has no effect: sac acts without candidates to choose among"
        )),
        ("run", "publish_every" | "guard") if sac => {
            Some(format!("{key} has no effect: a run of sac leaves no bundles"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(algorithm: &str, set: &str) -> Vec<String> {
        let sets = [format!("run.algorithm={algorithm}"), set.to_owned()];
        settings(&sets, &TrainConfig::load("swing_arm", None, &sets).unwrap())
    }

    #[test]
    fn numbers_of_the_algorithm_that_does_not_learn_are_told_with_the_key_that_was_meant() {
        for (algorithm, set, words) in [
            ("sac", "learner.tau=0.1", "did you mean 'sac.tau'?"),
            (
                "sac",
                "learner.temperature=0.1",
                "did you mean 'sac.temperature'?",
            ),
            ("sac", "learner.probes=3", "learns with sac, which reads [sac]"),
            ("mfpo", "sac.tau=0.1", "did you mean 'learner.tau'?"),
            (
                "sac",
                "evaluation.candidates=4",
                "sac acts without candidates to choose among",
            ),
            ("sac", "run.publish_every=4", "a run of sac leaves no bundles"),
            ("sac", "run.guard=true", "a run of sac leaves no bundles"),
        ] {
            let told = idle(algorithm, set);
            let (key, _) = set.split_once('=').unwrap();
            assert_eq!(told.len(), 1, "{set}");
            assert!(
                told[0].starts_with(&format!("{key} has no effect: ")) && told[0].ends_with(words),
                "{told:?}"
            );
        }
    }

    #[test]
    fn what_a_run_reads_is_not_told() {
        for (algorithm, set) in [
            ("mfpo", "learner.tau=0.1"),
            ("mfpo", "evaluation.candidates=4"),
            ("mfpo", "run.publish_every=4"),
            ("mfpo", "run.guard=true"),
            ("sac", "sac.tau=0.1"),
            ("sac", "learner.threads=2"),
            ("sac", "evaluation.episodes=4"),
        ] {
            assert!(idle(algorithm, set).is_empty(), "{algorithm} {set}");
        }
    }
}
