//! Where pictures of a task are taken from.

/// A place to look from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Camera {
    /// Where people are used to look from: the model's camera `track`, which follows the body; else its first camera,
    /// as the DeepMind Control Suite draws; else a free one that sees the whole model.
    #[default]
    Usual,
    /// A camera of the model.
    Named(&'static str),
}
