//! A [`Trunk`] forward, along tangents and back.
//!
//! `z_l = x_l W_l`, `x_{l+1} = gelu(layer_norm(z_l + b_l))`, output `x_L W + b`.

use crate::fast::values;
use crate::kernel::{self, NormGradients, NormParameters, PackedMatrix};
use crate::nn::Trunk;
use crate::parameters::NetworkError;

use super::{NamedGradients, SEGMENT, Team};

/// One hidden layer's weights, in both directions.
struct Layer {
    kernel: PackedMatrix,
    /// Takes gradients back; the first layer's only to the inputs that have one.
    transposed: PackedMatrix,
    bias: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Layer {
    fn norm(&self) -> NormParameters<'_> {
        NormParameters {
            bias: &self.bias,
            scale: &self.scale,
            shift: &self.shift,
        }
    }

    fn width(&self) -> usize {
        self.bias.len()
    }
}

/// The weights of a trunk, packed.
pub(super) struct TrunkWeights {
    layers: Vec<Layer>,
    head: PackedMatrix,
    head_transposed: PackedMatrix,
    head_bias: Vec<f32>,
    head_name: String,
    /// The first kernel's rows that tangents enter by.
    tangent_kernel: PackedMatrix,
}

impl TrunkWeights {
    /// `wanted` are the inputs (start, count) whose gradient is wanted; tangents enter by the inputs of `moving`.
    pub(super) fn new(
        trunk: &Trunk,
        head_name: &str,
        wanted: (usize, usize),
        moving: &[(usize, usize)],
    ) -> Result<Self, NetworkError> {
        let mut layers = Vec::with_capacity(trunk.mlp.layers.len());
        let mut tangent_kernel = PackedMatrix::default();
        for (i, layer) in trunk.mlp.layers.iter().enumerate() {
            let (inner, columns) = layer.linear.kernel.dims2()?;
            let weights = values(&layer.linear.kernel)?;
            let back = if i > 0 { (0, inner) } else { wanted };
            let rows = |(start, count): (usize, usize)| &weights[start * columns..(start + count) * columns];
            if i == 0 && !moving.is_empty() {
                let picked: Vec<f32> = moving.iter().flat_map(|part| rows(*part)).copied().collect();
                tangent_kernel = PackedMatrix::new(&picked, picked.len() / columns, columns);
            }
            layers.push(Layer {
                kernel: PackedMatrix::new(&weights, inner, columns),
                transposed: PackedMatrix::transposed(rows(back), columns, back.1),
                bias: values(&layer.linear.bias)?,
                scale: values(&layer.scale)?,
                shift: values(&layer.shift)?,
            });
        }
        let (inner, columns) = trunk.head.kernel.dims2()?;
        let head = values(&trunk.head.kernel)?;
        Ok(Self {
            layers,
            head: PackedMatrix::new(&head, inner, columns),
            head_transposed: PackedMatrix::transposed(&head, columns, inner),
            head_bias: values(&trunk.head.bias)?,
            head_name: head_name.to_owned(),
            tangent_kernel,
        })
    }

    pub(super) fn input_size(&self) -> usize {
        self.layers[0].kernel.inner()
    }

    pub(super) fn output_size(&self) -> usize {
        self.head_bias.len()
    }

    /// Inputs of every layer and of the head, gradients and norm sums for `rows` rows.
    pub(super) fn memory(&self, rows: usize) -> TrunkMemory {
        let hidden = || self.layers.iter().map(|layer| vec![0.0; rows * layer.width()]);
        let segments = rows.div_ceil(SEGMENT);
        TrunkMemory {
            rows,
            inputs: std::iter::once(vec![0.0; rows * self.input_size()])
                .chain(hidden())
                .collect(),
            z: hidden().collect(),
            dz: hidden().collect(),
            output: vec![0.0; rows * self.output_size()],
            gradient: vec![0.0; rows * self.output_size()],
            norms: self
                .layers
                .iter()
                .map(|layer| vec![0.0; segments * 3 * layer.width()])
                .collect(),
        }
    }

    /// Fills in z, the layers' inputs behind the first and the output.
    pub(super) fn forward(&self, at: &mut TrunkSegment<'_>) {
        for (l, layer) in self.layers.iter().enumerate() {
            kernel::product(at.inputs[l], &layer.kernel, at.z[l]);
            at.inputs[l + 1].copy_from_slice(at.z[l]);
            kernel::bias_norm_gelu(at.inputs[l + 1], layer.norm());
        }
        self.finish(at);
    }

    fn finish(&self, at: &mut TrunkSegment<'_>) {
        let last = self.layers.len();
        kernel::product(at.inputs[last], &self.head, at.output);
        for row in at.output.chunks_exact_mut(self.output_size()) {
            row.iter_mut().zip(&self.head_bias).for_each(|(o, b)| *o += b);
        }
    }

    /// [`TrunkWeights::forward`] with tangents `[N, R, moving inputs]`; gives those of the output, `[N, R, O]`.
    pub(super) fn dual(&self, at: &mut TrunkSegment<'_>, tangents: &[f32]) -> Vec<f32> {
        let count = tangents.len() / self.tangent_kernel.inner().max(1); // N R
        let mut moving = tangents.to_vec();
        for (l, layer) in self.layers.iter().enumerate() {
            kernel::product(at.inputs[l], &layer.kernel, at.z[l]);
            at.inputs[l + 1].copy_from_slice(at.z[l]);
            let kernel = if l == 0 {
                &self.tangent_kernel
            } else {
                &layer.kernel
            };
            let mut next = vec![0.0; count * layer.width()];
            kernel::product(&moving, kernel, &mut next);
            kernel::bias_norm_gelu_dual(at.inputs[l + 1], &mut next, layer.norm());
            moving = next;
        }
        self.finish(at);
        let mut out = vec![0.0; count * self.output_size()];
        kernel::product(&moving, &self.head, &mut out);
        out
    }

    /// From the gradient of the output to those of every z; gives those of the wanted inputs, `[R, wanted]`.
    pub(super) fn backward(&self, at: &mut TrunkSegment<'_>) -> Vec<f32> {
        let mut wanted = Vec::new();
        for (l, layer) in self.layers.iter().enumerate().rev() {
            let (from, into) = at.dz.split_at_mut(l + 1);
            let grad = &mut from[l];
            match into.first() {
                None => kernel::product(at.gradient, &self.head_transposed, grad),
                Some(above) => kernel::product(above, &self.layers[l + 1].transposed, grad),
            }
            let (bias, rest) = at.norms[l].split_at_mut(layer.width());
            let (scale, shift) = rest.split_at_mut(layer.width());
            let mut sums = NormGradients { bias, scale, shift };
            kernel::bias_norm_gelu_backward(at.z[l], grad, layer.norm(), &mut sums);
            if l == 0 && layer.transposed.columns() > 0 {
                wanted = vec![0.0; grad.len() / layer.width() * layer.transposed.columns()];
                kernel::product(grad, &layer.transposed, &mut wanted);
            }
        }
        wanted
    }

    /// Gradients of all parameters, once every segment has gone back.
    pub(super) fn gradients(&self, memory: &TrunkMemory, team: &Team) -> NamedGradients {
        let last = self.layers.len();
        let mut kernels: Vec<Vec<f32>> = (0..=last)
            .map(|l| vec![0.0; memory.inputs[l].len() / memory.rows * self.width_above(l)])
            .collect();
        let mut jobs = Vec::new();
        for (l, kernel) in kernels.iter_mut().enumerate() {
            let above = if l == last {
                &memory.gradient
            } else {
                &memory.dz[l]
            };
            jobs.extend(kernel_jobs(&memory.inputs[l], above, memory.rows, kernel));
        }
        team.each(jobs, KernelJob::run);
        let mut named = NamedGradients::new();
        for (l, kernel) in kernels.into_iter().enumerate() {
            if l == last {
                named.push((format!("{}/kernel", self.head_name), kernel));
                let bias = sum_rows(&memory.gradient, self.output_size());
                named.push((format!("{}/bias", self.head_name), bias));
                break;
            }
            named.push((format!("MLP_0/Dense_{l}/kernel"), kernel));
            let width = self.layers[l].width();
            let sums = sum_rows(&memory.norms[l], 3 * width);
            named.push((format!("MLP_0/Dense_{l}/bias"), sums[..width].to_vec()));
            named.push((
                format!("MLP_0/LayerNorm_{l}/scale"),
                sums[width..2 * width].to_vec(),
            ));
            named.push((format!("MLP_0/LayerNorm_{l}/bias"), sums[2 * width..].to_vec()));
        }
        named
    }

    fn width_above(&self, l: usize) -> usize {
        self.layers.get(l).map_or(self.output_size(), Layer::width)
    }
}

/// `sum_r rows[r]`, in the order of the rows.
pub(super) fn sum_rows(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
    }
    sum
}

/// Rows of a kernel's gradient that one job computes.
const KERNEL_ROWS: usize = 128;

/// Some rows of `x^T dz`.
pub(super) struct KernelJob<'a> {
    x: &'a [f32],
    columns_of_x: usize,
    dz: &'a [f32],
    rows: usize,
    first: usize,
    out: &'a mut [f32],
}

/// The jobs of `kernel = x^T dz`, x `[R, I]`, dz `[R, O]`.
pub(super) fn kernel_jobs<'a>(
    x: &'a [f32],
    dz: &'a [f32],
    rows: usize,
    kernel: &'a mut [f32],
) -> Vec<KernelJob<'a>> {
    let (columns_of_x, width) = (x.len() / rows, dz.len() / rows);
    let parts = kernel.chunks_mut(KERNEL_ROWS * width).enumerate();
    parts
        .map(|(i, out)| KernelJob {
            x,
            columns_of_x,
            dz,
            rows,
            first: i * KERNEL_ROWS,
            out,
        })
        .collect()
}

impl KernelJob<'_> {
    pub(super) fn run(self) {
        let packed = PackedMatrix::new(self.dz, self.rows, self.dz.len() / self.rows);
        kernel::transposed_product(self.x, self.columns_of_x, &packed, self.first, self.out);
    }
}

/// What lies between the layers, for all rows.
pub(super) struct TrunkMemory {
    pub(super) rows: usize,
    /// `[L + 1][R, I_l]`.
    pub(super) inputs: Vec<Vec<f32>>,
    z: Vec<Vec<f32>>,
    dz: Vec<Vec<f32>>,
    /// `[R, O]`.
    pub(super) output: Vec<f32>,
    /// Of the loss with respect to the output, `[R, O]`.
    pub(super) gradient: Vec<f32>,
    /// Sums of each segment: bias, scale, shift, `[L][segments, 3 H]`.
    norms: Vec<Vec<f32>>,
}

/// The same for the rows of one segment.
pub(super) struct TrunkSegment<'a> {
    pub(super) inputs: Vec<&'a mut [f32]>,
    z: Vec<&'a mut [f32]>,
    dz: Vec<&'a mut [f32]>,
    pub(super) output: &'a mut [f32],
    pub(super) gradient: &'a mut [f32],
    norms: Vec<&'a mut [f32]>,
}

impl TrunkMemory {
    /// Every segment on its own; each with the number of its first row.
    pub(super) fn segments(&mut self) -> Vec<(usize, TrunkSegment<'_>)> {
        let rows = self.rows;
        let mut inputs = split_all(&mut self.inputs, rows);
        let (mut z, mut dz) = (split_all(&mut self.z, rows), split_all(&mut self.dz, rows));
        let mut output = split(&mut self.output, rows);
        let mut gradient = split(&mut self.gradient, rows);
        let count = rows.div_ceil(SEGMENT);
        let norms = self.norms.iter_mut().map(|n| {
            let size = n.len() / count;
            n.chunks_mut(size)
        });
        let mut norms: Vec<_> = norms.collect();
        let mut segments = Vec::with_capacity(count);
        for i in 0..count {
            let (Some(output), Some(gradient)) = (output.next(), gradient.next()) else {
                break;
            };
            segments.push((
                i * SEGMENT,
                TrunkSegment {
                    inputs: inputs.iter_mut().filter_map(Iterator::next).collect(),
                    z: z.iter_mut().filter_map(Iterator::next).collect(),
                    dz: dz.iter_mut().filter_map(Iterator::next).collect(),
                    output,
                    gradient,
                    norms: norms.iter_mut().filter_map(Iterator::next).collect(),
                },
            ));
        }
        segments
    }
}

/// The rows of each segment.
pub(super) fn split(values: &mut [f32], rows: usize) -> std::slice::ChunksMut<'_, f32> {
    let width = values.len() / rows;
    values.chunks_mut(SEGMENT * width.max(1))
}

fn split_all(all: &mut [Vec<f32>], rows: usize) -> Vec<std::slice::ChunksMut<'_, f32>> {
    all.iter_mut().map(|values| split(values, rows)).collect()
}
