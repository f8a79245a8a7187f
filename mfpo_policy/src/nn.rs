//! Layers and their forward-mode derivatives.
//!
//! | layer | formula | shapes |
//! |---|---|---|
//! | [`Linear`] | `y = x W + b` | x `[R, I]`, W `[I, O]`, b `[O]` |
//! | [`TimeEmbedder`] | `Dense(gelu(Dense([cos f, sin f])))`, `f = 2 pi z W^T` | z `[R, 1]`, W `[F, 1]`, out `[R, E]` |
//! | [`Mlp`] | hidden layers `gelu(layer_norm(x W + b))` | x `[R, I]`, out `[R, H]` |

use candle_core::Tensor;

use crate::fused;
use crate::parameters::{Initializer, NetworkError, Parameters};

/// A value with its tangent: `(f(x), J_f(x) dx)`.
pub type Dual = (Tensor, Tensor);

/// `y = x W + b`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[I, O]`.
    pub kernel: Tensor,
    /// `[O]`.
    pub bias: Tensor,
}

impl Linear {
    /// Reads `name/kernel` and `name/bias`.
    ///
    /// # Errors
    /// When one is missing or the shapes do not fit.
    pub fn load(p: &Parameters, name: &str) -> Result<Self, NetworkError> {
        let kernel = p.get(&format!("{name}/kernel"))?;
        let &[_, output] = kernel.dims() else {
            return Err(NetworkError::Shape {
                name: format!("parameter '{name}/kernel'"),
                expected: vec![0, 0],
                got: kernel.dims().to_vec(),
            });
        };
        let bias = p.shaped(&format!("{name}/bias"), &[output])?;
        Ok(Self {
            kernel: kernel.clone(),
            bias: bias.clone(),
        })
    }

    /// Number of inputs.
    pub fn input_size(&self) -> usize {
        self.kernel.dims()[0]
    }

    /// Number of outputs.
    pub fn output_size(&self) -> usize {
        self.kernel.dims()[1]
    }

    /// `x W + b`.
    ///
    /// # Errors
    /// When x is not `[R, I]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NetworkError> {
        Ok(x.matmul(&self.kernel)?.broadcast_add(&self.bias)?)
    }

    /// Value and tangent.
    ///
    /// # Errors
    /// When x or its tangent is not `[R, I]`.
    pub fn jvp(&self, (x, dx): &Dual) -> Result<Dual, NetworkError> {
        Ok((self.forward(x)?, dx.matmul(&self.kernel)?))
    }
}

/// Embeds a time `z` in `[0, 1]` with learnable Fourier features.
#[derive(Debug, Clone)]
pub struct TimeEmbedder {
    /// `[F, 1]`.
    pub frequencies: Tensor,
    /// `[2 F, E]`.
    pub hidden: Linear,
    /// `[E, E]`.
    pub output: Linear,
}

impl TimeEmbedder {
    /// Number of frequencies of a new embedder.
    pub const FREQUENCIES: usize = 64;
    /// Width of a new embedder.
    pub const WIDTH: usize = 64;

    fn initialize(init: &mut Initializer, name: &str) -> Result<(), NetworkError> {
        init.frequencies(&format!("{name}/FourierFeatures_0"), Self::FREQUENCIES)?;
        init.linear(
            &format!("{name}/MLP_0/Dense_0"),
            2 * Self::FREQUENCIES,
            Self::WIDTH,
        )?;
        init.linear(&format!("{name}/MLP_0/Dense_1"), Self::WIDTH, Self::WIDTH)
    }

    fn load(p: &Parameters, name: &str) -> Result<Self, NetworkError> {
        let hidden = Linear::load(p, &format!("{name}/MLP_0/Dense_0"))?;
        let output = Linear::load(p, &format!("{name}/MLP_0/Dense_1"))?;
        expect_input(&output, hidden.output_size(), name)?;
        let frequencies = format!("{name}/FourierFeatures_0/kernel");
        let count = hidden.input_size() / 2;
        let frequencies = p.shaped(&frequencies, &[count, 1])?.clone();
        // A cosine and a sine of each.
        expect_input(&hidden, 2 * count, &format!("{name}/MLP_0/Dense_0"))?;
        Ok(Self {
            frequencies,
            hidden,
            output,
        })
    }

    /// z `[R, 1]` to `[R, E]`.
    ///
    /// # Errors
    /// When z is not `[R, 1]`.
    pub fn forward(&self, z: &Tensor) -> Result<Tensor, NetworkError> {
        let f = self.phase(z)?;
        let features = Tensor::cat(&[f.cos()?, f.sin()?], 1)?;
        self.output
            .forward(&fused::gelu(&self.hidden.forward(&features)?)?)
    }

    /// Value and tangent.
    ///
    /// # Errors
    /// When z or its tangent is not `[R, 1]`.
    pub fn jvp(&self, (z, dz): &Dual) -> Result<Dual, NetworkError> {
        let (f, df) = (self.phase(z)?, self.phase(dz)?);
        let (cos, sin) = (f.cos()?, f.sin()?);
        let tangent = Tensor::cat(&[(&sin * &df)?.neg()?, (&cos * &df)?], 1)?;
        let (x, dx) = self.hidden.jvp(&(Tensor::cat(&[cos, sin], 1)?, tangent))?;
        self.output
            .jvp(&(fused::gelu(&x)?, (fused::gelu_slope(&x)? * dx)?))
    }

    /// `2 pi z W^T`, `[R, F]`.
    fn phase(&self, z: &Tensor) -> Result<Tensor, NetworkError> {
        Ok((z * (2.0 * std::f64::consts::PI))?.broadcast_mul(&self.frequencies.t()?)?)
    }
}

/// One hidden layer: `gelu(layer_norm(x W + b))`.
#[derive(Debug, Clone)]
pub struct HiddenLayer {
    /// The Linear layer.
    pub linear: Linear,
    /// LayerNorm's factor, `[H]`.
    pub scale: Tensor,
    /// LayerNorm's offset, `[H]`.
    pub shift: Tensor,
}

/// A stack of hidden layers.
#[derive(Debug, Clone)]
pub struct Mlp {
    /// From the input on; at least one.
    pub layers: Vec<HiddenLayer>,
    /// Whether a layer is one operation of our own (on CPU) or composed of candle's (elsewhere).
    fused: bool,
}

impl Mlp {
    fn initialize(init: &mut Initializer, input: usize, hidden: &[usize]) -> Result<(), NetworkError> {
        let mut width = input;
        for (i, &next) in hidden.iter().enumerate() {
            init.linear(&format!("MLP_0/Dense_{i}"), width, next)?;
            init.layer_norm(&format!("MLP_0/LayerNorm_{i}"), next)?;
            width = next;
        }
        Ok(())
    }

    /// Reads as many layers as have a LayerNorm.
    fn load(p: &Parameters) -> Result<Self, NetworkError> {
        let mut layers: Vec<HiddenLayer> = Vec::new();
        while layers.is_empty() || p.contains(&format!("MLP_0/LayerNorm_{}/scale", layers.len())) {
            let i = layers.len();
            let linear = Linear::load(p, &format!("MLP_0/Dense_{i}"))?;
            if let Some(before) = layers.last() {
                expect_input(&linear, before.linear.output_size(), &format!("MLP_0/Dense_{i}"))?;
            }
            let width = [linear.output_size()];
            let scale = p.shaped(&format!("MLP_0/LayerNorm_{i}/scale"), &width)?.clone();
            let shift = p.shaped(&format!("MLP_0/LayerNorm_{i}/bias"), &width)?.clone();
            layers.push(HiddenLayer { linear, scale, shift });
        }
        let fused = layers.iter().all(|layer| layer.scale.device().is_cpu());
        Ok(Self { layers, fused })
    }

    /// Number of inputs.
    pub fn input_size(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.linear.input_size())
    }

    /// Widths of the hidden layers.
    pub fn hidden_sizes(&self) -> Vec<usize> {
        self.layers
            .iter()
            .map(|layer| layer.linear.output_size())
            .collect()
    }

    fn output_size(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.linear.output_size())
    }

    /// x `[R, I]` to `[R, H]`.
    ///
    /// # Errors
    /// When x is not `[R, I]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NetworkError> {
        let mut x = x.clone();
        for layer in &self.layers {
            let z = x.matmul(&layer.linear.kernel)?;
            let operation = if self.fused {
                fused::bias_norm_gelu
            } else {
                fused::composed
            };
            x = operation(&z, &layer.linear.bias, &layer.scale, &layer.shift)?;
        }
        Ok(x)
    }

    /// Value and tangent.
    ///
    /// # Errors
    /// When x or its tangent is not `[R, I]`.
    pub fn jvp(&self, (x, dx): &Dual) -> Result<Dual, NetworkError> {
        let (mut x, mut dx) = (x.clone(), dx.clone());
        for layer in &self.layers {
            let (z, dz) = (x.matmul(&layer.linear.kernel)?, dx.matmul(&layer.linear.kernel)?);
            let norm = (&layer.linear.bias, &layer.scale, &layer.shift);
            (x, dx) = match self.fused {
                true => fused::bias_norm_gelu_dual(&z, &dz, norm)?,
                false => fused::composed_dual(&z, &dz, norm)?,
            };
        }
        Ok((x, dx))
    }
}

/// [`Mlp`] with a Linear head of its own name: `MLP_0/Dense_n` (mean flow) or `Dense_0` (critic).
#[derive(Debug, Clone)]
pub struct Trunk {
    /// The hidden layers.
    pub mlp: Mlp,
    /// The linear output layer.
    pub head: Linear,
}

impl Trunk {
    pub(crate) fn initialize(
        init: &mut Initializer,
        input: usize,
        hidden: &[usize],
        (head, output): (&str, usize),
    ) -> Result<(), NetworkError> {
        Mlp::initialize(init, input, hidden)?;
        init.linear(head, hidden.last().copied().unwrap_or(input), output)
    }

    pub(crate) fn load(p: &Parameters, head: impl Fn(usize) -> String) -> Result<Self, NetworkError> {
        let mlp = Mlp::load(p)?;
        let name = head(mlp.layers.len());
        let head = Linear::load(p, &name)?;
        expect_input(&head, mlp.output_size(), &name)?;
        Ok(Self { mlp, head })
    }

    /// The same network without operations of our own: on CPU what every other device computes.
    #[must_use]
    pub fn composed(mut self) -> Self {
        self.mlp.fused = false;
        self
    }

    /// x `[R, I]` to `[R, O]`.
    ///
    /// # Errors
    /// When x is not `[R, I]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NetworkError> {
        self.head.forward(&self.mlp.forward(x)?)
    }

    /// Value and tangent.
    ///
    /// # Errors
    /// When x or its tangent is not `[R, I]`.
    pub fn jvp(&self, x: &Dual) -> Result<Dual, NetworkError> {
        self.head.jvp(&self.mlp.jvp(x)?)
    }
}

/// The sum of a time's and an interval's embedding, the condition of a mean flow network.
#[derive(Debug, Clone)]
pub struct Condition {
    /// Embeds `t`.
    pub time: TimeEmbedder,
    /// Embeds `h = t - r`.
    pub interval: TimeEmbedder,
}

impl Condition {
    pub(crate) fn initialize(init: &mut Initializer) -> Result<(), NetworkError> {
        TimeEmbedder::initialize(init, "TimestepEmbedder_0")?;
        TimeEmbedder::initialize(init, "TimestepEmbedder_1")
    }

    pub(crate) fn load(p: &Parameters) -> Result<Self, NetworkError> {
        let time = TimeEmbedder::load(p, "TimestepEmbedder_0")?;
        let interval = TimeEmbedder::load(p, "TimestepEmbedder_1")?;
        expect_width(&interval, time.output.output_size())?;
        Ok(Self { time, interval })
    }

    /// Width of the condition.
    pub fn size(&self) -> usize {
        self.time.output.output_size()
    }

    /// t and h `[R, 1]` to `[R, E]`.
    ///
    /// # Errors
    /// When t or h is not `[R, 1]`.
    pub fn forward(&self, t: &Tensor, h: &Tensor) -> Result<Tensor, NetworkError> {
        Ok((self.time.forward(t)? + self.interval.forward(h)?)?)
    }

    /// Value and tangent.
    ///
    /// # Errors
    /// When t, h or a tangent is not `[R, 1]`.
    pub fn jvp(&self, t: &Dual, h: &Dual) -> Result<Dual, NetworkError> {
        let ((t, dt), (h, dh)) = (self.time.jvp(t)?, self.interval.jvp(h)?);
        Ok(((t + h)?, (dt + dh)?))
    }
}

fn expect_width(embedder: &TimeEmbedder, expected: usize) -> Result<(), NetworkError> {
    match embedder.output.output_size() {
        got if got == expected => Ok(()),
        got => Err(NetworkError::Shape {
            name: "output of TimestepEmbedder_1".into(),
            expected: vec![expected],
            got: vec![got],
        }),
    }
}

fn expect_input(linear: &Linear, expected: usize, name: &str) -> Result<(), NetworkError> {
    if linear.input_size() == expected {
        return Ok(());
    }
    Err(NetworkError::Shape {
        name: format!("parameter '{name}/kernel'"),
        expected: vec![expected, linear.output_size()],
        got: vec![linear.input_size(), linear.output_size()],
    })
}
