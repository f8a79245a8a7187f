//! What lies in a bundle's file: the manifest, the tensors as bytes, and the signature if there is one.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensorError, TensorInfo, TensorView};
use sha2::{Digest, Sha256};

use crate::bounds;
use crate::bundle::{BundleError, METADATA_KEY, MOST_BYTES};
use crate::fast::values;
use crate::foreign;
use crate::header::{self, Header};
use crate::manifest::Manifest;
use crate::parameters::{NetworkError, Parameters};
use crate::signature::{self, PublicKey, Signature, SignatureError};
use crate::weights;

/// A tensor as it lies in the file.
#[derive(Debug, Clone)]
pub(crate) struct RawTensor<'a> {
    pub(crate) shape: Vec<usize>,
    /// Little-endian 32-bit floats; those of a file lie where the file does.
    pub(crate) bytes: Cow<'a, [u8]>,
}

/// A file whose digest is the one that its manifest states.
#[derive(Debug, Clone)]
pub(crate) struct Contents<'a> {
    pub(crate) manifest: Manifest,
    pub(crate) signature: Option<Signature>,
    pub(crate) tensors: BTreeMap<String, RawTensor<'a>>,
}

impl<'a> Contents<'a> {
    /// `manifest` with the digest of itself and of `networks`, each under its prefix.
    pub(crate) fn new(mut manifest: Manifest, networks: &[(&str, &Parameters)]) -> Result<Self, BundleError> {
        let mut tensors = BTreeMap::new();
        for (prefix, parameters) in networks {
            for (name, tensor) in parameters.iter() {
                let bytes: Vec<u8> = values(tensor)?.iter().flat_map(|v| v.to_le_bytes()).collect();
                let (shape, bytes) = (tensor.dims().to_vec(), bytes.into());
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
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, BundleError> {
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
        let header = Header::read(bytes).map_err(|error| unreadable(&error))?;
        let (manifest, signature) = (header.manifest, header.signature);
        let manifest =
            manifest.ok_or_else(|| BundleError::Manifest(foreign::without_manifest(header.of_trainer)))?;
        let tensors = raw_tensors(header, &unreadable)?;
        // Of each text there is one copy, and only while it is read.
        let manifest = Manifest::parse(&header::text(manifest).map_err(BundleError::Manifest)?)?;
        let contents = Self {
            manifest,
            signature: signature.map(read_signature).transpose()?,
            tensors,
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

/// The tensors of a file, which they fill without a gap.
fn raw_tensors<'a>(
    header: Header<'a>,
    unreadable: &impl Fn(&str) -> BundleError,
) -> Result<BTreeMap<String, RawTensor<'a>>, BundleError> {
    bounds::check_count(header.count)?;
    let data = header.data;
    let mut infos = Vec::with_capacity(header.tensors.len());
    for (name, json) in header.tensors {
        let mut name = header::text(name).map_err(|error| unreadable(&error))?;
        name.shrink_to_fit();
        let info = read_info(&name, json, unreadable)?;
        infos.push((name, info));
    }
    infos.sort_unstable_by_key(|(_, info)| info.data_offsets);
    let (mut tensors, mut end) = (BTreeMap::new(), 0);
    for (name, info) in infos {
        let (from, to) = info.data_offsets;
        let Some(bytes) = data.get(from..to).filter(|_| from == end) else {
            return Err(unreadable(&SafeTensorError::InvalidOffset(name).to_string()));
        };
        if size(&info.shape) != Some(bytes.len()) {
            return Err(unreadable(&SafeTensorError::TensorInvalidInfo.to_string()));
        }
        end = to;
        let raw = RawTensor {
            shape: info.shape,
            bytes: bytes.into(),
        };
        tensors.insert(name, raw);
    }
    if end != data.len() {
        return Err(unreadable(&SafeTensorError::MetadataIncompleteBuffer.to_string()));
    }
    if tensors.len() != header.count {
        return Err(unreadable("two tensors have the same name"));
    }
    Ok(tensors)
}

/// Bytes that so many 32-bit floats take, where a number can say it.
fn size(shape: &[usize]) -> Option<usize> {
    let mut sizes = shape.iter();
    sizes.try_fold(size_of::<f32>(), |product, &size| product.checked_mul(size))
}

/// What the header says of one tensor.
fn read_info(
    name: &str,
    json: &str,
    unreadable: &impl Fn(&str) -> BundleError,
) -> Result<TensorInfo, BundleError> {
    bounds::check_entry(name, json)?;
    let info: TensorInfo = serde_json::from_str(json)
        .map_err(|error| unreadable(&format!("invalid JSON in header: {error} ('{name}')")))?;
    if info.dtype != Dtype::F32 {
        return Err(BundleError::Mismatch {
            what: "the type of a tensor",
            expected: "F32".into(),
            got: format!("{:?} ('{name}')", info.dtype),
        });
    }
    bounds::check_shape(name, &info.shape)?;
    Ok(info)
}

fn read_signature(json: &str) -> Result<Signature, SignatureError> {
    Signature::parse(&header::text(json).map_err(SignatureError::Unreadable)?)
}

fn digest(manifest: &Manifest, tensors: &BTreeMap<String, RawTensor<'_>>) -> String {
    let mut hash = Sha256::new();
    manifest.feed(&mut hash);
    for (name, tensor) in tensors {
        weights::feed_name(&mut hash, name, &tensor.shape);
        hash.update(&tensor.bytes);
    }
    hex::encode(hash.finalize())
}
