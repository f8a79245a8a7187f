//! Named network parameters and their initial values.
//!
//! Names are paths in the order of the layers, the same as in flax, so that a file of ours can be compared with the
//! reference tensor by tensor: `MLP_0/Dense_0/kernel`. Kernels are `[in, out]`.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, Uniform};
use thiserror::Error;

/// Why a network could not be built or run.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// A parameter is not there.
    #[error("parameter '{name}' is missing")]
    Missing {
        /// The parameter's full name.
        name: String,
    },
    /// A parameter or an input has another shape.
    #[error("{name} has shape {got:?}; expected {expected:?}")]
    Shape {
        /// The parameter or input.
        name: String,
        /// The shape that was expected.
        expected: Vec<usize>,
        /// The shape that came.
        got: Vec<usize>,
    },
    /// What was computed once from the weights is not what they make now.
    #[error("{name} is not what the weights make; the memory was damaged: load the policy again")]
    Damaged {
        /// What it is.
        name: String,
    },
    /// candle refused an operation.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Parameters by name.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    tensors: BTreeMap<String, Tensor>,
}

impl Parameters {
    /// Wraps tensors that are already named.
    pub fn new(tensors: BTreeMap<String, Tensor>) -> Self {
        Self { tensors }
    }

    /// All parameters, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.tensors.iter()
    }

    /// The parameters under `prefix/`, with the prefix removed.
    pub fn under(&self, prefix: &str) -> Self {
        let prefix = format!("{prefix}/");
        let tensors = self
            .tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor.clone())))
            .collect();
        Self { tensors }
    }

    /// Whether there is a parameter of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// One parameter.
    ///
    /// # Errors
    /// [`NetworkError::Missing`].
    pub fn get(&self, name: &str) -> Result<&Tensor, NetworkError> {
        self.tensors.get(name).ok_or_else(|| NetworkError::Missing {
            name: name.to_owned(),
        })
    }

    /// One parameter of the given shape.
    ///
    /// # Errors
    /// [`NetworkError::Missing`], [`NetworkError::Shape`].
    pub fn shaped(&self, name: &str, expected: &[usize]) -> Result<&Tensor, NetworkError> {
        let tensor = self.get(name)?;
        if tensor.dims() == expected {
            return Ok(tensor);
        }
        Err(NetworkError::Shape {
            name: format!("parameter '{name}'"),
            expected: expected.to_vec(),
            got: tensor.dims().to_vec(),
        })
    }

    /// The same storage without gradients.
    pub fn detached(&self) -> Self {
        let tensors = self
            .tensors
            .iter()
            .map(|(n, t)| (n.clone(), t.detach()))
            .collect();
        Self { tensors }
    }

    /// A copy with storage of its own.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn copied(&self) -> Result<Self, NetworkError> {
        let copy = |(n, t): (&String, &Tensor)| Ok((n.clone(), t.copy()?.detach()));
        let tensors = self
            .tensors
            .iter()
            .map(copy)
            .collect::<Result<_, NetworkError>>()?;
        Ok(Self { tensors })
    }

    /// A copy on the CPU with storage of its own.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub fn copied_to_cpu(&self) -> Result<Self, NetworkError> {
        self.copied()?.to_device(&Device::Cpu)
    }

    /// The same numbers on another device.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn to_device(&self, device: &Device) -> Result<Self, NetworkError> {
        let moved = |(n, t): (&String, &Tensor)| Ok((n.clone(), t.to_device(device)?));
        let tensors = self
            .tensors
            .iter()
            .map(moved)
            .collect::<Result<_, NetworkError>>()?;
        Ok(Self { tensors })
    }
}

/// Draws initial parameters, always in the same order for the same seed, whatever the device.
#[derive(Debug)]
pub struct Initializer {
    rng: ChaCha8Rng,
    device: Device,
    tensors: BTreeMap<String, Tensor>,
}

impl Initializer {
    /// Starts an empty set of parameters.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            device: device.clone(),
            tensors: BTreeMap::new(),
        }
    }

    /// A Linear layer: kernel `[input, output]` from `U(+-sqrt(6 / (input + output)))` (Xavier), bias 0.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn linear(&mut self, name: &str, input: usize, output: usize) -> Result<(), NetworkError> {
        let bound = (6.0 / (input + output) as f32).sqrt();
        // The bounds are finite and ordered, which is all that `Uniform::new` asks for.
        let values: Vec<f32> = match Uniform::new(-bound, bound) {
            Ok(uniform) => uniform.sample_iter(&mut self.rng).take(input * output).collect(),
            Err(_) => vec![0.0; input * output],
        };
        self.insert(format!("{name}/kernel"), values, &[input, output])?;
        self.insert(format!("{name}/bias"), vec![0.0; output], &[output])
    }

    /// A LayerNorm: scale 1, bias 0.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn layer_norm(&mut self, name: &str, width: usize) -> Result<(), NetworkError> {
        self.insert(format!("{name}/scale"), vec![1.0; width], &[width])?;
        self.insert(format!("{name}/bias"), vec![0.0; width], &[width])
    }

    /// Learnable frequencies `[count, 1]` from `N(0, 0.2^2)`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn frequencies(&mut self, name: &str, count: usize) -> Result<(), NetworkError> {
        let values = (0..count)
            .map(|_| 0.2 * Distribution::<f32>::sample(&StandardNormal, &mut self.rng))
            .collect();
        self.insert(format!("{name}/kernel"), values, &[count, 1])
    }

    /// The parameters drawn so far.
    pub fn finish(self) -> Parameters {
        Parameters::new(self.tensors)
    }

    fn insert(&mut self, name: String, values: Vec<f32>, shape: &[usize]) -> Result<(), NetworkError> {
        let tensor = Tensor::from_vec(values, shape, &self.device)?.to_dtype(DType::F32)?;
        self.tensors.insert(name, tensor);
        Ok(())
    }
}
