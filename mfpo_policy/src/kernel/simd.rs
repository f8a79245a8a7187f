//! One vector register of each instruction set, in the few words that the kernels are written with.
//!
//! The kernels are generic over [`Simd`]; a value of an implementing type is the proof that the processor has the
//! instructions. [`super::dispatch`] makes such values, after run-time detection, inside functions that are compiled
//! for the instructions, so that everything here is inlined into them.

use super::half;

/// Vectors of 32-bit floats.
///
/// `load` and `store` take pointers: the caller keeps `LANES` numbers (`n` for the `_part` forms) valid there.
pub(crate) trait Simd: Copy {
    /// `LANES` 32-bit floats.
    type V: Copy;
    /// `LANES` 64-bit floats.
    type D: Copy;
    /// Numbers in a vector.
    const LANES: usize;
    /// Rows of a matrix product's tile: with two vectors a row they fill the registers.
    const TILE_ROWS: usize;
    /// Registers that a vector takes.
    const REGISTERS: usize = 1;
    /// [`Simd::round`] takes any number, and [`Simd::scale`] any `n` below 128: what is too small becomes 0, for -inf as well
    /// where `a` is NaN.
    const SCALES_TO_ZERO: bool = false;

    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `LANES` numbers can be read at `p`.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// # Safety
    /// `LANES` numbers can be written at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// The first `n < LANES` numbers, zeros behind.
    ///
    /// # Safety
    /// `n` numbers can be read at `p`.
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V;
    /// # Safety
    /// `n` numbers can be written at `p`.
    unsafe fn store_part(self, p: *mut f32, v: Self::V, n: usize);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b` to one unit in the last place.
    #[inline(always)]
    fn quotient(self, a: Self::V, b: Self::V) -> Self::V {
        self.mul(a, self.div(self.splat(1.0), b))
    }
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// `a b + c`.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The nearest whole number, for magnitudes below 2^22.
    fn round(self, a: Self::V) -> Self::V;
    /// `a 2^n` for whole `n` in `[-126, 127]` and a result that is a normal number.
    fn scale(self, a: Self::V, n: Self::V) -> Self::V;
    /// `c + a0 b0 + a1 b1` in each lane of pairs (see [`super::half`]).
    fn multiply_add_pairs(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Rounds to bfloat16.
    ///
    /// # Safety
    /// `LANES` halves can be written at `p`.
    unsafe fn store_halves(self, p: *mut u16, v: Self::V);
    /// `1 / a` to about 12 bits, for `a` from 2^-126 to 2^126.
    #[inline(always)]
    fn rough_reciprocal(self, a: Self::V) -> Self::V {
        self.div(self.splat(1.0), a)
    }
    fn sum(self, a: Self::V) -> f32;
    fn highest(self, a: Self::V) -> f32;
    fn zero_double(self) -> Self::D;
    /// `c + a b`, computed in double precision.
    fn fma_double(self, a: Self::V, b: Self::V, c: Self::D) -> Self::D;
    fn sum_double(self, a: Self::D) -> f64;
}

/// Eight numbers in any processor's registers; the compiler makes of it what the target has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// Lanes of [`Portable`].
const N: usize = 8;

/// Has every processor of the target fused multiply-add? Where it has not, `f32::mul_add` would call the C library.
pub(crate) const FUSES: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// One rounding where the target fuses, else two.
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    if FUSES { a.mul_add(b, c) } else { a * b + c }
}

impl Simd for Portable {
    type V = [f32; N];
    type D = [f64; N];
    const LANES: usize = N;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; N]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: the caller keeps N numbers readable; an array of f32 has their alignment.
        unsafe { p.cast::<Self::V>().read() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: the caller keeps N numbers writable; an array of f32 has their alignment.
        unsafe { p.cast::<Self::V>().write(v) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller keeps n numbers readable.
        let part = unsafe { std::slice::from_raw_parts(p, n) };
        let mut v = [0.0; N];
        v[..n].copy_from_slice(part);
        v
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: the caller keeps n numbers writable.
        unsafe { std::slice::from_raw_parts_mut(p, n) }.copy_from_slice(&v[..n]);
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i].sqrt())
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| fused(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves no bits behind the point
        std::array::from_fn(|i| (a[i] + ROUND) - ROUND)
    }
    #[inline(always)]
    fn scale(self, a: Self::V, n: Self::V) -> Self::V {
        std::array::from_fn(|i| {
            let exponent = (n[i] as i32).wrapping_shl(23) as u32;
            f32::from_bits(a[i].to_bits().wrapping_add(exponent))
        })
    }
    #[inline(always)]
    fn multiply_add_pairs(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| {
            let ((a0, a1), (b0, b1)) = (half::both(a[i]), half::both(b[i]));
            fused(a1, b1, fused(a0, b0, c[i]))
        })
    }
    #[inline(always)]
    unsafe fn store_halves(self, p: *mut u16, v: Self::V) {
        // SAFETY: the caller keeps N halves writable; an array of u16 has their alignment.
        unsafe { p.cast::<[u16; N]>().write(v.map(half::rounded)) }
    }
    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        a.iter().sum()
    }
    #[inline(always)]
    fn highest(self, a: Self::V) -> f32 {
        a.iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn zero_double(self) -> Self::D {
        [0.0; N]
    }
    #[inline(always)]
    fn fma_double(self, a: Self::V, b: Self::V, c: Self::D) -> Self::D {
        std::array::from_fn(|i| c[i] + f64::from(a[i]) * f64::from(b[i]))
    }
    #[inline(always)]
    fn sum_double(self, a: Self::D) -> f64 {
        a.iter().sum()
    }
}
