//! The arithmetic of the networks on CPU slices.
//!
//! Each kernel is written once over vectors and compiled for AVX-512, for AVX2 with FMA and for the build's baseline, on
//! 64-bit ARM for NEON and the baseline; the best one that the processor has is chosen at run time. All are single-threaded
//! and allocate nothing; who has more cores splits the rows.

mod activation;
mod half;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod simd;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod trunk;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use thiserror::Error;

pub use activation::{AdamStep, LAYER_NORM_EPSILON, NormGradients, NormParameters};
pub use matrix::PackedMatrix;
pub(crate) use matrix::padded;
pub use trunk::Precision;
pub(crate) use trunk::{
    MOST_ROWS, Output, PackedLayer, Packing, RowBlock, TrunkScratch, TrunkView, run_trunk,
};

use activation::{
    adam_all, average_all, gelu_and_slope_all, norm_gelu_backward_row, norm_gelu_dual_row, norm_gelu_rows,
    sin_cos_all,
};
use matrix::{Left, Singles, Target, product_rows};
use simd::{FUSES, Portable, Simd};

/// The environment variable that names an instruction set.
const ASKED: &str = "MFPO_KERNEL";

/// The environment variable names an instruction set that this processor lacks, or none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "environment variable {ASKED} is '{asked}'; expected one that this processor has, {}, or no such variable, which takes {taken}",
    possible.join(", ")
)]
pub struct NoSuchKernel {
    /// What was asked for.
    asked: String,
    /// What can be had.
    possible: Vec<&'static str>,
    /// What is taken where nothing is asked for, and was taken instead.
    taken: &'static str,
}

/// The instruction set that the kernels run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// [`InstructionSet::Avx512Bf16`] and AMX with bfloat16, where the operating system gives it, for [`Precision::Split`] and
    /// [`Precision::Fast`].
    Amx,
    /// [`InstructionSet::Avx512`] and AVX-512 BF16, which only [`Precision::Fast`] makes use of.
    Avx512Bf16,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// NEON.
    Neon,
    /// What the build's target guarantees.
    Baseline,
}

impl InstructionSet {
    /// The best one that this processor has, found once. `MFPO_KERNEL` names a lower one; what cannot be had is as if it was
    /// not there, and [`InstructionSet::check_asked`] tells of it.
    pub fn detect() -> Self {
        static FOUND: OnceLock<InstructionSet> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let best = Self::of_processor();
            best.lowered(&asked()).unwrap_or(best)
        })
    }

    /// Can the one be had that `MFPO_KERNEL` names? For the start of a program.
    ///
    /// # Errors
    /// When it cannot; [`InstructionSet::detect`] takes the best one then.
    pub fn check_asked() -> Result<(), NoSuchKernel> {
        Self::of_processor().lowered(&asked()).map(|_| ())
    }

    /// The names of the sets that this processor has, as `MFPO_KERNEL` takes them.
    pub fn available() -> Vec<&'static str> {
        Self::of_processor().and_lower()
    }

    /// The set of this name, where a processor with `self` has it; `self` where there is no name.
    fn lowered(self, asked: &str) -> Result<Self, NoSuchKernel> {
        let is_wide = matches!(self, Self::Amx | Self::Avx512Bf16 | Self::Avx512);
        match asked {
            "" => Ok(self),
            "baseline" => Ok(Self::Baseline),
            "avx2" if is_wide => Ok(Self::Avx2),
            "avx512" if is_wide => Ok(Self::Avx512),
            name if name == Self::Baseline.name() => Ok(Self::Baseline),
            name if name == self.name() => Ok(self),
            _ => Err(NoSuchKernel {
                asked: asked.to_owned(),
                possible: self.and_lower(),
                taken: self.name(),
            }),
        }
    }

    /// The names of the sets that a processor with `self` has.
    fn and_lower(self) -> Vec<&'static str> {
        let above: &[Self] = match self {
            Self::Amx | Self::Avx512Bf16 | Self::Avx512 => &[Self::Avx2, Self::Avx512],
            Self::Avx2 => &[Self::Avx2],
            Self::Neon => &[Self::Neon],
            Self::Baseline => &[],
        };
        let all = std::iter::once(&Self::Baseline).chain(above);
        all.map(|set| set.name()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn of_processor() -> Self {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match (avx2, avx512) {
            (true, true) if is_x86_feature_detected!("avx512bf16") => {
                if tiles::has_tiles() {
                    Self::Amx
                } else {
                    Self::Avx512Bf16
                }
            }
            (true, true) => Self::Avx512,
            (true, false) => Self::Avx2,
            _ => Self::Baseline,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn of_processor() -> Self {
        Self::Neon
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn of_processor() -> Self {
        Self::Baseline
    }

    /// Numbers in a vector, and rows of a matrix product's tile.
    fn shape(self) -> (usize, usize) {
        const fn of<S: Simd>() -> (usize, usize) {
            (S::LANES, S::TILE_ROWS)
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx | Self::Avx512Bf16 | Self::Avx512 => of::<x86::Avx512>(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => of::<x86::Avx2>(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => of::<neon::Neon>(),
            _ => of::<Portable>(),
        }
    }

    /// Does the processor multiply bfloat16 faster than 32-bit floats, so that [`Precision::Fast`] is fast? With AMX sixteen
    /// times. Of AVX-512 Intel's have the instruction, but begin one where they begin four products of 32-bit floats (Xeon,
    /// family 6, model 207: 0.79 and 0.19 ns), so that half as much is multiplied; AMD's multiply twice as much.
    pub fn multiplies_halves_faster(self) -> bool {
        self.uses_tiles() || self == Self::Avx512Bf16 && !is_of_intel()
    }

    /// Are [`Precision::Split`] and [`Precision::Fast`] computed on AMX?
    #[cfg(target_arch = "x86_64")]
    pub fn uses_tiles(self) -> bool {
        self == Self::Amx && tiles::Tiles::are_there()
    }

    /// Are [`Precision::Split`] and [`Precision::Fast`] computed on AMX?
    #[cfg(not(target_arch = "x86_64"))]
    pub fn uses_tiles(self) -> bool {
        false
    }

    /// Name for records: two computers with the same name compute the same bits with [`Precision::Exact`]. The baseline
    /// of a target that fuses has a name of its own.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx | Self::Avx512Bf16 | Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Baseline if FUSES => "baseline_fma",
            Self::Baseline => "baseline",
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn is_of_intel() -> bool {
    let vendor = std::arch::x86_64::__cpuid(0);
    let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
    name.concat() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_of_intel() -> bool {
    false
}

/// What the environment asks for; empty where it asks for nothing.
fn asked() -> String {
    std::env::var_os(ASKED).map_or_else(String::new, |asked| asked.to_string_lossy().into_owned())
}

/// Work that is compiled once for each instruction set; `run` must be `#[inline(always)]`.
pub(crate) trait Kernel {
    /// Multiplies halves: runs with the instructions for them where the processor has them.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    const HALVES: bool = false;
    fn run<S: Simd>(self, s: S);
}

/// Runs `kernel` with the best instructions that the processor has.
pub(crate) fn dispatch<K: Kernel>(kernel: K) {
    dispatch_to(InstructionSet::detect(), kernel);
}

#[cfg(target_arch = "x86_64")]
fn dispatch_to<K: Kernel>(set: InstructionSet, kernel: K) {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn avx512<K: Kernel>(kernel: K) {
        // SAFETY: this function is only called where the processor has its features.
        kernel.run(unsafe { x86::Avx512::<false>::new() });
    }
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    fn avx512_halves<K: Kernel>(kernel: K) {
        // SAFETY: as above.
        kernel.run(unsafe { x86::Avx512::<true>::new() });
    }
    #[target_feature(enable = "avx2,fma")]
    fn avx2<K: Kernel>(kernel: K) {
        // SAFETY: as above.
        kernel.run(unsafe { x86::Avx2::new() });
    }
    match set {
        // SAFETY: `detect` returns this value only where the processor has the enabled features.
        InstructionSet::Amx | InstructionSet::Avx512Bf16 if K::HALVES => unsafe { avx512_halves(kernel) },
        // SAFETY: as above; the other set has these features, too.
        InstructionSet::Amx | InstructionSet::Avx512Bf16 | InstructionSet::Avx512 => unsafe {
            avx512(kernel)
        },
        // SAFETY: as above.
        InstructionSet::Avx2 => unsafe { avx2(kernel) },
        InstructionSet::Neon | InstructionSet::Baseline => kernel.run(Portable),
    }
}

#[cfg(target_arch = "aarch64")]
fn dispatch_to<K: Kernel>(set: InstructionSet, kernel: K) {
    match set {
        InstructionSet::Neon => kernel.run(neon::Neon),
        _ => kernel.run(Portable),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn dispatch_to<K: Kernel>(_: InstructionSet, kernel: K) {
    kernel.run(Portable);
}

struct Product<'a> {
    a: &'a [f32],
    transposed: bool,
    /// First row of the result that is wanted, and how many.
    rows: (usize, usize),
    /// Rows of the result in all.
    all: usize,
    b: &'a PackedMatrix,
    out: &'a mut [f32],
}

impl Kernel for Product<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (first, count) = self.rows;
        let (row_stride, inner_stride) = if self.transposed {
            (1, self.all)
        } else {
            (self.b.inner(), 1)
        };
        // SAFETY: `product` and `transposed_product` have checked that `a` holds `all x inner` numbers, that
        // `first + count <= all`, and that `out`, borrowed mutably, holds `count x columns`.
        unsafe {
            let a = Left {
                start: self.a.as_ptr().add(first * row_stride),
                row_stride,
                inner_stride,
            };
            let out = Target {
                start: self.out.as_mut_ptr(),
                stride: self.b.columns(),
            };
            product_rows::<S, Singles>(s, a, count, self.b, out);
        }
    }
}

/// `out = a b`: a `[R, K]`, b `[K, N]`, out `[R, N]`; out's length says how many rows.
///
/// # Panics
/// When a slice is too short.
pub fn product(a: &[f32], b: &PackedMatrix, out: &mut [f32]) {
    if b.columns() == 0 || out.is_empty() {
        return;
    }
    let rows = out.len() / b.columns();
    assert!(
        a.len() >= rows * b.inner(),
        "a holds {} numbers, {rows}x{} wanted",
        a.len(),
        b.inner()
    );
    dispatch(Product {
        a,
        transposed: false,
        rows: (0, rows),
        all: rows,
        b,
        out,
    });
}

/// Rows `first..` of `a^T b`: a `[K, M]`, b `[K, N]`, out `[count, N]`; out's length says how many rows.
///
/// # Panics
/// When a slice is too short.
pub fn transposed_product(a: &[f32], columns_of_a: usize, b: &PackedMatrix, first: usize, out: &mut [f32]) {
    if b.columns() == 0 || out.is_empty() {
        return;
    }
    let count = out.len() / b.columns();
    assert!(
        first + count <= columns_of_a && a.len() >= b.inner() * columns_of_a,
        "a holds {} numbers, {}x{columns_of_a} wanted for rows {first} to {}",
        a.len(),
        b.inner(),
        first + count
    );
    dispatch(Product {
        a,
        transposed: true,
        rows: (first, count),
        all: columns_of_a,
        b,
        out,
    });
}

struct NormGelu<'a> {
    z: &'a mut [f32],
    p: NormParameters<'a>,
}

impl Kernel for NormGelu<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.p.width();
        let rows = self.z.len() / width;
        let z = Target {
            start: self.z.as_mut_ptr(),
            stride: width,
        };
        // SAFETY: the rows are side by side, each as wide as the parameters.
        unsafe { norm_gelu_rows::<S, Singles>(s, (z, z), rows, |_| None, self.p) };
    }
}

/// In place, for each row of `z` `[R, H]`: `gelu(layer_norm(z + bias))`.
pub fn bias_norm_gelu(z: &mut [f32], p: NormParameters<'_>) {
    if p.width() > 0 {
        dispatch(NormGelu { z, p });
    }
}

struct NormGeluDual<'a> {
    z: &'a mut [f32],
    dz: &'a mut [f32],
    p: NormParameters<'a>,
}

impl Kernel for NormGeluDual<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (width, rows) = (self.p.width(), self.z.len() / self.p.width());
        let directions = self.dz.len() / self.z.len().max(1);
        let mut tangents = [std::ptr::null_mut(); MOST_TANGENTS];
        for r in 0..rows {
            for (d, tangent) in tangents.iter_mut().enumerate().take(directions) {
                *tangent = self.dz[(d * rows + r) * width..][..width].as_mut_ptr();
            }
            let row = self.z[r * width..][..width].as_mut_ptr();
            // SAFETY: all rows were just sliced at the width of the parameters, from different places.
            unsafe { norm_gelu_dual_row(s, row, &tangents[..directions], self.p) };
        }
    }
}

/// Directions that [`bias_norm_gelu_dual`] differentiates along in one call.
pub const MOST_TANGENTS: usize = 8;

/// [`bias_norm_gelu`] with its forward-mode derivatives: `z` `[R, H]` becomes the value, `dz` `[N, R, H]` (tangents of
/// `z` in N directions) the tangents.
///
/// # Panics
/// When there are more than [`MOST_TANGENTS`] directions.
pub fn bias_norm_gelu_dual(z: &mut [f32], dz: &mut [f32], p: NormParameters<'_>) {
    assert!(
        dz.len() <= MOST_TANGENTS * z.len(),
        "at most {MOST_TANGENTS} directions"
    );
    if p.width() > 0 && !z.is_empty() {
        dispatch(NormGeluDual { z, dz, p });
    }
}

struct NormGeluBackward<'a, 'b> {
    z: &'a [f32],
    grad: &'a mut [f32],
    p: NormParameters<'a>,
    out: &'a mut NormGradients<'b>,
}

impl Kernel for NormGeluBackward<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.p.width();
        for (z, grad) in self.z.chunks_exact(width).zip(self.grad.chunks_exact_mut(width)) {
            // SAFETY: both rows are as wide as the parameters.
            unsafe { norm_gelu_backward_row(s, z.as_ptr(), grad.as_mut_ptr(), self.p, self.out) };
        }
    }
}

/// Reverse mode of [`bias_norm_gelu`]: from `z` (before the bias); `grad`, the gradient of the result, becomes that of
/// `z`; the sums over rows are added to `out`.
pub fn bias_norm_gelu_backward(
    z: &[f32],
    grad: &mut [f32],
    p: NormParameters<'_>,
    out: &mut NormGradients<'_>,
) {
    if p.width() > 0 {
        dispatch(NormGeluBackward { z, grad, p, out });
    }
}

/// Two results for each number.
struct Pairwise<'a> {
    x: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    gelu: bool,
}

impl Kernel for Pairwise<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (first, second) = (self.first.as_mut_ptr(), self.second.as_mut_ptr());
        // SAFETY: the callers below have checked that both results are as long as `x`.
        unsafe {
            if self.gelu {
                gelu_and_slope_all(s, self.x, first, second);
            } else {
                sin_cos_all(s, self.x, first, second);
            }
        }
    }
}

fn pairwise(x: &[f32], first: &mut [f32], second: &mut [f32], gelu: bool) {
    assert!(
        first.len() == x.len() && second.len() == x.len(),
        "{} results of each kind were expected",
        x.len()
    );
    dispatch(Pairwise {
        x,
        first,
        second,
        gelu,
    });
}

/// `value = gelu(x)`, `slope = gelu'(x)`.
///
/// # Panics
/// When the lengths differ.
pub fn gelu_and_slope(x: &[f32], value: &mut [f32], slope: &mut [f32]) {
    pairwise(x, value, slope, true);
}

/// Sine and cosine.
///
/// # Panics
/// When the lengths differ.
pub fn sin_cos(x: &[f32], sin: &mut [f32], cos: &mut [f32]) {
    pairwise(x, sin, cos, false);
}

struct Adam<'a> {
    parameters: &'a mut [f32],
    moments: [&'a mut [f32]; 2],
    gradient: &'a [f32],
    step: AdamStep,
}

impl Kernel for Adam<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [first, second] = self.moments;
        let places = [self.parameters, first, second].map(<[f32]>::as_mut_ptr);
        // SAFETY: `adam_step` has checked that all are as long as the gradient.
        unsafe { adam_all(s, places, self.gradient, self.step) };
    }
}

/// One step of Adam; the moments are the first and the second.
///
/// # Panics
/// When the lengths differ.
pub fn adam_step(parameters: &mut [f32], moments: [&mut [f32]; 2], gradient: &[f32], step: AdamStep) {
    let lengths = [parameters.len(), moments[0].len(), moments[1].len()];
    assert_eq!(
        lengths,
        [gradient.len(); 3],
        "parameters and moments are as long as the gradient"
    );
    dispatch(Adam {
        parameters,
        moments,
        gradient,
        step,
    });
}

struct Average<'a>(&'a mut [f32], &'a [f32], (f32, f32));

impl Kernel for Average<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: `average` has checked that both have the same length.
        unsafe { average_all(s, self.0.as_mut_ptr(), self.1, self.2) };
    }
}

/// `x <- keep x + add y`.
///
/// # Panics
/// When the lengths differ.
pub fn average(x: &mut [f32], y: &[f32], (keep, add): (f32, f32)) {
    assert_eq!(x.len(), y.len(), "both have the same length");
    dispatch(Average(x, y, (keep, add)));
}

#[cfg(test)]
mod tests;
