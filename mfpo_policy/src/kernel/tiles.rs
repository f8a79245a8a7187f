//! Matrix products on AMX, the tiles of Intel's processors: sixteen rows of sixteen pairs of bfloat16 against as many columns
//! in one instruction, summed in 32-bit floats. One takes the units of the tiles as long as 32 products of two AVX-512 vectors
//! take theirs, and multiplies sixteen times as much.
//!
//! [`Parts<1>`] rounds each number to bfloat16. [`Parts<3>`] splits it into three, each the bfloat16 nearest to what the ones
//! before have left: `x = x0 + x1 + x2` with no bit of a 32-bit float lost, `|x1| <= 2^-8 |x|` and `|x2| <= 2^-16 |x|`. Of the
//! nine products of two numbers six are summed, `x0 y0, x0 y1, x0 y2, x1 y1, x1 y0, x2 y0`. What is left out is at most 2^-23 of
//! `|x y|`, two roundings of a 32-bit float, and much less where not every rounding errs as far as it can. The sums are nearer
//! to the exact ones than those of [`super::matrix`]: sixteen products at a time are summed before they are added to the rest,
//! and the small ones among themselves.
//!
//! The processor takes numbers below 2^-126 as 0 here. An infinite number becomes NaN in parts, and so does one whose rounding
//! overflows: either ends a training by name.
//!
//! [`Parts<1>`]: super::matrix::Parts
//! [`Parts<3>`]: super::matrix::Parts

use std::arch::asm;
use std::sync::OnceLock;

use super::InstructionSet;
use super::matrix::{Left, PackedMatrix, TILE, Target, padded};

/// Rows that a product takes at a time: two tiles.
pub(crate) const ROWS: usize = 2 * TILE;

/// Proof that the processor has tiles of bfloat16, that this process may use them, and that this thread has set them up.
/// While it lives; it stays on its thread.
pub(crate) struct Tiles(std::marker::PhantomData<*const ()>);

/// The shapes of all tiles, as LDTILECFG reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row.
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// Eight whole tiles.
    const SHAPES: Shapes = Shapes {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    /// Does this process use them? Asks the operating system for the permission, once; `MFPO_KERNEL` may forbid it.
    pub(crate) fn are_there() -> bool {
        static THERE: OnceLock<bool> = OnceLock::new();
        *THERE.get_or_init(|| InstructionSet::detect() == InstructionSet::Amx && permission())
    }

    /// Sets this thread's tiles up, where they can be had.
    #[inline]
    pub(crate) fn set_up() -> Option<Self> {
        if !Self::are_there() {
            return None;
        }
        // SAFETY: `are_there`; LDTILECFG reads 64 bytes, which `Shapes` has, of a palette that every processor with tiles knows.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &Self::SHAPES, options(nostack, readonly, preserves_flags));
        }
        Some(Self(std::marker::PhantomData))
    }
}

impl Drop for Tiles {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: there are tiles; what they hold is not needed any more, and the kernel need not save it from now on.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}

/// Does the processor have tiles of bfloat16? Leaf 7: EDX bit 22 AMX-BF16, bit 24 AMX-TILE.
pub(super) fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const NEEDED: u32 = 1 << 22 | 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & NEEDED == NEEDED
}

/// Asks Linux for the tiles' state, which is given to a process that asks; older ones than 5.16 know of none.
#[cfg(target_os = "linux")]
fn permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: this call takes two numbers and touches no memory of the process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permission() -> bool {
    false
}

/// The registers are named in the instructions, and nothing else touches them between two of these: code that is not compiled
/// for AMX, as none here is, holds no instruction that could.
macro_rules! tile {
    (zero $t:literal) => {
        asm!(concat!("tilezero tmm", $t), options(nostack, nomem, preserves_flags))
    };
    (load $t:literal, $at:expr, $stride:expr) => {
        asm!(concat!("tileloadd tmm", $t, ", [{} + {}*1]"), in(reg) $at, in(reg) $stride,
            options(nostack, readonly, preserves_flags))
    };
    (store $t:literal, $at:expr, $stride:expr) => {
        asm!(concat!("tilestored [{} + {}*1], tmm", $t), in(reg) $at, in(reg) $stride,
            options(nostack, preserves_flags))
    };
    (sum $t:literal, $a:literal, $b:literal) => {
        asm!(concat!("tdpbf16ps tmm", $t, ", tmm", $a, ", tmm", $b), options(nostack, nomem, preserves_flags))
    };
}

/// `out = a b` for [`ROWS`] rows: each row of `a` holds N parts, one behind the other, and `b` was packed by
/// [`PackedMatrix::pack_parts`] with as many.
///
/// # Safety
/// `a` is readable for [`ROWS`] rows of `b.inner()` lanes, `out` writable for as many rows of `padded(b.columns())` numbers;
/// they do not overlap.
#[inline(always)]
pub(crate) unsafe fn product<const N: usize>(tiles: &Tiles, a: Left, b: &PackedMatrix, out: Target) {
    let whole = padded(b.columns());
    let mut first = 0;
    while first < whole {
        let (panel, width) = b.panel_at(first);
        let piece = Piece {
            start: panel,
            stride: width,
            lanes: b.inner() / N,
        };
        // SAFETY: the caller's promise for `a`, and for `out` up to `whole`, where the last panel ends; a panel has `inner`
        // rows of `width` numbers, which are 32 or 16.
        unsafe {
            let out = Target {
                start: out.start.add(first),
                ..out
            };
            if width == 2 * TILE {
                sums::<N, true>(tiles, a, piece, out);
            } else {
                sums::<N, false>(tiles, a, piece, out);
            }
        }
        first += width;
    }
}

/// A panel: N parts of `lanes` rows each, `stride` numbers apart.
#[derive(Clone, Copy)]
struct Piece {
    start: *const f32,
    stride: usize,
    lanes: usize,
}

/// Two tiles of results below one another, with `WIDE` as many beside them. Registers 0 to 3 hold the sums, 4 and 5 the rows, 6
/// and 7 the columns.
///
/// # Safety
/// `a` is readable for [`ROWS`] rows of `N lanes` lanes, `b` for as many rows of one tile's columns, with `WIDE` of two; `out`
/// is writable for [`ROWS`] rows of so many numbers; `lanes` is a multiple of [`TILE`]; N is 1 or 3.
#[inline(always)]
unsafe fn sums<const N: usize, const WIDE: bool>(_: &Tiles, a: Left, b: Piece, out: Target) {
    const { assert!(N == 1 || N == 3) };
    let (a_bytes, b_bytes, out_bytes) = (4 * a.row_stride, 4 * b.stride, 4 * out.stride);
    macro_rules! rows {
        ($part:literal, $k:ident) => {
            let at = a.start.add($part * b.lanes + $k);
            tile!(load 4, at, a_bytes);
            tile!(load 5, at.add(TILE * a.row_stride), a_bytes);
        };
    }
    macro_rules! columns {
        ($part:literal, $k:ident) => {
            let at = b.start.add(($part * b.lanes + $k) * b.stride);
            tile!(load 6, at, b_bytes);
            if WIDE {
                tile!(load 7, at.add(TILE), b_bytes);
            }
        };
    }
    macro_rules! sum {
        () => {
            tile!(sum 0, 4, 6);
            tile!(sum 2, 5, 6);
            if WIDE {
                tile!(sum 1, 4, 7);
                tile!(sum 3, 5, 7);
            }
        };
    }
    // SAFETY: `Tiles` proves that the instructions can be had and that all tiles are whole. A tile of rows at `(part, k)` ends at
    // lane `part lanes + k + 16 <= N lanes` of [`ROWS`] rows, one of columns at that row of the panel and at its 16th or 32nd
    // column; both are readable by contract, and `out` is writable for the two or four tiles of sums.
    unsafe {
        tile!(zero 0);
        tile!(zero 2);
        if WIDE {
            tile!(zero 1);
            tile!(zero 3);
        }
        let mut k = 0;
        // The small products first: what they add to is small as well, and is rounded so.
        while N == 3 && k < b.lanes {
            rows!(0, k);
            columns!(2, k);
            sum!();
            columns!(1, k);
            sum!();
            rows!(1, k);
            sum!();
            columns!(0, k);
            sum!();
            rows!(2, k);
            sum!();
            k += TILE;
        }
        k = 0;
        while k < b.lanes {
            rows!(0, k);
            columns!(0, k);
            sum!();
            k += TILE;
        }
        let below = out.start.add(TILE * out.stride);
        tile!(store 0, out.start, out_bytes);
        tile!(store 2, below, out_bytes);
        if WIDE {
            tile!(store 1, out.start.add(TILE), out_bytes);
            tile!(store 3, below.add(TILE), out_bytes);
        }
    }
}

#[cfg(test)]
#[path = "tiles_tests.rs"]
mod tests;
