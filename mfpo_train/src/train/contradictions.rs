//! What is asked of a run and cannot be: refused before its folder is touched. A run that would learn nothing, no longer
//! signs, or learns faster otherwise, is told.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use mfpo_policy::bundle;
use mfpo_policy::kernel::{InstructionSet, Precision};
use mfpo_sim::EnvSpec;

use crate::algorithm::AlgorithmKind;
use crate::config::{RunConfig, TrainConfig};

/// What a run is asked for beside its configuration.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// Bundles go to running nodes.
    pub(super) topic: bool,
    /// Bundles are signed.
    pub(super) signature: bool,
    /// The run ends once a share of episodes succeeds.
    pub(super) success: bool,
}

/// Refuses what the task or the algorithm cannot do.
///
/// # Errors
/// With the option to leave out.
pub(super) fn check(asked: Asked, spec: &EnvSpec, algorithm: AlgorithmKind) -> anyhow::Result<()> {
    let task = &spec.name;
    ensure!(
        !asked.topic || spec.subject.robot().is_some(),
        "--topic publishes bundles for running nodes, and the task '{task}' has no robot; leave --topic out, or train \
         a task that has one, for example swing_arm"
    );
    let has_bundles = algorithm == AlgorithmKind::Mfpo;
    for (is_asked, option, does) in [
        (asked.topic, "--topic", "publishes"),
        (asked.signature, "--sign-key", "signs"),
    ] {
        ensure!(
            !is_asked || has_bundles,
            "{option} {does} bundles, and a bundle holds a MeanFlow policy; use --algorithm mfpo, or leave {option} out"
        );
    }
    ensure!(
        !asked.success || spec.success_threshold.is_some(),
        "--until-success ends a run by its share of successes, and the task '{task}' does not say what success is; leave it \
         out, or train a task that does, for example swing_arm"
    );
    Ok(())
}

/// Every action of such a run is random: it is no error, and hardly what somebody wants.
pub(super) fn warn_where_nothing_is_learnt(run: &RunConfig) {
    let (steps, random) = (run.steps, run.random_steps);
    if steps <= random {
        tracing::warn!(
            "nothing is learnt: the run has {steps} steps, and the first {random} are random and without updates; give more \
             --steps, or fewer random ones with --set run.random_steps=N"
        );
    }
}

/// A run that goes on does not know with which key it signed; nodes that trust that key refuse what is not signed.
pub(super) fn warn_where_signing_ends(last: &Path, signs: bool) {
    let was_signed = || -> Option<bool> {
        let bytes = fs::read(last).ok()?;
        let opened = bundle::open(&bytes).ok()?;
        Some(opened.signer().is_some())
    };
    if !signs && was_signed() == Some(true) {
        tracing::warn!(
            "the bundles of this run were signed, and no more will be: nodes that ask for a signature refuse those; give \
             --sign-key again"
        );
    }
}

/// The fast precision is not faster on every processor.
pub(super) fn warn_where_fast_is_slow(config: &TrainConfig) {
    let is_fast = config.run.algorithm == AlgorithmKind::Mfpo && config.learner.precision == Precision::Fast;
    if is_fast && !InstructionSet::detect().multiplies_halves_faster() {
        tracing::warn!(
            "learner.precision is 'fast', but this processor multiplies bfloat16 no faster than 32-bit floats, so that an \
             update takes longer than with 'exact' and is less exact: take --set learner.precision=exact here"
        );
    }
}

#[cfg(test)]
mod tests {
    use mfpo_sim::{EnvOptions, registry};

    use super::*;

    #[test]
    fn what_a_task_or_an_algorithm_cannot_do_is_refused_by_option() {
        let robot = registry::make("swing_arm", &EnvOptions::default()).unwrap();
        let mut task = robot.spec().clone();
        task.success_threshold = None;
        let all = Asked {
            topic: true,
            signature: true,
            success: true,
        };
        check(all, robot.spec(), AlgorithmKind::Mfpo).unwrap();
        check(Asked::default(), &task, AlgorithmKind::Sac).unwrap();
        let refused = |asked, spec, algorithm| check(asked, spec, algorithm).unwrap_err().to_string();
        let text = refused(all, robot.spec(), AlgorithmKind::Sac);
        assert!(text.starts_with("--topic publishes bundles, and"), "{text}");
        let signed = Asked { topic: false, ..all };
        let text = refused(signed, robot.spec(), AlgorithmKind::Sac);
        assert!(text.contains("or leave --sign-key out"), "{text}");
        let text = refused(all, &task, AlgorithmKind::Mfpo);
        assert!(text.starts_with("--until-success"), "{text}");
    }
}
