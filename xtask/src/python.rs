//! The Python that the wheels are installed for.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use crate::process;
use crate::system;
use crate::workspace::Workspace;

/// Minor versions of Python 3 that the wheels exist for.
const OLDEST: u32 = 10;
const NEWEST: u32 = 13;

/// The one to ask for where there is none of them.
pub const FITTING: &str = "python3.12";

/// Names to look for, the usual one first.
const NAMES: [&str; 5] = ["python3", "python3.13", "python3.12", "python3.11", "python3.10"];

/// Prints what [`Python`] holds, a line each.
const PROBE: &str = "\
import importlib.util as u, os, sys, sysconfig
print(*sys.version_info[:2])
print(u.find_spec('venv') is not None and u.find_spec('ensurepip') is not None)
print(os.path.isfile(os.path.join(sysconfig.get_path('include'), 'Python.h')))";

/// A Python that the wheels fit.
#[derive(Debug)]
pub struct Python {
    /// The program.
    pub program: PathBuf,
    /// Major and minor version.
    pub version: (u32, u32),
    /// Whether it can make virtual environments.
    pub has_venv: bool,
    /// Whether C code can be compiled against it.
    pub has_headers: bool,
}

/// No Python that the wheels fit was found.
#[derive(Debug)]
pub struct NotFound {
    /// Major and minor versions of those that do not fit.
    pub seen: Vec<(u32, u32)>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen: Vec<_> = self
            .seen
            .iter()
            .map(|(major, minor)| format!("{major}.{minor}"))
            .collect();
        let seen = if seen.is_empty() {
            "none".to_owned()
        } else {
            seen.join(", ")
        };
        write!(
            formatter,
            "Python: expected 3.{OLDEST} to 3.{NEWEST}, got {seen}; one from elsewhere does, too, where PATH has it under its \
             name, as {FITTING}"
        )
    }
}

impl Python {
    /// The first Python on PATH, outside of .deps, that the wheels exist for.
    pub fn find(workspace: &Workspace) -> Result<Self, NotFound> {
        let folders = system::search_path(workspace);
        let mut seen = Vec::new();
        for program in NAMES
            .iter()
            .filter_map(|name| system::find_program(&folders, name))
        {
            let Some(python) = Self::probe(program) else {
                continue;
            };
            if fits(python.version) {
                return Ok(python);
            }
            seen.push(python.version);
        }
        seen.dedup();
        Err(NotFound { seen })
    }

    /// What the program is called, which is how its packages begin.
    pub fn name(&self) -> String {
        self.program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    fn probe(program: PathBuf) -> Option<Self> {
        let text = process::output(Command::new(&program).args(["-I", "-c", PROBE]))?;
        let mut lines = text.lines();
        let version = parse_version(lines.next()?)?;
        let mut flag = || lines.next().map(|line| line == "True");
        Some(Self {
            program,
            version,
            has_venv: flag()?,
            has_headers: flag()?,
        })
    }
}

fn fits((major, minor): (u32, u32)) -> bool {
    major == 3 && (OLDEST..=NEWEST).contains(&minor)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{NotFound, fits, parse_version};

    #[test]
    fn only_pythons_with_wheels_fit() {
        let fitting: Vec<_> = (8..16).filter(|minor| fits((3, *minor))).collect();
        assert_eq!(fitting, [10, 11, 12, 13]);
        assert!(!fits((2, 11)));
    }

    #[test]
    fn version_is_read_as_python_prints_it() {
        assert_eq!(parse_version("3 12"), Some((3, 12)));
        assert_eq!(parse_version("3.12"), None);
    }

    #[test]
    fn unfit_pythons_are_listed() {
        let text = NotFound {
            seen: vec![(3, 9), (3, 14)],
        }
        .to_string();
        assert!(
            text.starts_with("Python: expected 3.10 to 3.13, got 3.9, 3.14;"),
            "{text}"
        );
    }
}
