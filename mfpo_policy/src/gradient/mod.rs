//! Reverse and forward mode of the networks on CPU slices, without a tape: what candle does with a graph of tensors,
//! done layer by layer in the kernels of [`crate::kernel`].
//!
//! Rows are split into segments of [`SEGMENT`] that go forward and back on their own, so that a team of threads needs
//! two rounds for a whole network: one over segments, one over the kernels' gradients. Every sum has an order that does
//! not depend on the number of threads. Weights, gradients and what lies between the layers stay in the memory of the pass
//! before; what a pass adds to begins at 0, all else is written before it is read.

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

/// The memory of the gradient called `name`, of `size` numbers; who asks for it writes all of them.
fn slot(of: &mut (String, Vec<f32>), name: String, size: usize) -> &mut [f32] {
    of.0 = name;
    of.1.resize(size, 0.0);
    &mut of.1
}

#[cfg(test)]
mod tests;
