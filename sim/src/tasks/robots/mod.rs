//! Robots of our own.

pub mod swing_arm;
