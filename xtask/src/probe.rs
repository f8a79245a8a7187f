//! What this machine has: one look each, without changing anything.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;
use crate::python::Python;
use crate::system;
use crate::workspace::Workspace;

/// Opens an EGL display and prints whose it is.
const EGL: &str = include_str!("../python/egl.py");

/// PCI vendor of NVIDIA.
const NVIDIA: &str = "0x10de";

/// The library of NVIDIA's driver.
const DRIVER: &str = "libcuda.so.1";

/// Bits of CapEff in /proc/self/status, from linux/capability.h.
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_NICE: u32 = 23;

/// Whose EGL draws without a screen, or `None`.
pub fn egl(workspace: &Workspace) -> Option<String> {
    let python = Python::find(workspace).ok()?;
    process::output(Command::new(python.program).args(["-I", "-c", EGL]))
}

/// Where programs share memory.
pub const SHARED_MEMORY: &str = "/dev/shm";

/// How the files begin that Fast DDS makes there.
pub const MIDDLEWARE_FILES: [&str; 4] = ["fastdds_", "fastrtps_", "sem.fastdds_", "sem.fastrtps_"];

/// This user's files of Fast DDS in `folder` that no running program has opened: those of programs that were killed.
pub fn left_by_middleware(folder: &Path) -> usize {
    let (Ok(entries), Ok(own)) = (fs::read_dir(folder), fs::metadata("/proc/self")) else {
        return 0;
    };
    // What others have opened cannot be seen.
    let is_own = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.uid() == own.uid());
    // A semaphore is mapped under another name than its file's, so that it is not known who holds it.
    let is_of_middleware = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with("sem.") && MIDDLEWARE_FILES.iter().any(|start| name.starts_with(start))
    };
    let paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(is_of_middleware)
        .filter(is_own)
        .collect();
    if paths.is_empty() {
        return 0;
    }
    let held = opened_below(folder);
    paths.iter().filter(|path| !held.contains(*path)).count()
}

/// Files below `folder` that programs have opened or mapped, as far as this user may look.
fn opened_below(folder: &Path) -> HashSet<PathBuf> {
    let mut opened = HashSet::new();
    let programs = fs::read_dir("/proc").into_iter().flatten().flatten();
    for program in programs.map(|entry| entry.path()) {
        let maps = fs::read_to_string(program.join("maps")).unwrap_or_default();
        let mapped = maps
            .lines()
            .filter_map(|line| line.find('/').and_then(|at| line.get(at..)));
        opened.extend(mapped.map(PathBuf::from));
        let links = fs::read_dir(program.join("fd")).into_iter().flatten().flatten();
        opened.extend(links.filter_map(|link| fs::read_link(link.path()).ok()));
    }
    opened.retain(|path| path.starts_with(folder));
    opened
}

/// The GPU, as its driver or the bus tells.
pub enum Gpu {
    /// Driver and card, as nvidia-smi names them.
    Ready(String),
    /// A card on the bus, but no driver that answers.
    NoDriver,
    /// No NVIDIA card.
    None,
}

/// Looks for an NVIDIA GPU.
pub fn gpu() -> Gpu {
    let query = [
        "--query-gpu=name,driver_version,memory.total",
        "--format=csv,noheader",
    ];
    match process::output(Command::new("nvidia-smi").args(query)) {
        Some(text) if !text.is_empty() => Gpu::Ready(text.lines().next().unwrap_or_default().to_owned()),
        _ if nvidia_on_bus(Path::new("/sys/bus/pci/devices")) => Gpu::NoDriver,
        _ => Gpu::None,
    }
}

fn nvidia_on_bus(devices: &Path) -> bool {
    let Ok(entries) = fs::read_dir(devices) else {
        return false;
    };
    let is_nvidia =
        |device: PathBuf| fs::read_to_string(device.join("vendor")).is_ok_and(|id| id.trim() == NVIDIA);
    entries.flatten().any(|entry| is_nvidia(entry.path()))
}

/// The first GPU's compute capability, as `9.0`.
pub fn compute_capability() -> Option<String> {
    let query = ["--query-gpu=compute_cap", "--format=csv,noheader"];
    let text = process::output(Command::new("nvidia-smi").args(query))?;
    text.lines().next().map(str::to_owned)
}

/// Whether the loader finds the driver's library.
pub fn cuda_driver() -> bool {
    let cache = ["/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"]
        .iter()
        .find_map(|program| process::output(Command::new(program).arg("-p")));
    let in_cache = cache.is_some_and(|text| text.contains(DRIVER));
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    in_cache || std::env::split_paths(&path).any(|folder| folder.join(DRIVER).exists())
}

/// The CUDA compiler's version line.
pub fn nvcc(workspace: &Workspace) -> Option<String> {
    let mut folders = system::search_path(workspace);
    folders.extend(
        ["CUDA_HOME", "CUDA_PATH"]
            .iter()
            .filter_map(std::env::var_os)
            .map(|home| Path::new(&home).join("bin")),
    );
    folders.push("/usr/local/cuda/bin".into());
    let text = process::output(Command::new(system::find_program(&folders, "nvcc")?).arg("--version"))?;
    text.lines()
        .find(|line| line.contains("release"))
        .map(|line| line.trim().to_owned())
}

/// Whether a real-time thread that wakes up interrupts a system call of another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preemption {
    /// It does, by the kernel's model of this name.
    Yes(&'static str),
    /// It waits for its end.
    No(&'static str),
}

impl Preemption {
    /// What the kernel does now, where this user may read it, what it was told at its start, or else how it was built;
    /// `None` where nothing of it can be read.
    pub fn read() -> Option<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
        let built = fs::read_to_string(format!("/boot/config-{}", release.trim())).ok();
        let built = built.or_else(|| process::output(Command::new("zcat").arg("/proc/config.gz")));
        let told = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let is_realtime = fs::read_to_string("/sys/kernel/realtime").is_ok_and(|flag| flag.trim() == "1");
        if is_realtime {
            return Some(Self::Yes("PREEMPT_RT"));
        }
        let now = fs::read_to_string("/sys/kernel/debug/sched/preempt").unwrap_or_default();
        Self::parse(&now, &told, &built.unwrap_or_default())
    }

    /// `now` is the list of models that a kernel with dynamic preemption shows, the one at work in brackets.
    fn parse(now: &str, told: &str, built: &str) -> Option<Self> {
        let models = [
            ("full", "CONFIG_PREEMPT=y", Self::Yes("full")),
            ("lazy", "CONFIG_PREEMPT_LAZY=y", Self::Yes("lazy")),
            ("voluntary", "CONFIG_PREEMPT_VOLUNTARY=y", Self::No("voluntary")),
            ("none", "CONFIG_PREEMPT_NONE=y", Self::No("none")),
        ];
        let at_work = now
            .split_whitespace()
            .find_map(|word| word.strip_prefix('(')?.strip_suffix(')'));
        let at_start = || {
            let mut words = told.split_whitespace().rev();
            words.find_map(|word| word.strip_prefix("preempt="))
        };
        let name = at_work.or_else(at_start);
        let by_name = models.iter().find(|(model, ..)| name == Some(*model));
        let by_build = || {
            models
                .iter()
                .find(|(_, option, _)| built.lines().any(|line| line == *option))
        };
        by_name.or_else(by_build).map(|(.., preemption)| *preemption)
    }
}

/// What the kernel lets this user do in real time.
pub struct RealTime {
    /// Highest SCHED_FIFO priority; 0: none.
    pub priority: u64,
    /// Memory that may be locked, bytes; `None`: any.
    pub locked_memory: Option<u64>,
}

impl RealTime {
    /// Reads limits and capabilities of this process.
    pub fn read() -> Option<Self> {
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        Self::parse(&limits, &status)
    }

    fn parse(limits: &str, status: &str) -> Option<Self> {
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        let capabilities = u64::from_str_radix(capabilities.trim(), 16).ok()?;
        let may = |bit: u32| capabilities & (1 << bit) != 0;
        let priority = if may(CAP_SYS_NICE) {
            Some(99)
        } else {
            soft(limits, "Max realtime priority")?
        };
        let locked_memory = if may(CAP_IPC_LOCK) {
            None
        } else {
            soft(limits, "Max locked memory")?
        };
        Some(Self {
            priority: priority.unwrap_or(99),
            locked_memory,
        })
    }
}

/// The soft limit `name`: `Some(None)` is unlimited, `None` is not listed.
fn soft(limits: &str, name: &str) -> Option<Option<u64>> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max locked memory         8388608              unlimited            bytes
Max realtime priority     0                    0
";

    #[test]
    fn limits_of_an_ordinary_user_are_read() {
        let found = RealTime::parse(LIMITS, "Name:\tx\nCapEff:\t0000000000000000\n").expect("parsed");
        assert_eq!((found.priority, found.locked_memory), (0, Some(8_388_608)));
    }

    #[test]
    fn what_the_kernel_was_told_last_goes_before_how_it_was_built() {
        let built = "# CONFIG_PREEMPT is not set\nCONFIG_PREEMPT_NONE=y\nCONFIG_PREEMPT_DYNAMIC=y\n";
        let parse = |told| Preemption::parse("", told, built);
        assert_eq!(parse("root=/dev/sda quiet\n"), Some(Preemption::No("none")));
        assert_eq!(
            parse("preempt=none quiet preempt=full\n"),
            Some(Preemption::Yes("full"))
        );
        assert_eq!(parse("preempt=lazy"), Some(Preemption::Yes("lazy")));
        assert_eq!(
            parse("preempt=sometimes"),
            Some(Preemption::No("none")),
            "the kernel ignores it"
        );
        assert_eq!(
            Preemption::parse("", "quiet", "CONFIG_PREEMPT=y"),
            Some(Preemption::Yes("full"))
        );
        assert_eq!(Preemption::parse("", "quiet", ""), None);
    }

    #[test]
    fn what_killed_programs_have_left_is_told_from_what_is_open() {
        let folder = tempfile::tempdir().expect("folder");
        let new = |name: &str| fs::File::create(folder.path().join(name)).expect("file");
        let _held = [new("fastdds_port7000"), new("other")];
        assert_eq!(left_by_middleware(folder.path()), 0, "all is open");
        drop(new("sem.fastdds_port7000_mutex"));
        assert_eq!(
            left_by_middleware(folder.path()),
            0,
            "nobody knows of a semaphore"
        );
        for name in ["fastdds_1234", "fastrtps_port7001_el", "mine"] {
            drop(new(name));
        }
        assert_eq!(left_by_middleware(folder.path()), 2);
        assert_eq!(left_by_middleware(Path::new("/no/such/folder")), 0);
    }

    #[test]
    fn what_the_kernel_does_now_goes_before_what_it_was_told() {
        let parse = |now| Preemption::parse(now, "preempt=none", "CONFIG_PREEMPT_NONE=y");
        assert_eq!(
            parse("none voluntary (full) lazy\n"),
            Some(Preemption::Yes("full"))
        );
        assert_eq!(
            parse("none (voluntary) full\n"),
            Some(Preemption::No("voluntary"))
        );
        assert_eq!(
            parse(""),
            Some(Preemption::No("none")),
            "not for this user to read"
        );
    }

    #[test]
    fn capabilities_lift_the_limits() {
        let found = RealTime::parse(LIMITS, "CapEff:\t0000000000804000\n").expect("parsed");
        assert_eq!((found.priority, found.locked_memory), (99, None));
    }
}
