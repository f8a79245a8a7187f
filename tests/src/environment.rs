//! One test's corner of the machine: a ROS 2 domain, a folder, and the right to run.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::turn::{Turn, alone, beside_others};
use crate::{Peer, Process, program};

/// Above, DDS's ports lie among those that the kernel gives to anybody.
const DOMAINS: u32 = 100;

/// Where one test runs.
pub struct TestEnv {
    domain: u32,
    folder: TempDir,
    started: Cell<usize>,
    /// Held while the test runs: no other test, of this or another run, has the domain.
    _domain_lock: File,
    _turn: Turn,
}

impl TestEnv {
    /// For tests that others may run beside.
    #[allow(clippy::new_without_default, reason = "it waits and takes a domain")]
    pub fn new() -> Self {
        Self::with(beside_others())
    }

    /// For tests that measure time.
    pub fn alone() -> Self {
        Self::with(alone())
    }

    fn with(turn: Turn) -> Self {
        let (domain, lock) = free_domain();
        Self {
            domain,
            folder: tempfile::tempdir().expect("a folder"),
            started: Cell::new(0),
            _domain_lock: lock,
            _turn: turn,
        }
    }

    /// The test's own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the test's folder and returns its path.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("a file in the test's folder");
        path
    }

    /// A command in the test's domain, with nothing of the caller's ROS 2 but what is installed.
    pub fn command(&self, path: &Path) -> Command {
        let mut command = Command::new(path);
        for name in [
            "RUST_LOG",
            "ROS_LOCALHOST_ONLY",
            "ROS_NAMESPACE",
            "ROS_STATIC_PEERS",
        ] {
            command.env_remove(name);
        }
        command
            .env("ROS_DOMAIN_ID", self.domain.to_string())
            .env("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
            .env("ROS_LOG_DIR", self.folder.path())
            .current_dir(self.folder.path());
        command
    }

    /// Starts a program of this workspace.
    pub fn start(&self, name: &str, arguments: &[&str]) -> Process {
        let mut command = self.command(&program(name));
        command.args(arguments);
        Process::start(name, command, &self.log_path(name))
    }

    /// Runs a program of this workspace to its end.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(&program(name));
        command.args(arguments).output().expect(name)
    }

    /// Starts `control` with parameters as `name:=value`. States go stale after a second unless a parameter says
    /// otherwise: on a busy machine the test's own publisher pauses for a moment.
    pub fn control(&self, parameters: &[&str]) -> Process {
        self.control_in("/", parameters)
    }

    /// Starts `control` in a namespace.
    pub fn control_in(&self, namespace: &str, parameters: &[&str]) -> Process {
        let namespace = format!("__ns:={namespace}");
        let mut arguments = vec!["--ros-args"];
        if namespace != "__ns:=/" {
            arguments.extend(["-r", &namespace]);
        }
        let patient = "stale_timeout:=1.0";
        let says_when = parameters.iter().any(|p| p.starts_with("stale_timeout:="));
        for parameter in parameters.iter().chain((!says_when).then_some(&patient)) {
            arguments.extend(["-p", parameter]);
        }
        self.start("control", &arguments)
    }

    /// Starts a program made of rclpy in a namespace ("" is none).
    pub fn peer(&self, namespace: &str) -> Peer {
        Peer::start(self, namespace)
    }

    pub(crate) fn log_path(&self, name: &str) -> PathBuf {
        let number = self.started.get();
        self.started.set(number + 1);
        self.path(&format!("{number}-{name}.log"))
    }
}

/// A domain that no other test on this machine uses, with the lock that says so.
fn free_domain() -> (u32, File) {
    let first = std::process::id() % DOMAINS;
    for domain in (0..DOMAINS).map(|i| 1 + (first + i) % DOMAINS) {
        let path = std::env::temp_dir().join(format!("mfpo_tests_domain_{domain}.lock"));
        // Another user's file cannot be opened; then the domain is theirs.
        let Ok(file) = File::options().create(true).append(true).open(path) else {
            continue;
        };
        if file.try_lock().is_ok() {
            return (domain, file);
        }
    }
    panic!("all {DOMAINS} ROS 2 domains are in use by other tests");
}
