//! The networks packed for evaluation on a CPU, without gradients: the control loop's single observation and the
//! trainer's thousands of candidates run the same code.
//!
//! What is computed once: the embedding of the sampler's times (T is fixed, so that the condition becomes a bias of
//! layer 1 for each step) and the observation's share of layer 1 (one row for each observation, however many
//! candidates it has). Rows go through all layers in chunks that stay in the cache. Up to
//! [`kernel::ROWS_WITHOUT_PACKING`] rows nothing is allocated.

use candle_core::{DType, Device, Tensor};

use crate::critic::{Critic, ValueSupport};
use crate::kernel::{self, NormParameters};
use crate::mean_flow::MeanFlow;
use crate::nn::{HiddenLayer, Trunk};
use crate::parameters::NetworkError;

/// Rows that go through all layers together: 256 rows of 256 floats are a quarter of a megabyte.
const CHUNK: usize = 256;

/// Reads a tensor into a dense row-major vector.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f32>, NetworkError> {
    let flat = tensor
        .detach()
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F32)?
        .flatten_all()?;
    Ok(flat.to_vec1()?)
}

/// One hidden layer; the first one's kernel is kept apart.
#[derive(Debug, Clone)]
struct PackedLayer {
    kernel: Vec<f32>,
    bias: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl PackedLayer {
    fn new(layer: &HiddenLayer) -> Result<Self, NetworkError> {
        Ok(Self {
            kernel: values(&layer.linear.kernel)?,
            bias: values(&layer.linear.bias)?,
            scale: values(&layer.scale)?,
            shift: values(&layer.shift)?,
        })
    }

    fn width(&self) -> usize {
        self.bias.len()
    }

    fn norm<'a>(&'a self, bias: &'a [f32]) -> NormParameters<'a> {
        NormParameters {
            bias,
            scale: &self.scale,
            shift: &self.shift,
        }
    }
}

/// Buffers of one evaluation, reused from call to call.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    a: Vec<f32>,
    b: Vec<f32>,
    out: Vec<f32>,
}

impl Scratch {
    fn reserve(&mut self, rows: usize, width: usize, output: usize) {
        let grow = |v: &mut Vec<f32>, n: usize| {
            if v.len() < n {
                v.resize(n, 0.0);
            }
        };
        grow(&mut self.a, rows * width);
        grow(&mut self.b, rows * width);
        grow(&mut self.out, rows * output);
    }
}

/// Rows of points or actions with the share of the observation that each group of them belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Points or actions `[G K, A]`.
    pub x: &'a [f32],
    /// The observations' share of layer 1, `[G, H]`.
    pub share: &'a [f32],
    /// Rows for each observation, K.
    pub group: usize,
}

/// A [`Trunk`] whose first layer is split into the part of x, the part of the observation and a constant.
#[derive(Debug, Clone)]
struct PackedTrunk {
    x_size: usize,
    observation_size: usize,
    x_kernel: Vec<f32>,
    observation_kernel: Vec<f32>,
    layers: Vec<PackedLayer>,
    head_kernel: Vec<f32>,
    head_bias: Vec<f32>,
}

impl PackedTrunk {
    /// `x_rows` and `observation_rows` are the rows of the first kernel that belong to each input: (start, count).
    fn new(
        trunk: &Trunk,
        x_rows: (usize, usize),
        observation_rows: (usize, usize),
    ) -> Result<Self, NetworkError> {
        let layers = trunk
            .mlp
            .layers
            .iter()
            .map(PackedLayer::new)
            .collect::<Result<Vec<_>, _>>()?;
        let first = &trunk.mlp.layers[0].linear.kernel;
        Ok(Self {
            x_size: x_rows.1,
            observation_size: observation_rows.1,
            x_kernel: values(&first.narrow(0, x_rows.0, x_rows.1)?)?,
            observation_kernel: values(&first.narrow(0, observation_rows.0, observation_rows.1)?)?,
            layers,
            head_kernel: values(&trunk.head.kernel)?,
            head_bias: values(&trunk.head.bias)?,
        })
    }

    fn first_width(&self) -> usize {
        self.layers[0].width()
    }

    fn widest(&self) -> usize {
        self.layers.iter().map(PackedLayer::width).max().unwrap_or(0)
    }

    fn output_size(&self) -> usize {
        self.head_bias.len()
    }

    fn share(&self, observations: &[f32], out: &mut [f32]) {
        let rows = observations.len() / self.observation_size;
        let shape = (rows, self.observation_size, self.first_width());
        kernel::product(observations, &self.observation_kernel, out, shape);
    }

    /// Calls `emit(first row, head outputs without bias [rows, O])` for each chunk.
    fn run(
        &self,
        rows: Rows<'_>,
        first_bias: &[f32],
        scratch: &mut Scratch,
        mut emit: impl FnMut(usize, &[f32]),
    ) {
        let total = rows.x.len() / self.x_size;
        let chunk = (CHUNK / rows.group).max(1) * rows.group;
        scratch.reserve(chunk.min(total), self.widest(), self.output_size());
        let mut start = 0;
        while start < total {
            let count = chunk.min(total - start);
            self.run_chunk(rows, (start, count), first_bias, scratch);
            emit(start, &scratch.out[..count * self.output_size()]);
            start += count;
        }
    }

    fn run_chunk(
        &self,
        rows: Rows<'_>,
        (start, count): (usize, usize),
        first_bias: &[f32],
        scratch: &mut Scratch,
    ) {
        let Scratch { a, b, out } = scratch;
        let mut width = self.first_width();
        let x = &rows.x[start * self.x_size..(start + count) * self.x_size];
        kernel::product(x, &self.x_kernel, a, (count, self.x_size, width));
        let share = &rows.share[start / rows.group * width..];
        let norm = self.layers[0].norm(first_bias);
        kernel::bias_norm_gelu(&mut a[..count * width], Some((share, rows.group)), norm);
        for layer in &self.layers[1..] {
            let next = layer.width();
            kernel::product(a, &layer.kernel, b, (count, width, next));
            kernel::bias_norm_gelu(&mut b[..count * next], None, layer.norm(&layer.bias));
            std::mem::swap(a, b);
            width = next;
        }
        kernel::product(a, &self.head_kernel, out, (count, width, self.output_size()));
    }
}

/// A [`MeanFlow`] network packed for the sampler's T points `(t_i, h) = (i / T, 1 / T)`.
#[derive(Debug, Clone)]
pub struct FastMeanFlow {
    trunk: PackedTrunk,
    /// Layer 1's bias at each step, in the order of sampling (`t = 1` first), `[T][H]`.
    step_bias: Vec<Vec<f32>>,
}

impl FastMeanFlow {
    /// Packs `network` for `steps` sampling steps.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn new(network: &MeanFlow, steps: usize) -> Result<Self, NetworkError> {
        let (action, observation) = (network.action_size(), network.observation_size());
        let trunk = PackedTrunk::new(&network.trunk, (0, action), (action, observation))?;
        let first = &network.trunk.mlp.layers[0].linear;
        let device = first.kernel.device();
        let times: Vec<f32> = (1..=steps)
            .rev()
            .map(|i| (i as f64 / steps as f64) as f32)
            .collect();
        let t = Tensor::from_vec(times, (steps, 1), device)?;
        let h = Tensor::full((1.0 / steps as f64) as f32, (steps, 1), device)?;
        let condition = network.condition.forward(&t, &h)?.detach();
        let kernel = first
            .kernel
            .narrow(0, action + observation, network.condition.size())?;
        let bias = condition.matmul(&kernel.detach())?.broadcast_add(&first.bias)?;
        let step_bias = (0..steps)
            .map(|i| values(&bias.get(i)?))
            .collect::<Result<_, _>>()?;
        Ok(Self { trunk, step_bias })
    }

    /// Number of sampling steps, T.
    pub fn steps(&self) -> usize {
        self.step_bias.len()
    }

    /// Width of the observation's share.
    pub fn share_width(&self) -> usize {
        self.trunk.first_width()
    }

    /// The observation's share of layer 1: `[G, S]` to `[G, H]`.
    pub fn share(&self, observations: &[f32], out: &mut [f32]) {
        self.trunk.share(observations, out);
    }

    /// `f(s, x, t_i, h)` of all rows at sampling step `step` (0 is `t = 1`); `out` is `[G K, O]`.
    pub fn evaluate(&self, rows: Rows<'_>, step: usize, scratch: &mut Scratch, out: &mut [f32]) {
        let width = self.trunk.output_size();
        let bias = &self.trunk.head_bias;
        self.trunk
            .run(rows, &self.step_bias[step], scratch, |start, heads| {
                for (slot, head) in out[start * width..]
                    .chunks_exact_mut(width)
                    .zip(heads.chunks_exact(width))
                {
                    for ((o, h), b) in slot.iter_mut().zip(head).zip(bias) {
                        *o = h + b;
                    }
                }
            });
    }
}

/// A [`Critic`] packed for evaluation.
#[derive(Debug, Clone)]
pub struct FastCritic {
    trunk: PackedTrunk,
    support: ValueSupport,
}

impl FastCritic {
    /// Packs `critic` for observations of size `observation`.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn new(critic: &Critic, observation: usize) -> Result<Self, NetworkError> {
        let input = critic.trunk.mlp.input_size();
        let trunk = PackedTrunk::new(
            &critic.trunk,
            (observation, input - observation),
            (0, observation),
        )?;
        Ok(Self {
            trunk,
            support: critic.support,
        })
    }

    /// Width of the observation's share.
    pub fn share_width(&self) -> usize {
        self.trunk.first_width()
    }

    /// The observation's share of layer 1: `[G, S]` to `[G, H]`.
    pub fn share(&self, observations: &[f32], out: &mut [f32]) {
        self.trunk.share(observations, out);
    }

    /// Number of observations, G, in `[G, S]`.
    pub fn groups(&self, observations: &[f32]) -> usize {
        observations.len() / self.trunk.observation_size
    }

    /// `Q(s, a)` of all rows, `[G K]`.
    pub fn value(&self, rows: Rows<'_>, scratch: &mut Scratch, out: &mut [f32]) {
        let (minimum, step) = (self.support.minimum as f32, self.support.step() as f32);
        let atoms = self.trunk.output_size();
        self.trunk
            .run(rows, &self.trunk.layers[0].bias, scratch, |start, heads| {
                let slots = &mut out[start..start + heads.len() / atoms];
                kernel::expected_value(heads, &self.trunk.head_bias, minimum, step, slots);
            });
    }
}

/// `log N(x; 0, I)` of one row.
pub fn normal_log_prob(x: &[f32]) -> f32 {
    const HALF_LOG_2_PI: f32 = 0.918_938_5;
    x.iter().map(|v| -0.5 * v * v - HALF_LOG_2_PI).sum()
}

/// Samples actions of many observations on the CPU.
#[derive(Debug, Clone)]
pub struct FastSampler {
    actor: FastMeanFlow,
    divergence: Option<FastMeanFlow>,
    share: Vec<f32>,
    flow: Vec<f32>,
    scratch: Scratch,
}

impl FastSampler {
    /// Packs the actor and, where log-probabilities are wanted, the divergence network.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn new(actor: &MeanFlow, divergence: Option<&MeanFlow>, steps: usize) -> Result<Self, NetworkError> {
        Ok(Self {
            actor: FastMeanFlow::new(actor, steps)?,
            divergence: divergence.map(|d| FastMeanFlow::new(d, steps)).transpose()?,
            share: Vec::new(),
            flow: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    /// Makes room for `groups` observations of `group` candidates, so that later calls allocate nothing.
    pub fn reserve(&mut self, groups: usize, group: usize) {
        let rows = groups * group;
        self.share
            .resize(self.share.len().max(groups * self.actor.share_width()), 0.0);
        self.flow
            .resize(self.flow.len().max(rows * self.actor.trunk.x_size.max(1)), 0.0);
        let chunk = ((CHUNK / group.max(1)).max(1) * group.max(1)).min(rows);
        self.scratch
            .reserve(chunk, self.actor.trunk.widest(), self.actor.trunk.output_size());
    }

    /// Runs the flow from noise to actions: `x <- x - h u(s, x, t_i, h)` for `t_i = 1, ..., 1/T`, `h = 1/T`, then clips to
    /// `[-1, 1]`. `observations` is `[G, S]`; `x` holds the noise and becomes the actions, `[G K, A]`. With
    /// `log_probs` (`[G K]`) also `log p <- log p + h D(s, x, t_i, h)` from `log N(x_1; 0, I)`, not corrected for the clip.
    pub fn sample(
        &mut self,
        observations: &[f32],
        group: usize,
        x: &mut [f32],
        log_probs: Option<&mut [f32]>,
    ) {
        self.flow_without_clip(observations, group, x, log_probs);
        for value in x.iter_mut() {
            *value = value.clamp(-1.0, 1.0);
        }
    }

    /// [`FastSampler::sample`] without the final clip.
    pub fn flow_without_clip(
        &mut self,
        observations: &[f32],
        group: usize,
        x: &mut [f32],
        mut log_probs: Option<&mut [f32]>,
    ) {
        let (action, steps) = (self.actor.trunk.x_size, self.actor.steps());
        let groups = observations.len() / self.actor.trunk.observation_size;
        self.reserve(groups, group);
        let h = (1.0 / steps as f64) as f32;
        if let Some(log_probs) = log_probs.as_deref_mut() {
            for (slot, row) in log_probs.iter_mut().zip(x.chunks_exact(action)) {
                *slot = normal_log_prob(row);
            }
        }
        let width = self.actor.share_width();
        let mut divergence_share = Vec::new();
        if let (Some(d), true) = (&self.divergence, log_probs.is_some()) {
            divergence_share.resize(groups * d.share_width(), 0.0);
            d.share(observations, &mut divergence_share);
        }
        self.actor.share(observations, &mut self.share[..groups * width]);
        for step in 0..steps {
            if let (Some(d), Some(log_probs)) = (&self.divergence, log_probs.as_deref_mut()) {
                let rows = Rows {
                    x,
                    share: &divergence_share,
                    group,
                };
                let flow = &mut self.flow[..log_probs.len()];
                d.evaluate(rows, step, &mut self.scratch, flow);
                log_probs.iter_mut().zip(flow).for_each(|(l, d)| *l += h * *d);
            }
            let rows = Rows {
                x,
                share: &self.share[..groups * width],
                group,
            };
            let flow = &mut self.flow[..x.len()];
            self.actor.evaluate(rows, step, &mut self.scratch, flow);
            x.iter_mut().zip(flow).for_each(|(x, u)| *x -= h * *u);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::NormalNoise;
    use crate::sampler;

    const SIZES: (usize, usize) = (5, 3);

    fn normal(n: usize, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; n];
        NormalNoise::new(seed).fill(&mut values);
        values
    }

    /// Every observation `group` times, as rows of a tensor.
    fn repeated(observations: &[f32], group: usize) -> Tensor {
        let rows: Vec<f32> = observations
            .chunks_exact(SIZES.0)
            .flat_map(|row| row.repeat(group))
            .collect();
        Tensor::from_vec(
            rows,
            (observations.len() / SIZES.0 * group, SIZES.0),
            &Device::Cpu,
        )
        .unwrap()
    }

    fn worst(ours: &[f32], tensor: &Tensor) -> f32 {
        let theirs: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(ours.len(), theirs.len());
        ours.iter()
            .zip(theirs)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max)
    }

    #[test]
    fn packed_samplers_equal_candle_whatever_the_number_of_rows() {
        let (s, a) = SIZES;
        let flow = |seed, outputs| {
            let p = MeanFlow::initialize(seed, (s, a, outputs), &[40, 72], &Device::Cpu).unwrap();
            MeanFlow::load(&p, a).unwrap()
        };
        let (actor, divergence) = (flow(1, a), flow(2, 1));
        // More rows than a chunk, groups that do not divide it, a single row, and fewer rows than the packing limit.
        for (groups, group, steps) in [(37, 48, 2), (300, 1, 3), (1, 1, 1), (2, 7, 2), (1, 300, 2)] {
            let (observations, noise) = (normal(groups * s, 3), normal(groups * group * a, 4));
            let mut fast = FastSampler::new(&actor, Some(&divergence), steps).unwrap();
            let (mut x, mut log_probs) = (noise.clone(), vec![0.0; groups * group]);
            fast.sample(&observations, group, &mut x, Some(&mut log_probs));
            let noise = Tensor::from_vec(noise, (groups * group, a), &Device::Cpu).unwrap();
            let rows = repeated(&observations, group);
            let (actions, expected) =
                sampler::sample_with_log_prob((&actor, &divergence), &rows, &noise, steps).unwrap();
            assert!(
                worst(&x, &actions) < 1e-5,
                "{groups}x{group}: {}",
                worst(&x, &actions)
            );
            assert!(
                worst(&log_probs, &expected) < 1e-5,
                "{groups}x{group}: {}",
                worst(&log_probs, &expected)
            );
        }
    }

    #[test]
    fn packed_critics_equal_candle_whatever_the_number_of_rows() {
        let (s, a) = SIZES;
        let support = ValueSupport {
            minimum: -100.0,
            maximum: 20.0,
            atoms: 51,
        };
        let p = Critic::initialize(7, (s, a, support.atoms), &[24, 40, 16], &Device::Cpu).unwrap();
        let critic = Critic::load(&p, support).unwrap();
        let fast = FastCritic::new(&critic, s).unwrap();
        for (groups, group) in [(37, 48), (1, 1), (300, 1), (1, 10)] {
            let (observations, actions) = (normal(groups * s, 8), normal(groups * group * a, 9));
            let mut share = vec![0.0; groups * fast.share_width()];
            fast.share(&observations, &mut share);
            let mut out = vec![0.0; groups * group];
            fast.value(
                Rows {
                    x: &actions,
                    share: &share,
                    group,
                },
                &mut Scratch::default(),
                &mut out,
            );
            let actions = Tensor::from_vec(actions, (groups * group, a), &Device::Cpu).unwrap();
            let expected = critic.value(&repeated(&observations, group), &actions).unwrap();
            assert!(
                worst(&out, &expected) < 1e-4,
                "{groups}x{group}: {}",
                worst(&out, &expected)
            );
        }
    }
}
