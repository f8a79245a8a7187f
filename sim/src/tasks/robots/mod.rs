//! Robots of our own.

pub mod reach_arm;
pub mod swing_arm;
