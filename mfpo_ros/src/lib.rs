//! What every ROS 2 executable of this workspace shares: quality of service by topic and whether two ends of one fit, remapped
//! names, log output and `/rosout`, node creation, parameter files and the nodes that they are for, parameters that refuse with a
//! reason and their services, inboxes that keep up, threads whose panic ends the process, spin threads, the shutdown flag, what
//! keeps a process to this machine, how it reaches others, the environment, and conversions between messages and the types of `mfpo_policy`.

pub mod args;
pub mod convert;
pub mod environment;
pub mod fit;
pub mod graph;
pub mod inbox;
pub mod log;
pub mod node;
pub mod parameter_server;
pub mod parameters;
mod params_file;
pub mod qos;
mod rcl;
pub mod realtime;
pub mod remap;
pub mod rosout;
pub mod shutdown;
pub mod spin;
pub mod this_machine;
pub mod thread;
pub mod time;
pub mod transport;

pub use inbox::Inbox;
pub use node::{RosError, create_node};
pub use params_file::ParamsFile;
pub use r2r;
pub use remap::Remaps;
pub use spin::SpinThread;
