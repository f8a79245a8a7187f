//! What whoever gets a bundle does with it: opens it, checks who signed it, makes a sampler, computes its probes and an
//! action, alone and as the best of several. Whatever the bytes are, nothing here may panic.
//!
//! The fuzz target (`fuzz/`) and the bounded run beside this file share it.

use std::borrow::Cow;

use candle_core::Device;
use mfpo_policy::bundle::{self, BundleError, VerifiedBundle};
use mfpo_policy::sampler::{ActionSampler, Depth};
use mfpo_policy::signature::TrustedKeys;

/// How far a bundle came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Came {
    /// It was not opened.
    Refused,
    /// It was opened, and then refused.
    Opened,
    /// It would act.
    Acts,
}

/// A part of what is done, as whoever looks on is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Bytes become a bundle.
    Opening,
    /// A bundle becomes a sampler, which acts.
    Acting,
}

/// Somebody who looks on.
pub trait Onlooker {
    /// Does one step of a file of `size` bytes.
    fn look<T>(&mut self, step: Step, size: usize, run: impl FnOnce() -> T) -> T;
}

/// Does all of it.
pub fn exercise(bytes: &[u8], onlooker: &mut impl Onlooker) -> Came {
    let Ok(bundle) = opened(bytes, onlooker) else {
        return Came::Refused;
    };
    match onlooker.look(Step::Acting, bytes.len(), || act(&bundle)) {
        Ok(()) => Came::Acts,
        Err(_) => Came::Opened,
    }
}

/// Opens it. A file whose only faults are the hash of its robot and its digest gets those that fit, so that changes get past
/// them.
fn opened(bytes: &[u8], onlooker: &mut impl Onlooker) -> Result<VerifiedBundle, BundleError> {
    let mut open = |bytes: &[u8]| onlooker.look(Step::Opening, bytes.len(), || bundle::open(bytes));
    let mut repaired = Cow::Borrowed(bytes);
    // The robot's hash is looked at first, and the digest covers it.
    for _ in 0..2 {
        let changed = match open(&repaired) {
            Err(BundleError::Digest { expected, got }) => with_hash(&repaired, &expected, &got),
            Err(BundleError::Mismatch {
                what: "the spec hash",
                expected,
                got,
            }) => with_hash(&repaired, &got, &expected),
            opened => return opened,
        };
        let Some(changed) = changed else { break };
        repaired = Cow::Owned(changed);
    }
    open(&repaired)
}

/// The file with another hash of the same length in its manifest.
fn with_hash(bytes: &[u8], old: &str, new: &str) -> Option<Vec<u8>> {
    if old.len() != new.len() {
        return None;
    }
    let at = bytes
        .windows(old.len())
        .position(|window| window == old.as_bytes())?;
    let mut repaired = bytes.to_vec();
    repaired[at..at + new.len()].copy_from_slice(new.as_bytes());
    Some(repaired)
}

fn act(bundle: &VerifiedBundle) -> Result<(), BundleError> {
    // Anybody's signature counts here; it was checked when the bundle was opened.
    TrustedKeys::default().check(bundle.signer())?;
    let mut sampler = bundle.sampler(&Device::Cpu)?;
    bundle.check_probes(&mut sampler)?;
    let most = if sampler.has_critics() {
        ActionSampler::MOST_CANDIDATES
    } else {
        1
    };
    let observation = vec![0.5; sampler.observation_size()];
    let noise = vec![0.25; most * sampler.action_size()];
    let mut action = vec![0.0; sampler.action_size()];
    for candidates in [1, most] {
        let noise = &noise[..candidates * sampler.action_size()];
        sampler.sample_into(&observation, noise, candidates, &mut action)?;
        assert!(
            action.iter().all(|a| (-1.0..=1.0).contains(a)),
            "an action left [-1, 1]: {action:?}"
        );
        let depth = Depth {
            steps: sampler.steps(),
            candidates,
            in_stages: false,
        };
        if let Some(guard) = &bundle.manifest().guard {
            sampler.signals(noise, depth, guard)?;
        }
    }
    Ok(())
}
