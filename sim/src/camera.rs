//! Where pictures of a task are taken from.

/// A place to look from.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Camera {
    /// Where people are used to look from: the model's camera `track`, which follows the body; else its first camera,
    /// as the DeepMind Control Suite draws; else a free one that sees the whole model.
    #[default]
    Usual,
    /// A camera of the model.
    Named(&'static str),
    /// A free one, from half above, against the y axis.
    Towards {
        /// What is in the middle of the picture, m.
        point: [f64; 3],
        /// How far away it is, m.
        distance: f64,
    },
}

/// How carefully a picture is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// As the model says.
    Still,
    /// Coarser shadows and edges: without a GPU a picture then takes less than half the time.
    Film,
}

/// What a picture shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Where it is taken from.
    pub camera: Camera,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// How carefully it is drawn.
    pub detail: Detail,
}
