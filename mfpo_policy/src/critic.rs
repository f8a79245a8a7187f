//! Distributional critics: `Z(s, a)` as logits over equidistant atoms, `Q(s, a) = sum_j softmax(Z)_j z_j`.

use candle_core::{D, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::nn::Trunk;
use crate::parameters::{Initializer, NetworkError, Parameters};

/// The atoms `z_j = minimum + j step`, `j = 0..atoms`, `step = (maximum - minimum) / (atoms - 1)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueSupport {
    /// Lowest value.
    pub minimum: f64,
    /// Highest value.
    pub maximum: f64,
    /// Number of atoms, at least 2.
    pub atoms: usize,
}

impl ValueSupport {
    /// Distance of two atoms.
    pub fn step(&self) -> f64 {
        (self.maximum - self.minimum) / (self.atoms.max(2) - 1) as f64
    }

    /// All atoms, `[atoms]`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn values(&self, device: &Device) -> Result<Tensor, NetworkError> {
        let values: Vec<f32> = (0..self.atoms)
            .map(|j| (self.minimum + j as f64 * self.step()) as f32)
            .collect();
        Ok(Tensor::from_vec(values, self.atoms, device)?)
    }
}

/// `Z(s, a)`: `MLP([s, a])` with a linear head over the atoms.
#[derive(Debug, Clone)]
pub struct Critic {
    /// Input `[s, a]`.
    pub trunk: Trunk,
    /// The atoms.
    pub support: ValueSupport,
}

impl Critic {
    /// New parameters.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn initialize(
        seed: u64,
        (observation, action, atoms): (usize, usize, usize),
        hidden: &[usize],
        device: &Device,
    ) -> Result<Parameters, NetworkError> {
        let mut init = Initializer::new(seed, device);
        Trunk::initialize(&mut init, observation + action, hidden, ("Dense_0", atoms))?;
        Ok(init.finish())
    }

    /// Reads the network.
    ///
    /// # Errors
    /// When a parameter is missing or the head's width is not the number of atoms.
    pub fn load(p: &Parameters, support: ValueSupport) -> Result<Self, NetworkError> {
        let trunk = Trunk::load(p, |_| "Dense_0".to_owned())?;
        if trunk.head.output_size() != support.atoms {
            return Err(NetworkError::Shape {
                name: "output of critic head Dense_0".into(),
                expected: vec![support.atoms],
                got: vec![trunk.head.output_size()],
            });
        }
        Ok(Self { trunk, support })
    }

    /// See [`Trunk::composed`].
    #[must_use]
    pub fn composed(mut self) -> Self {
        self.trunk = self.trunk.composed();
        self
    }

    /// Logits `[R, atoms]` of observations `[R, S]` and actions `[R, A]`; differentiable in the parameters.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn logits(&self, observation: &Tensor, action: &Tensor) -> Result<Tensor, NetworkError> {
        self.trunk.forward(&Tensor::cat(&[observation, action], 1)?)
    }

    /// `Q` of logits, `[R]`.
    ///
    /// # Errors
    /// When the logits are not `[R, atoms]`.
    pub fn expected_value(&self, logits: &Tensor) -> Result<Tensor, NetworkError> {
        let values = self.support.values(logits.device())?;
        Ok(softmax(logits)?.broadcast_mul(&values)?.sum(1)?)
    }

    /// `Q(s, a)`, `[R]`.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn value(&self, observation: &Tensor, action: &Tensor) -> Result<Tensor, NetworkError> {
        self.expected_value(&self.logits(observation, action)?)
    }
}

/// `log softmax` over the last axis, composed of operations that all have a backward pass.
///
/// # Errors
/// When candle refuses an operation.
pub fn log_softmax(logits: &Tensor) -> Result<Tensor, NetworkError> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let total = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok(shifted.broadcast_sub(&total)?)
}

/// `softmax` over the last axis, composed of operations that all have a backward pass.
///
/// # Errors
/// When candle refuses an operation.
pub fn softmax(logits: &Tensor) -> Result<Tensor, NetworkError> {
    let e = logits
        .broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?
        .exp()?;
    let total = e.sum_keepdim(D::Minus1)?;
    Ok(e.broadcast_div(&total)?)
}
