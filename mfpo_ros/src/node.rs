//! Nodes of this process. The ROS context is one per process and reads the process' ROS arguments (remaps,
//! parameter files, namespace).

use std::panic::{catch_unwind, set_hook, take_hook};

use thiserror::Error;

use crate::transport;

/// A ROS 2 call that failed, with what it was for.
#[derive(Debug, Error)]
pub enum RosError {
    /// ROS 2 itself did not start.
    #[error(
        "ROS 2 does not start: {0}; check the arguments after --ros-args, and that ROS 2's environment is sourced"
    )]
    Start(String),
    /// One call failed.
    #[error("{doing} failed: {source}")]
    Call {
        /// What was being done.
        doing: String,
        /// What rcl said.
        source: r2r::Error,
    },
    /// One call of rcl's own failed.
    #[error("{doing} failed: {reason}")]
    Rcl {
        /// What was being done.
        doing: &'static str,
        /// What rcl said.
        reason: String,
    },
}

impl RosError {
    /// `map_err(RosError::while_doing("..."))`.
    pub fn while_doing(doing: impl Into<String>) -> impl FnOnce(r2r::Error) -> Self {
        move |source| Self::Call {
            doing: doing.into(),
            source,
        }
    }
}

/// A node of the process' one context. Its namespace comes from the ROS arguments.
///
/// # Errors
/// When rcl refuses an argument or the name, or the middleware does not start.
pub fn create_node(name: &str) -> Result<r2r::Node, RosError> {
    let context = create_context()?;
    let node = r2r::Node::create(context, name, "")
        .map_err(RosError::while_doing(format!("creating node '{name}'")))?;
    transport::tell();
    Ok(node)
}

/// r2r panics with rcl's message when an argument is malformed; here it becomes an error.
fn create_context() -> Result<r2r::Context, RosError> {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let created = catch_unwind(r2r::Context::create);
    set_hook(hook);
    match created {
        Ok(context) => context.map_err(|error| RosError::Start(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Err(RosError::Start(first_cause(&text).to_owned()))
        }
    }
}

/// rcl's message without the places in its sources: `what went wrong, at file.c:123`.
pub(crate) fn first_cause(text: &str) -> &str {
    text.split(", at /").next().unwrap_or(text)
}
