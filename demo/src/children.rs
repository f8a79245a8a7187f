//! The processes of the demo. None of them outlives it: each is asked with SIGINT, killed after three seconds, and
//! killed by the kernel should the demo itself be killed.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getppid};

/// A process has this long to end after SIGINT.
const GRACE: Duration = Duration::from_secs(3);
/// The control node has this long for its last safe command, while the robot still listens.
const LAST_COMMAND: Duration = Duration::from_millis(1_500);
/// How often the ends of processes are looked for.
const LOOK: Duration = Duration::from_millis(20);
/// SCHED_RR priority of [`Priority::First`], below that of the control thread.
const FIRST: libc::c_int = 40;
/// Nice value of [`Priority::First`] where real-time priorities are not permitted.
const FIRST_NICE: libc::c_int = -10;
/// Nice value of [`Priority::Last`].
const LAST_NICE: libc::c_int = 19;
/// Lines of a log that are shown when its process has died.
const TAIL: usize = 12;

/// One process.
pub struct Process {
    /// What it is called.
    pub name: &'static str,
    /// Its output.
    pub log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

/// What to start.
pub struct Program {
    /// What it is called.
    pub name: &'static str,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where its output goes.
    pub log: PathBuf,
    /// When it gets a processor.
    pub priority: Priority,
}

/// When a process gets a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Before every other process, where that is permitted.
    First,
    /// As everyone.
    Ordinary,
    /// When nobody else wants it.
    Last,
}

impl Program {
    /// Starts it with standard output and error in the log.
    pub fn start(self) -> anyhow::Result<Process> {
        self.start_with(false).map(|(process, _)| process)
    }

    /// Starts it with standard error in the log, and hands its standard output over.
    pub fn start_and_read(self) -> anyhow::Result<(Process, ChildStdout)> {
        let (process, output) = self.start_with(true)?;
        Ok((process, output.context("standard output was not piped")?))
    }

    // The kernel's death signal is tied to the thread that starts a process: call this on the main thread.
    fn start_with(self, piped: bool) -> anyhow::Result<(Process, Option<ChildStdout>)> {
        let log = File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stderr(log.try_clone()?)
            .stdout(if piped { Stdio::piped() } else { Stdio::from(log) })
            .process_group(0);
        let parent = nix::unistd::getpid();
        let priority = self.priority;
        // SAFETY: between fork and exec only system calls are made, which are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                priority.apply();
                // The parent may have died before the line above.
                if getppid() == parent {
                    Ok(())
                } else {
                    Err(std::io::ErrorKind::BrokenPipe.into())
                }
            });
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        tracing::info!("started {} as process {}", self.name, child.id());
        let output = child.stdout.take();
        let process = Process {
            name: self.name,
            log: self.log,
            child,
            ended: None,
        };
        Ok((process, output))
    }
}

impl Priority {
    /// Gives it to the calling process, as far as that is permitted. Robot and control node stand for what has
    /// processors of its own on a real robot.
    fn apply(self) {
        let parameters = libc::sched_param {
            sched_priority: FIRST,
        };
        let nice = |nice| {
            // SAFETY: takes numbers, is async-signal-safe, concerns the calling process, changes nothing on failure.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
        };
        match self {
            // SAFETY: as above; the pointer is valid for the call.
            Self::First => match unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &parameters) } {
                0 => {}
                _ => nice(FIRST_NICE),
            },
            Self::Ordinary => {}
            Self::Last => nice(LAST_NICE),
        }
    }
}

impl Process {
    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Does it run before ordinary processes?
    pub fn is_realtime(&self) -> bool {
        let id = libc::pid_t::try_from(self.child.id()).unwrap_or(0);
        // SAFETY: takes a number and changes nothing.
        unsafe { libc::sched_getscheduler(id) == libc::SCHED_RR }
    }

    /// Sends a signal to its process group, if it is still there.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_some() {
            return;
        }
        let group = i32::try_from(self.child.id()).map(Pid::from_raw);
        if let Ok(group) = group
            && let Err(error) = killpg(group, signal)
        {
            tracing::warn!("{signal} does not reach {}: {error}", self.name);
        }
    }

    fn ends_until(&mut self, deadline: Instant, hurry: &dyn Fn() -> bool) -> bool {
        while self.ended().is_none() {
            if Instant::now() >= deadline || hurry() {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// Kills it and waits for its end.
    fn kill(&mut self) {
        if self.ended().is_none() {
            tracing::warn!("{} did not end when it was asked to, and is killed", self.name);
            self.signal(Signal::SIGKILL);
            self.ended = self.child.wait().ok();
        }
    }

    /// That it has died, how, and the end of its log.
    pub fn obituary(&mut self) -> String {
        let how = self.ended().map_or_else(|| "runs".to_owned(), describe);
        let tail = tail(&self.log);
        let said = if tail.is_empty() {
            "It has said nothing.".to_owned()
        } else {
            format!("The end of its log:\n{tail}")
        };
        format!("{} {how}. {said}\nAll of it: {}", self.name, self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = Signal::try_from(signal).map_or_else(|_| signal.to_string(), |s| s.to_string());
            format!("was ended by {name}")
        }
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Ends the processes in good order: all are asked, but the robot only after the control node has sent it a last
/// safe command. Whoever is still there after three seconds, or when `hurry` says so, is killed.
pub fn stop(
    control: Option<&mut Process>,
    robot: Option<&mut Process>,
    trainer: Option<&mut Process>,
    hurry: &dyn Fn() -> bool,
) {
    let began = Instant::now();
    let (mut control, mut robot, mut trainer) = (control, robot, trainer);
    for process in [&mut control, &mut trainer].into_iter().flatten() {
        process.signal(Signal::SIGINT);
    }
    if let Some(control) = &mut control {
        control.ends_until(began + LAST_COMMAND, hurry);
    }
    if let Some(robot) = &mut robot {
        robot.signal(Signal::SIGINT);
    }
    for process in [&mut robot, &mut control, &mut trainer].into_iter().flatten() {
        process.ends_until(began + GRACE, hurry);
        process.kill();
    }
}

/// The last lines of a file.
fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(TAIL)..];
    tail.iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell cannot trap a signal that was ignored when it began, as SIGINT is in whatever was started with `&`.
    fn shell(script: &str, folder: &Path) -> Process {
        Program {
            name: "shell",
            path: "/usr/bin/env".into(),
            arguments: ["--default-signal=INT", "/bin/sh", "-c", script]
                .map(Into::into)
                .into(),
            log: folder.join("shell.log"),
            priority: Priority::Ordinary,
        }
        .start()
        .unwrap()
    }

    /// A process that is dead may still be waiting for init to take note.
    fn is_dead(id: &str) -> bool {
        fs::read_to_string(format!("/proc/{id}/stat")).map_or(true, |stat| stat.contains(") Z "))
    }

    #[test]
    fn a_process_that_ignores_the_request_is_killed_with_its_own_processes() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell("trap '' INT; sleep 60 & echo $!; wait; sleep 60", folder.path());
        let grandchild = loop {
            let said = fs::read_to_string(folder.path().join("shell.log")).unwrap();
            if let Some(id) = said.strip_suffix('\n') {
                break id.to_owned();
            }
            std::thread::sleep(LOOK);
        };
        assert!(!is_dead(&grandchild));
        stop(Some(&mut process), None, None, &|| true);
        assert!(process.obituary().contains("SIGKILL"), "{}", process.obituary());
        let deadline = Instant::now() + GRACE;
        while !is_dead(&grandchild) {
            assert!(Instant::now() < deadline, "process {grandchild} lives on");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_process_that_obeys_is_not_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(
            "trap 'exit 7' INT; echo ready; while :; do sleep 0.01; done",
            folder.path(),
        );
        while !process.obituary().contains("ready") {
            std::thread::sleep(LOOK);
        }
        stop(None, Some(&mut process), None, &|| false);
        assert_eq!(process.ended().and_then(|status| status.code()), Some(7));
    }

    #[test]
    fn an_obituary_shows_the_end_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(
            "for i in $(seq 30); do echo line $i; done; echo broken >&2; exit 3",
            folder.path(),
        );
        while process.ended().is_none() {
            std::thread::sleep(LOOK);
        }
        let obituary = process.obituary();
        assert!(
            obituary.contains("exit code 3") && obituary.contains("broken"),
            "{obituary}"
        );
        assert!(obituary.contains("line 30") && !obituary.contains("line 12\n"));
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program {
            name: "robot",
            path: "/nowhere/robot".into(),
            arguments: Vec::new(),
            log: folder.path().join("robot.log"),
            priority: Priority::Ordinary,
        };
        let error = format!("{:#}", program.start().err().unwrap());
        assert!(error.contains("/nowhere/robot"), "{error}");
    }
}
