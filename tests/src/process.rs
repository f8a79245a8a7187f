//! A program that a test has started. It ends with the test, however the test ends, and what it wrote is shown when
//! the test fails.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::until;

/// A program that is asked to end has this long before it is killed.
const GOODBYE: Duration = Duration::from_secs(3);
/// Lines of a log that a failure shows.
const SHOWN_LINES: usize = 40;

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in a process group of its own; what it prints goes into the file `log`.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file = File::create(log).expect("a log file");
        let output = file.try_clone().expect("a second handle of the log file");
        command.stdin(Stdio::null()).stdout(output).stderr(file);
        Self::spawn(name, command, log)
    }

    /// [`Process::start`] with standard input and output connected to the test.
    pub(crate) fn start_connected(
        name: &str,
        mut command: Command,
        log: &Path,
    ) -> (Self, ChildStdin, ChildStdout) {
        let file = File::create(log).expect("a log file");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut process = Self::spawn(name, command, log);
        let input = process.child.stdin.take().expect("its standard input");
        let output = process.child.stdout.take().expect("its standard output");
        (process, input, output)
    }

    fn spawn(name: &str, mut command: Command, log: &Path) -> Self {
        command.process_group(0);
        // SAFETY: prctl is async-signal-safe. The kernel then kills the program when this test's thread is gone, also
        // when the whole test program is killed and nothing is dropped.
        unsafe {
            command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
        }
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            ended: None,
        }
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until its log holds all of `words` in one line, and returns that line.
    pub fn says(&self, words: &[&str]) -> String {
        until(&format!("'{}' writes a line with {words:?}", self.name), || {
            let log = self.log();
            let line = log
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)));
            line.map(str::to_owned)
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the kernel says of a thread that it has started under that name: a field of `/proc/PID/task/ID/status`.
    pub fn thread(&self, name: &str, field: &str) -> Option<String> {
        let status = fs::read_to_string(self.task(name)?.join("status")).ok()?;
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    }

    /// The schedstat of a thread that it has started under that name: time on a core, time it waited for one, in ns, and
    /// time slices.
    pub fn schedstat(&self, name: &str) -> Option<PathBuf> {
        self.task(name).map(|task| task.join("schedstat"))
    }

    /// Where the kernel tells of a thread that it has started under that name: `/proc/PID/task/ID`.
    fn task(&self, name: &str) -> Option<PathBuf> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        let named = |thread: &Path| fs::read_to_string(thread.join("comm")).is_ok_and(|n| n.trim() == name);
        threads
            .filter_map(|thread| Some(thread.ok()?.path()))
            .find(|thread| named(thread))
    }

    /// How the kernel schedules each of its threads whose name begins so: policy and real-time priority, as in
    /// `/proc/PID/task/ID/stat`. `(1, 50)` is SCHED_FIFO at 50, `(0, 0)` is what every thread begins with.
    pub fn scheduling(&self, name: &str) -> Vec<(u64, u64)> {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.child.id())) else {
            return Vec::new();
        };
        let stats = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
        stats.filter_map(|stat| scheduled(&stat, name)).collect()
    }

    /// The time that cores have spent on it.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // After the name, which may hold anything: fields 14 and 15 are user and system time in 1/100 s.
        let after_name = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let hundredths = after_name.split(' ').skip(11).take(2);
        let hundredths: u64 = hundredths.filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(10 * hundredths)
    }

    /// Sends `signal` to it.
    pub fn signal(&self, signal: Signal) {
        killpg(self.group(), signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// Waits until it has ended by itself or by a signal.
    pub fn ended(&mut self) -> ExitStatus {
        until(&format!("'{}' has ended", self.name), || self.has_ended())
    }

    /// Its exit status, once it has ended.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("its state");
        }
        self.ended
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// Asks it to end, then makes it end.
    fn end(&mut self) {
        if self.has_ended().is_some() {
            return;
        }
        // It may end on its own between two lines; then there is nobody to tell.
        let _ = killpg(self.group(), Signal::SIGTERM);
        let deadline = Instant::now() + GOODBYE;
        while self.has_ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.ended.is_none() {
            let _ = killpg(self.group(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Policy and real-time priority of a thread whose name begins so, from its `stat`.
fn scheduled(stat: &str, name: &str) -> Option<(u64, u64)> {
    // The name may hold anything; fields 3 and further follow it.
    let (before, fields) = stat.rsplit_once(") ")?;
    let (_, own) = before.split_once('(')?;
    let field = |number: usize| fields.split(' ').nth(number - 3)?.trim().parse::<u64>().ok();
    own.starts_with(name).then_some((field(41)?, field(40)?))
}

impl Drop for Process {
    fn drop(&mut self) {
        let is_failure = std::thread::panicking();
        self.end();
        if is_failure {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("---- last lines of {} ----\n{}", self.name, tail.join("\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::scheduled;

    #[test]
    fn policy_and_priority_are_those_of_the_threads_of_that_name() {
        let stat = "7 (dds.ev) x) S 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 -51 0 9 0 300 5 6 7 8 9 10 11 12 0 0 0 13 0 0 0 -1 1 49 1 0 0 0\n";
        assert_eq!(scheduled(stat, "dds."), Some((1, 49)));
        assert_eq!(scheduled(stat, "control_loop"), None);
        assert_eq!(scheduled("7 (dds.ev) S 1 7", "dds."), None, "cut short");
    }
}
