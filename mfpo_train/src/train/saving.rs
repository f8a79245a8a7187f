//! What a run leaves on the disk to go on from, also where the disk is full or a number is not finite.

use std::time::Instant;

use anyhow::{Context, anyhow, ensure};
use mfpo_policy::bundle::BundleError;
use mfpo_policy::sampler::SampleError;
use mfpo_sim::SimError;
use rand_chacha::ChaCha12Rng;

use super::Run;
use crate::algorithm::{Algorithm, AlgorithmKind};
use crate::checkpoint::{self, Header};
use crate::config::TrainConfig;
use crate::episode::Episodes;
use crate::learner::LearnerError;
use crate::metrics::MetricsError;
use crate::replay_buffer::ReplayBuffer;
use crate::resumption::{self, ByHand};
use crate::state::{Generator, Numbers, State};

/// Array of a checkpoint: 1 where the policy was measured at its step, else 0.
const MEASURED: &str = "measured";

/// Has the run of a checkpoint nothing left to do? Its steps are done, and its last policy is measured.
pub fn is_done(header: &Header, state: &State<'_>, steps: u64) -> bool {
    let not_yet = Numbers::from(vec![0_u64]);
    // Programs before this one wrote no such array, and their last checkpoint after the measurement.
    let unmeasured = state
        .iter()
        .any(|(name, values)| name == MEASURED && *values == not_yet);
    header.step >= steps && !unmeasured
}

/// Takes up a checkpoint, to go on with `config`; the generator is what is returned.
pub(super) fn restore(
    (header, mut state): (&Header, State<'static>),
    config: &TrainConfig,
    learner: &mut dyn Algorithm,
    replay: &mut ReplayBuffer,
    episodes: &mut Episodes,
) -> anyhow::Result<ChaCha12Rng> {
    let before = TrainConfig::parse(&header.config, &[])?;
    resumption::check(&before, config)?;
    learner
        .restore(state.take_part("learner"))
        .context("the networks of the checkpoint do not fit this configuration")?;
    replay.restore(state.take_part("replay"))?;
    episodes.restore(state.take_part("episodes"))?;
    learner.adopt(&ByHand::of(&before, config))?;
    for change in before.differences(config) {
        tracing::warn!("the run goes on with {change}: it is no longer the run that was started");
    }
    Ok(ChaCha12Rng::at(state.take_u64("generator")?))
}

impl Run {
    /// By steps, or by time: an update of a large network on a busy machine takes long.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        let run = &self.config.run;
        let (every, seconds) = (run.checkpoint_every, run.checkpoint_seconds);
        self.tried.is_none_or(|tried| self.step / every > tried / every)
            || (seconds > 0 && self.tried_at.elapsed().as_secs() >= seconds)
    }

    /// Tries again what the disk did not take, and writes a checkpoint. A run whose disk is full goes on: its last
    /// checkpoint is whole.
    ///
    /// # Errors
    /// When a number of the state is not finite; the last checkpoint stays the good one. When a bundle cannot be sent.
    pub(super) fn save(&mut self) -> anyhow::Result<()> {
        // First: a run that goes on from this checkpoint makes no bundle again that came before it.
        let sent = self.publisher.try_again();
        self.sac_policies.try_again();
        let header = self.header();
        let saved = match self.state() {
            Err(error) => Err(error),
            Ok(state) => {
                ensure!(
                    state.first_not_finite().is_none(),
                    "what the run has learnt is no longer finite at step {}",
                    self.step
                );
                header.and_then(|header| Ok(self.checkpoints.save(header, &state)?))
            }
        };
        (self.tried, self.tried_at) = (Some(self.step), Instant::now());
        match saved {
            Ok(()) => (self.saved, self.unsaved) = (self.tried, None),
            Err(error) => {
                tracing::error!("{error:#}");
                self.unsaved = Some(format!("{error:#}"));
            }
        }
        sent
    }

    fn header(&mut self) -> anyhow::Result<Header> {
        Ok(Header {
            format: checkpoint::FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            run: self.name.clone(),
            task: self.task.clone(),
            seed: self.seed,
            step: self.step,
            config: self.config.to_toml()?,
            version: self.version,
            record: self.recorder.record()?,
            digest: String::new(),
        })
    }

    fn state(&self) -> anyhow::Result<State<'_>> {
        let mut state = State::default();
        state.nest("learner", self.learner.state()?);
        state.nest("replay", self.replay.state());
        state.nest("episodes", self.episodes.state());
        state.put("generator", self.rng.position());
        let measured = self.evaluated.as_ref().is_some_and(|(at, _)| *at == self.step);
        state.put(MEASURED, vec![u64::from(measured)]);
        Ok(state)
    }

    /// The end of a run whose disk is full is an error, though the run went on: what is missing is named.
    pub(super) fn check_written(&self, recorded: anyhow::Result<()>) -> anyhow::Result<()> {
        let recorded = recorded.err().map(|error| format!("{error:#}"));
        let bundles = self.publisher.unwritten();
        let missing: Vec<String> = self
            .unsaved
            .clone()
            .into_iter()
            .chain(bundles)
            .chain(self.sac_policies.unwritten())
            .chain(recorded)
            .collect();
        let done = self.unsaved.is_none() && self.step >= self.config.run.steps;
        ensure!(
            missing.is_empty(),
            "the run has come to its end, but the disk has not taken all of it: {}; free some space and let it go on: \
             --resume {}{}",
            missing.join("; "),
            self.folder.display(),
            if done { " --steps MORE" } else { "" }
        );
        Ok(())
    }

    /// Keeps what a number that is not finite has left, and says where it is; any other error is left as it is.
    pub(super) fn broken(&mut self, error: anyhow::Error) -> anyhow::Error {
        let state = self.state().ok();
        let tensor = state.and_then(|state| state.first_not_finite().map(str::to_owned));
        // Whatever else went wrong: where a tensor is not finite, that is what has to be told.
        if tensor.is_none() && !is_not_finite(&error) {
            return error;
        }
        let kept = self.header().and_then(|header| {
            let state = self.state()?;
            Ok(self.checkpoints.save_broken(header, &state)?)
        });
        let kept = match kept {
            Ok(path) => format!("its state is in {}", path.display()),
            Err(reason) => format!("its state could not be kept ({reason:#})"),
        };
        let tensor = tensor.map_or_else(
            || "all tensors are finite".to_owned(),
            |name| format!("the first tensor that is not finite is {name}"),
        );
        let section = match self.config.run.algorithm {
            AlgorithmKind::Mfpo => "learner",
            AlgorithmKind::Sac => "sac",
        };
        anyhow!(
            "{error:#}; {tensor}; {kept}; go on from step {} with other numbers, for example --resume {} --set \
             {section}.learning_rate=1e-4",
            self.saved.unwrap_or(0),
            self.folder.display()
        )
    }
}

/// Does the error say that a number is not finite?
fn is_not_finite(error: &anyhow::Error) -> bool {
    let of_sampler = |error: &SampleError| {
        matches!(
            error,
            SampleError::NotFinite { .. } | SampleError::NotFiniteValue { .. }
        )
    };
    let learner = match error.downcast_ref() {
        Some(LearnerError::NotFinite { .. } | LearnerError::Gradient(_)) => true,
        Some(LearnerError::Sample(error)) => of_sampler(error),
        _ => false,
    };
    let metric = matches!(error.downcast_ref(), Some(MetricsError::NotFinite { .. }));
    let sample = error.downcast_ref::<SampleError>().is_some_and(of_sampler);
    let probe = matches!(error.downcast_ref(), Some(BundleError::Sample(error)) if of_sampler(error));
    let action = matches!(error.downcast_ref(), Some(SimError::NotFinite { .. }));
    learner || metric || sample || probe || action
}
