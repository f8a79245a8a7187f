//! Reverse and forward mode of the networks on CPU slices, without a tape: what candle does with a graph of tensors,
//! done layer by layer in the kernels of [`crate::kernel`].
//!
//! Rows are split into segments of [`SEGMENT`] that go forward and back on their own, so that a team of threads needs
//! two rounds for a whole network: one over segments, one over the kernels' gradients. Every sum has an order that does
//! not depend on the number of threads.

mod critic;
mod embedder;
mod flow;
mod team;
mod trunk;

pub use critic::CriticGradient;
pub use flow::{FlowGradient, FlowRows, FlowTangents, FlowWeights};
pub use team::Team;

/// Rows that one job takes through a network.
pub const SEGMENT: usize = 64;

/// Gradients by the names of their parameters.
pub type NamedGradients = Vec<(String, Vec<f32>)>;

#[cfg(test)]
mod tests;
