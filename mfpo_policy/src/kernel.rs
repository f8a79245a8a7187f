//! The arithmetic of the networks on CPU slices: matrix products, and bias + LayerNorm + tanh-GELU in one pass.
//!
//! Each routine is one generic function, compiled for AVX-512, for AVX2 with FMA and for the build's baseline; the
//! best one that the processor has is chosen at run time. All are single-threaded and allocate nothing, except that
//! the matrix product of more than one row uses the packing buffers of the `gemm` crate.
//!
//! Shapes: `x[r][c]` is row-major and dense. LayerNorm is over a row: `n = (x - E[x]) / sqrt(E[x^2] - E[x]^2 + eps)`.

use std::sync::OnceLock;

/// LayerNorm's epsilon, as in flax.
pub const LAYER_NORM_EPSILON: f32 = 1e-6;
/// `2 sqrt(2 / pi)`: the tanh form of GELU written with the logistic function, `x * sigmoid(GELU_A (x + GELU_B x^3))`.
const GELU_A: f32 = 1.595_769;
const GELU_B: f32 = 0.044_715;
/// Width of the partial sums: one AVX-512 register.
const LANES: usize = 16;

/// The instruction set that the routines of this file run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// What the build's target guarantees.
    Baseline,
}

impl InstructionSet {
    /// The best one that this processor has, found once. `MFPO_KERNEL=avx2|baseline` asks for a lower one.
    pub fn detect() -> Self {
        static FOUND: OnceLock<InstructionSet> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let asked = std::env::var("MFPO_KERNEL").unwrap_or_default();
            let best = Self::of_processor();
            match asked.as_str() {
                "baseline" => Self::Baseline,
                "avx2" if best == Self::Avx512 => Self::Avx2,
                _ => best,
            }
        })
    }

    #[cfg(target_arch = "x86_64")]
    fn of_processor() -> Self {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            Self::Avx512
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            Self::Avx2
        } else {
            Self::Baseline
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of_processor() -> Self {
        Self::Baseline
    }

    /// Name for records: two computers with the same name compute the same bits.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Baseline => "baseline",
        }
    }
}

/// Whether `a * b + c` is one instruction; without it `f32::mul_add` would call the C library.
trait Arithmetic {
    fn fma(a: f32, b: f32, c: f32) -> f32;
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
struct Fused;
#[cfg_attr(target_arch = "aarch64", allow(dead_code))]
struct Separate;

impl Arithmetic for Fused {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl Arithmetic for Separate {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// Makes a function that picks the compiled variant of a generic one.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $generic:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[allow(clippy::too_many_arguments)]
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { $generic::<Fused>($($arg),*) }
                #[allow(clippy::too_many_arguments)]
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { $generic::<Fused>($($arg),*) }
                match InstructionSet::detect() {
                    // SAFETY: `detect` returns this value only where the processor has the enabled features.
                    InstructionSet::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    InstructionSet::Avx2 => return unsafe { avx2($($arg),*) },
                    InstructionSet::Baseline => {}
                }
            }
            #[cfg(target_arch = "aarch64")]
            { $generic::<Fused>($($arg),*) }
            #[cfg(not(target_arch = "aarch64"))]
            { $generic::<Separate>($($arg),*) }
        }
    };
}

/// `e^x` to about one unit in the last place for `x` in `[-87, 88]`, clamped outside; branch-free.
#[inline(always)]
fn exp<M: Arithmetic>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to the nearest integer
    let x = x.clamp(-87.0, 88.0);
    let shifted = M::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = M::fma(n, -0.693_359_4, x);
    let r = M::fma(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_2e-4;
    p = M::fma(p, r, 1.398_199_9e-3);
    p = M::fma(p, r, 8.333_452e-3);
    p = M::fma(p, r, 4.166_579_6e-2);
    p = M::fma(p, r, 1.666_666_5e-1);
    p = M::fma(p, r, 0.5);
    p = M::fma(p, r * r, r) + 1.0;
    // The low bits of `shifted` hold n; moving n into the exponent multiplies by 2^n.
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_shl(23);
    f32::from_bits(p.to_bits().wrapping_add(exponent))
}

/// Logistic function of GELU's argument: GELU is `x * gate(x)`.
#[inline(always)]
fn gelu_gate<M: Arithmetic>(x: f32) -> f32 {
    let y = GELU_A * x * M::fma(GELU_B * x, x, 1.0);
    1.0 / (1.0 + exp::<M>(-y))
}

/// `(gelu(x), gelu'(x))`.
#[inline(always)]
fn gelu_and_slope<M: Arithmetic>(x: f32) -> (f32, f32) {
    let gate = gelu_gate::<M>(x);
    let slope = GELU_A * M::fma(3.0 * GELU_B * x, x, 1.0);
    let value = x * gate;
    (value, M::fma(value * (1.0 - gate), slope, gate))
}

/// Sums `f(c)` and `g(c)` over the columns, in [`LANES`] partial sums.
#[inline(always)]
fn sums(columns: usize, mut f: impl FnMut(usize) -> (f32, f32)) -> (f32, f32) {
    let (mut a, mut b) = ([0.0f32; LANES], [0.0f32; LANES]);
    let whole = columns - columns % LANES;
    let mut c = 0;
    while c < whole {
        for lane in 0..LANES {
            let (x, y) = f(c + lane);
            a[lane] += x;
            b[lane] += y;
        }
        c += LANES;
    }
    let (mut x, mut y) = (a.iter().sum::<f32>(), b.iter().sum::<f32>());
    while c < columns {
        let (p, q) = f(c);
        x += p;
        y += q;
        c += 1;
    }
    (x, y)
}

/// Mean and reciprocal standard deviation of `n` numbers with the given sum and sum of squares.
#[inline(always)]
fn moments(sum: f32, squares: f32, n: usize) -> (f32, f32) {
    let mean = sum / n as f32;
    let variance = (squares / n as f32 - mean * mean).max(0.0);
    (mean, 1.0 / (variance + LAYER_NORM_EPSILON).sqrt())
}

/// Bias, scale and shift of one Linear + LayerNorm pair, each `[H]`.
#[derive(Debug, Clone, Copy)]
pub struct NormParameters<'a> {
    /// Bias of the Linear layer.
    pub bias: &'a [f32],
    /// LayerNorm's factor.
    pub scale: &'a [f32],
    /// LayerNorm's offset.
    pub shift: &'a [f32],
}

impl NormParameters<'_> {
    fn width(&self) -> usize {
        self.bias.len().min(self.scale.len()).min(self.shift.len())
    }
}

#[inline(always)]
fn bias_norm_gelu_generic<M: Arithmetic>(
    z: &mut [f32],
    group: Option<(&[f32], usize)>,
    p: NormParameters<'_>,
) {
    let width = p.width();
    let (bias, scale, shift) = (&p.bias[..width], &p.scale[..width], &p.shift[..width]);
    for (index, row) in z.chunks_exact_mut(width).enumerate() {
        if let Some((rows, size)) = group {
            let start = index / size * width;
            for (x, add) in row.iter_mut().zip(&rows[start..start + width]) {
                *x += add;
            }
        }
        for (x, b) in row.iter_mut().zip(bias) {
            *x += b;
        }
        let row = &mut row[..width];
        let (sum, squares) = sums(width, |c| (row[c], row[c] * row[c]));
        let (mean, rstd) = moments(sum, squares, width);
        for ((x, s), b) in row.iter_mut().zip(scale).zip(shift) {
            let n = M::fma((*x - mean) * rstd, *s, *b);
            *x = n * gelu_gate::<M>(n);
        }
    }
}

dispatch! {
    /// In place, for each row of `z` `[R, H]`: `gelu(layer_norm(z + bias [+ group row]))`. `group` holds `[R / size, H]`
    /// rows and `size`: row `r` of `z` also gets group row `r / size` (the observation's share of the first layer).
    pub fn bias_norm_gelu(z: &mut [f32], group: Option<(&[f32], usize)>, p: NormParameters<'_>) = bias_norm_gelu_generic
}

#[inline(always)]
fn bias_norm_gelu_dual_generic<M: Arithmetic>(z: &mut [f32], dz: &mut [f32], p: NormParameters<'_>) {
    let width = p.width();
    let (bias, scale, shift) = (&p.bias[..width], &p.scale[..width], &p.shift[..width]);
    for (row, tangent) in z.chunks_exact_mut(width).zip(dz.chunks_exact_mut(width)) {
        for (x, b) in row.iter_mut().zip(bias) {
            *x += b;
        }
        let (sum, squares) = sums(width, |c| (row[c], row[c] * row[c]));
        let (mean, rstd) = moments(sum, squares, width);
        let (dsum, dot) = sums(width, |c| (tangent[c], tangent[c] * (row[c] - mean)));
        let dmean = dsum / width as f32;
        // d xhat = rstd (dx - mean(dx) - xhat mean(dx xhat))
        let share = dot * rstd / width as f32;
        for c in 0..width {
            let normal = (row[c] - mean) * rstd;
            let dnormal = rstd * (tangent[c] - dmean - normal * share);
            let (value, slope) = gelu_and_slope::<M>(M::fma(normal, scale[c], shift[c]));
            row[c] = value;
            tangent[c] = slope * scale[c] * dnormal;
        }
    }
}

dispatch! {
    /// [`bias_norm_gelu`] with its forward-mode derivative: `z` becomes the value, `dz` (the tangent of `z`) the tangent.
    pub fn bias_norm_gelu_dual(z: &mut [f32], dz: &mut [f32], p: NormParameters<'_>) = bias_norm_gelu_dual_generic
}

/// Where [`bias_norm_gelu_backward`] writes.
#[derive(Debug)]
pub struct NormGradients<'a> {
    /// `[R, H]`, overwritten.
    pub z: &'a mut [f32],
    /// `[H]`, added to.
    pub bias: &'a mut [f32],
    /// `[H]`, added to.
    pub scale: &'a mut [f32],
    /// `[H]`, added to.
    pub shift: &'a mut [f32],
}

#[inline(always)]
fn bias_norm_gelu_backward_generic<M: Arithmetic>(
    z: &[f32],
    grad: &[f32],
    p: NormParameters<'_>,
    out: &mut NormGradients<'_>,
) {
    let width = p.width();
    let (bias, scale, shift) = (&p.bias[..width], &p.scale[..width], &p.shift[..width]);
    let (dbias, dscale, dshift) = (
        &mut out.bias[..width],
        &mut out.scale[..width],
        &mut out.shift[..width],
    );
    let rows = z.chunks_exact(width).zip(grad.chunks_exact(width));
    for ((row, grad), dz) in rows.zip(out.z.chunks_exact_mut(width)) {
        let (sum, squares) = sums(width, |c| {
            let x = row[c] + bias[c];
            (x, x * x)
        });
        let (mean, rstd) = moments(sum, squares, width);
        for c in 0..width {
            let normal = (row[c] + bias[c] - mean) * rstd;
            let (_, slope) = gelu_and_slope::<M>(M::fma(normal, scale[c], shift[c]));
            let dn = grad[c] * slope;
            dscale[c] += dn * normal;
            dshift[c] += dn;
            dz[c] = dn * scale[c];
        }
        let (total, dot) = sums(width, |c| (dz[c], dz[c] * (row[c] + bias[c] - mean)));
        let (average, share) = (total / width as f32, dot * rstd / width as f32);
        for c in 0..width {
            let normal = (row[c] + bias[c] - mean) * rstd;
            dz[c] = rstd * (dz[c] - average - normal * share);
            dbias[c] += dz[c];
        }
    }
}

dispatch! {
    /// Reverse mode of [`bias_norm_gelu`] without group rows: from `z` (before the bias) and the gradient of the result.
    pub fn bias_norm_gelu_backward(z: &[f32], grad: &[f32], p: NormParameters<'_>, out: &mut NormGradients<'_>)
        = bias_norm_gelu_backward_generic
}

#[inline(always)]
fn expected_value_generic<M: Arithmetic>(
    logits: &[f32],
    bias: &[f32],
    minimum: f32,
    step: f32,
    out: &mut [f32],
) {
    let atoms = bias.len();
    for (row, value) in logits.chunks_exact(atoms).zip(out) {
        let mut highest = f32::NEG_INFINITY;
        for c in 0..atoms {
            highest = highest.max(row[c] + bias[c]);
        }
        // Relative to the middle atom and in double precision: the values are small differences of large atoms, and
        // they are divided by the temperature.
        let middle = 0.5 * (atoms - 1) as f64;
        let (mut total, mut weighted) = ([0.0f64; LANES], [0.0f64; LANES]);
        let mut add = |c: usize, lane: usize| {
            let e = f64::from(exp::<M>(row[c] + bias[c] - highest));
            total[lane] += e;
            weighted[lane] += e * (c as f64 - middle);
        };
        let whole = atoms - atoms % LANES;
        for start in (0..whole).step_by(LANES) {
            for lane in 0..LANES {
                add(start + lane, lane);
            }
        }
        for c in whole..atoms {
            add(c, c - whole);
        }
        let mean = weighted.iter().sum::<f64>() / total.iter().sum::<f64>();
        *value = (f64::from(minimum) + f64::from(step) * (middle + mean)) as f32;
    }
}

dispatch! {
    /// `out[r] = sum_j softmax(logits[r] + bias)_j (minimum + j step)`, logits `[R, atoms]`.
    pub fn expected_value(logits: &[f32], bias: &[f32], minimum: f32, step: f32, out: &mut [f32]) = expected_value_generic
}

#[inline(always)]
fn row_times_matrix_generic<M: Arithmetic>(x: &[f32], matrix: &[f32], out: &mut [f32], accumulate: bool) {
    const BLOCK: usize = 8 * LANES;
    let columns = out.len();
    let whole = columns - columns % BLOCK;
    let mut start = 0;
    while start < whole {
        row_block::<M, BLOCK>(x, matrix, start, out, accumulate);
        start += BLOCK;
    }
    while start + LANES <= columns {
        row_block::<M, LANES>(x, matrix, start, out, accumulate);
        start += LANES;
    }
    for (c, slot) in out.iter_mut().enumerate().skip(start) {
        let mut sum = if accumulate { *slot } else { 0.0 };
        for (a, row) in x.iter().zip(matrix.chunks_exact(columns)) {
            sum = M::fma(*a, row[c], sum);
        }
        *slot = sum;
    }
}

#[inline(always)]
fn row_block<M: Arithmetic, const N: usize>(
    x: &[f32],
    matrix: &[f32],
    start: usize,
    out: &mut [f32],
    accumulate: bool,
) {
    let columns = out.len();
    let slots = &mut out[start..start + N];
    let mut sum = [0.0f32; N];
    if accumulate {
        sum.copy_from_slice(slots);
    }
    for (a, row) in x.iter().zip(matrix.chunks_exact(columns)) {
        let row = &row[start..start + N];
        for lane in 0..N {
            sum[lane] = M::fma(*a, row[lane], sum[lane]);
        }
    }
    slots.copy_from_slice(&sum);
}

dispatch! {
    /// `out = x matrix` (`+ out` when `accumulate`), x `[I]`, matrix `[I, O]`, out `[O]`.
    pub fn row_times_matrix(x: &[f32], matrix: &[f32], out: &mut [f32], accumulate: bool) = row_times_matrix_generic
}

#[inline(always)]
fn rows_times_matrix_generic<M: Arithmetic>(x: &[f32], rows: usize, matrix: &[f32], out: &mut [f32]) {
    const ROWS: usize = 4;
    const WIDE: usize = 4 * LANES;
    if rows == 0 {
        return;
    }
    let (inner, columns) = (x.len() / rows, out.len() / rows);
    let mut r = 0;
    while r + ROWS <= rows {
        let block = &x[r * inner..(r + ROWS) * inner];
        let results = &mut out[r * columns..(r + ROWS) * columns];
        let mut c = 0;
        while c + WIDE <= columns {
            tile::<M, ROWS, WIDE>(block, matrix, c, results);
            c += WIDE;
        }
        while c + LANES <= columns {
            tile::<M, ROWS, LANES>(block, matrix, c, results);
            c += LANES;
        }
        while c < columns {
            tile::<M, ROWS, 1>(block, matrix, c, results);
            c += 1;
        }
        r += ROWS;
    }
    while r < rows {
        let results = &mut out[r * columns..(r + 1) * columns];
        row_times_matrix_generic::<M>(&x[r * inner..(r + 1) * inner], matrix, results, false);
        r += 1;
    }
}

/// `R x N` results at column `start`, all kept in registers.
#[inline(always)]
fn tile<M: Arithmetic, const R: usize, const N: usize>(
    x: &[f32],
    matrix: &[f32],
    start: usize,
    out: &mut [f32],
) {
    let (inner, columns) = (x.len() / R, out.len() / R);
    let mut sums = [[0.0f32; N]; R];
    for (i, row) in matrix.chunks_exact(columns).take(inner).enumerate() {
        let row = &row[start..start + N];
        for (r, sum) in sums.iter_mut().enumerate() {
            let a = x[r * inner + i];
            for lane in 0..N {
                sum[lane] = M::fma(a, row[lane], sum[lane]);
            }
        }
    }
    for (r, sum) in sums.iter().enumerate() {
        out[r * columns + start..r * columns + start + N].copy_from_slice(sum);
    }
}

dispatch! {
    /// `out = x matrix` for a few rows without packing and so without allocation: x `[rows, I]`, matrix `[I, O]`.
    pub fn rows_times_matrix(x: &[f32], rows: usize, matrix: &[f32], out: &mut [f32]) = rows_times_matrix_generic
}

/// Up to this many rows [`product`] uses [`rows_times_matrix`], which allocates nothing.
pub const ROWS_WITHOUT_PACKING: usize = 64;

/// `out = a b` by the routine that suits the number of rows, a `[rows, inner]`, b `[inner, columns]`.
///
/// # Panics
/// When a slice is shorter than its shape.
pub fn product(a: &[f32], b: &[f32], out: &mut [f32], (rows, inner, columns): (usize, usize, usize)) {
    if rows > ROWS_WITHOUT_PACKING {
        return matrix_product(a, b, out, (rows, inner, columns), false);
    }
    rows_times_matrix(
        &a[..rows * inner],
        rows,
        &b[..inner * columns],
        &mut out[..rows * columns],
    );
}

/// `out = a b` (`+ out` when `accumulate`), a `[rows, inner]`, b `[inner, columns]`, out `[rows, columns]`.
///
/// # Panics
/// When a slice is shorter than its shape.
pub fn matrix_product(a: &[f32], b: &[f32], out: &mut [f32], shape: (usize, usize, usize), accumulate: bool) {
    let (rows, inner, columns) = shape;
    assert!(
        a.len() >= rows * inner,
        "a holds {} numbers, {rows}x{inner} wanted",
        a.len()
    );
    assert!(
        b.len() >= inner * columns,
        "b holds {} numbers, {inner}x{columns} wanted",
        b.len()
    );
    assert!(
        out.len() >= rows * columns,
        "out holds {} numbers, {rows}x{columns} wanted",
        out.len()
    );
    if rows == 1 {
        row_times_matrix(
            &a[..inner],
            &b[..inner * columns],
            &mut out[..columns],
            accumulate,
        );
        return;
    }
    // SAFETY: the asserts above show that each pointer is valid for its shape with these strides, and `out` is
    // borrowed mutably, so that it overlaps neither input.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out.as_mut_ptr(),
            1,
            columns as isize,
            accumulate,
            a.as_ptr(),
            1,
            inner as isize,
            b.as_ptr(),
            1,
            columns as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
