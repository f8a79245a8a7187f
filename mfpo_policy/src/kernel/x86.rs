//! [`Simd`] with AVX2 + FMA and with AVX-512.

use std::arch::x86_64::*;

use super::simd::Simd;

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Proof that the processor has AVX-512 F, BW, DQ and VL (and AVX2 and FMA), and with `HALF` also AVX-512 BF16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const HALF: bool = false>(());

impl Avx2 {
    /// # Safety
    /// The processor has AVX2 and FMA.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

impl<const HALF: bool> Avx512<HALF> {
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ and VL, AVX2 and FMA, and with `HALF` also AVX-512 BF16.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

/// The first `n` lanes.
#[inline(always)]
fn mask16(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

// Every method is inlined into a function that `dispatch` has compiled for the instructions.
//
// SAFETY of every block below: `self` exists only where the processor has the instructions (`new`), and pointers are
// valid by the contract of the trait's method.
macro_rules! op {
    ($name:ident($($arg:ident),*) -> $ret:ty = $value:expr) => {
        #[inline(always)]
        fn $name(self, $($arg: Self::V),*) -> $ret {
            // SAFETY: see above.
            unsafe { $value }
        }
    };
}

impl<const HALF: bool> Simd for Avx512<HALF> {
    type V = __m512;
    type D = (__m512d, __m512d);
    const LANES: usize = 16;
    const TILE_ROWS: usize = 12;
    // VRNDSCALEPS leaves whole numbers and infinities as they are; VSCALEFPS gives 0 for NaN and -inf.
    const SCALES_TO_ZERO: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V {
        // SAFETY: see above; masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps(mask16(n), p) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: see above; masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(p, mask16(n), v) }
    }
    op!(add(a, b) -> Self::V = _mm512_add_ps(a, b));
    op!(sub(a, b) -> Self::V = _mm512_sub_ps(a, b));
    op!(mul(a, b) -> Self::V = _mm512_mul_ps(a, b));
    op!(div(a, b) -> Self::V = _mm512_div_ps(a, b));
    // The divider works beside the units of the products, which a reciprocal with Newton's step would keep busy.
    op!(quotient(a, b) -> Self::V = _mm512_div_ps(a, b));
    op!(sqrt(a) -> Self::V = _mm512_sqrt_ps(a));
    op!(max(a, b) -> Self::V = _mm512_max_ps(a, b));
    op!(min(a, b) -> Self::V = _mm512_min_ps(a, b));
    op!(fma(a, b, c) -> Self::V = _mm512_fmadd_ps(a, b, c));
    op!(round(a) -> Self::V = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a));
    op!(scale(a, n) -> Self::V = _mm512_scalef_ps(a, n));
    op!(multiply_add_pairs(a, b, c) -> Self::V = {
        if HALF {
            _mm512_dpbf16_ps(c, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b))
        } else {
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            let first = |v| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(v));
            let second = |v| _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(-65536)));
            _mm512_fmadd_ps(second(a), second(b), _mm512_fmadd_ps(first(a), first(b), c))
        }
    });
    #[inline(always)]
    unsafe fn store_halves(self, p: *mut u16, v: Self::V) {
        // SAFETY: see above; a half of each lane makes 256 bits.
        unsafe {
            let halves = if HALF {
                std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v))
            } else {
                let bits = _mm512_castps_si512(v);
                let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                let up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
                _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_add_epi32(bits, up)))
            };
            _mm256_storeu_si256(p.cast(), halves);
        }
    }
    op!(rough_reciprocal(a) -> Self::V = _mm512_rcp14_ps(a));
    op!(sum(a) -> f32 = _mm512_reduce_add_ps(a));
    op!(highest(a) -> f32 = _mm512_reduce_max_ps(a));
    #[inline(always)]
    fn zero_double(self) -> Self::D {
        // SAFETY: see above.
        unsafe { (_mm512_setzero_pd(), _mm512_setzero_pd()) }
    }
    #[inline(always)]
    fn fma_double(self, a: Self::V, b: Self::V, c: Self::D) -> Self::D {
        // SAFETY: see above.
        unsafe {
            let low = |v| _mm512_cvtps_pd(_mm512_castps512_ps256(v));
            let high = |v| _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(v));
            (
                _mm512_fmadd_pd(low(a), low(b), c.0),
                _mm512_fmadd_pd(high(a), high(b), c.1),
            )
        }
    }
    #[inline(always)]
    fn sum_double(self, a: Self::D) -> f64 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_add_pd(_mm512_add_pd(a.0, a.1)) }
    }
}

impl Avx2 {
    /// All bits set in the first `n` lanes.
    #[inline(always)]
    fn mask(self, n: usize) -> __m256i {
        const BITS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        debug_assert!(n <= 8);
        // SAFETY: the processor has AVX2 (`new`), and `8 - n` to `16 - n` lies inside the table for `n <= 8`.
        unsafe { _mm256_loadu_si256(BITS.as_ptr().add(8 - n.min(8)).cast()) }
    }
}

impl Simd for Avx2 {
    type V = __m256;
    type D = (__m256d, __m256d);
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Self::V) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_part(self, p: *const f32, n: usize) -> Self::V {
        // SAFETY: see above; masked lanes are not read.
        unsafe { _mm256_maskload_ps(p, self.mask(n)) }
    }
    #[inline(always)]
    unsafe fn store_part(self, p: *mut f32, v: Self::V, n: usize) {
        // SAFETY: see above; masked lanes are not written.
        unsafe { _mm256_maskstore_ps(p, self.mask(n), v) }
    }
    op!(add(a, b) -> Self::V = _mm256_add_ps(a, b));
    op!(sub(a, b) -> Self::V = _mm256_sub_ps(a, b));
    op!(mul(a, b) -> Self::V = _mm256_mul_ps(a, b));
    op!(div(a, b) -> Self::V = _mm256_div_ps(a, b));
    op!(sqrt(a) -> Self::V = _mm256_sqrt_ps(a));
    op!(max(a, b) -> Self::V = _mm256_max_ps(a, b));
    op!(min(a, b) -> Self::V = _mm256_min_ps(a, b));
    op!(fma(a, b, c) -> Self::V = _mm256_fmadd_ps(a, b, c));
    op!(round(a) -> Self::V = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a));
    op!(scale(a, n) -> Self::V = {
        let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
        _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent))
    });
    op!(multiply_add_pairs(a, b, c) -> Self::V = {
        let (a, b) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
        let first = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v));
        let second = |v| _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(-65536)));
        _mm256_fmadd_ps(second(a), second(b), _mm256_fmadd_ps(first(a), first(b), c))
    });
    #[inline(always)]
    unsafe fn store_halves(self, p: *mut u16, v: Self::V) {
        // SAFETY: see above; `packus` takes the low halves of each 128 bits, which the permutation puts side by side.
        unsafe {
            let bits = _mm256_castps_si256(v);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            let halves = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, up));
            let halves = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(halves, halves));
            _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(halves));
        }
    }
    op!(sum(a) -> f32 = {
        let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    });
    op!(highest(a) -> f32 = {
        let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
    });
    #[inline(always)]
    fn zero_double(self) -> Self::D {
        // SAFETY: see above.
        unsafe { (_mm256_setzero_pd(), _mm256_setzero_pd()) }
    }
    #[inline(always)]
    fn fma_double(self, a: Self::V, b: Self::V, c: Self::D) -> Self::D {
        // SAFETY: see above.
        unsafe {
            let low = |v| _mm256_cvtps_pd(_mm256_castps256_ps128(v));
            let high = |v| _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(v));
            (
                _mm256_fmadd_pd(low(a), low(b), c.0),
                _mm256_fmadd_pd(high(a), high(b), c.1),
            )
        }
    }
    #[inline(always)]
    fn sum_double(self, a: Self::D) -> f64 {
        // SAFETY: see above.
        unsafe {
            let four = _mm256_add_pd(a.0, a.1);
            let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }
}
