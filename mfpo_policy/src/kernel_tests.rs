//! Laws of the kernels: every variant equals the plain sum in double precision.

use super::*;
use proptest::prelude::*;

fn gelu64(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

fn reference_row(row: &[f32], bias: &[f32], scale: &[f32], shift: &[f32]) -> Vec<f64> {
    let x: Vec<f64> = row
        .iter()
        .zip(bias)
        .map(|(a, b)| f64::from(*a) + f64::from(*b))
        .collect();
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|v| v * v).sum::<f64>() / n - mean * mean;
    let rstd = 1.0 / (variance.max(0.0) + 1e-6).sqrt();
    x.iter()
        .enumerate()
        .map(|(c, v)| gelu64((v - mean) * rstd * f64::from(scale[c]) + f64::from(shift[c])))
        .collect()
}

fn numbers(n: usize, seed: u64) -> Vec<f32> {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..n)
        .map(|_| (rng.next_u32() as f32 / u32::MAX as f32 - 0.5) * 4.0)
        .collect()
}

#[test]
fn exp_is_exact_to_two_units_in_the_last_place() {
    for i in -86_000..88_000 {
        let x = i as f32 * 1e-3;
        let (got, want) = (exp::<Separate>(x), f64::from(x).exp());
        assert!(
            (f64::from(got) / want - 1.0).abs() < 2.5e-7,
            "exp({x}) = {got}, want {want}"
        );
    }
}

proptest! {
    #[test]
    fn every_variant_equals_the_double_precision_row(width in 1usize..70, rows in 1usize..5, seed in 0u64..1000) {
        let z = numbers(rows * width, seed);
        let (bias, scale, shift) = (numbers(width, seed + 1), numbers(width, seed + 2), numbers(width, seed + 3));
        let p = NormParameters { bias: &bias, scale: &scale, shift: &shift };
        let mut dispatched = z.clone();
        bias_norm_gelu(&mut dispatched, None, p);
        let mut portable = z.clone();
        bias_norm_gelu_generic::<Separate>(&mut portable, None, p);
        for (r, row) in z.chunks_exact(width).enumerate() {
            let want = reference_row(row, &bias, &scale, &shift);
            for c in 0..width {
                // One column makes LayerNorm divide by sqrt(eps): rounding noise is amplified a thousandfold.
                let tolerance = if width < 3 { 5e-3 } else { 2e-4 };
                prop_assert!((f64::from(dispatched[r * width + c]) - want[c]).abs() < tolerance);
                prop_assert!((f64::from(portable[r * width + c]) - want[c]).abs() < tolerance);
            }
        }
    }

    #[test]
    fn products_equal_the_plain_sum(rows in 1usize..14, inner in 1usize..40, columns in 1usize..200, seed in 0u64..100) {
        let (a, b) = (numbers(rows * inner, seed), numbers(inner * columns, seed + 1));
        let mut out = numbers(rows * columns, seed + 2);
        let before = out.clone();
        matrix_product(&a, &b, &mut out, (rows, inner, columns), true);
        let mut small = vec![f32::NAN; rows * columns];
        product(&a, &b, &mut small, (rows, inner, columns));
        for r in 0..rows {
            for c in 0..columns {
                let sum: f32 = (0..inner).map(|i| a[r * inner + i] * b[i * columns + c]).sum();
                prop_assert!((out[r * columns + c] - before[r * columns + c] - sum).abs() < 1e-4);
                prop_assert!((small[r * columns + c] - sum).abs() < 1e-4);
            }
        }
    }
}

#[test]
fn group_rows_are_added_once_for_each_member() {
    let (z, rows) = (numbers(6 * 32, 1), numbers(2 * 32, 2));
    let (bias, scale, shift) = (numbers(32, 3), numbers(32, 4), numbers(32, 5));
    let p = NormParameters {
        bias: &bias,
        scale: &scale,
        shift: &shift,
    };
    let mut grouped = z.clone();
    bias_norm_gelu(&mut grouped, Some((&rows, 3)), p);
    let mut added: Vec<f32> = z
        .iter()
        .enumerate()
        .map(|(i, v)| v + rows[i / 96 * 32 + i % 32])
        .collect();
    bias_norm_gelu(&mut added, None, p);
    assert_eq!(grouped, added);
}

#[test]
fn expected_value_of_equal_logits_is_the_middle() {
    let mut out = [0.0; 2];
    expected_value(&[0.5; 202], &[0.0; 101], -1600.0, 32.0, &mut out);
    assert!(out.iter().all(|v| v.abs() < 1e-3), "{out:?}");
}
