//! All layers of a network for a block of rows that stays in the near caches.
//!
//! A block of a product goes through every layer before the next one starts: the weights stream past it once, and what
//! lies between two layers never leaves the cache.

use super::activation::{Leave, NormParameters, expected_value_row, norm_gelu_rows};
use super::matrix::{
    Aligned, BLOCK, Left, Numbers, PackedMatrix, Pairs, Singles, Target, padded, product_rows,
};
use super::simd::Simd;
use super::{Kernel, dispatch};
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

/// Most rows that a block has in any instruction set.
pub(crate) const MOST_ROWS: usize = 12 * BLOCK;

/// A hidden layer: `gelu(layer_norm(x kernel + bias))`.
#[derive(Debug, Clone, Default)]
pub(crate) struct PackedLayer {
    pub(crate) kernel: PackedMatrix,
    pub(crate) bias: Vec<f32>,
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
}

impl PackedLayer {
    pub(crate) fn width(&self) -> usize {
        self.bias.len()
    }

    /// The layer's norm with another bias than its own.
    fn norm<'a>(&'a self, bias: &'a [f32]) -> NormParameters<'a> {
        NormParameters {
            bias,
            scale: &self.scale,
            shift: &self.shift,
        }
    }
}

/// What the products behind the first layer are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    Exact,
    /// Inputs and weights rounded to bfloat16, sums in 32-bit floats: about twice as fast where the processor has AVX-512
    /// BF16, slower elsewhere.
    Fast,
}

impl Precision {
    /// Packs a kernel `[inner, columns]` into the memory of `packed`.
    pub(crate) fn pack(self, packed: &mut PackedMatrix, kernel: &[f32], (inner, columns): (usize, usize)) {
        match self {
            Self::Exact => packed.pack(kernel, inner, columns),
            Self::Fast => packed.pack_pairs(kernel, inner, columns),
        }
    }

    /// Rows of the packed kernel that takes `width` numbers.
    fn lanes(self, width: usize) -> usize {
        match self {
            Self::Exact => width,
            Self::Fast => width.div_ceil(Pairs::IN_A_LANE),
        }
    }
}

/// A network: hidden layers (the first one's kernel is x's part alone) and the head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrunkView<'a> {
    pub(crate) first: &'a PackedLayer,
    /// In place of the first layer's own bias.
    pub(crate) first_bias: &'a [f32],
    pub(crate) layers: &'a [PackedLayer],
    pub(crate) head: &'a PackedMatrix,
    pub(crate) head_bias: &'a [f32],
    /// How all kernels but the first one's are packed.
    pub(crate) precision: Precision,
}

/// Rows and their inputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowBlock<'a> {
    /// `[G K, A]`.
    pub(crate) x: &'a [f32],
    /// The observations' share of layer 1, `[G, H]`.
    pub(crate) share: &'a [f32],
    /// K.
    pub(crate) group: usize,
}

/// What becomes of the head's outputs.
#[derive(Debug)]
pub(crate) enum Output<'a> {
    /// Outputs with bias, `[G K, O]`.
    Heads(&'a mut [f32]),
    /// Expected values.
    Value {
        /// `[G K]`.
        out: &'a mut [f32],
        /// Atoms relative to the middle one.
        offsets: &'a [f32],
        /// Lowest atom and distance of two atoms.
        support: (f32, f32),
    },
}

/// Memory of one block.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrunkScratch {
    a: Aligned,
    b: Aligned,
}

impl TrunkScratch {
    /// Makes room for layers of this width.
    pub(crate) fn reserve(&mut self, widest: usize) {
        self.a.reserve(MOST_ROWS * padded(widest));
        self.b.reserve(MOST_ROWS * padded(widest));
    }
}

struct Run<'a, 'b, N> {
    trunk: TrunkView<'a>,
    rows: RowBlock<'a>,
    scratch: &'a mut TrunkScratch,
    output: Output<'b>,
    numbers: PhantomData<N>,
}

/// Evaluates `trunk` at all rows.
///
/// # Panics
/// When a slice is too short for the number of rows.
pub(crate) fn run_trunk(
    trunk: TrunkView<'_>,
    rows: RowBlock<'_>,
    scratch: &mut TrunkScratch,
    output: Output<'_>,
) {
    let total = rows.x.len() / trunk.first.kernel.inner().max(1);
    if total == 0 {
        return;
    }
    let width = trunk.first.width();
    let groups = total.div_ceil(rows.group.max(1));
    assert!(
        rows.share.len() >= groups * width,
        "{groups} rows of the observations' share were expected"
    );
    let mut inner = trunk.first.kernel.columns();
    assert_eq!(
        trunk.first_bias.len(),
        inner,
        "the first layer's kernel and bias differ in width"
    );
    assert_eq!(
        trunk.first.norm(trunk.first_bias).width(),
        inner,
        "the first layer's norm is narrower"
    );
    let mut widest = inner;
    for layer in trunk.layers {
        assert_eq!(
            layer.kernel.inner(),
            trunk.precision.lanes(inner),
            "a layer does not take what the one before gives"
        );
        inner = layer.kernel.columns();
        assert_eq!(
            layer.norm(&layer.bias).width(),
            inner,
            "a layer's kernel and norm differ in width"
        );
        widest = widest.max(inner);
    }
    assert_eq!(
        trunk.head.inner(),
        trunk.precision.lanes(inner),
        "the head does not take what the last layer gives"
    );
    assert_eq!(
        trunk.head.columns(),
        trunk.head_bias.len(),
        "the head's kernel and bias differ in width"
    );
    scratch.reserve(widest.max(trunk.head.columns()));
    match &output {
        Output::Heads(out) => assert!(
            out.len() >= total * trunk.head.columns(),
            "{total} rows of results expected"
        ),
        Output::Value { out, offsets, .. } => {
            assert!(
                out.len() >= total && offsets.len() >= trunk.head.columns(),
                "{total} values expected"
            );
        }
    }
    match trunk.precision {
        Precision::Exact => dispatch(Run {
            trunk,
            rows,
            scratch,
            output,
            numbers: PhantomData::<Singles>,
        }),
        Precision::Fast => dispatch(Run {
            trunk,
            rows,
            scratch,
            output,
            numbers: PhantomData::<Pairs>,
        }),
    }
}

impl<N: Numbers + Leave> Kernel for Run<'_, '_, N> {
    const HALVES: bool = N::IN_A_LANE > 1;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let total = self.rows.x.len() / self.trunk.first.kernel.inner();
        let mut row = 0;
        while row < total {
            let count = (BLOCK * S::TILE_ROWS).min(total - row);
            // SAFETY: `run_trunk` has checked every size, and made room for MOST_ROWS >= BLOCK * TILE_ROWS rows.
            unsafe { self.block(s, row, count) };
            row += count;
        }
    }
}

impl<N: Numbers + Leave> Run<'_, '_, N> {
    /// Rows `row..row + count`.
    ///
    /// # Safety
    /// [`run_trunk`] has checked the sizes of networks, inputs and results and reserved the scratch for them; the rows lie
    /// within its total, and `count` is at most [`MOST_ROWS`].
    #[inline(always)]
    unsafe fn block<S: Simd>(&mut self, s: S, row: usize, count: usize) {
        let (mut a, mut b) = (
            self.scratch.a.as_mut_slice().as_mut_ptr(),
            self.scratch.b.as_mut_slice().as_mut_ptr(),
        );
        let first = self.trunk.first;
        let inner = first.kernel.inner();
        let mut stride = padded(first.kernel.columns());
        // SAFETY: by contract `x` holds `total x inner` numbers and `row + count <= total`; `a` and `b` hold MOST_ROWS rows of
        // the widest layer with its padding and are different buffers; `share` holds a row for each group; each layer takes
        // as many lanes as the one before has left, and its norm is as wide as its kernel.
        unsafe {
            let x = Left {
                start: self.rows.x.as_ptr().add(row * inner),
                row_stride: inner,
                inner_stride: 1,
            };
            product_rows::<S, Singles>(s, x, count, &first.kernel, Target { start: a, stride });
            let norm = first.norm(self.trunk.first_bias);
            let (share, group, width) = (self.rows.share.as_ptr(), self.rows.group, norm.width());
            let of_row = |r: usize| Some(share.add((row + r) / group * width));
            norm_gelu_rows::<S, N>(s, (a, stride, count), of_row, norm);
            for layer in self.trunk.layers {
                let next = padded(layer.kernel.columns());
                let left = Left {
                    start: a,
                    row_stride: stride,
                    inner_stride: 1,
                };
                product_rows::<S, N>(
                    s,
                    left,
                    count,
                    &layer.kernel,
                    Target {
                        start: b,
                        stride: next,
                    },
                );
                norm_gelu_rows::<S, N>(s, (b, next, count), |_| None, layer.norm(&layer.bias));
                std::mem::swap(&mut a, &mut b);
                stride = next;
            }
            let left = Left {
                start: a,
                row_stride: stride,
                inner_stride: 1,
            };
            let head = self.trunk.head;
            let next = padded(head.columns());
            product_rows::<S, N>(
                s,
                left,
                count,
                head,
                Target {
                    start: b,
                    stride: next,
                },
            );
            self.emit(s, row, count, (b, next));
        }
    }

    /// What becomes of the head's results for the rows `row..row + count`.
    ///
    /// # Safety
    /// `heads` is readable and writable for `count` rows, `stride` apart, each as long as the head's bias, and nobody else
    /// holds them; [`run_trunk`] has checked the offsets.
    #[inline(always)]
    unsafe fn emit<S: Simd>(&mut self, s: S, row: usize, count: usize, (heads, stride): (*mut f32, usize)) {
        let bias = self.trunk.head_bias;
        for r in 0..count {
            // SAFETY: by contract `heads` holds `count` rows as long as the bias, which are nobody else's.
            let head = unsafe { std::slice::from_raw_parts_mut(heads.add(r * stride), bias.len()) };
            match &mut self.output {
                Output::Heads(out) => {
                    let out = &mut out[(row + r) * bias.len()..][..bias.len()];
                    for ((o, h), b) in out.iter_mut().zip(head).zip(bias) {
                        *o = *h + b;
                    }
                }
                Output::Value {
                    out,
                    offsets,
                    support,
                } => {
                    // SAFETY: the row is as long as the bias, and `run_trunk` has checked that the offsets are no shorter.
                    out[row + r] =
                        unsafe { expected_value_row(s, head.as_mut_ptr(), bias, offsets, *support) };
                }
            }
        }
    }
}
