//! Tasks by name.

use std::sync::{Arc, RwLock};

use super::benchmark::Benchmark;
use super::benchmark_env::BenchmarkEnv;
use super::robot_env::RobotEnv;
use super::robot_task::RobotTask;
use super::robots::reach_arm::ReachArm;
use super::robots::swing_arm::SwingArm;
use super::rollout::Rollout;
use super::{dm_control, gym};
use crate::{Env, EnvOptions, Randomization, SimError, TaskOptions};

/// What an entry of the registry makes.
#[derive(Clone, Copy)]
enum Factory {
    /// A robot of our own, which also runs in real time.
    Robot(fn() -> Arc<dyn RobotTask>),
    /// A task of a benchmark.
    Benchmark(gym::Factory),
}

/// Robots of our own.
const ROBOTS: &[(&str, Factory)] = &[
    (SwingArm::NAME, Factory::Robot(|| Arc::new(SwingArm::new()))),
    (ReachArm::NAME, Factory::Robot(|| Arc::new(ReachArm::new()))),
];

/// Makes a benchmark from its options; [`super::options::read`] reads them into a struct.
pub type MakeBenchmark = fn(&TaskOptions) -> Result<Benchmark, SimError>;

/// Tasks that the program has added.
static ADDED: RwLock<Vec<(&str, MakeBenchmark)>> = RwLock::new(Vec::new());

/// Adds a task of one's own under a name, which every part of the program then knows. A task that was added before under
/// the same name is replaced; one that comes with this library stays what it is.
pub fn register(name: &'static str, make: MakeBenchmark) {
    let mut added = ADDED.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    added.retain(|(known, _)| *known != name);
    added.push((name, make));
}

/// Every task.
fn tasks() -> impl Iterator<Item = (&'static str, Factory)> {
    let added = ADDED
        .read()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .clone();
    let benchmarks = gym::TASKS.iter().chain(&dm_control::TASKS).copied();
    let benchmarks = benchmarks
        .chain(added)
        .map(|(name, make)| (name, Factory::Benchmark(make)));
    ROBOTS.iter().copied().chain(benchmarks)
}

/// The names of all tasks.
pub fn names() -> Vec<&'static str> {
    tasks().map(|(name, _)| name).collect()
}

/// Makes the task called `name`.
///
/// # Errors
/// [`SimError::UnknownTask`] naming the closest task, or an option or model that was refused.
pub fn make(name: &str, options: &EnvOptions) -> Result<Box<dyn Env>, SimError> {
    match find(name)? {
        Factory::Robot(factory) => Ok(Box::new(RobotEnv::new(factory(), options)?)),
        Factory::Benchmark(factory) => Ok(Box::new(BenchmarkEnv::new(
            name,
            factory(&options.task)?,
            options,
        )?)),
    }
}

/// Makes the task called `name` to be driven from outside, without randomisation.
///
/// # Errors
/// As [`make`].
pub fn rollout(name: &str, options: &EnvOptions) -> Result<Box<dyn Rollout>, SimError> {
    let options = EnvOptions {
        randomization: Randomization::none(),
        ..options.clone()
    };
    match find(name)? {
        Factory::Robot(factory) => Ok(Box::new(RobotEnv::new(factory(), &options)?)),
        Factory::Benchmark(factory) => Ok(Box::new(BenchmarkEnv::new(
            name,
            factory(&options.task)?,
            &options,
        )?)),
    }
}

/// The physics and the rules of the benchmark task called `name`, without an environment around them.
///
/// # Errors
/// As [`make`]; [`SimError::NotABenchmark`] for a robot of our own.
pub fn benchmark(name: &str, options: &EnvOptions) -> Result<Benchmark, SimError> {
    match find(name)? {
        Factory::Robot(_) => Err(SimError::NotABenchmark(name.to_owned())),
        Factory::Benchmark(factory) => factory(&options.task),
    }
}

/// Makes the robot of the task called `name`, to run it in real time.
///
/// # Errors
/// [`SimError::UnknownTask`] naming the closest task.
pub fn robot(name: &str) -> Result<Arc<dyn RobotTask>, SimError> {
    match find(name)? {
        Factory::Robot(factory) => Ok(factory()),
        Factory::Benchmark(_) => Err(SimError::NotARobot(name.to_owned())),
    }
}

fn find(name: &str) -> Result<Factory, SimError> {
    let known = tasks().find(|(task, _)| *task == name);
    known.map(|(_, factory)| factory).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> SimError {
    let similarity = |task: &str| strsim::jaro_winkler(task, name);
    let closest = names()
        .into_iter()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    SimError::UnknownTask {
        name: name.to_owned(),
        closest: closest.unwrap_or_default(),
        known: names().join(", "),
    }
}
