//! What a bundle may ask for. A file can be small and yet name a network that fills the memory or an action that takes
//! minutes; here everything has a largest size, far above what any policy needs, so that whoever opens a bundle knows what
//! that costs: at most 16 times the file in memory, and 100 MiB for what a header of the largest size can describe.

use crate::bundle::{BundleError, MOST_STEPS};
use crate::manifest::Manifest;
use crate::sampler::PolicyNetworks;

/// A longer header - manifest, signature, names of tensors - is refused before it is read, bytes.
pub(crate) const MOST_HEADER_BYTES: u64 = 1 << 20;
/// Longest run id or name of a robot or task, bytes: they are told in every status.
const MOST_NAME_BYTES: usize = 256;
/// Most components of an observation.
const MOST_OBSERVATION: usize = 1 << 16;
/// Most components of an action.
const MOST_ACTION: usize = 1 << 10;
/// Most golden probes: each is computed before the policy acts.
const MOST_PROBES: usize = 64;
/// Most numbers that a sampler keeps for its steps or computes them from.
const MOST_STEP_NUMBERS: usize = 1 << 20;
/// Most multiplications for one action: about a second.
const MOST_MULTIPLICATIONS: usize = 1 << 31;

/// Is the header that the file announces of a size that may be read?
pub(crate) fn check_header(bytes: &[u8]) -> Result<(), String> {
    let Some(length) = bytes.first_chunk::<8>() else {
        return Ok(());
    };
    match u64::from_le_bytes(*length) {
        got if got > MOST_HEADER_BYTES => Err(format!(
            "the header is {got} bytes long; expected at most {MOST_HEADER_BYTES}"
        )),
        _ => Ok(()),
    }
}

/// A tensor without numbers takes no room in the file, whatever sizes it names.
pub(crate) fn check_shape(name: &str, shape: &[usize]) -> Result<(), BundleError> {
    if shape.contains(&0) {
        return Err(beyond(
            "the shape of a tensor",
            "sizes of 1 or more",
            &format!("{shape:?} ('{name}')"),
        ));
    }
    Ok(())
}

/// Names, sizes and counts that the manifest states.
pub(crate) fn check_manifest(manifest: &Manifest) -> Result<(), BundleError> {
    let subject = &manifest.subject;
    let bounded = [
        ("the run id's length", 1, MOST_NAME_BYTES, manifest.run.len()),
        (
            "the length of the robot's or the task's name",
            0,
            MOST_NAME_BYTES,
            subject.name().len(),
        ),
        (
            "the number of sampling steps",
            1,
            MOST_STEPS,
            manifest.sampling_steps,
        ),
        (
            "the size of an observation",
            0,
            MOST_OBSERVATION,
            subject.observation_size(),
        ),
        ("the size of an action", 0, MOST_ACTION, subject.action_size()),
        (
            "the number of golden probes",
            0,
            MOST_PROBES,
            manifest.probes.len(),
        ),
    ];
    bounded
        .into_iter()
        .try_for_each(|(what, least, most, got)| within(what, (least, most), got))
}

/// What an action of these networks costs.
pub(crate) fn check_cost(networks: &PolicyNetworks) -> Result<(), BundleError> {
    let (actor, steps) = (&networks.actor, networks.steps);
    let condition = &actor.condition;
    let widths = [
        actor.trunk.mlp.hidden_sizes().first().copied().unwrap_or(0),
        condition.time.hidden.input_size() + condition.interval.hidden.input_size(),
        condition.time.hidden.output_size() + condition.interval.hidden.output_size(),
        2 * condition.size(),
    ];
    let width = widths.iter().sum::<usize>();
    within(
        "sampling steps times the width of what is computed for each",
        (0, MOST_STEP_NUMBERS),
        steps.saturating_mul(width),
    )?;
    let layers = actor.trunk.mlp.layers.iter().map(|layer| &layer.linear);
    let multiplications = layers
        .chain([&actor.trunk.head])
        .map(|linear| linear.input_size() * linear.output_size());
    within(
        "the number of multiplications for an action",
        (0, MOST_MULTIPLICATIONS),
        steps.saturating_mul(multiplications.sum()),
    )
}

fn within(what: &'static str, (least, most): (usize, usize), got: usize) -> Result<(), BundleError> {
    if (least..=most).contains(&got) {
        return Ok(());
    }
    Err(beyond(what, &format!("{least} to {most}"), &got.to_string()))
}

fn beyond(what: &'static str, expected: &str, got: &str) -> BundleError {
    BundleError::Mismatch {
        what,
        expected: expected.to_owned(),
        got: got.to_owned(),
    }
}
