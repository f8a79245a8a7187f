//! What a run takes of the memory, at the least: sizes that this machine cannot hold are refused before anything is made.

use thiserror::Error;

use crate::algorithm::AlgorithmKind;
use crate::config::TrainConfig;

/// Bytes of a number in networks, moments, replay buffer and batches.
const NUMBER: f64 = 4.0;
/// Bytes of the smallest simulator.
const SIMULATOR: f64 = 1e5;

/// A configuration that does not fit this machine.
#[derive(Debug, Clone, PartialEq, Error)]
#[error(
    "{keys}: this asks for {needed} GB of memory or more; this machine has {available}: take smaller numbers"
)]
pub struct FootprintError {
    /// The keys whose numbers are too large.
    pub keys: &'static str,
    /// What they need, GB.
    pub needed: String,
    /// What there is, GB.
    pub available: String,
}

/// Refuses what this machine cannot hold; the sizes of observation and action must be known.
///
/// # Errors
/// [`FootprintError`] naming the keys.
pub fn check(config: &TrainConfig) -> Result<(), FootprintError> {
    match machine_bytes() {
        Some(available) => fits(config, available),
        None => Ok(()),
    }
}

fn fits(config: &TrainConfig, available: f64) -> Result<(), FootprintError> {
    let gigabytes = |bytes: f64| format!("{:.1}", bytes / 1e9);
    let too_large = parts(config).into_iter().find(|(_, bytes)| *bytes > available);
    too_large.map_or(Ok(()), |(keys, bytes)| {
        Err(FootprintError {
            keys,
            needed: gigabytes(bytes),
            available: gigabytes(available),
        })
    })
}

/// Keys, and the bytes that they ask for at least; in floating point, where no product overflows.
fn parts(config: &TrainConfig) -> Vec<(&'static str, f64)> {
    let run = &config.run;
    let (s, a) = (
        config.learner.observation_size as f64,
        config.learner.action_size as f64,
    );
    let mut parts = vec![
        ("run.environments", run.environments as f64 * SIMULATOR),
        (
            "run.replay_capacity",
            run.replay_capacity as f64 * (2.0 * s + a + 2.0) * NUMBER,
        ),
    ];
    parts.extend(match run.algorithm {
        AlgorithmKind::Mfpo => mfpo(config, (s, a)),
        AlgorithmKind::Sac => sac(config, (s, a)),
    });
    parts
}

fn mfpo(config: &TrainConfig, (s, a): (f64, f64)) -> Vec<(&'static str, f64)> {
    let learner = &config.learner;
    let (hidden, atoms) = (&learner.hidden_sizes, learner.atoms as f64);
    let candidates = learner.policy_candidates as f64 + learner.gaussian_candidates as f64;
    let (batch, last) = (learner.batch_size as f64, last(hidden));
    // Four networks with two moments each, two targets.
    let networks = 14.0 * weights(s + a, hidden);
    let rows = batch * learner.update_to_data as f64 * (2.0 * s + a + 2.0);
    let sizes = [
        ("learner.hidden_sizes", networks),
        ("learner.hidden_sizes and learner.atoms", 8.0 * last * atoms),
        ("learner.batch_size and learner.update_to_data", rows),
        ("learner.batch_size and learner.hidden_sizes", batch * sum(hidden)),
        ("learner.batch_size and learner.atoms", batch * atoms),
        (
            "learner.batch_size, learner.policy_candidates and learner.gaussian_candidates",
            batch * candidates * (a + 1.0),
        ),
        (
            "learner.batch_size and learner.probes",
            batch * learner.probes as f64 * a,
        ),
        (
            "learner.sampling_steps and learner.hidden_sizes",
            learner.sampling_steps as f64 * hidden.first().copied().unwrap_or(0) as f64,
        ),
    ];
    sizes.map(|(keys, numbers)| (keys, numbers * NUMBER)).into()
}

fn sac(config: &TrainConfig, (s, a): (f64, f64)) -> Vec<(&'static str, f64)> {
    let (sac, batch) = (&config.sac, config.sac.batch_size as f64);
    let rows = batch * sac.update_to_data as f64 * (2.0 * s + a + 2.0);
    let sizes = [
        // Three networks with two moments each, two targets.
        ("sac.hidden_sizes", 11.0 * weights(s, &sac.hidden_sizes)),
        ("sac.batch_size and sac.update_to_data", rows),
        (
            "sac.batch_size and sac.hidden_sizes",
            batch * sum(&sac.hidden_sizes),
        ),
    ];
    sizes.map(|(keys, numbers)| (keys, numbers * NUMBER)).into()
}

/// Weights of the hidden layers.
fn weights(input: f64, hidden: &[usize]) -> f64 {
    let mut before = input;
    let each = hidden.iter().map(|&width| {
        let product = before * width as f64;
        before = width as f64;
        product
    });
    each.sum()
}

fn sum(sizes: &[usize]) -> f64 {
    sizes.iter().map(|&size| size as f64).sum()
}

fn last(sizes: &[usize]) -> f64 {
    sizes.last().map_or(0.0, |&size| size as f64)
}

/// All memory of this machine, where Linux tells it.
fn machine_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(1024.0 * kilobytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(task: &str, sets: &[&str]) -> TrainConfig {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let mut config = TrainConfig::load(task, None, &sets).unwrap();
        config.set_sizes(348, 17).unwrap();
        config
    }

    #[test]
    fn the_papers_sizes_fit_a_small_machine() {
        for algorithm in ["run.algorithm=mfpo", "run.algorithm=sac"] {
            fits(&config("Humanoid-v5", &[algorithm]), 4e9).unwrap();
        }
        assert!(machine_bytes().is_none_or(|bytes| bytes > 1e8));
    }

    #[test]
    fn what_is_too_large_is_named() {
        let refused = |set: &str| fits(&config("Humanoid-v5", &[set]), 4e9).unwrap_err();
        let error = refused("run.replay_capacity=2000000");
        assert_eq!(
            error.to_string(),
            "run.replay_capacity: this asks for 5.7 GB of memory or more; this machine has 4.0: take smaller numbers"
        );
        for (set, key) in [
            ("learner.hidden_sizes=[100000, 100000]", "learner.hidden_sizes"),
            ("learner.sampling_steps=10000000000", "learner.sampling_steps"),
            ("learner.atoms=18446744073709551", "learner.atoms"),
        ] {
            assert!(refused(set).keys.contains(key), "{set}: {}", refused(set));
        }
    }
}
