//! What the tests of the whole system stand on: a ROS 2 domain of its own for each test, the programs of this
//! workspace as processes that never outlive it, and a [`Peer`] made of rclpy that speaks to them over DDS.
//!
//! The programs are those beside the test in the target folder. `cargo xtask test` builds them; `cargo test
//! --workspace --release --features mfpo_sim/ros` does, too.

pub mod bundles;
mod environment;
pub mod faults;
mod held;
mod network;
pub mod peer;
mod process;
mod programs;
pub mod rig;
mod run_delay;
mod turn;
mod witness;

pub use environment::TestEnv;
pub use held::Held;
pub use network::Cut;
pub use peer::{Peer, Qos};
pub use process::Process;
pub use programs::{program, repository};
pub use turn::{alone, beside_others};
pub use witness::Witness;

use std::time::{Duration, Instant};

/// How long anything may take: far more than it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none within [`PATIENCE`]; `what` then says what was waited for.
pub fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Does `text` hold every one of `words`? The whole text is shown when it does not.
///
/// # Panics
/// When one is missing.
pub fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "expected the words '{word}' in:\n{text}");
    }
}
