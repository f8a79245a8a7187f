//! Runs a program and keeps what it prints in a file, for the day it fails.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// How many of the last lines an error shows.
const TAIL: usize = 12;

/// Runs `command` to its end under the lock of the set-up; each line that it prints goes to .deps/log/`log`.log
/// and to `on_line`.
pub fn run_logged(
    workspace: &Workspace,
    log: &str,
    command: &mut Command,
    mut on_line: impl FnMut(&str),
) -> Result<()> {
    let log = &workspace.log(log);
    let name = command.get_program().to_string_lossy().into_owned();
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let (reader, writer) = std::io::pipe()?;
    command
        .stdin(workspace.stdin())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    // The pipe ends only when the command's own copies of its writing end are closed.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut tail = VecDeque::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        writeln!(file, "{line}").with_context(|| {
            format!(
                "cannot write {}, which keeps what {name} prints; is the disk full?",
                log.display()
            )
        })?;
        on_line(&line);
        tail.push_back(line);
        if tail.len() > TAIL {
            tail.pop_front();
        }
    }
    let status = child.wait()?;
    if !status.success() {
        let tail = tail.into_iter().collect::<Vec<_>>().join("\n  ");
        bail!(
            "{name} failed ({status}); all that it printed is in {}, the end of it:\n  {tail}",
            log.display()
        );
    }
    Ok(())
}

/// What `command` prints on its standard output, or `None` where it cannot run or fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::run_logged;
    use crate::workspace::Workspace;

    #[test]
    fn failure_shows_the_last_lines_and_names_the_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path()).expect("a workspace");
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo the reason >&2; exit 3"]);
        let error = run_logged(&workspace, "sh", &mut command, |line| lines.push(line.to_owned()))
            .expect_err("exit code 3 is a failure")
            .to_string();
        assert!(
            error.contains("the reason") && error.contains("sh.log"),
            "{error}"
        );
        assert_eq!(lines.len(), 2);
        let log = std::fs::read_to_string(workspace.log("sh")).expect("a log");
        assert_eq!(log.lines().count(), 2);
    }

    #[test]
    fn disk_that_is_full_is_told_with_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path()).expect("a workspace");
        let log = workspace.log("sh");
        std::fs::create_dir_all(log.parent().expect("a folder")).expect("made");
        std::os::unix::fs::symlink("/dev/full", &log).expect("a link");
        let error = run_logged(
            &workspace,
            "sh",
            Command::new("sh").args(["-c", "echo out"]),
            |_| (),
        )
        .expect_err("no room");
        let text = format!("{error:#}");
        assert!(
            text.contains("sh.log") && text.contains("is the disk full?"),
            "{text}"
        );
    }

    #[test]
    fn program_that_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::at(folder.path()).expect("a workspace");
        let error = run_logged(
            &workspace,
            "none",
            &mut Command::new("no_such_program_here"),
            |_| (),
        )
        .expect_err("there is no such program");
        assert!(format!("{error:#}").contains("no_such_program_here"));
    }

    #[test]
    fn next_set_up_waits_for_what_an_earlier_one_left_running() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Workspace::at(folder.path()).expect("a workspace");
        first.lock().expect("locked");
        let mut command = Command::new("sh");
        command.args(["-c", "exec 3<&0; sleep 0.6 >/dev/null 2>&1 &"]); // its parent ends at once
        run_logged(&first, "sh", &mut command, |_| ()).expect("it ran");
        drop(first);
        let start = Instant::now();
        let second = Workspace::at(folder.path()).expect("a workspace");
        second.lock().expect("locked");
        assert!(
            start.elapsed() > Duration::from_millis(300),
            "did not wait: {:?}",
            start.elapsed()
        );
    }
}
