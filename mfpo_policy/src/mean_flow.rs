//! The MeanFlow networks: the average velocity `u(s, x, t, h)` and the average divergence `D(s, x, t, h)`.
//!
//! Time runs from noise (`t = 1`) to data (`t = 0`); `h = t - r` is the length of the interval `[r, t]` over which the
//! velocity is averaged (arXiv 2604.14698). Both networks are `MLP([x, s, E_t(t) + E_h(h)])` with a linear head.

use candle_core::{Device, Tensor};

use crate::nn::{Condition, Dual, Trunk};
use crate::parameters::{Initializer, NetworkError, Parameters};

/// `f(s, x, t, h)`: average velocity (`A` outputs) or average divergence (1 output).
#[derive(Debug, Clone)]
pub struct MeanFlow {
    /// Embeds t and h.
    pub condition: Condition,
    /// Input `[x, s, condition]`.
    pub trunk: Trunk,
    action_size: usize,
    observation_size: usize,
}

/// Where a [`MeanFlow`] network is evaluated, R rows.
#[derive(Debug, Clone, Copy)]
pub struct FlowPoint<'a> {
    /// Observations `[R, S]`.
    pub observation: &'a Tensor,
    /// Points on the flow `[R, A]`.
    pub x: &'a Tensor,
    /// Times `[R, 1]`.
    pub t: &'a Tensor,
    /// Lengths of the interval `[R, 1]`.
    pub h: &'a Tensor,
}

impl MeanFlow {
    /// New parameters for `output` outputs.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn initialize(
        seed: u64,
        (observation, action, output): (usize, usize, usize),
        hidden: &[usize],
        device: &Device,
    ) -> Result<Parameters, NetworkError> {
        let mut init = Initializer::new(seed, device);
        Condition::initialize(&mut init)?;
        let input = action + observation + crate::nn::TimeEmbedder::WIDTH;
        let head = format!("MLP_0/Dense_{}", hidden.len());
        Trunk::initialize(&mut init, input, hidden, (&head, output))?;
        Ok(init.finish())
    }

    /// Reads the network; all sizes but the action's follow from the shapes.
    ///
    /// # Errors
    /// When a parameter is missing or the shapes do not fit each other.
    pub fn load(p: &Parameters, action_size: usize) -> Result<Self, NetworkError> {
        let condition = Condition::load(p)?;
        let trunk = Trunk::load(p, |layers| format!("MLP_0/Dense_{layers}"))?;
        let known = action_size + condition.size();
        match trunk.mlp.input_size().checked_sub(known) {
            Some(observation_size) if observation_size > 0 => Ok(Self {
                condition,
                trunk,
                action_size,
                observation_size,
            }),
            _ => Err(NetworkError::Shape {
                name: "input of MLP_0/Dense_0".into(),
                expected: vec![known + 1],
                got: vec![trunk.mlp.input_size()],
            }),
        }
    }

    /// See [`Trunk::composed`].
    #[must_use]
    pub fn composed(mut self) -> Self {
        self.trunk = self.trunk.composed();
        self
    }

    /// Size of an observation.
    pub fn observation_size(&self) -> usize {
        self.observation_size
    }

    /// Size of an action.
    pub fn action_size(&self) -> usize {
        self.action_size
    }

    /// `f(s, x, t, h)`, `[R, O]`; differentiable in the parameters.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn forward(&self, at: FlowPoint<'_>) -> Result<Tensor, NetworkError> {
        let condition = self.condition.forward(at.t, at.h)?;
        self.trunk
            .forward(&Tensor::cat(&[at.x, at.observation, &condition], 1)?)
    }

    /// Value and directional derivative along `(dx, dt, dh)` (`[R, A]`, `[R, 1]`, `[R, 1]`); carries no gradient.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn jvp(
        &self,
        at: FlowPoint<'_>,
        (dx, dt, dh): (&Tensor, &Tensor, &Tensor),
    ) -> Result<Dual, NetworkError> {
        let (c, dc) = self
            .condition
            .jvp(&(at.t.clone(), dt.clone()), &(at.h.clone(), dh.clone()))?;
        let still = at.observation.zeros_like()?;
        let value = Tensor::cat(&[at.x, at.observation, &c], 1)?;
        let tangent = Tensor::cat(&[dx, &still, &dc], 1)?;
        self.trunk.jvp(&(value, tangent))
    }
}
