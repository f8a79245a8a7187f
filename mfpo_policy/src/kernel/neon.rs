//! [`Simd`] with NEON, which every 64-bit ARM processor that Linux runs on has: nothing is detected.
//!
//! A vector is two registers of the 32, so that each number of a product's left-hand side is loaded for four.

use std::arch::aarch64::*;

use super::simd::Simd;

/// NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

const _: () = assert!(cfg!(target_feature = "neon"), "the build's target has NEON");

// Every method is inlined into a function that is compiled for the build's target.
//
// SAFETY of every block below: the target has the instructions (asserted above), and pointers are valid by the contract of
// the trait's method.

/// The same operation on both registers.
macro_rules! op {
    ($name:ident($($arg:ident),*) = $value:expr) => {
        #[inline(always)]
        fn $name(self, $($arg: Self::V),*) -> Self::V {
            let half = |$($arg: float32x4_t),*| -> float32x4_t {
                // SAFETY: see above.
                unsafe { $value }
            };
            (half($($arg.0),*), half($($arg.1),*))
        }
    };
}

impl Simd for Neon {
    type V = (float32x4_t, float32x4_t);
    type D = [float64x2_t; 4];
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;
    const REGISTERS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: see above.
        let all = unsafe { vdupq_n_f32(x) };
        (all, all)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: see above.
        unsafe { (vld1q_f32(p), vld1q_f32(p.add(4))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: see above.
        unsafe {
            vst1q_f32(p, v.0);
            vst1q_f32(p.add(4), v.1);
        }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V {
        let mut part = [0.0; Self::LANES];
        // SAFETY: see above; `n < LANES` numbers fit.
        unsafe {
            std::ptr::copy_nonoverlapping(p, part.as_mut_ptr(), n);
            self.load(part.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, v: Self::V, n: usize) {
        let mut part = [0.0; Self::LANES];
        // SAFETY: see above; `n < LANES` numbers are there.
        unsafe {
            self.store(part.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(part.as_ptr(), p, n);
        }
    }
    op!(add(a, b) = vaddq_f32(a, b));
    op!(sub(a, b) = vsubq_f32(a, b));
    op!(mul(a, b) = vmulq_f32(a, b));
    op!(div(a, b) = vdivq_f32(a, b));
    op!(sqrt(a) = vsqrtq_f32(a));
    // Unlike those of x86 these two give NaN wherever one of both is NaN.
    op!(max(a, b) = vmaxq_f32(a, b));
    op!(min(a, b) = vminq_f32(a, b));
    op!(fma(a, b, c) = vfmaq_f32(c, a, b));
    op!(round(a) = vrndnq_f32(a));
    op!(scale(a, n) = {
        let exponent = vshlq_n_s32::<23>(vcvtq_s32_f32(n));
        vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), exponent))
    });
    op!(multiply_add_pairs(a, b, c) = {
        let (a, b) = (vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b));
        let first = |v| vreinterpretq_f32_u32(vshlq_n_u32::<16>(v));
        let second = |v| vreinterpretq_f32_u32(vandq_u32(v, vdupq_n_u32(0xffff_0000)));
        vfmaq_f32(vfmaq_f32(c, first(a), first(b)), second(a), second(b))
    });
    #[inline(always)]
    unsafe fn store_halves(self, p: *mut u16, v: Self::V) {
        // SAFETY: see above; halves of four lanes make 64 bits.
        unsafe {
            let halves = |v| {
                let bits = vreinterpretq_u32_f32(v);
                let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
                let up = vaddq_u32(odd, vdupq_n_u32(0x7fff));
                vshrn_n_u32::<16>(vaddq_u32(bits, up))
            };
            vst1q_u16(p, vcombine_u16(halves(v.0), halves(v.1)));
        }
    }
    op!(rough_reciprocal(a) = {
        // 8 bits, and one step of Newton's.
        let r = vrecpeq_f32(a);
        vmulq_f32(r, vrecpsq_f32(a, r))
    });
    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe { vaddvq_f32(vaddq_f32(a.0, a.1)) }
    }
    #[inline(always)]
    fn highest(self, a: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe { vmaxvq_f32(vmaxq_f32(a.0, a.1)) }
    }
    #[inline(always)]
    fn zero_double(self) -> Self::D {
        // SAFETY: see above.
        unsafe { [vdupq_n_f64(0.0); 4] }
    }
    #[inline(always)]
    fn fma_double(self, a: Self::V, b: Self::V, c: Self::D) -> Self::D {
        // SAFETY: see above.
        unsafe {
            let low = |a, b, c| vfmaq_f64(c, vcvt_f64_f32(vget_low_f32(a)), vcvt_f64_f32(vget_low_f32(b)));
            let high = |a, b, c| vfmaq_f64(c, vcvt_high_f64_f32(a), vcvt_high_f64_f32(b));
            [
                low(a.0, b.0, c[0]),
                high(a.0, b.0, c[1]),
                low(a.1, b.1, c[2]),
                high(a.1, b.1, c[3]),
            ]
        }
    }
    #[inline(always)]
    fn sum_double(self, a: Self::D) -> f64 {
        // SAFETY: see above.
        unsafe { vaddvq_f64(vaddq_f64(vaddq_f64(a[0], a[1]), vaddq_f64(a[2], a[3]))) }
    }
}
