//! A [`Trunk`] forward, along tangents and back.
//!
//! `z_l = x_l W_l`, `x_{l+1} = gelu(layer_norm(z_l + b_l))`, output `x_L W + b`.

use std::cell::RefCell;

use crate::fast::{copy_into, read};
use crate::kernel::{self, NormGradients, NormParameters, PackedMatrix};
use crate::nn::Trunk;
use crate::parameters::NetworkError;

use super::{SEGMENT, Team, slot};

thread_local! {
    /// Memory of this thread's jobs, of which none runs inside another: a gradient packed, and tangents between two layers.
    static PACKED: RefCell<PackedMatrix> = RefCell::default();
    static TANGENTS: RefCell<[Vec<f32>; 2]> = RefCell::default();
}

/// One hidden layer's weights, in both directions.
#[derive(Debug, Clone, Default)]
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
#[derive(Debug, Clone, Default)]
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
    /// Packs `trunk` over what is there. `wanted` are the inputs (start, count) whose gradient is wanted, `None` where nothing
    /// goes back; tangents enter by the inputs of `moving`.
    pub(super) fn pack(
        &mut self,
        trunk: &Trunk,
        head_name: &str,
        wanted: Option<(usize, usize)>,
        moving: &[(usize, usize)],
    ) -> Result<(), NetworkError> {
        self.layers.resize_with(trunk.mlp.layers.len(), Layer::default);
        let tangent_kernel = &mut self.tangent_kernel;
        for (i, (packed, layer)) in self.layers.iter_mut().zip(&trunk.mlp.layers).enumerate() {
            let (inner, columns) = layer.linear.kernel.dims2()?;
            read(&layer.linear.kernel, |weights| {
                let rows =
                    |(start, count): (usize, usize)| &weights[start * columns..(start + count) * columns];
                packed.kernel.pack(weights, inner, columns);
                if let Some(wanted) = wanted {
                    let back = if i > 0 { (0, inner) } else { wanted };
                    packed.transposed.pack_transposed(rows(back), columns, back.1);
                }
                if i == 0 && !moving.is_empty() {
                    let picked: Vec<f32> = moving.iter().map(|part| rows(*part)).collect::<Vec<_>>().concat();
                    tangent_kernel.pack(&picked, picked.len() / columns, columns);
                }
            })?;
            copy_into(&mut packed.bias, &layer.linear.bias)?;
            copy_into(&mut packed.scale, &layer.scale)?;
            copy_into(&mut packed.shift, &layer.shift)?;
        }
        let (inner, columns) = trunk.head.kernel.dims2()?;
        let (head, transposed) = (&mut self.head, &mut self.head_transposed);
        read(&trunk.head.kernel, |weights| {
            head.pack(weights, inner, columns);
            if wanted.is_some() {
                transposed.pack_transposed(weights, columns, inner);
            }
        })?;
        copy_into(&mut self.head_bias, &trunk.head.bias)?;
        head_name.clone_into(&mut self.head_name);
        Ok(())
    }

    pub(super) fn input_size(&self) -> usize {
        self.layers[0].kernel.inner()
    }

    pub(super) fn output_size(&self) -> usize {
        self.head_bias.len()
    }

    /// Shapes `memory` for `rows` rows. The sums of the norms, which are added to, become 0.
    pub(super) fn shape(&self, memory: &mut TrunkMemory, rows: usize) {
        let hidden: Vec<usize> = self.layers.iter().map(Layer::width).collect();
        let mut inputs = vec![self.input_size()];
        inputs.extend_from_slice(&hidden);
        memory.rows = rows;
        resize_all(&mut memory.inputs, &inputs, rows);
        resize_all(&mut memory.z, &hidden, rows);
        resize_all(&mut memory.dz, &hidden, rows);
        memory.output.resize(rows * self.output_size(), 0.0);
        memory.gradient.resize(rows * self.output_size(), 0.0);
        resize_all(&mut memory.norms, &hidden, 3 * rows.div_ceil(SEGMENT));
        memory.norms.iter_mut().for_each(|sums| sums.fill(0.0));
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
        TANGENTS.with_borrow_mut(|[moving, next]| {
            moving.clear();
            moving.extend_from_slice(tangents);
            for (l, layer) in self.layers.iter().enumerate() {
                kernel::product(at.inputs[l], &layer.kernel, at.z[l]);
                at.inputs[l + 1].copy_from_slice(at.z[l]);
                let kernel = if l == 0 {
                    &self.tangent_kernel
                } else {
                    &layer.kernel
                };
                next.resize(count * layer.width(), 0.0);
                kernel::product(moving, kernel, next);
                kernel::bias_norm_gelu_dual(at.inputs[l + 1], next, layer.norm());
                std::mem::swap(moving, next);
            }
            self.finish(at);
            let mut out = vec![0.0; count * self.output_size()];
            kernel::product(moving, &self.head, &mut out);
            out
        })
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

    /// How many parameters there are: kernel, bias, scale and shift of each layer, kernel and bias of the head.
    pub(super) fn parameters(&self) -> usize {
        4 * self.layers.len() + 2
    }

    /// Gradients of all parameters, once every segment has gone back; `out` has room for so many.
    pub(super) fn gradients(&self, memory: &TrunkMemory, out: &mut [(String, Vec<f32>)], team: &Team) {
        let mut jobs = Vec::new();
        for (l, named) in out.chunks_mut(4).enumerate() {
            let width = self.width_above(l);
            let size = memory.inputs[l].len() / memory.rows * width;
            let (above, kernel) = match named {
                [kernel, bias, scale, shift] => {
                    let sums = |first: usize, sum: &mut [f32]| {
                        sum_columns(&memory.norms[l], (first, 3 * width), sum);
                    };
                    sums(0, slot(bias, format!("MLP_0/Dense_{l}/bias"), width));
                    sums(width, slot(scale, format!("MLP_0/LayerNorm_{l}/scale"), width));
                    sums(2 * width, slot(shift, format!("MLP_0/LayerNorm_{l}/bias"), width));
                    (
                        &memory.dz[l],
                        slot(kernel, format!("MLP_0/Dense_{l}/kernel"), size),
                    )
                }
                [kernel, bias] => {
                    let bias = slot(bias, format!("{}/bias", self.head_name), width);
                    sum_rows(&memory.gradient, bias);
                    let name = format!("{}/kernel", self.head_name);
                    (&memory.gradient, slot(kernel, name, size))
                }
                _ => continue,
            };
            jobs.extend(kernel_jobs(&memory.inputs[l], above, memory.rows, kernel));
        }
        team.each(jobs, KernelJob::run);
    }

    fn width_above(&self, l: usize) -> usize {
        self.layers.get(l).map_or(self.output_size(), Layer::width)
    }
}

/// `sum_r rows[r]`, in the order of the rows, which are as wide as `sum`.
pub(super) fn sum_rows(rows: &[f32], sum: &mut [f32]) {
    sum_columns(rows, (0, sum.len()), sum);
}

/// The same of some columns, from `first` on, of rows that are `width` wide.
fn sum_columns(rows: &[f32], (first, width): (usize, usize), sum: &mut [f32]) {
    sum.fill(0.0);
    for row in rows.chunks_exact(width) {
        sum.iter_mut().zip(&row[first..]).for_each(|(s, v)| *s += v);
    }
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
        PACKED.with_borrow_mut(|packed| {
            packed.pack(self.dz, self.rows, self.dz.len() / self.rows);
            kernel::transposed_product(self.x, self.columns_of_x, packed, self.first, self.out);
        });
    }
}

/// What lies between the layers, for all rows.
#[derive(Debug, Clone, Default)]
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

/// As many vectors as there are widths, each of `rows` rows.
fn resize_all(all: &mut Vec<Vec<f32>>, widths: &[usize], rows: usize) {
    all.resize_with(widths.len(), Vec::new);
    let all = all.iter_mut().zip(widths);
    all.for_each(|(values, width)| values.resize(rows * width, 0.0));
}

fn split_all(all: &mut [Vec<f32>], rows: usize) -> Vec<std::slice::ChunksMut<'_, f32>> {
    all.iter_mut().map(|values| split(values, rows)).collect()
}
