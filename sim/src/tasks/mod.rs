//! The tasks, by domain. A domain is a folder, a task in it a file, always in the same order: constants with their
//! units, factory, physics words, starts, reward, success.

pub mod benchmark;
pub mod benchmark_env;
mod body;
pub mod dm_control;
pub mod gym;
pub mod models;
pub mod options;
pub mod registry;
pub mod robot_env;
pub mod robot_task;
pub mod robots;
pub mod rollout;

pub use benchmark::{Benchmark, BenchmarkTask};
pub use benchmark_env::BenchmarkEnv;
pub use body::Body;
pub use robot_env::RobotEnv;
pub use robot_task::{Hold, RobotTask, Start};
