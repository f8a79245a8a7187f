//! Why a bundle may not go live, with expected and got.

use mfpo_policy::bundle::BundleError;
use mfpo_policy::sampler::SampleError;
use mfpo_policy::signature::SignatureError;
use thiserror::Error;

/// Why a bundle was refused: expected and got.
#[derive(Debug, Error)]
pub enum Refused {
    /// The file itself.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Not signed by somebody who is trusted.
    #[error("{0} (parameter trusted_keys)")]
    Signature(#[from] SignatureError),
    /// For no robot at all.
    #[error(
        "the bundle is for the task '{task}', which is in the simulator only; expected one for a robot: train a task \
         that has one, for example swing_arm"
    )]
    NoRobot {
        /// The bundle's task.
        task: String,
    },
    /// For another robot.
    #[error("the bundle is for robot '{got}'; expected '{expected}'")]
    Robot {
        /// The robot here.
        expected: String,
        /// The bundle's.
        got: String,
    },
    /// Trained for another rate.
    #[error("the policy was trained for {got} Hz (control period {got_ms} ms); expected {expected} Hz")]
    ControlPeriod {
        /// The node's rate, Hz.
        expected: f64,
        /// The policy's rate, Hz.
        got: f64,
        /// The policy's period, ms.
        got_ms: f64,
    },
    /// Made for another spec of this robot.
    #[error(
        "the policy was made for another robot spec: {difference} (spec hash: expected {expected}, got {got})"
    )]
    Spec {
        /// What differs first.
        difference: String,
        /// The live policy's spec hash.
        expected: String,
        /// The bundle's.
        got: String,
    },
    /// Another file than the one that was announced.
    #[error("the file holds the bundle with digest {got}; announced was {announced}: announce it again")]
    Announced {
        /// The digest that was announced.
        announced: String,
        /// The file's.
        got: String,
    },
    /// Another training run.
    #[error(
        "run '{got}' may not take over from run '{live}'; expected one of [{allowed}] (parameter accept_runs)"
    )]
    Run {
        /// The live run.
        live: String,
        /// The runs that may.
        allowed: String,
        /// The bundle's run.
        got: String,
    },
    /// Not newer within its run.
    #[error(
        "version {got} of run '{run}' is not newer; expected above {newest} (parameter allow_downgrade permits an older one)"
    )]
    Version {
        /// The run.
        run: String,
        /// The newest version that went live.
        newest: u64,
        /// The bundle's.
        got: u64,
    },
    /// Older than what has acted, although it would be the first one now.
    #[error(
        "version {got} of run '{run}' is older than what has acted since the node started: expected the file that acted \
         last, or a version above {newest} (parameter allow_downgrade permits an older one)"
    )]
    Older {
        /// The run.
        run: String,
        /// The newest version that went live.
        newest: u64,
        /// The bundle's.
        got: u64,
    },
    /// Best of N was asked for without critics to choose with.
    #[error("the bundle carries no critics; expected some, because parameter candidates is {candidates}")]
    NoCritics {
        /// The parameter.
        candidates: usize,
    },
    /// Sampling failed.
    #[error("the policy gives no action: {0}")]
    Sample(#[from] SampleError),
    /// Too slow.
    #[error(
        "the policy takes {got_us:.0} us an action; expected at most {expected_us:.0} us, half its control period"
    )]
    Latency {
        /// The most it may take, us.
        expected_us: f64,
        /// What it takes, us.
        got_us: f64,
    },
}

impl Refused {
    /// May a parameter that changes while the node runs permit the bundle after all?
    pub const fn is_curable(&self) -> bool {
        matches!(
            self,
            Self::Run { .. }
                | Self::Version { .. }
                | Self::Older { .. }
                | Self::NoCritics { .. }
                | Self::Latency { .. }
        )
    }
}
