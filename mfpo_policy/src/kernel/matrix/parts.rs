//! Numbers in parts: how matrices are packed, and activations left, for the tiles of AMX ([`super::super::tiles`]).

use super::super::activation::{Leave, gelu, rough_gelu};
use super::super::simd::Simd;
use super::super::{Kernel, dispatch, half};
use super::{PackedMatrix, padded, panel_of};

/// Numbers as sums of `N` bfloat16, in pairs of neighbours: N parts one behind the other, each padded to whole tiles of AMX
/// (see [`super::super::tiles`]).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<const N: usize>;

/// Rows, columns and lanes of a tile of AMX.
pub(crate) const TILE: usize = 16;

/// Lanes of one of the [`Parts`] of `width` numbers.
pub(crate) const fn part_lanes(width: usize) -> usize {
    width.div_ceil(2 * TILE) * TILE
}

/// The widest panel of any instruction set: two vectors.
const MOST_PANEL: usize = 32;

impl PackedMatrix {
    /// Packs the row-major `matrix` `[inner, columns]` split into `N` [`Parts`] into the memory that is there: the packed matrix has
    /// `N part_lanes(inner)` rows of pairs.
    ///
    /// # Panics
    /// When it holds another number of elements.
    pub(crate) fn pack_parts<const N: usize>(&mut self, matrix: &[f32], inner: usize, columns: usize) {
        assert_eq!(
            matrix.len(),
            inner * columns,
            "a matrix of {inner}x{columns} was expected"
        );
        let lanes = part_lanes(inner);
        self.resize(N * lanes, columns);
        dispatch(Split::<N> {
            matrix,
            columns,
            lanes,
            packed: self,
        });
    }

    /// Where the panel begins that begins with column `first`, and its width.
    pub(crate) fn panel_at(&self, first: usize) -> (*const f32, usize) {
        let (start, width) = panel_of(first, (self.inner, self.columns, self.panel));
        (
            self.data.as_slice()[start..][..self.inner * width].as_ptr(),
            width,
        )
    }
}

/// A matrix that is packed in parts.
struct Split<'a, const N: usize> {
    /// `[inner, columns]`.
    matrix: &'a [f32],
    columns: usize,
    lanes: usize,
    packed: &'a mut PackedMatrix,
}

impl<const N: usize> Kernel for Split<'_, N> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self {
            matrix,
            columns,
            lanes,
            packed,
        } = self;
        let shape = (packed.inner, columns, packed.panel);
        let data = packed.data.as_mut_slice();
        // Two rows as wide as a panel at most, and what is left of them.
        let mut rest = [[0.0f32; MOST_PANEL]; 2];
        for first in (0..padded(columns)).step_by(shape.2) {
            let (start, width) = panel_of(first, shape);
            let (first, end) = (first.min(columns), (first + width).min(columns));
            let panel = &mut data[start..][..N * lanes * width];
            for lane in 0..lanes {
                for (row, rest) in rest.iter_mut().enumerate() {
                    rest.fill(0.0);
                    let from = (2 * lane + row) * columns;
                    if from < matrix.len() {
                        rest[..end - first].copy_from_slice(&matrix[from..][first..end]);
                    }
                }
                for part in 0..N {
                    let to = &mut panel[(part * lanes + lane) * width..][..width];
                    let [one, two] = &mut rest;
                    for ((to, one), two) in to.iter_mut().zip(one).zip(two) {
                        let halves = (half::rounded(*one), half::rounded(*two));
                        *to = half::lane(halves.0, halves.1);
                        (*one, *two) = (*one - half::widened(halves.0), *two - half::widened(halves.1));
                    }
                }
            }
        }
    }
}

impl<const N: usize> Leave for Parts<N> {
    #[inline(always)]
    fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
        if N == 1 { rough_gelu(s, x) } else { gelu(s, x) }
    }
    #[inline(always)]
    unsafe fn leave<S: Simd>(s: S, row: *mut f32, c: usize, width: usize, v: S::V) {
        let halves = 2 * part_lanes(width);
        // Rounding to the upper 8 bits by this factor leaves what is beside them, both without an error.
        let upper = s.splat(65_537.0);
        let mut rest = v;
        for part in 0..N {
            // SAFETY: the contract of `Leave::leave`: the row holds N parts of `halves`, a multiple of every vector's length.
            unsafe {
                let part = row.cast::<u16>().add(part * halves);
                let high = if N == 1 {
                    rest
                } else {
                    let scaled = s.mul(rest, upper);
                    s.sub(scaled, s.sub(scaled, rest))
                };
                s.store_halves(part.add(c), high);
                rest = s.sub(rest, high);
                let end = c + S::LANES;
                if end >= width {
                    for behind in (end..halves).step_by(S::LANES) {
                        s.store_halves(part.add(behind), s.splat(0.0));
                    }
                }
            }
        }
    }
}
