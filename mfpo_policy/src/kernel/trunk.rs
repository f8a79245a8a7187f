//! All layers of a network for a block of rows that stays in the near caches.
//!
//! A block of a product goes through every layer before the next one starts: the weights stream past it once, and what
//! lies between two layers never leaves the cache.

use serde::{Deserialize, Serialize};

use super::activation::{Leave, NormParameters, expected_value_row, norm_gelu_rows};
use super::matrix::{
    Aligned, BLOCK, Left, Numbers, PackedMatrix, Pairs, Singles, Target, padded, product_rows,
};
#[cfg(target_arch = "x86_64")]
use super::matrix::{Parts, part_lanes};
use super::simd::Simd;
#[cfg(target_arch = "x86_64")]
use super::tiles::{self, Tiles};
use super::{Kernel, dispatch};

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
    /// With the accuracy of 32-bit floats, for many rows: where the processor has AMX each number is split into three
    /// bfloat16 (see the module `tiles`), elsewhere it is [`Precision::Exact`].
    #[serde(skip)]
    Split,
    /// Inputs and weights rounded to bfloat16, sums in 32-bit floats: faster where the processor has AMX, or is AMD's with
    /// AVX-512 BF16, slower elsewhere.
    Fast,
}

impl Precision {
    /// The fastest one of the same accuracy for evaluations of many rows at a time.
    pub fn for_many_rows(self) -> Self {
        match self {
            Self::Exact => Self::Split,
            other => other,
        }
    }
}

/// How a kernel lies in memory, and what multiplies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Singles,
    Pairs,
    /// One part, for tiles.
    #[cfg(target_arch = "x86_64")]
    Halves,
    /// Three parts, for tiles.
    #[cfg(target_arch = "x86_64")]
    Thirds,
}

impl Packing {
    /// The one for this process.
    pub(crate) fn of(precision: Precision) -> Self {
        match precision {
            #[cfg(target_arch = "x86_64")]
            Precision::Split if Tiles::are_there() => Self::Thirds,
            #[cfg(target_arch = "x86_64")]
            Precision::Fast if Tiles::are_there() => Self::Halves,
            Precision::Exact | Precision::Split => Self::Singles,
            Precision::Fast => Self::Pairs,
        }
    }

    /// Packs a kernel `[inner, columns]` into the memory of `packed`.
    pub(crate) fn pack(self, packed: &mut PackedMatrix, kernel: &[f32], (inner, columns): (usize, usize)) {
        match self {
            Self::Singles => packed.pack(kernel, inner, columns),
            Self::Pairs => packed.pack_pairs(kernel, inner, columns),
            #[cfg(target_arch = "x86_64")]
            Self::Halves => packed.pack_parts::<1>(kernel, inner, columns),
            #[cfg(target_arch = "x86_64")]
            Self::Thirds => packed.pack_parts::<3>(kernel, inner, columns),
        }
    }

    /// Rows of the packed kernel that takes `width` numbers.
    fn lanes(self, width: usize) -> usize {
        match self {
            Self::Singles => width,
            Self::Pairs => width.div_ceil(Pairs::IN_A_LANE),
            #[cfg(target_arch = "x86_64")]
            Self::Halves => part_lanes(width),
            #[cfg(target_arch = "x86_64")]
            Self::Thirds => 3 * part_lanes(width),
        }
    }
}

/// How the rows between two layers lie, and what multiplies them.
trait Arithmetic: Leave {
    /// Runs with the instructions for halves.
    const HALVES: bool;
    /// A layer's results become the next one's inputs where they are.
    const IN_PLACE: bool;
    /// What a product needs.
    type Tools;

    /// Gets it ready, for this thread.
    fn tools() -> Option<Self::Tools>;

    /// Rows of a block.
    fn rows<S: Simd>() -> usize;

    /// From one row of `inner` lanes to the next, in a buffer for rows of `width` numbers.
    fn stride(width: usize) -> usize;

    /// `out = a b` for `count` rows; those up to [`Arithmetic::rows`] may be written as well.
    ///
    /// # Safety
    /// `a` is readable for [`Arithmetic::rows`] rows of `b.inner()` lanes; `out` is writable for as many rows of
    /// `padded(b.columns())` numbers, which its stride is at least; they do not overlap.
    unsafe fn product<S: Simd>(
        tools: &Self::Tools,
        s: S,
        a: Left,
        count: usize,
        b: &PackedMatrix,
        out: Target,
    );
}

impl<N: Numbers + Leave> Arithmetic for N {
    const HALVES: bool = N::IN_A_LANE > 1;
    const IN_PLACE: bool = true;
    type Tools = ();

    #[inline(always)]
    fn tools() -> Option<()> {
        Some(())
    }

    #[inline(always)]
    fn rows<S: Simd>() -> usize {
        BLOCK * S::TILE_ROWS
    }

    #[inline(always)]
    fn stride(width: usize) -> usize {
        padded(width)
    }

    #[inline(always)]
    unsafe fn product<S: Simd>((): &(), s: S, a: Left, count: usize, b: &PackedMatrix, out: Target) {
        // SAFETY: the caller's promise, for more rows than these.
        unsafe { product_rows::<S, N>(s, a, count, b, out) }
    }
}

#[cfg(target_arch = "x86_64")]
impl<const N: usize> Arithmetic for Parts<N> {
    const HALVES: bool = true;
    const IN_PLACE: bool = false;
    type Tools = Tiles;

    fn tools() -> Option<Tiles> {
        Tiles::set_up()
    }

    #[inline(always)]
    fn rows<S: Simd>() -> usize {
        tiles::ROWS
    }

    #[inline(always)]
    fn stride(width: usize) -> usize {
        N * part_lanes(width)
    }

    #[inline(always)]
    unsafe fn product<S: Simd>(tools: &Tiles, _: S, a: Left, _: usize, b: &PackedMatrix, out: Target) {
        // SAFETY: the caller's promise.
        unsafe { tiles::product::<N>(tools, a, b, out) }
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
    pub(crate) packing: Packing,
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
    pub(crate) fn reserve(&mut self, widest: usize, packing: Packing) {
        let lanes = padded(widest).max(packing.lanes(widest));
        self.a.reserve(MOST_ROWS * lanes);
        self.b.reserve(MOST_ROWS * padded(widest));
    }
}

struct Run<'a, 'b, N: Arithmetic> {
    trunk: TrunkView<'a>,
    rows: RowBlock<'a>,
    scratch: &'a mut TrunkScratch,
    output: Output<'b>,
    tools: N::Tools,
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
            trunk.packing.lanes(inner),
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
        trunk.packing.lanes(inner),
        "the head does not take what the last layer gives"
    );
    assert_eq!(
        trunk.head.columns(),
        trunk.head_bias.len(),
        "the head's kernel and bias differ in width"
    );
    scratch.reserve(widest.max(trunk.head.columns()), trunk.packing);
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
    match trunk.packing {
        Packing::Singles => run_with::<Singles>(trunk, rows, scratch, output),
        Packing::Pairs => run_with::<Pairs>(trunk, rows, scratch, output),
        #[cfg(target_arch = "x86_64")]
        Packing::Halves => run_with::<Parts<1>>(trunk, rows, scratch, output),
        #[cfg(target_arch = "x86_64")]
        Packing::Thirds => run_with::<Parts<3>>(trunk, rows, scratch, output),
    }
}

fn run_with<N: Arithmetic>(
    trunk: TrunkView<'_>,
    rows: RowBlock<'_>,
    scratch: &mut TrunkScratch,
    output: Output<'_>,
) {
    let Some(tools) = N::tools() else {
        // `Packing::of` chooses none whose tools are not there.
        unreachable!("kernels were packed for what this process does not have");
    };
    dispatch(Run::<N> {
        trunk,
        rows,
        scratch,
        output,
        tools,
    });
}

impl<N: Arithmetic> Kernel for Run<'_, '_, N> {
    const HALVES: bool = N::HALVES;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let total = self.rows.x.len() / self.trunk.first.kernel.inner();
        let mut row = 0;
        while row < total {
            let count = N::rows::<S>().min(total - row);
            // SAFETY: `run_trunk` has checked every size, and made room for MOST_ROWS rows, at least those of a block.
            unsafe { self.block(s, row, count) };
            row += count;
        }
    }
}

impl<N: Arithmetic> Run<'_, '_, N> {
    /// Rows `row..row + count`.
    ///
    /// # Safety
    /// [`run_trunk`] has checked the sizes of networks, inputs and results and reserved the scratch for them; the rows lie
    /// within its total, and `count` is at most [`Arithmetic::rows`].
    #[inline(always)]
    unsafe fn block<S: Simd>(&mut self, s: S, row: usize, count: usize) {
        // A layer's inputs, and its results.
        let (mut a, mut b) = (
            self.scratch.a.as_mut_slice().as_mut_ptr(),
            self.scratch.b.as_mut_slice().as_mut_ptr(),
        );
        let first = self.trunk.first;
        let (inner, mut width) = (first.kernel.inner(), first.kernel.columns());
        // SAFETY: by contract `x` holds `total x inner` numbers and `row + count <= total`; `a` and `b` hold MOST_ROWS rows of
        // the widest layer with its padding, `a` also of its lanes, and are different buffers; only those who work in place
        // swap them, and their lanes are no more than the padded width. `share` holds a row for each group; each layer takes
        // as many lanes as the one before has left, and its norm is as wide as its kernel.
        unsafe {
            let x = Left {
                start: self.rows.x.as_ptr().add(row * inner),
                row_stride: inner,
                inner_stride: 1,
            };
            let results = |start: *mut f32, width: usize| Target {
                start,
                stride: padded(width),
            };
            let inputs = |start: *mut f32, width: usize| Target {
                start,
                stride: N::stride(width),
            };
            product_rows::<S, Singles>(s, x, count, &first.kernel, results(b, width));
            let norm = first.norm(self.trunk.first_bias);
            let (share, group) = (self.rows.share.as_ptr(), self.rows.group);
            let of_row = |r: usize| Some(share.add((row + r) / group * width));
            let mut layers = self.trunk.layers.iter();
            let into = if N::IN_PLACE { b } else { a };
            norm_gelu_rows::<S, N>(s, (results(b, width), inputs(into, width)), count, of_row, norm);
            loop {
                if N::IN_PLACE {
                    std::mem::swap(&mut a, &mut b);
                }
                let left = Left {
                    start: a,
                    row_stride: N::stride(width),
                    inner_stride: 1,
                };
                let Some(layer) = layers.next() else {
                    let head = self.trunk.head;
                    let heads = results(b, head.columns());
                    N::product(&self.tools, s, left, count, head, heads);
                    self.emit(s, row, count, (heads.start, heads.stride));
                    return;
                };
                width = layer.kernel.columns();
                N::product(&self.tools, s, left, count, &layer.kernel, results(b, width));
                let into = if N::IN_PLACE { b } else { a };
                let places = (results(b, width), inputs(into, width));
                norm_gelu_rows::<S, N>(s, places, count, |_| None, layer.norm(&layer.bias));
            }
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
