//! SAC's policy in a file of its own, which `eval` measures and films. No bundle: no node runs it.
//!
//! One safetensors file: the policy's layers as `actor/Dense_0/kernel` (`[in, out]`) and `actor/Dense_0/bias`; where the run
//! normalises observations `normalizer/mean` and `normalizer/deviation`; in the metadata, as JSON, a [`PolicyHeader`] with a digest
//! over everything.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use candle_core::{Device, Tensor};
use mfpo_policy::bundle::SAC_POLICY_KEY;
use mfpo_policy::parameters::{NetworkError, Parameters};
use mfpo_policy::sampler::Normalizer;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::GaussianPolicy;
use crate::checkpoint;

/// Rises when old files can no longer be read.
const FORMAT: u32 = 1;

/// What the file says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyHeader {
    /// [`FORMAT`].
    format: u32,
    /// Version of the program.
    pub program: String,
    /// Unique name of the run.
    pub run: String,
    /// Name of the task.
    pub task: String,
    /// Environment steps that the policy has learnt from.
    pub step: u64,
    /// The resolved configuration, TOML: the task's options, and under which conditions it was trained.
    pub config: String,
    /// Widths from the observation over the hidden layers to mean and deviation of the action: S, ..., 2 A.
    pub sizes: Vec<usize>,
    /// SHA-256 over the header (with an empty digest) and the arrays.
    #[serde(default)]
    digest: String,
}

impl PolicyHeader {
    /// That of a policy which the run `run` has learnt on `task`.
    pub fn new(run: &str, task: &str, step: u64, config: String) -> Self {
        Self {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            run: run.to_owned(),
            task: task.to_owned(),
            step,
            config,
            sizes: Vec::new(),
            digest: String::new(),
        }
    }
}

/// Is the file a policy of SAC, of whatever format? Reads no array; what cannot be read is none.
pub fn is_policy(path: &Path) -> bool {
    // What is read of a pipe is gone.
    path.is_file() && matches!(checkpoint::metadata(path, SAC_POLICY_KEY), Ok(Some(_)))
}

/// The bytes of the file.
///
/// # Errors
/// When a number of the policy is not finite.
pub fn encode(header: PolicyHeader, policy: &GaussianPolicy) -> anyhow::Result<Vec<u8>> {
    let arrays = policy.arrays();
    for (name, (_, values)) in &arrays {
        let finite = values.iter().all(|value| value.is_finite());
        ensure!(finite, "the policy's {name} holds a number that is not finite");
    }
    let mut header = PolicyHeader {
        sizes: policy.sizes(),
        digest: String::new(),
        ..header
    };
    let views = arrays
        .iter()
        .map(|(name, (_, values))| (name.as_str(), bytes(values)));
    header.digest = checkpoint::digest(&header, views);
    let mut tensors = Vec::new();
    for (name, (shape, values)) in &arrays {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes(values))?;
        tensors.push((name.as_str(), view));
    }
    let metadata = HashMap::from([(SAC_POLICY_KEY.to_owned(), serde_json::to_string(&header)?)]);
    Ok(safetensors::serialize(tensors, Some(metadata))?)
}

/// The numbers as they lie in memory, which is little-endian on every machine that this program is built for.
fn bytes(values: &[f32]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// Reads the file `path`, and checks all of it.
///
/// # Errors
/// When it cannot be read, is not what was written, or another version of the program wrote it; the file is named.
pub fn read(path: &Path) -> anyhow::Result<(PolicyHeader, GaussianPolicy)> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    decode(&bytes).with_context(|| {
        format!(
            "the SAC policy {} is refused; copy it again, or measure the run's last checkpoint: eval takes its folder",
            path.display()
        )
    })
}

fn decode(bytes: &[u8]) -> anyhow::Result<(PolicyHeader, GaussianPolicy)> {
    let tensors = SafeTensors::deserialize(bytes)?;
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let text = metadata
        .metadata()
        .as_ref()
        .and_then(|all| all.get(SAC_POLICY_KEY));
    let header = parse(text.with_context(|| format!("it has no metadata '{SAC_POLICY_KEY}'"))?)?;
    let mut sorted = tensors.tensors();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    let views = sorted.iter().map(|(name, view)| (name.as_str(), view.data()));
    let blank = PolicyHeader {
        digest: String::new(),
        ..header.clone()
    };
    ensure!(
        checkpoint::digest(&blank, views) == header.digest,
        "its digest differs from its content"
    );
    let mut parameters = BTreeMap::new();
    for (name, view) in &sorted {
        ensure!(
            view.dtype() == Dtype::F32,
            "{name} is {:?}; expected F32",
            view.dtype()
        );
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
        let tensor = Tensor::from_vec(values, view.shape(), &Device::Cpu)?;
        parameters.insert(name.clone(), tensor);
    }
    let policy = policy(&Parameters::new(parameters), &header.sizes)?;
    Ok((header, policy))
}

/// Another format may have another header: its number is read first.
fn parse(text: &str) -> anyhow::Result<PolicyHeader> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
        #[serde(default)]
        program: String,
    }
    let head: Head = serde_json::from_str(text)?;
    ensure!(
        head.format == FORMAT,
        "it has format {}, written by mfpo_train {}; expected format {FORMAT}: use that version of the program",
        head.format,
        head.program
    );
    Ok(serde_json::from_str(text)?)
}

/// The policy, whose layers must have the widths `sizes`.
fn policy(parameters: &Parameters, sizes: &[usize]) -> anyhow::Result<GaussianPolicy> {
    let &[observation, .., _] = sizes else {
        anyhow::bail!(
            "its sizes are {sizes:?}; expected those of an observation, of hidden layers and of a head"
        );
    };
    ensure!(!sizes.contains(&0), "its sizes are {sizes:?}; expected 1 or more");
    let actor = parameters.under("actor");
    for (i, pair) in sizes.windows(2).enumerate() {
        actor.shaped(&format!("Dense_{i}/kernel"), pair)?;
        actor.shaped(&format!("Dense_{i}/bias"), &pair[1..])?;
    }
    let mut policy = GaussianPolicy::new(&actor)?;
    ensure!(
        policy.sizes() == sizes,
        "it holds more layers than its sizes {sizes:?}"
    );
    let normalizer = parameters.under("normalizer");
    if normalizer.iter().next().is_some() {
        let part = |name: &str| -> Result<Vec<f32>, NetworkError> {
            Ok(normalizer.shaped(name, &[observation])?.to_vec1()?)
        };
        policy.normalizer = Some(Normalizer {
            mean: part("mean")?,
            deviation: part("deviation")?,
        });
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Actor;
    use mfpo_policy::noise::NormalNoise;

    /// Two observations, three hidden values, one action.
    fn trained(normalizer: Option<Normalizer>) -> GaussianPolicy {
        let mut tensors = BTreeMap::new();
        for (name, shape) in [
            ("Dense_0/kernel", vec![2, 3]),
            ("Dense_0/bias", vec![3]),
            ("Dense_1/kernel", vec![3, 2]),
            ("Dense_1/bias", vec![2]),
        ] {
            let count = shape.iter().product::<usize>();
            let values: Vec<f32> = (0..count).map(|i| 0.3 - 0.11 * i as f32).collect();
            tensors.insert(
                name.to_owned(),
                Tensor::from_vec(values, shape, &Device::Cpu).unwrap(),
            );
        }
        let mut policy = GaussianPolicy::new(&Parameters::new(tensors)).unwrap();
        policy.normalizer = normalizer;
        policy
    }

    fn file(policy: &GaussianPolicy) -> Vec<u8> {
        encode(PolicyHeader::new("run", "task", 40, "[run]".to_owned()), policy).unwrap()
    }

    fn action(policy: &mut GaussianPolicy) -> f32 {
        let mut action = [0.0];
        let mut noise = NormalNoise::new(0);
        policy.act(&[0.7, -1.3], &mut noise, 1, &mut action).unwrap();
        action[0]
    }

    #[test]
    fn what_is_read_acts_bit_by_bit_as_what_was_written() {
        let normalizer = Normalizer {
            mean: vec![0.1, 0.2],
            deviation: vec![2.0, 3.0],
        };
        let mut actions = Vec::new();
        for normalizer in [None, Some(normalizer)] {
            let mut policy = trained(normalizer);
            let (header, mut read) = decode(&file(&policy)).unwrap();
            assert_eq!(
                (header.run.as_str(), header.step, &header.sizes[..]),
                ("run", 40, &[2, 3, 2][..])
            );
            let (got, expected) = (action(&mut read), action(&mut policy));
            assert_eq!(got.to_bits(), expected.to_bits());
            actions.push(got);
        }
        assert_ne!(actions[0], actions[1], "the normaliser counts");
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let whole = file(&trained(None));
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_err(), "byte {at}");
            assert!(decode(&whole[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn another_format_and_layers_of_other_widths_are_refused_in_words() {
        let policy = trained(None);
        let header = PolicyHeader {
            format: 9,
            program: "7.0".to_owned(),
            ..PolicyHeader::new("run", "task", 40, String::new())
        };
        let text = decode(&encode(header, &policy).unwrap()).unwrap_err().to_string();
        assert!(
            text.contains("format 9, written by mfpo_train 7.0; expected format 1"),
            "{text}"
        );
        let tensors = policy.arrays().into_iter().map(|(name, (shape, values))| {
            let tensor = Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap();
            (name, tensor)
        });
        let parameters = Parameters::new(tensors.collect());
        for sizes in [
            &[][..],
            &[2],
            &[2, 2],
            &[2, 3],
            &[2, 3, 0],
            &[3, 3, 2],
            &[2, 3, 2, 1],
        ] {
            assert!(super::policy(&parameters, sizes).is_err(), "{sizes:?}");
        }
        super::policy(&parameters, &[2, 3, 2]).unwrap();
    }

    #[test]
    fn a_policy_that_is_not_finite_is_not_written() {
        let normalizer = Normalizer {
            mean: vec![0.0, f32::NAN],
            deviation: vec![1.0, 1.0],
        };
        let header = PolicyHeader::new("run", "task", 40, String::new());
        let text = encode(header, &trained(Some(normalizer)))
            .unwrap_err()
            .to_string();
        assert!(text.contains("normalizer/mean holds a number"), "{text}");
    }
}
