//! `cargo xtask demo`: set-up, release build, then the demo takes the place of this process.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cargo::{self, Metadata};
use crate::setup;
use crate::workspace::Workspace;

/// What the demo is told.
#[derive(clap::Args)]
pub struct Args {
    /// Stop after this many seconds of the demo itself.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Seed of the training and of the network weights.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print lines instead of a live screen, and one JSON object at the end.
    #[arg(long)]
    headless: bool,
    /// More options for the demo itself, after `--`.
    #[arg(last = true, value_name = "OPTIONS")]
    rest: Vec<String>,
}

impl Args {
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for (name, value) in [("--seconds", self.seconds), ("--seed", self.seed)] {
            words.extend(
                value
                    .into_iter()
                    .flat_map(|value| [name.to_owned(), value.to_string()]),
            );
        }
        words.extend(self.headless.then(|| "--headless".to_owned()));
        words.extend(self.rest.iter().cloned());
        words
    }
}

/// Shows the demo; comes back only when it cannot be started.
pub fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let environment = setup::run(workspace)?;
    let mut build = cargo::command(workspace, &environment);
    build
        .arg("build")
        .args(cargo::WHOLE)
        .args(["--bins", "--exclude", "xtask"]);
    cargo::run(build)?;
    let program = Metadata::read(workspace)?.release_folder()?.join("mfpo_demo");
    let mut demo = Command::new(&program);
    environment.apply(&mut demo);
    let error = demo.args(args.words()).current_dir(workspace.root()).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::Args;

    #[test]
    fn options_reach_the_demo_in_order() {
        let args = Args {
            seconds: Some(60),
            seed: Some(3),
            headless: true,
            rest: vec!["--keep".into()],
        };
        assert_eq!(
            args.words(),
            ["--seconds", "60", "--seed", "3", "--headless", "--keep"]
        );
        let none = Args {
            seconds: None,
            seed: None,
            headless: false,
            rest: Vec::new(),
        };
        assert!(none.words().is_empty());
    }
}
