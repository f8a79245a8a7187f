//! What lies in a bundle's file: the manifest, the tensors as bytes, and the signature if there is one.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use crate::bounds;
use crate::bundle::{BundleError, CHECKPOINT_KEY, METADATA_KEY, MOST_BYTES};
use crate::fast::values;
use crate::foreign;
use crate::manifest::Manifest;
use crate::parameters::{NetworkError, Parameters};
use crate::signature::{self, PublicKey, Signature};
use crate::weights;

/// A tensor as it lies in the file.
#[derive(Debug, Clone)]
pub(crate) struct RawTensor {
    pub(crate) shape: Vec<usize>,
    /// Little-endian 32-bit floats.
    pub(crate) bytes: Vec<u8>,
}

/// A file whose digest is the one that its manifest states.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    pub(crate) manifest: Manifest,
    pub(crate) signature: Option<Signature>,
    pub(crate) tensors: BTreeMap<String, RawTensor>,
}

impl Contents {
    /// `manifest` with the digest of itself and of `networks`, each under its prefix.
    pub(crate) fn new(mut manifest: Manifest, networks: &[(&str, &Parameters)]) -> Result<Self, BundleError> {
        let mut tensors = BTreeMap::new();
        for (prefix, parameters) in networks {
            for (name, tensor) in parameters.iter() {
                let bytes = values(tensor)?.iter().flat_map(|v| v.to_le_bytes()).collect();
                let shape = tensor.dims().to_vec();
                tensors.insert(format!("{prefix}/{name}"), RawTensor { shape, bytes });
            }
        }
        manifest.digest = digest(&manifest, &tensors);
        Ok(Self {
            manifest,
            signature: None,
            tensors,
        })
    }

    /// The digest of what is there.
    pub(crate) fn digest(&self) -> String {
        digest(&self.manifest, &self.tensors)
    }

    /// Reads a file and compares its digest.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, BundleError> {
        let structure = |reason: String| BundleError::Structure {
            reason,
            got: bytes.len(),
        };
        if bytes.len() > MOST_BYTES {
            let expected = foreign::EXPECTED;
            return Err(structure(format!(
                "{expected}, of at most {MOST_BYTES} bytes: give another file"
            )));
        }
        let unreadable = |error: &str| structure(foreign::unreadable(bytes, error));
        bounds::check_header(bytes).map_err(|e| unreadable(&e))?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| unreadable(&e.to_string()))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| unreadable(&e.to_string()))?;
        let entry = |key: &str| header.metadata().as_ref().and_then(|m| m.get(key));
        let json = entry(METADATA_KEY).ok_or_else(|| {
            BundleError::Manifest(foreign::without_manifest(entry(CHECKPOINT_KEY).is_some()))
        })?;
        let contents = Self {
            manifest: Manifest::parse(json)?,
            signature: entry(signature::METADATA_KEY)
                .map(|json| Signature::parse(json))
                .transpose()?,
            tensors: raw_tensors(&file)?,
        };
        let got = contents.digest();
        if got != contents.manifest.digest {
            return Err(BundleError::Digest {
                expected: contents.manifest.digest,
                got,
            });
        }
        Ok(contents)
    }

    /// The file.
    pub(crate) fn write(&self) -> Result<Vec<u8>, BundleError> {
        let structure = |e: safetensors::SafeTensorError| BundleError::Structure {
            reason: e.to_string(),
            got: 0,
        };
        let json = |e: serde_json::Error| BundleError::Manifest(e.to_string());
        let mut metadata = HashMap::new();
        let manifest = serde_json::to_string(&self.manifest).map_err(json)?;
        metadata.insert(METADATA_KEY.to_owned(), manifest);
        if let Some(signature) = &self.signature {
            let signature = serde_json::to_string(signature).map_err(json)?;
            metadata.insert(signature::METADATA_KEY.to_owned(), signature);
        }
        let views = self.tensors.iter().map(|(name, t)| {
            let view = TensorView::new(Dtype::F32, t.shape.clone(), &t.bytes).map_err(structure)?;
            Ok((name, view))
        });
        let views = views.collect::<Result<Vec<_>, BundleError>>()?;
        safetensors::serialize(views, Some(metadata)).map_err(structure)
    }

    /// Who signed it; a signature that does not fit is an error.
    pub(crate) fn signer(&self) -> Result<Option<PublicKey>, BundleError> {
        let signature = self.signature.as_ref();
        let signer = signature.map(|signature| signature.check(&self.manifest.digest));
        Ok(signer.transpose()?)
    }

    /// Takes the weights out, one tensor after the other, so that they are never there twice; each must be finite.
    pub(crate) fn take_parameters(&mut self) -> Result<Parameters, BundleError> {
        let mut named = BTreeMap::new();
        while let Some((name, raw)) = self.tensors.pop_first() {
            let numbers: Vec<f32> = raw
                .bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            if let Some((index, &value)) = numbers.iter().enumerate().find(|(_, v)| !v.is_finite()) {
                let tensor = name;
                return Err(BundleError::NotFinite { tensor, index, value });
            }
            let tensor =
                Tensor::from_vec(numbers, raw.shape.as_slice(), &Device::Cpu).map_err(NetworkError::from)?;
            named.insert(name, tensor);
        }
        Ok(Parameters::new(named))
    }
}

fn raw_tensors(file: &SafeTensors<'_>) -> Result<BTreeMap<String, RawTensor>, BundleError> {
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(BundleError::Mismatch {
                what: "the type of a tensor",
                expected: "F32".into(),
                got: format!("{:?} ('{name}')", view.dtype()),
            });
        }
        bounds::check_shape(&name, view.shape())?;
        let raw = RawTensor {
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        };
        tensors.insert(name, raw);
    }
    Ok(tensors)
}

fn digest(manifest: &Manifest, tensors: &BTreeMap<String, RawTensor>) -> String {
    let blank = Manifest {
        digest: String::new(),
        ..manifest.clone()
    };
    let mut hash = Sha256::new();
    hash.update(serde_json::to_vec(&blank).unwrap_or_default());
    for (name, tensor) in tensors {
        weights::feed_name(&mut hash, name, &tensor.shape);
        hash.update(&tensor.bytes);
    }
    hex::encode(hash.finalize())
}
