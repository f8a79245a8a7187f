//! A [`TimeEmbedder`] forward, along the time and back.
//!
//! `f = 2 pi z W^T`, `e = gelu([cos f, sin f] V + b) U + c`.

use crate::fast::{copy_into, read};
use crate::kernel::{self, PackedMatrix};
use crate::nn::{Linear, TimeEmbedder};
use crate::parameters::NetworkError;

use super::trunk::{KernelJob, kernel_jobs, split, sum_rows};
use super::{SEGMENT, Team, slot};

/// The weights of an embedder, packed.
#[derive(Debug, Clone, Default)]
pub(super) struct EmbedderWeights {
    name: String,
    frequencies: Vec<f32>,
    hidden: PackedMatrix,
    hidden_transposed: PackedMatrix,
    hidden_bias: Vec<f32>,
    output: PackedMatrix,
    output_transposed: PackedMatrix,
    output_bias: Vec<f32>,
}

impl EmbedderWeights {
    /// Frequencies, kernel and bias of both layers.
    pub(super) const PARAMETERS: usize = 5;

    /// Packs `embedder` over what is there; `back` says whether gradients go back.
    pub(super) fn pack(
        &mut self,
        embedder: &TimeEmbedder,
        name: &str,
        back: bool,
    ) -> Result<(), NetworkError> {
        let both = |linear: &Linear,
                    packed: &mut PackedMatrix,
                    transposed: &mut PackedMatrix|
         -> Result<(), NetworkError> {
            let (inner, columns) = linear.kernel.dims2()?;
            read(&linear.kernel, |kernel| {
                packed.pack(kernel, inner, columns);
                if back {
                    transposed.pack_transposed(kernel, columns, inner);
                }
            })
        };
        both(&embedder.hidden, &mut self.hidden, &mut self.hidden_transposed)?;
        both(&embedder.output, &mut self.output, &mut self.output_transposed)?;
        copy_into(&mut self.frequencies, &embedder.frequencies)?;
        copy_into(&mut self.hidden_bias, &embedder.hidden.bias)?;
        copy_into(&mut self.output_bias, &embedder.output.bias)?;
        name.clone_into(&mut self.name);
        Ok(())
    }

    /// E, the width of an embedding.
    pub(super) fn width(&self) -> usize {
        self.output_bias.len()
    }

    fn features(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Shapes `memory` for `rows` rows. The gradient of the frequencies, which is added to, becomes 0.
    pub(super) fn shape(&self, memory: &mut EmbedderMemory, rows: usize) {
        memory.rows = rows;
        memory.features.resize(rows * self.features(), 0.0);
        for hidden in [&mut memory.active, &mut memory.slope, &mut memory.hidden_gradient] {
            hidden.resize(rows * self.hidden_bias.len(), 0.0);
        }
        memory.frequencies.clear();
        memory
            .frequencies
            .resize(rows.div_ceil(SEGMENT) * self.frequencies.len(), 0.0);
    }

    /// Adds the embeddings of `z` (`[R]`) to `out` and, where given, their derivatives by z to `tangent` (`[R, E]`).
    pub(super) fn add(
        &self,
        z: &[f32],
        at: &mut EmbedderSegment<'_>,
        out: &mut [f32],
        tangent: Option<&mut [f32]>,
    ) {
        let (rows, half) = (z.len(), self.frequencies.len());
        let mut phase = vec![0.0; rows * half];
        for (row, z) in phase.chunks_exact_mut(half).zip(z) {
            let scaled = z * std::f32::consts::TAU;
            let row = row.iter_mut().zip(&self.frequencies);
            row.for_each(|(phase, w)| *phase = scaled * w);
        }
        let (mut sin, mut cos) = (vec![0.0; phase.len()], vec![0.0; phase.len()]);
        kernel::sin_cos(&phase, &mut sin, &mut cos);
        for (row, (sin, cos)) in at
            .features
            .chunks_exact_mut(2 * half)
            .zip(sin.chunks_exact(half).zip(cos.chunks_exact(half)))
        {
            row[..half].copy_from_slice(cos);
            row[half..].copy_from_slice(sin);
        }
        let mut before = vec![0.0; rows * self.hidden_bias.len()];
        kernel::product(at.features, &self.hidden, &mut before);
        add_row(&mut before, &self.hidden_bias);
        kernel::gelu_and_slope(&before, at.active, at.slope);
        let mut embedding = vec![0.0; rows * self.width()];
        kernel::product(at.active, &self.output, &mut embedding);
        add_row(&mut embedding, &self.output_bias);
        out.iter_mut().zip(&embedding).for_each(|(o, e)| *o += e);
        if let Some(tangent) = tangent {
            self.add_tangent(at, tangent);
        }
    }

    /// `d e / d z = (slope * ([-sin f, cos f] * [f', f']) V) U` with `f' = 2 pi W`.
    fn add_tangent(&self, at: &EmbedderSegment<'_>, tangent: &mut [f32]) {
        let half = self.frequencies.len();
        let mut features = vec![0.0; at.features.len()];
        for (to, from) in features
            .chunks_exact_mut(2 * half)
            .zip(at.features.chunks_exact(2 * half))
        {
            for (j, w) in self.frequencies.iter().enumerate() {
                let rate = std::f32::consts::TAU * w;
                to[j] = -from[half + j] * rate;
                to[half + j] = from[j] * rate;
            }
        }
        let mut hidden = vec![0.0; at.slope.len()];
        kernel::product(&features, &self.hidden, &mut hidden);
        hidden.iter_mut().zip(&*at.slope).for_each(|(h, s)| *h *= s);
        let mut embedding = vec![0.0; tangent.len()];
        kernel::product(&hidden, &self.output, &mut embedding);
        tangent.iter_mut().zip(&embedding).for_each(|(o, e)| *o += e);
    }

    /// From the gradient of the embeddings `[R, E]` at times `z`.
    pub(super) fn backward(&self, z: &[f32], grad: &[f32], at: &mut EmbedderSegment<'_>) {
        let half = self.frequencies.len();
        kernel::product(grad, &self.output_transposed, at.hidden_gradient);
        at.hidden_gradient
            .iter_mut()
            .zip(&*at.slope)
            .for_each(|(g, s)| *g *= s);
        let mut features = vec![0.0; at.features.len()];
        kernel::product(at.hidden_gradient, &self.hidden_transposed, &mut features);
        let rows = features
            .chunks_exact(2 * half)
            .zip(at.features.chunks_exact(2 * half));
        for ((grad, value), z) in rows.zip(z) {
            let scaled = z * std::f32::consts::TAU;
            for (j, sum) in at.frequencies.iter_mut().enumerate() {
                let phase = value[j] * grad[half + j] - value[half + j] * grad[j];
                *sum += phase * scaled;
            }
        }
    }

    /// Gradients of all parameters, from those of the embeddings (`[R, E]`).
    pub(super) fn gradients(
        &self,
        memory: &EmbedderMemory,
        grad: &[f32],
        out: &mut [(String, Vec<f32>)],
        team: &Team,
    ) {
        let [frequencies, hidden, hidden_bias, output, output_bias] = out else {
            return;
        };
        let (name, rows, width) = (&self.name, memory.rows, self.hidden_bias.len());
        let kernel = |layer: usize| format!("{name}/MLP_0/Dense_{layer}/kernel");
        let bias = |layer: usize| format!("{name}/MLP_0/Dense_{layer}/bias");
        let count = self.frequencies.len();
        let frequencies = slot(frequencies, format!("{name}/FourierFeatures_0/kernel"), count);
        sum_rows(&memory.frequencies, frequencies);
        sum_rows(&memory.hidden_gradient, slot(hidden_bias, bias(0), width));
        sum_rows(grad, slot(output_bias, bias(1), self.width()));
        let hidden = slot(hidden, kernel(0), self.features() * width);
        let output = slot(output, kernel(1), width * self.width());
        let mut jobs = kernel_jobs(&memory.features, &memory.hidden_gradient, rows, hidden);
        jobs.extend(kernel_jobs(&memory.active, grad, rows, output));
        team.each(jobs, KernelJob::run);
    }
}

fn add_row(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    }
}

/// What lies between the layers, for all rows.
#[derive(Debug, Clone, Default)]
pub(super) struct EmbedderMemory {
    rows: usize,
    /// `[cos f, sin f]`, `[R, 2 F]`.
    features: Vec<f32>,
    /// After GELU, `[R, H]`.
    active: Vec<f32>,
    /// GELU's slope, `[R, H]`.
    slope: Vec<f32>,
    /// Of the loss with respect to GELU's argument, `[R, H]`.
    hidden_gradient: Vec<f32>,
    /// Gradient of the frequencies, one row a segment.
    frequencies: Vec<f32>,
}

/// The same for the rows of one segment.
pub(super) struct EmbedderSegment<'a> {
    features: &'a mut [f32],
    active: &'a mut [f32],
    slope: &'a mut [f32],
    hidden_gradient: &'a mut [f32],
    frequencies: &'a mut [f32],
}

impl EmbedderMemory {
    pub(super) fn segments(&mut self) -> Vec<EmbedderSegment<'_>> {
        let rows = self.rows;
        let width = self.frequencies.len() / rows.div_ceil(SEGMENT);
        split(&mut self.features, rows)
            .zip(split(&mut self.active, rows))
            .zip(split(&mut self.slope, rows))
            .zip(split(&mut self.hidden_gradient, rows))
            .zip(self.frequencies.chunks_mut(width))
            .map(
                |((((features, active), slope), hidden_gradient), frequencies)| EmbedderSegment {
                    features,
                    active,
                    slope,
                    hidden_gradient,
                    frequencies,
                },
            )
            .collect()
    }
}
