//! Laws of the products on tiles, where the processor has them; elsewhere each test says that it was left out.

use proptest::prelude::*;

use super::super::activation::Leave;
use super::super::matrix::{Aligned, PackedMatrix, Parts, Singles, part_lanes, product_rows};
use super::super::simd::Simd;
use super::super::{Kernel, dispatch, half};
use super::*;

/// Leaves each row of `from` `[rows, width]` in parts.
struct Split<'a, const N: usize> {
    from: &'a [f32],
    width: usize,
    to: &'a mut [f32],
}

impl<const N: usize> Kernel for Split<'_, N> {
    const HALVES: bool = true;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let lanes = N * part_lanes(self.width);
        for (row, to) in self.from.chunks(self.width).zip(self.to.chunks_mut(lanes)) {
            for c in (0..self.width).step_by(S::LANES) {
                let count = S::LANES.min(self.width - c);
                let mut whole = [0.0; 16];
                whole[..count].copy_from_slice(&row[c..][..count]);
                // SAFETY: a vector has at most 16 numbers; `to` holds N parts.
                unsafe {
                    let v = s.load(whole.as_ptr());
                    Parts::<N>::leave(s, to.as_mut_ptr(), c, self.width, v);
                }
            }
        }
    }
}

fn in_parts<const N: usize>(from: &[f32], width: usize) -> Aligned {
    let rows = (from.len() / width).next_multiple_of(ROWS);
    let mut to = Aligned::default();
    to.reserve(rows * N * part_lanes(width));
    // What is not written must not matter.
    to.as_mut_slice().fill(f32::NAN);
    dispatch(Split::<N> {
        from,
        width,
        to: to.as_mut_slice(),
    });
    to
}

/// `a b` on tiles, `[rows, padded(columns)]`.
fn on_tiles<const N: usize>(
    tiles: &Tiles,
    a: &[f32],
    b: &[f32],
    (inner, columns): (usize, usize),
) -> Vec<f32> {
    let rows = a.len() / inner;
    let mut packed = PackedMatrix::default();
    packed.pack_parts::<N>(b, inner, columns);
    let left = in_parts::<N>(a, inner);
    let stride = padded(columns);
    let mut out = vec![f32::NAN; rows.next_multiple_of(ROWS) * stride];
    for first in (0..rows).step_by(ROWS) {
        let lanes = packed.inner();
        // SAFETY: `left` and `out` have whole blocks of rows.
        unsafe {
            let a = Left {
                start: left.as_slice().as_ptr().add(first * lanes),
                row_stride: lanes,
                inner_stride: 1,
            };
            let out = Target {
                start: out.as_mut_ptr().add(first * stride),
                stride,
            };
            product::<N>(tiles, a, &packed, out);
        }
    }
    out.truncate(rows * stride);
    out
}

/// `a b` in 32-bit floats, as the other kernel sums it.
struct Plain<'a>(&'a [f32], &'a PackedMatrix, &'a mut [f32]);

impl Kernel for Plain<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self(a, b, out) = self;
        let a_rows = Left {
            start: a.as_ptr(),
            row_stride: b.inner(),
            inner_stride: 1,
        };
        let target = Target {
            start: out.as_mut_ptr(),
            stride: padded(b.columns()),
        };
        // SAFETY: the slices hold `rows` rows each.
        unsafe { product_rows::<S, Singles>(s, a_rows, a.len() / b.inner(), b, target) };
    }
}

fn plain(a: &[f32], b: &[f32], (inner, columns): (usize, usize)) -> Vec<f32> {
    let packed = PackedMatrix::new(b, inner, columns);
    let mut out = vec![0.0; a.len() / inner * padded(columns)];
    dispatch(Plain(a, &packed, &mut out));
    out
}

/// Numbers of many magnitudes and both signs.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    use rand::{Rng, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut number = || {
        let share = f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5;
        (share * f64::from(rng.next_u32() % 16).exp2()) as f32
    };
    (0..count).map(|_| number()).collect()
}

/// For each result its value and the sum of the magnitudes, in double precision.
fn reference(a: &[f32], b: &[f32], (inner, columns): (usize, usize)) -> Vec<(f64, f64)> {
    let sums = |row: usize, c: usize| {
        let terms = (0..inner).map(|k| f64::from(a[row * inner + k]) * f64::from(b[k * columns + c]));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    };
    let rows = 0..a.len() / inner;
    rows.flat_map(|row| (0..columns).map(move |c| sums(row, c)))
        .collect()
}

/// Errors of `out` `[rows, padded(columns)]` as shares of the sums of magnitudes.
fn errors(out: &[f32], want: &[(f64, f64)], columns: usize) -> Vec<f64> {
    let rows = out.chunks(padded(columns)).flat_map(|row| &row[..columns]);
    let pairs = rows.zip(want);
    pairs
        .map(|(got, (sum, size))| (f64::from(*got) - sum).abs() / size.max(f64::MIN_POSITIVE))
        .collect()
}

fn root_mean_square(errors: &[f64]) -> f64 {
    (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt()
}

macro_rules! tiles_or_return {
    () => {
        match Tiles::set_up() {
            Some(tiles) => tiles,
            None => {
                eprintln!("left out: this processor, or its kernel, has no tiles of AMX");
                return Ok(());
            }
        }
    };
}

#[test]
fn three_parts_are_all_of_a_number() {
    let width = 70;
    let mut from = numbers(3 * width, 5);
    from[..6].copy_from_slice(&[
        0.0,
        -0.0,
        1.0 + f32::EPSILON,
        -2.0 + f32::EPSILON,
        3.0e38,
        1.0e-30,
    ]);
    // Rounding by the factor overflows for the largest ones only: no activation is as large.
    from[4] = 1.0e33;
    let parts = in_parts::<3>(&from, width);
    let lanes = part_lanes(width);
    for (row, parts) in from.chunks(width).zip(parts.as_slice().chunks(3 * lanes)) {
        let number = |part: usize, c: usize| {
            let (even, odd) = half::both(parts[part * lanes + c / 2]);
            if c.is_multiple_of(2) { even } else { odd }
        };
        for (c, x) in row.iter().enumerate() {
            let [p0, p1, p2] = [0, 1, 2].map(|part| f64::from(number(part, c)));
            assert_eq!(p0 + p1 + p2, f64::from(*x), "{x}");
            assert!(
                p1.abs() <= p0.abs() / 256.0 && p2.abs() <= p1.abs() / 256.0,
                "{x}: {p0} {p1} {p2}"
            );
        }
        for c in width..2 * lanes {
            assert!(
                (0..3).all(|part| number(part, c) == 0.0),
                "nothing behind the row"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn products_of_three_parts_are_as_near_as_those_of_floats(
        rows in 1usize..70, inner in 1usize..150, columns in 1usize..80, seed in 0u64..1000
    ) {
        let tiles = tiles_or_return!();
        let (a, b) = (numbers(rows * inner, seed), numbers(inner * columns, seed + 1));
        let shape = (inner, columns);
        let want = reference(&a, &b, shape);
        let got = errors(&on_tiles::<3>(&tiles, &a, &b, shape), &want, columns);
        // Half a unit for each of the few sums, and the products left out.
        let steps = (inner.div_ceil(32) * 6 + 17) as f64;
        let most = steps * f64::from(f32::EPSILON) / 2.0;
        for error in got {
            prop_assert!(error <= most, "{error:e} of at most {most:e}");
        }
    }

    #[test]
    fn products_of_one_part_are_those_of_the_rounded_numbers(
        rows in 1usize..70, inner in 1usize..150, columns in 1usize..80, seed in 0u64..1000
    ) {
        let tiles = tiles_or_return!();
        let rounded = |x: f32| half::widened(half::rounded(x));
        let a: Vec<f32> = numbers(rows * inner, seed).into_iter().map(rounded).collect();
        let b: Vec<f32> = numbers(inner * columns, seed + 1).into_iter().map(rounded).collect();
        let shape = (inner, columns);
        let want = reference(&a, &b, shape);
        for error in errors(&on_tiles::<1>(&tiles, &a, &b, shape), &want, columns) {
            prop_assert!(error <= 40.0 * f64::from(f32::EPSILON) / 2.0, "{error:e}");
        }
    }

    #[test]
    fn a_row_of_tiles_does_not_depend_on_the_rows_beside_it(
        rows in 2usize..70, inner in 1usize..100, columns in 1usize..70, seed in 0u64..1000
    ) {
        let tiles = tiles_or_return!();
        let (a, b) = (numbers(rows * inner, seed), numbers(inner * columns, seed + 1));
        let all = on_tiles::<3>(&tiles, &a, &b, (inner, columns));
        let last = on_tiles::<3>(&tiles, &a[(rows - 1) * inner..], &b, (inner, columns));
        prop_assert_eq!(&all[(rows - 1) * padded(columns)..], &last[..]);
    }
}

/// At the trainer's own size, beside the kernel of 32-bit floats: not further from the sums in double precision.
#[test]
fn three_parts_err_no_more_than_floats_do() {
    let check = || -> Result<(), ()> {
        let tiles = tiles_or_return!();
        for inner in [32, 64, 256] {
            let shape = (inner, 256);
            let (a, b) = (numbers(64 * inner, 1), numbers(inner * 256, 2));
            let want = reference(&a, &b, shape);
            let of_tiles = errors(&on_tiles::<3>(&tiles, &a, &b, shape), &want, 256);
            let of_floats = errors(&plain(&a, &b, shape), &want, 256);
            let worst = |errors: &[f64]| errors.iter().copied().fold(0.0, f64::max);
            println!(
                "{inner} terms: root mean square {:.2e} in parts, {:.2e} in floats; worst {:.2e}, {:.2e}",
                root_mean_square(&of_tiles),
                root_mean_square(&of_floats),
                worst(&of_tiles),
                worst(&of_floats)
            );
            assert!(root_mean_square(&of_tiles) <= root_mean_square(&of_floats));
            assert!(worst(&of_tiles) <= 1.5 * worst(&of_floats));
        }
        Ok(())
    };
    check().unwrap();
}
