//! Laws of the kernels: every variant that this processor can run equals the plain sum in double precision.

use super::activation::{
    exp, expected_value_row, gelu_and_slope as gelu_and_slope_of, sin_cos as sin_cos_of,
};
use super::*;
use proptest::prelude::*;

/// Every instruction set that this processor has.
fn variants() -> Vec<InstructionSet> {
    use InstructionSet::*;
    match InstructionSet::of_processor() {
        Amx => vec![Baseline, Avx2, Avx512, Avx512Bf16, Amx],
        Avx512Bf16 => vec![Baseline, Avx2, Avx512, Avx512Bf16],
        Avx512 => vec![Baseline, Avx2, Avx512],
        Avx2 => vec![Baseline, Avx2],
        Neon => vec![Baseline, Neon],
        Baseline => vec![Baseline],
    }
}

#[test]
fn every_variant_is_chosen_by_the_name_that_records_it() {
    for set in variants() {
        let chosen = InstructionSet::of_processor().lowered(set.name()).unwrap();
        assert_eq!(chosen.name(), set.name());
        assert!(InstructionSet::available().contains(&set.name()));
    }
    for name in InstructionSet::available() {
        assert!(variants().iter().any(|set| set.name() == name), "{name}");
    }
}

#[test]
fn a_set_that_a_processor_lacks_is_refused_with_those_that_it_has() {
    use InstructionSet::*;
    for (has, asked, possible) in [
        (Avx512, "avx1024", "avx2, avx512"),
        (Avx512Bf16, "AVX2", "avx2, avx512"),
        (Avx2, "avx512", "avx2"),
        (Avx2, "neon", "avx2"),
        (Neon, "avx2", "neon"),
        (Baseline, "avx2", Baseline.name()),
    ] {
        let refused = has.lowered(asked).unwrap_err().to_string();
        let (named, taken) = (format!("is '{asked}'"), format!("takes {}", has.name()));
        for part in [named.as_str(), possible, taken.as_str()] {
            assert!(refused.contains(part), "{refused}");
        }
    }
    assert_eq!(Avx2.lowered(""), Ok(Avx2));
    assert_eq!(Avx512Bf16.lowered("avx2"), Ok(Avx2));
    assert_eq!(Neon.lowered("baseline"), Ok(Baseline));
}

/// `1 - (1 - 2^-23) (1 + 2^-23)` is 2^-46, and nothing is left of it where the product is rounded first.
struct Residue<'a>(&'a mut f32);

impl Kernel for Residue<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (below, above) = (s.splat(f32::EPSILON - 1.0), s.splat(1.0 + f32::EPSILON));
        *self.0 = s.highest(s.fma(below, above, s.splat(1.0)));
    }
}

#[test]
fn the_name_tells_whether_products_are_rounded_before_they_are_added() {
    for set in variants() {
        let mut residue = f32::NAN;
        dispatch_to(set, Residue(&mut residue));
        let fused = set.name() != "baseline";
        let want = if fused { f32::EPSILON.powi(2) } else { 0.0 };
        assert_eq!(residue, want, "{}", set.name());
    }
}

fn gelu64(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

fn reference_row(row: &[f32], p: NormParameters<'_>) -> Vec<f64> {
    let x: Vec<f64> = row
        .iter()
        .zip(p.bias)
        .map(|(a, b)| f64::from(*a) + f64::from(*b))
        .collect();
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|v| v * v).sum::<f64>() / n - mean * mean;
    let rstd = 1.0 / (variance.max(0.0) + 1e-6).sqrt();
    x.iter()
        .enumerate()
        .map(|(c, v)| gelu64((v - mean) * rstd * f64::from(p.scale[c]) + f64::from(p.shift[c])))
        .collect()
}

/// How many times LayerNorm amplifies the rounding of its moments: `E[x^2] / (E[x^2] - E[x]^2 + eps)`.
fn amplification(row: &[f32], p: NormParameters<'_>) -> f64 {
    let n = row.len() as f64;
    let x = || row.iter().zip(p.bias).map(|(a, b)| f64::from(*a) + f64::from(*b));
    let (mean, squares) = (x().sum::<f64>() / n, x().map(|v| v * v).sum::<f64>() / n);
    squares / ((squares - mean * mean).max(0.0) + 1e-6)
}

fn numbers(n: usize, seed: u64) -> Vec<f32> {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..n)
        .map(|_| (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 4.0)
        .collect()
}

/// Applies a vector function to every number.
struct Each<'a, F>(&'a mut [f32], F);

trait VectorFunction {
    fn call<S: Simd>(&self, s: S, x: S::V) -> S::V;
}

impl<F: VectorFunction> Kernel for Each<'_, F> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for part in self.0.chunks_mut(S::LANES) {
            let n = part.len();
            // SAFETY: a whole chunk has LANES numbers, the last one n.
            unsafe {
                if n == S::LANES {
                    let y = self.1.call(s, s.load(part.as_ptr()));
                    s.store(part.as_mut_ptr(), y);
                } else {
                    let y = self.1.call(s, s.load_part(part.as_ptr(), n));
                    s.store_part(part.as_mut_ptr(), y, n);
                }
            }
        }
    }
}

macro_rules! vector_function {
    ($name:ident, |$s:ident, $x:ident| $value:expr) => {
        struct $name;
        impl VectorFunction for $name {
            #[inline(always)]
            fn call<S: Simd>(&self, $s: S, $x: S::V) -> S::V {
                $value
            }
        }
    };
}
vector_function!(Exp, |s, x| exp(s, x));
vector_function!(Gelu, |s, x| gelu_and_slope_of(s, x).0);
vector_function!(Slope, |s, x| gelu_and_slope_of(s, x).1);
vector_function!(Sine, |s, x| sin_cos_of(s, x).0);
vector_function!(Cosine, |s, x| sin_cos_of(s, x).1);

fn each<F: VectorFunction>(set: InstructionSet, f: F, inputs: &[f32]) -> Vec<f32> {
    let mut out = inputs.to_vec();
    dispatch_to(set, Each(&mut out, f));
    out
}

/// From `low` to `high` in steps of `step`.
fn grid(low: f32, high: f32, step: f32) -> Vec<f32> {
    let count = ((high - low) / step) as usize;
    (0..=count).map(|i| low + i as f32 * step).collect()
}

#[test]
fn exp_is_exact_to_two_units_in_the_last_place() {
    let inputs = grid(-86.5, 87.5, 1e-3);
    for set in variants() {
        for (x, got) in inputs.iter().zip(each(set, Exp, &inputs)) {
            let want = f64::from(*x).exp();
            assert!(
                (f64::from(got) / want - 1.0).abs() < 2.5e-7,
                "{set:?}: exp({x}) = {got}, want {want}"
            );
        }
    }
}

#[test]
fn gelu_and_its_slope_are_those_of_the_tanh_form() {
    let inputs = grid(-30.0, 30.0, 1e-3);
    for set in variants() {
        let (values, slopes) = (each(set, Gelu, &inputs), each(set, Slope, &inputs));
        for ((x, value), slope) in inputs.iter().zip(values).zip(slopes) {
            let x64 = f64::from(*x);
            assert!(
                (f64::from(value) - gelu64(x64)).abs() < 2e-7 * x64.abs().max(1.0),
                "{set:?}: gelu({x}) = {value}"
            );
            let want = (gelu64(x64 + 1e-5) - gelu64(x64 - 1e-5)) / 2e-5;
            assert!(
                (f64::from(slope) - want).abs() < 2e-6,
                "{set:?}: gelu'({x}) = {slope}, want {want}"
            );
        }
    }
}

#[test]
fn sine_and_cosine_are_exact_to_three_ten_millionths() {
    let inputs = grid(-100.0, 100.0, 1e-3);
    for set in variants() {
        let (sin, cos) = (each(set, Sine, &inputs), each(set, Cosine, &inputs));
        for ((x, sin), cos) in inputs.iter().zip(sin).zip(cos) {
            let (want_sin, want_cos) = f64::from(*x).sin_cos();
            assert!(
                (f64::from(sin) - want_sin).abs() < 3e-7,
                "{set:?}: sin({x}) = {sin}, want {want_sin}"
            );
            assert!(
                (f64::from(cos) - want_cos).abs() < 3e-7,
                "{set:?}: cos({x}) = {cos}, want {want_cos}"
            );
        }
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    for set in variants() {
        for x in [f32::NAN, f32::INFINITY] {
            assert!(!each(set, Gelu, &[x])[0].is_finite(), "{set:?}: gelu({x})");
        }
        assert!(each(set, Exp, &[f32::NAN])[0].is_nan(), "{set:?}");
    }
}

proptest! {
    #[test]
    fn every_variant_equals_the_double_precision_row(width in 1usize..70, rows in 1usize..5, seed in 0u64..1000) {
        let z = numbers(rows * width, seed);
        let (bias, scale, shift) = (numbers(width, seed + 1), numbers(width, seed + 2), numbers(width, seed + 3));
        let p = NormParameters { bias: &bias, scale: &scale, shift: &shift };
        for set in variants() {
            let mut got = z.clone();
            dispatch_to(set, NormGelu { z: &mut got, p });
            for (r, row) in z.chunks_exact(width).enumerate() {
                let want = reference_row(row, p);
                // One column is its own mean, whatever it is divided by.
                let tolerance = if width == 1 { 5e-3 } else { 2e-5 + 1e-6 * amplification(row, p) };
                for c in 0..width {
                    prop_assert!((f64::from(got[r * width + c]) - want[c]).abs() < tolerance);
                }
            }
        }
    }

    #[test]
    fn products_equal_the_plain_sum(rows in 1usize..40, inner in 1usize..40, columns in 1usize..120, seed in 0u64..100) {
        let (a, b) = (numbers(rows * inner, seed), numbers(inner * columns, seed + 1));
        let packed = PackedMatrix::new(&b, inner, columns);
        let turned: Vec<f32> = (0..columns * inner).map(|i| b[i % inner * columns + i / inner]).collect();
        let from_transpose = PackedMatrix::transposed(&turned, inner, columns);
        // a^T, so that the transposed product gives the same.
        let upright: Vec<f32> = (0..inner * rows).map(|i| a[i % rows * inner + i / rows]).collect();
        for set in variants() {
            let product = |a: &[f32], b: &PackedMatrix, transposed: bool, rows_wanted: (usize, usize)| {
                // NaN shows whatever is not written; two numbers behind the end whatever is written too far.
                let mut out = vec![f32::NAN; rows_wanted.1 * columns + 2];
                let end = rows_wanted.1 * columns;
                dispatch_to(set, Product { a, transposed, rows: rows_wanted, all: rows, b, out: &mut out[..end] });
                assert!(out[end..].iter().all(|v| v.is_nan()));
                out
            };
            let plain = product(&a, &packed, false, (0, rows));
            let turned = product(&a, &from_transpose, false, (0, rows));
            let skipped = rows / 3;
            let lower = product(&upright, &packed, true, (skipped, rows - skipped));
            for r in 0..rows {
                for c in 0..columns {
                    let sum: f64 = (0..inner)
                        .map(|i| f64::from(a[r * inner + i]) * f64::from(b[i * columns + c]))
                        .sum();
                    prop_assert!((f64::from(plain[r * columns + c]) - sum).abs() < 1e-4);
                    prop_assert_eq!(plain[r * columns + c], turned[r * columns + c]);
                    if r >= skipped {
                        prop_assert!((f64::from(lower[(r - skipped) * columns + c]) - sum).abs() < 1e-4);
                    }
                }
            }
        }
    }
}

#[test]
fn a_matrix_packed_over_another_is_as_a_fresh_one() {
    for (inner, columns) in [(9, 37), (33, 4), (17, 64), (1, 1)] {
        let b = numbers(inner * columns, 1);
        let turned: Vec<f32> = (0..columns * inner)
            .map(|i| b[i % inner * columns + i / inner])
            .collect();
        // With the padding, which is written over as well.
        let all = inner * matrix::padded(columns);
        let mut fresh = PackedMatrix::new(&b, inner, columns);
        let mut over = PackedMatrix::new(&[f32::NAN; 40 * 70], 40, 70);
        over.pack(&b, inner, columns);
        assert_eq!(over.packed_mut()[..all], fresh.packed_mut()[..all]);
        let mut over = PackedMatrix::new(&[f32::NAN; 40 * 70], 40, 70);
        over.pack_transposed(&turned, inner, columns);
        assert_eq!(over.packed_mut()[..all], fresh.packed_mut()[..all]);
    }
}

struct PairProduct<'a> {
    /// Rows of lanes.
    a: &'a [f32],
    b: &'a PackedMatrix,
    out: &'a mut [f32],
}

impl Kernel for PairProduct<'_> {
    const HALVES: bool = true;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (rows, lanes) = (self.out.len() / self.b.columns(), self.b.inner());
        assert!(self.a.len() >= rows * lanes);
        let a = Left {
            start: self.a.as_ptr(),
            row_stride: lanes,
            inner_stride: 1,
        };
        let out = Target {
            start: self.out.as_mut_ptr(),
            stride: self.b.columns(),
        };
        // SAFETY: `a` holds `rows` rows of `lanes` lanes, `out` as many of `columns` numbers.
        unsafe { product_rows::<S, matrix::Pairs>(s, a, rows, self.b, out) };
    }
}

/// Rounds every number as it is stored in halves.
struct Halves<'a>(&'a [f32], &'a mut [u16]);

impl Kernel for Halves<'_> {
    const HALVES: bool = true;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (from, to) in self
            .0
            .chunks_exact(S::LANES)
            .zip(self.1.chunks_exact_mut(S::LANES))
        {
            // SAFETY: both chunks hold LANES numbers.
            unsafe { s.store_halves(to.as_mut_ptr(), s.load(from.as_ptr())) };
        }
    }
}

#[test]
fn halves_are_the_nearest_ones_with_ties_to_even_on_every_processor() {
    let ties = [0x3f80_8000, 0x3f81_8000, 0x3f80_7fff, 0x3f80_8001, 0xbf81_8000].map(f32::from_bits);
    let mut numbers = numbers(1024 - ties.len(), 3);
    numbers.extend(ties);
    for set in variants() {
        let mut got = vec![0; numbers.len()];
        dispatch_to(set, Halves(&numbers, &mut got));
        for (x, half) in numbers.iter().zip(got) {
            assert_eq!(half, half::rounded(*x), "{set:?}: {x}");
            let (below, above) = (half::widened(half.wrapping_sub(1)), half::widened(half + 1));
            let error = (half::widened(half) - x).abs();
            assert!(
                error <= (below - x).abs() && error <= (above - x).abs(),
                "{set:?}: {x}"
            );
        }
    }
    assert_eq!([0x3f80, 0x3f82, 0x3f80, 0x3f81, 0xbf82], ties.map(half::rounded));
}

proptest! {
    #[test]
    fn products_of_pairs_equal_the_plain_sum_of_rounded_numbers(
        rows in 1usize..30, inner in 1usize..40, columns in 1usize..80, seed in 0u64..100
    ) {
        let round = |x: &f32| half::widened(half::rounded(*x));
        let (a, b) = (numbers(rows * inner, seed), numbers(inner * columns, seed + 1));
        let mut packed = PackedMatrix::default();
        packed.pack_pairs(&b, inner, columns);
        let lanes: Vec<f32> = a
            .chunks_exact(inner)
            .flat_map(|row| row.chunks(2).map(|p| half::pair(p[0], p.get(1).copied().unwrap_or(0.0))))
            .collect();
        let (a, b): (Vec<f32>, Vec<f32>) = (a.iter().map(round).collect(), b.iter().map(round).collect());
        for set in variants() {
            let mut out = vec![f32::NAN; rows * columns];
            dispatch_to(set, PairProduct { a: &lanes, b: &packed, out: &mut out });
            for r in 0..rows {
                for c in 0..columns {
                    let terms = (0..inner).map(|i| f64::from(a[r * inner + i]) * f64::from(b[i * columns + c]));
                    let sum: f64 = terms.sum();
                    prop_assert!((f64::from(out[r * columns + c]) - sum).abs() < 1e-4, "{:?}", set);
                }
            }
        }
    }
}

#[test]
fn a_result_does_not_depend_on_how_many_rows_stand_beside_it() {
    let (inner, columns) = (37, 50);
    let tile = InstructionSet::detect().shape().1;
    let block = matrix::BLOCK * tile;
    let rows = 2 * block + 24;
    let (a, b) = (numbers(rows * inner, 1), numbers(inner * columns, 2));
    let packed = PackedMatrix::new(&b, inner, columns);
    let mut all = vec![0.0; rows * columns];
    product(&a, &packed, &mut all);
    for count in [4, 5, 9, 12, 13, 16, block, block + 5, 2 * block + 9] {
        let mut some = vec![0.0; count * columns];
        product(&a, &packed, &mut some);
        // Fewer than four rows in a tile are summed in another order.
        let whole = count - count % tile % 4;
        assert_eq!(some[..whole * columns], all[..whole * columns], "{count} rows");
    }
}

struct Value<'a> {
    logits: &'a mut [f32],
    bias: &'a [f32],
    out: &'a mut f32,
}

impl Kernel for Value<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let middle = 0.5 * (self.bias.len() - 1) as f32;
        let offsets: Vec<f32> = (0..self.bias.len()).map(|j| j as f32 - middle).collect();
        // SAFETY: logits, bias and offsets have the same length.
        *self.out =
            unsafe { expected_value_row(s, self.logits.as_mut_ptr(), self.bias, &offsets, (-1600.0, 32.0)) };
    }
}

#[test]
fn expected_values_are_those_of_double_precision() {
    for set in variants() {
        for (seed, atoms) in [(1, 101), (2, 2), (3, 16), (4, 51), (5, 7)] {
            let (logits, bias) = (numbers(atoms, seed), numbers(atoms, seed + 9));
            let e: Vec<f64> = logits
                .iter()
                .zip(&bias)
                .map(|(l, b)| f64::from(l + b).exp())
                .collect();
            let total: f64 = e.iter().sum();
            let want: f64 = e
                .iter()
                .enumerate()
                .map(|(j, e)| e / total * (-1600.0 + 32.0 * j as f64))
                .sum();
            let (mut row, mut got) = (logits.clone(), 0.0);
            dispatch_to(
                set,
                Value {
                    logits: &mut row,
                    bias: &bias,
                    out: &mut got,
                },
            );
            assert!(
                (f64::from(got) - want).abs() < 3e-4,
                "{set:?}, {atoms} atoms: {got}, want {want}"
            );
        }
    }
}
