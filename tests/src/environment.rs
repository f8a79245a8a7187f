//! One test's corner of the machine: a ROS 2 domain, a folder, and the right to run.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mfpo_ros::{this_machine, transport};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use tempfile::TempDir;

use crate::turn::{Turn, alone, beside_others};
use crate::{Peer, Process, program};

/// Above, DDS's ports lie among those that the kernel gives to anybody.
const DOMAINS: u32 = 100;
/// The file with the settings of Fast DDS.
const PROFILES: &str = "fast_dds.xml";

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
        let own = [
            "RUST_LOG",
            "ROS_LOCALHOST_ONLY",
            "ROS_NAMESPACE",
            "FASTDDS_BUILTIN_TRANSPORTS",
        ];
        for name in own.into_iter().chain(this_machine::ELSEWHERE) {
            command.env_remove(name);
        }
        let distro = std::env::var("ROS_DISTRO").ok();
        let range = this_machine::variable(distro.as_deref());
        command
            .env("ROS_DOMAIN_ID", self.domain.to_string())
            .env(range.0, range.1)
            .env("ROS_LOG_DIR", self.folder.path())
            .env("ROS_HOME", self.folder.path())
            .current_dir(self.folder.path());
        command
    }

    /// [`TestEnv::command`] for a program that is not of this workspace, and reaches others by UDP alone as those do: what
    /// shared memory does to whoever uses it is no fault of ours.
    pub fn command_by_udp(&self, path: &Path) -> Command {
        let profile = self.path(PROFILES);
        if !profile.exists() {
            self.file(PROFILES, transport::THIS_MACHINE.as_bytes());
        }
        let distro = std::env::var("ROS_DISTRO").ok();
        let mut command = self.command(path);
        command.envs(transport::on_this_machine(
            distro.as_deref(),
            &profile.to_string_lossy(),
        ));
        command
    }

    /// Starts a program of this workspace.
    pub fn start(&self, name: &str, arguments: &[&str]) -> Process {
        let mut command = self.command(&program(name));
        command.args(arguments);
        self.launch(name, command)
    }

    /// Starts a command of this test's, called `name` where it is told of.
    pub fn launch(&self, name: &str, command: Command) -> Process {
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

    /// Starts `control` as a user may who has no privilege to lock memory or to go before others.
    pub fn control_without_privileges(&self, parameters: &[&str]) -> Process {
        let mut command = self.command(&program("control"));
        command.args(arguments_of("/", parameters));
        // SAFETY: prctl and setrlimit are async-signal-safe.
        unsafe { command.pre_exec(give_up_privileges) };
        self.launch("control", command)
    }

    /// Starts `control` in a namespace.
    pub fn control_in(&self, namespace: &str, parameters: &[&str]) -> Process {
        let arguments = arguments_of(namespace, parameters);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
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

/// What to call `control` with; states go stale after a second unless a parameter says otherwise.
fn arguments_of(namespace: &str, parameters: &[&str]) -> Vec<String> {
    let mut arguments = vec!["--ros-args".to_owned()];
    if namespace != "/" {
        arguments.extend(["-r".to_owned(), format!("__ns:={namespace}")]);
    }
    let patient = "stale_timeout:=1.0";
    let says_when = parameters.iter().any(|p| p.starts_with("stale_timeout:="));
    for parameter in parameters.iter().chain((!says_when).then_some(&patient)) {
        arguments.extend(["-p".to_owned(), (*parameter).to_owned()]);
    }
    arguments
}

/// What root may and an ordinary user may not, in the program that is started now.
fn give_up_privileges() -> io::Result<()> {
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    const CAP_SYS_NICE: libc::c_ulong = 23;
    const CAP_SYS_RESOURCE: libc::c_ulong = 24;
    setrlimit(Resource::RLIMIT_MEMLOCK, 8 << 20, 8 << 20)?;
    setrlimit(Resource::RLIMIT_RTPRIO, 0, 0)?;
    for capability in [CAP_IPC_LOCK, CAP_SYS_NICE, CAP_SYS_RESOURCE] {
        // SAFETY: prctl takes numbers. It fails for whoever is not root, and has nothing to give up.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability) };
    }
    Ok(())
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
