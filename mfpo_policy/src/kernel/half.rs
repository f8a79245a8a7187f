//! bfloat16: the upper half of a 32-bit float, 8 bits of mantissa. Two neighbours share a 32-bit lane, the first in the
//! lower half, as the processors' dot products want them.

/// The bfloat16 nearest to `x`, ties to even; `x` is not NaN.
#[inline(always)]
pub(crate) fn rounded(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// The number that a bfloat16 stands for.
#[cfg(any(test, target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn widened(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// A lane that holds both numbers, rounded.
#[inline(always)]
pub(crate) fn pair(first: f32, second: f32) -> f32 {
    lane(rounded(first), rounded(second))
}

/// The lane of two bfloat16.
#[inline(always)]
pub(crate) fn lane(first: u16, second: u16) -> f32 {
    f32::from_bits(u32::from(second) << 16 | u32::from(first))
}

/// Both numbers of a lane.
#[inline(always)]
pub(crate) fn both(lane: f32) -> (f32, f32) {
    let bits = lane.to_bits();
    (f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000))
}
