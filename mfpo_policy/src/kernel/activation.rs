//! Bias + LayerNorm + tanh-GELU on rows, forward, forward-mode and reverse, and GELU alone.
//!
//! LayerNorm is over a row: `n = (x - E[x]) / sqrt(E[x^2] - E[x]^2 + eps)`. GELU in its tanh form is written with the
//! logistic function: `gelu(x) = x / (1 + 2^t)`, `t = -log2(e) A (x + B x^3)`.

use super::matrix::{Pairs, Singles, Target};
use super::simd::Simd;

/// LayerNorm's epsilon, as in flax.
pub const LAYER_NORM_EPSILON: f32 = 1e-6;
/// `2 sqrt(2 / pi)`.
const GELU_A: f32 = 1.595_769;
const GELU_B: f32 = 0.044_715;

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
    pub(crate) fn width(&self) -> usize {
        self.bias.len().min(self.scale.len()).min(self.shift.len())
    }
}

/// `2^t` for t up to 126, larger ones as 126, smaller than -126 as 2^-126 or 0, by a polynomial on `[-1/2, 1/2]`, its highest
/// coefficient first.
#[inline(always)]
fn exp2<S: Simd, const N: usize>(s: S, t: S::V, polynomial: [f32; N]) -> S::V {
    // In this order a NaN passes through both.
    let mut t = s.min(s.splat(126.0), t);
    if !S::SCALES_TO_ZERO {
        t = s.max(s.splat(-126.0), t);
    }
    let n = s.round(t);
    let f = s.sub(t, n);
    let mut p = s.splat(polynomial[0]);
    for c in &polynomial[1..] {
        p = s.fma(p, f, s.splat(*c));
    }
    s.scale(p, n)
}

/// `2^f` to half a unit in the last place. One degree less costs no accuracy that a single value shows (7.5e-8 before its
/// rounding), but its errors have a pattern, which the losses see.
const EXP2: [f32; 7] = [
    1.535_336_2e-4,
    1.339_887_4e-3,
    9.618_437e-3,
    5.550_332_5e-2,
    2.402_264_8e-1,
    6.931_472e-1,
    1.0,
];
/// To about 1e-4.
const ROUGH_EXP2: [f32; 4] = [5.550_332_5e-2, 2.402_264_8e-1, 6.931_472e-1, 1.0];

/// `e^x` to about one unit in the last place for `x` in `[-87, 88]`, clamped outside.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.max(s.splat(-87.0), s.min(s.splat(88.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_2e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let p = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    s.scale(p, n)
}

/// `1 + 2^t` of GELU's argument x.
#[inline(always)]
fn gelu_denominator<S: Simd, const N: usize>(s: S, x: S::V, polynomial: [f32; N]) -> S::V {
    const LINEAR: f32 = -GELU_A * std::f32::consts::LOG2_E;
    const CUBIC: f32 = LINEAR * GELU_B;
    let inner = s.fma(s.mul(x, x), s.splat(CUBIC), s.splat(LINEAR));
    s.add(s.splat(1.0), exp2(s, s.mul(x, inner), polynomial))
}

#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    s.quotient(x, gelu_denominator(s, x, EXP2))
}

/// [`gelu`] to about 1e-4 of its value, for results that are rounded to bfloat16 (4e-3).
#[inline(always)]
pub(super) fn rough_gelu<S: Simd>(s: S, x: S::V) -> S::V {
    s.mul(x, s.rough_reciprocal(gelu_denominator(s, x, ROUGH_EXP2)))
}

/// How the rows of [`norm_gelu_rows`] are left for the next product.
pub(crate) trait Leave: Copy {
    fn gelu<S: Simd>(s: S, x: S::V) -> S::V;
    /// Numbers `c..c + LANES` of a row; behind the row's end they are 0.
    ///
    /// # Safety
    /// The row is writable for its width, padded to 16 numbers, or for all of its parts; what is behind `c` is not needed any more.
    unsafe fn leave<S: Simd>(s: S, row: *mut f32, c: usize, width: usize, v: S::V);
}

impl Leave for Singles {
    #[inline(always)]
    fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
        gelu(s, x)
    }
    #[inline(always)]
    unsafe fn leave<S: Simd>(s: S, row: *mut f32, c: usize, width: usize, v: S::V) {
        // SAFETY: the contract of `Leave::leave`: the row is writable for its width, beyond which neither form writes.
        unsafe {
            if c + S::LANES <= width {
                s.store(row.add(c), v);
            } else {
                s.store_part(row.add(c), v, width - c);
            }
        }
    }
}

impl Leave for Pairs {
    #[inline(always)]
    fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
        rough_gelu(s, x)
    }
    #[inline(always)]
    unsafe fn leave<S: Simd>(s: S, row: *mut f32, c: usize, _: usize, v: S::V) {
        // SAFETY: the contract of `Leave::leave`: the row is writable with its padding, and halves end at byte
        // `2 (c + LANES)`, which is at most `4 (c + LANES)` and inside the padded row.
        unsafe { s.store_halves(row.cast::<u16>().add(c), v) }
    }
}

/// `(gelu(x), gelu'(x))`.
#[inline(always)]
pub(crate) fn gelu_and_slope<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let one = s.splat(1.0);
    let gate = s.div(one, gelu_denominator(s, x, EXP2));
    let inner = s.fma(s.mul(x, x), s.splat(3.0 * GELU_A * GELU_B), s.splat(GELU_A));
    let value = s.mul(x, gate);
    (value, s.fma(s.mul(value, s.sub(one, gate)), inner, gate))
}

/// Calls `$body` with `$load`/`$store` closures for every vector of a row: whole vectors, then the part that is left.
macro_rules! vectors {
    ($s:ident, $S:ident, $width:expr, |$c:ident, $load:ident, $store:ident| $body:block) => {{
        let width: usize = $width;
        let mut $c = 0;
        while $c + $S::LANES <= width {
            #[allow(unused_variables)]
            let ($load, $store) = (
                |p: *const f32| $s.load(p.add($c)),
                |p: *mut f32, v: $S::V| $s.store(p.add($c), v),
            );
            $body
            $c += $S::LANES;
        }
        if $c < width {
            #[allow(unused_variables)]
            let ($load, $store) = (
                |p: *const f32| $s.load_part(p.add($c), width - $c),
                |p: *mut f32, v: $S::V| $s.store_part(p.add($c), v, width - $c),
            );
            $body
        }
    }};
}

/// Mean and reciprocal standard deviation of `n` numbers with the given sum and sum of squares.
#[inline(always)]
fn moments(sum: f32, squares: f32, n: usize) -> (f32, f32) {
    let mean = sum / n as f32;
    let variance = squares / n as f32 - mean * mean;
    // `max` would turn NaN into 0.
    let variance = if variance < 0.0 { 0.0 } else { variance };
    (mean, 1.0 / (variance + LAYER_NORM_EPSILON).sqrt())
}

/// Rows that [`norm_gelu_few`] takes at most.
const MOST_ROWS: usize = 16;

/// `count` rows of `z`, which are used up: `gelu(layer_norm(z + bias [+ add]))`, left in the rows of `out`, which may be those
/// of `z` unless there are several parts; with [`Pairs`] each becomes halves from its start on.
///
/// # Safety
/// `count` rows of `z` are writable for the width of `p`; those of `out` for what [`Leave`] says; and what `add` gives for a
/// row is readable for that width.
#[inline(always)]
pub(crate) unsafe fn norm_gelu_rows<S: Simd, N: Leave>(
    s: S,
    (z, out): (Target, Target),
    count: usize,
    add: impl Fn(usize) -> Option<*const f32>,
    p: NormParameters<'_>,
) {
    for first in (0..count).step_by(MOST_ROWS) {
        let few = MOST_ROWS.min(count - first);
        // SAFETY: the caller's promise for these rows.
        unsafe {
            let places = (z.at(first, 0), out.at(first, 0));
            norm_gelu_few::<S, N>(s, places, few, |r| add(first + r), p);
        }
    }
}

/// [`norm_gelu_rows`] for `count <= MOST_ROWS` rows.
///
/// The sums of all rows come first, then their moments at once, then the rest: what waits for one row's sums is done
/// for the others.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn norm_gelu_few<S: Simd, N: Leave>(
    s: S,
    (z, out): (Target, Target),
    count: usize,
    add: impl Fn(usize) -> Option<*const f32>,
    p: NormParameters<'_>,
) {
    let width = p.width();
    let (bias, scale, shift) = (p.bias.as_ptr(), p.scale.as_ptr(), p.shift.as_ptr());
    let (mut means, mut rstds) = ([0.0f32; MOST_ROWS], [0.0f32; MOST_ROWS]);
    // SAFETY: all pointers are valid for `width` numbers: the slices by their length, the others by contract; the moments
    // are read and written in whole vectors of arrays that every vector's length divides.
    unsafe {
        for r in 0..count {
            let row = z.at(r, 0).start;
            let (mut sum, mut squares) = (s.splat(0.0), s.splat(0.0));
            let more = add(r);
            vectors!(s, S, width, |c, load, store| {
                let mut x = s.add(load(row), load(bias));
                if let Some(more) = more {
                    x = s.add(x, load(more));
                }
                store(row, x);
                sum = s.add(sum, x);
                squares = s.fma(x, x, squares);
            });
            (means[r], rstds[r]) = (s.sum(sum), s.sum(squares));
        }
        let n = s.splat(width as f32);
        for at in (0..count).step_by(S::LANES) {
            let (mean, squares) = (means.as_mut_ptr().add(at), rstds.as_mut_ptr().add(at));
            let average = s.div(s.load(mean), n);
            let variance = s.sub(s.div(s.load(squares), n), s.mul(average, average));
            // In this order a NaN passes through.
            let variance = s.max(s.splat(0.0), variance);
            let root = s.sqrt(s.add(variance, s.splat(LAYER_NORM_EPSILON)));
            s.store(mean, average);
            s.store(squares, s.div(s.splat(1.0), root));
        }
        for r in 0..count {
            let (row, to) = (z.at(r, 0).start, out.at(r, 0).start);
            let (mean, rstd) = (s.splat(means[r]), s.splat(rstds[r]));
            vectors!(s, S, width, |c, load, store| {
                let normal = s.mul(s.sub(load(row), mean), rstd);
                let value = N::gelu(s, s.fma(normal, load(scale), load(shift)));
                N::leave(s, to, c, width, value);
            });
        }
    }
}

/// [`norm_gelu_rows`] for one row with its derivative along `dz`: `z` becomes the value, `dz` the tangent.
///
/// # Safety
/// `row` and each tangent are writable for the width of `p`.
#[inline(always)]
pub(crate) unsafe fn norm_gelu_dual_row<S: Simd>(
    s: S,
    row: *mut f32,
    tangents: &[*mut f32],
    p: NormParameters<'_>,
) {
    let width = p.width();
    let (bias, scale, shift) = (p.bias.as_ptr(), p.scale.as_ptr(), p.shift.as_ptr());
    let n = width as f32;
    // SAFETY: as in `norm_gelu_rows`.
    unsafe {
        let (mut sum, mut squares) = (s.splat(0.0), s.splat(0.0));
        vectors!(s, S, width, |c, load, store| {
            let x = s.add(load(row), load(bias));
            store(row, x);
            sum = s.add(sum, x);
            squares = s.fma(x, x, squares);
        });
        let (mean, rstd) = moments(s.sum(sum), s.sum(squares), width);
        let (mean, spread) = (s.splat(mean), s.splat(rstd));
        for tangent in tangents {
            let tangent = *tangent;
            let (mut total, mut dot) = (s.splat(0.0), s.splat(0.0));
            vectors!(s, S, width, |c, load, store| {
                let dx = load(tangent);
                total = s.add(total, dx);
                dot = s.fma(dx, s.sub(load(row), mean), dot);
            });
            // d xhat = rstd (dx - mean(dx) - xhat mean(dx xhat))
            let average = s.splat(s.sum(total) / n);
            let share = s.splat(s.sum(dot) * rstd / n);
            vectors!(s, S, width, |c, load, store| {
                let normal = s.mul(s.sub(load(row), mean), spread);
                let centred = s.sub(s.sub(load(tangent), average), s.mul(normal, share));
                let factor = load(scale);
                let (_, slope) = gelu_and_slope(s, s.fma(normal, factor, load(shift)));
                store(tangent, s.mul(s.mul(slope, factor), s.mul(spread, centred)));
            });
        }
        vectors!(s, S, width, |c, load, store| {
            let normal = s.mul(s.sub(load(row), mean), spread);
            store(row, gelu(s, s.fma(normal, load(scale), load(shift))));
        });
    }
}

/// Where the sums over rows of [`super::bias_norm_gelu_backward`] go, each `[H]`, added to.
#[derive(Debug)]
pub struct NormGradients<'a> {
    /// Of the bias.
    pub bias: &'a mut [f32],
    /// Of LayerNorm's factor.
    pub scale: &'a mut [f32],
    /// Of LayerNorm's offset.
    pub shift: &'a mut [f32],
}

/// Reverse mode of [`norm_gelu_rows`]: `z` is the row before the bias; `grad`, the gradient of the result, becomes the
/// gradient of `z`.
///
/// # Safety
/// `z` is readable and `grad` writable for the width of `p`.
#[inline(always)]
pub(crate) unsafe fn norm_gelu_backward_row<S: Simd>(
    s: S,
    z: *const f32,
    grad: *mut f32,
    p: NormParameters<'_>,
    out: &mut NormGradients<'_>,
) {
    let width = p
        .width()
        .min(out.bias.len())
        .min(out.scale.len())
        .min(out.shift.len());
    let (bias, scale, shift) = (p.bias.as_ptr(), p.scale.as_ptr(), p.shift.as_ptr());
    let (dbias, dscale, dshift) = (
        out.bias.as_mut_ptr(),
        out.scale.as_mut_ptr(),
        out.shift.as_mut_ptr(),
    );
    let n = width as f32;
    // SAFETY: as in `norm_gelu_rows`; the gradients' slices are at least `width` long.
    unsafe {
        let (mut sum, mut squares) = (s.splat(0.0), s.splat(0.0));
        vectors!(s, S, width, |c, load, store| {
            let x = s.add(load(z), load(bias));
            sum = s.add(sum, x);
            squares = s.fma(x, x, squares);
        });
        let (mean, rstd) = moments(s.sum(sum), s.sum(squares), width);
        let (mean, spread) = (s.splat(mean), s.splat(rstd));
        let (mut total, mut dot) = (s.splat(0.0), s.splat(0.0));
        vectors!(s, S, width, |c, load, store| {
            let normal = s.mul(s.sub(s.add(load(z), load(bias)), mean), spread);
            let factor = load(scale);
            let (_, slope) = gelu_and_slope(s, s.fma(normal, factor, load(shift)));
            let dn = s.mul(load(grad), slope);
            store(dscale, s.fma(dn, normal, load(dscale)));
            store(dshift, s.add(dn, load(dshift)));
            let dx = s.mul(dn, factor);
            store(grad, dx);
            total = s.add(total, dx);
            dot = s.fma(dx, normal, dot);
        });
        let (average, share) = (s.splat(s.sum(total) / n), s.splat(s.sum(dot) / n));
        vectors!(s, S, width, |c, load, store| {
            let normal = s.mul(s.sub(s.add(load(z), load(bias)), mean), spread);
            let dx = s.sub(s.sub(load(grad), average), s.mul(normal, share));
            let dx = s.mul(spread, dx);
            store(grad, dx);
            store(dbias, s.add(dx, load(dbias)));
        });
    }
}

/// `sum_j softmax(logits + bias)_j (minimum + j step)` of one row; the row is used as scratch.
///
/// # Safety
/// `row` is writable for the length of `bias`; `offsets` (`j` minus the middle) is as long as `bias`.
#[inline(always)]
pub(crate) unsafe fn expected_value_row<S: Simd>(
    s: S,
    row: *mut f32,
    bias: &[f32],
    offsets: &[f32],
    (minimum, step): (f32, f32),
) -> f32 {
    let atoms = bias.len().min(offsets.len());
    let (bias, offsets) = (bias.as_ptr(), offsets.as_ptr());
    // SAFETY: all pointers are valid for `atoms` numbers.
    unsafe {
        let mut top = s.splat(f32::NEG_INFINITY);
        let mut c = 0;
        while c + S::LANES <= atoms {
            let x = s.add(s.load(row.add(c)), s.load(bias.add(c)));
            s.store(row.add(c), x);
            top = s.max(top, x);
            c += S::LANES;
        }
        let mut highest = s.highest(top);
        for i in c..atoms {
            let x = *row.add(i) + *bias.add(i);
            *row.add(i) = x;
            highest = highest.max(x);
        }
        // Relative to the middle atom and in double precision: the values are small differences of large atoms, and
        // they are divided by the temperature.
        let (shift, one) = (s.splat(highest), s.splat(1.0));
        let (mut total, mut weighted) = (s.zero_double(), s.zero_double());
        let mut c = 0;
        while c + S::LANES <= atoms {
            let e = exp(s, s.sub(s.load(row.add(c)), shift));
            total = s.fma_double(e, one, total);
            weighted = s.fma_double(e, s.load(offsets.add(c)), weighted);
            c += S::LANES;
        }
        if c < atoms {
            let n = atoms - c;
            let e = exp(s, s.sub(s.load_part(row.add(c), n), shift));
            // Lanes behind the last atom count 0.
            let (mut ones, mut part) = ([0.0f32; 16], [0.0f32; 16]);
            ones[..n].fill(1.0);
            std::ptr::copy_nonoverlapping(offsets.add(c), part.as_mut_ptr(), n);
            total = s.fma_double(e, s.load(ones.as_ptr()), total);
            weighted = s.fma_double(e, s.load(part.as_ptr()), weighted);
        }
        let mean = s.sum_double(weighted) / s.sum_double(total);
        let middle = 0.5 * (atoms - 1) as f64;
        (f64::from(minimum) + f64::from(step) * (middle + mean)) as f32
    }
}

/// `(sin x, cos x)` to about 2e-7 for magnitudes up to some thousands.
#[inline(always)]
pub(crate) fn sin_cos<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    // x = k pi + r, |r| <= pi / 2; pi in three parts, so that the products are exact.
    let k = s.round(s.mul(x, s.splat(std::f32::consts::FRAC_1_PI)));
    let mut r = x;
    for part in [-3.140_625, -9.675_026e-4, -1.509_958e-7] {
        r = s.fma(k, s.splat(part), r);
    }
    // Both change sign with every odd k.
    let floor = s.round(s.fma(k, s.splat(0.5), s.splat(-0.25)));
    let parity = s.fma(floor, s.splat(-2.0), k);
    let sign = s.fma(parity, s.splat(-2.0), s.splat(1.0));
    let square = s.mul(r, r);
    let series = |coefficients: &[f32]| {
        let mut p = s.splat(0.0);
        for c in coefficients {
            p = s.fma(p, square, s.splat(*c));
        }
        p
    };
    let sin = series(&[
        1.605_904_4e-10,
        -2.505_210_8e-8,
        2.755_731_9e-6,
        -1.984_127e-4,
        8.333_334e-3,
        -1.666_666_7e-1,
        1.0,
    ]);
    let cos = series(&[
        -1.147_074_6e-11,
        2.087_675_7e-9,
        -2.755_732e-7,
        2.480_158_8e-5,
        -1.388_888_9e-3,
        4.166_666_8e-2,
        -0.5,
        1.0,
    ]);
    (s.mul(sign, s.mul(sin, r)), s.mul(sign, cos))
}

/// `gelu` and its slope, number by number.
///
/// # Safety
/// `value` and `slope` are writable for the length of `x`.
#[inline(always)]
pub(crate) unsafe fn gelu_and_slope_all<S: Simd>(s: S, x: &[f32], value: *mut f32, slope: *mut f32) {
    // SAFETY: all pointers are valid for `x.len()` numbers.
    unsafe {
        vectors!(s, S, x.len(), |c, load, store| {
            let (v, d) = gelu_and_slope(s, load(x.as_ptr()));
            store(value, v);
            store(slope, d);
        });
    }
}

/// `sin` and `cos`, number by number.
///
/// # Safety
/// `sin` and `cos` are writable for the length of `x`.
#[inline(always)]
pub(crate) unsafe fn sin_cos_all<S: Simd>(s: S, x: &[f32], sin: *mut f32, cos: *mut f32) {
    // SAFETY: all pointers are valid for `x.len()` numbers.
    unsafe {
        vectors!(s, S, x.len(), |c, load, store| {
            let (a, b) = sin_cos(s, load(x.as_ptr()));
            store(sin, a);
            store(cos, b);
        });
    }
}

/// One step of Adam and what it needs to know.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    /// Learning rate.
    pub rate: f32,
    /// `b1`, `1 - b1`, `1 - b1^n`.
    pub first: [f32; 3],
    /// `b2`, `1 - b2`, `1 - b2^n`.
    pub second: [f32; 3],
    /// Added to the root.
    pub epsilon: f32,
}

/// `m <- b1 m + (1 - b1) g`, `v <- b2 v + (1 - b2) g^2`, `p <- p - rate (m / c1) / (sqrt(v / c2) + eps)`, each operation
/// rounded on its own, as the reference does it.
///
/// # Safety
/// All pointers are valid for the length of `g`.
#[inline(always)]
pub(crate) unsafe fn adam_all<S: Simd>(s: S, [p, m, v]: [*mut f32; 3], g: &[f32], step: AdamStep) {
    let [b1, d1, c1] = step.first.map(|x| s.splat(x));
    let [b2, d2, c2] = step.second.map(|x| s.splat(x));
    let (rate, epsilon) = (s.splat(step.rate), s.splat(step.epsilon));
    // SAFETY: the caller's promise.
    unsafe {
        vectors!(s, S, g.len(), |c, load, store| {
            let g = load(g.as_ptr());
            let first = s.add(s.mul(b1, load(m)), s.mul(d1, g));
            let second = s.add(s.mul(b2, load(v)), s.mul(s.mul(d2, g), g));
            store(m, first);
            store(v, second);
            let root = s.add(s.sqrt(s.div(second, c2)), epsilon);
            let change = s.div(s.mul(rate, s.div(first, c1)), root);
            store(p, s.sub(load(p), change));
        });
    }
}

/// `x <- keep x + add y`.
///
/// # Safety
/// `x` is writable for the length of `y`.
#[inline(always)]
pub(crate) unsafe fn average_all<S: Simd>(s: S, x: *mut f32, y: &[f32], (keep, add): (f32, f32)) {
    let (keep, add) = (s.splat(keep), s.splat(add));
    // SAFETY: the caller's promise.
    unsafe {
        vectors!(s, S, y.len(), |c, load, store| {
            store(x, s.add(s.mul(keep, load(x)), s.mul(add, load(y.as_ptr()))));
        });
    }
}
