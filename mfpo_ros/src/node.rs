//! Nodes of this process. The ROS context is one per process and reads the process' ROS arguments (remaps,
//! parameter files, namespace).

use thiserror::Error;

/// A ROS 2 call that failed, with what it was for.
#[derive(Debug, Error)]
#[error("{doing} failed: {source}")]
pub struct RosError {
    /// What was being done.
    pub doing: String,
    /// What rcl said.
    pub source: r2r::Error,
}

impl RosError {
    /// `map_err(RosError::while_doing("..."))`.
    pub fn while_doing(doing: impl Into<String>) -> impl FnOnce(r2r::Error) -> Self {
        move |source| Self {
            doing: doing.into(),
            source,
        }
    }
}

/// A node of the process' one context. Its namespace comes from the ROS arguments.
///
/// # Errors
/// When rcl refuses the name or the middleware does not start.
pub fn create_node(name: &str) -> Result<r2r::Node, RosError> {
    let context = r2r::Context::create().map_err(RosError::while_doing(
        "starting ROS 2 (is its environment sourced, and are the --ros-args well formed?)",
    ))?;
    r2r::Node::create(context, name, "").map_err(RosError::while_doing(format!("creating node '{name}'")))
}
