//! What the benchmarks of the node stand on: a robot that publishes states on an absolute schedule, a receiver of what
//! the node sends, the node, a trainer and a sender of bundles as processes, and the figures that are printed.
//!
//! The robot's threads stand for a robot that keeps time: where real-time priority is permitted they have a higher one
//! than any node, and those of its middleware too, so that what is measured is the node's lateness, not theirs.

mod answers;
mod audit;
mod comparison;
mod lateness;
mod lineage;
mod misses;
mod node;
mod pairing;
mod receiver;
mod robot;
mod sampler;
mod sender;
mod sequence;
mod table;
mod trainer;

use std::process::ExitCode;

use mfpo_ros::{environment, this_machine, transport};

pub use answers::{Answer, Answers, Charged};
pub use audit::{Audit, Audited, Said};
pub use comparison::Turns;
pub use lateness::{Served, served};
pub use lineage::{Lineage, Named};
pub use misses::{Judged, Miss, Misses};
pub use node::{Node, NodeOptions, without_stages};
pub use pairing::Pairing;
pub use receiver::Receiver;
pub use robot::{Bundles, JOINTS, NewBundle, Published, Robot, Says, bundle, large_bundle};
pub use sampler::{Evidence, Sampler};
pub use sender::{Sealed, Sender, Way, send_bundles};
pub use sequence::{Account, Sequence};
pub use table::{Figures, HEAD, machine, microseconds};
pub use trainer::Trainer;

/// The policy commands the robot (`mfpo_msgs/PolicyStatus`).
pub const ACTIVE: u8 = 2;
/// Priority of the robot's own threads; above every node's.
const OWN_PRIORITY: i32 = 80;
/// Priority of the robot's middleware.
const MIDDLEWARE_PRIORITY: u64 = 75;

/// Away from other robots and other tests on this machine, unless the user has chosen where. Call it first: the program
/// begins anew.
///
/// # Panics
/// When that fails.
pub fn isolate() {
    let own = (std::process::id() % 90 + 10).to_string();
    let distro = std::env::var("ROS_DISTRO").ok();
    let range = this_machine::variable(distro.as_deref());
    let missing: Vec<_> = [range, ("ROS_DOMAIN_ID", own.as_str())]
        .into_iter()
        .filter(|(name, _)| std::env::var_os(name).is_none())
        .map(|(name, value)| (name, Some(value)))
        .collect();
    environment::restart_with(&missing).expect("this benchmark begins anew");
    transport::settle();
}

/// The end of a benchmark: a failure is told under its name.
pub fn ended(bench: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench {bench}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Puts the calling thread and the middleware's before every ordinary one; `false` where that is not permitted.
pub fn go_realtime() -> bool {
    mfpo_ros::realtime::raise_middleware(MIDDLEWARE_PRIORITY);
    let parameters = libc::sched_param {
        sched_priority: OWN_PRIORITY,
    };
    // SAFETY: the pointer is valid for the call; 0 is the calling thread. A failure changes nothing.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) == 0 }
}
