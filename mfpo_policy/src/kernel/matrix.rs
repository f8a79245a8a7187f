//! Matrix products with the right-hand side packed once: `out = a b`.
//!
//! b `[K, N]` lies in panels as wide as a tile, each panel row by row, so that a product reads it front to back. A tile of
//! `TILE_ROWS` x 2 vectors stays in registers over the whole of K, and a panel in the first-level cache while the tiles of a
//! block of rows go past it. Every element of `out` is one sum over K in a fixed order that depends on neither the number
//! of rows (above three), nor the number of threads, nor the panel's width.

#[cfg(target_arch = "x86_64")]
mod parts;

use super::simd::Simd;
use super::{InstructionSet, half};

#[cfg(target_arch = "x86_64")]
pub(crate) use parts::{Parts, TILE, part_lanes};

/// What a product multiplies and how it sums.
pub(crate) trait Numbers: Copy {
    /// Numbers of the left-hand side and of a column of the right-hand side that one 32-bit lane holds.
    const IN_A_LANE: usize;
    /// `c + a b` in each lane; where a lane holds several numbers, their products are summed.
    fn multiply_add<S: Simd>(s: S, a: S::V, b: S::V, c: S::V) -> S::V;
}

/// 32-bit floats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Singles;

/// Pairs of neighbours as bfloat16, summed in 32-bit floats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pairs;

impl Numbers for Singles {
    const IN_A_LANE: usize = 1;
    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, a: S::V, b: S::V, c: S::V) -> S::V {
        s.fma(a, b, c)
    }
}

impl Numbers for Pairs {
    const IN_A_LANE: usize = 2;
    #[inline(always)]
    fn multiply_add<S: Simd>(s: S, a: S::V, b: S::V, c: S::V) -> S::V {
        s.multiply_add_pairs(a, b, c)
    }
}

/// The last panel is padded to a multiple of this.
const HALF: usize = 16;
/// Tiles of a block of rows.
pub(crate) const BLOCK: usize = 4;
/// Rows of a panel that are transposed at a time: a cache line of each of the matrix's rows.
const STRIP: usize = 16;

/// Sixteen numbers of one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Numbers that begin on a cache line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Aligned {
    lines: Vec<Line>,
}

impl Aligned {
    /// Makes room for `n` numbers; what is in there stays, new ones are 0.
    pub(crate) fn reserve(&mut self, n: usize) {
        if self.lines.len() * 16 < n {
            self.lines.resize(n.div_ceil(16), Line([0.0; 16]));
        }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: a Line is 16 floats without padding (repr(C), 64 bytes), so that the lines are 16 times as many
        // initialised floats, borrowed for as long as `self`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 16) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_slice`; the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * 16) }
    }
}

/// Columns with the padding of the last panel.
pub(crate) const fn padded(columns: usize) -> usize {
    columns.div_ceil(HALF) * HALF
}

/// A matrix `[K, N]` packed to be multiplied from the left.
#[derive(Debug, Clone, Default)]
pub struct PackedMatrix {
    inner: usize,
    columns: usize,
    /// Columns of a panel; two vectors of the instructions that this process runs with.
    panel: usize,
    data: Aligned,
}

impl PackedMatrix {
    /// Packs the row-major `matrix` `[inner, columns]`.
    ///
    /// # Panics
    /// When it holds another number of elements.
    pub fn new(matrix: &[f32], inner: usize, columns: usize) -> Self {
        let mut packed = Self::default();
        packed.pack(matrix, inner, columns);
        packed
    }

    /// Packs the transpose of the row-major `matrix` `[columns, inner]`.
    ///
    /// # Panics
    /// When it holds another number of elements.
    pub fn transposed(matrix: &[f32], inner: usize, columns: usize) -> Self {
        let mut packed = Self::default();
        packed.pack_transposed(matrix, inner, columns);
        packed
    }

    /// [`PackedMatrix::new`] into the memory that is there.
    ///
    /// # Panics
    /// When `matrix` holds another number of elements.
    pub fn pack(&mut self, matrix: &[f32], inner: usize, columns: usize) {
        assert_eq!(
            matrix.len(),
            inner * columns,
            "a matrix of {inner}x{columns} was expected"
        );
        self.resize(inner, columns);
        let panel = self.panel;
        let data = self.data.as_mut_slice();
        for first in (0..padded(columns)).step_by(panel) {
            let (start, width) = panel_of(first, (inner, columns, panel));
            let (first, end) = (first.min(columns), (first + width).min(columns));
            for (k, row) in data[start..][..inner * width].chunks_exact_mut(width).enumerate() {
                let (row, padding) = row.split_at_mut(end - first);
                copy_row(row, &matrix[k * columns..][first..end]);
                padding.fill(0.0);
            }
        }
    }

    /// [`PackedMatrix::transposed`] into the memory that is there.
    ///
    /// # Panics
    /// When `matrix` holds another number of elements.
    pub fn pack_transposed(&mut self, matrix: &[f32], inner: usize, columns: usize) {
        assert_eq!(
            matrix.len(),
            inner * columns,
            "a matrix of {columns}x{inner} was expected"
        );
        self.resize(inner, columns);
        let panel = self.panel;
        let data = self.data.as_mut_slice();
        for first in (0..padded(columns)).step_by(panel) {
            let (start, width) = panel_of(first, (inner, columns, panel));
            // A strip of the panel's rows stays in the nearest cache while a column after another is written into it.
            let strips = data[start..][..inner * width].chunks_mut(STRIP * width);
            for (strip, k) in strips.zip((0..inner).step_by(STRIP)) {
                for c in 0..width {
                    let column = strip[c..].iter_mut().step_by(width);
                    if first + c < columns {
                        let from = &matrix[(first + c) * inner + k..];
                        column.zip(from).for_each(|(to, value)| *to = *value);
                    } else {
                        column.for_each(|to| *to = 0.0);
                    }
                }
            }
        }
    }

    /// Packs the row-major `matrix` `[inner, columns]` rounded to bfloat16, two neighbouring rows in one, into the memory that is
    /// there: the packed matrix has `ceil(inner / 2)` rows of [`Pairs`].
    ///
    /// # Panics
    /// When it holds another number of elements.
    pub(crate) fn pack_pairs(&mut self, matrix: &[f32], inner: usize, columns: usize) {
        assert_eq!(
            matrix.len(),
            inner * columns,
            "a matrix of {inner}x{columns} was expected"
        );
        let mut paired = Vec::with_capacity(inner.div_ceil(2) * columns);
        for rows in matrix.chunks(2 * columns) {
            let (first, second) = rows.split_at(columns);
            let second = second.iter().copied().chain(std::iter::repeat(0.0));
            paired.extend(first.iter().zip(second).map(|(a, b)| half::pair(*a, b)));
        }
        self.pack(&paired, inner.div_ceil(2), columns);
    }

    /// What is in the memory stays; who packs writes all of it, the padding, too.
    fn resize(&mut self, inner: usize, columns: usize) {
        (self.inner, self.columns) = (inner, columns);
        self.panel = 2 * InstructionSet::detect().shape().0;
        self.data.reserve(inner * padded(columns));
    }

    /// The row-major matrix, as it was before it was packed.
    pub(crate) fn unpacked(&self) -> Vec<f32> {
        let (inner, columns, panel) = (self.inner, self.columns, self.panel);
        let data = self.data.as_slice();
        let mut matrix = Vec::with_capacity(inner * columns);
        for k in 0..inner {
            for first in (0..columns).step_by(panel) {
                let (start, width) = panel_of(first, (inner, columns, panel));
                let count = panel.min(columns - first);
                matrix.extend_from_slice(&data[start + k * width..][..count]);
            }
        }
        matrix
    }

    /// The packed numbers themselves, to damage one.
    #[cfg(test)]
    pub(crate) fn packed_mut(&mut self) -> &mut [f32] {
        self.data.as_mut_slice()
    }

    /// K, the rows of the matrix.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// N.
    pub fn columns(&self) -> usize {
        self.columns
    }
}

/// Copies a row of a panel; those of whole panels have lengths that the compiler knows, and need no call.
fn copy_row(to: &mut [f32], from: &[f32]) {
    match to.len() {
        32 => to[..32].copy_from_slice(&from[..32]),
        16 => to[..16].copy_from_slice(&from[..16]),
        _ => to.copy_from_slice(from),
    }
}

/// Where the panel of column `c` starts, and its width.
fn panel_of(c: usize, (inner, columns, panel): (usize, usize, usize)) -> (usize, usize) {
    let first = c / panel * panel;
    (first * inner, panel.min(padded(columns) - first))
}

/// The left-hand side: element `(row, k)` is at `row * row_stride + k * inner_stride`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    pub(crate) start: *const f32,
    pub(crate) row_stride: usize,
    pub(crate) inner_stride: usize,
}

impl Left {
    /// Rows `row..`.
    ///
    /// # Safety
    /// There is such a row.
    #[inline(always)]
    unsafe fn at_row(self, row: usize) -> Self {
        Self {
            // SAFETY: the caller's promise.
            start: unsafe { self.start.add(row * self.row_stride) },
            ..self
        }
    }
}

/// Where results go: element `(row, c)` is at `row * stride + c`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) start: *mut f32,
    pub(crate) stride: usize,
}

impl Target {
    /// What begins at `(row, column)`.
    ///
    /// # Safety
    /// There is such a row, and a column behind which something may be written or the last one's end.
    #[inline(always)]
    pub(crate) unsafe fn at(self, row: usize, column: usize) -> Self {
        Self {
            // SAFETY: the caller's promise.
            start: unsafe { self.start.add(row * self.stride + column) },
            ..self
        }
    }
}

/// `out = a b` for `rows` rows; `a` and `b` hold the lanes of `N`.
///
/// # Safety
/// `a` is readable for `rows` rows of `b.inner()` lanes; `out` is writable for `rows` rows of `b.columns()` elements,
/// or of `padded(b.columns())` where the stride is at least that (the padding is then written with zeros); they do not
/// overlap.
#[inline(always)]
pub(crate) unsafe fn product_rows<S: Simd, N: Numbers>(
    s: S,
    a: Left,
    rows: usize,
    b: &PackedMatrix,
    out: Target,
) {
    let whole = padded(b.columns);
    let limit = if out.stride >= whole { whole } else { b.columns };
    let mut row = 0;
    while row < rows {
        let count = (BLOCK * S::TILE_ROWS).min(rows - row);
        // SAFETY: `row < rows`, and the caller's promise for these `count <= rows - row` rows.
        unsafe { block::<S, N>(s, a.at_row(row), count, b, out.at(row, 0), limit) };
        row += count;
    }
}

/// One block of rows over all panels: each piece of a panel is read from afar once, for all tiles of the block.
///
/// # Safety
/// `a` is readable for `rows` rows of `b.inner()` lanes; `out` is writable for `rows` rows of `limit` numbers, which is at most
/// `padded(b.columns())`; they do not overlap.
#[inline(always)]
unsafe fn block<S: Simd, N: Numbers>(
    s: S,
    a: Left,
    rows: usize,
    b: &PackedMatrix,
    out: Target,
    limit: usize,
) {
    let whole = padded(b.columns);
    let data = b.data.as_slice().as_ptr();
    let mut first = 0;
    while first < whole {
        let width = b.panel.min(whole - first);
        let mut offset = 0;
        while offset < width {
            let vectors = if offset + 2 * S::LANES <= width { 2 } else { 1 };
            let column = first + offset;
            let piece = Piece {
                inner: b.inner,
                // SAFETY: the panel starts at `first * inner`; `offset < width` lies in its first row.
                panel: unsafe { data.add(first * b.inner + offset) },
                stride: width,
                limit: limit.saturating_sub(column),
            };
            let mut row = 0;
            while row < rows {
                let count = S::TILE_ROWS.min(rows - row);
                // SAFETY: `row < rows` and `1 <= count <= rows - row`, for which the caller keeps `a` and `out` valid, and
                // no tile has more than twelve rows. A row of `out` may be written up to `limit`, and a piece that begins
                // behind it writes nothing. The piece's vectors end inside the panel: its width is a multiple of LANES,
                // `offset + vectors * LANES <= width`, and it has `inner` rows.
                unsafe {
                    let (a, out) = (a.at_row(row), out.at(row, column.min(limit)));
                    if vectors == 2 {
                        rows_of_tile::<S, N, 2>(s, a, count, piece, out);
                    } else {
                        rows_of_tile::<S, N, 1>(s, a, count, piece, out);
                    }
                }
                row += count;
            }
            offset += vectors * S::LANES;
        }
        first += width;
    }
}

/// Some columns of a panel: as many vectors as the tile has, in each of `inner` rows.
#[derive(Clone, Copy)]
struct Piece {
    inner: usize,
    panel: *const f32,
    /// Numbers from one row of the panel to the next.
    stride: usize,
    /// Columns that may be written.
    limit: usize,
}

/// The tile of `rows` rows.
///
/// # Safety
/// `rows` is 1 to 12; else as [`tile`], for so many rows.
#[inline(always)]
unsafe fn rows_of_tile<S: Simd, N: Numbers, const C: usize>(
    s: S,
    a: Left,
    rows: usize,
    b: Piece,
    out: Target,
) {
    // SAFETY: the caller keeps `rows` rows valid, and each arm reads and writes exactly so many: the last one is 12, because
    // there are no more.
    unsafe {
        match rows {
            // Sixteen sums in registers, or what is nearest to it.
            1 if S::REGISTERS > 1 => tile_of_few::<S, N, 1, C, 4>(s, a, b, out),
            2 if S::REGISTERS > 1 => tile_of_few::<S, N, 2, C, 2>(s, a, b, out),
            3 if S::REGISTERS > 1 => tile::<S, N, 3, C>(s, a, b, out),
            1 => tile_of_few::<S, N, 1, C, 8>(s, a, b, out),
            2 => tile_of_few::<S, N, 2, C, 4>(s, a, b, out),
            3 => tile_of_few::<S, N, 3, C, 2>(s, a, b, out),
            4 => tile::<S, N, 4, C>(s, a, b, out),
            5 => tile::<S, N, 5, C>(s, a, b, out),
            6 => tile::<S, N, 6, C>(s, a, b, out),
            7 => tile::<S, N, 7, C>(s, a, b, out),
            8 => tile::<S, N, 8, C>(s, a, b, out),
            9 => tile::<S, N, 9, C>(s, a, b, out),
            10 => tile::<S, N, 10, C>(s, a, b, out),
            11 => tile::<S, N, 11, C>(s, a, b, out),
            _ => tile::<S, N, 12, C>(s, a, b, out),
        }
    }
}

/// `R x C` vectors of results, all kept in registers.
///
/// # Safety
/// `a` is readable for R rows of `b.inner` lanes, and `b.panel` for `b.inner` rows of C vectors, `b.stride` numbers apart; `out`
/// is writable for R rows of `b.limit` numbers, or of C vectors where that is less; it overlaps neither.
#[inline(always)]
unsafe fn tile<S: Simd, N: Numbers, const R: usize, const C: usize>(s: S, a: Left, b: Piece, out: Target) {
    // SAFETY: by contract R rows of `inner` lanes are readable at `a` and `inner` rows of C vectors at `b.panel`; `left` and
    // `right` pass their last row only when nothing is read there any more. What is stored is by contract writable.
    unsafe {
        let mut sums = [[s.splat(0.0); C]; R];
        let (mut left, mut right) = (a.start, b.panel);
        for _ in 0..b.inner {
            let mut columns = [s.splat(0.0); C];
            for (c, column) in columns.iter_mut().enumerate() {
                *column = s.load(right.add(c * S::LANES));
            }
            for (r, sum) in sums.iter_mut().enumerate() {
                let x = s.splat(*left.add(r * a.row_stride));
                for c in 0..C {
                    sum[c] = N::multiply_add(s, x, columns[c], sum[c]);
                }
            }
            left = left.wrapping_add(a.inner_stride);
            right = right.wrapping_add(b.stride);
        }
        for (r, sum) in sums.iter().enumerate() {
            store(s, out.start.add(r * out.stride), sum, b.limit);
        }
    }
}

/// [`tile`] for a few rows: U partial sums hide the latency of the additions.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn tile_of_few<S: Simd, N: Numbers, const R: usize, const C: usize, const U: usize>(
    s: S,
    a: Left,
    b: Piece,
    out: Target,
) {
    // SAFETY: as in `tile`; the main loop takes U rows of the panel at a time while so many are left.
    unsafe {
        let mut sums = [[[s.splat(0.0); C]; R]; U];
        let whole = b.inner - b.inner % U;
        let (mut left, mut right) = (a.start, b.panel);
        let mut k = 0;
        while k < b.inner {
            let count = if k < whole { U } else { 1 };
            for (u, sums) in sums.iter_mut().enumerate().take(count) {
                for (r, sum) in sums.iter_mut().enumerate() {
                    let x = s.splat(
                        *left
                            .wrapping_add(u * a.inner_stride)
                            .wrapping_add(r * a.row_stride),
                    );
                    for (c, sum) in sum.iter_mut().enumerate() {
                        let column = s.load(right.wrapping_add(u * b.stride + c * S::LANES));
                        *sum = N::multiply_add(s, x, column, *sum);
                    }
                }
            }
            k += count;
            left = left.wrapping_add(count * a.inner_stride);
            right = right.wrapping_add(count * b.stride);
        }
        for r in 0..R {
            let mut sum = sums[0][r];
            for other in &sums[1..] {
                for c in 0..C {
                    sum[c] = s.add(sum[c], other[r][c]);
                }
            }
            store(s, out.start.add(r * out.stride), &sum, b.limit);
        }
    }
}

/// Writes the first `limit` numbers of `sum`.
///
/// # Safety
/// `out` is writable for `limit` numbers, or for C vectors where that is less.
#[inline(always)]
unsafe fn store<S: Simd, const C: usize>(s: S, out: *mut f32, sum: &[S::V; C], limit: usize) {
    for (c, v) in sum.iter().enumerate() {
        let start = c * S::LANES;
        // SAFETY: by contract; a vector is written whole where all of it lies before `limit`, else up to there.
        unsafe {
            if start + S::LANES <= limit {
                s.store(out.add(start), *v);
            } else if start < limit {
                s.store_part(out.add(start), *v, limit - start);
            }
        }
    }
}
