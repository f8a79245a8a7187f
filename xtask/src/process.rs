//! Runs a program and keeps what it prints in a file, for the day it fails.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// How many of the last lines an error shows.
const TAIL: usize = 12;

/// Runs `command` to its end; each line that it prints goes to the file `log` and to `on_line`.
pub fn run_logged(command: &mut Command, log: &Path, mut on_line: impl FnMut(&str)) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let (reader, writer) = std::io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    // The pipe ends only when the command's own copies of its writing end are closed.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut tail = VecDeque::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        writeln!(file, "{line}")?;
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

    use super::run_logged;

    #[test]
    fn failure_shows_the_last_lines_and_names_the_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("logs/sh.log");
        let mut lines = Vec::new();
        let error = run_logged(
            Command::new("sh").args(["-c", "echo out; echo the reason >&2; exit 3"]),
            &log,
            |line| lines.push(line.to_owned()),
        )
        .expect_err("exit code 3 is a failure")
        .to_string();
        assert!(
            error.contains("the reason") && error.contains("sh.log"),
            "{error}"
        );
        assert_eq!(lines.len(), 2);
        assert_eq!(std::fs::read_to_string(log).expect("a log").lines().count(), 2);
    }

    #[test]
    fn program_that_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let error = run_logged(&mut Command::new("no_such_program_here"), &log, |_| ())
            .expect_err("there is no such program");
        assert!(format!("{error:#}").contains("no_such_program_here"));
    }
}
